"""Counts of a day's flow from its book rows: what changed at each price, split into limit orders, cancels and trades.

A growing queue met a limit order, a shrinking one a cancel, but for the lots that trades explain; a best price that
gives way was used up, one that improves closed the spread. Where rows are single events (order by order, depth updates,
quotes) that is what happened. Between two snapshots only what is left of all events is seen: each price gives one event
at most, so rates are lower bounds and sizes are sums.
"""

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.market.reactive.counts import (
    CANCEL,
    DEPLETED,
    LIMIT,
    MARKET,
    MOMENTS,
    MOST_UNITS,
    TRADED,
    UNMATCHED,
    FlowCounts,
    Sizes,
    count_closing,
    count_end,
    elapsed,
    empty_counts,
    empty_sizes,
    expose,
    keep,
    lean_at,
    make_clocks,
)

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book

EACH_ROW, SAME_STAMP, BURST_NS = -1, 0, 10_000
"""What `burst_ns` is where every row is an event (quotes), for snapshots, and for rows of single orders."""
PAUSE_NS = 10_000_000_000  # nothing is counted over a longer silence, a session break or a hole in the feed


def count_book(
    book: "Book",
    levels: int,
    unit_lots: float,
    burst_ns: int,
    clocks: NDArray[np.float64] | None = None,
) -> tuple[FlowCounts, Sizes]:
    """Counts and sizes of a day's `book`; queues count units of `unit_lots`, rounded up.

    `clocks` (`make_clocks`, from the first row on) tell activity and signal where they are known. Rows without two
    sides are passed over. Raises InputError for an empty book or a unit below one lot.
    """
    if len(book) < 2 or unit_lots < 1.0:
        raise InputError(
            f"{len(book)} book rows and units of {unit_lots} lots: 2 rows and a unit of a lot are the least"
        )
    levels = min(levels, book.depth)
    start_ns = int(book.ts_ns[0])
    seconds = int((book.ts_ns[-1] - start_ns) // 1_000_000_000) + 1
    integrals = make_clocks(seconds) if clocks is None else clocks
    counts, sizes = empty_counts(levels, seconds // 60 + 1), empty_sizes(len(book) * 2)
    sides = (book.bid_px, book.bid_sz, book.ask_px, book.ask_sz)
    trades = (book.trade_px, book.trade_sz, book.trade_side)
    _count(book.ts_ns, sides, trades, unit_lots, burst_ns, integrals, counts, sizes)
    return counts, sizes


@njit(cache=True)
def _two_sided(sides, row):
    bid_px, bid_sz, ask_px, ask_sz = sides
    return bid_sz[row, 0] > 0 and ask_sz[row, 0] > 0 and ask_px[row, 0] > bid_px[row, 0]


@njit(cache=True)
def _unfold(sides, row, unit_lots, lots, units, known):
    """Lots and units by side and level, `(2, L)`, and how many levels the visible depth tells of."""
    for b in range(2):
        px, sz = sides[2 * b], sides[2 * b + 1]
        depth = px.shape[1]
        lots[b, :] = 0
        known[b] = lots.shape[1]
        for k in range(depth):
            if sz[row, k] <= 0:
                break
            level = abs(px[row, k] - px[row, 0])
            if level < lots.shape[1]:
                lots[b, level] = sz[row, k]
            if k == depth - 1:
                known[b] = min(known[b], level + 1)
        for level in range(lots.shape[1]):
            units[b, level] = min(np.int64(np.ceil(lots[b, level] / unit_lots)), MOST_UNITS)


@njit(cache=True)
def _traded(trades, sides, first, end, before, volume, totals):
    """Add the lots that trades of one moment took from each side's best queue to `volume (2,)`."""
    price, size, side = trades
    for i in range(first, end):
        if size[i] <= 0:
            continue
        b = 1 if side[i] > 0 else 0
        if side[i] == 0:
            if price[i] >= sides[2][before, 0]:
                b = 1
            elif price[i] > sides[0][before, 0]:
                totals[UNMATCHED] += 1
                continue
        volume[b] += size[i]


@njit(cache=True)
def _count(ts_ns, sides, trades, unit_lots, burst_ns, clocks, counts, sizes):
    levels = counts.limit_s.shape[0]
    lots, units, known = np.zeros((2, levels), np.int64), np.zeros((2, levels), np.int64), np.zeros(2, np.int64)
    new_lots, new_units, new_known = lots.copy(), units.copy(), known.copy()
    pending, fresh = np.zeros(2, np.int64), np.zeros(2, np.int64)
    busy = np.zeros(4)
    before, gap, i = -1, 0, 0
    while i < ts_ns.shape[0]:
        end = i + 1
        while end < ts_ns.shape[0] and ts_ns[end] - ts_ns[end - 1] <= burst_ns:
            end += 1
        row, now = end - 1, ts_ns[i]
        if before < 0 or not _two_sided(sides, row) or now - ts_ns[before] > PAUSE_NS:
            before, gap = -1, 0
            pending[:] = 0
            if _two_sided(sides, row):
                _unfold(sides, row, unit_lots, lots, units, known)
                before = row
            i = end
            continue
        spread = sides[2][before, 0] - sides[0][before, 0]
        elapsed(clocks, ts_ns[0], ts_ns[before], now, busy)
        expose(counts, units, known, spread, busy, (now - ts_ns[before]) / 1e9)
        fresh[:] = 0
        _traded(trades, sides, i, end, before, fresh, counts.totals)
        _unfold(sides, row, unit_lots, new_lots, new_units, new_known)
        events, gap = _moment(
            sides, before, row, spread, gap, lots, units, known, new_lots, new_units, new_known, fresh, pending,
            burst_ns == EACH_ROW, lean_at(clocks, ts_ns[0], now), counts, sizes,
        )  # fmt: skip
        counts.minutes[min((now - ts_ns[0]) // 60_000_000_000, counts.minutes.shape[0] - 1)] += events
        counts.totals[MOMENTS] += 1
        lots[:], units[:], known[:] = new_lots, new_units, new_known
        before, i = row, end


@njit(cache=True)
def _moment(
    sides, before, row, spread, gap, lots, units, known, new_lots, new_units, new_known, fresh, pending, late, lean,
    counts, sizes,
):  # fmt: skip
    """Count what turned one state into the next; the number of events, and the side used up last.

    `late`: a trade may be told before the quote that it changed, so lots that it has not explained yet stay `pending`.
    """
    events = 0
    spread_now = sides[2][row, 0] - sides[0][row, 0]
    for b in range(2):
        outward = 1 if b == 1 else -1
        shift = outward * (sides[2 * b][row, 0] - sides[2 * b][before, 0])  # above 0: the best price gave way
        pending[b] = fresh[b] + (pending[b] if late else 0)
        if shift > 0:
            count_end(counts, units[b, 0], spread)
            counts.totals[TRADED] += min(pending[b], lots[b, 0])
            counts.totals[DEPLETED] += lots[b, 0]
            keep(sizes, 4, 0, new_lots[b, 0])
            gap, events, pending[b] = outward, events + 1, 0
        elif shift == 0:
            if fresh[b] > 0:
                counts.market[units[b, 0]] += 1
                keep(sizes, MARKET, 0, fresh[b])
                events += 1
            change = new_lots[b, 0] - lots[b, 0]
            if change < 0:
                explained = min(-change, pending[b])
                pending[b] -= explained
                change += explained
            if not late:  # a trade that the queue does not show was made good by limit orders at once
                change += pending[b]
            events += _changed(counts, sizes, 0, units[b, 0], change)
        for level in range(max(1, -shift), lots.shape[1]):
            there = level - shift
            if level >= known[b] or not 0 <= there < new_known[b] or there >= lots.shape[1]:
                continue
            events += _changed(counts, sizes, level, units[b, level], new_lots[b, there] - lots[b, level])
    for b in range(2):
        if (sides[2 * b][before, 0] - sides[2 * b][row, 0]) * (1 if b == 1 else -1) > 0:
            count_closing(counts, b, gap, lean)
            keep(sizes, 3, 0, new_units[b, 0])
            events, pending[b] = events + 1, 0
    return events, 0 if spread_now == 1 else gap


@njit(cache=True)
def _changed(counts, sizes, level, units, change):
    """Count a queue's change: a limit order or a cancel."""
    if change == 0:
        return 0
    if change > 0:
        counts.limit[level, units] += 1
        keep(sizes, LIMIT, level, change)
    else:
        counts.cancel[level, units] += 1
        keep(sizes, CANCEL, level, -change)
    return 1
