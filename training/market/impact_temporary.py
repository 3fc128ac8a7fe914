"""The temporary part of impact: what an order pays above the best price, by its size, and the square root through it.

The cost of sweeping the visible book, where more than the best quotes are visible; else what meta trades paid. The
latter were sized by those who sent them to what they saw, so that it is a lower bound.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from training.market.impact_response import Floats, Ints, MetaTrades

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book
    from training.market.day import MarketDay


def sweep_costs(days: Sequence["MarketDay"], sizes: int, every_ns: int, block_ns: int) -> tuple[Floats, Floats, Floats]:
    """Sizes `(Q,)` in lots, and sums and counts by block `(B, Q)` of what taking them from the visible book would cost.

    In bps of the mid above the best price, on both sides, once every `every_ns`. Sizes go from the median best size to
    what nine books in ten show; books that do not show a size are left out for it.
    """
    best, total = [], []
    for day in days:
        for shown in (day.book.bid_sz, day.book.ask_sz):
            best.append(shown[shown[:, 0] > 0, 0])
            total.append(shown[shown[:, 0] > 0].sum(axis=1))
    low, high = float(np.median(np.concatenate(best))), float(np.percentile(np.concatenate(total), 10))
    lots = np.unique(np.round(np.geomspace(max(1.0, min(low, high)), max(1.0, low, high), sizes)))
    costs, counts = [], []
    for day in days:
        for opens, closes in day.windows:
            at = np.arange(opens + every_ns, closes + 1, every_ns, dtype=np.int64)
            blocks = -(-(closes - opens) // block_ns)
            cost, count = np.zeros((blocks, len(lots))), np.zeros((blocks, len(lots)))
            _sweep_at(day.book, at, (at - opens - every_ns) // block_ns, lots, cost, count)
            costs.append(cost)
            counts.append(count)
    return lots, np.concatenate(costs), np.concatenate(counts)


def _sweep_at(book: "Book", at_ns: Ints, block: Ints, lots: Floats, cost: Floats, count: Floats) -> None:
    rows = np.searchsorted(book.ts_ns, at_ns, side="right") - 1
    _sweeps(rows, block, book.bid_px, book.bid_sz, book.ask_px, book.ask_sz, lots, cost, count)


@njit(cache=True)
def _sweeps(rows, block, bid_px, bid_sz, ask_px, ask_sz, sizes, cost, count):
    depth = bid_px.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        if row < 0 or bid_sz[row, 0] <= 0 or ask_sz[row, 0] <= 0:
            continue
        mid = 0.5 * (bid_px[row, 0] + ask_px[row, 0])
        for side in range(2):
            px, sz = (bid_px, bid_sz) if side == 0 else (ask_px, ask_sz)
            for j in range(len(sizes)):
                left, paid = sizes[j], 0.0
                for k in range(depth):
                    take = min(left, float(sz[row, k]))
                    paid += take * abs(px[row, k] - px[row, 0])
                    left -= take
                    if left <= 0.0:
                        break
                if left <= 0.0:
                    cost[block[i], j] += 1e4 * paid / sizes[j] / mid
                    count[block[i], j] += 1.0


def print_costs(
    days: Sequence["MarketDay"], trades: Sequence[MetaTrades], sizes: int, block_ns: int
) -> tuple[Floats, Floats, Floats]:
    """What meta trades paid above the best that they met, by size; sizes are bins of equal numbers of trades."""
    lots = np.concatenate([part.lots for part in trades]).astype(float)
    edges = size_edges(lots, sizes)
    middle = np.array([lots[(lots > a) & (lots <= b)].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)])
    costs, counts = [], []
    for day, part in zip(days, trades, strict=True):
        paid = 1e4 * np.maximum(part.side * (part.mean_px - part.best_before), 0.0) / part.mid_before
        place = np.searchsorted(edges, part.lots, side="left") - 1
        for opens, closes in day.windows:
            inside = (part.ts_ns >= opens) & (part.ts_ns < closes) & np.isfinite(paid)
            blocks = -(-(closes - opens) // block_ns)
            cell = (part.ts_ns[inside] - opens) // block_ns * len(middle) + place[inside]
            shape, most = (blocks, len(middle)), blocks * len(middle)
            costs.append(np.bincount(cell, weights=paid[inside], minlength=most).reshape(shape))
            counts.append(np.bincount(cell, minlength=most).reshape(shape).astype(float))
    return middle, np.concatenate(costs), np.concatenate(counts)


def size_edges(lots: Floats, sizes: int) -> Floats:
    """Edges of at most `sizes` bins (a, b] of about equal numbers of `lots`, whole and from 1 up; none is empty."""
    upper = np.unique(np.quantile(lots, np.linspace(0, 1, sizes + 1)[1:]))
    edges = np.concatenate([[lots.min() - 1.0], upper])
    held = np.diff(np.searchsorted(np.sort(lots), edges, side="right"))
    return np.concatenate([edges[:1], upper[held > 0]])


def fit_temporary(root: Floats, cost: Floats, count: Floats, volatility: float, draws: Floats) -> tuple[float, Floats]:
    """Y of cost = Y sigma root, each size weighing the same, and the same for each resampling of blocks."""

    def fit(costs: Floats, counts: Floats) -> Floats:
        mean = np.divide(costs, counts, out=np.zeros_like(costs), where=counts > 0)
        used = counts > 0
        return np.maximum(0.0, (mean * root * used).sum(1) / (volatility * (root**2 * used).sum(1)))

    blocks = min(len(cost), draws.shape[1])
    whole = fit(cost.sum(0, keepdims=True), count.sum(0, keepdims=True))
    return float(whole[0]), fit(draws[:, :blocks] @ cost[:blocks], draws[:, :blocks] @ count[:blocks])
