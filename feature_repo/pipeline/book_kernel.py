"""Compiled reconstruction of the visible book from one partition's events, whatever form the vendor gave them in."""

import numpy as np
from numba import njit

from feature_repo.ticks.schema import Flag, Kind, Side

ADD, CANCEL, REPLACE, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
QUOTE, LEVEL, CLEAR = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.CLEAR)
LAST, HIDDEN, LEVEL_MASK = int(Flag.LAST), int(Flag.HIDDEN), int(Flag.LEVEL_MASK)
BUY, SELL = int(Side.BUY), int(Side.SELL)

BID_PX, BID_SZ, ASK_PX, ASK_SZ = 0, 1, 2, 3
UNKNOWN_ORDER, HIDDEN_TRADE, OVERSIZED, HEAVIEST = 0, 1, 2, 3
"""Places in the counts that `replay` returns."""


@njit(cache=True)
def replay(ts_ns, kind, side, price, size, order, flags, orders, low, prices, depth):
    """Replay events in time order into rows of the visible book.

    `order (n,) int64` are dense order numbers from 0 to `orders` - 1, or -1; `low` is the lowest price in ticks and
    `prices` the number of price levels from it. Gives `ts (T,) int64`, `book (T, 4, depth) int32` (bid price, bid
    size, ask price, ask size), `trade (T, 3) int32` (price, size, aggressor), and the counts of events that named an
    unknown order, of hidden trades, of cancels and trades larger than their order, and last the most lots that ever
    rested at one price: beyond int32, the book's sizes are wrong.
    """
    n = ts_ns.shape[0]
    out_ts = np.empty(n + 1, np.int64)
    out_book = np.zeros((n + 1, 4, depth), np.int32)
    out_trade = np.zeros((n + 1, 3), np.int32)
    counts = np.zeros(4, np.int64)
    ladder = np.zeros((2, prices), np.int64)  # lots by price: bids, asks
    best = np.array([-1, prices])  # index of the best bid and ask on the ladder
    live_side, live_price = np.zeros(orders, np.int8), np.zeros(orders, np.int64)
    live_size = np.zeros(orders, np.int64)
    now = np.zeros((4, depth), np.int32)  # the visible book
    staged = np.zeros((4, depth), np.int32)  # the snapshot being read
    rows = 0
    pending, cleared_ts, emptied = False, np.int64(0), True
    last_trade, tick_side = np.int64(0), 0
    for i in range(n):
        what = kind[i]
        if pending and not emptied and (ts_ns[i] > cleared_ts or what in (TRADE, QUOTE)):
            now[:] = 0  # nothing whole came with the clear: the book is unknown from it on
            out_ts[rows], out_book[rows], emptied = cleared_ts, now, True
            rows += 1
        if what == TRADE:
            if flags[i] & HIDDEN:
                counts[HIDDEN_TRADE] += 1
                continue
            known = order[i] >= 0 and live_size[order[i]] > 0
            if known:
                _take(ladder, best, live_side, live_price, live_size, order[i], size[i], low, counts)
            aggressor, tick_side = _aggressor(side[i], price[i], now, last_trade, tick_side)
            last_trade = price[i]
            if known and not pending:
                _show(now, ladder, best, low)
            out_ts[rows], out_book[rows] = ts_ns[i], now
            out_trade[rows, 0], out_trade[rows, 1], out_trade[rows, 2] = price[i], size[i], aggressor
            rows += 1
            continue
        if what == CLEAR:
            ladder[:], staged[:], live_size[:] = 0, 0, 0
            best[0], best[1] = -1, prices
            pending, cleared_ts, emptied = True, ts_ns[i], False
            continue
        if what == LEVEL:
            place = flags[i] & LEVEL_MASK
            if place < depth:
                which = BID_PX if side[i] == BUY else ASK_PX
                staged[which, place], staged[which + 1, place] = price[i], size[i]
            if flags[i] & LAST:
                now[:] = staged
                pending = False
        elif what == QUOTE:
            which = BID_PX if side[i] == BUY else ASK_PX
            now[which, 0] = price[i] if size[i] > 0 else 0
            now[which + 1, 0] = size[i]
            pending = False
        elif what in (ADD, REPLACE, CANCEL):
            if order[i] < 0 or (what != ADD and live_size[order[i]] == 0):
                counts[UNKNOWN_ORDER] += 1
                continue
            if what == CANCEL:
                _take(ladder, best, live_side, live_price, live_size, order[i], size[i], low, counts)
            else:
                if live_size[order[i]] > 0:
                    _take(ladder, best, live_side, live_price, live_size, order[i], live_size[order[i]], low, counts)
                if side[i] != 0:  # a replace need not repeat the side
                    live_side[order[i]] = side[i]
                _rest(ladder, best, live_side, live_price, live_size, order[i], price[i], size[i], low, counts)
            if flags[i] & LAST:
                pending = False
            if not pending:
                _show(now, ladder, best, low)
        if not pending and (rows == 0 or not np.array_equal(now, out_book[rows - 1])):
            out_ts[rows], out_book[rows] = ts_ns[i], now
            rows += 1
    if pending and not emptied:  # no later event says so, and a row must not depend on later events
        out_ts[rows] = cleared_ts
        rows += 1
    return out_ts[:rows], out_book[:rows], out_trade[:rows], counts


@njit(cache=True)
def _rest(ladder, best, live_side, live_price, live_size, order, price, size, low, counts):
    """An order joins the ladder."""
    live_price[order], live_size[order] = price, size
    at = price - low
    if live_side[order] == BUY:
        ladder[0, at] += size
        best[0] = max(best[0], at)
        counts[HEAVIEST] = max(counts[HEAVIEST], ladder[0, at])
    else:
        ladder[1, at] += size
        best[1] = min(best[1], at)
        counts[HEAVIEST] = max(counts[HEAVIEST], ladder[1, at])


@njit(cache=True)
def _take(ladder, best, live_side, live_price, live_size, order, size, low, counts):
    """`size` lots of an order leave the ladder; more than it has take all of it and are counted."""
    if size > live_size[order]:
        counts[OVERSIZED] += 1
        size = live_size[order]
    live_size[order] -= size
    at = live_price[order] - low
    if live_side[order] == BUY:
        ladder[0, at] -= size
        while best[0] >= 0 and ladder[0, best[0]] == 0:
            best[0] -= 1
    else:
        ladder[1, at] -= size
        while best[1] < ladder.shape[1] and ladder[1, best[1]] == 0:
            best[1] += 1


@njit(cache=True)
def _show(now, ladder, best, low):
    """Write the best levels of the ladder into `now`."""
    depth = now.shape[1]
    at = best[0]
    for k in range(depth):
        while at >= 0 and ladder[0, at] == 0:
            at -= 1
        found = at >= 0
        now[BID_PX, k] = low + at if found else 0
        now[BID_SZ, k] = ladder[0, at] if found else 0
        at -= 1
    at = best[1]
    for k in range(depth):
        while at < ladder.shape[1] and ladder[1, at] == 0:
            at += 1
        found = at < ladder.shape[1]
        now[ASK_PX, k] = low + at if found else 0
        now[ASK_SZ, k] = ladder[1, at] if found else 0
        at += 1


@njit(cache=True)
def _aggressor(side, price, now, last_trade, tick_side):
    """Who started a trade: the vendor's word, else the quote rule, else the tick rule (Lee and Ready 1991).

    Gives the side (0: unknown) and the tick rule's present side.
    """
    if last_trade != 0 and price != last_trade:
        tick_side = BUY if price > last_trade else SELL
    if side != 0:
        return side, tick_side
    if now[BID_SZ, 0] > 0 and now[ASK_SZ, 0] > 0:
        mid2 = now[BID_PX, 0] + now[ASK_PX, 0]
        if 2 * price != mid2:
            return (BUY if 2 * price > mid2 else SELL), tick_side
    return tick_side, tick_side
