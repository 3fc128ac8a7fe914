"""One silver partition in numbers, by a full pass in bounded memory, and a small even sample of its rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side, schema_problem

MINUTE_NS = 60_000_000_000
KINDS = [int(kind) for kind in Kind]
SIDES = [int(side) for side in Side]
_PRICED = [int(kind) for kind in (Kind.ADD, Kind.REPLACE, Kind.TRADE)]
_SIZED = [*_PRICED, int(Kind.CANCEL)]
_SIDED = [int(kind) for kind in (Kind.ADD, Kind.QUOTE, Kind.LEVEL)]


class _Scan:
    """Counts over the partition's batches in file order, the two best quotes carried from one to the next."""

    def __init__(self, windows_ns: list[tuple[int, int]]) -> None:
        self.windows_ns = windows_ns
        self.counts: Counter[str] = Counter()
        self.backward_ns = 0
        self.first_ns = self.last_ns = 0
        self.minutes: set[int] = set()
        self._best = {"bid": 0, "ask": 0}

    def add(self, batch: dict[str, np.ndarray]) -> None:
        ts = batch["ts_event_ns"]
        if self.counts["rows"] == 0:
            self.first_ns = int(ts[0])
            previous = ts[0]
        else:
            previous = self.last_ns
        steps = np.diff(ts, prepend=previous)
        self.backward_ns = max(self.backward_ns, int(-steps.min()))
        self.last_ns = int(ts[-1])
        self.counts["rows"] += len(ts)
        inside = np.zeros(len(ts), bool)
        for opens, closes in self.windows_ns:
            inside |= (ts >= opens) & (ts < closes)
        self.counts["outside"] += int((~inside).sum())
        self.minutes.update(np.unique(ts[inside] // MINUTE_NS).tolist())
        self._values(batch)
        self._spread(batch)

    def _values(self, batch: dict[str, np.ndarray]) -> None:
        kind, price, size, flags = (batch[name] for name in ("kind", "price_ticks", "size", "flags"))
        no_size = (flags & int(Flag.NO_SIZE)) != 0
        quoted = np.isin(kind, [int(Kind.QUOTE), int(Kind.LEVEL)])
        empty = quoted & (price == 0) & (size == 0) & ~no_size  # cleaning keeps these: the side is empty
        needs_size = (np.isin(kind, _SIZED) | quoted) & ~empty
        self.counts["bad_prices"] += int(((np.isin(kind, _PRICED) | (quoted & ~empty)) & (price <= 0)).sum())
        self.counts["bad_sizes"] += int((needs_size & ((size < 0) | ((size == 0) & ~no_size))).sum())
        self.counts["bad_kinds"] += int((~np.isin(kind, KINDS)).sum())
        side = batch["side"]
        self.counts["bad_sides"] += int((~np.isin(side, SIDES) | (np.isin(kind, _SIDED) & (side == 0))).sum())

    def _spread(self, batch: dict[str, np.ndarray]) -> None:
        """Count states with both sides, and those with ask above bid; a depth snapshot counts at its LAST."""
        kind, side, price = batch["kind"], batch["side"], batch["price_ticks"]
        best = (kind == Kind.QUOTE) | ((kind == Kind.LEVEL) & ((batch["flags"] & int(Flag.LEVEL_MASK)) == 0))
        bid = _carry(np.where(best & (side == Side.BUY), price, -1), self._best["bid"])
        ask = _carry(np.where(best & (side == Side.SELL), price, -1), self._best["ask"])
        self._best = {"bid": int(bid[-1]), "ask": int(ask[-1])}
        whole = (kind == Kind.QUOTE) | ((kind == Kind.LEVEL) & ((batch["flags"] & int(Flag.LAST)) != 0))
        states = whole & (bid > 0) & (ask > 0)
        self.counts["states"] += int(states.sum())
        self.counts["positive"] += int((states & (ask > bid)).sum())


def _carry(values: np.ndarray, before: int) -> np.ndarray:
    """Carry the last value that is not -1 forward; `before` stands ahead of the first."""
    place = np.where(values >= 0, np.arange(len(values)), -1)
    np.maximum.accumulate(place, out=place)
    return np.where(place >= 0, values[place], before)


def profile_partition(
    partition: Partition, path: Path, instrument: Instrument, quarantined: dict[str, int]
) -> dict[str, Any]:
    """Profile one silver file.

    Args:
        partition: which symbol and day.
        path: its `events.parquet`.
        instrument: for the session windows.
        quarantined: rows by rule that cleaning took out of this partition.

    Returns:
        One row of the profile table; a column that cannot be computed is None.

    Raises:
        InputError: the file is not readable parquet.
    """
    row: dict[str, Any] = {"partition": f"{partition.instrument_id} {partition.date}"}
    try:
        file = pq.ParquetFile(path)
        row["schema_problem"] = schema_problem(file.schema_arrow)
        if row["schema_problem"]:
            return row
        windows = instrument.session_ns(partition.date)
        scan, nulls = _Scan(windows), 0
        for batch in file.iter_batches(batch_size=131_072):
            nulls += sum(column.null_count for column in batch.columns)
            if nulls == 0 and batch.num_rows:
                scan.add({name: batch[name].to_numpy() for name in EVENT_SCHEMA.names})
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable event file ({error}); run clean again") from error
    counts, rows = scan.counts, scan.counts["rows"]
    outside = quarantined.get("out_of_session", 0)
    faulty = sum(quarantined.values()) - outside
    total = rows + faulty + outside
    minutes = sum(-(-(closes - opens) // MINUTE_NS) for opens, closes in windows)
    row |= {"rows": rows, "nulls": nulls}
    row |= {"backward_step_ns": scan.backward_ns, "rows_outside_session": counts["outside"]}
    row |= {name: counts[name] for name in ("bad_prices", "bad_sizes", "bad_kinds", "bad_sides")}
    row |= {
        "session_coverage": len(scan.minutes) / minutes if minutes else 0.0,
        "positive_spread_share": counts["positive"] / counts["states"] if counts["states"] else None,
        "quarantine_share": faulty / (rows + faulty) if rows + faulty else 0.0,
        "out_of_session_share": outside / total if total else 0.0,
    }
    return row


def sample_rows(path: Path, limit: int) -> pa.Table:
    """Take every n-th row of the file so that at most `limit` come; the first row is always among them."""
    file = pq.ParquetFile(path)
    step = max(1, -(-file.metadata.num_rows // limit))
    taken, offset = [], 0
    for batch in file.iter_batches(batch_size=131_072):
        first = -offset % step
        taken.append(batch.take(pa.array(range(first, batch.num_rows, step), pa.int64())))
        offset += batch.num_rows
    return pa.Table.from_batches(taken, file.schema_arrow)


def add_trailing_ratio(profiles: list[tuple[Partition, dict[str, Any]]], days: int, min_days: int) -> None:
    """Add `rows_to_trailing_median` to each profile: its rows over the median of the symbol's `days` earlier days.

    None where fewer than `min_days` earlier days are there.
    """
    history: dict[str, list[int]] = {}
    for partition, row in sorted(profiles, key=lambda item: item[0]):
        earlier = history.setdefault(partition.instrument_id, [])
        known = row.get("rows") is not None and len(earlier) >= min_days
        row["rows_to_trailing_median"] = row["rows"] / float(np.median(earlier[-days:])) if known else None
        if row.get("rows"):
            earlier.append(row["rows"])
