"""Rates by kind, level and length of the queue: pooled where events are few, with their intervals."""

import numpy as np
from numpy.typing import NDArray

from training.market.reactive.counts import MOST_UNITS, FlowCounts

LONGEST = 4  # a table reaches to this many times the longest queue that was seen, for what own lots may make of it
CELL_DTYPE = np.dtype(
    [
        ("kind", "U9"),  # limit, cancel, market, depletion
        ("level", np.int64),
        ("first", np.int64),  # lengths of the queue that share the rate, in orders or units
        ("last", np.int64),
        ("events", np.int64),
        ("exposure_s", np.float64),  # of cancels: times the length
        ("rate", np.float64),  # per second at activity 1; of cancels: per unit
        ("se", np.float64),
        ("low", np.float64),  # 95% interval
        ("high", np.float64),
    ]
)


def pooled_cells(counts: FlowCounts, least: int) -> NDArray[np.void]:
    """Cells of all kinds and levels: from the shortest queue up, lengths join until `least` events are to be expected.

    Expected is the exposure times the mean rate of kind and level: a cell that grew until it held so many events would
    be biased by its own stopping. A rest with less joins the cell before it. Cancels start at length 1.
    """
    length = np.arange(MOST_UNITS + 1)
    rows: list[tuple[object, ...]] = []
    for level in range(counts.limit.shape[0]):
        rows += _pool("limit", level, counts.limit[level], counts.limit_s[level], 0, least)
        rows += _pool("cancel", level, counts.cancel[level], counts.cancel_s[level] * length, 1, least)
    rows += _pool("market", 0, counts.market, counts.cancel_s[0], 1, least)
    rows += _pool("depletion", 0, counts.depletion, counts.narrow_s, 1, least)
    return np.array(rows, CELL_DTYPE)


def _pool(
    kind: str, level: int, events: NDArray[np.int64], exposure: NDArray[np.float64], start: int, least: int
) -> list[tuple[object, ...]]:
    seen = np.flatnonzero(exposure > 0)
    seen = seen[seen >= start]
    groups: list[list[int]] = []
    mean_rate = events[seen].sum() / max(exposure[seen].sum(), 1e-9)
    held = float(least)
    for units in seen:
        if held >= least:
            groups.append([])
            held = 0.0
        groups[-1].append(int(units))
        held += mean_rate * exposure[units]
    if len(groups) > 1 and held < least:
        groups[-2:] = [groups[-2] + groups[-1]]
    cells: list[tuple[object, ...]] = []
    for group in groups:
        count, time = int(events[group].sum()), float(exposure[group].sum())
        low, high = poisson_interval(count)
        rate = count / time
        cells.append(
            (kind, level, group[0], group[-1], count, time, rate, np.sqrt(count) / time, low / time, high / time)
        )
    return cells


def poisson_interval(count: int) -> tuple[float, float]:
    """95% interval of a Poisson mean: exact (Garwood 1936) by chi-squared quantiles, Fisher's from 30 events on."""
    if count >= 30:
        half = 1.959964 * np.sqrt(count)
        return count - half, count + half
    from scipy.stats import chi2

    low = float(chi2.ppf(0.025, 2 * count)) / 2 if count else 0.0
    return low, float(chi2.ppf(0.975, 2 * count + 2)) / 2


def table_length(counts: FlowCounts) -> int:
    """Cells of a rate table: LONGEST times the longest queue seen, and the empty one."""
    longest = int(np.flatnonzero(counts.limit_s.sum(axis=0) > 0).max())
    return max(16, LONGEST * longest) + 1


def rate_table(cells: NDArray[np.void], kind: str, level: int, length: int) -> NDArray[np.float64]:
    """Rates `(length,)` by units: each cell's own, and beyond or between cells that of the nearest below, if any.

    Cancels' rates are per unit, so that they go on growing with the queue.
    """
    chosen = cells[(cells["kind"] == kind) & (cells["level"] == level)]
    units = np.arange(length)
    if not len(chosen):
        return np.zeros(length)
    at = np.maximum(np.searchsorted(chosen["first"], units, side="right") - 1, 0)
    rates = chosen["rate"][at].astype(np.float64)
    return rates * units if kind == "cancel" else rates
