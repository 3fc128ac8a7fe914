"""Forecasts of a finished signal model for days that it never saw: a bundle's, applied to a features dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import load_instruments
from training.signals.dataset import feature_names, load_day
from training.signals.export import Forecaster
from training.signals.train import write_forecasts


def apply_signal(
    features_dir: Path,
    out_dir: Path,
    model: bytes,
    spec: Mapping[str, Any],
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `forecasts.parquet` of every day of a features dataset; days up to the model's last one are missing.

    `model` and `spec` are a bundle's `signal.onnx` and the spec in its metadata. Raises InputError where the spec is
    not whole, or the model reads other features than there are.
    """
    absent = [name for name in ("features", "horizons_s", "window", "model_version", "train_days") if name not in spec]
    if absent:
        raise InputError(f"signal spec without {absent[0]}: export the bundle again")
    if tuple(spec["features"]) != tuple(feature_names()):
        raise InputError(
            f"signal model reads {len(spec['features'])} features, these are others: export the bundle again"
        )
    forecaster, last_seen = Forecaster(model), max(spec["train_days"], default="")
    instruments, partitions = load_instruments(features_dir), list_partitions(features_dir, "features.parquet")
    for number, item in enumerate(partitions):
        progress(number, len(partitions), "days")
        if item.instrument_id not in instruments:
            raise InputError(f"{features_dir}: {item.instrument_id} is not in instruments.json; run ingest again")
        day = load_day(features_dir, item, instruments[item.instrument_id], spec["horizons_s"], spec["window"])
        found = np.zeros((len(day.ts_ns), len(spec["horizons_s"])), np.float32)
        fresh = item.date > last_seen
        rows = np.flatnonzero(day.forecastable) if fresh else np.zeros(0, np.int64)
        if len(rows):
            found[rows] = forecaster.forecast_rows(day.features, rows)
        known = day.forecastable & fresh
        write_forecasts(day, found, known, spec["model_version"] if fresh else "", out_dir, spec["horizons_s"])
    progress(len(partitions), len(partitions), "days")
    return {"days": len(partitions), "model_version": spec["model_version"], "last_seen": last_seen}
