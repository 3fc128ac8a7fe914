"""What the training of the signal model may be told: one frozen dataclass, and its two profiles."""

from dataclasses import asdict, dataclass
from typing import Any

from feature_repo.errors import InputError

NS = 1_000_000_000
STEP_NS = NS
"""Spacing of the feature grid."""


@dataclass(frozen=True)
class SignalConfig:
    """Settings of the signal model and of its walk-forward training; plain values, so that it goes into JSON as it is.

    Two runs with equal settings on equal data give equal forecasts and an equal `signal.onnx`.
    """

    horizons_s: tuple[int, ...] = (10, 30, 60)  # forecast horizons, seconds
    hidden: int = 24  # channels of each convolution
    blocks: int = 5  # dilated convolutions; the model looks back over 2**blocks grid seconds
    dropout: float = 0.0  # share of channels dropped in training
    learning_rate: float = 2e-3  # of AdamW, falling along a cosine to a twentieth over max_epochs
    weight_decay: float = 1e-2  # of AdamW
    max_epochs: int = 8  # passes over the training rows
    patience: int = 2  # epochs without a better validation loss before training stops
    batch_chunks: int = 32  # chunks in a batch
    chunk_rows: int = 64  # consecutive seconds forecast in one chunk
    max_train_chunks: int = 0  # chunks drawn (without replacement) in an epoch; 0: all of them
    huber_delta: float = 2.0  # standardised move beyond which the loss grows linearly (Huber 1964)
    clip_sigma: float = 6.0  # standardised features beyond this many deviations are clipped
    validation_share: float = 0.2  # last part of the training rows, in time, that decides when to stop
    min_train_days: int = 1  # a day is forecast from this many earlier days on
    refit_days: int = 1  # days between refits before the test days; the test days share one model
    min_train_rows: int = 500  # fewer usable rows train no model
    test_days: int = 1  # last days, forecast by a model that saw none of them
    bootstrap_draws: int = 1999  # of the interval around the out-of-sample skill
    seed: int = 0  # of weights, order of batches and the bootstrap
    threads: int = 1  # of torch and onnxruntime; another number may round differently
    tracking_uri: str | None = None  # MLflow, e.g. sqlite:///mlflow.db; None logs nothing
    experiment: str = "signals"  # MLflow experiment

    def __post_init__(self) -> None:
        """Refuse values that no training can follow; raises InputError with the value and its limit."""
        if not self.horizons_s or any(h < 1 for h in self.horizons_s):
            raise InputError(f"horizons_s {list(self.horizons_s)}: at least one horizon of 1 second or more is needed")
        if list(self.horizons_s) != sorted(set(self.horizons_s)):
            raise InputError(f"horizons_s {list(self.horizons_s)} must rise without repeats")
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"signal setting {name} is {value}: it must be from {low:g} to {high:g}")

    @property
    def window(self) -> int:
        """Grid rows that one forecast sees, L."""
        return 1 << self.blocks

    def as_content(self) -> dict[str, Any]:
        """The settings that decide the result: all but where metrics are logged."""
        values = asdict(self) | {"horizons_s": list(self.horizons_s)}
        return {name: value for name, value in values.items() if name not in ("tracking_uri", "experiment")}

    @staticmethod
    def quick() -> "SignalConfig":
        """The profile of `make nightly`: under a minute for eight days of one symbol."""
        return SignalConfig(max_epochs=6, refit_days=2)

    @staticmethod
    def full() -> "SignalConfig":
        """The profile of a real night: a wider model, refitted every day, trained until it stops getting better."""
        return SignalConfig(hidden=48, max_epochs=40, patience=5, learning_rate=1e-3, dropout=0.05)


_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("hidden", 1, 1024),
    ("blocks", 1, 10),
    ("dropout", 0.0, 0.9),
    ("learning_rate", 1e-8, 1.0),
    ("weight_decay", 0.0, 10.0),
    ("max_epochs", 1, 10_000),
    ("patience", 1, 10_000),
    ("batch_chunks", 1, 65_536),
    ("chunk_rows", 1, 65_536),
    ("max_train_chunks", 0, 2**31),
    ("huber_delta", 1e-3, 1e3),
    ("clip_sigma", 0.5, 1e3),
    ("validation_share", 0.05, 0.5),
    ("min_train_days", 1, 100_000),
    ("refit_days", 1, 100_000),
    ("min_train_rows", 1, 2**31),
    ("test_days", 1, 100_000),
    ("bootstrap_draws", 99, 1_000_000),
    ("seed", 0, 2**31),
    ("threads", 1, 1024),
)
