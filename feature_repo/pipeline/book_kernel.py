"""Compiled reconstruction of the visible book, one event at a time, whatever form the vendor gave the events in.

`apply_event` is the one definition: `replay` runs it over a partition, `apply_live` over a stream. The arrays that it
works on are those of `book_ladder.State`, in its order.
"""

import numpy as np
from numba import njit

from feature_repo.pipeline.book_ladder import (
    ASK_PX,
    ASK_SZ,
    ASKS,
    BEST,
    BID_PX,
    BID_SZ,
    BIDS,
    BITS,
    CLEARED_TS,
    COMPARED,
    COMPLETE,
    DIRTY,
    EMPTIED,
    EMPTIED_TS,
    EQUAL,
    FAR,
    FAULT,
    FAULT_VALUE,
    GAPS,
    GROUPS,
    HIDDEN_TRADE,
    HOLE,
    ID,
    KNOWN,
    LAST_TRADE,
    LEVELS,
    LOW,
    MOST,
    NEGATIVE_SIZE,
    NO_LADDER,
    OPENING,
    ORDERS,
    PAGES,
    PENDING,
    ROW_TRADE,
    ROW_TS,
    SLOT,
    STANDING,
    STARTED,
    TICK_SIDE,
    TOO_LARGE,
    UNWHOLE,
    UPDATE,
    WAITING,
    WHOLE,
    execute,
    find_price,
    needs_room,
    place_order,
    set_lots,
    show,
)
from feature_repo.ticks.schema import Flag, Kind, Side

ADD, CANCEL, REPLACE, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
QUOTE, LEVEL, CLEAR, DEPTH = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.CLEAR), int(Kind.DEPTH)
LAST, HIDDEN, GAP, NO_SIZE = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.GAP), int(Flag.NO_SIZE)
LEVEL_MASK = int(Flag.LEVEL_MASK)
BUY, SELL = int(Side.BUY), int(Side.SELL)
FAULTED, NEEDS_ROOM, EMPTIED_ROW, EVENT_ROW = -2, -1, 1, 2
"""What `apply_live` answers."""
ANY_SIZE = -1


@njit(cache=True)
def replay(
    memory, visible, index, orders, pages,
    ts_ns, kind, side, price, size, order, flags, start,
    out, rows,
):  # fmt: skip
    """Apply events from `start` on, until the state needs room or a fault; gives where it stopped and the rows so far.

    `out` are the columns of a Book, in its order and with its types; rows go to them from `rows` on, in all at most one
    more than there are events.
    """
    for i in range(start, ts_ns.shape[0]):
        if needs_room(memory, orders, pages):
            return i, rows
        if settle(memory, visible, ts_ns[i], kind[i]):
            write_row(memory, visible, out, rows)
            rows += 1
        if apply_event(
            memory, visible, index, orders, pages, ts_ns[i], kind[i], side[i], price[i], size[i], order[i], flags[i]
        ):
            write_row(memory, visible, out, rows)
            rows += 1
        if memory[FAULT]:
            return i, rows
    return ts_ns.shape[0], rows


@njit(cache=True)
def apply_live(memory, visible, index, orders, pages, ts, kind, side, price, size, order, flags):
    """Take one event of a stream: NEEDS_ROOM where nothing was done, FAULTED, or the rows that are due.

    These are the sum of EMPTIED_ROW (an empty book, at EMPTIED_TS) and EVENT_ROW (the visible book after the event).
    """
    if needs_room(memory, orders, pages):
        return NEEDS_ROOM
    due = EMPTIED_ROW if settle(memory, visible, ts, kind) else 0
    if apply_event(memory, visible, index, orders, pages, ts, kind, side, price, size, order, flags):
        due += EVENT_ROW
    return FAULTED if memory[FAULT] else due


@njit(cache=True, forceinline=True)
def write_row(memory, visible, out, row):
    """Write the row that is due, the visible book and the trade, into the columns of a Book."""
    ts_ns, bid_px, bid_sz, ask_px, ask_sz, trade_px, trade_sz, trade_side = out
    ts_ns[row] = memory[ROW_TS]
    for k in range(visible.shape[2]):
        bid_px[row, k], bid_sz[row, k] = visible[0, BID_PX, k], visible[0, BID_SZ, k]
        ask_px[row, k], ask_sz[row, k] = visible[0, ASK_PX, k], visible[0, ASK_SZ, k]
    trade_px[row], trade_sz[row] = memory[ROW_TRADE], memory[ROW_TRADE + 1]
    trade_side[row] = memory[ROW_TRADE + 2]


@njit(cache=True, forceinline=True)
def settle(memory, visible, ts, kind):
    """Before an event: True where nothing whole came with the last CLEAR, and an empty row is due at its time."""
    if not memory[PENDING] or memory[EMPTIED]:
        return False
    if ts <= memory[CLEARED_TS] and kind != TRADE and kind != QUOTE:
        return False
    visible[0] = 0
    memory[DIRTY], memory[EMPTIED], memory[EMPTIED_TS] = 3, 1, memory[CLEARED_TS]
    return _due(memory, memory[CLEARED_TS], 0, 0, 0)


@njit(cache=True, forceinline=True)
def _due(memory, ts, price, size, aggressor):
    """Note the time and the trade of the row that is due."""
    memory[STARTED], memory[ROW_TS] = 1, ts
    memory[ROW_TRADE], memory[ROW_TRADE + 1], memory[ROW_TRADE + 2] = price, size, aggressor
    return True


@njit(cache=True, forceinline=True)
def apply_event(memory, visible, index, orders, pages, ts, kind, side, price, size, order, flags):
    """Take one event; True where a row is due. The caller has seen to `needs_room` and has called `settle`.

    At a fault nothing more may be applied.
    """
    if (size < 0 or size > MOST or price > MOST or price < -MOST) and (kind <= LEVEL or kind == DEPTH):
        small = 0 <= size <= MOST
        memory[FAULT], memory[FAULT_VALUE] = TOO_LARGE, price if small else size
        if -MOST <= size < 0 and -MOST <= price <= MOST:
            memory[FAULT] = NEGATIVE_SIZE
        return False
    changed = False
    if kind == TRADE:
        if flags & HIDDEN:
            memory[HIDDEN_TRADE] += 1
            return False
        moved = order != 0 and execute(memory, visible, index, orders, pages, side, price, size, order)
        aggressor = _aggressor(memory, visible, side, price)
        if moved and not memory[PENDING]:
            show(memory, visible, index, pages)
        return memory[FAULT] == 0 and _due(memory, ts, price, size, aggressor)
    if kind == QUOTE:
        if memory[STANDING] == WHOLE:
            _compare(memory, index, pages, side, price, size, order, flags)
            return False
        changed = _quote(memory, visible, side, price, size)
    elif kind == CLEAR:
        _clear(memory, visible, index, orders, pages, ts, flags)
        return False
    elif kind == LEVEL:
        changed = _level(memory, visible, side, price, size, flags)
    elif kind == DEPTH:
        if memory[STANDING] != OPENING and memory[STANDING] != WHOLE:
            memory[UNWHOLE] += 1
            return False
        changed = _depth(memory, visible, index, pages, side, price, size, order, flags)
    elif kind == ADD or kind == REPLACE or kind == CANCEL:
        if memory[STANDING] == HOLE:
            memory[UNWHOLE] += 1
            return False
        if not place_order(memory, visible, index, orders, pages, kind, side, price, size, order):
            return False
        if flags & LAST:
            memory[PENDING], memory[STANDING] = 0, WHOLE
        if not memory[PENDING]:
            if memory[STANDING] == NO_LADDER:
                memory[STANDING] = WHOLE
            changed = show(memory, visible, index, pages)
    if memory[FAULT] or memory[PENDING] or (memory[STARTED] and not changed):
        return False
    return _due(memory, ts, 0, 0, 0)


@njit(cache=True, forceinline=True)
def _clear(memory, visible, index, orders, pages, ts, flags):
    """Forget the book; what was visible goes when it is sure that nothing whole comes with the CLEAR."""
    if memory[PAGES]:
        pages[: memory[PAGES] + 1] = 0
        index[GROUPS:] = 0
        orders[:, ID] = 0
    visible[1] = 0
    memory[ORDERS], memory[LEVELS], memory[LEVELS + 1], memory[FAR], memory[FAR + 1] = 0, 0, 0, 0, 0
    memory[PENDING], memory[CLEARED_TS], memory[EMPTIED] = 1, ts, 0
    memory[DIRTY], memory[COMPLETE], memory[UPDATE] = 3, 1, 0
    memory[WAITING], memory[WAITING + 3] = 0, 0
    memory[STANDING] = OPENING
    if flags & GAP:
        memory[STANDING] = HOLE
        memory[GAPS] += 1


@njit(cache=True, forceinline=True)
def _level(memory, visible, side, price, size, flags):
    """One level of a snapshot by level; True where its last one changed the visible book."""
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


@njit(cache=True, forceinline=True)
def _quote(memory, visible, side, price, size):
    """A best quote where no whole ladder stands: it is the book."""
    now = visible[0]
    which = BID_PX if side == BUY else ASK_PX
    shown = price if size > 0 else 0
    changed = now[which, 0] != shown or now[which + 1, 0] != size
    now[which, 0], now[which + 1, 0] = shown, size
    memory[PENDING], memory[DIRTY] = 0, 3
    return changed


@njit(cache=True, forceinline=True)
def _compare(memory, index, pages, side, price, size, update, flags):
    """A best quote beside a whole ladder: at the update that it names, the two must agree.

    A quote that names another update waits for the message of that number, until the next quote of its side.
    """
    which = BIDS if side == BUY else ASKS
    lots = ANY_SIZE if flags & NO_SIZE else size
    if update != 0 and update == memory[UPDATE] and memory[COMPLETE]:
        _compare_best(memory, index, pages, which, price, lots)
        update = 0
    waits = WAITING + 3 * which
    memory[waits], memory[waits + 1], memory[waits + 2] = update, price, lots


@njit(cache=True, forceinline=True)
def _compare_best(memory, index, pages, which, price, lots):
    """Count a comparison of a best quote with the ladder's best of the side, and whether they are equal."""
    memory[COMPARED] += 1
    if memory[LEVELS + which] == 0:
        memory[EQUAL] += lots == 0
        return
    at = memory[BEST + which]
    same_size = lots == ANY_SIZE or lots == pages[index[at >> BITS], which, at & SLOT]
    memory[EQUAL] += same_size and price == memory[LOW] + at


@njit(cache=True, forceinline=True)
def _depth(memory, visible, index, pages, side, price, size, update, flags):
    """All lots at a price; the visible book follows at the end of the vendor's message."""
    which = BIDS if side == BUY else ASKS
    at = find_price(memory, index, which, price, size)
    if at >= 0:
        set_lots(memory, visible, index, pages, which, at, size)
        # Which of the known orders are left where fewer lots are nobody says; lots that come later are not theirs.
        known = KNOWN + (at & SLOT)
        pages[index[at >> BITS], which, known] = min(size, pages[index[at >> BITS], which, known])
    memory[UPDATE], memory[COMPLETE] = update, flags & LAST != 0
    if not flags & LAST:
        return False
    memory[PENDING], memory[STANDING] = 0, WHOLE
    for waits in (WAITING, WAITING + 3):
        if update != 0 and memory[waits] == update:
            _compare_best(
                memory, index, pages, BIDS if waits == WAITING else ASKS, memory[waits + 1], memory[waits + 2]
            )
            memory[waits] = 0
    return show(memory, visible, index, pages)


@njit(cache=True, forceinline=True)
def _aggressor(memory, visible, side, price):
    """Who started a trade: the vendor's word, else the quote rule, else the tick rule (Lee and Ready 1991); or 0."""
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
