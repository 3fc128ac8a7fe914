"""What every policy of an evaluation meets alike: test days, parent orders, settings, and the embargo before them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.ticks.instruments import NS
from training.evaluation.config import EvaluationConfig
from training.evaluation.splits import Splits, embargo_ns, split_days

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay


@dataclass(frozen=True)
class Scene:
    """Test days and the parent orders on them; `parents` PARENT_DTYPE (N,), `day` being the index into `days`."""

    splits: Splits
    days: "list[MarketDay]"
    validation: "list[MarketDay]"
    calibration: "dict[str, list[MarketDay]]"  # by instrument: last training days
    parents: NDArray[np.void]
    execution: "ExecutionConfig"
    embargo: dict[str, Any]
    impact_missing: str = ""  # why the test days carry no calibrated impact; empty where they do


def open_scene(
    features_dir: Path, forecasts_dir: Path | None, bundles: "Mapping[str, Bundle]", config: EvaluationConfig
) -> Scene:
    """Load the test days and lay the grid of parents on them, a buy and a sell at each start.

    Parents that start within the embargo after the last training session are left out and counted. Raises InputError
    where a bundle was trained on a test day, no day is left, or no parent fits.
    """
    from training.execution.parents import parent_grid
    from training.market.day import load_market_days

    partitions = [p for p in list_partitions(features_dir, "features.parquet") if p.date not in config.left_out]
    splits = split_days(partitions, config.test_days, config.validation_days, all_test=config.untuned)
    for name, bundle in bundles.items():
        seen = sorted(set(bundle.metadata["training_days"]) & set(splits.test_days))
        if seen:
            raise InputError(f"{name}: {bundle.folder} was trained on test day {seen[0]}; test on later days")
    execution = execution_of(bundles, config)
    tested = [p for p in partitions if p.date in splits.test_days]
    days, impact_missing = _with_impact(features_dir, forecasts_dir, tested)
    earlier = _last_training_days(partitions, splits, config.calibration_days)
    calibration = {key: load_market_days(features_dir, None, chosen) for key, chosen in earlier.items()}
    for key in [] if config.untuned else sorted({day.partition.instrument_id for day in days} - set(calibration)):
        raise InputError(f"{key} has no training day before its test days: leave it out or widen --from/--to")
    # An instrument that did not trade on the last training days validates on its own last ones.
    judging = _last_training_days(partitions, splits, len(splits.validation_days))
    validation, _ = _with_impact(features_dir, forecasts_dir, sorted(sum(judging.values(), [])))
    grid = parent_grid(days, execution)
    embargo = _embargo(days, calibration, execution, config)
    embargo |= _validation_gap(validation, splits, partitions, embargo["embargo_ns"])
    kept = grid["start_ns"] >= embargo["train_end_ns"] + embargo["embargo_ns"]
    if not kept.any():
        raise InputError(
            f"all {len(grid)} parents start within the embargo of {embargo['embargo_ns'] / NS:g} s after training; "
            "take more test days"
        )
    embargo["parents_left_out"] = int((~kept).sum())
    return Scene(splits, days, validation, calibration, grid[kept], execution, embargo, impact_missing)


def _with_impact(
    features_dir: Path, forecasts_dir: Path | None, partitions: Sequence[Partition]
) -> "tuple[list[MarketDay], str]":
    """Days with the impact calibrated on the days before each, and why they carry none, where it cannot be known."""
    from training.market.day import load_market_days

    try:
        return load_market_days(features_dir, forecasts_dir, partitions, impact=True), ""
    except InputError as error:  # too few trades before it; a day that cannot be read is refused again below
        return load_market_days(features_dir, forecasts_dir, partitions), str(error)


def execution_of(bundles: "Mapping[str, Bundle]", config: EvaluationConfig) -> "ExecutionConfig":
    """How parents are made: as the configuration says, else as the agent was trained for, else by default.

    The headline is replay with conservative fills and the instruments' own latency, unless the configuration names
    another market, whatever the agent was raised in. Raises InputError for zero latency: it is a sensitivity.
    """
    from training.execution.config import ExecutionConfig

    if config.execution:
        asked = ExecutionConfig.from_dict(dict(config.execution))
        if asked.latency_ns == 0:
            raise InputError("evaluation execution latency_ns 0: zero latency is a sensitivity, never the headline")
        return asked
    if config.agent in bundles:
        trained = ExecutionConfig.from_dict(dict(bundles[config.agent].metadata["execution"]))
        return replace(trained, world="replay", fill_model="conservative", latency_ns=trained.latency_ns or None)
    return ExecutionConfig()


def _last_training_days(partitions: Sequence[Partition], splits: Splits, count: int) -> dict[str, list[Partition]]:
    found: dict[str, list[Partition]] = {}
    for item in partitions:
        if item.date in splits.train_days:
            found.setdefault(item.instrument_id, []).append(item)
    return {key: items[-count:] for key, items in found.items()}


def _embargo(
    days: "Sequence[MarketDay]",
    calibration: "Mapping[str, Sequence[MarketDay]]",
    execution: "ExecutionConfig",
    config: EvaluationConfig,
) -> dict[str, Any]:
    from feature_repo.pipeline.kernels import FEATURE_WINDOW_NS

    horizons = [0, *(horizon for day in days for horizon in day.horizons_s)]
    label_s = max(config.longest_label_s, execution.horizon_s, *horizons)
    length = embargo_ns(int(FEATURE_WINDOW_NS), label_s * NS)
    train_end = max((closes for group in calibration.values() for day in group for _, closes in day.windows), default=0)
    test_start = min(opens for day in days for opens, _ in day.windows)
    return {
        "embargo_ns": length,
        "gap_ns": test_start - train_end,
        "train_end_ns": train_end,
        "embargo_held": bool(test_start - train_end >= length),
    }


def _validation_gap(
    validation: "Sequence[MarketDay]", splits: Splits, partitions: Sequence[Partition], length: int
) -> dict[str, Any]:
    """Time between the last teaching session and the first validation session; None where one day does both."""
    known = {day.partition.instrument_id: day.instrument for day in validation}
    teaching = [
        known[item.instrument_id].session_ns(item.date)[-1][1]
        for item in partitions
        if item.date in splits.teaching_days and item.instrument_id in known
    ]
    if not teaching or splits.teaching_days == splits.validation_days:
        return {"validation_gap_ns": None, "validation_embargo_held": False}
    gap = min(opens for day in validation for opens, _ in day.windows) - max(teaching)
    return {"validation_gap_ns": gap, "validation_embargo_held": bool(gap >= length)}


def participations(scene: Scene) -> NDArray[np.float64]:
    """Each parent's lots as a share of what the market traded within its horizon, (N,); infinite where nothing did."""
    shares = np.zeros(len(scene.parents))
    for index, day in enumerate(scene.days):
        here = scene.parents["day"] == index
        chosen = scene.parents[here]
        total = np.concatenate([[0], np.cumsum(day.book.trade_sz.astype(np.int64))])
        ends = chosen["start_ns"] + chosen["horizon_ns"]
        first, last = (np.searchsorted(day.book.ts_ns, at, side="right") for at in (chosen["start_ns"], ends))
        with np.errstate(divide="ignore"):
            shares[here] = chosen["lots"] / (total[last] - total[first])
    return shares


def liquidity(scene: Scene) -> NDArray[np.float64]:
    """Mean displayed lots at the two best prices when each parent arrived, over the parent's lots, (N,)."""
    shown = np.zeros(len(scene.parents))
    for index, day in enumerate(scene.days):
        here = scene.parents["day"] == index
        row = np.searchsorted(day.book.ts_ns, scene.parents["start_ns"][here], side="right") - 1
        best = day.book.bid_sz[row, 0].astype(np.float64) + day.book.ask_sz[row, 0]
        shown[here] = 0.5 * best / scene.parents["lots"][here]
    return shown


def local_minutes(scene: Scene) -> NDArray[np.int64]:
    """Minute of the venue's local day at which each parent arrived, (N,) int64."""
    minutes = []
    for parent in scene.parents:
        zone = ZoneInfo(scene.days[int(parent["day"])].instrument.timezone)
        local = datetime.fromtimestamp(int(parent["start_ns"]) // NS, UTC).astimezone(zone)
        minutes.append(60 * local.hour + local.minute)
    return np.array(minutes, np.int64)


def data_hashes(features_dir: Path, forecasts_dir: Path | None, days: "Sequence[MarketDay]") -> dict[str, str]:
    """sha256 over the test days' books, features and forecasts, one figure for each instrument and date."""
    found = {}
    for day in days:
        digest = hashlib.sha256()
        files = [(features_dir, "book.parquet"), (features_dir, "features.parquet")]
        files += [(forecasts_dir, "forecasts.parquet")] if forecasts_dir is not None else []
        for root, name in files:
            with (day.partition.folder(root) / name).open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        found[f"{day.partition.instrument_id} {day.partition.date}"] = digest.hexdigest()
    return found
