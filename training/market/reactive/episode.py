"""One parent at work in a reactive market of its own, compiled: messages, fills, and the features that its feed gives.

The counterpart of `training.market.engine` with the same messages, accounts and times; here the market is made as the
episode goes. It opens WARMUP_S before the parent arrives, around the best bid that the day's book had then.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.pipeline import feature_kernel as features
from feature_repo.ticks.reactive_tables import QueueReactiveParameters
from training.market.fills import AGGRESSIVE, FORCED, PASSIVE, record_fill
from training.market.queues import kernel
from training.market.reactive.kernel import next_event, open_market
from training.market.reactive.own import give_way, rest, take_level, withdraw
from training.market.reactive.rows import show
from training.market.reactive.state import NS

WARMUP_S = 70
"""A minute that the features look back on, and ten seconds for the best queues to forget how they opened."""
NO_LIMIT = 1 << 62
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)

WORLD_DAY_DTYPE = np.dtype(
    [
        ("row_lo", np.int64),  # of the day's best bids
        ("row_hi", np.int64),
        ("window_lo", np.int64),  # of its session windows
        ("window_hi", np.int64),
        ("latency_ns", np.int64),
    ]
)
SEEN_DTYPE = np.dtype(
    [
        ("bar_ns", np.int64),  # when the next bar of the features ends
        ("rows", np.int64),  # visible rows so far
        ("mid2", np.int64),  # twice the mid, ticks; the last known one where a side is empty
        ("traded", np.int64),  # lots that others traded with one another since the arrival
        ("number", np.int64),  # the market's number
    ]
)
"""What an episode's feed has told so far."""


class World(NamedTuple):
    """Markets of N episodes; the arrays by episode are written as they play."""

    parameters: QueueReactiveParameters
    days: NDArray[np.void]  # WORLD_DAY_DTYPE
    ts_ns: NDArray[np.int64]  # (T,) of the days' book rows
    bids: NDArray[np.int32]  # (T,) best bids, ticks, 0 where there is none
    windows: NDArray[np.int64]  # (W, 2) session windows, ns
    markets: NDArray[np.void]  # (N,) MARKET_DTYPE
    seen: NDArray[np.void]  # (N,) SEEN_DTYPE
    levels: NDArray[np.int32]  # (N, 4, K) visible book
    state: NDArray[np.float64]  # (N, S) of the features
    ring: NDArray[np.float64]  # (N, R, C)
    features: NDArray[np.float32]  # (N, F) of the last bar
    table: NDArray[np.float64]  # microprice table
    curve: NDArray[np.float64]  # volume curve, empty of knowledge


@kernel
def market_stream(base, number):
    """Start of the random stream of market `number` of a world with the seed `base (uint64)`."""
    word = base + _GOLDEN * (np.uint64(number) + np.uint64(1))
    for _ in range(2):
        word = (word ^ (word >> _S30)) * _MIX_1
        word = (word ^ (word >> _S27)) * _MIX_2
        word = word ^ (word >> _S31)
    return word


@kernel
def _reset(state, parent, record, latency_ns, close_ns):
    state.day, state.side, state.lots = parent.day, parent.side, parent.lots
    state.start_ns, state.end_ns = parent.start_ns, parent.start_ns + parent.horizon_ns
    state.close_ns, state.latency_ns = close_ns, latency_ns
    state.row = state.row_lo = state.row_hi = state.next_row_arrival = state.shift = state.reacts = 0
    state.filled = state.passive_lots = state.aggressive_lots = state.forced_lots = state.extrapolated_lots = 0
    state.passive_cost = state.aggressive_cost = state.forced_cost = 0
    state.spread2 = state.timing2 = state.impact2 = state.orders = state.refused = 0
    state.made_lots = state.met_lots = state.rerouted_lots = 0
    state.rest_px = state.rest_lots = state.rest_ahead = state.back_lots = state.back_ahead = 0
    state.rest_part = state.back_part = state.rest_ns = state.back_ns = state.rest_unseen = state.waits = 0
    state.pend_ns = state.pend_forced = state.pend_filled = 0
    state.taken_count = state.step = state.masked = state.done = state.feature = 0
    state.record, state.now_ns = record, parent.start_ns
    state.mark_bps = state.penalty = 0.0


@kernel
def start_episode(world, i, state, parent, record, base, number, fills, fill_count):
    """Reset `state` to the arrival of `parent` in market `number`; False where its session window has no room."""
    day = world.days[parent.day]
    window = -1
    for w in range(day.window_lo, day.window_hi):
        if world.windows[w, 0] <= parent.start_ns < world.windows[w, 1]:
            window = w
    close_ns = world.windows[window, 1] if window >= 0 else np.int64(0)
    _reset(state, parent, record, day.latency_ns, close_ns)
    row = np.searchsorted(world.ts_ns[day.row_lo : day.row_hi], parent.start_ns, side="right") - 1 + day.row_lo
    while row >= day.row_lo and world.bids[row] <= 0:
        row -= 1
    if window < 0 or row < day.row_lo or state.end_ns + state.latency_ns >= close_ns:
        return False
    market, seen = world.markets[i], world.seen[i]
    market.open_ns, market.length_ns = _session(world, day)
    seen.rows, seen.number = 0, number
    warm_ns = parent.start_ns - WARMUP_S * NS
    open_market(world.parameters, market, market_stream(base, number), warm_ns, np.int64(world.bids[row]))
    opens = world.windows[window, 0]
    first_bar = max(opens, opens + (warm_ns - opens) // NS * NS)
    seen.bar_ns = np.int64(NO_LIMIT)
    show(market, world.levels[i])
    seen.mid2 = market.bid + market.ask
    _play(world, i, state, first_bar, np.int64(NO_LIMIT), 0, fills, fill_count)
    _open_features(world, i, day, window, first_bar)
    seen.bar_ns = first_bar + NS
    _play(world, i, state, parent.start_ns, np.int64(NO_LIMIT), 0, fills, fill_count)
    state.arrival_mid2 = state.last_mid2 = seen.mid2
    seen.traded = 0
    return True


@kernel
def _session(world, day):
    opens = world.windows[day.window_lo, 0]
    return opens, world.windows[day.window_hi - 1, 1] - opens


@kernel
def _open_features(world, i, day, window, first_bar):
    """Features begin at `first_bar` as if the session window had just opened, but know the time of day."""
    state, ring = world.state[i], world.ring[i]
    state[:] = 0.0
    passed = trading = 0
    for w in range(day.window_lo, day.window_hi):
        length = world.windows[w, 1] - world.windows[w, 0]
        trading += length
        if w < window:
            passed += length
    state[features.GRID], state[features.STEP], state[features.TRADING] = features.TIME_GRID, 1.0, trading
    features.update_levels(state, world.levels[i], first_bar, 0, 0)
    features.open_window(state, ring, world.windows[window, 0], world.windows[window, 1])
    state[features.PASSED], state[features.LAST_CLOSE] = passed, first_bar - world.windows[window, 0]


@kernel
def _play(world, i, state, until_ns, until_rows, episode, fills, fill_count):
    """Play up to `until_ns`, or until so many visible rows have been told; nothing of ours arrives meanwhile."""
    p, market, seen, levels = world.parameters, world.markets[i], world.seen[i], world.levels[i]
    while seen.rows < until_rows:
        if next_event(p, market, min(until_ns, seen.bar_ns)):
            changed = show(market, levels)
            if changed or market.trade_lots > 0:
                _tell(world, i, market, seen, levels)
            seen.traded += market.trade_lots - market.filled
            if market.filled > 0:
                _fill_passively(state, market, seen.mid2, episode, fills, fill_count)
            continue
        if market.now_ns == seen.bar_ns:
            features.close_bar(world.state[i], world.ring[i], world.table, world.curve, seen.bar_ns, world.features[i])
            seen.bar_ns += NS
        if market.now_ns >= until_ns:
            break
    _follow_queue(state, market)


@kernel
def _tell(world, i, market, seen, levels):
    """A visible row: the features take it, and the mid."""
    seen.rows += 1
    if levels[1, 0] > 0 and levels[3, 0] > 0:
        seen.mid2 = np.int64(levels[0, 0]) + levels[2, 0]
    features.update_levels(world.state[i], levels, market.now_ns, market.trade_lots, market.trade_side)


@kernel
def _fill_passively(state, market, mid2, episode, fills, fill_count):
    lots = market.filled
    record_fill(state, market.now_ns, market.own_px, lots, PASSIVE, 0, mid2, episode, fills, fill_count)
    if state.pend_ns > 0:
        state.pend_filled += lots


@kernel
def _follow_queue(state, market):
    """What the episode knows of its resting order."""
    state.rest_lots, state.rest_ahead = market.own_lots, market.own_ahead
    state.back_lots, state.back_ahead = market.own_back, market.own_behind
    state.rest_px = market.own_px


@kernel
def submit(state, now_ns, rest_px, rest_lots, cross_lots, beyond, forced):
    """Send one message at `now_ns`; it is in flight until `pend_ns`."""
    state.pend_ns = now_ns + max(state.latency_ns, 1)
    state.pend_rest_px, state.pend_rest_lots = rest_px, rest_lots
    state.pend_cross_lots, state.pend_beyond, state.pend_forced = cross_lots, beyond, forced
    state.pend_filled = 0
    if cross_lots > 0:
        state.orders += 1
    if rest_lots > 0 and not (cross_lots == 0 and state.rest_lots == rest_lots and state.rest_px == rest_px):
        state.orders += 1


@kernel
def _arrive(world, i, state, episode, fills, fill_count):
    """Let the message in flight meet the book: it cancels, takes, and lets rest what is left, in this order."""
    p, market = world.parameters, world.markets[i]
    state.pend_ns = 0
    cross = max(0, state.pend_cross_lots - state.pend_filled)
    lots = max(0, state.pend_rest_lots - max(0, state.pend_filled - state.pend_cross_lots))
    cross = min(cross, state.lots - state.filled)
    price, b = state.pend_rest_px, 0 if state.side > 0 else 1
    market.trade_lots = 0
    if cross > 0 or lots == 0 or price != market.own_px:
        withdraw(p, market)
    if cross > 0:
        kind = FORCED if state.pend_forced == 1 else AGGRESSIVE
        _sweep(world, i, state, cross, np.int64(0), state.pend_beyond, kind, episode, fills, fill_count)
    lots = min(lots, state.lots - state.filled)
    if market.own_lots == 0 and lots > 0:  # the part that is marketable takes; the rest joins the book
        lots -= _sweep(world, i, state, lots, price, 0, AGGRESSIVE, episode, fills, fill_count)
    if lots > 0 and not rest(p, market, b, price, lots):
        state.refused += 1  # too far from the best price for a queue to be known there
        withdraw(p, market)
    if show(market, world.levels[i]) or market.trade_lots > 0:
        _tell(world, i, market, world.seen[i], world.levels[i])
    market.trade_lots = 0
    _follow_queue(state, market)


@kernel
def _sweep(world, i, state, lots, limit, beyond, kind, episode, fills, fill_count):
    """Take up to `lots` from the other side, best first, no worse than `limit` (0: no limit). Returns lots taken.

    What lies behind the visible levels is taken with `beyond` alone and counted as extrapolated; where the market holds
    no more, levels go on one tick apart, each of the mean visible size.
    """
    p, market, levels, side = world.parameters, world.markets[i], world.levels[i], state.side
    b = 1 if side > 0 else 0
    show(market, levels)
    best, deepest, total, count = np.int64(levels[2 * b, 0]), np.int64(0), np.int64(0), 0
    for k in range(levels.shape[1]):
        if levels[2 * b + 1, k] > 0:
            deepest, total, count = np.int64(levels[2 * b, k]), total + levels[2 * b + 1, k], count + 1
    mid2, left, now_ns = world.seen[i].mid2, lots, market.now_ns
    if beyond == 0:
        if count == 0:
            return np.int64(0)
        limit = deepest if limit == 0 else min(limit, deepest) if side > 0 else max(limit, deepest)
    while left > 0:
        price, taken = take_level(p, market, b, left, limit)
        if taken == 0:
            break
        record_fill(state, now_ns, price, taken, kind, best if best > 0 else price, mid2, episode, fills, fill_count)
        if count == 0 or side * (price - deepest) > 0:
            state.extrapolated_lots += taken
            deepest = price
        left -= taken
    give_way(p, market, b)
    if beyond == 0 or left == 0:
        return lots - left
    size, price = max(total // max(count, 1), 1), deepest if deepest > 0 else mid2 // 2
    while left > 0:
        price = max(np.int64(1), price + side)
        taken = left if price == 1 else min(left, size)
        record_fill(state, now_ns, price, taken, kind, best if best > 0 else price, mid2, episode, fills, fill_count)
        state.extrapolated_lots += taken
        left -= taken
    return lots


@kernel
def advance_episode(world, i, state, until_ns, until_rows, episode, fills, fill_count):
    """Play events and arrivals stamped up to `until_ns`, or until so many visible rows have been told."""
    until_ns = min(until_ns, state.close_ns - 1)
    while 0 < state.pend_ns <= until_ns and world.seen[i].rows < until_rows:
        _play(world, i, state, state.pend_ns, until_rows, episode, fills, fill_count)
        if world.markets[i].now_ns < state.pend_ns:
            return
        _arrive(world, i, state, episode, fills, fill_count)
    _play(world, i, state, until_ns, until_rows, episode, fills, fill_count)


@kernel
def complete_episode(world, i, state, episode, fills, fill_count):
    """Forced completion: at the horizon send a sweep of all that remains and play until it has arrived."""
    if state.filled < state.lots:
        submit(state, state.end_ns, 0, 0, state.lots - state.filled, 1, 1)
        advance_episode(world, i, state, state.pend_ns, np.int64(NO_LIMIT), episode, fills, fill_count)
    withdraw(world.parameters, world.markets[i])
    state.rest_lots = state.back_lots = state.pend_ns = 0
    state.done = 1


@kernel
def best_prices(world, i, state):
    """Own price, own size, opposite price, opposite size at the best; 0 where a side is empty. Own lots are shown."""
    levels = world.levels
    own, other = (0, 2) if state.side > 0 else (2, 0)
    return (
        np.int64(levels[i, own, 0]),
        np.int64(levels[i, own + 1, 0]),
        np.int64(levels[i, other, 0]),
        np.int64(levels[i, other + 1, 0]),
    )
