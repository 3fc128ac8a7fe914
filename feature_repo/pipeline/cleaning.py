"""Bronze to silver: every event is either kept as it is or quarantined with the name of the rule that caught it.

Two passes over each partition, both by Spark:

1. Verdicts. Spark reads the partition's file in its order and hands it whole to the compiled rules (`judge`) through
   `mapInArrow`. Rules look at neighbours, runs and stretches of a whole day; as window expressions they took ten times
   as long. What comes back is small: sequence and rule of the quarantined rows, holes, and notes.
2. Rows. Spark reads the file again, joins the verdicts by broadcast on `sequence`, and writes the kept rows (anti join)
   and the quarantined ones (inner join, with `rule`) with its own Parquet writer, one file each, in order.

The rows are counted in what was written, not in the verdicts, so that the balance of rows in and out can fail.
Partitions run side by side; the result depends neither on that nor on the number of cores.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import DiskFullError, InputError, ShortfallError
from feature_repo.lake import Partition, list_partitions
from feature_repo.parts import Part, Parts, parts_or_scratch, read_index, write_index
from feature_repo.pipeline.accounting import EVENTS_FILE, KEPT, partition_account, write_accounting
from feature_repo.pipeline.rules import RULES, CleanLimits
from feature_repo.pipeline.spark_io import read_events, write_single
from feature_repo.pipeline.venue_rules import VenueRules, load_rules
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, schema_problem

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_QUARANTINE_PART = "quarantine.parquet"
_VERDICT, _HOLE, _NOTE, _ORDER = range(4)
_FINDINGS = pa.schema(
    [("what", pa.int8()), ("sequence", pa.int64()), ("rule", pa.int16())]
    + [(f"value{k}", pa.int64()) for k in range(4)]
    + [("name", pa.string())]
)
"""What pass 1 gives back: verdicts (sequence, rule), holes (sequence, values), notes (name, value0), and the order:
value0 says whether the kept rows are in order, value1 is a sequence that stands twice (-1: none)."""
_HOLE_VALUES = ("from_ns", "missing", "until_ns", "rows_lost")
_FINDINGS_SPARK = (
    "what byte, sequence long, rule short, " + ", ".join(f"value{k} long" for k in range(4)) + ", name string"
)


@dataclass(frozen=True)
class _Task:
    """What cleaning one partition needs to know beforehand."""

    partition: Partition
    path: Path
    rows: int
    rules: VenueRules
    windows_ns: list[tuple[int, int]]
    auctions_ns: list[tuple[int, int]]
    key: str


def clean(
    bronze_dir: Path,
    out_dir: Path,
    spark: SparkSession,
    progress: Progress = no_progress,
    limits: CleanLimits | None = None,
    parts: Parts | None = None,
    rules_file: Path | None = None,
) -> dict[str, Any]:
    """Clean every partition of `bronze_dir` into the empty folder `out_dir`.

    Args:
        bronze_dir: partitions `events.parquet` of EVENT_SCHEMA and `instruments.json`.
        out_dir: empty folder; gets partitions `events.parquet`, `quarantine/` partitions with a `rule` column, both
            sorted by (ts_event_ns, sequence), `accounting.parquet`, `accounting.json`, `accounting.md`,
            `holes.parquet`, `instruments.json` and `parts.json`.
        spark: a session of `spark_session`.
        progress: told partitions done.
        limits: the numbers that the venues' rules start from; None for the defaults.
        parts: partitions found here are not cleaned again; None to keep none.
        rules_file: YAML laid over `venues.yaml`.

    Returns:
        `rows_in`, `rows_kept`, `rows_quarantined`, `by_rule`, `holes`, and the same per partition under `partitions`,
        there with `notes` (what is worth telling though no row went for it).

    Raises:
        InputError: nothing to read, a file that is no event file or is empty, a partition with no row fit for use, a
            rules file that is not right.
        ShortfallError: rows in differ from rows kept + quarantined.
    """
    with parts_or_scratch(parts, out_dir) as store:
        tasks = _plan(bronze_dir, store, limits, rules_file)
        found: dict[Partition, Part] = {}
        progress(0, len(tasks), "partitions")
        # One more than cores: while Spark plans and commits for one partition, the cores work on the others.
        workers = min(max(1, spark.sparkContext.defaultParallelism) + 1, len(tasks))
        with ThreadPoolExecutor(max_workers=workers) as pool:
            waiting = {
                pool.submit(store.build, task.key, partial(_clean_partition, task, spark)): task for task in tasks
            }
            try:
                for future in as_completed(waiting):
                    found[waiting[future].partition] = future.result()
                    progress(len(found), len(tasks), "partitions")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for partition, part in found.items():
            part.link(EVENTS_FILE, partition.folder(out_dir) / EVENTS_FILE)
            part.link(_QUARANTINE_PART, partition.folder(out_dir / "quarantine") / EVENTS_FILE)
    shutil.copyfile(bronze_dir / "instruments.json", out_dir / "instruments.json")
    write_index({task.partition: task.key for task in tasks}, out_dir)
    return write_accounting([found[task.partition].summary for task in tasks], out_dir)


def _plan(bronze_dir: Path, parts: Parts, limits: CleanLimits | None, rules_file: Path | None) -> list[_Task]:
    partitions = list_partitions(bronze_dir, EVENTS_FILE)
    if not partitions:
        raise InputError(f"{bronze_dir}: no partition venue=/symbol=/date=/events.parquet to clean; run ingest first")
    instruments, rule_book = load_instruments(bronze_dir), load_rules(rules_file, limits)
    keys = read_index(bronze_dir, EVENTS_FILE, partitions)
    tasks = []
    for partition in partitions:
        path = partition.folder(bronze_dir) / EVENTS_FILE
        instrument = instruments.get(partition.instrument_id)
        if instrument is None:
            raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run ingest again")
        rows = _count_rows(path, partition)
        rules = rule_book.of(partition.venue)
        key = parts.key(
            partition=vars(partition), bronze=keys[partition], instrument=asdict(instrument), rules=rules.describe()
        )
        windows, auctions = instrument.session_ns(partition.date), rules.auctions_ns(instrument, partition.date)
        tasks.append(_Task(partition, path, rows, rules, windows, auctions, key))
    return tasks


def _count_rows(path: Path, partition: Partition) -> int:
    try:
        with pq.ParquetFile(path) as file:
            if problem := schema_problem(file.schema_arrow):
                raise InputError(f"{path}: not the event schema: {problem}")
            rows = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable event file ({error}); run ingest again") from error
    if rows == 0:
        raise InputError(f"{path}: {partition.instrument_id} has no event on {partition.date}; leave this day out")
    return rows


def _clean_partition(task: _Task, spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Both passes over one partition into the empty `folder`; returns its account."""
    try:
        return _run_passes(task, spark, folder)
    except ShortfallError:
        raise
    except Exception as error:  # Spark's errors come from Java and from its workers, in many classes
        if "No space left on device" in str(error):
            free = shutil.disk_usage(folder).free
            where = f"{task.partition.instrument_id} {task.partition.date}"
            raise DiskFullError(
                f"{folder.parent}: disk full while cleaning {where}, {free:,} bytes free; free space there, run again"
            ) from error
        _require_readable(task.path)
        raise


def _require_readable(path: Path) -> None:
    """Raise InputError where a value of the file cannot be read, as after a bit was flipped."""
    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable event file ({error}); run ingest again") from error


def _run_passes(task: _Task, spark: SparkSession, folder: Path) -> dict[str, Any]:
    events = read_events(spark, task.path)
    judged = partial(_findings, rules=task.rules, windows_ns=task.windows_ns, auctions_ns=task.auctions_ns)
    found = events.mapInArrow(judged, _FINDINGS_SPARK).toArrow()
    what = {number: found.filter(pc.equal(found["what"], number)) for number in (_VERDICT, _HOLE, _NOTE, _ORDER)}
    in_order, repeated = (what[_ORDER][name][0].as_py() for name in ("value0", "value1"))
    if repeated >= 0:
        raise InputError(f"{task.path}: sequence {repeated} stands twice, rows cannot be told apart; run ingest again")
    verdicts = _broadcast(spark, what[_VERDICT])
    _write_rows(events, verdicts, bool(in_order), folder)
    counts = _count_written(folder)
    written = sum(counts.values()) - counts[KEPT]
    if written != what[_VERDICT].num_rows:
        raise ShortfallError(
            f"{task.path}: {what[_VERDICT].num_rows} rows were judged unfit but {written} are in quarantine; this is a "
            "fault in cleaning, nothing is published"
        )
    holes = [
        {"sequence": row["sequence"], **{name: row[f"value{k}"] for k, name in enumerate(_HOLE_VALUES)}}
        for row in what[_HOLE].to_pylist()
    ]
    for hole in holes:
        hole["until_ns"] = None if hole["until_ns"] < 0 else hole["until_ns"]
    notes = {row["name"]: row["value0"] for row in what[_NOTE].to_pylist()}
    return partition_account(task.partition, task.rows, counts) | {"holes": holes, "notes": notes}


def _findings(
    batches: Iterator[pa.RecordBatch],
    rules: VenueRules,
    windows_ns: list[tuple[int, int]],
    auctions_ns: list[tuple[int, int]],
) -> Iterator[pa.RecordBatch]:
    """Pass 1 in Spark's Python worker: a partition's batches in, one batch of _FINDINGS out."""
    import numpy as np

    from feature_repo.pipeline.judge import judge, to_events

    found = judge(to_events(pa.Table.from_batches(batches)), rules, windows_ns, auctions_ns)
    rows = len(found.sequence)
    more = len(found.holes) + len(found.notes) + 1
    what = np.repeat([_VERDICT, _HOLE, _NOTE, _ORDER], [rows, len(found.holes), len(found.notes), 1]).astype(np.int8)
    values = np.zeros((rows + more, 4), np.int64)
    values[rows : rows + len(found.holes)] = found.holes[:, 1:]
    values[rows + len(found.holes) : -1, 0] = list(found.notes.values())
    values[-1, 0], values[-1, 1] = found.in_order, found.repeated
    yield pa.RecordBatch.from_arrays(
        [
            pa.array(what),
            pa.array(np.concatenate([found.sequence, found.holes[:, 0], np.zeros(len(found.notes) + 1, np.int64)])),
            pa.array(np.concatenate([found.rule, np.zeros(more, np.int16)])),
            *(pa.array(np.ascontiguousarray(values[:, k])) for k in range(4)),
            pa.array([None] * (rows + len(found.holes)) + [*found.notes, None], pa.string()),
        ],
        schema=_FINDINGS,
    )


def _broadcast(spark: SparkSession, verdicts: pa.Table) -> DataFrame:
    from pyspark.sql import functions as F

    return F.broadcast(spark.createDataFrame(verdicts.select(["sequence", "rule"])))


def _write_rows(events: DataFrame, verdicts: DataFrame, in_order: bool, folder: Path) -> None:
    """Pass 2. A broadcast join keeps the order of the file, so only what is not sorted there is sorted."""
    from pyspark.sql import functions as F

    kept = events.join(verdicts, "sequence", "left_anti").select(*EVENT_SCHEMA.names)
    write_single(kept if in_order else _sorted(kept), folder / EVENTS_FILE)
    names = F.array(*(F.lit(name) for name in RULES))
    caught = events.join(verdicts.withColumn("rule", F.element_at(names, F.col("rule").cast("int"))), "sequence")
    write_single(_sorted(caught).select(*EVENT_SCHEMA.names, "rule"), folder / _QUARANTINE_PART)


def _sorted(frame: DataFrame) -> DataFrame:
    return frame.sortWithinPartitions("ts_event_ns", "sequence")


def _count_written(folder: Path) -> dict[str, int]:
    """Rows by rule, and under `kept`, as they stand in the files that were written."""
    rules = pq.read_table(folder / _QUARANTINE_PART, columns=["rule"], partitioning=None)["rule"]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(rules).to_pylist()}
    return counts | {KEPT: pq.read_metadata(folder / EVENTS_FILE).num_rows}
