"""The cleaning rules on prices, on whole snapshots and on the lives of orders, as compiled functions on columns.

As in `rule_kernels`, `rule` (n,) int16 is 0 where a row is clear so far. The rules on prices judge runs: a quote that
is only re-sized a thousand times is one observation, not a thousand, and all rows of a run share the first's verdict.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.pipeline.rule_kernels import (
    ADD,
    BUY,
    CANCEL,
    CLEAR,
    DEPTH,
    GAP,
    LAST,
    LEVEL,
    PASS,
    QUOTE,
    REPLACE,
    SELL,
    TRADE,
    Events,
)

TRADES, BIDS, ASKS = 1, 2, 3  # the price series within a partition; 0: none
NEVER = 2**63 - 1

FIRST, START_TS, ROWS, WORST, WHOLE, BID, ASK = range(7)
"""Columns of a snapshot: first row, time; of its rows that are no duplicates: number, first rule, LAST, prices."""


@njit(cache=True, nogil=True)
def price_series(rule, kind, side):
    """Series of each clear TRADE and sided QUOTE, (n,) int8."""
    series = np.zeros(len(rule), np.int8)
    for i in range(len(rule)):
        if rule[i] != 0:
            continue
        if kind[i] == TRADE:
            series[i] = TRADES
        elif kind[i] == QUOTE and side[i] != 0:
            series[i] = BIDS if side[i] == BUY else ASKS
    return series


@njit(cache=True, nogil=True)
def run_starts(series, price):
    """Whether a row is the first of a run of equal prices in its series, (n,) bool."""
    starts = np.zeros(len(series), np.bool_)
    seen = np.zeros(4, np.bool_)
    last = np.zeros(4, np.int64)
    for i in range(len(series)):
        s = series[i]
        if s != 0 and (not seen[s] or last[s] != price[i]):
            starts[i], seen[s], last[s] = True, True, price[i]
    return starts


@njit(cache=True, nogil=True)
def _trimmed(price, start, stop, least):
    """Mean (-1: too few) and deviation of the positive prices of [start, stop) without the highest and the lowest."""
    high, low, total, squares, count = 0.0, 0.0, 0.0, 0.0, 0
    for j in range(max(0, start), min(len(price), stop)):
        p = float(price[j])
        if p <= 0.0:
            continue
        high = p if count == 0 else max(high, p)
        low = p if count == 0 else min(low, p)
        total += p
        squares += p * p
        count += 1
    if count < least:
        return -1.0, 0.0
    kept = count - 2
    mean = (total - high - low) / kept
    return mean, np.sqrt(max((squares - high * high - low * low) / kept - mean * mean, 0.0))


@njit(cache=True, nogil=True)
def outliers(price, neighbours, least, sds, gamma_bps, gamma_ticks):
    """Which prices of one series stand off the trimmed mean of the neighbours before AND after, on the same side.

    The smaller of the two deviations counts, so that one side spoilt by other outliers does not excuse this one.
    Prices <= 0 (empty sides) are not judged.
    """
    found = np.zeros(len(price), np.bool_)
    for i in range(len(price)):
        if price[i] <= 0:
            continue
        before, sd_before = _trimmed(price, i - neighbours, i, least)
        after, sd_after = _trimmed(price, i + 1, i + 1 + neighbours, least)
        if before < 0 and after < 0:
            continue
        sd = min(sd_before, sd_after)
        if before < 0:
            before, sd = after, sd_after
        elif after < 0:
            after, sd = before, sd_before
        bound = sd * sds + max(float(gamma_ticks), before * (gamma_bps * 1e-4))
        off_before, off_after = price[i] - before, price[i] - after
        found[i] = (off_before > bound and off_after > bound) or (off_before < -bound and off_after < -bound)
    return found


@njit(cache=True, nogil=True)
def islands(at, ts, series, price, locked, grace_ns):
    """Stretches of one-sided quotes during which the carried book is crossed (or `locked`) for longer than the grace.

    `at` are the rows of changed quotes that are no outliers. Returns (k, 4) int64: row of the first quote, row of the
    first quote after it (NEVER: none), the series that crossed, its price before (0: none).
    """
    found = np.empty((len(at), 4), np.int64)
    made, open_ = 0, False
    bid, ask = 0, 0
    for i in at:
        stood = bid if series[i] == BIDS else ask
        if series[i] == BIDS:
            bid = price[i]
        else:
            ask = price[i]
        wrong = bid > 0 and ask > 0 and (bid == ask if locked else bid > ask)
        if wrong and not open_:
            found[made, 0], found[made, 1], found[made, 2], found[made, 3] = i, NEVER, series[i], stood
            open_ = True
        elif open_ and not wrong:
            found[made, 1] = i
            made += ts[i] - ts[found[made, 0]] > grace_ns
            open_ = False
    return found[: made + open_]


@njit(cache=True, nogil=True)
def mark_outlier_runs(rule, series, starts, outlying, number):
    """outlier_price: every row of a run whose first row is outlying."""
    bad = np.zeros(4, np.bool_)
    for i in range(len(rule)):
        s = series[i]
        if s == 0:
            continue
        if starts[i]:
            bad[s] = outlying[i]
        if bad[s] and rule[i] == 0:
            rule[i] = number


@njit(cache=True, nogil=True)
def mark_islands(rule, series, price, stretches, number):
    """crossed_book and locked_book: quotes of the side that crossed, and of the other that would cross what it left."""
    current = -1
    for i in range(len(rule)):
        if current + 1 < len(stretches) and stretches[current + 1, 0] == i:
            current += 1
        if current < 0 or series[i] < BIDS or rule[i] != 0 or i >= stretches[current, 1]:
            continue
        offender, stands = stretches[current, 2], stretches[current, 3]
        crosses = price[i] >= stands if series[i] == BIDS else price[i] <= stands
        if series[i] == offender or (stands > 0 and price[i] > 0 and crosses):
            rule[i] = number


@njit(cache=True, nogil=True)
def snapshot_members(rule, kind, flags, duplicate):
    """Number of the depth snapshot by LEVEL that a row belongs to, (n,) int64, -1 for none; 0: before the first CLEAR.

    A CLEAR opens one unless it is flagged GAP or a DEPTH event comes before the next LEVEL or CLEAR.
    """
    rows = len(rule)
    member = np.full(rows, -1, np.int64)
    opens = np.zeros(rows, np.bool_)
    next_kind = 0
    for i in range(rows - 1, -1, -1):
        if kind[i] == CLEAR:
            opens[i] = flags[i] & GAP == 0 and next_kind != DEPTH
            next_kind = CLEAR
        elif kind[i] == LEVEL or kind[i] == DEPTH:
            next_kind = kind[i]
    number = 0
    for i in range(rows):
        if opens[i] and rule[i] != duplicate:
            number += 1
        if kind[i] == LEVEL or opens[i]:
            member[i] = number
    return member


@njit(cache=True, nogil=True)
def snapshot_facts(rule, events, member, snapshots, duplicate):
    """(snapshots, 7) int64 as FIRST.. say, over members that are no duplicates; WORST, BID and ASK are 0 where none."""
    ts, _, _, kind, side, price, _, _, flags = events
    facts = np.zeros((snapshots, 7), np.int64)
    facts[:, FIRST] = -1
    facts[:, START_TS] = NEVER
    for i in range(len(rule)):
        s = member[i]
        if s < 0:
            continue
        fact = facts[s]
        if fact[FIRST] < 0:
            fact[FIRST] = i
        fact[START_TS] = min(fact[START_TS], ts[i])
        if rule[i] == duplicate:
            continue
        fact[ROWS] += 1
        fact[WHOLE] = 1 if flags[i] & LAST != 0 else 0
        if rule[i] > 0 and (fact[WORST] == 0 or rule[i] < fact[WORST]):
            fact[WORST] = rule[i]
        if kind[i] == LEVEL and price[i] > 0:
            if side[i] == BUY:
                fact[BID] = max(fact[BID], price[i])
            elif side[i] == SELL and (fact[ASK] == 0 or price[i] < fact[ASK]):
                fact[ASK] = price[i]
    return facts


@njit(cache=True, nogil=True)
def repeated_snapshots(rule, events, member, facts, duplicate):
    """Which snapshots equal the one before them in time and in every row that is no duplicate, (snapshots,) bool."""
    _, _, _, kind, side, price, size, _, flags = events
    repeats = np.zeros(len(facts), np.bool_)
    places = np.zeros(len(facts) + 1, np.int64)
    places[1:] = np.cumsum(facts[:, ROWS])
    at, filled = np.empty(places[-1], np.int64), places.copy()
    for i in range(len(rule)):
        if member[i] >= 0 and rule[i] != duplicate:
            at[filled[member[i]]] = i
            filled[member[i]] += 1
    before = -1
    for s in range(len(facts)):
        if facts[s, FIRST] < 0:
            continue
        if before >= 0 and facts[s, START_TS] == facts[before, START_TS] and facts[s, ROWS] == facts[before, ROWS]:
            same = True
            for k in range(facts[s, ROWS]):
                i, j = at[places[s] + k], at[places[before] + k]
                equal = kind[i] == kind[j] and side[i] == side[j] and price[i] == price[j]
                same = same and equal and size[i] == size[j] and flags[i] == flags[j]
            repeats[s] = same and s > 0
        before = s
    return repeats


@njit(cache=True, nogil=True)
def mark_snapshots(rule, member, verdict, duplicate):
    """Every member of a snapshot gets its verdict (0: kept); a repeated row inside one goes alone."""
    for i in range(len(rule)):
        if member[i] >= 0 and rule[i] != duplicate and rule[i] != PASS:
            rule[i] = verdict[member[i]]


def mark_far_orders(rule: NDArray[np.int16], events: Events, share: float, number: int) -> None:
    """outlier_price of ADD and REPLACE: off the day's median trade (else order) by more than `share` of it."""
    placed = (events.kind == ADD) | (events.kind == REPLACE)
    prices = events.price[(rule == 0) & (events.kind == TRADE)]
    if not len(prices):
        prices = events.price[(rule == 0) & placed]
    if len(prices):
        middle = float(np.median(prices))
        rule[(rule == 0) & placed & (np.abs(events.price - middle) > middle * share)] = number


def mark_orphans(rule: NDArray[np.int16], events: Events, duplicate: int, number: int) -> None:
    """orphan: what becomes of an order after an ADD or REPLACE of it was quarantined."""
    placed = (events.kind == ADD) | (events.kind == REPLACE)
    lost = np.flatnonzero(placed & (rule > 0) & (rule != duplicate))
    if not len(lost):
        return
    orders, first = np.unique(events.order_id[lost], return_index=True)
    at = np.minimum(np.searchsorted(orders, events.order_id), len(orders) - 1)
    known = (orders[at] == events.order_id) & (events.order_id != 0)
    named = placed | (events.kind == CANCEL) | (events.kind == TRADE)
    rule[(rule == 0) & named & known & (np.arange(len(rule)) > lost[first][at])] = number
