"""A fact's numbers with their intervals: a block bootstrap over half hours.

Every number here is a function of sums over half-hour blocks, so that a resample is a weighting of those sums
(Davison and Hinkley 1997, "Bootstrap Methods and their Application", sections 3.2 and 8.2). The interval is the value
plus and minus Student's t quantile (blocks - 1 degrees of freedom) times the bootstrap's standard error: percentile
intervals of few blocks are too narrow (see `training.evaluation.statistics`). Half hours are taken as exchangeable:
what differs between hours and days (a U of volume) widens the interval, and what the days have in common (a calm week)
is in no interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # sums (B, S) -> values (B, V)

CONFIDENCE = 0.95
_LEAST_DEFINED = 0.9  # share of resamples in which a value must exist for its interval to exist


@dataclass(frozen=True)
class Estimate:
    """One number of a fact; `low` and `high` bound its 95% interval, infinite where too few blocks give none.

    `value` is NaN where the data do not define it (no second level, no trades).
    """

    key: str
    label: str
    unit: str
    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """The value is defined."""
        return bool(np.isfinite(self.value))

    def meets(self, other: "Estimate") -> bool:
        """The two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Curve:
    """A fact's figure: `y (N,)` against `x (N,)`, and the 95% band from `low (N,)` to `high (N,)` (NaN: none)."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats
    x_title: str
    y_title: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Fact:
    """One stylized fact as measured on some days: its definition, where that comes from, numbers and curve."""

    key: str
    title: str
    definition: str
    source: str
    numbers: tuple[Estimate, ...]
    curve: Curve


class BlockBootstrap:
    """Resamples of half-hour blocks, drawn once, so that all facts of a sample meet the same resamples."""

    def __init__(self, blocks: int, rng: np.random.Generator, draws: int = 999) -> None:
        """Draw `draws` resamples of `blocks` blocks with replacement."""
        if blocks < 1:
            raise InputError("no half hour with a book: there is nothing to measure")
        if draws < 99:
            raise InputError(f"bootstrap draws {draws} is below 99: take 999 or more")
        self.blocks = blocks
        weights = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=draws)
        self._weights: Floats = weights.astype(np.float64)

    def values(self, sums: Floats, statistic: Statistic) -> tuple[Floats, Floats, Floats]:
        """Values, low and high bounds, `(V,)` each, of `statistic` on the sums `(blocks, S)` of all blocks."""
        from scipy.special import stdtrit

        with np.errstate(divide="ignore", invalid="ignore"):
            value = statistic(sums.sum(axis=0)[None, :])[0]
            drawn = statistic(self._weights @ sums)
        defined = np.isfinite(drawn)
        half = np.full(value.shape, np.inf)
        enough = defined.mean(axis=0) >= _LEAST_DEFINED
        if self.blocks > 1 and enough.any():
            # Drawing with replacement shrinks the variance by (blocks - 1) / blocks.
            scale = stdtrit(self.blocks - 1, 0.5 + CONFIDENCE / 2.0) * np.sqrt(self.blocks / (self.blocks - 1.0))
            spread = np.nanstd(np.where(defined, drawn, np.nan)[:, enough], axis=0)
            half[enough] = scale * spread
        half = np.where(np.isfinite(value), half, np.nan)
        return value, value - half, value + half

    def numbers(
        self, sums: Floats, statistic: Statistic, names: tuple[tuple[str, str, str], ...]
    ) -> tuple[Estimate, ...]:
        """One Estimate for each of the statistic's values; `names` are (key, label, unit)."""
        value, low, high = self.values(sums, statistic)
        return tuple(Estimate(*name, float(value[i]), float(low[i]), float(high[i])) for i, name in enumerate(names))


def power_law(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Exponent d of y = c x^d by weighted least squares of y itself, `(B,)` for each row of x, y, weight `(B, N)`.

    In y, not its logarithm: a mean that noise made negative counts as what it is. The exponent is searched on a grid of
    steps of 0.01 from -2 to 3. NaN where fewer than three points have weight.
    """
    grid = np.linspace(-2.0, 3.0, 501)
    usable = (weight > 0) & np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = np.where(usable, x, 1.0), np.where(usable, y, 0.0)
    w = np.where(usable, weight, 0.0)
    log_x, best = np.log(x), np.full(len(x), -np.inf)
    exponent = np.full(len(x), np.nan)
    for candidate in grid:
        basis = np.exp(candidate * log_x)
        explained = (w * basis * y).sum(axis=1) ** 2 / (w * basis * basis).sum(axis=1)
        better = explained > best  # the sum of squares falls by what the best scale explains
        best[better], exponent[better] = explained[better], candidate
    return np.where(usable.sum(axis=1) >= 3, exponent, np.nan)
