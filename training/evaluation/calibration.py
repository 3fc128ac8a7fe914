"""Parameters of the Almgren-Chriss schedule, measured on training days alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay

_LEAST_ETA_BPS = 1e-3  # an unlimited book would make the schedule immediate; its closed form needs some impact


def calibrate(days: "Sequence[MarketDay]", execution: "ExecutionConfig") -> dict[str, float]:
    """`sigma_bps` and `eta_bps` of one instrument for `training.execution.baselines.AlmgrenChriss`.

    `sigma_bps`: root mean square of the mid's move over one horizon, on a grid of horizons from each window's open.
    `eta_bps`: mean cost beyond the best price of a market order of one slice that walks a book of the mean displayed
    lots a level: slice / (2 lots a level) ticks. Permanent impact is 0: the recorded market does not answer.
    """
    from training.execution.parents import parent_lots
    from training.market.tape import carried_mid2

    moves, etas = [], []
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
        etas.append(day.tick_bps() * parent_lots(day, execution) / execution.slices / (2.0 * shown))
    move = np.concatenate(moves)
    sigma = float(np.sqrt(np.mean(move * move))) if len(move) else 0.0
    return {"sigma_bps": sigma, "eta_bps": max(float(np.mean(etas)), _LEAST_ETA_BPS)}
