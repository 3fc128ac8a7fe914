"""What a LOBSTER message makes of the visible levels, compared with the vendor's own book row, as compiled events.

The state is the vendor's previous row: beyond the N levels of the file nothing is known, so nothing is kept. A row is
*determined* where the previous row and the message fix it. It is not where a full side loses a level (the level that
comes into sight rested beyond the file), nor where the previous row cannot take the message: more lots leave a price
than rest there, an order arrives across the spread, a size is not positive.

A message gives its event, and DEPTH events flagged RESYNC where the levels that it leaves are not the row's:

* a level that comes into sight is set *before* the message, when it still lies beyond the N visible ones, so that the
  book never shows the hole which the message would leave;
* a level that goes out of sight, and whatever else differs, is set after it; a level of another size is set to 0 first,
  so that no order that the book knew at that price is believed to rest there still.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.schema import Flag, Kind, Side

ADD_ORDER, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN, CROSS, HALT = 1, 2, 3, 4, 5, 6, 7
"""LOBSTER's message types."""
PRICE, SIZE = 0, 1
ASK, BID = 0, 1
ROWS, DETERMINED, EQUAL, EXHAUSTED, INCONSISTENT, RESYNCHRONISED = 0, 1, 2, 3, 4, 5
"""Places in the counts that `compare_levels` adds to."""
KIND, SIDE, TICKS, LOTS, ORDER, FLAGS, ROW = 0, 1, 2, 3, 4, 5, 6
"""Columns of its events; ROW is the message's place in the batch."""

_ADD, _CANCEL, _TRADE, _HALT, _DEPTH = int(Kind.ADD), int(Kind.CANCEL), int(Kind.TRADE), int(Kind.HALT), int(Kind.DEPTH)
_BUY, _SELL, _NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
_LAST, _HIDDEN, _RESYNC = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.RESYNC)
_MIN_EVENTS = 65_536


def event_space(levels: int) -> int:
    """Rows of an event buffer that many messages of a file of `levels` levels fit into."""
    return max(_MIN_EVENTS, 16 * most_events(levels))


@njit(cache=True)
def most_events(levels: int) -> int:
    """Most events of one message: itself, and on two sides twice the levels of before and after."""
    return 8 * levels + 8


def taken_back(message: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """The book `(2, N, 2)` before `message (5,)` made it `row (2, N, 2)`; the row itself where that can not be told."""
    what, _, size, price, direction = message.tolist()
    if what > EXECUTE or size <= 0:
        return row.copy()
    side = ASK if direction < 0 else BID
    sign = 1 if side == ASK else -1
    levels = {ticks: lots for ticks, lots in row[side].tolist() if lots}
    levels[price] = levels.get(price, 0) + (-size if what == ADD_ORDER else size)
    if levels[price] < 0:
        return row.copy()
    there = sorted((sign * ticks, ticks, lots) for ticks, lots in levels.items() if lots)[: row.shape[1]]
    before = row.copy()
    before[side] = 0
    for level, (_, ticks, lots) in enumerate(there):
        before[side, level] = ticks, lots
    return before


@njit(cache=True)
def compare_levels(
    messages: NDArray[np.int64],
    flags: NDArray[np.int64],
    book: NDArray[np.int64],
    start: int,
    before: NDArray[np.int64],
    events: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> tuple[int, int]:
    """Turn messages from `start` on into events until `events` is full; gives the next message and the events made.

    `messages (n, 5) int64`: type, order id, size, price in ticks, direction of the resting order; `flags (n,)` of their
    own; `book (n, 2, N, 2)`: ask and bid levels, best first, price in ticks and size, both 0 where there is none;
    `before (2, N, 2)`: the row before, replaced by the last row that was taken; `events (m, 7)`; `counts (6,)`.
    """
    levels = book.shape[2]
    predicted = np.zeros((2, levels + 1, 2), np.int64)
    made, space = 0, most_events(levels)
    for row in range(start, len(messages)):
        if made + space > len(events):
            return row, made
        what, order, size, price, direction = messages[row]
        side = ASK if direction < 0 else BID
        predicted[:, :levels], predicted[:, levels] = before, 0
        verdict = _apply(predicted, what, side, price, size)
        equal = np.array_equal(predicted[:, :levels], book[row])
        counts[ROWS] += 1
        counts[verdict] += 1
        counts[EQUAL] += equal and verdict == DETERMINED
        counts[RESYNCHRONISED] += not equal
        touched = price if what <= EXECUTE else 0
        doubtful = verdict == INCONSISTENT
        first = made
        made = _set_levels(predicted, before, book[row], side, touched, doubtful, True, row, events, made)
        _put(events, made, what, direction, price, size, order, flags[row], row)
        made += 1
        made = _set_levels(predicted, before, book[row], side, touched, doubtful, False, row, events, made)
        for at in range(first, made):
            if events[at, KIND] == _DEPTH:
                events[at, FLAGS] |= _RESYNC
        events[made - 1, FLAGS] |= _LAST
        before[:] = book[row]
    return len(messages), made


@njit(cache=True)
def _count(side: NDArray[np.int64]) -> int:
    """Levels that are there."""
    there = 0
    while there < len(side) and side[there, SIZE] != 0:
        there += 1
    return there


@njit(cache=True)
def _apply(predicted: NDArray[np.int64], what: int, side: int, price: int, size: int) -> int:
    """Let a message act on `predicted (2, N + 1, 2)`; gives DETERMINED, EXHAUSTED or INCONSISTENT (then unchanged)."""
    if what > EXECUTE:
        return DETERMINED  # hidden executions, crosses and halts leave the displayed book as it is
    if size <= 0:
        return INCONSISTENT
    mine, full = predicted[side], len(predicted[side]) - 1
    there, sign = _count(mine), 1 if side == ASK else -1
    at = 0
    while at < there and sign * mine[at, PRICE] < sign * price:
        at += 1
    found = at < there and mine[at, PRICE] == price
    if what == ADD_ORDER:
        other = predicted[1 - side, 0]
        if other[SIZE] > 0 and sign * price <= sign * other[PRICE]:
            return INCONSISTENT
        if found:
            mine[at, SIZE] += size
            return DETERMINED
        for k in range(there, at, -1):
            mine[k] = mine[k - 1]
        mine[at, PRICE], mine[at, SIZE] = price, size
        return DETERMINED
    if not found:
        return DETERMINED if at == there == full else INCONSISTENT  # beyond the visible levels: they stay
    if mine[at, SIZE] < size:
        return INCONSISTENT
    mine[at, SIZE] -= size
    if mine[at, SIZE] > 0:
        return DETERMINED
    for k in range(at, there):
        mine[k] = mine[k + 1]
    mine[there - 1] = 0
    return EXHAUSTED if there == full else DETERMINED


@njit(cache=True)
def _set_levels(
    predicted: NDArray[np.int64],
    before: NDArray[np.int64],
    book: NDArray[np.int64],
    side: int,
    touched: int,
    doubtful: bool,
    early: bool,
    row: int,
    events: NDArray[np.int64],
    made: int,
) -> int:
    """DEPTH events from the levels that the message leaves to the vendor's; `early` ones go before the message.

    `touched` is the message's price: whatever the book holds there after a `doubtful` message is set anew.
    """
    for s in range(2):
        sign, mine = (1 if s == ASK else -1), (_SELL if s == ASK else _BUY)
        old, new = _count(predicted[s]), _count(book[s])
        full = _count(before[s]) == len(before[s])
        worst = before[s, len(before[s]) - 1, PRICE]
        seen_touched = s != side
        i = j = 0
        while i < old or j < new:
            left = i < old and (j == new or sign * predicted[s, i, PRICE] <= sign * book[s, j, PRICE])
            right = j < new and (i == old or sign * book[s, j, PRICE] <= sign * predicted[s, i, PRICE])
            price = predicted[s, i, PRICE] if left else book[s, j, PRICE]
            size = book[s, j, SIZE] if right else 0
            hit = s == side and price == touched
            seen_touched = seen_touched or hit
            unseen = right and not left and full and sign * price > sign * worst and not hit
            if unseen == early:
                reset = left and right and size != predicted[s, i, SIZE] or hit and not left or hit and doubtful
                if left and not right or reset:
                    made = _put_level(events, made, mine, price, 0, row)
                if right and (reset or not left):
                    made = _put_level(events, made, mine, price, size, row)
            i += left
            j += right
        if doubtful and not seen_touched and not early:
            made = _put_level(events, made, mine, touched, 0, row)
    return made


@njit(cache=True)
def _put_level(events: NDArray[np.int64], made: int, side: int, price: int, size: int, row: int) -> int:
    events[made, KIND], events[made, SIDE], events[made, TICKS], events[made, LOTS] = _DEPTH, side, price, size
    events[made, ORDER], events[made, FLAGS], events[made, ROW] = 0, 0, row
    return made + 1


@njit(cache=True)
def _put(
    events: NDArray[np.int64],
    made: int,
    what: int,
    direction: int,
    price: int,
    size: int,
    order: int,
    flags: int,
    row: int,
) -> None:
    """The message's own event; the aggressor of an execution is the side opposite to the resting order's."""
    resting = _BUY if direction > 0 else _SELL
    kind, side = _CANCEL, resting
    if what == ADD_ORDER:
        kind = _ADD
    elif what == EXECUTE or what == EXECUTE_HIDDEN:
        kind, side = _TRADE, -resting
    elif what == CROSS:
        kind, side = _TRADE, _NONE
    elif what == HALT:
        kind, side = _HALT, _NONE
    if what == EXECUTE_HIDDEN or what == CROSS:
        flags |= _HIDDEN
    events[made, KIND], events[made, SIDE], events[made, TICKS], events[made, LOTS] = kind, side, price, size
    events[made, ORDER], events[made, FLAGS], events[made, ROW] = order, flags, row
