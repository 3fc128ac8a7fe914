"""How busy a market is from minute to minute: the clock that counts are taken on, and the law of its clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.market.reactive.counts import make_clocks

LEAST_RELAXATION_S, MOST_RELAXATION_S = 10.0, 3600.0
MOST_SD = 1.5


@dataclass(frozen=True)
class Activity:
    """Lognormal clusters of a U-shaped day, as `QueueReactiveParameters` has them."""

    sd: float  # of log activity
    relaxation_s: float
    u_shape: float  # activity at open and close over noon, less one


def minute_clocks(minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Clocks `(4, 60 M + 1)` of the activity by minute, whose mean over minutes with events is 1.

    Events of a minute over their mean estimate its activity with a relative error of 1 / sqrt N, if the lengths of the
    queues have the same distribution all day: all rates but that of the open spread's end grow alike.
    """
    busy = minutes > 0
    mean = minutes[busy].mean() if busy.any() else 1.0
    return make_clocks(60 * len(minutes), np.repeat(minutes / mean, 60))


def fit_activity(minutes: Sequence[NDArray[np.int64]], places: Sequence[NDArray[np.float64]]) -> Activity:
    """The law of the activity from events by minute and the place of each minute in its day, -1 to 1.

    The U is fitted by least squares; clusters are the log of what is left, less the variance of counting; their
    relaxation time follows from the correlation of neighbouring minutes.
    """
    events = np.concatenate([counts[:-1] for counts in minutes]).astype(np.float64)  # the last minute is not whole
    place = np.concatenate([where[:-1] for where in places])
    busy = events > 0
    if busy.sum() < 10:
        return Activity(0.0, 120.0, 0.0)
    level, bend = np.linalg.lstsq(np.column_stack([np.ones(busy.sum()), place[busy] ** 2]), events[busy], rcond=None)[0]
    u_shape = float(np.clip(bend / level, 0.0, 5.0)) if level > 0 else 0.0
    logs = [
        np.where(counts[:-1] > 0, np.log(np.maximum(counts[:-1], 1) / (1.0 + u_shape * where[:-1] ** 2)), np.nan)
        for counts, where in zip(minutes, places, strict=True)
    ]
    mean = np.nanmean(np.concatenate(logs))
    pairs = np.concatenate([np.column_stack([x[:-1], x[1:]]) - mean for x in logs])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    noise = float(np.mean(1.0 / events[busy]))
    variance = float(np.nanvar(np.concatenate(logs))) - noise
    if variance <= 0.0 or not len(pairs):
        return Activity(0.0, 120.0, u_shape)
    relaxation, kept = _within_minutes(float(np.mean(pairs[:, 0] * pairs[:, 1]) / variance))
    return Activity(min(MOST_SD, float(np.sqrt(variance / kept))), relaxation, u_shape)


def _within_minutes(correlation: float) -> tuple[float, float]:
    """Relaxation time in s of which neighbouring minutes' means correlate so, and the share of the variance they keep.

    Means of an exponentially correlated process over a minute, x = 60 s / relaxation: they keep 2 (x - 1 + e^-x) / x^2
    of its variance, and neighbouring ones share ((1 - e^-x) / x)^2 of it.
    """
    relaxation = np.geomspace(LEAST_RELAXATION_S, MOST_RELAXATION_S, 400)
    x = 60.0 / relaxation
    kept = 2.0 * (x - 1.0 + np.exp(-x)) / x**2
    shared = ((1.0 - np.exp(-x)) / x) ** 2 / kept
    at = int(np.argmin(np.abs(shared - correlation)))
    return float(relaxation[at]), float(kept[at])
