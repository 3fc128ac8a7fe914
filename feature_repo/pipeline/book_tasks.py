"""What the features stage runs for one partition: Spark reads, compiled kernels work in its task, Spark writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.books import REPLAYED_COLUMNS, BookBuilder, book_of, book_table, empty_book
from feature_repo.pipeline.kernels import FEATURES, compute_features
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from feature_repo.pipeline.leaves import LEAF_DTYPE, LEAVES_FILE, leaves_table
from feature_repo.pipeline.spark_io import read_events, write_single
from feature_repo.pipeline.volume_curve import DayVolume, VolumeCurve, buckets_of
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.schema import Kind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BOOK_FILE, FEATURES_FILE = "book.parquet", "features.parquet"
_FACTS_FILE = ".facts.json"
_BATCH_ROWS = 65_536
_SPARK_TYPES = {
    pa.int8(): "tinyint", pa.int16(): "smallint", pa.int32(): "int", pa.int64(): "bigint", pa.float32(): "float",
    pa.string(): "string", pa.timestamp("us", "UTC"): "timestamp",
}  # fmt: skip

Batches = Iterator[pa.RecordBatch]
Facts = dict[str, Any]


def make_book(spark: SparkSession, events: Path, partition: Partition, instrument: Instrument, folder: Path) -> Facts:
    """Write `book.parquet` of one partition; gives `rows`, `counts` (BookCounts), `volume` (lots by bucket), and how
    many events are `orders` and `halts`.

    Events are taken batch by batch. Raises InputError as `build_book`.
    """
    name, windows = _name(partition), instrument.session_ns(partition.date)
    depth = instrument.depth

    def work(batches: Batches, facts: Facts) -> Batches:
        builder, rows, kinds = BookBuilder(depth, name), 0, np.zeros(max(Kind) + 1, np.int64)
        volume = np.zeros(buckets_of(sum(close - start for start, close in windows)), np.int64)

        def books() -> Iterator[Any]:
            nonlocal kinds
            for batch in batches:
                kinds += np.bincount(np.clip(np.asarray(batch.column("kind")), 0, max(Kind)), minlength=len(kinds))
                yield builder.add(batch)
            yield builder.end()

        for book in books():
            rows += len(book)
            volume += DayVolume.from_book(partition.date, book, windows).lots
            yield from book_table(book).to_batches(_BATCH_ROWS)
        facts |= {"rows": rows, "counts": asdict(builder.counts), "volume": volume.tolist()}
        facts |= {"orders": int(kinds[[Kind.ADD, Kind.REPLACE]].sum()), "halts": int(kinds[Kind.HALT])}

    schema = book_table(empty_book(depth)).schema
    needed = read_events(spark, events).select(*REPLAYED_COLUMNS)
    return _run(needed, work, schema, events, folder / BOOK_FILE)


def make_leaves(
    spark: SparkSession, events: Path, partition: Partition, instrument: Instrument, by_order: bool, folder: Path
) -> Facts:
    """Write `leaves.parquet` of one partition; gives `rows`. `by_order`: its events are orders; else halts alone.

    Raises as `make_book`.
    """
    name, depth = _name(partition), instrument.depth

    def work(batches: Batches, facts: Facts) -> Batches:
        builder, rows = LeafBuilder(depth, name, by_order), 0
        for batch in batches:
            leaves = builder.add(batch)
            rows += len(leaves)
            yield from leaves_table(leaves).to_batches(_BATCH_ROWS)
        facts |= {"rows": rows}

    needed = read_events(spark, events).select(*REPLAYED_COLUMNS)
    return _run(needed, work, leaves_table(np.zeros(0, LEAF_DTYPE)).schema, events, folder / LEAVES_FILE)


def make_features(
    spark: SparkSession,
    book: Path,
    partition: Partition,
    instrument: Instrument,
    earlier: VolumeCurve | None,
    folder: Path,
) -> Facts:
    """Write `features.parquet` of one partition from its book; gives `rows` and `curve_days`.

    Raises InputError where the book never has two sides within the session.
    """
    name, windows = _name(partition), instrument.session_ns(partition.date)
    book_schema = book_table(empty_book(instrument.depth)).schema

    def work(batches: Batches, facts: Facts) -> Batches:
        whole = book_of(pa.Table.from_batches(list(batches), book_schema))
        ts_ns, features, valid = compute_features(whole, windows, earlier)
        if not valid.any():
            raise InputError(f"{name}: the book never has two sides within the session; leave this symbol or day out")
        yield from features_table(partition, ts_ns, features, valid).to_batches(_BATCH_ROWS)
        facts |= {"rows": len(ts_ns), "curve_days": earlier.days if earlier else 0}

    # Feast wants times of a zone; Spark's default is the old INT96 without one.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    nothing = np.zeros(0, np.int64), np.zeros((0, len(FEATURES)), np.float32), np.zeros(0, np.int8)
    rows = spark.read.schema(_ddl(book_schema)).parquet(str(book))
    return _run(rows, work, features_table(partition, *nothing).schema, book, folder / FEATURES_FILE)


def features_table(partition: Partition, ts_ns: np.ndarray, features: np.ndarray, valid: np.ndarray) -> pa.Table:
    """What `compute_features` gives as a table: times and the instrument's id, a column a feature, `book_valid`."""
    stamps = pa.array(ts_ns // 1000, pa.timestamp("us", tz="UTC"))
    ids = pa.array(np.full(len(ts_ns), partition.instrument_id), pa.string())
    columns = {"event_timestamp": stamps, "ts_ns": ts_ns, "instrument_id": ids}
    columns |= {feature: np.ascontiguousarray(features[:, i]) for i, feature in enumerate(FEATURES)}
    return pa.table({**columns, "book_valid": valid})


def _run(
    frame: DataFrame, work: Callable[[Batches, Facts], Batches], schema: pa.Schema, source: Path, path: Path
) -> Facts:
    """Write what `work` makes of the frame's one partition as the file `path`; gives what it noted in its facts.

    A refusal comes back as a fact: an exception would reach the driver wrapped in Spark's own. Raises InputError where
    `work` refused, or Spark cannot read `source`, the file of the frame.
    """
    facts_path = path.with_name(_FACTS_FILE)

    def task(batches: Batches) -> Batches:
        facts: Facts = {}
        try:
            yield from work(batches, facts)
        except InputError as error:
            facts["error"] = str(error)
        facts_path.write_text(json.dumps(facts))

    try:
        write_single(frame.mapInArrow(task, _ddl(schema)), path)
    except Exception as error:
        if "FAILED_READ_FILE" not in str(error):
            raise
        raise InputError(f"{source}: damaged, Spark cannot read it; run the stage that wrote it again") from error
    facts = json.loads(facts_path.read_text())
    facts_path.unlink()
    if "error" in facts:
        raise InputError(facts["error"])
    return facts


def _ddl(schema: pa.Schema) -> str:
    return ", ".join(f"`{field.name}` {_SPARK_TYPES[field.type]}" for field in schema)


def _name(partition: Partition) -> str:
    return f"{partition.instrument_id} {partition.date}"
