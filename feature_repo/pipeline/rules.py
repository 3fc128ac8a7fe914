"""The cleaning rules: what each catches, where it comes from, and its test as Spark column expressions.

An event is quarantined once, under the first rule of `RULES` that catches it; a later rule sees only what the earlier
ones let through. All windows run over one partition (venue, symbol, session date) in the vendor's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.ticks.schema import Flag, Kind, Side

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

RULES: dict[str, str] = {
    "exact_duplicate": "the row repeats the one before it in every column but `sequence`; for an event that names an "
    "order, the order's previous event. A TRADE without an order id is never a duplicate: equal prints in the same "
    "millisecond are how one order fills against several (one in five of AIG's). A snapshot repeats as a whole",
    "out_of_session": "ts_event lies outside [open, close) of every trading window of the instrument that day",
    "out_of_order": "ts_event is behind the latest one seen by more than the tolerance; or far ahead: the events that "
    "follow all run earlier, so one wrong clock does not condemn the rest of the day",
    "non_positive_price": "price_ticks <= 0 where the kind needs a price. A QUOTE or LEVEL of price 0 and size 0 "
    "says that its side is empty and is kept, unless it names no side",
    "non_positive_size": "size <= 0 where the kind needs a size and the vendor gives one (not NO_SIZE)",
    "suspicious": "the vendor flagged the row itself",
    "broken_snapshot": "a snapshot without its CLEAR or without the row flagged LAST: the book is not whole after it",
    "outlier_price": "the price stands off its neighbours before AND after, on the same side, by more than 3 standard "
    "deviations + gamma: Brownlees and Gallo, 'Financial econometric analysis at ultra-high frequency' (2006), sec. "
    "2.1, with the trimmed mean taken on each side so that a real move, which the prices after it confirm, stays. An "
    "ADD or REPLACE (orders may rest far away) only where it is off the median trade by more than half",
    "crossed_book": "bid above ask: a whole snapshot; for one-sided quotes, the quotes of the side that crossed, from "
    "the crossing until the other side gives way, when that takes longer than the grace (a cross between the two "
    "updates of one move is normal), and quotes of the other side that would cross what is left",
    "locked_book": "bid equal to ask: as crossed_book, with a longer grace",
    "orphan": "CANCEL, REPLACE or TRADE of an order whose ADD or REPLACE was quarantined: without it the book would "
    "lose lots that it never held",
}
"""Name to meaning, in the order of precedence."""

RULE_NUMBER: dict[str, int] = {name: number for number, name in enumerate(RULES, start=1)}
"""The number that stands for a rule inside the Spark plan."""

TRADES, BIDS, ASKS = 1, 2, 3  # the price series within a partition


@dataclass(frozen=True)
class CleanLimits:
    """Every number that the rules use."""

    backward_tolerance_ns: int = 0  # how far ts_event may run backwards; 0 keeps vendor order and time order the same
    outlier_neighbours: int = 20  # changed prices on each side that make the trimmed mean
    outlier_min_neighbours: int = 5  # a side with fewer has no say; with neither side a price is not judged
    outlier_sds: float = 3.0
    outlier_gamma_bps: float = 25.0  # floor of the deviation: Brownlees and Gallo's granularity parameter
    outlier_gamma_ticks: int = 8  # the same where a tick is large against the price
    far_order_share: float = 0.5  # an order this far from the day's median trade, as a share of it, cannot be meant
    crossed_grace_ns: int = 100_000_000  # AIG crosses 14 times a day, mostly for 1 ms
    locked_grace_ns: int = 1_000_000_000  # locks are lawful on the way through a level; AIG's last 1 ms in the median


def sequence_window() -> WindowSpec:
    """The whole partition in the vendor's order."""
    from pyspark.sql import Window

    return Window.partitionBy().orderBy("sequence")


def up_to_here(spec: WindowSpec) -> WindowSpec:
    """All rows up to and with this one."""
    return spec.rowsBetween(-(2**63), 0)


def _before_here(spec: WindowSpec) -> WindowSpec:
    return spec.rowsBetween(-(2**63), -1)


def first_rule(*conditions: tuple[str, Column]) -> Column:
    """Number of the first rule whose condition holds, null where none does; conditions stand in order of precedence."""
    from pyspark.sql import functions as F

    return F.coalesce(*(F.when(condition, F.lit(RULE_NUMBER[name])) for name, condition in conditions))


def has_flag(flag: Flag) -> Column:
    """Whether `flags` holds the bit."""
    from pyspark.sql import functions as F

    return F.col("flags").bitwiseAND(F.lit(int(flag))) != 0


def with_duplicates(events: DataFrame, by_order: bool) -> DataFrame:
    """Add `rule` = exact_duplicate or null; `by_order` compares with the same order's previous event."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    spec = Window.partitionBy("order_id").orderBy("sequence") if by_order else sequence_window()
    row = F.struct("ts_event_ns", "ts_recv_ns", "kind", "side", "price_ticks", "size", "order_id", "flags")
    print_without_id = (F.col("kind") == int(Kind.TRADE)) & (F.col("order_id") == 0)
    return (
        events.withColumn("_previous", F.lag(row).over(spec))
        .withColumn("rule", first_rule(("exact_duplicate", ~print_without_id & (F.col("_previous") == row))))
        .drop("_previous")
    )


def in_session(windows_ns: list[tuple[int, int]]) -> Column:
    """Whether `ts_event_ns` lies in one of the half-open windows; an event exactly at the open is in.

    The windows go in as one array: single numbers would stand in the generated code, and every day be compiled anew.
    """
    from pyspark.sql import functions as F

    moment = F.col("ts_event_ns")
    windows = F.array(*(F.array(F.lit(opens), F.lit(closes)) for opens, closes in windows_ns))
    return F.exists(windows, lambda window: (moment >= window[0]) & (moment < window[1]))


def with_order_rule(events: DataFrame, limits: CleanLimits) -> DataFrame:
    """Extend `rule` by out_of_order.

    A row is ahead of time when two stretches of five rows, 50 and 100 rows further on, all run earlier: a single late
    block cannot fill both, and a block of up to 49 rows stamped too late is seen whole.
    """
    from pyspark.sql import functions as F

    spec = sequence_window()
    passed = F.when(F.col("rule").isNull(), F.col("ts_event_ns"))
    near, far = spec.rowsBetween(50, 54), spec.rowsBetween(100, 104)
    events = events.withColumns(
        {
            "_near": F.when(F.count(passed).over(near) == 5, F.max(passed).over(near)),
            "_far": F.when(F.count(passed).over(far) == 5, F.max(passed).over(far)),
        }
    )
    limit = F.col("ts_event_ns") - limits.backward_tolerance_ns
    ahead = F.coalesce(F.greatest("_near", "_far") < limit, F.lit(False)) & F.col("_near").isNotNull()
    events = events.withColumn("_ahead", ahead & F.col("_far").isNotNull())
    clock = F.when(F.col("rule").isNull() & ~F.col("_ahead"), F.col("ts_event_ns"))
    events = events.withColumn("_latest", F.max(clock).over(_before_here(spec)))
    behind = F.col("_latest") - F.col("ts_event_ns") > limits.backward_tolerance_ns
    rule = F.coalesce("rule", first_rule(("out_of_order", F.col("_ahead") | behind)))
    return events.withColumn("rule", rule).drop("_near", "_far", "_ahead", "_latest")


def row_conditions() -> list[tuple[str, Column]]:
    """The rules that look at nothing but the row itself."""
    from pyspark.sql import functions as F

    kind, price, size = F.col("kind"), F.col("price_ticks"), F.col("size")
    sided = kind.isin(int(Kind.QUOTE), int(Kind.LEVEL))
    # Without a side it says nothing of the book: the row must not empty one.
    named = F.col("side") != int(Side.NONE)
    empty_side = sided & named & (price == 0) & (size == 0) & ~has_flag(Flag.NO_SIZE)
    priced = kind.isin(int(Kind.ADD), int(Kind.REPLACE), int(Kind.TRADE)) | (sided & ~empty_side)
    sized = priced | (kind == int(Kind.CANCEL))
    return [
        ("non_positive_price", priced & (price <= 0)),
        ("non_positive_size", (sized & (size <= 0) & ~has_flag(Flag.NO_SIZE)) | (sized & (size < 0))),
        ("suspicious", has_flag(Flag.SUSPICIOUS)),
    ]


def with_changes(events: DataFrame) -> DataFrame:
    """Add `series` (0 none, TRADES, BIDS, ASKS) and `changed`: the first row of a run of equal prices in its series.

    The rules on prices judge runs: a quote that is only re-sized a thousand times is one observation, not a thousand.
    """
    from pyspark.sql import functions as F

    kind, side = F.col("kind"), F.col("side")
    series = (
        F.when(kind == int(Kind.TRADE), TRADES)
        .when((kind == int(Kind.QUOTE)) & (side == int(Side.BUY)), BIDS)
        .when((kind == int(Kind.QUOTE)) & (side == int(Side.SELL)), ASKS)
        .otherwise(0)
    )
    events = events.withColumn("series", F.when(F.col("rule").isNull(), series).otherwise(0))
    before = _before_here(sequence_window())
    last = {
        number: F.last(F.when(F.col("series") == number, F.col("price_ticks")), ignorenulls=True).over(before)
        for number in (TRADES, BIDS, ASKS)
    }
    events = events.withColumns({f"_last{number}": column for number, column in last.items()})
    own = (
        F.when(F.col("series") == TRADES, F.col(f"_last{TRADES}"))
        .when(F.col("series") == BIDS, F.col(f"_last{BIDS}"))
        .otherwise(F.col(f"_last{ASKS}"))
    )
    changed = (F.col("series") > 0) & (own.isNull() | (own != F.col("price_ticks")))
    return events.withColumn("changed", changed).drop(*(f"_last{number}" for number in last))


def with_outliers(prices: DataFrame, limits: CleanLimits) -> DataFrame:
    """Add bool `outlier` to a frame of `series`, `sequence`, `price_ticks`; prices <= 0 (empty sides) are not judged.

    Mean and standard deviation of each side leave out its highest and lowest price (a tenth of 20 is trimmed). The
    smaller deviation counts, so that one side spoilt by other outliers does not excuse this one.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    spec = Window.partitionBy("series").orderBy("sequence")
    count = limits.outlier_neighbours
    price = F.when(F.col("price_ticks") > 0, F.col("price_ticks").cast("double"))
    columns: dict[str, Column] = {}
    sides: dict[str, tuple[Column, Column]] = {}
    for name, rows in (("before", spec.rowsBetween(-count, -1)), ("after", spec.rowsBetween(1, count))):
        high, low, n = F.max(price).over(rows), F.min(price).over(rows), F.count(price).over(rows)
        total, squares = F.sum(price).over(rows), F.sum(price * price).over(rows)
        columns |= {f"_n_{name}": n, f"_sum_{name}": total - high - low}
        columns |= {f"_squares_{name}": squares - high * high - low * low}
        enough = F.col(f"_n_{name}") >= limits.outlier_min_neighbours
        mean = F.when(enough, F.col(f"_sum_{name}") / (F.col(f"_n_{name}") - 2))
        variance = F.when(enough, F.col(f"_squares_{name}") / (F.col(f"_n_{name}") - 2)) - mean * mean
        sides[name] = (mean, F.sqrt(F.greatest(variance, F.lit(0.0))))
    frame = prices.withColumns(columns)
    (mean_before, sd_before), (mean_after, sd_after) = sides["before"], sides["after"]
    gamma = F.greatest(
        F.lit(float(limits.outlier_gamma_ticks)),
        F.coalesce(mean_before, mean_after) * (limits.outlier_gamma_bps * 1e-4),
    )
    bound = F.least(sd_before, sd_after) * limits.outlier_sds + gamma  # least skips the side that has no say
    off_before, off_after = (
        F.col("price_ticks") - F.coalesce(m, other)
        for m, other in ((mean_before, mean_after), (mean_after, mean_before))
    )
    above = (off_before > bound) & (off_after > bound)
    below = (off_before < -bound) & (off_after < -bound)
    outlier = F.coalesce((F.col("price_ticks") > 0) & (above | below), F.lit(False))
    return frame.withColumn("outlier", outlier).drop(*columns)


def book_islands(quotes: DataFrame, rule: str, grace_ns: int) -> DataFrame:
    """Stretches of one-sided quotes during which the carried book is crossed (or locked) beyond the grace.

    Args:
        quotes: changed quotes that passed every earlier rule: `sequence`, `ts_event_ns`, `series`, `price_ticks`.
        rule: `crossed_book` or `locked_book`.
        grace_ns: how long a stretch may last and still be kept.

    Returns:
        One row a stretch: `sequence` of its first quote, `until` (sequence of the first quote after it, or the
        largest int64), `offender` (the series that crossed), `stands` (the offender's price before, 0 where none).
    """
    from pyspark.sql import functions as F

    spec = sequence_window()
    here = up_to_here(spec)
    for name, number in (("bid", BIDS), ("ask", ASKS)):
        price = F.when(F.col("series") == number, F.col("price_ticks"))
        quotes = quotes.withColumn(name, F.last(price, ignorenulls=True).over(here))
    both = (F.col("bid") > 0) & (F.col("ask") > 0)
    wrong = both & ((F.col("bid") > F.col("ask")) if rule == "crossed_book" else (F.col("bid") == F.col("ask")))
    quotes = quotes.withColumn("wrong", F.coalesce(wrong, F.lit(False)))
    own = F.when(F.col("series") == BIDS, F.lag("bid").over(spec)).otherwise(F.lag("ask").over(spec))
    quotes = quotes.withColumns(
        {"starts": F.col("wrong") & ~F.coalesce(F.lag("wrong").over(spec), F.lit(False)), "stood": own}
    )
    quotes = quotes.withColumn("island", F.sum(F.col("starts").cast("long")).over(here)).filter("island > 0")
    start = F.struct("sequence", "ts_event_ns", "series", "stood")
    end = F.min(F.when(~F.col("wrong"), F.struct("sequence", "ts_event_ns")))
    islands = quotes.groupBy("island").agg(F.min(F.when(F.col("starts"), start)).alias("a"), end.alias("z"))
    lasted = F.coalesce(F.col("z.ts_event_ns") - F.col("a.ts_event_ns"), F.lit(2**63 - 1))
    return islands.filter(lasted > grace_ns).select(
        F.col("a.sequence").alias("sequence"),
        F.coalesce("z.sequence", F.lit(2**63 - 1)).alias("until"),
        F.col("a.series").alias("offender"),
        F.coalesce("a.stood", F.lit(0)).cast("long").alias("stands"),
    )
