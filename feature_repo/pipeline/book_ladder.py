"""The memory of a book and its ladder of lots by price, as arrays that compiled code reads and writes.

The ladder keeps lots in pages of 64 prices that are made when first touched, so that a price far from the touch costs a
page and not the range between; counts of what is held by page, and of held pages by 64 pages, let a search skip what is
empty. Orders stand in an open-addressed table by id. `book_kernel` compiles these functions into its own: after a
change here remove the `__pycache__` folders, since numba looks at the caller's file alone.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.schema import Kind, Side

CANCEL, REPLACE = int(Kind.CANCEL), int(Kind.REPLACE)
BUY = int(Side.BUY)
BID_PX, BID_SZ, ASK_PX, ASK_SZ = 0, 1, 2, 3
BIDS, ASKS = 0, 1
WINDOW = 1 << 24
"""Prices that the ladder can hold: this many ticks around the first price of the stream."""
BITS = 6
PAGE, SLOT = 1 << BITS, (1 << BITS) - 1
GROUPS = WINDOW // PAGE
KNOWN, HELD = PAGE, 2 * PAGE
"""Where, by side, a page keeps the lots of known orders, and the number of its prices that hold lots."""
ID, ORDER_SIDE, ORDER_PRICE, ORDER_LOTS = 0, 1, 2, 3

# Places in `memory`: first the counts of events that could not be used as they were.
UNKNOWN_ORDER, HIDDEN_TRADE, OVERSIZED, GAPS, UNWHOLE, COMPARED, EQUAL, FAR_LEVELS = range(8)
COUNTS = 8
PENDING, CLEARED_TS, EMPTIED, STARTED, LAST_TRADE, TICK_SIDE = range(8, 14)
STANDING, DIRTY, UPDATE, COMPLETE, LOW, ANCHORED = range(14, 20)
PAGES, ORDERS, LEVELS, BEST, FAR = 20, 21, 22, 24, 26  # from LEVELS on a pair each: bids, asks
FAULT, FAULT_VALUE, ROW_TS, EMPTIED_TS, ROW_TRADE = 28, 29, 30, 31, 32  # the last: price, size, aggressor
WAITING = 35  # by side: number, price and lots of a best quote that is ahead of the ladder, -1 lots: any
MEMORY = 41

NO_LADDER, OPENING, WHOLE, HOLE = 0, 1, 2, 3
"""What the ladder is: never filled, a snapshot that is being read, the whole book, unknown after a gap."""

FAR_NEEDED, NEGATIVE_SIZE, TOO_LARGE, TOO_HEAVY = 1, 2, 3, 4
"""Faults; FAULT_VALUE is the price, size or lots."""

MOST = np.iinfo(np.int32).max


class State(NamedTuple):
    """Everything that a book remembers; `new_state` makes it, `with_room` grows it. The kernels take it unpacked."""

    memory: NDArray[np.int64]  # (MEMORY,)
    visible: NDArray[np.int32]  # (2, 4, K) the visible book, and the LEVEL snapshot that is being read
    page_index: NDArray[np.int32]  # (WINDOW / 64,) page of each 64 prices, 0: none; then held pages by 64 pages, side
    orders: NDArray[np.int64]  # (C, 4) id (0: free place), side, price, lots; open-addressed, C is a power of two
    pages: NDArray[np.int64]  # (P, 2, 129) by side: lots of 64 prices, lots of known orders there, prices with lots


def new_state(depth: int) -> State:
    """State of a book of `depth` levels a side that has seen nothing."""
    memory = np.zeros(MEMORY, np.int64)
    memory[EMPTIED], memory[COMPLETE], memory[DIRTY] = 1, 1, 3
    index = np.zeros(GROUPS + 2 * GROUPS // PAGE, np.int32)
    orders, pages = np.zeros((1024, 4), np.int64), np.zeros((16, 2, HELD + 1), np.int64)
    return State(memory, np.zeros((2, 4, depth), np.int32), index, orders, pages)


@njit(cache=True, forceinline=True)
def needs_room(memory, orders, pages):
    """Whether the next event could find no free page, or a table of orders more than half full."""
    return memory[PAGES] + 2 > pages.shape[0] or 2 * memory[ORDERS] >= orders.shape[0]


def with_room(state: State) -> State:
    """The same book with twice the pages or the table of orders where either is nearly full."""
    orders, pages = state.orders, state.pages
    if state.memory[PAGES] + 2 > len(pages):
        pages = np.concatenate([pages, np.zeros_like(pages)])
    if 2 * state.memory[ORDERS] >= len(orders):
        orders = np.zeros((2 * len(orders), 4), np.int64)
        rehash(state.orders, orders)
    return state._replace(orders=orders, pages=pages)


@njit(cache=True, forceinline=True)
def rehash(old, new):
    """Put every order of one table into another, empty one."""
    for i in range(old.shape[0]):
        if old[i, ID] != 0:
            new[find_order(new, old[i, ID])] = old[i]


@njit(cache=True, forceinline=True)
def _home(order, mask):
    """Where an order id belongs in a table of `mask` + 1 places (multiplicative hashing: Knuth, vol. 3, 6.4)."""
    return ((order * np.int64(-7046029254386353131)) >> np.int64(20)) & mask


@njit(cache=True, forceinline=True)
def find_order(orders, order):
    """Where an order id stands in the table, or the free place where it would go."""
    mask = orders.shape[0] - 1
    at = _home(order, mask)
    while orders[at, ID] != 0 and orders[at, ID] != order:
        at = (at + 1) & mask
    return at


@njit(cache=True, forceinline=True)
def forget_order(memory, orders, place):
    """Free the place of an order; later ones of the same run move up, so that a search never meets a hole."""
    mask = orders.shape[0] - 1
    hole, at = place, (place + 1) & mask
    while orders[at, ID] != 0:
        if (at - _home(orders[at, ID], mask)) & mask >= (at - hole) & mask:
            for column in range(4):
                orders[hole, column] = orders[at, column]
            hole = at
        at = (at + 1) & mask
    orders[hole, ID] = 0
    memory[ORDERS] -= 1


@njit(cache=True, forceinline=True)
def find_price(memory, index, which, price, size):
    """Place of a price on the ladder, its page made where it has none; -1 where it lies beyond the window."""
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
    if index[at >> BITS] == 0:
        memory[PAGES] += 1
        index[at >> BITS] = memory[PAGES]
    return at


@njit(cache=True, forceinline=True)
def set_lots(memory, visible, index, pages, which, at, lots):
    """Let `lots` rest at a price, and follow what is held and what is best."""
    page = index[at >> BITS]
    old = pages[page, which, at & SLOT]
    if old == lots:
        return
    pages[page, which, at & SLOT] = lots
    price, last = memory[LOW] + at, visible.shape[2] - 1
    full = visible[0, 2 * which + 1, last] > 0
    worst = visible[0, 2 * which, last]
    if not full or (price >= worst if which == BIDS else price <= worst):
        memory[DIRTY] |= 1 << which
    if old == 0:
        pages[page, which, HELD] += 1
        if pages[page, which, HELD] == 1:
            index[GROUPS + 2 * (at >> 2 * BITS) + which] += 1
        best = memory[BEST + which]
        if memory[LEVELS + which] == 0 or (at > best if which == BIDS else at < best):
            memory[BEST + which] = at
        memory[LEVELS + which] += 1
    elif lots == 0:
        pages[page, which, HELD] -= 1
        if pages[page, which, HELD] == 0:
            index[GROUPS + 2 * (at >> 2 * BITS) + which] -= 1
        memory[LEVELS + which] -= 1
        if memory[LEVELS + which] > 0 and at == memory[BEST + which]:
            memory[BEST + which] = _next(index, pages, which, at)


@njit(cache=True, forceinline=True)
def _next(index, pages, which, at):
    """The next worse price that holds lots, from `at` exclusive; there must be one."""
    step = -1 if which == BIDS else 1
    first = SLOT if which == BIDS else 0  # where a page is entered
    group, slot = at >> BITS, (at & SLOT) + step
    while True:
        page = index[group]
        if pages[page, which, HELD] > 0:
            while 0 <= slot < PAGE:
                if pages[page, which, slot] > 0:
                    return (group << BITS) + slot
                slot += step
        elif index[GROUPS + 2 * (group >> BITS) + which] == 0:
            group = (group >> BITS << BITS) if which == BIDS else group | SLOT  # none in these 64 pages: to their end
        group += step
        slot = first


@njit(cache=True, forceinline=True)
def take(memory, visible, index, orders, pages, place, size):
    """`size` lots of an order leave the ladder; more than it has take all of it and are counted."""
    if size > orders[place, ORDER_LOTS]:
        memory[OVERSIZED] += 1
        size = orders[place, ORDER_LOTS]
    which = BIDS if orders[place, ORDER_SIDE] == BUY else ASKS
    at = orders[place, ORDER_PRICE] - memory[LOW]
    page, slot = index[at >> BITS], (at & SLOT)
    # A DEPTH may have said that fewer lots rest there than the known orders hold: never below none.
    pages[page, which, KNOWN + slot] = max(0, pages[page, which, KNOWN + slot] - size)
    set_lots(memory, visible, index, pages, which, at, max(0, pages[page, which, slot] - size))
    orders[place, ORDER_LOTS] -= size
    if orders[place, ORDER_LOTS] == 0:
        forget_order(memory, orders, place)


@njit(cache=True, forceinline=True)
def take_loose(memory, visible, index, pages, which, price, size):
    """Lots that DEPTH set and that belong to no known order leave; False where there are none at this price."""
    at = price - memory[LOW]
    if not memory[ANCHORED] or at < 0 or at >= WINDOW:
        return False
    page, slot = index[at >> BITS], (at & SLOT)
    loose = pages[page, which, slot] - pages[page, which, KNOWN + slot]
    if loose <= 0:
        return False
    if size > loose:
        memory[OVERSIZED] += 1
    set_lots(memory, visible, index, pages, which, at, pages[page, which, slot] - min(size, loose))
    return True


@njit(cache=True, forceinline=True)
def place_order(memory, visible, index, orders, pages, kind, side, price, size, order):
    """An order comes, goes or moves; False where it is unknown."""
    place = find_order(orders, order) if order != 0 else -1
    live = place >= 0 and orders[place, ID] == order
    if kind == CANCEL:
        if live:
            take(memory, visible, index, orders, pages, place, size)
            return True
        if (
            side != 0
            and price > 0
            and take_loose(memory, visible, index, pages, BIDS if side == BUY else ASKS, price, size)
        ):
            return True
        memory[UNKNOWN_ORDER] += 1
        return False
    if order == 0 or (kind == REPLACE and not live):
        memory[UNKNOWN_ORDER] += 1
        return False
    if live:
        if side == 0:  # a replace need not repeat the side
            side = orders[place, ORDER_SIDE]
        take(memory, visible, index, orders, pages, place, orders[place, ORDER_LOTS])
        place = find_order(orders, order)
    if size == 0:
        return True
    which = BIDS if side == BUY else ASKS
    at = find_price(memory, index, which, price, size)
    if at < 0:  # an order beyond the window would be lost without a trace
        memory[FAULT], memory[FAULT_VALUE] = FAR_NEEDED, price
        return True
    orders[place, ID] = order
    orders[place, ORDER_SIDE], orders[place, ORDER_PRICE], orders[place, ORDER_LOTS] = side, price, size
    memory[ORDERS] += 1
    page = index[at >> BITS]
    pages[page, which, KNOWN + (at & SLOT)] += size
    lots = pages[page, which, at & SLOT] + size
    if lots > MOST:
        memory[FAULT], memory[FAULT_VALUE] = TOO_HEAVY, lots
    set_lots(memory, visible, index, pages, which, at, lots)
    return True


@njit(cache=True, forceinline=True)
def execute(memory, visible, index, orders, pages, side, price, size, order):
    """A trade takes from the resting order where the vendor names it; True where the ladder changed."""
    if order == 0:
        return False
    place = find_order(orders, order)
    if orders[place, ID] == order:
        take(memory, visible, index, orders, pages, place, size)
        return True
    if memory[STANDING] == HOLE:
        return False
    if (
        side != 0
        and price > 0
        and take_loose(memory, visible, index, pages, ASKS if side == BUY else BIDS, price, size)
    ):
        return True
    memory[UNKNOWN_ORDER] += 1
    return False


@njit(cache=True, forceinline=True)
def show(memory, visible, index, pages):
    """Write the best levels of the sides that may have changed into the visible book; True where one did."""
    now = visible[0]
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
                    at = _next(index, pages, which, at)
                price, lots = memory[LOW] + at, pages[index[at >> BITS], which, at & SLOT]
            changed |= now[2 * which, k] != price or now[2 * which + 1, k] != lots
            now[2 * which, k], now[2 * which + 1, k] = price, lots
    memory[DIRTY] = 0
    return changed
