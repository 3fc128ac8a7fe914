"""Who left which queue: events go through the book that `book_kernel` keeps; beside it stands when each order joined.

What a trade, a cancel or a replacement takes is read off the book before the event is applied to it, so that leaves
and book rows can never disagree about lots. Lots that a vendor's depth sets beside orders (LOBSTER's opening) belong to
nobody: executions take those that came first, cancels those that came last, as the order-by-order market has it; where
depth denies lots of known orders, nobody says whose they were, and they count as the last of the queue.
"""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline import book_ladder as ladder
from feature_repo.pipeline.book_kernel import apply_event, settle
from feature_repo.pipeline.book_ladder import (
    ANCHORED,
    ASKS,
    BIDS,
    BITS,
    FAULT,
    HOLE,
    ID,
    KNOWN,
    LOW,
    NO_LADDER,
    ORDER_LOTS,
    ORDER_PRICE,
    ORDER_SIDE,
    ORDERS,
    PENDING,
    SLOT,
    STANDING,
    WINDOW,
    find_order,
    forget_order,
    needs_room,
    rehash,
)
from feature_repo.pipeline.books import REPLAYED_COLUMNS, fault
from feature_repo.pipeline.leaves import CANCEL, CLEAR, EXECUTE, HALT, LEAF_DTYPE, RESUME, WHOLE
from feature_repo.ticks.schema import Flag, Kind, Side

_ADD, _CANCEL, _REPLACE, _TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
_DEPTH, _CLEAR, _HALT, _HIDDEN = int(Kind.DEPTH), int(Kind.CLEAR), int(Kind.HALT), int(Flag.HIDDEN)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LAST_IN_QUEUE = np.iinfo(np.int64).max
_JOINED, _NEWEST = 1, 2  # columns of both tables beside ID: when it, or its first lots, joined; when its last ones did
# Places in `note`: number of orders whose joining is known stands at ORDERS, as the ladder's functions have it.
_ROWS, _MADE, _HALTED, _LOOSE, _PRINT_NS, _PRINT_PRICE, _PRINT_SIDE, _PRINT_LEFT = range(8)
_NOTE = ORDERS + 1
_MOST_LEAVES = 4  # that one event gives


@njit(cache=True)
def trace(state, joins, loose, note, columns, start, by_order, out):
    """Leaves of the events from `start` on, until an array needs room or a fault; gives where it stopped."""
    memory, visible, index, orders, pages = state
    ts_ns, kind, side, price, size, order, flags = columns
    for i in range(start, ts_ns.shape[0]):
        if needs_room(memory, orders, pages) or 2 * note[ORDERS] >= len(joins) or 2 * note[_LOOSE] >= len(loose):
            return i
        ts, what, by = ts_ns[i], kind[i], order[i]
        note[_ROWS] += settle(memory, visible, ts, what)
        _follow_halt(note, out, ts, what)
        live = False
        if by_order and what == _CLEAR:
            _leave(note, out, ts, 0, 0, 0, CLEAR, 0)
            joins[:] = 0
            loose[:] = 0
            note[ORDERS] = note[_LOOSE] = note[_PRINT_LEFT] = 0
        elif by_order and memory[STANDING] != HOLE:
            place = find_order(orders, by)
            live = by != 0 and orders[place, ID] == by
            if what == _TRADE and not flags[i] & _HIDDEN:
                _traded(memory, index, orders, pages, joins, loose, note, out, ts, side[i], price[i], size[i], place,
                        live, by)  # fmt: skip
            elif what == _CANCEL or what == _REPLACE or what == _ADD:
                gone = size[i] if what == _CANCEL else np.int64(_LAST_IN_QUEUE)
                if live:
                    _cancelled(orders, joins, note, out, ts, gone, place, what == _CANCEL)
                elif what == _CANCEL:
                    _loose_left(memory, index, pages, loose, note, out, ts, side[i], price[i], gone, CANCEL)
            elif what == _DEPTH and size[i] >= 0 and memory[STANDING] != NO_LADDER:
                _depth_set(memory, index, pages, loose, note, out, ts, side[i], price[i], size[i])
        pending = memory[PENDING]
        note[_ROWS] += apply_event(
            memory, visible, index, orders, pages, ts, what, side[i], price[i], size[i], by, flags[i]
        )
        if memory[FAULT]:
            return i
        if by_order and by != 0 and (what <= _TRADE):
            _follow_order(orders, joins, note, ts, by, live, what == _ADD or what == _REPLACE)
        if by_order and pending and not memory[PENDING]:
            _leave(note, out, ts, 0, 0, 0, WHOLE, 0)
    return ts_ns.shape[0]


@njit(cache=True)
def _leave(note, out, ts, join, price, lots, kind, side):
    at = note[_MADE]
    out[at].ts_ns, out[at].join_ns, out[at].price, out[at].lots = ts, join, price, lots
    out[at].row, out[at].kind, out[at].side = note[_ROWS], kind, side
    note[_MADE] = at + 1


@njit(cache=True)
def _follow_halt(note, out, ts, what):
    """A halt lasts until the next event of another kind."""
    if what == _HALT and not note[_HALTED]:
        _leave(note, out, ts, 0, 0, 0, HALT, 0)
    elif what != _HALT and note[_HALTED]:
        _leave(note, out, ts, 0, 0, 0, RESUME, 0)
    note[_HALTED] = what == _HALT


@njit(cache=True)
def _traded(memory, index, orders, pages, joins, loose, note, out, ts, side, price, size, place, live, by):
    """A trade of an order that rests, of lots that belong to none, or a bare print that cancels may explain."""
    if live:
        lots = min(size, orders[place, ORDER_LOTS])
        joined = joins[find_order(joins, by), _JOINED]
        _leave(note, out, ts, joined, orders[place, ORDER_PRICE], lots, EXECUTE, orders[place, ORDER_SIDE])
    elif by != 0:
        _loose_left(memory, index, pages, loose, note, out, ts, -side, price, size, EXECUTE)
    elif side != 0:
        if note[_PRINT_NS] != ts or note[_PRINT_PRICE] != price or note[_PRINT_SIDE] != side:
            note[_PRINT_LEFT] = 0
        note[_PRINT_NS], note[_PRINT_PRICE], note[_PRINT_SIDE] = ts, price, side
        note[_PRINT_LEFT] += size


@njit(cache=True)
def _cancelled(orders, joins, note, out, ts, gone, place, cancel):
    """Lots of a known order leave; a cancel that a print of the same moment, price and side tells of was executed."""
    lots, price, side = min(gone, orders[place, ORDER_LOTS]), orders[place, ORDER_PRICE], orders[place, ORDER_SIDE]
    kind = CANCEL
    if (
        cancel
        and note[_PRINT_NS] == ts
        and note[_PRINT_PRICE] == price
        and note[_PRINT_SIDE] == -side
        and note[_PRINT_LEFT] >= lots
    ):
        note[_PRINT_LEFT] -= lots
        kind = EXECUTE
    _leave(note, out, ts, joins[find_order(joins, orders[place, ID]), _JOINED], price, lots, kind, side)


@njit(cache=True)
def _loose_at(memory, index, pages, side, price):
    """Lots at a price, and those of them that belong to no known order."""
    at = price - memory[LOW]
    if not memory[ANCHORED] or at < 0 or at >= WINDOW:
        return np.int64(0), np.int64(0)
    page, which = index[at >> BITS], BIDS if side == _BUY else ASKS
    total = pages[page, which, at & SLOT]
    return total, total - pages[page, which, KNOWN + (at & SLOT)]


@njit(cache=True)
def _loose_left(memory, index, pages, loose, note, out, ts, side, price, size, kind):
    """Lots of no known order leave, if there are any."""
    if side == 0 or price <= 0:
        return
    lots = min(size, _loose_at(memory, index, pages, side, price)[1])
    if lots > 0:
        place = find_order(loose, _key(side, price))
        _leave(note, out, ts, loose[place, _JOINED if kind == EXECUTE else _NEWEST], price, lots, kind, side)


@njit(cache=True)
def _key(side, price):
    return 4 * price + side + 2


@njit(cache=True)
def _depth_set(memory, index, pages, loose, note, out, ts, side, price, size):
    """All lots at a price: more than stand there join as lots of nobody, fewer take those first."""
    total, free = _loose_at(memory, index, pages, side, price)
    key = _key(side, price)
    place = find_order(loose, key)
    if size > total:
        note[_LOOSE] += loose[place, ID] == 0
        loose[place, ID] = key
        if free == 0:
            loose[place, _JOINED] = ts
        loose[place, _NEWEST] = ts
    elif size < total:
        from_free = min(free, total - size)
        if from_free > 0:
            _leave(note, out, ts, loose[place, _NEWEST], price, from_free, CANCEL, side)
        if total - size > from_free:
            _leave(note, out, ts, _LAST_IN_QUEUE, price, total - size - from_free, CANCEL, side)


@njit(cache=True)
def _follow_order(orders, joins, note, ts, order, live, joined):
    """After an event: an order that rests now and was named by its own arrival joined with it."""
    rests = orders[find_order(orders, order), ID] == order
    place = find_order(joins, order)
    if rests and joined:
        note[ORDERS] += joins[place, ID] == 0
        joins[place, ID], joins[place, _JOINED] = order, ts
    elif live and not rests and joins[place, ID] == order:
        forget_order(note, joins, place)


class LeafBuilder:
    """Takes a partition's events in tables, in time order, and gives its leaves.

    `by_order` False (depth, best quotes) gives halts alone.
    """

    def __init__(self, depth: int, name: str = "events", by_order: bool = True) -> None:
        """Start before the first event; `depth` is the book's, whose rows the leaves count; `name` stands in errors."""
        self._state, self._name, self._by_order = ladder.new_state(depth), name, by_order
        self._joins, self._loose = np.zeros((1024, 4), np.int64), np.zeros((1024, 4), np.int64)
        self._note = np.zeros(_NOTE, np.int64)

    def add(self, events: pa.Table | pa.RecordBatch) -> NDArray[np.void]:
        """Leaves (LEAF_DTYPE) that the next events (EVENT_SCHEMA) give; raises InputError as `build_book`."""
        columns = []
        for field in REPLAYED_COLUMNS:
            values = np.asarray(events.column(field)).view()
            values.flags.writeable = False
            columns.append(values)
        out = np.empty(_MOST_LEAVES * len(columns[0]), LEAF_DTYPE)  # pages that no leaf touches are never made
        taken, self._note[_MADE] = 0, 0
        while True:
            arguments = (self._state, self._joins, self._loose, self._note, tuple(columns), taken, self._by_order, out)
            taken = trace(*arguments)
            if taken == len(columns[0]) or self._state.memory[ladder.FAULT]:
                break
            self._state = ladder.with_room(self._state)
            self._joins = self._roomy(self._joins, int(self._note[ORDERS]))
            self._loose = self._roomy(self._loose, int(self._note[_LOOSE]))
        if problem := fault(self._state.memory):
            raise InputError(f"{self._name}: {problem}, at row {taken} of its batch; clean the events first")
        return out[: self._note[_MADE]].copy()

    @staticmethod
    def _roomy(table: NDArray[np.int64], used: int) -> NDArray[np.int64]:
        if 2 * used < len(table):
            return table
        wider = np.zeros((2 * len(table), table.shape[1]), np.int64)
        rehash(table, wider)
        return wider
