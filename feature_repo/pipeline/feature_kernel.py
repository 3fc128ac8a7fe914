"""Compiled feature kernels: a book row updates a state, the end of a bar turns the state into the feature vector.

All that is compiled together stands in this file, because numba notices a change of the caller's file alone. The state
is one float64 array, so that a call from Python hands over little; lots in it are whole or half numbers, whose sums are
exact: over a window they take the new bar in and the old one out. All else is summed anew over the bars of a ring at
every close, so that nothing drifts. `definitions` and docs/features.md say what each feature is.
"""

import numpy as np
from numba import njit

NS = 1_000_000_000
WINDOW_BARS = 60
LEVELS = 5  # levels a side of the multi-level features and the slope
TIME_GRID, EVENT_GRID, VOLUME_GRID = 0, 1, 2
VPIN_BUCKETS = 50
BUCKETS_A_DAY = 50.0
OPENING = 0.1  # share of the day whose burst of trades says little of the rest
LN2 = 0.6931471805599453

# Ring columns. First the sums of the running bar, which the state holds at the same places; then what closing adds.
OFI = 0  # to OFI + LEVELS - 1
DEPTH, DEPTH_N, SIGNED, VOLUME, EVENTS = 5, 6, 7, 8, 9
DEPTH_ALL, DEPTH_ALL_N, TRADES, CANCELLED, CHANGED, TRADED = 10, 11, 12, 13, 14, 15
SUMS = 16
SPAN, RETURN, SQUARE, BIPOWER, UP, DOWN, CROSS, SIGNED_2, ILLIQUID = 16, 17, 18, 19, 20, 21, 22, 23, 24
COLUMNS = 25
BARS_AND_SUMS = WINDOW_BARS + 3  # rows of the ring: 60 bars, then the sums over the last 1, 10 and 60 of them

# Places in the state after the sums.
LAST_MID, LAST_RETURN, CLOSED, LAST_CLOSE = (
    16,
    17,
    18,
    19,
)  # mid, return, number and end (ns after open) of the last bar
OPEN_S, OPEN_NS, LENGTH, PASSED, TRADING = 20, 21, 22, 23, 24  # the window's open, trading time of window, before, day
GRID, STEP = 25, 26
TAKEN_BID, TAKEN_ASK = 27, 28  # traded lots that no decrease of the best has explained yet
HAWKES_AT, HAWKES = 29, 30  # ns after the open; buys and sells, 1 s and 10 s
VPIN_SIZE, VPIN_NEXT, VPIN_FILLED, VPIN_SIGNED, VPIN_COUNT, VPIN_ONE_SIDED, VPIN_LOTS = 34, 35, 36, 37, 38, 39, 40
DAY_LOTS, USUAL_LOTS, USUAL_BUCKETS = 41, 42, 43  # traded so far; of a usual day (0: not known), its curve's buckets
VPIN = 44  # ring of buckets: one-sided lots, lots
BOOK = VPIN + 2 * VPIN_BUCKETS  # the last row: (4, K) bid price, bid size, ask price, ask size


@njit(cache=True)
def _after_open(state, ts_ns):
    """Nanoseconds since the window's open: the open is kept in two numbers, a float64 holds no such integer exactly."""
    return float(ts_ns - (np.int64(state[OPEN_S]) * NS + np.int64(state[OPEN_NS])))


@njit(cache=True)
def _changed(state, taken, sign, price, size, was_price, was_size):
    """Count what joined and left one side's best queue; `sign` is 1 for bids, -1 for asks."""
    more, less = 0.0, 0.0
    if price == was_price:
        more, less = max(size - was_size, 0.0), max(was_size - size, 0.0)
    elif sign * price > sign * was_price:
        more = size
    else:
        less = was_size
    explained = min(less, state[taken])
    state[taken] -= explained
    state[CHANGED] += more + less
    state[CANCELLED] += less - explained


@njit(cache=True)
def _push_bucket(state, one_sided, lots):
    """A VPIN bucket is full: it replaces the oldest of the ring."""
    at = VPIN + 2 * (np.int64(state[VPIN_COUNT]) % VPIN_BUCKETS)
    state[VPIN_ONE_SIDED] += one_sided - state[at]
    state[VPIN_LOTS] += lots - state[at + 1]
    state[at], state[at + 1] = one_sided, lots
    state[VPIN_COUNT] += 1.0


@njit(cache=True)
def _fill_bucket(state, lots, side):
    """Put a trade into volume buckets (Easley, Lopez de Prado and O'Hara 2012); a large one fills several."""
    size = state[VPIN_SIZE]
    room = max(size - state[VPIN_FILLED], 0.0)
    if size == 0.0 or lots < room:
        state[VPIN_FILLED] += lots
        state[VPIN_SIGNED] += side * lots
        return
    _push_bucket(state, abs(state[VPIN_SIGNED] + side * room), state[VPIN_FILLED] + room)
    size, left = state[VPIN_NEXT], lots - room
    whole = np.floor(left / size)
    for _ in range(min(whole, VPIN_BUCKETS)):
        _push_bucket(state, abs(side) * size, size)
    left -= whole * size
    state[VPIN_SIZE], state[VPIN_FILLED], state[VPIN_SIGNED] = size, left, side * left


@njit(cache=True)
def _trade(state, ts_ns, lots, side):
    """A trade: flows, Hawkes intensities, VPIN."""
    state[SIGNED] += side * lots
    state[VOLUME] += lots
    state[TRADES] += 1.0
    state[TRADED] = 1.0  # a bar's flag, so that a window's sum counts the bars with trades
    if side != 0.0:
        now = _after_open(state, ts_ns)
        fast = np.exp(-LN2 * (now - state[HAWKES_AT]) / 1e9)
        slow = np.exp(-LN2 * (now - state[HAWKES_AT]) / 1e10)
        buy = 0.5 * (1.0 + side)
        state[HAWKES_AT] = now
        state[HAWKES] = state[HAWKES] * fast + buy
        state[HAWKES + 1] = state[HAWKES + 1] * fast + (1.0 - buy)
        state[HAWKES + 2] = state[HAWKES + 2] * slow + buy
        state[HAWKES + 3] = state[HAWKES + 3] * slow + (1.0 - buy)
        state[TAKEN_ASK if side > 0.0 else TAKEN_BID] += lots
    _fill_bucket(state, lots, side)


@njit(cache=True)
def update_row(state, bid_px, bid_sz, ask_px, ask_sz, row, ts_ns, trade_sz, trade_side):
    """Take book row `row` of the side arrays `(T, K)`; True where it fills a bar of the event or volume grid."""
    if trade_sz > 0:
        _trade(state, ts_ns, float(trade_sz), float(trade_side))
    depth = bid_sz.shape[1]
    for k in range(min(depth, LEVELS)):
        bid, qb, ask, qa = float(bid_px[row, k]), float(bid_sz[row, k]), float(ask_px[row, k]), float(ask_sz[row, k])
        was_bid, was_qb = state[BOOK + k], state[BOOK + depth + k]
        was_ask, was_qa = state[BOOK + 2 * depth + k], state[BOOK + 3 * depth + k]
        if qb > 0.0 and qa > 0.0:
            if was_qb > 0.0 and was_qa > 0.0:
                joined = (qb if bid >= was_bid else 0.0) - (qa if ask <= was_ask else 0.0)
                left = (was_qb if bid <= was_bid else 0.0) - (was_qa if ask >= was_ask else 0.0)
                state[OFI + k] += joined - left
            state[DEPTH_ALL] += 0.5 * (qb + qa)
            state[DEPTH_ALL_N] += 1.0
            if k == 0:
                state[DEPTH] += 0.5 * (qb + qa)
                state[DEPTH_N] += 1.0
        if k == 0:
            if qb > 0.0 and was_qb > 0.0 and (qb != was_qb or bid != was_bid):
                _changed(state, TAKEN_BID, 1.0, bid, qb, was_bid, was_qb)
            if qa > 0.0 and was_qa > 0.0 and (qa != was_qa or ask != was_ask):
                _changed(state, TAKEN_ASK, -1.0, ask, qa, was_ask, was_qa)
    for k in range(depth):
        state[BOOK + k], state[BOOK + depth + k] = bid_px[row, k], bid_sz[row, k]
        state[BOOK + 2 * depth + k], state[BOOK + 3 * depth + k] = ask_px[row, k], ask_sz[row, k]
    state[EVENTS] += 1.0
    if state[GRID] == TIME_GRID:
        return False
    full = state[EVENTS if state[GRID] == EVENT_GRID else VOLUME] >= state[STEP]
    return full and _after_open(state, ts_ns) <= state[LENGTH]


@njit(cache=True)
def update_levels(state, levels, ts_ns, trade_sz, trade_side):
    """As `update_row`, for one row `levels (4, K) int32`."""
    return update_row(state, levels[0:1], levels[1:2], levels[2:3], levels[3:4], 0, ts_ns, trade_sz, trade_side)


@njit(cache=True)
def two_sided(state):
    """True where the last row has both sides and they do not cross or lock."""
    depth = (state.shape[0] - BOOK) // 4
    bid, qb, ask, qa = state[BOOK], state[BOOK + depth], state[BOOK + 2 * depth], state[BOOK + 3 * depth]
    return qb > 0.0 and qa > 0.0 and ask > bid


@njit(cache=True)
def _mid(state):
    return 0.5 * (state[BOOK] + state[BOOK + (state.shape[0] - BOOK) // 2])


@njit(cache=True)
def open_window(state, ring, open_ns, close_ns):
    """Forget all flows: a session window opens; the book stays."""
    state[:SUMS] = 0.0
    ring[:] = 0.0
    state[PASSED] += state[LENGTH]
    state[OPEN_S], state[OPEN_NS], state[LENGTH] = open_ns // NS, open_ns % NS, close_ns - open_ns
    state[LAST_RETURN] = state[CLOSED] = state[LAST_CLOSE] = 0.0
    state[TAKEN_BID:VPIN_SIZE] = 0.0
    state[VPIN_FILLED:DAY_LOTS] = 0.0
    state[VPIN:BOOK] = 0.0
    state[VPIN_SIZE] = state[VPIN_NEXT]
    state[LAST_MID] = _mid(state) if two_sided(state) else 0.0


@njit(cache=True)
def _ratio(value, total):
    return value / total if total > 0.0 else 0.0


@njit(cache=True)
def _close_sums(state, ring, now):
    """End a bar: it takes the oldest one's place in the ring, and the sums of the windows follow."""
    mid = _mid(state) if two_sided(state) else state[LAST_MID]
    move = 1e4 * np.log(mid / state[LAST_MID]) if mid > 0.0 and state[LAST_MID] > 0.0 else 0.0
    closed = np.int64(state[CLOSED])
    bar, left = ring[closed % WINDOW_BARS], ring[(closed + WINDOW_BARS - 10) % WINDOW_BARS]
    sums = ring[WINDOW_BARS:]
    signed, volume = state[SIGNED], state[VOLUME]
    for column in range(SUMS):
        new = state[column]
        sums[0, column] = new
        sums[1, column] += new - left[column]
        sums[2, column] += new - bar[column]
        bar[column] = new
    state[:SUMS] = 0.0
    square = move**2
    bar[SPAN], bar[RETURN], bar[SQUARE] = (now - state[LAST_CLOSE]) / 1e9, move, square
    bar[BIPOWER] = abs(move) * abs(state[LAST_RETURN])
    bar[UP], bar[DOWN] = (square if move > 0.0 else 0.0), (square if move < 0.0 else 0.0)
    bar[CROSS], bar[SIGNED_2] = signed * move, signed**2
    bar[ILLIQUID] = _ratio(abs(move), volume)
    state[LAST_MID], state[LAST_RETURN], state[LAST_CLOSE] = mid, move, now
    state[TAKEN_BID] = state[TAKEN_ASK] = 0.0
    state[CLOSED] += 1.0
    state[DAY_LOTS] += volume
    _sum_anew(ring, closed, min(closed + 1, WINDOW_BARS))


@njit(cache=True)
def _sum_anew(ring, newest, bars):
    """Sums of what is no whole number over the last 10 and 60 of `bars` bars, newest first."""
    sums, slot = ring[WINDOW_BARS:], newest % WINDOW_BARS
    span = moves = squares = bipower = pairs = up = down = cross = signed_2 = illiquid = 0.0
    for back in range(bars):
        if back == 10:
            sums[1, SPAN], sums[1, RETURN], sums[1, SQUARE] = span, moves, squares
        span += ring[slot, SPAN]
        moves += ring[slot, RETURN]
        squares += ring[slot, SQUARE]
        pairs, bipower = bipower, bipower + ring[slot, BIPOWER]
        up += ring[slot, UP]
        down += ring[slot, DOWN]
        cross += ring[slot, CROSS]
        signed_2 += ring[slot, SIGNED_2]
        illiquid += ring[slot, ILLIQUID]
        slot = slot - 1 if slot > 0 else WINDOW_BARS - 1
    if bars <= 10:
        sums[1, SPAN], sums[1, RETURN], sums[1, SQUARE] = span, moves, squares
    sums[2, RETURN], sums[2, SQUARE], sums[2, UP], sums[2, DOWN] = moves, squares, up, down
    sums[2, BIPOWER] = pairs  # n bars have n - 1 pairs: the oldest bar's reaches out of the window
    sums[2, CROSS], sums[2, SIGNED_2], sums[2, ILLIQUID] = cross, signed_2, illiquid


@njit(cache=True)
def _steepness(price, size, mid):
    """One side's part of the slope of Naes and Skjeltorp (2006), log lots per bps; sizes `(K,)` best first."""
    total, was_volume, was_price, lots, levels = 0.0, 0.0, mid, 0.0, 0.0
    for k in range(min(price.shape[0], LEVELS)):
        if size[k] <= 0.0 or price[k] == was_price or was_price == 0.0:
            break
        lots += size[k]
        volume = np.log1p(lots)
        growth = volume / was_volume - 1.0 if k > 0 else volume
        total += growth / (1e4 * abs(price[k] / was_price - 1.0))
        was_volume, was_price, levels = volume, price[k], levels + 1.0
    return _ratio(total, levels)


@njit(cache=True)
def _book_features(state, sums, table, out):
    """Features of the book that stands at the close, which has two sides."""
    depth = (state.shape[0] - BOOK) // 4
    bid_px, bid_sz = state[BOOK : BOOK + depth], state[BOOK + depth : BOOK + 2 * depth]
    ask_px, ask_sz = state[BOOK + 2 * depth : BOOK + 3 * depth], state[BOOK + 3 * depth :]
    bid, qb, ask, qa = bid_px[0], bid_sz[0], ask_px[0], ask_sz[0]
    mid, bids, asks = 0.5 * (bid + ask), 0.0, 0.0
    for k in range(depth):
        bids += bid_sz[k]
        asks += ask_sz[k]
    out[0] = ask - bid
    out[1] = (ask * qb + bid * qa) / (qa + qb) - mid
    out[2] = (qb - qa) / (qb + qa)
    out[3] = _ratio(bids - asks, bids + asks)
    for i in range(3):
        rows, all_rows = sums[i, DEPTH_N], sums[i, DEPTH_ALL_N]
        out[4 + i] = sums[i, OFI] / (sums[i, DEPTH] / rows if rows > 0.0 else 0.5 * (qb + qa))
        if all_rows > 0.0:
            mean_depth, total = sums[i, DEPTH_ALL] / all_rows, 0.0
            for k in range(min(depth, LEVELS)):
                total += sums[i, OFI + k]
                if i == 1:
                    out[16 + k] = sums[i, OFI + k] / mean_depth
            out[21 + i] = total / (min(depth, LEVELS) * mean_depth)
    # Between the centres of the imbalance buckets the table is linear, so that no edge favours a side.
    place = min(max(qb / (qb + qa) * table.shape[0] - 0.5, 0.0), table.shape[0] - 1.0)
    low, column = min(np.int64(place), table.shape[0] - 2), min(np.int64(ask - bid), table.shape[1]) - 1
    out[24] = table[low, column] + (place - low) * (table[low + 1, column] - table[low, column])
    out[25], out[26] = np.log1p(qb + qa), np.log1p(bids + asks)
    demand, supply = _steepness(bid_px, bid_sz, mid), _steepness(ask_px, ask_sz, mid)
    out[27], out[28] = 0.5 * (demand + supply), _ratio(demand - supply, demand + supply)


@njit(cache=True)
def _flow_features(state, sums, now, out):
    """Features of returns, trades and events of the windows."""
    bars = min(state[CLOSED], float(WINDOW_BARS))
    for i in range(1, 3):
        out[6 + i] = np.sqrt(sums[i, SQUARE])
        out[8 + i] = sums[i, RETURN]
        out[10 + i] = _ratio(sums[i, SIGNED], sums[i, VOLUME])
    out[13] = np.log1p(sums[2, VOLUME])
    out[14] = np.log1p(_ratio(sums[1, EVENTS], sums[1, SPAN]))
    bipower = 0.5 * np.pi * sums[2, BIPOWER]
    out[29] = np.sqrt(bipower)
    out[30] = np.sqrt(max(sums[2, SQUARE] - bipower, 0.0)) if bars > 1.0 else 0.0
    out[31], out[32] = np.sqrt(sums[2, UP]), np.sqrt(sums[2, DOWN])
    spread_of_flow = bars * sums[2, SIGNED_2] - sums[2, SIGNED] ** 2
    if spread_of_flow > 1e-9 * bars * sums[2, SIGNED_2]:
        out[33] = (bars * sums[2, CROSS] - sums[2, SIGNED] * sums[2, RETURN]) / spread_of_flow
    out[34] = _ratio(sums[2, ILLIQUID], sums[2, TRADED])
    out[35] = _ratio(state[VPIN_ONE_SIDED], state[VPIN_LOTS])
    since = now - state[HAWKES_AT]
    fast, slow = LN2 * np.exp(-LN2 * since / 1e9), 0.1 * LN2 * np.exp(-LN2 * since / 1e10)
    out[36], out[37] = fast * state[HAWKES], fast * state[HAWKES + 1]
    out[38], out[39] = slow * state[HAWKES + 2], slow * state[HAWKES + 3]
    out[40] = np.log1p(_ratio(sums[1, TRADES], sums[1, SPAN]))
    out[41] = _ratio(sums[1, CANCELLED], sums[1, CHANGED])


@njit(cache=True)
def close_bar(state, ring, table, curve, now_ns, out):
    """End a bar at `now_ns`: write the features `(F,) float32` in the order of FEATURES; True: the book has two sides.

    `table (I, S)` is a microprice table, `curve (B + 1,)` the cumulative volume curve of the day.
    """
    now = _after_open(state, now_ns)
    _close_sums(state, ring, now)
    sums = ring[WINDOW_BARS:]
    out[:] = 0.0
    valid = two_sided(state)
    if valid:
        _book_features(state, sums, table, out)
    _flow_features(state, sums, now, out)
    elapsed = (state[PASSED] + now) / state[TRADING]
    out[15] = elapsed
    buckets = state[USUAL_BUCKETS]
    if state[USUAL_LOTS] > 0.0:
        at = min(elapsed * buckets, buckets)
        low = min(np.int64(at), curve.shape[0] - 2)
        passed = curve[low] + (at - low) / min(1.0, buckets - low) * (curve[low + 1] - curve[low])
        out[42], out[43], out[44] = passed, np.log1p(state[USUAL_LOTS] * (1.0 - passed)), 1.0
    elif state[DAY_LOTS] > 0.0:
        state[VPIN_NEXT] = max(1.0, np.ceil(state[DAY_LOTS] / max(elapsed, OPENING) / BUCKETS_A_DAY))
    if state[VPIN_SIZE] == 0.0 and state[VPIN_NEXT] > 0.0:
        state[VPIN_SIZE] = state[VPIN_NEXT]
        _fill_bucket(state, 0.0, 0.0)  # what waited for a size may fill a bucket
    return valid


@njit(cache=True)
def run_time_grid(state, ring, table, curve, book, opens, closes, stamps, features, valid):
    """All windows of a day: a bar ends every STEP seconds after the open. Gives the number of bars written."""
    ts_ns, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side = book
    row, at, step = 0, 0, np.int64(state[STEP]) * NS
    for w in range(opens.shape[0]):
        for bar in range((closes[w] - opens[w]) // step + 1):
            now = opens[w] + bar * step
            while row < ts_ns.shape[0] and ts_ns[row] <= now:
                update_row(state, bid_px, bid_sz, ask_px, ask_sz, row, ts_ns[row], trade_sz[row], trade_side[row])
                row += 1
            if bar == 0:
                open_window(state, ring, opens[w], closes[w])
                continue
            valid[at] = close_bar(state, ring, table, curve, now, features[at])
            stamps[at] = now
            at += 1
    return at


@njit(cache=True)
def run_row_grid(state, ring, table, curve, book, opens, closes, stamps, features, valid):
    """All windows of a day: a bar ends with the row that fills it; the unfinished bar at a close is dropped."""
    ts_ns, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side = book
    at, w = 0, 0
    for row in range(ts_ns.shape[0]):
        now = ts_ns[row]
        while w < opens.shape[0] and now > opens[w]:
            open_window(state, ring, opens[w], closes[w])
            w += 1
        if update_row(state, bid_px, bid_sz, ask_px, ask_sz, row, now, trade_sz[row], trade_side[row]):
            valid[at] = close_bar(state, ring, table, curve, now, features[at])
            stamps[at] = now
            at += 1
    return at
