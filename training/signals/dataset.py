"""One day of one instrument as the signal model sees it: features, the moves that followed, and which rows count."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument
from training.signals.config import STEP_NS

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SignalDay:
    """Features and labels of one partition on its grid of one row a second."""

    partition: Partition
    ts_ns: NDArray[np.int64]  # (T,) decision times, UTC
    features: NDArray[np.float32]  # (T, F) raw units; 0 in rows that are not valid
    moves_bps: NDArray[np.float32]  # (T, H) mid move over each horizon; NaN where it is not known
    forecastable: Bools  # (T,) the last L rows are consecutive seconds of one window, all valid


def feature_names() -> tuple[str, ...]:
    """Columns of `features.parquet` that the model reads, in order."""
    from feature_repo.pipeline.kernels import SIGNAL_V1

    return SIGNAL_V1


def lookback_ns(window: int) -> int:
    """How far before a decision the market can still influence its forecast: the features' own look-back and L rows."""
    from feature_repo.pipeline.kernels import FEATURE_WINDOW_NS

    return int(FEATURE_WINDOW_NS) + (window - 1) * STEP_NS


def load_day(
    features_dir: Path, partition: Partition, instrument: Instrument, horizons_s: Sequence[int], window: int
) -> SignalDay:
    """Read one partition of a features dataset.

    Raises InputError where a file cannot be read, a column is missing, or rows do not rise in time.
    """
    from feature_repo.pipeline.books import load_book

    ts_ns, raw, valid = read_features(partition.folder(features_dir) / "features.parquet")
    spans = instrument.session_ns(partition.date)
    book = load_book(features_dir, partition)
    return SignalDay(
        partition=partition,
        ts_ns=ts_ns,
        features=np.where(valid[:, None], raw, np.float32(0.0)),
        moves_bps=mid_moves_bps(ts_ns, book.ts_ns, mid_ticks(book), spans, horizons_s),
        forecastable=consecutive_valid(ts_ns, valid, window_numbers(ts_ns, spans), window),
    )


def read_features(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], Bools]:
    """Times (T,), features (T, F) and which rows are valid (T,): the book is whole and every feature is finite.

    Raises InputError where the file is not of the features contract.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = feature_names()
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not readable as Parquet ({error}); build the features again") from error
    missing = [name for name in ("ts_ns", *names) if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]} ({len(missing)} missing); build the features again")
    ts_ns = table["ts_ns"].to_numpy().astype(np.int64)
    if len(ts_ns) and np.any(np.diff(ts_ns) <= 0):
        row = int(np.argmax(np.diff(ts_ns) <= 0)) + 1
        raise InputError(f"{path}: row {row} does not lie after the row before it; build the features again")
    features = np.empty((len(ts_ns), len(names)), dtype=np.float32)
    for column, name in enumerate(names):
        features[:, column] = table[name].to_numpy()
    valid: Bools = np.asarray(np.isfinite(features).all(axis=1))
    if "book_valid" in table.column_names:
        valid &= table["book_valid"].to_numpy() == 1
    return ts_ns, features, valid


def mid_ticks(book: "Book") -> NDArray[np.float64]:
    """Mid price in ticks of each book row (T,), NaN where a side is empty or the book is locked or crossed."""
    mids = (book.bid_px[:, 0].astype(np.float64) + book.ask_px[:, 0]) / 2.0
    return np.where(book.two_sided & (mids > 0.0), mids, np.nan)


def mid_moves_bps(
    ts_ns: NDArray[np.int64],
    book_ts_ns: NDArray[np.int64],
    mids: NDArray[np.float64],
    spans: Sequence[tuple[int, int]],
    horizons_s: Sequence[int],
) -> NDArray[np.float32]:
    """Mid move over each horizon, (T, H) float32 bps of the mid at the decision.

    The mid at a moment is that of the last book row at or before it, inside the same session window; a move that
    would end after its window's end, or that has no mid at one of its ends, is NaN.
    """
    moves = np.full((len(ts_ns), len(horizons_s)), np.nan)
    for opens, closes in spans:
        inside = np.flatnonzero((ts_ns >= opens) & (ts_ns <= closes))
        first, last = np.searchsorted(book_ts_ns, [opens, closes + 1])
        if not len(inside) or first == last:
            continue
        times, values = book_ts_ns[first:last], mids[first:last]
        now = _last_at(times, values, ts_ns[inside])
        for column, horizon in enumerate(horizons_s):
            ends = ts_ns[inside] + horizon * STEP_NS
            later = np.where(ends <= closes, _last_at(times, values, ends), np.nan)
            moves[inside, column] = 1e4 * (later / now - 1.0)
    return moves.astype(np.float32)


def _last_at(times: NDArray[np.int64], values: NDArray[np.float64], moments: NDArray[np.int64]) -> NDArray[np.float64]:
    index = np.searchsorted(times, moments, side="right") - 1
    return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)


def window_numbers(ts_ns: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Which session window each row belongs to, (T,) from 0; -1 outside all of them."""
    numbers = np.full(len(ts_ns), -1, dtype=np.int64)
    for number, (opens, closes) in enumerate(spans):
        numbers[(ts_ns >= opens) & (ts_ns <= closes)] = number
    return numbers


def consecutive_valid(ts_ns: NDArray[np.int64], valid: Bools, numbers: NDArray[np.int64], window: int) -> Bools:
    """Rows (T,) whose last `window` rows, themselves included, are valid, a second apart and of one session window."""
    if not len(ts_ns):
        return np.zeros(0, dtype=bool)
    good = valid & (numbers >= 0)
    joined = np.zeros(len(ts_ns), dtype=bool)  # this row continues the run of the row before it
    joined[1:] = good[1:] & good[:-1] & (np.diff(ts_ns) == STEP_NS) & (np.diff(numbers) == 0)
    row = np.arange(len(ts_ns))
    run_start = np.maximum.accumulate(np.where(joined, 0, row))
    return good & (row - run_start + 1 >= window)
