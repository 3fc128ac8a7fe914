"""How well the price can be forecast: synthetic, from what is planted and from what is visible, and on SHFE depth.

`python -m feature_repo.ticks.predictability [--shfe FOLDER]` prints the table of docs/synthetic.md.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book, build_book
from feature_repo.pipeline.kernels import SIGNAL_V1, compute_features
from feature_repo.ticks.batches import event_batch
from feature_repo.ticks.instruments import NS, Instrument
from feature_repo.ticks.reader import IngestRequest, Option, ReadCount
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA
from feature_repo.ticks.synthetic import (
    DEFAULT_STRENGTH,
    SyntheticOptions,
    SyntheticReader,
    clean_events,
    latent_activity,
    latent_signal,
)

_Floats = NDArray[np.float64]
HORIZONS_S = (10, 30, 60)
VISIBLE = (
    *("microprice_dev", "imbalance_l1", "imbalance_depth", "ofi_1s", "ofi_10s", "ofi_60s"),
    *("trade_flow_10s", "trade_flow_60s", "return_10s", "return_60s"),
)
"""Features of the visible regression: imbalance, order-flow imbalance, trade flow and past return."""
BLOCK_S = 600
CLIP_SDS = 5.0


@dataclass(frozen=True)
class Sample:
    """One symbol-day on a grid of whole seconds.

    `regressors` (N, P) float64; `moves_bps` (N, H) float64, mid moves from the row on, NaN where the horizon leaves
    the session window or a book is not two-sided; `block` (N,) int64, numbers the ten-minute stretches.
    """

    regressors: NDArray[np.float64]
    moves_bps: NDArray[np.float64]
    block: NDArray[np.int64]


@dataclass(frozen=True)
class Skill:
    """R2 out of sample against forecasting no move, its 95% interval, and rows forecast."""

    r2: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        """In per cent, for the table."""
        return f"{100 * self.r2:6.2f} [{100 * self.low:6.2f}, {100 * self.high:5.2f}]"


def mid_moves(book: Book, grid_ns: NDArray[np.int64], windows: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Log moves of the mid from each grid time over HORIZONS_S, `(N, H) float64` in bps, NaN where not defined."""
    mid = np.where(book.two_sided, (book.bid_px[:, 0] + book.ask_px[:, 0]) / 2.0, np.nan)
    closes = np.array([close for _, close in windows], np.int64)
    window_end = closes[np.searchsorted(closes, grid_ns)]

    def at(times: NDArray[np.int64]) -> NDArray[np.float64]:
        row = np.searchsorted(book.ts_ns, times, side="right") - 1
        return np.where(row >= 0, mid[np.maximum(row, 0)], np.nan)

    now = at(grid_ns)
    moves = np.empty((len(grid_ns), len(HORIZONS_S)))
    for i, horizon in enumerate(HORIZONS_S):
        later = grid_ns + horizon * NS
        moves[:, i] = np.where(later <= window_end, 1e4 * np.log(at(later) / now), np.nan)
    return moves


def visible_sample(book: Book, windows: list[tuple[int, int]]) -> tuple[Sample, NDArray[np.int64]]:
    """Sample of the VISIBLE features, and its grid times `(N,) int64` ns."""
    grid, features, valid = compute_features(book, windows)
    columns = [SIGNAL_V1.index(name) for name in VISIBLE]
    moves = mid_moves(book, grid, windows)
    moves[valid == 0] = np.nan
    return Sample(features[:, columns].astype(np.float64), moves, grid // (BLOCK_S * NS)), grid


def walk_forward(samples: Sequence[Sample]) -> list[Skill]:
    """Skill per horizon over the second half of the days, each forecast by least squares on all days before it.

    Regressors are clipped at CLIP_SDS standard deviations of the fitted days. Raises InputError with fewer than 2 days.
    """
    first_test = len(samples) // 2
    if first_test < 1:
        raise InputError(f"{len(samples)} day(s) leave none to fit before the day that is tested; give at least 2")
    skills = []
    for h in range(samples[0].moves_bps.shape[1]):
        gains, squares, rows = [], [], 0
        for k in range(first_test, len(samples)):
            fitted = _fit(samples[:k], h)
            known = np.isfinite(samples[k].moves_bps[:, h])
            move = samples[k].moves_bps[known, h]
            error = move - fitted(samples[k].regressors[known])
            _, block = np.unique(samples[k].block[known], return_inverse=True)
            gains.append(np.bincount(block, move**2 - error**2))
            squares.append(np.bincount(block, move**2))
            rows += len(move)
        skills.append(_skill(np.concatenate(gains), np.concatenate(squares), rows))
    return skills


class _Line:
    """A fitted regression."""

    def __init__(self, centre: _Floats, scale: _Floats, slope: _Floats) -> None:
        self.centre, self.scale, self.slope = centre, scale, slope

    def __call__(self, regressors: NDArray[np.float64]) -> NDArray[np.float64]:
        unit = np.clip((regressors - self.centre) / self.scale, -CLIP_SDS, CLIP_SDS)
        return unit @ self.slope


def _fit(samples: Sequence[Sample], horizon: int) -> _Line:
    """Least squares without intercept on standardised regressors: a drift of past days is no signal."""
    known = [np.isfinite(sample.moves_bps[:, horizon]) for sample in samples]
    x = np.concatenate([sample.regressors[rows] for sample, rows in zip(samples, known, strict=True)])
    y = np.concatenate([sample.moves_bps[rows, horizon] for sample, rows in zip(samples, known, strict=True)])
    centre, scale = x.mean(axis=0), x.std(axis=0)
    line = _Line(centre, np.where(scale > 0, scale, 1.0), np.zeros(x.shape[1]))
    unit = np.clip((x - line.centre) / line.scale, -CLIP_SDS, CLIP_SDS)
    line.slope = np.linalg.lstsq(unit, y, rcond=None)[0]
    return line


def _skill(gain: NDArray[np.float64], square: NDArray[np.float64], rows: int) -> Skill:
    """Ratio of sums over blocks with its delta-method error, blocks taken as independent."""
    r2 = gain.sum() / square.sum()
    error = 1.96 * np.sqrt(np.sum((gain - r2 * square) ** 2)) / square.sum()
    return Skill(float(r2), float(r2 - error), float(r2 + error), rows)


def synthetic_samples(options: dict[str, Option]) -> tuple[list[Sample], list[Sample]]:
    """Samples of every day of the synthetic market, without dirt: of what is hidden, and of VISIBLE.

    Hidden is the latent signal s, and s times activity: the drift is k s times the rate of attacks.
    """
    reader, request = SyntheticReader(), IngestRequest("synthetic", options={**options, "dirt": 0.0})
    instrument = {item.symbol: item for item in reader.instruments(request)}
    latent, visible = [], []
    for plan in reader.plan(request):
        events = clean_events(SyntheticOptions.parse(plan.options), plan.partition)
        book, _ = build_book(pa.Table.from_batches([event_batch(events, 0)]), 5)
        windows = instrument[plan.partition.symbol].session_ns(plan.partition.date)
        sample, grid = visible_sample(book, windows)
        ts_ns, signal = latent_signal(request.options, plan.partition)
        now = np.minimum(np.searchsorted(ts_ns, grid, side="right") - 1, len(signal) - 1)
        activity = latent_activity(request.options, plan.partition)
        hidden = np.column_stack([signal[now], signal[now] * activity[now]])
        visible.append(sample)
        latent.append(Sample(hidden, sample.moves_bps, sample.block))
    return latent, visible


def shfe_samples(folder: Path) -> Iterator[Sample]:
    """Samples of VISIBLE of every SHFE day in `folder`, in time order; raises InputError where there is none."""
    reader, request = get_reader("shfe"), IngestRequest("shfe", folder)
    instruments = {item.instrument_id: item for item in reader.instruments(request)}
    for plan in sorted(reader.plan(request), key=lambda plan: plan.partition.date):
        instrument = instruments[plan.partition.instrument_id]
        events = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
        book, _ = build_book(_in_session(events, instrument, plan.partition.date), instrument.depth)
        yield visible_sample(book, instrument.session_ns(plan.partition.date))[0]


def _in_session(events: pa.Table, instrument: Instrument, day: str) -> pa.Table:
    """Events within the session windows in time order: the part of cleaning that a replay cannot do without."""
    ts_ns = events.column("ts_event_ns").to_numpy()
    inside = np.zeros(len(ts_ns), bool)
    for opens, closes in instrument.session_ns(day):
        inside |= (ts_ns >= opens) & (ts_ns < closes)
    return events.filter(pa.array(inside)).sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])


def report(days: int, seed: int, strength: float, shfe: Path | None) -> list[str]:
    """Lines of the table; R2 in per cent with 95% intervals."""
    lines = [f"{'R2 out of sample, %':<34}" + "".join(f"{f'{h} s':>24}" for h in HORIZONS_S) + f"{'rows':>10}"]

    def add(name: str, skills: list[Skill]) -> None:
        lines.append(f"{name:<34}" + "".join(f"{skill!s:>24}" for skill in skills) + f"{skills[0].rows:>10,}")

    for value in dict.fromkeys((strength, 0.0)):
        latent, visible = synthetic_samples({"days": days, "seed": seed, "strength": value})
        signal = [Sample(day.regressors[:, :1], day.moves_bps, day.block) for day in latent]
        add(f"synthetic {value:g}, latent signal", walk_forward(signal))
        add(f"synthetic {value:g}, with activity", walk_forward(latent))
        add(f"synthetic {value:g}, visible", walk_forward(visible))
    if shfe is not None:
        add("SHFE, visible", walk_forward(list(shfe_samples(shfe))))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 with one message where the input is bad."""
    parser = argparse.ArgumentParser(prog="feature_repo.ticks.predictability", description=__doc__)
    parser.add_argument("--days", type=int, default=40, help="days of the synthetic market (40)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the synthetic market (7)")
    parser.add_argument("--strength", type=float, default=DEFAULT_STRENGTH, help=f"planted ({DEFAULT_STRENGTH})")
    parser.add_argument("--shfe", type=Path, help="folder of SHFE depth to compare with")
    chosen = parser.parse_args(arguments)
    try:
        print("\n".join(report(chosen.days, chosen.seed, chosen.strength, chosen.shfe)))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
