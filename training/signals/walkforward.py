"""Walk-forward training: a model for each stretch of days, fitted on earlier days only, finished folds kept."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import InputError
from training.evaluation.splits import Splits, embargo_ns
from training.signals.chunks import ChunkBatches, Rows, Scales, fit_and_validation, lay_out, measure_scales
from training.signals.config import NS, SignalConfig
from training.signals.dataset import SignalDay, lookback_ns
from training.tracking import Tracker


@dataclass(frozen=True)
class Fold:
    """One model: what it may learn from and which days it forecasts."""

    number: int
    train_days: tuple[str, ...]
    forecast_days: tuple[str, ...]

    @property
    def name(self) -> str:
        """Stem of the fold's files: the first day that it forecasts."""
        return f"fold-{self.forecast_days[0]}"


@dataclass(frozen=True)
class FoldModel:
    """A finished fold; `record` is what stands in its JSON."""

    fold: Fold
    onnx: bytes
    record: dict[str, Any]

    @property
    def version(self) -> str:
        """First 12 hex digits of the model's sha256."""
        return hashlib.sha256(self.onnx).hexdigest()[:12]


def plan_folds(splits: Splits, min_train_days: int, refit_days: int) -> list[Fold]:
    """Folds in time order.

    A refit before every `refit_days`-th day that has `min_train_days` earlier ones; the last before the first test
    day, learning from all training days, and it forecasts every test day. Raises InputError where there are fewer
    training days than `min_train_days`.
    """
    days, tests_from = splits.days, len(splits.train_days)
    if tests_from < min_train_days:
        raise InputError(
            f"{tests_from} training days before {splits.test_days[0]}, fewer than min_train_days {min_train_days}; "
            "widen --from/--to or hold out fewer test days"
        )
    starts = [*range(min_train_days, tests_from, refit_days), tests_from]
    ends = [*starts[1:], len(days)]
    return [
        Fold(number, days[:start], days[start:end])
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def finish_fold(
    fold: Fold,
    days: Sequence[SignalDay],
    last_decision_ns: int,
    folder: Path,
    config: SignalConfig,
    tracker: Tracker,
    on_epoch: Callable[[int], None],
) -> FoldModel | None:
    """The fold's model: the finished one in `folder` where it is of the same data and settings, else trained and kept.

    `days` are the training days; samples that decide after `last_decision_ns` are left out (embargo). None where
    fewer than `config.min_train_rows` rows remain to fit.
    """
    rows = lay_out(days, last_decision_ns)
    key = _fold_key(fold, rows, config)
    kept = _kept(folder, fold, key)
    if kept is not None:
        return kept
    embargo = embargo_ns(lookback_ns(config.window), config.horizons_s[-1] * NS)
    fit, validation = fit_and_validation(rows, config.validation_share, embargo)
    if int(fit.sum()) < config.min_train_rows or not validation.any():
        return None
    scales = measure_scales(rows, fit)
    onnx, weights, record = _train(fold, rows, (fit, validation), scales, folder, config, tracker, on_epoch)
    model = FoldModel(fold, onnx, record | {"key": key, "onnx_sha256": hashlib.sha256(onnx).hexdigest()})
    _replace(folder / f"{fold.name}.onnx", onnx)
    _replace(folder / f"{fold.name}.pt", weights)
    # The record is written last: a fold is finished when its record stands.
    _replace(folder / f"{fold.name}.json", (json.dumps(model.record, indent=1, sort_keys=True) + "\n").encode())
    return model


def _train(
    fold: Fold,
    rows: Rows,
    masks: tuple[np.ndarray, np.ndarray],
    scales: Scales,
    folder: Path,
    config: SignalConfig,
    tracker: Tracker,
    on_epoch: Callable[[int], None],
) -> tuple[bytes, bytes, dict[str, Any]]:
    """ONNX bytes, weights and record of a new model."""
    import torch

    from training.signals.export import onnx_bytes
    from training.signals.module import SignalModule, SignalNet, calibrate

    fit, validation = masks
    train = ChunkBatches(rows, fit, scales, config, shuffle_seed=config.seed)
    check = ChunkBatches(rows, validation, scales, config, shuffle_seed=None)
    with single_threaded_torch(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = SignalNet(scales.mean, scales.scale, scales.target_bps, config)
        module = SignalModule(net, config, steps=len(train) * config.max_epochs)
        with tempfile.TemporaryDirectory(prefix=f".{fold.name}-", dir=folder) as scratch:
            history = _fit(module, train, check, Path(scratch), config, fold, tracker, on_epoch)
        longest_chunks = -(-config.horizons_s[-1] // config.chunk_rows)
        gain = calibrate(net, check, chunks_per_block=4 * longest_chunks)
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        record = {
            "train_days": list(fold.train_days), "forecast_days": list(fold.forecast_days),
            "rows_fit": int(fit.sum()), "rows_validation": int(validation.sum()),
            "epochs": history, "gain": [round(float(g), 6) for g in gain],
        }  # fmt: skip
        return onnx_bytes(net, config.window), buffer.getvalue(), record


def _fit(
    module: Any,
    train: ChunkBatches,
    check: ChunkBatches,
    scratch: Path,
    config: SignalConfig,
    fold: Fold,
    tracker: Tracker,
    on_epoch: Callable[[int], None],
) -> list[dict[str, float]]:
    """Train `module` in place to its best epoch on the validation tail; losses by epoch."""
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

    history: list[dict[str, float]] = []

    class Report(Callback):
        """Keeps, logs and reports each epoch's losses."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            losses = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss")}
            history.append(losses)
            tracker.log({f"{fold.name}/{name}": value for name, value in losses.items()}, step=len(history))
            on_epoch(len(history))

    best = ModelCheckpoint(dirpath=scratch, filename="best", monitor="val_loss", mode="min", save_top_k=1)
    stop = EarlyStopping(monitor="val_loss", mode="min", patience=config.patience, check_finite=True)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=config.max_epochs, callbacks=[stop, best, Report()], logger=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, deterministic=True,
            gradient_clip_val=1.0, default_root_dir=str(scratch),
        )  # fmt: skip
        trainer.fit(module, train_dataloaders=train, val_dataloaders=check)
    if not best.best_model_path:
        seen = history[-1] if history else "no epoch"
        raise InputError(f"{fold.name}: the loss is not finite ({seen}); lower learning_rate {config.learning_rate}")
    state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
    module.load_state_dict(state)
    return history


@contextmanager
def single_threaded_torch(threads: int) -> Iterator[None]:
    """Run torch on `threads` threads and with deterministic algorithms, and put both back afterwards."""
    import torch

    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice (workers, GPUs, tips) off the screen."""
    import logging
    import warnings

    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [item.level for item in loggers]
    for item in loggers:
        item.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for item, level in zip(loggers, levels, strict=True):
            item.setLevel(level)


def _fold_key(fold: Fold, rows: Rows, config: SignalConfig) -> str:
    """sha256 of all that decides the fold's model."""
    alone = replace(config, bootstrap_draws=1999, refit_days=1, test_days=1, min_train_days=1)
    digest = hashlib.sha256(json.dumps([alone.as_content(), fold.train_days], sort_keys=True).encode())
    for array in (rows.ts_ns, rows.features, rows.moves_bps, rows.instrument):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _kept(folder: Path, fold: Fold, key: str) -> FoldModel | None:
    try:
        record = json.loads((folder / f"{fold.name}.json").read_text())
        onnx = (folder / f"{fold.name}.onnx").read_bytes()
    except (OSError, ValueError):
        return None
    # A fold that forecasts other days than now has the same key but another record.
    same = record.get("key") == key and record.get("forecast_days") == list(fold.forecast_days)
    same = same and record.get("onnx_sha256") == hashlib.sha256(onnx).hexdigest()
    return FoldModel(fold, onnx, record) if same else None


def _replace(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
