"""Parameters of the Almgren-Chriss schedule, measured on training days alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.errors import InputError

if TYPE_CHECKING:
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay
    from training.market.impact import ImpactParameters

_LEAST_ETA_BPS = 1e-3  # an unlimited book would make the schedule immediate; its closed form needs some impact


def calibrate(days: "Sequence[MarketDay]", execution: "ExecutionConfig") -> dict[str, float]:
    """`sigma_bps`, `eta_bps` and `gamma_bps` of one instrument for `training.execution.baselines.AlmgrenChriss`.

    `sigma_bps`: root mean square of the mid's move over one horizon, on a grid of horizons from each window's open.
    `eta_bps`: what a market order of one slice pays beyond the best price. It is the calibrated concession of
    `training.market.impact`, at least what walking a book of the mean displayed lots a level costs, slice / (2 lots a
    level) ticks. `gamma_bps`: the calibrated permanent displacement by the whole parent. Where the days are too few or
    too quiet to calibrate impact, the walk alone counts and gamma is 0.
    """
    from training.execution.parents import parent_lots
    from training.market.tape import carried_mid2

    moves, walks = [], []
    for day in days:
        book = day.book
        mid2 = carried_mid2(book.bid_px[:, 0], book.bid_sz[:, 0], book.ask_px[:, 0], book.ask_sz[:, 0])
        for opens, closes in day.windows:
            grid = np.arange(opens, closes + 1, execution.horizon_ns, dtype=np.int64)
            row = np.searchsorted(book.ts_ns, grid, side="right") - 1
            row = row[row >= 0]
            level = mid2[row][mid2[row] > 0].astype(np.float64)
            moves.append(1e4 * np.diff(level) / level[:-1])
        sizes = np.concatenate([book.bid_sz.ravel(), book.ask_sz.ravel()])
        shown = float(sizes[sizes > 0].mean())
        walks.append(day.tick_bps() * parent_lots(day, execution) / execution.slices / (2.0 * shown))
    move = np.concatenate(moves)
    sigma = float(np.sqrt(np.mean(move * move))) if len(move) else 0.0
    eta, gamma = max(float(np.mean(walks)), _LEAST_ETA_BPS), 0.0
    impact = calibrated_impact(days)
    if impact is not None:
        lots = float(np.mean([parent_lots(day, execution) for day in days]))
        eta = max(eta, float(impact.concession_bps(lots / execution.slices)))
        gamma = impact.permanent_bps * lots / impact.adv_lots
        # The closed form needs temporary impact left over: gamma / (2 slices) stays well below eta.
        gamma = min(gamma, eta * execution.slices)
    return {"sigma_bps": sigma, "eta_bps": eta, "gamma_bps": gamma}


def calibrated_impact(days: "Sequence[MarketDay]") -> "ImpactParameters | None":
    """Impact of one instrument's `days`; None where they are too few or too quiet to calibrate it."""
    from training.market.impact_calibration import CalibrationSettings, calibrate_impact

    try:
        return calibrate_impact(days, 0, CalibrationSettings(resamples=2)).parameters
    except InputError:
        return None
