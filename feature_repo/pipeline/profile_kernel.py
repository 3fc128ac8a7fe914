"""Compiled scan of a partition's events for the gate: the state of the book after each instant, and distributions.

It takes the events in batches and holds one book (by price) and the live orders, never the day. An instant is all
events of one time stamp: a book may cross between the events of one message, and is judged when the message is over.
"""

import heapq

import numpy as np
from numba import njit, types
from numba.typed import Dict, List

from feature_repo.ticks.schema import Flag, Kind, Side

ADD, CANCEL, REPLACE, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
QUOTE, LEVEL, CLEAR, DEPTH = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.CLEAR), int(Kind.DEPTH)
LAST, HIDDEN, LEVEL_MASK = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.LEVEL_MASK)
GAP, NO_SIZE = int(Flag.GAP), int(Flag.NO_SIZE)
BUY = int(Side.BUY)

TOP, LADDER = 0, 1
"""The two books: the best quote (QUOTE, LEVEL), and the one by price (DEPTH, orders)."""

INSTANTS, KNOWN, POSITIVE, CROSSED, LOCKED, DEEP = 0, 1, 2, 3, 4, 5
"""Counts of a book's instants: all that changed it; with both sides known; ask above, below, at bid; sizes positive."""

HOLES, REFERENCES, UNKNOWN, OVERSIZED = 0, 1, 2, 3
"""Counts of events: holes in the vendor's numbering; events that name an order, one not there, are too large for it."""

BOOK_SIZE, TRADE_SIZE, STEP, PRICE, SPREAD = 0, 1, 2, 3, 4
"""Histograms; SPREAD + TOP and SPREAD + LADDER are the two books' spreads."""

HISTOGRAMS, BINS = 6, 256

_TS, _BID, _BID_SZ, _ASK, _ASK_SZ, _WHOLE, _TOUCHED_TOP, _TOUCHED_LADDER, _STARTED = 0, 1, 2, 3, 4, 5, 6, 7, 8
_STAGED = 9  # the four values of a depth snapshot's level 0, until its LAST
_STATE = 13
_UNTOLD, _PENDING, _YES, _NO = -1, 2, 1, 0  # of _WHOLE: before the first book event, after a CLEAR, whole, not


def new_scan():
    """What `scan_batch` carries from batch to batch: `(state, (books, events, histograms), ladder)`."""
    state = np.zeros(_STATE, np.int64)
    state[_WHOLE] = _UNTOLD
    sizes = [Dict.empty(types.int64, types.int64) for _ in range(2)]
    queued = [Dict.empty(types.int64, types.boolean) for _ in range(2)]
    heaps = [List.empty_list(types.int64) for _ in range(2)]
    orders = Dict.empty(types.int64, types.UniTuple(types.int64, 3))  # id to side, price, lots left
    counts = (np.zeros((2, 6), np.int64), np.zeros(4, np.int64), np.zeros((HISTOGRAMS, BINS), np.int64))
    return state, counts, (*sizes, *queued, *heaps, orders)


@njit(cache=True)
def bin_of(value):
    """Bin of a positive value: four to each doubling, so that a shift in scale is a shift in bins; 0 for the rest."""
    if value <= 0:
        return 0
    return min(BINS - 1, 1 + int(np.floor(4.0 * np.log2(float(value)) + 1e-9)))


@njit(cache=True)
def _set(sizes, queued, heap, key, size):
    """`size` lots now rest at the price of `key`, which is negative for bids so that the smallest key is the best."""
    if size <= 0:
        if key in sizes:
            del sizes[key]
        return
    sizes[key] = size
    if key not in queued:
        queued[key] = True
        heapq.heappush(heap, key)


@njit(cache=True)
def _rest(ladder, side, price, size, change):
    """Set the lots at a price of one side, or where `change` add to them."""
    bids, asks, bids_queued, asks_queued, bid_heap, ask_heap, _ = ladder
    if side == BUY:
        _set(bids, bids_queued, bid_heap, -price, size + (bids.get(-price, 0) if change else 0))
    else:
        _set(asks, asks_queued, ask_heap, price, size + (asks.get(price, 0) if change else 0))


@njit(cache=True)
def _best(sizes, queued, heap):
    """Smallest key of a side, 0 where it is empty; keys whose level is gone leave the heap here."""
    while len(heap) > 0:
        if heap[0] in sizes:
            return heap[0]
        del queued[heapq.heappop(heap)]
    return 0


@njit(cache=True)
def _judge(books, book, histograms, bid, ask, deep):
    """Count one instant of a book with best prices `bid` and `ask`, 0 where there is none."""
    counts = books[book]
    counts[INSTANTS] += 1
    if bid <= 0 or ask <= 0:
        return
    counts[KNOWN] += 1
    counts[POSITIVE if ask > bid else (CROSSED if ask < bid else LOCKED)] += 1
    if deep:
        counts[DEEP] += 1
    histograms[SPREAD + book, bin_of(ask - bid)] += 1
    histograms[PRICE, bin_of((bid + ask) // 2)] += 1


@njit(cache=True)
def close_instant(state, counts, ladder):
    """Judge the books that the instant changed; to be called once more after the last batch."""
    books, _, histograms = counts
    if state[_TOUCHED_TOP]:
        _judge(books, TOP, histograms, state[_BID], state[_ASK], state[_BID_SZ] > 0 and state[_ASK_SZ] > 0)
    if state[_TOUCHED_LADDER]:
        bid, ask = np.int64(0), np.int64(0)
        if state[_WHOLE] == _YES:
            bids, asks, bids_queued, asks_queued, bid_heap, ask_heap, _ = ladder
            bid, ask = -_best(bids, bids_queued, bid_heap), _best(asks, asks_queued, ask_heap)
        _judge(books, LADDER, histograms, bid, ask, True)
    state[_TOUCHED_TOP] = state[_TOUCHED_LADDER] = 0


@njit(cache=True)
def _take(ladder, order, size, events):
    """`size` lots of a live order leave the ladder; more than it has take all of it and are counted."""
    orders = ladder[6]
    side, price, left = orders[order]
    if size > left:
        events[OVERSIZED] += 1
        size = left
    if size == left:
        del orders[order]
    else:
        orders[order] = (side, price, left - size)
    _rest(ladder, side, price, -size, True)


@njit(cache=True)
def _on_order(what, side, price, size, order, state, events, ladder):
    """An order is added, shrinks or is replaced."""
    orders = ladder[6]
    if state[_WHOLE] == _UNTOLD:
        state[_WHOLE] = _YES  # a day of orders opens with an empty book
    state[_TOUCHED_LADDER] = 1
    known = order in orders
    if what != ADD:
        events[REFERENCES] += 1
        if not known:
            events[UNKNOWN] += 1
            return
    if known:
        was, _, left = orders[order]
        _take(ladder, order, size if what == CANCEL else left, events)
        if side == 0:
            side = was  # a replace need not repeat the side
    if what != CANCEL:
        orders[order] = (side, price, size)
        _rest(ladder, side, price, size, True)


@njit(cache=True)
def _on_clear(flags, state, events, ladder):
    """The book is unknown from here on."""
    if flags & GAP:
        events[HOLES] += 1
    if state[_WHOLE] == _YES:
        state[_TOUCHED_LADDER] = 1
    if state[_BID] > 0 or state[_ASK] > 0:
        state[_TOUCHED_TOP] = 1
    state[_WHOLE] = _PENDING
    state[_BID : _ASK_SZ + 1] = 0
    state[_STAGED:] = 0
    bids, asks, bids_queued, asks_queued, bid_heap, ask_heap, orders = ladder
    bids.clear()
    asks.clear()
    bids_queued.clear()
    asks_queued.clear()
    bid_heap.clear()
    ask_heap.clear()
    orders.clear()


@njit(cache=True)
def _on_top(what, side, price, size, flags, state):
    """One side of the best quote, or a level of a snapshot."""
    buys = side == BUY
    if what == QUOTE:
        place = _BID if buys else _ASK
        # a dealer that gives no size still quotes; elsewhere a size of 0 empties the side
        there = size > 0 or flags & NO_SIZE
        state[place], state[place + 1] = (price if there else 0), max(size, 1 if there else 0)
        state[_TOUCHED_TOP] = 1
        return
    if not flags & LEVEL_MASK:
        place = _STAGED if buys else _STAGED + 2
        state[place], state[place + 1] = price, size
    if flags & LAST:
        state[_BID : _ASK_SZ + 1] = state[_STAGED:]
        state[_TOUCHED_TOP] = 1


@njit(cache=True)
def _tally(what, size, flags, histograms):
    """Put the size of a trade, or of what is quoted, in its histogram."""
    if size <= 0 or flags & NO_SIZE:
        return
    if what == TRADE:
        histograms[TRADE_SIZE, bin_of(size)] += 1
    elif what in (QUOTE, ADD, DEPTH) or (what == LEVEL and not flags & LEVEL_MASK):
        histograms[BOOK_SIZE, bin_of(size)] += 1


@njit(cache=True)
def scan_batch(ts_ns, kind, side, price, size, order_id, flags, opens, closes, state, counts, ladder):
    """Take the next events `(n,)`, in time order; `opens`, `closes (W,) int64` are the session windows."""
    _, events, histograms = counts
    for i in range(ts_ns.shape[0]):
        what, now = kind[i], ts_ns[i]
        if state[_STARTED] and now != state[_TS]:
            close_instant(state, counts, ladder)
            for w in range(opens.shape[0]):  # a step over a break says nothing of the feed
                if opens[w] <= state[_TS] and now < closes[w]:
                    histograms[STEP, bin_of(now - state[_TS])] += 1
        state[_TS], state[_STARTED] = now, 1
        _tally(what, size[i], flags[i], histograms)
        if what == TRADE:
            if order_id[i] != 0 and not flags[i] & HIDDEN:
                events[REFERENCES] += 1
                if order_id[i] in ladder[6]:
                    _take(ladder, order_id[i], size[i], events)
                    state[_TOUCHED_LADDER] = 1
                else:
                    events[UNKNOWN] += 1
        elif what in (QUOTE, LEVEL):
            _on_top(what, side[i], price[i], size[i], flags[i], state)
        elif what == CLEAR:
            _on_clear(flags[i], state, events, ladder)
        elif what == DEPTH:
            if state[_WHOLE] == _UNTOLD:
                state[_WHOLE] = _NO  # updates without a snapshot to put them on
            _rest(ladder, side[i], price[i], size[i], False)
            state[_TOUCHED_LADDER] = 1
        elif what in (ADD, CANCEL, REPLACE):
            _on_order(what, np.int64(side[i]), price[i], size[i], order_id[i], state, events, ladder)
        if flags[i] & LAST and state[_WHOLE] == _PENDING and what in (DEPTH, ADD, CANCEL, REPLACE):
            state[_WHOLE] = _YES
