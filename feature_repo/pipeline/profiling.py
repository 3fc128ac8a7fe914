"""One silver partition in numbers, by a full pass in bounded memory, and a small even sample of its rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.book_scan import BookScan
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side, schema_problem

MINUTE_NS = 60_000_000_000
SAMPLE_FILE = "sample.parquet"
DATASETS: dict[str, frozenset[Kind]] = {
    "orders": frozenset({Kind.ADD, Kind.CANCEL, Kind.REPLACE}),
    "depth": frozenset({Kind.DEPTH}),
    "snapshots": frozenset({Kind.LEVEL}),
    "quotes": frozenset({Kind.QUOTE}),
    "trades": frozenset(),
}
"""Kind of dataset by the kinds of event that make it, the most telling first: a day of orders may hold quotes too."""

_PRICED = [int(kind) for kind in (Kind.ADD, Kind.REPLACE, Kind.TRADE)]
_SIZED = [*_PRICED, int(Kind.CANCEL)]
_SIDED = [int(kind) for kind in (Kind.ADD, Kind.QUOTE, Kind.LEVEL, Kind.DEPTH)]


class _Scan:
    """Counts over the partition's batches in file order; the book is carried from one batch to the next."""

    def __init__(self, windows_ns: list[tuple[int, int]], depth: int) -> None:
        self.opens = np.array([opens for opens, _ in windows_ns], np.int64)
        self.closes = np.array([closes for _, closes in windows_ns], np.int64)
        self.counts: Counter[str] = Counter()
        self.kinds: set[int] = set()
        self.backward_ns = self.last_ns = self.last_sequence = 0
        self.minutes: set[int] = set()
        self.book = BookScan(windows_ns, depth)

    def add(self, batch: dict[str, NDArray[Any]]) -> None:
        """Take the next rows of the file."""
        ts = batch["ts_event_ns"]
        first = self.counts["rows"] == 0
        steps = np.diff(ts, prepend=ts[0] if first else self.last_ns)
        self.backward_ns = max(self.backward_ns, int(-steps.min()))
        # Rows of one time stamp stand in the vendor's order: a sequence that does not grow there is a row twice.
        repeats = np.diff(batch["sequence"], prepend=-1 if first else self.last_sequence) <= 0
        self.counts["repeated_sequences"] += int((repeats & (steps == 0)).sum())
        self.last_ns, self.last_sequence = int(ts[-1]), int(batch["sequence"][-1])
        self.counts["rows"] += len(ts)
        inside = ((ts[:, None] >= self.opens) & (ts[:, None] < self.closes)).any(axis=1)
        self.counts["outside"] += int((~inside).sum())
        self.minutes.update(np.unique(ts[inside] // MINUTE_NS).tolist())
        self.kinds.update(np.unique(batch["kind"]).tolist())
        self._values(batch)
        self.book.add(batch)

    def _values(self, batch: dict[str, NDArray[Any]]) -> None:
        kind, price, size, flags = (batch[name] for name in ("kind", "price_ticks", "size", "flags"))
        no_size = (flags & int(Flag.NO_SIZE)) != 0
        quoted = np.isin(kind, [int(Kind.QUOTE), int(Kind.LEVEL)])
        by_price = kind == int(Kind.DEPTH)  # a size of 0 removes the level
        empty = quoted & (price == 0) & (size == 0) & ~no_size  # cleaning keeps these: the side is empty
        needs_size = (np.isin(kind, _SIZED) | quoted) & ~empty
        bad_sizes = (needs_size & ((size < 0) | ((size == 0) & ~no_size))) | (by_price & (size < 0))
        priced = np.isin(kind, _PRICED) | (quoted & ~empty) | by_price
        self.counts["bad_prices"] += int((priced & (price <= 0)).sum())
        self.counts["bad_sizes"] += int(bad_sizes.sum())
        self.counts["bad_kinds"] += int((~np.isin(kind, [int(item) for item in Kind])).sum())
        side = batch["side"]
        known = np.isin(side, [int(item) for item in Side])
        self.counts["bad_sides"] += int((~known | (np.isin(kind, _SIDED) & (side == 0))).sum())


def dataset_of(kinds: set[int]) -> str:
    """Name of the kind of dataset that holds these kinds of event."""
    return next((name for name, telling in DATASETS.items() if telling & kinds), "trades")


def profile_partition(path: Path, instrument: Instrument, date: str, folder: Path, sample: int) -> dict[str, Any]:
    """Profile one silver file; memory is one batch, one book and the sample, whatever the rows.

    Args:
        path: its `events.parquet`.
        instrument: for the session windows and the depth of the book.
        date: ISO session date.
        folder: gets SAMPLE_FILE, at most `sample` rows taken evenly.
        sample: rows.

    Returns:
        `row`: columns of the profile table that stand on the file alone, None where one cannot be computed;
        `histograms`: counts by bin (`book_scan.bins_of`), by name of `book_scan.HISTOGRAMS`.

    Raises:
        InputError: the file is not readable parquet.
    """
    try:
        file = pq.ParquetFile(path)
        problem = schema_problem(file.schema_arrow)
        if problem:
            return {"row": {"schema_problem": problem, "dataset": "trades"}, "histograms": {}}
        windows = instrument.session_ns(date)
        scan, nulls, step = _Scan(windows, instrument.depth), 0, max(1, -(-file.metadata.num_rows // sample))
        taken, offset = [], 0
        for batch in file.iter_batches(batch_size=131_072):
            nulls += sum(column.null_count for column in batch.columns)
            if nulls == 0 and batch.num_rows:
                scan.add({name: batch[name].to_numpy() for name in EVENT_SCHEMA.names})
            taken.append(batch.take(pa.array(range(-offset % step, batch.num_rows, step), pa.int64())))
            offset += batch.num_rows
        pq.write_table(pa.Table.from_batches(taken, file.schema_arrow), folder / SAMPLE_FILE, compression="zstd")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable event file ({error}); run clean again") from error
    minutes = sum(-(-(closes - opens) // MINUTE_NS) for opens, closes in windows)
    names = ("bad_prices", "bad_sizes", "bad_kinds", "bad_sides", "repeated_sequences")
    row = {
        "dataset": dataset_of(scan.kinds),
        "schema_problem": "",
        "rows": offset,
        "nulls": nulls,
        "backward_step_ns": scan.backward_ns,
        "rows_outside_session": scan.counts["outside"],
        **{name: scan.counts[name] for name in names},
        "session_coverage": len(scan.minutes) / minutes if minutes else 0.0,
        **scan.book.close(),
    }
    histograms = {name: np.trim_zeros(counts, "b").tolist() for name, counts in scan.book.histograms.items()}
    return {"row": row, "histograms": histograms}
