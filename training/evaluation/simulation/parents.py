"""What parents cost in the world impact: even market orders with impact off, as calibrated, half less and half more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.execution.baselines import TwapMarket
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.run import run_policy
from training.market.facts.estimate import BlockBootstrap, Estimate
from training.market.facts.sample import Sample, block_sums, prepare
from training.market.impact_calibration import ImpactCalibration, with_impact

if TYPE_CHECKING:
    from training.market.day import MarketDay

SCALES = (("off", 0.0), ("-50%", 0.5), ("nominal", 1.0), ("+50%", 1.5))
"""Impact switched off, as calibrated, and half of it less and more."""
SHARES = (0.001, 0.005, 0.01, 0.05, 0.1)
"""Parent sizes as shares of the mean daily volume."""
HORIZON_S, SLICE_S = 1_800, 60


@dataclass(frozen=True)
class ParentCost:
    """Mean implementation shortfall of one size under one scale, bps."""

    share: float
    scale: str
    cost: Estimate
    beyond: float  # mean difference to impact switched off, bps
    extrapolated_share: float  # of the lots, priced beyond the visible book
    parents: int


def played_costs(days: "Sequence[MarketDay]", found: ImpactCalibration, seed: int, draws: int) -> list[ParentCost]:
    """Work a buy and a sell at each arrival of the grid in equal market orders each SLICE_S, for each size and scale.

    The same arrivals for all. ADV is that of the calibration, whose days are these: an examination of the model, no
    forecast. Empty where no session window holds the horizon.
    """
    known = [replace(day, adv_lots=found.parameters.adv_lots) for day in with_impact(days, found)]
    samples = [prepare(day.book, day.windows) for day in days]
    first = np.cumsum([0, *(sample.blocks for sample in samples)])
    bootstrap = BlockBootstrap(int(first[-1]), np.random.default_rng(seed), draws)
    costs = []
    for share in SHARES:
        base = ExecutionConfig(
            horizon_s=HORIZON_S, decision_interval_s=SLICE_S, lots=None, adv_fraction=share, world="impact"
        )
        try:
            parents = parent_grid(known, base)
        except InputError:  # no session window holds the horizon
            return []
        block, off = _blocks(parents, samples, first), np.zeros(len(parents))
        for name, scale in SCALES:
            rows = run_policy(TwapMarket(), known, parents, replace(base, impact_scale=scale)).rows
            off = rows["is_bps"] if name == "off" else off
            sums = block_sums(block, bootstrap.blocks, np.ones(len(rows)), rows["is_bps"])
            label = (f"{share:g}_{name}", "implementation shortfall", "bps")
            (cost,) = bootstrap.numbers(sums, lambda total: total[:, 1:2] / total[:, 0:1], (label,))
            beyond, far = float((rows["is_bps"] - off).mean()), float(rows["extrapolated_share"].mean())
            costs.append(ParentCost(share, name, cost, beyond, far, len(rows)))
    return costs


def _blocks(parents: NDArray[np.void], samples: Sequence[Sample], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Half hour of each parent's arrival, counted over all days."""
    block = np.zeros(len(parents), np.int64)
    for number, sample in enumerate(samples):
        mine = parents["day"] == number
        place = np.searchsorted(sample.starts_ns, parents["start_ns"][mine], side="right") - 1
        block[mine] = first[number] + place
    return block
