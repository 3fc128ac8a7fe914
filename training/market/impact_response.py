"""How prices respond to signed trades, as sums over half hours: what the calibration of impact is fitted to.

Prints of one stamp and one side are one order that met several others: they are merged into a meta trade. Sums are kept
by block, so that a bootstrap adds blocks up instead of reading the day again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book
    from training.market.day import MarketDay

NS = 1_000_000_000
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MetaTrades:
    """Signed trades of a day in time order, each `(N,)`."""

    ts_ns: Ints
    side: Ints  # 1 bought, -1 sold
    lots: Ints
    mean_px: Floats  # of its prints, ticks
    mid_before: Floats  # ticks; NaN where no two-sided book stood before it
    best_before: Floats  # the opposite best that it met, ticks; NaN as above
    unsigned: int  # prints left out: no aggressor is named and the price was the mid

    def __len__(self) -> int:
        """Number of meta trades."""
        return len(self.ts_ns)


@dataclass(frozen=True)
class Sums:
    """Sums over pairs (t, t + lag) by block of t, each `(B, L)`; pairs stay within a session window.

    `flow[b, l]` sums v(t) v(t + l); `move[b, l]` sums v(t) r(t + l). `square (B,)` sums r(t)^2, `count (B,)` the t.
    """

    flow: Floats
    move: Floats
    square: Floats
    count: Ints

    @staticmethod
    def join(parts: Sequence["Sums"]) -> "Sums":
        """All blocks of several days."""
        return Sums(
            np.concatenate([part.flow for part in parts]),
            np.concatenate([part.move for part in parts]),
            np.concatenate([part.square for part in parts]),
            np.concatenate([part.count for part in parts]),
        )


def meta_trades(book: "Book") -> MetaTrades:
    """Merge the prints of a day; an unnamed aggressor is told by the mid before (Lee and Ready 1991, quote test)."""
    rows = np.flatnonzero(book.trade_sz > 0)
    both = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0)
    bid = np.where(both, book.bid_px[:, 0], np.nan).astype(float)
    ask = np.where(both, book.ask_px[:, 0], np.nan).astype(float)
    before = np.maximum(rows - 1, 0)
    bid, ask = np.where(rows > 0, bid[before], np.nan), np.where(rows > 0, ask[before], np.nan)
    price, lots = book.trade_px[rows].astype(float), book.trade_sz[rows].astype(np.int64)
    told = np.nan_to_num(np.sign(price - 0.5 * (bid + ask))).astype(np.int64)
    side = np.where(book.trade_side[rows] != 0, book.trade_side[rows].astype(np.int64), told)
    known = side != 0
    unsigned = int((~known).sum())
    rows, price, lots, side, bid, ask = (values[known] for values in (rows, price, lots, side, bid, ask))
    ts_ns = book.ts_ns[rows]
    new = np.ones(len(rows), bool)
    new[1:] = (ts_ns[1:] != ts_ns[:-1]) | (side[1:] != side[:-1])
    first = np.flatnonzero(new)
    if not len(first):
        nothing, none = np.zeros(0), np.zeros(0, np.int64)
        return MetaTrades(none, none, none, nothing, nothing, nothing, unsigned)
    total = np.add.reduceat(lots, first)
    mean_px = np.add.reduceat(price * lots, first) / total
    best = np.where(side[first] > 0, ask[first], bid[first])
    return MetaTrades(ts_ns[first], side[first], total, mean_px, 0.5 * (bid + ask)[first], best, unsigned)


def clock_sums(day: "MarketDay", trades: MetaTrades, bin_ns: int, lags: int, block_ns: int) -> Sums:
    """Sums on a grid of `bin_ns`: v is the signed lots of a bin, r the log move of the mid over it in bps."""
    parts = []
    for opens, closes in day.windows:
        edges = np.arange(opens, closes + 1, bin_ns, dtype=np.int64)
        if len(edges) < 2:
            continue
        price = log_mid(day.book, edges)
        moves = 1e4 * np.nan_to_num(np.diff(price))
        inside = (trades.ts_ns > edges[0]) & (trades.ts_ns <= edges[-1])
        place = np.searchsorted(edges, trades.ts_ns[inside], side="left") - 1
        weights = (trades.side * trades.lots)[inside].astype(float)
        flow = np.bincount(place, weights=weights, minlength=len(moves)).astype(float)
        block = np.arange(len(moves)) * bin_ns // block_ns
        parts.append(pair_sums(flow, moves, block, lags))
    return Sums.join(parts)


def event_sums(day: "MarketDay", trades: MetaTrades, lags: int, block_ns: int) -> Sums:
    """Sums in trade time: v is the sign of a meta trade, r the log move from the mid before it to that before the next.

    The last trade of a window has no next one: its move is 0.
    """
    parts = []
    for opens, closes in day.windows:
        inside = (trades.ts_ns >= opens) & (trades.ts_ns < closes) & np.isfinite(trades.mid_before)
        if not inside.any():
            continue
        price = np.log(trades.mid_before[inside])
        moves = np.zeros(len(price))
        moves[:-1] = 1e4 * np.diff(price)
        block = (trades.ts_ns[inside] - opens) // block_ns
        parts.append(pair_sums(trades.side[inside].astype(float), moves, block, lags))
    if not parts:
        return Sums(np.zeros((0, lags)), np.zeros((0, lags)), np.zeros(0), np.zeros(0, np.int64))
    return Sums.join(parts)


def log_mid(book: "Book", at_ns: Ints) -> Floats:
    """Log of the last two-sided mid known at each of `at_ns`; NaN before the first."""
    both = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0) & (book.ask_px[:, 0] > book.bid_px[:, 0])
    last = np.maximum.accumulate(np.where(both, np.arange(len(both)), -1))
    row = np.searchsorted(book.ts_ns, at_ns, side="right") - 1
    row = np.where(row >= 0, last[np.maximum(row, 0)], -1)
    mid = 0.5 * (book.bid_px[row, 0].astype(float) + book.ask_px[row, 0])
    return np.where(row >= 0, np.log(np.where(row >= 0, mid, 1.0)), np.nan)


def daily_volatility_bps(days: Sequence["MarketDay"], bin_ns: int = 300 * NS) -> float:
    """Root of the mean over `days` of the summed squared five-minute returns within session windows, bps."""
    squares = []
    for day in days:
        grids = (np.arange(opens, closes + 1, bin_ns, dtype=np.int64) for opens, closes in day.windows)
        squares.append(sum(float(np.nansum(np.diff(log_mid(day.book, grid)) ** 2)) for grid in grids))
    return float(1e4 * np.sqrt(np.mean(squares)))


def pair_sums(flow: Floats, moves: Floats, block: Ints, lags: int) -> Sums:
    """Sums of one stretch `(T,)` by `block (T,)`, numbered from 0 in time order."""
    blocks = int(block[-1]) + 1
    products, responses = np.zeros((blocks, lags)), np.zeros((blocks, lags))
    _pairs(flow, moves, block, products, responses)
    square = np.bincount(block, weights=moves**2, minlength=blocks).astype(float)
    return Sums(products, responses, square, np.bincount(block, minlength=blocks).astype(np.int64))


@njit(cache=True)
def _pairs(flow, moves, block, products, responses):
    count = len(flow)
    for t in range(count):
        if flow[t] == 0.0:
            continue
        here = block[t]
        for lag in range(min(products.shape[1], count - t)):
            products[here, lag] += flow[t] * flow[t + lag]
            responses[here, lag] += flow[t] * moves[t + lag]
