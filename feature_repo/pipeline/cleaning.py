"""Bronze to silver: every event is either kept as it is or quarantined with the name of the rule that caught it."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.pipeline import rules
from feature_repo.pipeline.accounting import KEPT, partition_account, partition_writer, write_accounting
from feature_repo.pipeline.rules import RULE_NUMBER, RULES, CleanLimits
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side, schema_problem

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NEVER = 2**63 - 1


@dataclass(frozen=True)
class _Task:
    """What cleaning one partition needs to know beforehand."""

    partition: Partition
    path: Path
    rows: int
    kinds: frozenset[int]
    windows_ns: list[tuple[int, int]]

    @property
    def has_snapshots(self) -> bool:
        return int(Kind.LEVEL) in self.kinds

    @property
    def has_quotes(self) -> bool:
        return int(Kind.QUOTE) in self.kinds

    @property
    def has_orders(self) -> bool:
        return bool(self.kinds & {int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE)})


def clean(
    bronze_dir: Path,
    out_dir: Path,
    spark: SparkSession,
    progress: Progress = no_progress,
    limits: CleanLimits | None = None,
) -> dict[str, Any]:
    """Clean every partition of `bronze_dir` into the empty folder `out_dir`.

    Each partition is one Spark task in the vendor's order (its rules are windows over the whole day), so the result
    does not depend on how many cores or executors there are; partitions run side by side.

    Args:
        bronze_dir: partitions `events.parquet` of EVENT_SCHEMA and `instruments.json`.
        out_dir: empty folder; gets partitions `events.parquet`, `quarantine/` partitions with a `rule` column, both
            sorted by (ts_event_ns, sequence), `accounting.parquet`, `accounting.json` and `instruments.json`.
        spark: a session of `spark_session`.
        progress: told partitions done.
        limits: the numbers that the rules use; None for the defaults.

    Returns:
        `rows_in`, `rows_kept`, `rows_quarantined`, `by_rule`, and the same per partition under `partitions`.

    Raises:
        InputError: nothing to read, a file that is no event file or is empty, a partition with no row fit for use.
        ShortfallError: rows in differ from rows kept + quarantined.
    """
    limits = limits or CleanLimits()
    tasks = _plan(bronze_dir)
    cores = max(1, spark.sparkContext.defaultParallelism)
    accounts: dict[Partition, dict[str, Any]] = {}
    progress(0, len(tasks), "partitions")
    with ThreadPoolExecutor(max_workers=min(cores, len(tasks))) as pool:
        waiting = {pool.submit(_clean_partition, task, out_dir, spark, limits): task for task in tasks}
        try:
            for future in as_completed(waiting):
                task = waiting[future]
                accounts[task.partition] = partition_account(task.partition, task.rows, future.result())
                progress(len(accounts), len(tasks), "partitions")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shutil.copyfile(bronze_dir / "instruments.json", out_dir / "instruments.json")
    return write_accounting([accounts[task.partition] for task in tasks], out_dir)


def _plan(bronze_dir: Path) -> list[_Task]:
    partitions = list_partitions(bronze_dir, "events.parquet")
    if not partitions:
        raise InputError(f"{bronze_dir}: no partition venue=/symbol=/date=/events.parquet to clean; run ingest first")
    instruments = load_instruments(bronze_dir)
    tasks = []
    for partition in partitions:
        path = partition.folder(bronze_dir) / "events.parquet"
        instrument = instruments.get(partition.instrument_id)
        if instrument is None:
            raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run ingest again")
        try:
            schema = pq.read_schema(path)
            if problem := schema_problem(schema):
                raise InputError(f"{path}: not the event schema: {problem}")
            kinds = pq.read_table(path, columns=["kind"])["kind"]
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not a readable event file ({error}); run ingest again") from error
        if len(kinds) == 0:
            raise InputError(f"{path}: {partition.instrument_id} has no event on {partition.date}; leave this day out")
        windows = instrument.session_ns(partition.date)
        tasks.append(_Task(partition, path, len(kinds), frozenset(kinds.unique().to_pylist()), windows))
    return tasks


def _clean_partition(task: _Task, out_dir: Path, spark: SparkSession, limits: CleanLimits) -> dict[str, int]:
    """Clean one partition; return rows by rule name and under `kept`."""
    # One task holds the whole partition, so none of the windows shuffles.
    events = spark.read.parquet(str(task.path)).select(*EVENT_SCHEMA.names).coalesce(1)
    judged = _judge_rows(events, task, limits).persist()
    try:
        verdicts = _price_verdicts(judged, task, limits)
        judged_again = _apply_price_verdicts(judged, spark.createDataFrame(verdicts)) if verdicts.num_rows else judged
        if task.has_snapshots:
            judged_again = _judge_snapshots(judged_again, limits)
        if task.has_orders:
            judged_again = _judge_orders(judged_again, limits)
        ordered = judged_again.select(*EVENT_SCHEMA.names, "rule").sortWithinPartitions("ts_event_ns", "sequence")
        counts = ordered.mapInArrow(partition_writer(task.partition, out_dir), "rule int, rows long").collect()
    finally:
        judged.unpersist()
    names = [KEPT, *RULES]
    return {names[row["rule"]]: row["rows"] for row in counts if row["rows"]}


def _judge_rows(events: DataFrame, task: _Task, limits: CleanLimits) -> DataFrame:
    """Add `rule` by what the row and its place in the stream show, and `series` and `changed` for the price rules."""
    from pyspark.sql import functions as F

    events = rules.with_duplicates(events, by_order=task.has_orders)
    outside = rules.first_rule(("out_of_session", ~rules.in_session(task.windows_ns)))
    events = rules.with_order_rule(events.withColumn("rule", F.coalesce("rule", outside)), limits)
    events = events.withColumn("rule", F.coalesce("rule", rules.first_rule(*rules.row_conditions())))
    return rules.with_changes(events)


def _price_verdicts(judged: DataFrame, task: _Task, limits: CleanLimits) -> pa.Table:
    """Marks of bad runs and stretches: `sequence`, `outlier`, and `until`, `offender`, `stands` by book rule."""
    from pyspark.sql import functions as F

    changes = judged.filter("changed").select("sequence", "ts_event_ns", "series", "price_ticks")
    changes = rules.with_outliers(changes, limits).persist()
    try:
        marks = [changes.filter("outlier").select("sequence", F.lit("outlier_price").alias("rule"))]
        if task.has_quotes:
            quotes = changes.filter((F.col("series") != rules.TRADES) & ~F.col("outlier"))
            for rule, grace_ns in (
                ("crossed_book", limits.crossed_grace_ns),
                ("locked_book", limits.locked_grace_ns),
            ):
                marks.append(rules.book_islands(quotes, rule, grace_ns).withColumn("rule", F.lit(rule)))
        union = marks[0]
        for mark in marks[1:]:
            union = union.unionByName(mark, allowMissingColumns=True)
        return union.coalesce(1).toArrow()
    finally:
        changes.unpersist()


def _apply_price_verdicts(judged: DataFrame, verdicts: DataFrame) -> DataFrame:
    """Extend `rule` by outlier_price, crossed_book and locked_book, carrying each mark over the rows that it covers."""
    from pyspark.sql import functions as F

    here = rules.up_to_here(rules.sequence_window())
    book_rules = ("crossed_book", "locked_book")
    mark = F.struct("until", "offender", "stands") if "until" in verdicts.columns else None
    columns = [F.max(F.col("rule") == "outlier_price").alias("_outlier")]
    if mark is not None:
        columns += [F.first(F.when(F.col("rule") == r, mark), ignorenulls=True).alias(f"_{r}") for r in book_rules]
    marks = verdicts.groupBy("sequence").agg(*columns)
    events = judged.join(F.broadcast(marks), "sequence", "left")
    starts = F.when(F.col("changed"), F.coalesce("_outlier", F.lit(False)))
    carried = {
        f"_out{n}": F.last(F.when(F.col("series") == n, starts), ignorenulls=True).over(here)
        for n in (rules.TRADES, rules.BIDS, rules.ASKS)
    }
    if mark is not None:
        carried |= {f"_{rule}": F.last(f"_{rule}", ignorenulls=True).over(here) for rule in book_rules}
    events = events.withColumns(carried)
    outlier = F.lit(False)
    for number in (rules.TRADES, rules.BIDS, rules.ASKS):
        outlier = outlier | ((F.col("series") == number) & F.col(f"_out{number}"))
    conditions = [("outlier_price", outlier)]
    if mark is not None:
        conditions += [(rule, _covered(rule)) for rule in book_rules]
    return events.withColumn("rule", F.coalesce("rule", rules.first_rule(*conditions)))


def _covered(rule: str) -> Any:
    """Whether the quote stands in the carried stretch and is the offender's, or would cross what the offender left."""
    from pyspark.sql import functions as F

    mark, series, price = F.col(f"_{rule}"), F.col("series"), F.col("price_ticks")
    crosses_rest = (
        (mark["stands"] > 0)
        & (price > 0)
        & F.when(series == rules.BIDS, price >= mark["stands"]).otherwise(price <= mark["stands"])
    )
    quote = series.isin(rules.BIDS, rules.ASKS)
    inside = F.col("sequence") < mark["until"]
    return F.coalesce(quote & inside & ((series == mark["offender"]) | crosses_rest), F.lit(False))


def _judge_snapshots(judged: DataFrame, limits: CleanLimits) -> DataFrame:
    """Extend `rule` over whole snapshots: one bad level makes the book unreliable, so CLEAR to LAST go together."""
    from pyspark.sql import functions as F

    opens = (F.col("kind") == int(Kind.CLEAR)) & ~F.col("rule").eqNullSafe(RULE_NUMBER["exact_duplicate"])
    member = F.col("kind").isin(int(Kind.CLEAR), int(Kind.LEVEL))
    number = F.sum(opens.cast("long")).over(rules.up_to_here(rules.sequence_window()))
    events = judged.withColumn("snapshot", F.when(member, number))
    verdicts = _snapshot_verdicts(events, limits).filter("verdict is not null").select("snapshot", "verdict")
    events = events.join(F.broadcast(verdicts), "snapshot", "left")
    # A repeated row inside a snapshot goes alone; every other member shares the snapshot's verdict.
    rule = F.when(F.col("rule").eqNullSafe(RULE_NUMBER["exact_duplicate"]), F.col("rule"))
    return events.withColumn("rule", F.when(member, F.coalesce(rule, "verdict")).otherwise(F.col("rule")))


def _snapshot_verdicts(events: DataFrame, limits: CleanLimits) -> DataFrame:
    from pyspark.sql import functions as F

    counted = F.when(~F.col("rule").eqNullSafe(RULE_NUMBER["exact_duplicate"]), True)
    price = F.when(counted & (F.col("kind") == int(Kind.LEVEL)) & (F.col("price_ticks") > 0), F.col("price_ticks"))
    content = F.xxhash64("kind", "side", "price_ticks", "size", "flags")
    snapshots = (
        events.filter(F.col("snapshot").isNotNull())
        .groupBy("snapshot")
        .agg(
            F.min("sequence").alias("sequence"),
            F.min("ts_event_ns").alias("ts_event_ns"),
            F.count(counted).alias("rows"),
            F.bit_xor(F.when(counted, content)).alias("content"),
            F.min(F.when(counted, F.col("rule"))).alias("worst"),
            F.max_by(rules.has_flag(Flag.LAST), F.when(counted, F.col("sequence"))).alias("whole"),
            F.max(F.when(F.col("side") == int(Side.BUY), price)).alias("bid"),
            F.min(F.when(F.col("side") == int(Side.SELL), price)).alias("ask"),
        )
    )
    spec = rules.sequence_window()
    same = F.struct("ts_event_ns", "rows", "content")
    snapshots = snapshots.withColumn("repeats", F.lag(same).over(spec) == same)
    base = rules.first_rule(
        ("exact_duplicate", F.col("repeats") & (F.col("snapshot") > 0)),
        *((name, F.col("worst") == RULE_NUMBER[name]) for name in RULES),
        ("broken_snapshot", (F.col("snapshot") == 0) | ~F.col("whole")),
    )
    snapshots = snapshots.withColumn("base", base)
    for series, side in ((rules.BIDS, "bid"), (rules.ASKS, "ask")):
        judged = F.when(F.col("base").isNull(), F.coalesce(F.col(side), F.lit(0))).otherwise(F.lit(0))
        named = snapshots.withColumns({"series": F.lit(series), "price_ticks": judged})
        snapshots = rules.with_outliers(named, limits).withColumnRenamed("outlier", f"{side}_outlier")
    verdict = rules.first_rule(
        ("outlier_price", F.col("bid_outlier") | F.col("ask_outlier")),
        ("crossed_book", F.col("bid") > F.col("ask")),
        ("locked_book", F.col("bid") == F.col("ask")),
    )
    return snapshots.withColumn("verdict", F.coalesce("base", verdict))


def _judge_orders(judged: DataFrame, limits: CleanLimits) -> DataFrame:
    """Extend `rule` by outlier_price of ADD and REPLACE, and by orphan for what becomes of a quarantined order."""
    from pyspark.sql import functions as F

    placed = F.col("kind").isin(int(Kind.ADD), int(Kind.REPLACE))
    clear = F.col("rule").isNull()
    trade = F.when(clear & (F.col("kind") == int(Kind.TRADE)), F.col("price_ticks"))
    middle = judged.agg(
        F.coalesce(F.median(trade), F.median(F.when(clear & placed, F.col("price_ticks")))).alias("_middle")
    )
    events = judged.crossJoin(F.broadcast(middle))
    far = F.abs(F.col("price_ticks") - F.col("_middle")) > F.col("_middle") * limits.far_order_share
    events = events.withColumn("rule", F.coalesce("rule", rules.first_rule(("outlier_price", placed & far))))
    lost = (
        events.filter(placed & F.col("rule").isNotNull() & (F.col("rule") != RULE_NUMBER["exact_duplicate"]))
        .groupBy("order_id")
        .agg(F.min("sequence").alias("_lost_at"))
    )
    events = events.join(F.broadcast(lost), "order_id", "left")
    orphan = (F.col("order_id") != 0) & (F.col("sequence") > F.col("_lost_at"))
    return events.withColumn("rule", F.coalesce("rule", rules.first_rule(("orphan", orphan))))
