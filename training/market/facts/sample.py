"""A session's book prepared for measuring: session windows, half-hour blocks, mids, and trades put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NS = 1_000_000_000
BLOCK_NS = 1_800 * NS
AFTER_NS = NS
"""How long after a trade its impact is read: a second, so that snapshots and event streams mean the same."""
JOIN_NS = 10_000
"""Executions that follow each other within this time belong to one trade: one order's may be stamped one by one."""


@dataclass(frozen=True)
class Trades:
    """Trades in time order: trade rows within JOIN_NS of the one before are one trade, its side that of the net volume.

    Of an event stream that is one aggressive order with all its executions, of snapshots what happened between two.
    """

    ts_ns: Ints
    side: Ints  # 1 net bought by the aggressors, -1 net sold, 0 balanced or not said by the vendor
    lots: Ints  # |bought - sold|
    volume: Ints  # all lots
    block: Ints
    before2: Ints  # twice the mid that stood just before the trade's first execution, 0 where none did
    after2: Ints  # twice the mid AFTER_NS later; 0 where the window closes earlier


@dataclass(frozen=True)
class Sample:
    """One session: rows of the book that lie in its windows, and where its half-hour blocks are.

    A block is half an hour of a window counted from its open; a rest of less than a quarter of an hour belongs to the
    block before it.
    """

    book: Book
    block: Ints  # (T,) block of each row, -1 outside every window
    stands_ns: Ints  # (T,) how long the row's state stood within its window
    mid2: Ints  # (T,) twice the mid in ticks, carried over one-sided and crossed states; 0 before the first
    starts_ns: Ints  # (G,) start of each block
    spans_ns: Ints  # (G,) its length
    window: Ints  # (G,) window that it lies in
    trades: Trades

    @property
    def blocks(self) -> int:
        """Number of half-hour blocks, G."""
        return len(self.starts_ns)

    def mid2_at(self, ts_ns: Ints, side: str = "right") -> Ints:
        """Twice the mid in force at `ts_ns` (`left`: just before), 0 where there was none yet."""
        row = np.searchsorted(self.book.ts_ns, ts_ns, side=side) - 1  # type: ignore[call-overload]
        return np.where(row >= 0, self.mid2[np.maximum(row, 0)], 0)


def prepare(book: Book, windows: Sequence[tuple[int, int]]) -> Sample:
    """Prepare a book for measuring within its session `windows` ([open_ns, close_ns), time order).

    Raises InputError where the book has no two-sided state within them.
    """
    starts, spans, window = _blocks(windows)
    closes = starts + spans
    block = np.searchsorted(starts, book.ts_ns, side="right") - 1
    block = np.where((block >= 0) & (book.ts_ns < closes[np.maximum(block, 0)]), block, -1)
    if not (book.two_sided & (block >= 0)).any():
        raise InputError("no two-sided book within the session's windows: there is nothing to measure")
    ends = np.append(book.ts_ns[1:], np.iinfo(np.int64).max)
    last = np.array([closes[window == w].max() for w in window]) if len(window) else closes
    stands = np.where(block >= 0, np.minimum(ends, last[block]) - book.ts_ns, 0)
    mid2 = _standing_mid2(book)
    sample = Sample(book, block, stands, mid2, starts, spans, window, _NO_TRADES)
    return Sample(book, block, stands, mid2, starts, spans, window, _trades(sample, last))


_NO_TRADES = Trades(*(np.zeros(0, np.int64) for _ in range(7)))


def _standing_mid2(book: Book) -> Ints:
    """Twice the mid of the last two-sided, uncrossed state."""
    known = np.maximum.accumulate(np.where(book.two_sided, np.arange(len(book)), -1))
    mid2 = book.bid_px[:, 0].astype(np.int64) + book.ask_px[:, 0]
    return np.where(known >= 0, mid2[np.maximum(known, 0)], 0)


def _blocks(windows: Sequence[tuple[int, int]]) -> tuple[Ints, Ints, Ints]:
    starts, spans, numbers = [], [], []
    for number, (opens, closes) in enumerate(windows):
        count = max(1, (closes - opens + BLOCK_NS // 2) // BLOCK_NS)
        edges = [opens + i * BLOCK_NS for i in range(count)] + [closes]
        starts += edges[:-1]
        spans += [late - early for early, late in zip(edges, edges[1:], strict=False)]
        numbers += [number] * count
    return np.array(starts, np.int64), np.array(spans, np.int64), np.array(numbers, np.int64)


def _trades(sample: Sample, closes: Ints) -> Trades:
    """Put the trade rows of the session's windows together, those of one moment to one trade."""
    book = sample.book
    rows = np.flatnonzero((book.trade_sz > 0) & (sample.block >= 0))
    if not len(rows):
        return _NO_TRADES
    ts_ns, lots = book.ts_ns[rows], book.trade_sz[rows].astype(np.int64)
    first = np.flatnonzero(np.concatenate([[True], np.diff(ts_ns) > JOIN_NS]))
    net = np.add.reduceat(lots * book.trade_side[rows], first)
    volume = np.add.reduceat(lots, first)
    ts_ns, block = ts_ns[first], sample.block[rows][first]
    after = np.where(ts_ns + AFTER_NS <= closes[block], sample.mid2_at(ts_ns + AFTER_NS), 0)
    return Trades(ts_ns, np.sign(net), np.abs(net), volume, block, sample.mid2_at(ts_ns, "left"), after)


def block_sums(block: Ints, blocks: int, *columns: Floats | Ints) -> Floats:
    """Sum of each column over the elements of each block, `(blocks, columns)`; elements outside (-1) do not count."""
    inside = block >= 0
    kept = block[inside]
    return np.column_stack(
        [np.bincount(kept, np.asarray(column, np.float64)[inside], minlength=blocks) for column in columns]
    )


def autocorrelation_sums(values: Floats, block: Ints, window: Ints, blocks: int, lags: Sequence[int]) -> Floats:
    """Sums from which `autocorrelation` is computed, `(blocks, 3 + 4 L)`; pairs lie within one window."""
    columns = [block_sums(block, blocks, np.ones(len(values)), values, values * values)]
    for lag in lags:
        early, late = values[:-lag], values[lag:]
        pair = np.where(window[:-lag] == window[lag:], block[:-lag], -1) if len(values) > lag else block[:0]
        early, late = early[: len(pair)], late[: len(pair)]
        columns.append(block_sums(pair, blocks, np.ones(len(pair)), early, late, early * late))
    return np.concatenate(columns, axis=1)


def autocorrelation(sums: Floats) -> Floats:
    """Autocorrelation at each lag, `(B, L)`, from the sums `(B, 3 + 4 L)`."""
    count, total, squares = sums[:, 0:1], sums[:, 1:2], sums[:, 2:3]
    pairs, early, late, product = (sums[:, 3 + i :: 4] for i in range(4))
    variance = squares / count - (total / count) ** 2
    return np.asarray((product / pairs - early * late / pairs**2) / variance)


def stacked(parts: Sequence[Floats]) -> Floats:
    """The block sums of several sessions, one below the other."""
    return np.concatenate(list(parts), axis=0)
