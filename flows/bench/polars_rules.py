"""The cleaning rules on quotes and trades once more, as Polars expressions: what `bench pipeline` compares with.

Written from what `feature_repo.pipeline.rules` says and from none of its kernels, so that equal counts by rule check
both. It reads and writes the same Parquet, one partition after the other, each on all of Polars' threads.
"""

# ruff: noqa: SIM300  (columns that stand in capitals are no constants to be put on the right)

from pathlib import Path

import numpy as np
import polars as pl

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.pipeline.rules import RULE_NUMBER, RULES, CleanLimits
from feature_repo.pipeline.venue_rules import VenueRules, default_rules
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

TRADE, QUOTE, HALT = int(Kind.TRADE), int(Kind.QUOTE), int(Kind.HALT)
_COLUMNS = EVENT_SCHEMA.names
_CLEAR = pl.col("rule") == 0
_PRICE, _SIZE, _TS = pl.col("price_ticks"), pl.col("size"), pl.col("ts_event_ns")
_IS_TRADE, _IS_QUOTE = pl.col("kind") == TRADE, pl.col("kind") == QUOTE
_NAMED = pl.col("side") != int(Side.NONE)

Windows = list[tuple[int, int]]


def clean_polars(bronze_dir: Path, out_dir: Path) -> dict[str, int]:
    """Clean every partition of `bronze_dir` into the empty folder `out_dir`; gives the quarantined rows by rule.

    Raises InputError where a partition holds anything but quotes, trades and halts: the other rules have no twin here.
    """
    instruments, counts = load_instruments(bronze_dir), dict.fromkeys(RULES, 0)
    for partition in list_partitions(bronze_dir, "events.parquet"):
        path = partition.folder(bronze_dir) / "events.parquet"
        events = pl.read_parquet(path, hive_partitioning=False).sort("sequence")
        others = set(events["kind"].unique()) - {TRADE, QUOTE, HALT}
        if others:
            raise InputError(
                f"{path}: events of kind {min(others)}; the Polars rules know quotes, trades and halts only"
            )
        rules, instrument = default_rules().of(partition.venue), instruments[partition.instrument_id]
        windows = (instrument.session_ns(partition.date), rules.auctions_ns(instrument, partition.date))
        judged = _judge(events, rules, *windows).sort("ts_event_ns", "sequence")
        names = pl.DataFrame({"rule": pl.Series(RULE_NUMBER.values(), dtype=pl.Int16), "name": list(RULES)})
        caught = judged.filter(~_CLEAR).join(names, on="rule", how="left", maintain_order="left")
        for name, rows in caught["name"].value_counts().iter_rows():
            counts[name] += rows
        for folder, frame in (
            (partition.folder(out_dir), judged.filter(_CLEAR).select(_COLUMNS)),
            (partition.folder(out_dir / "quarantine"), caught.select(*_COLUMNS, pl.col("name").alias("rule"))),
        ):
            folder.mkdir(parents=True)
            frame.write_parquet(folder / "events.parquet", compression="zstd", compression_level=3)
    return counts


def _judge(events: pl.DataFrame, rules: VenueRules, windows: Windows, auctions: Windows) -> pl.DataFrame:
    limits, frame = rules.limits, events.with_columns(rule=pl.lit(0, pl.Int16))
    frame = _judge_time(frame, rules, windows, auctions)
    marks = _row_marks(limits)
    frame = frame.with_columns(
        rule=pl.coalesce(
            pl.when(~_CLEAR).then(pl.col("rule")),
            *(pl.when(mark).then(RULE_NUMBER[name]) for name, mark in marks.items() if name in rules.on),
            0,
        ).cast(pl.Int16)
    )
    if "halted" in rules.on and {HALT, QUOTE} <= set(events["kind"].unique()):
        frame = _marked(frame, "halted", _halted())
    if "size_outlier" in rules.on:
        for population in (_IS_TRADE, _IS_QUOTE):
            frame = _size_outliers(frame, population, limits)
    frame = _judge_prices(frame, rules)
    if "stale_repeat" in rules.on:
        frame = frame.with_columns(halts=(pl.col("kind") == HALT).cum_sum())
        quotes = frame.filter(_CLEAR & _IS_QUOTE & _NAMED)
        same = (_PRICE == _PRICE.shift(1)) & (_SIZE == _SIZE.shift(1))
        stale = quotes.with_columns(stale=same.over("side", "halts")).filter("stale")["sequence"]
        frame = _marked(frame, "stale_repeat", pl.col("sequence").is_in(stale.implode())).drop("halts")
    return frame


def _marked(frame: pl.DataFrame, rule: str, condition: pl.Expr) -> pl.DataFrame:
    """Give the rule's number to rows that are clear so far and meet the condition."""
    caught = _CLEAR & condition.fill_null(False)
    return frame.with_columns(rule=pl.when(caught).then(RULE_NUMBER[rule]).otherwise("rule").cast(pl.Int16))


def _within(windows: Windows) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *(_TS.is_between(a, b, closed="left") for a, b in windows))


def _judge_time(frame: pl.DataFrame, rules: VenueRules, windows: Windows, auctions: Windows) -> pl.DataFrame:
    limits, on = rules.limits, rules.on
    names = [name for name in _COLUMNS if name != "sequence"]
    repeats = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in names)
    marks = {
        "exact_duplicate": repeats & ~(_IS_TRADE & (pl.col("order_id") == 0)),
        "auction": _within(auctions),
        "out_of_session": ~_within(windows),
    }
    for name, mark in marks.items():
        if name in on:
            frame = _marked(frame, name, mark)
    if "clock_skew" in on:
        skew = (frame["ts_event_ns"] - frame["ts_recv_ns"]).to_numpy()
        usual = max(0, int(np.median(skew)))
        frame = _marked(frame, "clock_skew", _TS - pl.col("ts_recv_ns") - usual > limits.clock_skew_ns)
    if "out_of_order" in on:
        passed = pl.when(_CLEAR).then(_TS)
        latest_of_five = passed.rolling_max(5, min_samples=5)
        limit = _TS - limits.backward_tolerance_ns
        ahead = ((latest_of_five.shift(-54) < limit) & (latest_of_five.shift(-104) < limit)).fill_null(False)
        frame = frame.with_columns(ahead=ahead)
        clock = pl.when(_CLEAR & ~pl.col("ahead")).then(_TS).cum_max().forward_fill().shift(1)
        behind = clock - _TS > limits.backward_tolerance_ns
        frame = _marked(frame, "out_of_order", pl.col("ahead") | behind.fill_null(False)).drop("ahead")
    return frame


def _row_marks(limits: CleanLimits) -> dict[str, pl.Expr]:
    """The rules on the row itself, in order of precedence."""

    def flagged(flags: int) -> pl.Expr:
        return (pl.col("flags") & flags) != 0

    sizeless = flagged(int(Flag.NO_SIZE))
    empties = _IS_QUOTE & _NAMED & (_PRICE == 0) & (_SIZE == 0) & ~sizeless
    priced = _IS_TRADE | (_IS_QUOTE & ~empties)
    conditions = sum(int(Flag[name]) for name in limits.trade_conditions)
    return {
        "no_side": _IS_QUOTE & ~_NAMED,
        "non_positive_price": priced & (_PRICE <= 0),
        "non_positive_size": priced & ((_SIZE < 0) | ((_SIZE == 0) & ~sizeless)),
        "off_tick": flagged(int(Flag.SUB_TICK)) & (pl.lit(limits.off_tick_trades) | ~_IS_TRADE),
        "suspicious": flagged(int(Flag.SUSPICIOUS)),
        "trade_condition": _IS_TRADE & (pl.col("order_id") == 0) & flagged(conditions),
    }


def _halted() -> pl.Expr:
    is_halt = (pl.col("kind") == HALT) & (pl.col("rule") != RULE_NUMBER["exact_duplicate"])
    state = pl.when(is_halt).then(_PRICE != 1).when(_IS_QUOTE & _CLEAR).then(False)
    return _IS_TRADE & (pl.col("order_id") == 0) & state.forward_fill()


def _size_outliers(frame: pl.DataFrame, population: pl.Expr, limits: CleanLimits) -> pl.DataFrame:
    sized = population & (_SIZE > 0) & ((pl.col("flags") & int(Flag.NO_SIZE)) == 0)
    sizes = frame.filter(_CLEAR & sized)["size"]
    if len(sizes) < limits.size_min_rows:
        return frame
    usual = int(sizes.sort()[len(sizes) * 99 // 100])
    return _marked(frame, "size_outlier", sized & (_SIZE > min(usual * limits.size_multiple, 2**63 - 1)))


def _judge_prices(frame: pl.DataFrame, rules: VenueRules) -> pl.DataFrame:
    """Outliers and crossed or locked quotes; all rows of a run of equal prices share the first one's verdict."""
    series = pl.when(_IS_TRADE).then(1).when(_IS_QUOTE & (pl.col("side") == int(Side.BUY))).then(2)
    series = series.when(_IS_QUOTE & _NAMED).then(3)
    frame = frame.with_columns(series=pl.when(_CLEAR).then(series).cast(pl.Int8))
    changed = (_PRICE != _PRICE.shift(1)).fill_null(True).over("series") & pl.col("series").is_not_null()
    frame = frame.with_columns(changed=changed)
    changes = frame.filter("changed").with_columns(outlier=_outlier(rules.limits).over("series"))
    if "outlier_price" in rules.on:
        frame = frame.join(changes.select("sequence", "outlier"), on="sequence", how="left", maintain_order="left")
        in_bad_run = pl.col("outlier").forward_fill().over("series") & pl.col("series").is_not_null()
        frame = _marked(frame, "outlier_price", in_bad_run).drop("outlier")
        changes = changes.filter(~pl.col("outlier"))
    quotes = changes.filter(pl.col("series") > 1)
    graces = {"crossed_book": rules.limits.crossed_grace_ns, "locked_book": rules.limits.locked_grace_ns}
    for name, grace_ns in graces.items():
        if name in rules.on:
            frame = _mark_stretches(frame, _stretches(quotes, name == "locked_book", grace_ns), name)
    return frame.drop("series", "changed")


def _outlier(limits: CleanLimits) -> pl.Expr:
    """Whether a price stands off the trimmed means of the changed prices before and after it in its series."""
    price = pl.when(_PRICE > 0).then(_PRICE)
    mean_before, deviation_before = _trimmed(price, limits)
    after = [value.reverse() for value in _trimmed(price.reverse(), limits)]
    mean_after, deviation_after = after
    deviation = pl.min_horizontal(deviation_before, deviation_after)
    gamma = pl.max_horizontal(
        pl.lit(float(limits.outlier_gamma_ticks)),
        pl.coalesce(mean_before, mean_after) * (limits.outlier_gamma_bps * 1e-4),
    )
    bound = deviation * limits.outlier_sds + gamma
    off_before = price - pl.coalesce(mean_before, mean_after)
    off_after = price - pl.coalesce(mean_after, mean_before)
    above, below = (off_before > bound) & (off_after > bound), (off_before < -bound) & (off_after < -bound)
    return (above | below).fill_null(False)


def _trimmed(price: pl.Expr, limits: CleanLimits) -> tuple[pl.Expr, pl.Expr]:
    """Mean and deviation of the prices before each row, without the highest and the lowest; null where too few."""
    window, before = limits.outlier_neighbours, price.shift(1)

    def rolled(what: str, values: pl.Expr) -> pl.Expr:
        return getattr(values, f"rolling_{what}")(window, min_samples=1)

    high, low = rolled("max", before), rolled("min", before)
    count = rolled("sum", before.is_not_null().cast(pl.Int64)) - 2
    enough = count >= limits.outlier_min_neighbours - 2
    mean = pl.when(enough).then((rolled("sum", before) - high - low) / count)
    squares = rolled("sum", before * before) - high * high - low * low
    return mean, (squares / count - mean * mean).clip(0.0).sqrt()


def _stretches(quotes: pl.DataFrame, locked: bool, grace_ns: int) -> pl.DataFrame:
    """`sequence` of the first quote of each stretch beyond the grace, `until`, `offender`, and `stands` before it."""
    bid, ask = (pl.when(pl.col("series") == n).then(_PRICE).forward_fill() for n in (2, 3))
    quotes = quotes.with_columns(bid=bid, ask=ask)
    both = (pl.col("bid") > 0) & (pl.col("ask") > 0)
    wrong = both & (pl.col("bid") == pl.col("ask") if locked else pl.col("bid") > pl.col("ask"))
    quotes = quotes.with_columns(wrong=wrong.fill_null(False))
    own = pl.when(pl.col("series") == 2).then(pl.col("bid").shift(1)).otherwise(pl.col("ask").shift(1))
    turns = (pl.col("wrong") != pl.col("wrong").shift(1)).fill_null(pl.col("wrong"))
    turning = quotes.with_columns(stands=own.fill_null(0), turns=turns).filter("turns")
    ends = turning.with_columns(until=pl.col("sequence").shift(-1), end_ns=_TS.shift(-1)).filter("wrong")
    lasted = (pl.col("end_ns") - _TS > grace_ns).fill_null(True)
    return ends.filter(lasted).select(
        "sequence", pl.col("until").fill_null(2**63 - 1), pl.col("series").alias("offender"), "stands"
    )


def _mark_stretches(frame: pl.DataFrame, stretches: pl.DataFrame, rule: str) -> pl.DataFrame:
    if stretches.is_empty():
        return frame
    carried = frame.join(stretches, on="sequence", how="left", maintain_order="left")
    carried = carried.with_columns(pl.col("until", "offender", "stands").forward_fill())
    beyond = pl.when(pl.col("series") == 2).then(_PRICE >= pl.col("stands")).otherwise(_PRICE <= pl.col("stands"))
    crosses = (pl.col("stands") > 0) & (_PRICE > 0) & beyond
    inside = (pl.col("series") > 1) & (pl.col("sequence") < pl.col("until"))
    marked = _marked(carried, rule, inside & ((pl.col("series") == pl.col("offender")) | crosses))
    return marked.drop("until", "offender", "stands")
