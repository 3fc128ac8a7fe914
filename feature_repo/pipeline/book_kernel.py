"""Compiled reconstruction of the visible book, one event at a time, whatever form the vendor gave the events in.

`apply_event` is the one definition; `replay` runs it over a partition, `apply_live` over a stream. All state is in the
arrays of `State`. The ladder keeps lots by price in pages of 64 prices that are made when first touched, so that
prices far from the touch cost a page and not the range between; counts of what is held by page, and of held pages by
64 pages, let a search skip what is empty.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.schema import Flag, Kind, Side

ADD, CANCEL, REPLACE, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
QUOTE, LEVEL, CLEAR, DEPTH = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.CLEAR), int(Kind.DEPTH)
LAST, HIDDEN, GAP, NO_SIZE = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.GAP), int(Flag.NO_SIZE)
LEVEL_MASK = int(Flag.LEVEL_MASK)
BUY, SELL = int(Side.BUY), int(Side.SELL)

BID_PX, BID_SZ, ASK_PX, ASK_SZ = 0, 1, 2, 3
BIDS, ASKS = 0, 1
PAGE = 64
WINDOW = 1 << 24
"""Prices that the ladder can hold: this many ticks around the first price of the stream."""

# Places in `memory`: first the counts of events that could not be used as they were.
UNKNOWN_ORDER, HIDDEN_TRADE, OVERSIZED, GAPS, UNWHOLE, COMPARED, EQUAL, FAR_LEVELS = range(8)
COUNTS = 8
PENDING, CLEARED_TS, EMPTIED, STARTED, LAST_TRADE, TICK_SIDE = range(8, 14)
STANDING, DIRTY, UPDATE, COMPLETE, LOW, ANCHORED = range(14, 20)
PAGES, ORDERS, LEVELS, BEST, FAR = 20, 21, 22, 24, 26  # from LEVELS on a pair each: bids, asks
FAULT, FAULT_VALUE = 28, 29
MEMORY = 30

NO_LADDER, OPENING, WHOLE, HOLE = 0, 1, 2, 3
"""What the ladder is: never filled, a snapshot that is being read, the whole book, unknown after a gap."""

FAR_NEEDED, NEGATIVE_SIZE, TOO_LARGE, TOO_HEAVY = 1, 2, 3, 4
"""Faults; FAULT_VALUE is the price, size or lots."""

MOST = np.iinfo(np.int32).max
NEEDS_ROOM = -1


class State(NamedTuple):
    """Everything that a book remembers; `new_state` makes it, `with_room` grows it."""

    keys: NDArray[np.int64]  # (C,) open-addressed order ids, 0: free; C is a power of two
    orders: NDArray[np.int64]  # (C, 3) side, price, lots of the order at the same place
    page_of: NDArray[np.int32]  # (WINDOW / 64,) page of each 64 prices, 0: none
    lots: NDArray[np.int64]  # (P, 2, 64) visible lots by page, side, price
    known: NDArray[np.int64]  # (P, 2, 64) lots of known orders there
    held: NDArray[np.int32]  # (P, 2) prices with lots, by page and side
    blocks: NDArray[np.int32]  # (WINDOW / 4096, 2) pages with lots, by 64 pages and side
    visible: NDArray[np.int32]  # (2, 4, K) the visible book, and the LEVEL snapshot that is being read
    memory: NDArray[np.int64]  # (MEMORY,)


@njit(cache=True)
def new_state(depth):
    """State of a book of `depth` levels a side that has seen nothing."""
    memory = np.zeros(MEMORY, np.int64)
    memory[EMPTIED], memory[COMPLETE], memory[DIRTY] = 1, 1, 3
    pages = 16
    lots, known = np.zeros((pages, 2, PAGE), np.int64), np.zeros((pages, 2, PAGE), np.int64)
    return State(
        np.zeros(1024, np.int64),
        np.zeros((1024, 3), np.int64),
        np.zeros(WINDOW // PAGE, np.int32),
        lots,
        known,
        np.zeros((pages, 2), np.int32),
        np.zeros((WINDOW // PAGE // 64, 2), np.int32),
        np.zeros((2, 4, depth), np.int32),
        memory,
    )


@njit(cache=True)
def needs_room(state):
    """Whether the next event could find no free page or a table of orders more than half full."""
    return state.memory[PAGES] + 2 > state.lots.shape[0] or 2 * state.memory[ORDERS] >= state.keys.shape[0]


@njit(cache=True)
def with_room(state):
    """The same book with twice the pages or the table of orders where either is nearly full."""
    keys, orders, lots, known, held = state.keys, state.orders, state.lots, state.known, state.held
    if state.memory[PAGES] + 2 > lots.shape[0]:
        lots = np.concatenate((lots, np.zeros_like(lots)))
        known = np.concatenate((known, np.zeros_like(known)))
        held = np.concatenate((held, np.zeros_like(held)))
    if 2 * state.memory[ORDERS] >= keys.shape[0]:
        keys, orders = np.zeros(2 * keys.shape[0], np.int64), np.zeros((2 * keys.shape[0], 3), np.int64)
        for i in range(state.keys.shape[0]):
            if state.keys[i] != 0:
                at = _place(keys, state.keys[i])
                keys[at], orders[at] = state.keys[i], state.orders[i]
    return State(keys, orders, state.page_of, lots, known, held, state.blocks, state.visible, state.memory)


@njit(cache=True)
def replay(ts_ns, kind, side, price, size, order, flags, depth):
    """Replay events in time order into rows of the visible book.

    Gives `ts (T,) int64`, `book (T, 4, depth) int32` (bid price, bid size, ask price, ask size), `trade (T, 3) int32`
    (price, size, aggressor), the `memory`, and the number of events that were taken: fewer than there are at a fault.
    """
    n = ts_ns.shape[0]
    out_ts = np.empty(n + 1, np.int64)
    out_book = np.zeros((n + 1, 4, depth), np.int32)
    out_trade = np.zeros((n + 1, 3), np.int32)
    state = new_state(depth)
    rows = 0
    for i in range(n):
        if needs_room(state):
            state = with_room(state)
        rows += apply_event(
            state, ts_ns[i], kind[i], side[i], price[i], size[i], order[i], flags[i], out_ts, out_book, out_trade, rows
        )
        if state.memory[FAULT]:
            return out_ts[:rows], out_book[:rows], out_trade[:rows], state.memory, i
    rows += empty_if_cleared(state, out_ts, out_book, out_trade, rows)
    return out_ts[:rows], out_book[:rows], out_trade[:rows], state.memory, n


@njit(cache=True)
def empty_if_cleared(state, out_ts, out_book, out_trade, row):
    """Nothing whole came with the last CLEAR: the book is unknown from it on. Gives the rows written, 0 or 1."""
    memory = state.memory
    if not memory[PENDING] or memory[EMPTIED]:
        return 0
    state.visible[0] = 0
    memory[DIRTY], memory[EMPTIED] = 3, 1
    return _write(state, memory[CLEARED_TS], 0, 0, 0, out_ts, out_book, out_trade, row)


@njit(cache=True)
def apply_event(state, ts, kind, side, price, size, order, flags, out_ts, out_book, out_trade, row):
    """Take one event; write what rows it gives from `row` on, and give their number, 0 to 2.

    The caller has seen to `needs_room`. At a fault nothing more may be applied.
    """
    memory, visible = state.memory, state.visible
    written = 0
    if memory[PENDING] and (ts > memory[CLEARED_TS] or kind == TRADE or kind == QUOTE):
        written = empty_if_cleared(state, out_ts, out_book, out_trade, row)
        row += written
    if size < 0 or size > MOST or price > MOST or price < -MOST:
        if kind <= LEVEL or kind == DEPTH:
            small = 0 <= size <= MOST
            memory[FAULT], memory[FAULT_VALUE] = TOO_LARGE, price if small else size
            if -MOST <= size < 0 and -MOST <= price <= MOST:
                memory[FAULT] = NEGATIVE_SIZE
            return written
    changed = False
    if kind == TRADE:
        if flags & HIDDEN:
            memory[HIDDEN_TRADE] += 1
            return written
        moved = _execute(state, side, price, size, order)
        aggressor = _aggressor(memory, visible, side, price)
        if moved and not memory[PENDING]:
            _show(state)
        if memory[FAULT]:
            return written
        return written + _write(state, ts, price, size, aggressor, out_ts, out_book, out_trade, row)
    if kind == CLEAR:
        _clear(state, ts, flags)
        return written
    if kind == LEVEL:
        changed = _level(state, side, price, size, flags)
    elif kind == QUOTE:
        if memory[STANDING] == WHOLE:
            _compare(state, side, price, size, order, flags)
            return written
        changed = _quote(state, side, price, size)
    elif kind == DEPTH:
        if memory[STANDING] != OPENING and memory[STANDING] != WHOLE:
            memory[UNWHOLE] += 1
            return written
        changed = _depth(state, side, price, size, order, flags)
    elif kind == ADD or kind == REPLACE or kind == CANCEL:
        if memory[STANDING] == HOLE:
            memory[UNWHOLE] += 1
            return written
        if not _order(state, kind, side, price, size, order):
            return written
        if flags & LAST:
            memory[PENDING], memory[STANDING] = 0, WHOLE
        if not memory[PENDING]:
            if memory[STANDING] == NO_LADDER:
                memory[STANDING] = WHOLE
            changed = _show(state)
    if memory[FAULT] or memory[PENDING] or (memory[STARTED] and not changed):
        return written
    return written + _write(state, ts, 0, 0, 0, out_ts, out_book, out_trade, row)


@njit(cache=True)
def _write(state, ts, price, size, aggressor, out_ts, out_book, out_trade, row):
    """Write a row of the visible book and the trade."""
    state.memory[STARTED] = 1
    out_ts[row] = ts
    for column in range(4):
        for k in range(state.visible.shape[2]):
            out_book[row, column, k] = state.visible[0, column, k]
    out_trade[row, 0], out_trade[row, 1], out_trade[row, 2] = price, size, aggressor
    return 1


@njit(cache=True)
def _clear(state, ts, flags):
    """Forget the book; what was visible goes when it is sure that nothing whole comes with the CLEAR."""
    memory = state.memory
    used = memory[PAGES] + 1
    state.lots[:used], state.known[:used], state.held[:used], state.blocks[:] = 0, 0, 0, 0
    state.visible[1] = 0
    if memory[ORDERS]:
        state.keys[:] = 0
    memory[ORDERS], memory[LEVELS], memory[LEVELS + 1], memory[FAR], memory[FAR + 1] = 0, 0, 0, 0, 0
    memory[PENDING], memory[CLEARED_TS], memory[EMPTIED] = 1, ts, 0
    memory[DIRTY], memory[COMPLETE], memory[UPDATE] = 3, 1, 0
    memory[STANDING] = OPENING
    if flags & GAP:
        memory[STANDING] = HOLE
        memory[GAPS] += 1


@njit(cache=True)
def _level(state, side, price, size, flags):
    """One level of a snapshot by level; True where its last one changed the visible book."""
    memory, visible = state.memory, state.visible
    place = flags & LEVEL_MASK
    if place < visible.shape[2]:
        which = BID_PX if side == BUY else ASK_PX
        visible[1, which, place], visible[1, which + 1, place] = price, size
    if not flags & LAST:
        return False
    changed = not np.array_equal(visible[0], visible[1])
    visible[0] = visible[1]
    memory[PENDING], memory[STANDING], memory[DIRTY] = 0, NO_LADDER, 3
    return changed


@njit(cache=True)
def _quote(state, side, price, size):
    """A best quote where no whole ladder stands: it is the book."""
    memory, now = state.memory, state.visible[0]
    which = BID_PX if side == BUY else ASK_PX
    shown = price if size > 0 else 0
    changed = now[which, 0] != shown or now[which + 1, 0] != size
    now[which, 0], now[which + 1, 0] = shown, size
    memory[PENDING], memory[DIRTY] = 0, 3
    return changed


@njit(cache=True)
def _compare(state, side, price, size, update, flags):
    """A best quote beside a whole ladder: where it names the update that the ladder stands at, the two must agree."""
    memory = state.memory
    if update == 0 or update != memory[UPDATE] or not memory[COMPLETE]:
        return
    memory[COMPARED] += 1
    which = BIDS if side == BUY else ASKS
    if memory[LEVELS + which] == 0:
        memory[EQUAL] += size == 0
        return
    at = memory[BEST + which]
    lots = state.lots[state.page_of[at // PAGE], which, at % PAGE]
    memory[EQUAL] += price == memory[LOW] + at and (size == lots or flags & NO_SIZE != 0)


@njit(cache=True)
def _depth(state, side, price, size, update, flags):
    """All lots at a price; the visible book follows at the end of the vendor's message."""
    memory = state.memory
    which = BIDS if side == BUY else ASKS
    at = _at(state, which, price, size)
    if at >= 0:
        _set_lots(state, which, at, size)
    memory[UPDATE], memory[COMPLETE] = update, flags & LAST != 0
    if not flags & LAST:
        return False
    memory[PENDING], memory[STANDING] = 0, WHOLE
    return _show(state)


@njit(cache=True)
def _order(state, kind, side, price, size, order):
    """An order comes, goes or moves; False where it is unknown."""
    memory = state.memory
    place = _place(state.keys, order) if order != 0 else -1
    live = place >= 0 and state.keys[place] == order
    if kind == CANCEL:
        if live:
            _take(state, place, size)
            return True
        if side != 0 and price > 0 and _take_loose(state, BIDS if side == BUY else ASKS, price, size):
            return True
        memory[UNKNOWN_ORDER] += 1
        return False
    if order == 0 or (kind == REPLACE and not live):
        memory[UNKNOWN_ORDER] += 1
        return False
    if live:
        if side == 0:  # a replace need not repeat the side
            side = state.orders[place, 0]
        _take(state, place, state.orders[place, 2])
        place = _place(state.keys, order)
    if size == 0:
        return True
    which = BIDS if side == BUY else ASKS
    at = _at(state, which, price, size)
    if at < 0:  # an order beyond the window would be lost without a trace
        memory[FAULT], memory[FAULT_VALUE] = FAR_NEEDED, price
        return True
    state.keys[place] = order
    state.orders[place, 0], state.orders[place, 1], state.orders[place, 2] = side, price, size
    memory[ORDERS] += 1
    page = state.page_of[at // PAGE]
    state.known[page, which, at % PAGE] += size
    lots = state.lots[page, which, at % PAGE] + size
    if lots > MOST:
        memory[FAULT], memory[FAULT_VALUE] = TOO_HEAVY, lots
    _set_lots(state, which, at, lots)
    return True


@njit(cache=True)
def _execute(state, side, price, size, order):
    """A trade takes from the resting order where the vendor names it; True where the ladder changed."""
    if order == 0:
        return False
    place = _place(state.keys, order)
    if state.keys[place] == order:
        _take(state, place, size)
        return True
    if state.memory[STANDING] == HOLE:
        return False
    if side != 0 and price > 0 and _take_loose(state, ASKS if side == BUY else BIDS, price, size):
        return True
    state.memory[UNKNOWN_ORDER] += 1
    return False


@njit(cache=True)
def _take(state, place, size):
    """`size` lots of an order leave the ladder; more than it has take all of it and are counted."""
    orders = state.orders
    if size > orders[place, 2]:
        state.memory[OVERSIZED] += 1
        size = orders[place, 2]
    which = BIDS if orders[place, 0] == BUY else ASKS
    at = orders[place, 1] - state.memory[LOW]
    page, slot = state.page_of[at // PAGE], at % PAGE
    state.known[page, which, slot] -= size
    # A DEPTH may have said that fewer lots rest there than the known orders hold: never below none.
    _set_lots(state, which, at, max(0, state.lots[page, which, slot] - size))
    orders[place, 2] -= size
    if orders[place, 2] == 0:
        _forget(state, place)


@njit(cache=True)
def _take_loose(state, which, price, size):
    """Lots that DEPTH set and that belong to no known order leave; False where there are none at this price."""
    at = price - state.memory[LOW]
    if not state.memory[ANCHORED] or at < 0 or at >= WINDOW:
        return False
    page, slot = state.page_of[at // PAGE], at % PAGE
    loose = state.lots[page, which, slot] - state.known[page, which, slot]
    if loose <= 0:
        return False
    if size > loose:
        state.memory[OVERSIZED] += 1
    _set_lots(state, which, at, state.lots[page, which, slot] - min(size, loose))
    return True


@njit(cache=True)
def _at(state, which, price, size):
    """Place of a price on the ladder, its page made where it has none; -1 where it lies beyond the window."""
    memory = state.memory
    if not memory[ANCHORED]:
        memory[ANCHORED], memory[LOW] = 1, price - WINDOW // 2
    at = price - memory[LOW]
    if at < 0 or at >= WINDOW:
        memory[FAR_LEVELS] += 1
        if size > 0:
            if (at < 0) != (which == BIDS):  # better than the window's best: it would have to show
                memory[FAULT], memory[FAULT_VALUE] = FAR_NEEDED, price
            memory[FAR + which] = 1
        return -1
    if state.page_of[at // PAGE] == 0:
        memory[PAGES] += 1
        state.page_of[at // PAGE] = memory[PAGES]
    return at


@njit(cache=True)
def _set_lots(state, which, at, lots):
    """Let `lots` rest at a price, and follow what is held and what is best."""
    memory, visible = state.memory, state.visible
    page = state.page_of[at // PAGE]
    old = state.lots[page, which, at % PAGE]
    if old == lots:
        return
    state.lots[page, which, at % PAGE] = lots
    price, last = memory[LOW] + at, visible.shape[2] - 1
    full = visible[0, 2 * which + 1, last] > 0
    worst = visible[0, 2 * which, last]
    if not full or (price >= worst if which == BIDS else price <= worst):
        memory[DIRTY] |= 1 << which
    if old == 0:
        state.held[page, which] += 1
        if state.held[page, which] == 1:
            state.blocks[at // PAGE // 64, which] += 1
        best = memory[BEST + which]
        if memory[LEVELS + which] == 0 or (at > best if which == BIDS else at < best):
            memory[BEST + which] = at
        memory[LEVELS + which] += 1
    elif lots == 0:
        state.held[page, which] -= 1
        if state.held[page, which] == 0:
            state.blocks[at // PAGE // 64, which] -= 1
        memory[LEVELS + which] -= 1
        if memory[LEVELS + which] > 0 and at == memory[BEST + which]:
            memory[BEST + which] = _next(state, which, at)


@njit(cache=True)
def _next(state, which, at):
    """The next worse price that holds lots, from `at` exclusive; there must be one."""
    step = -1 if which == BIDS else 1
    while True:
        at += step
        group = at // PAGE
        page = state.page_of[group]
        if state.held[page, which] == 0:
            if state.blocks[group // 64, which] == 0:
                group = group - group % 64 if which == BIDS else group - group % 64 + 63
            at = group * PAGE if which == BIDS else group * PAGE + PAGE - 1
        elif state.lots[page, which, at % PAGE] > 0:
            return at


@njit(cache=True)
def _show(state):
    """Write the best levels of the sides that may have changed into the visible book; True where one did."""
    memory, now = state.memory, state.visible[0]
    depth = now.shape[1]
    changed = False
    for which in range(2):
        if not memory[DIRTY] >> which & 1:
            continue
        levels = memory[LEVELS + which]
        if levels < depth and memory[FAR + which]:
            memory[FAULT], memory[FAULT_VALUE] = FAR_NEEDED, memory[LOW]
            return False
        at = memory[BEST + which]
        for k in range(depth):
            price, lots = 0, 0
            if k < levels:
                if k > 0:
                    at = _next(state, which, at)
                price, lots = memory[LOW] + at, state.lots[state.page_of[at // PAGE], which, at % PAGE]
            changed |= now[2 * which, k] != price or now[2 * which + 1, k] != lots
            now[2 * which, k], now[2 * which + 1, k] = price, lots
    memory[DIRTY] = 0
    return changed


@njit(cache=True)
def _aggressor(memory, visible, side, price):
    """Who started a trade: the vendor's word, else the quote rule, else the tick rule (Lee and Ready 1991); 0 unknown."""
    if memory[LAST_TRADE] != 0 and price != memory[LAST_TRADE]:
        memory[TICK_SIDE] = BUY if price > memory[LAST_TRADE] else SELL
    memory[LAST_TRADE] = price
    if side != 0:
        return np.int64(side)
    if visible[0, BID_SZ, 0] > 0 and visible[0, ASK_SZ, 0] > 0:
        mid2 = np.int64(visible[0, BID_PX, 0]) + np.int64(visible[0, ASK_PX, 0])
        if 2 * price != mid2:
            return np.int64(BUY) if 2 * price > mid2 else np.int64(SELL)
    return memory[TICK_SIDE]


@njit(cache=True)
def _place(keys, order):
    """Where an order id stands in the table, or the free place where it would go (Knuth's multiplicative hash)."""
    mask = keys.shape[0] - 1
    at = ((order * np.int64(-7046029254386353131)) >> np.int64(20)) & mask
    while keys[at] != 0 and keys[at] != order:
        at = (at + 1) & mask
    return at


@njit(cache=True)
def _forget(state, place):
    """Free the place of an order; later ones of the same run move up, so that a search never meets a hole."""
    keys, orders = state.keys, state.orders
    mask = keys.shape[0] - 1
    hole, at = place, (place + 1) & mask
    while keys[at] != 0:
        home = ((keys[at] * np.int64(-7046029254386353131)) >> np.int64(20)) & mask
        if (at - home) & mask >= (at - hole) & mask:
            keys[hole] = keys[at]
            for column in range(3):
                orders[hole, column] = orders[at, column]
            hole = at
        at = (at + 1) & mask
    keys[hole] = 0
    state.memory[ORDERS] -= 1
