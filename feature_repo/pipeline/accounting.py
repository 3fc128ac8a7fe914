"""Writes what cleaning kept and what it quarantined, and accounts for every row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition
from feature_repo.pipeline.rules import RULES
from feature_repo.ticks.schema import EVENT_SCHEMA

ROW_GROUP_ROWS = 131_072
QUARANTINE_SCHEMA = EVENT_SCHEMA.append(pa.field("rule", pa.string(), nullable=False))
ACCOUNTING_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("venue", "symbol", "date", "rule")]
    + [pa.field("rows", pa.int64(), nullable=False)]
)
KEPT = "kept"


class _Sink:
    """A parquet file of fixed row groups, whatever the batches that come in; there only once it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, path.with_name(f".{path.name}.part")
        self._schema = schema
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table.cast(self._schema))
        self._waiting_rows += table.num_rows
        while self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush(ROW_GROUP_ROWS)

    def close(self) -> None:
        if self._waiting_rows:
            self._flush(self._waiting_rows)
        self._writer.close()
        self._partial.rename(self._path)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting)
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._waiting = [table.slice(rows)]
        self._waiting_rows = table.num_rows - rows


def partition_writer(partition: Partition, out_dir: Path) -> Callable[[Iterator[pa.RecordBatch]], Any]:
    """Return the function that Spark maps over one partition's sorted batches (event columns and `rule` number).

    It writes `events.parquet` and `quarantine/.../events.parquet` and yields one batch of `rule` (0 kept), `rows`.
    """
    kept_path = partition.folder(out_dir) / "events.parquet"
    quarantine_path = partition.folder(out_dir / "quarantine") / "events.parquet"

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow.compute as pc

        names = pa.array([KEPT, *RULES])
        counts = [0] * len(names)
        kept, quarantined = _Sink(kept_path, EVENT_SCHEMA), _Sink(quarantine_path, QUARANTINE_SCHEMA)
        for batch in batches:
            table = pa.Table.from_batches([batch])
            number = pc.fill_null(table["rule"], 0)
            for entry in pc.value_counts(number).to_pylist():
                counts[entry["values"]] += entry["counts"]
            good = pc.equal(number, 0)
            kept.add(table.filter(good).select(EVENT_SCHEMA.names))
            bad = table.filter(pc.invert(good))
            rule = pc.take(names, bad["rule"])
            quarantined.add(bad.select(EVENT_SCHEMA.names).append_column("rule", rule))
        kept.close()
        quarantined.close()
        yield pa.RecordBatch.from_pydict(
            {"rule": pa.array(range(len(counts)), pa.int32()), "rows": pa.array(counts, pa.int64())}
        )

    return write


def partition_account(partition: Partition, rows_in: int, counts: dict[str, int]) -> dict[str, Any]:
    """Account for one partition's rows; `counts` holds rows by rule and under `kept`.

    Raises ShortfallError where rows are lost or invented, InputError where none is kept.
    """
    by_rule = {name: counts[name] for name in RULES if counts.get(name)}
    kept, quarantined = counts.get(KEPT, 0), sum(by_rule.values())
    if kept + quarantined != rows_in:
        raise ShortfallError(
            f"{partition.instrument_id} {partition.date}: {rows_in} rows came in but {kept} kept + {quarantined} "
            f"quarantined = {kept + quarantined} went out; this is a fault in cleaning, nothing is published"
        )
    if kept == 0:
        reasons = ", ".join(f"{name} {rows}" for name, rows in by_rule.items())
        raise InputError(
            f"{partition.instrument_id} {partition.date}: none of {rows_in} rows is fit for use ({reasons}); check the "
            f"file and the instrument's session windows, or leave this day out"
        )
    return {
        "venue": partition.venue,
        "symbol": partition.symbol,
        "date": partition.date,
        "rows_in": rows_in,
        "rows_kept": kept,
        "rows_quarantined": quarantined,
        "by_rule": by_rule,
    }


def write_accounting(accounts: list[dict[str, Any]], out_dir: Path) -> dict[str, Any]:
    """Write `accounting.parquet` and `accounting.json`; return the summary of all partitions."""
    rows = [
        {"venue": a["venue"], "symbol": a["symbol"], "date": a["date"], "rule": rule, "rows": count}
        for a in accounts
        for rule, count in ({KEPT: a["rows_kept"]} | a["by_rule"]).items()
    ]
    table = pa.Table.from_pylist(rows, schema=ACCOUNTING_SCHEMA)
    pq.write_table(table, out_dir / "accounting.parquet", compression="zstd", row_group_size=ROW_GROUP_ROWS)
    totals = {name: sum(a["by_rule"].get(name, 0) for a in accounts) for name in RULES}
    summary = {name: sum(a[name] for a in accounts) for name in ("rows_in", "rows_kept", "rows_quarantined")}
    summary |= {"by_rule": {name: rows for name, rows in totals.items() if rows}, "partitions": accounts}
    (out_dir / "accounting.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary
