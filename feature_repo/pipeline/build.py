"""The features stage: clean events to book states and feature values, one Spark task a partition."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.pipeline.books import build_book, write_book
from feature_repo.pipeline.kernels import FEATURE_UNITS, FEATURE_WINDOW_NS, FEATURES, NS, compute_features
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import Instrument, load_instruments, save_instruments

_RESULT = "venue string, symbol string, date string, rows long, book_rows long, unknown_order long, error string"


def build_features(silver_dir: Path, out_dir: Path, spark: Any, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `book.parquet` and `features.parquet` for each partition, `feature_spec.json`, `instruments.json`.

    Returns `{"rows", "book_rows", "features", "partitions": [{venue, symbol, date, rows, book_rows, unknown_order}]}`.
    Raises InputError naming the symbol and day whose book never has two sides, or whose events cannot be replayed.
    """
    instruments = load_instruments(silver_dir)
    partitions = list_partitions(silver_dir, "events.parquet")
    if not partitions:
        raise InputError(f"{silver_dir}: no events.parquet below it; run the clean stage again")
    save_instruments(list(instruments.values()), out_dir)
    spec = {"features": FEATURE_UNITS, "window_ns": FEATURE_WINDOW_NS, "grid_ns": NS, "dtype": "float32"}
    (out_dir / "feature_spec.json").write_text(json.dumps(spec, indent=1) + "\n")

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                partition = Partition(row["venue"], row["symbol"], row["date"])
                result = _build_or_explain(silver_dir, out_dir, partition, instruments[partition.instrument_id])
                yield pa.RecordBatch.from_pylist([{**row, **result}], schema=_result_schema())

    results: list[dict[str, Any]] = []
    at_once = max(1, spark.sparkContext.defaultParallelism)
    for start in range(0, len(partitions), at_once):
        chunk = [vars(partition) for partition in partitions[start : start + at_once]]
        frame = spark.createDataFrame(chunk, "venue string, symbol string, date string").repartition(
            len(chunk), "date", "symbol"
        )
        done = [row.asDict() for row in frame.mapInArrow(work, _RESULT).collect()]
        for item in done:
            if error := item.pop("error"):
                raise InputError(error)
        results.extend(done)
        progress(len(results), len(partitions), "symbol-days")
    results.sort(key=lambda item: (item["venue"], item["symbol"], item["date"]))
    return {
        "rows": sum(item["rows"] for item in results),
        "book_rows": sum(item["book_rows"] for item in results),
        "features": list(FEATURES),
        "partitions": results,
    }


def build_partition(silver_dir: Path, out_dir: Path, partition: Partition, instrument: Instrument) -> dict[str, int]:
    """Book and features of one partition, written below `out_dir`; gives their row counts."""
    path = partition.folder(silver_dir) / "events.parquet"
    name = f"{partition.instrument_id} {partition.date}"
    events = pq.read_table(path, partitioning=None)
    book, counts = build_book(events, instrument.depth, name)
    ts_ns, features, valid = compute_features(book, instrument.session_ns(partition.date))
    if not valid.any():
        raise InputError(f"{name}: the book never has two sides within the session; leave this symbol or day out")
    folder = partition.folder(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_book(book, folder / "book.parquet")
    stamps = pa.array(ts_ns // 1000, pa.timestamp("us", tz="UTC"))
    columns = {"event_timestamp": stamps, "ts_ns": ts_ns, "instrument_id": np.full(len(ts_ns), partition.instrument_id)}
    columns |= {feature: np.ascontiguousarray(features[:, i]) for i, feature in enumerate(FEATURES)}
    table = pa.table({**columns, "book_valid": valid})
    pq.write_table(table, folder / "features.parquet", compression="zstd", row_group_size=262_144)
    return {"rows": len(ts_ns), "book_rows": len(book), "unknown_order": counts.unknown_order}


def _build_or_explain(silver_dir: Path, out_dir: Path, partition: Partition, instrument: Instrument) -> dict[str, Any]:
    """As `build_partition`, with a refusal as text: an exception would reach the driver wrapped in Spark's own."""
    try:
        return {**build_partition(silver_dir, out_dir, partition, instrument), "error": None}
    except InputError as error:
        return {"rows": 0, "book_rows": 0, "unknown_order": 0, "error": str(error)}


def _result_schema() -> pa.Schema:
    types = {"string": pa.string(), "long": pa.int64()}
    return pa.schema([(name, types[kind]) for name, kind in (item.split() for item in _RESULT.split(", "))])
