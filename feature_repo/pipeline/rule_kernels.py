"""The cleaning rules on one row, on time and on the stream's state, as compiled functions over NumPy columns.

Every `mark_*` function is one rule: it takes the partition's events in the vendor's order and `rule`, (n,) int16, and
writes its number where it catches a row that no earlier rule caught. In `rule` 0 is a row that is clear so far and PASS
one that no further rule judges. `price_rules` holds the rules on prices, snapshots and orders; `judge` their order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.schema import Flag, Kind, Side

ADD, CANCEL, REPLACE, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
QUOTE, LEVEL, HALT, CLEAR, DEPTH = int(Kind.QUOTE), int(Kind.LEVEL), int(Kind.HALT), int(Kind.CLEAR), int(Kind.DEPTH)
BUY, SELL, NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
LAST, NO_SIZE, SUB_TICK, GAP = int(Flag.LAST), int(Flag.NO_SIZE), int(Flag.SUB_TICK), int(Flag.GAP)
SUSPICIOUS, CARRIED, RESYNC = int(Flag.SUSPICIOUS), int(Flag.CARRIED), int(Flag.RESYNC)

PASS = -1
"""In `rule`: kept whatever the rules say from here on."""
TRADING_RESUMES = 1  # price_ticks of a HALT that releases one, as in LOBSTER's messages
NO_END = -1


class Events(NamedTuple):
    """Columns of a partition in the vendor's order, all of length n; types of EVENT_SCHEMA."""

    ts: NDArray[np.int64]  # ts_event_ns
    recv: NDArray[np.int64]  # ts_recv_ns
    sequence: NDArray[np.int64]
    kind: NDArray[np.int8]
    side: NDArray[np.int8]
    price: NDArray[np.int64]  # ticks
    size: NDArray[np.int64]  # lots
    order_id: NDArray[np.int64]
    flags: NDArray[np.int32]


@njit(cache=True, nogil=True)
def mark_duplicates(rule, events, previous, number):
    """exact_duplicate: equal to row `previous[i]` (-1: none) in all but the sequence; prints without an id excepted."""
    ts, recv, _, kind, side, price, size, order_id, flags = events
    for i in range(len(rule)):
        j = previous[i]
        if j < 0 or rule[i] != 0 or (kind[i] == TRADE and order_id[i] == 0):
            continue
        same = ts[i] == ts[j] and recv[i] == recv[j] and kind[i] == kind[j] and side[i] == side[j]
        same = same and price[i] == price[j] and size[i] == size[j] and flags[i] == flags[j]
        if same and order_id[i] == order_id[j]:
            rule[i] = number


def previous_rows(events: Events, by_order: bool) -> NDArray[np.int64]:
    """Row that each row might repeat: the one before it, or with `by_order` the same order's event before it; -1: none.

    Only order kinds and trades name an order; elsewhere `order_id` is the vendor's update number.
    """
    rows = len(events.ts)
    if not by_order:
        return np.arange(-1, rows - 1)
    names = (events.kind == ADD) | (events.kind == CANCEL) | (events.kind == REPLACE) | (events.kind == TRADE)
    order = np.where(names, events.order_id, 0)
    at = np.argsort(order, kind="stable")
    previous = np.full(rows, -1, np.int64)
    same = order[at[1:]] == order[at[:-1]]
    previous[at[1:][same]] = at[:-1][same]
    return previous


@njit(cache=True, nogil=True)
def mark_windows(rule, ts, opens, closes, inside, number):
    """auction (`inside`) or out_of_session: whether ts lies in any window [open, close); the open itself is in."""
    for i in range(len(rule)):
        if rule[i] != 0:
            continue
        found = False
        for k in range(len(opens)):
            found = found or (opens[k] <= ts[i] < closes[k])
        if found == inside:
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_clock_skew(rule, ts, recv, offset_ns, tolerance_ns, number):
    """clock_skew: received before it happened, by more than the clocks' usual difference and the tolerance."""
    for i in range(len(rule)):
        if rule[i] == 0 and ts[i] - recv[i] - offset_ns > tolerance_ns:
            rule[i] = number


@njit(cache=True, nogil=True)
def _latest(rule, ts, start, stop):
    """Latest time of rows [start, stop), and whether all of them are there and clear."""
    if stop > len(rule):
        return ts[0], False
    latest = ts[start]
    for i in range(start, stop):
        if rule[i] != 0:
            return latest, False
        latest = max(latest, ts[i])
    return latest, True


@njit(cache=True, nogil=True)
def mark_out_of_order(rule, ts, tolerance_ns, number):
    """out_of_order: behind the latest time seen, or ahead of two stretches of five rows, 50 and 100 rows further on.

    A single late block cannot fill both stretches, and a block of up to 49 rows stamped too late is seen whole. Only
    rows that are clear have a say. What is ahead does not move the clock.
    """
    rows = len(rule)
    caught = np.zeros(rows, np.bool_)
    latest, started = ts[0], False
    for i in range(rows):
        limit = ts[i] - tolerance_ns
        near, near_whole = _latest(rule, ts, i + 50, i + 55)
        ahead = False
        if near_whole and near < limit:
            far, far_whole = _latest(rule, ts, i + 100, i + 105)
            ahead = far_whole and far < limit
        caught[i] = ahead or (started and latest - ts[i] > tolerance_ns)
        if rule[i] == 0 and not ahead and (not started or ts[i] > latest):
            latest, started = ts[i], True
    for i in range(rows):
        if rule[i] == 0 and caught[i]:
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_no_side(rule, kind, side, number):
    """no_side: a QUOTE, LEVEL, DEPTH or ADD that names no side."""
    for i in range(len(rule)):
        if rule[i] == 0 and side[i] == NONE:
            k = kind[i]
            if k == QUOTE or k == LEVEL or k == DEPTH or k == ADD:
                rule[i] = number


@njit(cache=True, nogil=True)
def _is_priced(kind, side, price, size, flags):
    """Whether the event needs a price: all but CANCEL, HALT, CLEAR, and a QUOTE or LEVEL that empties its side."""
    if kind == QUOTE or kind == LEVEL:
        return not (side != NONE and price == 0 and size == 0 and flags & NO_SIZE == 0)
    return kind == ADD or kind == REPLACE or kind == TRADE or kind == DEPTH


@njit(cache=True, nogil=True)
def mark_non_positive_price(rule, kind, side, price, size, flags, number):
    """non_positive_price: price <= 0 where the event needs one."""
    for i in range(len(rule)):
        if rule[i] == 0 and price[i] <= 0 and _is_priced(kind[i], side[i], price[i], size[i], flags[i]):
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_non_positive_size(rule, kind, side, price, size, flags, number):
    """non_positive_size: size <= 0 where the event needs one and the vendor gives one; DEPTH: size < 0."""
    for i in range(len(rule)):
        if rule[i] != 0 or size[i] > 0 or (size[i] == 0 and (kind[i] == DEPTH or flags[i] & NO_SIZE != 0)):
            continue
        if kind[i] == CANCEL or _is_priced(kind[i], side[i], price[i], size[i], flags[i]):
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_off_tick(rule, kind, flags, trades, number):
    """off_tick: the vendor's price of a quote, level or order lies between ticks; of a trade only with `trades`."""
    for i in range(len(rule)):
        if rule[i] == 0 and flags[i] & SUB_TICK != 0 and (trades or kind[i] != TRADE):
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_flagged(rule, kind, order_id, flags, bits, trades_only, number):
    """suspicious and trade_condition: one of `bits` is set; `trades_only`: on a TRADE that names no resting order."""
    for i in range(len(rule)):
        if rule[i] == 0 and flags[i] & bits != 0 and (not trades_only or (kind[i] == TRADE and order_id[i] == 0)):
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_halted(rule, kind, price, order_id, duplicate, number):
    """halted: a TRADE of no resting order between a HALT and the next event that shows the book alive again.

    A HALT counts even outside the session; CANCEL, TRADE and HALT do not end one, orders are taken back in a halt.
    """
    halted = False
    for i in range(len(rule)):
        k = kind[i]
        if k == HALT:
            if rule[i] != duplicate:
                halted = price[i] != TRADING_RESUMES
        elif k == TRADE:
            if halted and rule[i] == 0 and order_id[i] == 0:
                rule[i] = number
        elif k != CANCEL and rule[i] <= 0:
            halted = False


@njit(cache=True, nogil=True)
def mark_gaps(rule, kind, flags, duplicate, number):
    """sequence_gap: DEPTH between a CLEAR flagged GAP and the next snapshot, which must be whole to end the hole.

    Returns (holes, 2) int64: row of the CLEAR, and row that made the book whole again, NO_END where none did.
    """
    count = 0
    for i in range(len(rule)):
        count += kind[i] == CLEAR and flags[i] & GAP != 0 and rule[i] != duplicate
    holes = np.full((count, 2), NO_END, np.int64)
    if count == 0:
        return holes
    made, closed, filling = 0, 0, False
    for i in range(len(rule)):
        k = kind[i]
        if k == CLEAR and rule[i] != duplicate:
            filling = flags[i] & GAP == 0 and rule[i] <= 0
            if flags[i] & GAP != 0:
                holes[made, 0] = i
                made += 1
        elif k == DEPTH and made > closed and not filling:
            if rule[i] == 0 and number != 0:
                rule[i] = number
        elif (k == DEPTH or k == LEVEL or k == ADD) and made > closed and rule[i] <= 0 and flags[i] & LAST != 0:
            while filling and closed < made:
                holes[closed, 1] = i
                closed += 1
    return holes


@njit(cache=True, nogil=True)
def has_size(kind, size, flags, trades):
    """Which rows say a size: of trades, or (`trades` False) of quotes, levels, depth and orders."""
    found = np.zeros(len(kind), np.bool_)
    for i in range(len(kind)):
        if size[i] > 0 and flags[i] & NO_SIZE == 0:
            k = kind[i]
            rests = k == QUOTE or k == LEVEL or k == DEPTH or k == ADD or k == REPLACE
            found[i] = k == TRADE if trades else rests
    return found


def mark_size_outlier(rule: NDArray[np.int16], events: Events, multiple: int, min_rows: int, number: int) -> None:
    """size_outlier: more than `multiple` times the size that 99 of 100 of the day's clear rows do not exceed.

    Trades and what rests are two populations; one of fewer than `min_rows` rows is not judged. The 99th percentile is
    the value of rank n * 99 // 100 (from 0), which a hundredth of the rows being wrong cannot move.
    """
    for trades in (True, False):
        sized = has_size(events.kind, events.size, events.flags, trades) & (rule == 0)
        sizes = events.size[sized]
        if len(sizes) < max(1, min_rows):
            continue
        rank = len(sizes) * 99 // 100
        largest = min(int(np.partition(sizes, rank)[rank]) * multiple, np.iinfo(np.int64).max)
        rule[sized & (events.size > largest)] = number


@njit(cache=True, nogil=True)
def mark_stale_repeat(rule, kind, side, price, size, number):
    """stale_repeat: a QUOTE of its side's standing price and size; after a CLEAR or HALT every quote is news."""
    bid_px, bid_sz, ask_px, ask_sz = -1, -1, -1, -1
    for i in range(len(rule)):
        if rule[i] > 0:
            continue
        if kind[i] == CLEAR or kind[i] == HALT:
            bid_px, bid_sz, ask_px, ask_sz = -1, -1, -1, -1
        elif kind[i] == QUOTE and side[i] == BUY:
            if price[i] == bid_px and size[i] == bid_sz and rule[i] == 0:
                rule[i] = number
            bid_px, bid_sz = price[i], size[i]
        elif kind[i] == QUOTE and side[i] == SELL:
            if price[i] == ask_px and size[i] == ask_sz and rule[i] == 0:
                rule[i] = number
            ask_px, ask_sz = price[i], size[i]
