"""The rows of many days as batches of consecutive seconds, which is what a convolution trains on cheaply."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.splits import embargo_end_ns
from training.signals.config import SignalConfig
from training.signals.dataset import SignalDay

Bools = NDArray[np.bool_]
_SMALLEST_SCALE_BPS = 1e-3  # of a price that hardly ever moved


@dataclass(frozen=True)
class Rows:
    """Days laid end to end, R rows; a row that must not count has NaN moves."""

    ts_ns: NDArray[np.int64]  # (R,)
    features: NDArray[np.float32]  # (R, F)
    moves_bps: NDArray[np.float32]  # (R, H)
    instrument: NDArray[np.int64]  # (R,) from 0

    @property
    def usable(self) -> Bools:
        """Rows (R,) with at least one known move."""
        found: Bools = np.asarray(np.isfinite(self.moves_bps).any(axis=1))
        return found


@dataclass(frozen=True)
class Scales:
    """What standardises a fold, from the rows that fit it and no others."""

    mean: NDArray[np.float64]  # (F,)
    scale: NDArray[np.float64]  # (F,) 1 where a feature never varies
    target_bps: NDArray[np.float64]  # (H,) typical move over all instruments
    instrument_bps: NDArray[np.float64]  # (I, H) typical move of each


def lay_out(days: Sequence[SignalDay], last_decision_ns: int) -> Rows:
    """Rows of `days` in their order; those without a forecast, or deciding after `last_decision_ns`, do not count."""
    ids = sorted({day.partition.instrument_id for day in days})
    moves = []
    for day in days:
        counts = day.forecastable & (day.ts_ns <= last_decision_ns)
        moves.append(np.where(counts[:, None], day.moves_bps, np.float32(np.nan)))
    return Rows(
        ts_ns=np.concatenate([day.ts_ns for day in days]),
        features=np.concatenate([day.features for day in days]),
        moves_bps=np.concatenate(moves),
        instrument=np.concatenate([np.full(len(d.ts_ns), ids.index(d.partition.instrument_id)) for d in days]),
    )


def fit_and_validation(rows: Rows, share: float, embargo_ns: int) -> tuple[Bools, Bools]:
    """Rows (R,) to fit and rows to validate on: the last `share` in time validates, after an embargo."""
    usable = rows.usable
    if not usable.any():
        return usable, usable
    cut = int(np.quantile(rows.ts_ns[usable], 1.0 - share, method="higher"))
    return usable & (rows.ts_ns <= embargo_end_ns(cut, embargo_ns)), usable & (rows.ts_ns >= cut)


def measure_scales(rows: Rows, fit: Bools) -> Scales:
    """Means and deviations over the rows of `fit`, every instrument weighing the same."""
    count = int(rows.instrument.max()) + 1
    means, squares, moves = [], [], np.full((count, rows.moves_bps.shape[1]), np.nan)
    for number in range(count):
        chosen = fit & (rows.instrument == number)
        if not chosen.any():
            continue
        features = rows.features[chosen].astype(np.float64)
        means.append(features.mean(axis=0))
        squares.append((features * features).mean(axis=0))
        known = rows.moves_bps[chosen].astype(np.float64)
        seen = np.isfinite(known).sum(axis=0)
        moves[number] = np.sqrt(np.nansum(known * known, axis=0) / np.maximum(seen, 1))
    mean = np.mean(means, axis=0)
    spread = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean * mean, 0.0))
    typical = np.maximum(np.nanmean(moves, axis=0), _SMALLEST_SCALE_BPS)
    # An instrument without rows to fit has none that count either: any scale will do for it.
    own = np.maximum(np.where(np.isfinite(moves), moves, typical), _SMALLEST_SCALE_BPS)
    varies = spread > 1e-6 * (1.0 + np.abs(mean))
    return Scales(mean=mean, scale=np.where(varies, spread, 1.0), target_bps=typical, instrument_bps=own)


class ChunkBatches:
    """Batches of chunks as torch tensors, in time order or shuffled anew, by seed and epoch, at each pass.

    A batch is `(features (B, L-1+C, F) raw, targets (B, C, H), ratios (B, C, H))`; see `SignalModule`.
    """

    def __init__(
        self, rows: Rows, counts: Bools, scales: Scales, config: SignalConfig, shuffle_seed: int | None
    ) -> None:
        """Cut the rows into chunks of `config.chunk_rows` and keep those where a row counts."""
        self._config, self._seed, self._epoch = config, shuffle_seed, 0
        self._rows, self._counts = rows, counts
        self._ratios = (scales.target_bps / scales.instrument_bps).astype(np.float32)
        self._own = scales.instrument_bps.astype(np.float32)
        starts = np.arange(config.window - 1, len(counts), config.chunk_rows)
        self._starts = np.array(
            [start for start in starts if counts[start : start + config.chunk_rows].any()], dtype=np.int64
        )

    def __len__(self) -> int:
        """Batches in a pass."""
        return -(-self._chunks_in_pass() // self._config.batch_chunks)

    def _chunks_in_pass(self) -> int:
        limit = self._config.max_train_chunks
        return min(limit, len(self._starts)) if limit and self._seed is not None else len(self._starts)

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        """One pass."""
        starts = self._starts
        if self._seed is not None:
            rng = np.random.default_rng((self._seed, self._epoch))
            starts = rng.permutation(starts)[: self._chunks_in_pass()]
            self._epoch += 1
        for first in range(0, len(starts), self._config.batch_chunks):
            yield self._batch(starts[first : first + self._config.batch_chunks])

    def _batch(self, starts: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        import torch

        rows, config = self._rows, self._config
        outputs = starts[:, None] + np.arange(config.chunk_rows)
        past_end = outputs >= len(rows.ts_ns)
        outputs = np.minimum(outputs, len(rows.ts_ns) - 1)
        inputs = np.minimum(starts[:, None] + np.arange(1 - config.window, config.chunk_rows), len(rows.ts_ns) - 1)
        counts = self._counts[outputs] & ~past_end
        instrument = rows.instrument[outputs]
        targets = np.where(counts[:, :, None], rows.moves_bps[outputs] / self._own[instrument], np.float32(np.nan))
        return (
            torch.from_numpy(rows.features[inputs]),
            torch.from_numpy(targets.astype(np.float32)),
            torch.from_numpy(self._ratios[instrument]),
        )
