"""Counts of a day's flow from order-by-order events: queues measured in orders, every event known for what it is."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.schema import Flag, Kind, Side
from training.market.reactive.counts import (
    CANCEL,
    DEPLETED,
    LIMIT,
    MARKET,
    MOMENTS,
    MOST_UNITS,
    TRADED,
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

BURST_NS = 10_000
WIDEST_TICKS = 1 << 20
_ADD, _CANCEL, _TRADE, _SELL = int(Kind.ADD), int(Kind.CANCEL), int(Kind.TRADE), int(Side.SELL)


def count_order_events(
    events: EventColumns, levels: int, clocks: NDArray[np.float64] | None = None, burst_ns: int = BURST_NS
) -> tuple[FlowCounts, Sizes]:
    """Counts and sizes of a day of ADD, CANCEL and TRADE events, each of which names its order.

    Counting starts after the opening book (the first row flagged LAST). `clocks` (`make_clocks`, from the first row on)
    tell activity and signal where they are known. Raises InputError where prices span more than 2^20 ticks or no
    opening book ends.
    """
    last = np.flatnonzero(events.flags & int(Flag.LAST))
    used = np.isin(events.kind, (_ADD, _CANCEL, _TRADE)) & (events.order_id > 0)
    if not len(last) or not used.any():
        raise InputError(f"{len(events)} events hold no opening book and orders by number: count book rows instead")
    start_ns = int(events.ts_event_ns[0])
    opened = int(np.count_nonzero(used[: last[0] + 1]))
    kind, side, price, size, ts_ns = (
        np.asarray(column)[used].astype(np.int64)
        for column in (events.kind, events.side, events.price_ticks, events.size, events.ts_event_ns)
    )
    low, high = int(price.min()), int(price.max())
    if high - low >= WIDEST_TICKS:
        raise InputError(
            f"orders rest from {low} to {high} ticks, more than {WIDEST_TICKS} apart; clean the events first"
        )
    _, order = np.unique(np.asarray(events.order_id)[used], return_inverse=True)
    seconds = int((ts_ns[-1] - start_ns) // 1_000_000_000) + 1
    integrals = make_clocks(seconds) if clocks is None else clocks
    counts, sizes = empty_counts(levels, seconds // 60 + 1), empty_sizes(len(ts_ns))
    columns = (kind, side, price - low + levels + 1, size, order.astype(np.int64), ts_ns)
    queues = np.zeros((2, high - low + 2 * levels + 3), np.int64)
    _count(columns, queues, np.zeros(order.max() + 1, np.int64), opened, start_ns, burst_ns, integrals, counts, sizes)
    return counts, sizes


@njit(cache=True)
def _apply(kind, side, price, size, order, queues, left):
    """One event changes a queue; returns the side of the book that it meets."""
    b = 1 if side == _SELL else 0
    if kind == _ADD:
        queues[b, price] += 1
        left[order] = size
        return b
    if kind == _TRADE:
        b = 1 - b
    left[order] -= size
    if left[order] <= 0:
        queues[b, price] -= 1
    return b


@njit(cache=True)
def _settle(queues, best):
    """Best price of each side, moved to where orders rest now."""
    while best[0] > 0 and queues[0, best[0]] == 0:
        best[0] -= 1
    while best[1] < queues.shape[1] - 1 and queues[1, best[1]] == 0:
        best[1] += 1


@njit(cache=True)
def _lengths(queues, best, units):
    for level in range(units.shape[1]):
        units[0, level] = min(queues[0, max(best[0] - level, 0)], MOST_UNITS)
        units[1, level] = min(queues[1, min(best[1] + level, queues.shape[1] - 1)], MOST_UNITS)


@njit(cache=True)
def _count(columns, queues, left, opened, start_ns, burst_ns, clocks, counts, sizes):
    kind, side, price, size, order, ts_ns = columns
    levels = counts.limit_s.shape[0]
    units, known, best = np.zeros((2, levels), np.int64), np.array([levels, levels]), np.array([0, queues.shape[1] - 1])
    for i in range(opened):
        b = _apply(kind[i], side[i], price[i], size[i], order[i], queues, left)
        best[b] = max(best[0], price[i]) if b == 0 else min(best[1], price[i])
    _lengths(queues, best, units)
    busy = np.zeros(4)
    gap, i, since = 0, opened, ts_ns[max(opened - 1, 0)]
    while i < ts_ns.shape[0]:
        end = i + 1
        while end < ts_ns.shape[0] and ts_ns[end] - ts_ns[end - 1] <= burst_ns:
            end += 1
        now, spread = ts_ns[i], best[1] - best[0]
        elapsed(clocks, start_ns, since, now, busy)
        expose(counts, units, known, spread, busy, (now - since) / 1e9)
        lean = lean_at(clocks, start_ns, now)
        gap = _moment(columns, i, end, queues, left, best, units, spread, gap, lean, counts, sizes)
        counts.minutes[min((now - start_ns) // 60_000_000_000, counts.minutes.shape[0] - 1)] += 1
        counts.totals[MOMENTS] += 1
        _lengths(queues, best, units)
        since, i = ts_ns[end - 1], end


@njit(cache=True)
def _moment(columns, first, end, queues, left, best, units, spread, gap, lean, counts, sizes):
    """Apply the events of one moment and count them by what became of the best prices; the side used up last."""
    kind, side, price, size, order, _ = columns
    was = best.copy()
    added, traded, cut = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for i in range(first, end):
        b = _apply(kind[i], side[i], price[i], size[i], order[i], queues, left)
        if kind[i] == _ADD and (price[i] > best[0] if b == 0 else price[i] < best[1]):
            best[b] = price[i]
        if kind[i] == _ADD and price[i] == best[b]:
            added[b] += 1
        elif kind[i] == _TRADE:
            traded[b] += size[i]
        elif kind[i] == _CANCEL and price[i] == was[b]:
            cut[b] += size[i]
    _settle(queues, best)
    moved = np.array([best[0] - was[0], was[1] - best[1]])  # above 0: the side improved
    for b in range(2):
        if moved[b] < 0:
            count_end(counts, units[b, 0], spread)
            counts.totals[TRADED] += traded[b]
            counts.totals[DEPLETED] += traded[b] + cut[b]
            gap = 1 if b == 1 else -1
        elif traded[b] > 0:
            counts.market[units[b, 0]] += 1
            keep(sizes, MARKET, 0, traded[b])
    for b in range(2):
        if moved[b] > 0:
            count_closing(counts, b, gap, lean)
            keep(sizes, 3, 0, added[b])
            if best[1] - best[0] == 1:
                gap = 0
    _count_single(kind, side, price, size, first, end, was, moved, units, counts, sizes)
    return gap


@njit(cache=True)
def _count_single(kind, side, price, size, first, end, was, moved, units, counts, sizes):
    """Limit orders and cancels of a moment, but those that made or used up a best queue."""
    for i in range(first, end):
        if kind[i] == _TRADE:
            continue
        b = 1 if side[i] == _SELL else 0
        level = was[0] - price[i] if b == 0 else price[i] - was[1]
        if not 0 <= level < units.shape[1] or (level == 0 and moved[b] < 0):
            continue
        if kind[i] == _ADD:
            counts.limit[level, units[b, level]] += 1
            keep(sizes, LIMIT, level, size[i])
        else:
            counts.cancel[level, units[b, level]] += 1
            keep(sizes, CANCEL, level, size[i])
