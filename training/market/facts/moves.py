"""How the mid moves: the volatility signature, returns, and the memory of their size."""

from collections.abc import Sequence

import numpy as np

from training.market.facts.estimate import BlockBootstrap, Curve, Fact, Floats
from training.market.facts.sample import (
    NS,
    Sample,
    autocorrelation,
    autocorrelation_sums,
    block_sums,
    stacked,
)

INTERVALS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
GRID_S = 10
"""Length of the intervals over which returns and volumes are taken, seconds."""
GRID_LAGS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 30, 45, 60)
_FAST, _SLOW = INTERVALS_S.index(1), INTERVALS_S.index(300)


def signature(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Realized variance of the mid per second against the interval at which it is sampled."""
    sums = stacked([_signature_sums(sample) for sample in samples])

    def rates(total: Floats) -> Floats:
        return np.asarray(total[:, 0::2] / total[:, 1::2])

    def summary(total: Floats) -> Floats:
        rate = rates(total)
        return np.column_stack([rate[:, _FAST], rate[:, _SLOW], rate[:, _FAST] / rate[:, _SLOW]])

    rate, low, high = bootstrap.values(sums, rates)
    numbers = bootstrap.numbers(
        sums,
        summary,
        (
            ("variance_1s", "variance per second, sampled every second", "ticks²/s"),
            ("variance_300s", "variance per second, sampled every 300 s", "ticks²/s"),
            ("signature_ratio", "the first over the second", ""),
        ),
    )
    return Fact(
        "signature",
        "Volatility signature",
        "Sum of squared moves of the mid, sampled every so many seconds within each half hour, over the time sampled. "
        "Flat for a martingale; falling where moves revert, rising where they trend.",
        "Andersen, Bollerslev, Diebold and Labys 2000; Bouchaud, Farmer and Lillo 2009, section 3",
        numbers,
        Curve(
            np.array(INTERVALS_S, float),
            rate,
            low,
            high,
            "sampling interval, s",
            "variance per second, ticks²",
            log_x=True,
        ),
    )


def _signature_sums(sample: Sample) -> Floats:
    columns = []
    for seconds in INTERVALS_S:
        block, move = _moves(sample, seconds, whole_window=False)
        columns.append(block_sums(block, sample.blocks, move * move, np.full(len(move), float(seconds))))
    return np.concatenate(columns, axis=1)


def returns(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Linear autocorrelation of returns, and their tails."""
    parts = []
    for sample in samples:
        block, move = _moves(sample, GRID_S)
        fourth = block_sums(block, sample.blocks, move**4)
        memory = autocorrelation_sums(move, block, _windows(sample, block), sample.blocks, GRID_LAGS)
        parts.append(np.concatenate([fourth, memory], axis=1))

    def summary(total: Floats) -> Floats:
        count, mean = total[:, 1], total[:, 2] / total[:, 1]
        variance = total[:, 3] / count - mean**2
        kurtosis = total[:, 0] / count / variance**2 - 3.0  # the mean is far below a tick: moments about zero
        return np.column_stack([autocorrelation(total[:, 1:])[:, 0], kurtosis])

    sums = stacked(parts)
    correlation, low, high = bootstrap.values(sums, lambda total: autocorrelation(total[:, 1:]))
    numbers = bootstrap.numbers(
        sums,
        summary,
        (
            ("return_memory", f"autocorrelation of {GRID_S} s returns at one lag", ""),
            ("return_kurtosis", f"excess kurtosis of {GRID_S} s returns", ""),
        ),
    )
    return Fact(
        "returns",
        "Returns: no memory, heavy tails",
        f"Moves of the mid over {GRID_S} s: their autocorrelation (near zero beyond the shortest times) and their "
        "excess kurtosis (0 for a Gaussian).",
        "Cont 2001, facts 1 and 2",
        numbers,
        Curve(_lags_s(), correlation, low, high, "lag, s", "autocorrelation of returns"),
    )


def volatility_memory(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Autocorrelation of absolute returns."""
    parts = []
    for sample in samples:
        block, move = _moves(sample, GRID_S)
        parts.append(autocorrelation_sums(np.abs(move), block, _windows(sample, block), sample.blocks, GRID_LAGS))
    return _memory_fact(
        "volatility_memory",
        "Volatility clustering",
        f"Autocorrelation of the size of the mid's moves over {GRID_S} s. The U of the day is part of it.",
        "Cont 2001, fact 6",
        "absolute returns",
        stacked(parts),
        bootstrap,
    )


def volume_memory(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Autocorrelation of traded volume."""
    parts = []
    for sample in samples:
        block, lots = _volumes(sample)
        parts.append(autocorrelation_sums(np.log1p(lots), block, _windows(sample, block), sample.blocks, GRID_LAGS))
    return _memory_fact(
        "volume_memory",
        "Volume clustering",
        f"Autocorrelation of log(1 + lots traded in {GRID_S} s); the logarithm keeps single blocks from deciding it. "
        "The U of the day is part of it.",
        "Cont 2001, facts 6 and 9; Gopikrishnan et al. 2000",
        "log volume",
        stacked(parts),
        bootstrap,
    )


def _memory_fact(
    key: str, title: str, definition: str, source: str, what: str, sums: Floats, bootstrap: BlockBootstrap
) -> Fact:
    correlation, low, high = bootstrap.values(sums, autocorrelation)
    chosen = (1, 6, 30)
    at = [GRID_LAGS.index(lag) for lag in chosen]
    names = tuple((f"{key}_{lag * GRID_S}s", f"autocorrelation at {lag * GRID_S} s", "") for lag in chosen)
    numbers = bootstrap.numbers(sums, lambda total: autocorrelation(total)[:, at], names)
    curve = Curve(_lags_s(), correlation, low, high, "lag, s", f"autocorrelation of {what}")
    return Fact(key, title, definition, source, numbers, curve)


def _lags_s() -> Floats:
    return GRID_S * np.array(GRID_LAGS, np.float64)


def _moves(sample: Sample, seconds: int, whole_window: bool = True) -> tuple[np.ndarray, Floats]:
    """Moves of the mid over intervals of `seconds` in ticks, and the block of each (-1 before the first mid).

    With `whole_window` the grid runs through a window; else it starts anew in each block, and the last part of a block
    that is no whole interval is left out.
    """
    blocks, moves = [], []
    step = seconds * NS
    for start, span, number in _stretches(sample, whole_window):
        grid = start + step * np.arange(span // step + 1, dtype=np.int64)
        mid2 = sample.mid2_at(grid)
        known = (mid2[:-1] > 0) & (mid2[1:] > 0)
        where = np.searchsorted(sample.starts_ns, grid[:-1], side="right") - 1 if whole_window else number
        blocks.append(np.where(known, where, -1))
        moves.append(np.where(known, 0.5 * np.diff(mid2), 0.0))
    return np.concatenate(blocks), np.concatenate(moves)


def _volumes(sample: Sample) -> tuple[np.ndarray, Floats]:
    """Lots traded in each interval of GRID_S seconds, and its block."""
    blocks, volumes = [], []
    step = GRID_S * NS
    for start, span, _ in _stretches(sample, whole_window=True):
        count = span // step
        inside = (sample.trades.ts_ns >= start) & (sample.trades.ts_ns < start + count * step)
        cell = (sample.trades.ts_ns[inside] - start) // step
        volumes.append(np.bincount(cell, sample.trades.volume[inside].astype(np.float64), minlength=count))
        grid = start + step * np.arange(count, dtype=np.int64)
        blocks.append(np.searchsorted(sample.starts_ns, grid, side="right") - 1)
    return np.concatenate(blocks), np.concatenate(volumes)


def _stretches(sample: Sample, whole_window: bool) -> list[tuple[int, int, int]]:
    """Start, length and first block of each block, or of each window."""
    rows = zip(sample.starts_ns.tolist(), sample.spans_ns.tolist(), range(sample.blocks), strict=True)
    if not whole_window:
        return list(rows)
    found = []
    for window in np.unique(sample.window):
        mine = np.flatnonzero(sample.window == window)
        found.append((int(sample.starts_ns[mine[0]]), int(sample.spans_ns[mine].sum()), int(mine[0])))
    return found


def _windows(sample: Sample, block: np.ndarray) -> np.ndarray:
    """Window of each element; elements outside every block are in none."""
    return np.where(block >= 0, sample.window[np.maximum(block, 0)], -1)
