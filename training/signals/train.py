"""The train_signal stage: features in, walk-forward forecasts and the model that serves out."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import Instrument, load_instruments
from training.evaluation.splits import embargo_ns, last_decision_ns, split_days
from training.signals.config import NS, STEP_NS, SignalConfig
from training.signals.dataset import SignalDay, feature_names, load_day, lookback_ns
from training.signals.export import INPUT, OUTPUT, Forecaster
from training.signals.skill import measure_skill
from training.signals.walkforward import Fold, FoldModel, finish_fold, plan_folds
from training.tracking import Tracker, tracking_run

ROW_GROUP_ROWS = 65_536
_FOLD_UNITS = 100  # progress units of one fold


def train_signal(
    features_dir: Path, out_dir: Path, config: SignalConfig, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train walk-forward on a features dataset and write forecasts, `signal.onnx`, its spec and its measured skill.

    A forecast of a day comes from a model that saw earlier days only. Folds that an interrupted run has finished in
    `out_dir` are not trained again. Returns the stage's summary. Raises InputError where there are too few days or
    rows, or where the features cannot be read.
    """
    partitions = list_partitions(features_dir, "features.parquet")
    splits = split_days(partitions, config.test_days)
    instruments = load_instruments(features_dir)
    folds = plan_folds(splits, config.min_train_days, config.refit_days)
    days = _load(features_dir, partitions, instruments, config)
    checkpoints = out_dir / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    _sweep(checkpoints)
    with tracking_run(
        config.tracking_uri, config.experiment, f"signal-{splits.test_days[0]}", config.as_content()
    ) as tracker:
        models = _train_folds(folds, days, instruments, checkpoints, config, tracker, progress)
        forecasts = {day.partition: _forecast(day, models, config) for day in days}
        for day in days:
            write_forecasts(day, *forecasts[day.partition], out_dir, config.horizons_s)
        metrics = _measure(days, forecasts, splits.test_days, config)
        for horizon, skill in metrics["skill"].items():
            tracker.log({f"r2_{horizon}s": skill["r2"], f"ic_{horizon}s": skill["ic"]}, step=0)
    last = models[-1]
    (out_dir / "signal.onnx").write_bytes(last.onnx)
    _write_json(out_dir / "signal_spec.json", _spec(last, config))
    records = [
        {"model_version": m.version} | {k: v for k, v in m.record.items() if k not in ("key", "onnx_sha256")}
        for m in models
    ]
    _write_json(out_dir / "metrics.json", {"folds": records, "config": config.as_content()} | metrics)
    forecast_days = {d for model in models for d in model.fold.forecast_days}
    return {
        "folds": len(models),
        "days_forecast": len(forecast_days),
        "days_missing": len(set(splits.days) - forecast_days),
        "horizons_s": list(config.horizons_s),
        "skill": {
            h: {k: s[k] for k in ("r2", "ci_low", "ci_high", "established")} for h, s in metrics["skill"].items()
        },
        "model_version": last.version,
    }


def _load(
    features_dir: Path, partitions: Sequence[Partition], instruments: Mapping[str, Instrument], config: SignalConfig
) -> list[SignalDay]:
    """Every partition, by date and then instrument."""
    days = []
    for item in sorted(partitions, key=lambda p: (p.date, p.instrument_id)):
        instrument = instruments.get(item.instrument_id)
        if instrument is None:
            raise InputError(f"{features_dir}: {item.instrument_id} is not in instruments.json; run ingest again")
        days.append(load_day(features_dir, item, instrument, config.horizons_s, config.window))
    return days


def _train_folds(
    folds: Sequence[Fold],
    days: Sequence[SignalDay],
    instruments: Mapping[str, Instrument],
    checkpoints: Path,
    config: SignalConfig,
    tracker: Tracker,
    progress: Progress,
) -> list[FoldModel]:
    """Models in time order; a fold with too little to learn from has none, but the last must have one."""
    embargo = embargo_ns(lookback_ns(config.window), config.horizons_s[-1] * NS)
    total = len(folds) * _FOLD_UNITS
    models = []
    for fold in folds:
        seen = [day for day in days if day.partition.date in set(fold.train_days)]
        limit = last_decision_ns([d.partition for d in days], instruments, fold.forecast_days[0], embargo)

        def report(epoch: int, done: int = fold.number * _FOLD_UNITS) -> None:
            progress(done + _FOLD_UNITS * epoch // config.max_epochs, total, "% of a fold")

        model = finish_fold(fold, seen, limit, checkpoints, config, tracker, report)
        if model is not None:
            models.append(model)
        progress((fold.number + 1) * _FOLD_UNITS, total, "% of a fold")
    if not models or models[-1].fold != folds[-1]:
        last = folds[-1]
        raise InputError(
            f"fewer than {config.min_train_rows} usable feature rows on {last.train_days[0]} to {last.train_days[-1]}: "
            "too few to train signals on; widen --from/--to or check the features"
        )
    return models


def _forecast(
    day: SignalDay, models: Sequence[FoldModel], config: SignalConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str]:
    """Forecasts (T, H) bps, which rows have one (T,), and the model's version ("" where the day has no model)."""
    found = np.zeros((len(day.ts_ns), len(config.horizons_s)), dtype=np.float32)
    model = next((m for m in models if day.partition.date in m.fold.forecast_days), None)
    if model is None:
        return found, np.zeros(len(day.ts_ns), dtype=bool), ""
    rows = np.flatnonzero(day.forecastable)
    if len(rows):
        found[rows] = Forecaster(model.onnx, config.threads).forecast_rows(day.features, rows)
    return found, day.forecastable, model.version


def write_forecasts(
    day: SignalDay,
    forecasts: NDArray[np.float32],
    known: NDArray[np.bool_],
    version: str,
    out_dir: Path,
    horizons_s: Sequence[int],
) -> None:
    """`forecasts.parquet` of a day: forecasts (T, H) bps, and which rows have one (T,)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = len(day.ts_ns)
    columns: dict[str, Any] = {
        "event_timestamp": pa.array(day.ts_ns // 1000, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "ts_ns": pa.array(day.ts_ns, pa.int64()),
        "instrument_id": pa.array([day.partition.instrument_id] * rows, pa.string()),
    }
    for column, horizon in enumerate(horizons_s):
        columns[f"forecast_{horizon}s_bps"] = pa.array(forecasts[:, column], pa.float32())
    columns["forecast_missing"] = pa.array((~known).astype(np.int8), pa.int8())
    columns["model_version"] = pa.array([version] * rows, pa.string())
    folder = day.partition.folder(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "forecasts.parquet", compression="zstd", row_group_size=ROW_GROUP_ROWS)


def _measure(
    days: Sequence[SignalDay],
    forecasts: Mapping[Partition, tuple[NDArray[np.float32], NDArray[np.bool_], str]],
    test_days: Sequence[str],
    config: SignalConfig,
) -> dict[str, Any]:
    """Skill over all forecast days, by day, by instrument, and of the days before the test and the test days apart."""
    chosen = [day for day in days if forecasts[day.partition][1].any()]

    def skill_of(part: Sequence[SignalDay]) -> dict[str, Any]:
        masks = [forecasts[day.partition][1] for day in part]
        if not part:
            return {}
        rows = measure_skill(
            np.concatenate([forecasts[d.partition][0][m] for d, m in zip(part, masks, strict=True)]),
            np.concatenate([d.moves_bps[m] for d, m in zip(part, masks, strict=True)]),
            np.concatenate([d.ts_ns[m] for d, m in zip(part, masks, strict=True)]),
            np.random.default_rng(config.seed),
            config.bootstrap_draws,
        )
        return {str(h): row.as_json() for h, row in zip(config.horizons_s, rows, strict=True)}

    dates = sorted({d.partition.date for d in chosen})
    names = sorted({d.partition.instrument_id for d in chosen})
    return {
        "skill": skill_of(chosen),
        "skill_before_test": skill_of([d for d in chosen if d.partition.date not in test_days]),
        "skill_test": skill_of([d for d in chosen if d.partition.date in test_days]),
        "skill_by_day": {date: skill_of([d for d in chosen if d.partition.date == date]) for date in dates},
        "skill_by_instrument": {n: skill_of([d for d in chosen if d.partition.instrument_id == n]) for n in names},
    }


def _spec(model: FoldModel, config: SignalConfig) -> dict[str, Any]:
    """What a caller of `signal.onnx` must know."""
    return {
        "features": list(feature_names()),
        "horizons_s": list(config.horizons_s),
        "window": config.window,
        "step_ns": STEP_NS,
        "input": {"name": INPUT, "shape": ["N", config.window, len(feature_names())], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": ["N", len(config.horizons_s)], "dtype": "float32", "unit": "bps"},
        "normaliser": "inside the model: give raw features",
        "missing": "no forecast unless the last `window` rows are one step apart, of one session window, and all valid",
        "model_version": model.version,
        "train_days": list(model.fold.train_days),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _sweep(checkpoints: Path) -> None:
    """Remove what a killed run has left half done."""
    for item in checkpoints.glob(".fold-*"):
        shutil.rmtree(item)
    for item in checkpoints.glob("*.partial"):
        item.unlink()
