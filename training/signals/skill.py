"""How good forecasts are out of sample, and whether that may be claimed.

R2 is against the forecast "no move": 1 - sum (y - f)^2 / sum y^2 (Campbell and Thompson 2008, with a zero benchmark).
Its interval resamples half hours, for moves of one half hour meet the same market and their labels overlap: it is
that of the mean gain y^2 - (y - f)^2, as a share of the mean y^2 realised. IC is Pearson's correlation; its interval
comes from the correlation's influence values (Devlin, Gnanadesikan and Kettenring 1975).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.evaluation.statistics import HALF_HOUR_NS, ClusterBootstrap, holm

ALPHA = 0.05


@dataclass(frozen=True)
class Skill:
    """Skill of one horizon over a set of rows; bounds are those of the 95% interval, infinite below two clusters."""

    r2: float
    ci_low: float
    ci_high: float
    p: float  # two-sided, of no gain over the zero forecast
    p_adjusted: float  # Holm over the horizons
    ic: float
    ic_low: float
    ic_high: float
    n: int  # rows
    clusters: int  # half hours
    established: bool  # better than the zero forecast, supported at level 0.05
    verdict: str  # "established" or "not established"

    def as_json(self) -> dict[str, Any]:
        """Plain values; a bound that is not finite becomes None."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def measure_skill(
    forecasts: NDArray[np.float32],
    moves: NDArray[np.float32],
    ts_ns: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int = 1999,
) -> list[Skill]:
    """Skill of each horizon: `forecasts` and `moves` (N, H) bps, NaN in `moves` where unknown; `ts_ns` (N,) decisions.

    The horizons are one family: a claim needs the Holm-adjusted p at most 0.05. Raises InputError where shapes
    differ or a forecast is not finite.
    """
    if forecasts.shape != moves.shape or forecasts.ndim != 2 or len(ts_ns) != len(moves):
        raise InputError(f"forecasts {forecasts.shape}, moves {moves.shape} and times {ts_ns.shape} do not fit")
    if not np.isfinite(forecasts).all():
        raise InputError(f"{int((~np.isfinite(forecasts)).sum())} forecasts are not finite: train the model again")
    found = [
        _one_horizon(forecasts[:, h].astype(np.float64), moves[:, h].astype(np.float64), ts_ns, rng, draws)
        for h in range(forecasts.shape[1])
    ]
    return [
        Skill(**row, p_adjusted=p, established=won, verdict="established" if won else "not established")
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True)
        for won in [bool(p <= ALPHA and row["r2"] > 0.0 and row["ci_low"] > 0.0)]
    ]


def _one_horizon(
    forecast: NDArray[np.float64],
    move: NDArray[np.float64],
    ts_ns: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
) -> dict[str, Any]:
    known = np.isfinite(move)
    f, y = forecast[known], move[known]
    square = float(np.mean(y * y)) if len(y) else 0.0
    if square == 0.0:  # no rows, or a price that never moved: nothing to be better at
        nothing = {"r2": 0.0, "ci_low": -np.inf, "ci_high": np.inf, "p": 1.0}
        return nothing | {"ic": 0.0, "ic_low": -np.inf, "ic_high": np.inf, "n": len(y), "clusters": 0}
    bootstrap = ClusterBootstrap(ts_ns[known] // HALF_HOUR_NS, rng, draws)
    gain = bootstrap.interval(y * y - (y - f) ** 2, ALPHA)
    ic = bootstrap.interval(_correlation_values(f, y), ALPHA)
    return {
        "r2": gain.mean / square,
        "ci_low": gain.low / square,
        "ci_high": gain.high / square,
        "p": gain.p,
        "ic": ic.mean,
        "ic_low": max(ic.low, -1.0),
        "ic_high": min(ic.high, 1.0),
        "n": len(y),
        "clusters": gain.n_clusters,
    }


def _correlation_values(f: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (N,) whose mean is the correlation r and whose spread is that of its influence function.

    r + u v - r (u^2 + v^2) / 2 with u and v standardised.
    """
    spread_f, spread_y = f.std(), y.std()
    if spread_f <= 1e-12 or spread_y <= 1e-12:  # a constant has no correlation with anything
        return np.zeros_like(y)
    u, v = (f - f.mean()) / spread_f, (y - y.mean()) / spread_y
    r = float(np.mean(u * v))
    values: NDArray[np.float64] = r + u * v - 0.5 * r * (u * u + v * v)
    return values
