"""What the environment makes of the parents of a traded day: costs, fills, and every decision of the policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts.bundle import Bundle
from serving.contracts.observation import OBSERVATION_SIZE
from training.evaluation.players import BundlePolicy, settings_for
from training.execution.config import ExecutionConfig
from training.execution.run import run_policy
from training.market.day import MarketDay

Fill = tuple[int, int, int]
"""Time in ns, price in ticks, lots."""


class RecordingPolicy(BundlePolicy):
    """A bundle's policy that keeps what it saw and did: a row for each parent in each of the lists' entries."""

    def __init__(self, bundle: Bundle) -> None:
        """Run `bundle`."""
        super().__init__("champion", bundle)
        self.seen: list[NDArray[np.float32]] = []  # (N, D): the present alone
        self.acted: list[NDArray[Any]] = []  # (N,) or (N, 2)
        decide = self.act

        def act(observation: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[Any]:
            actions = decide(observation, mask)
            self.seen.append(observation[:, -OBSERVATION_SIZE:].copy())
            self.acted.append(np.array(actions))
            return actions

        self.act = act


@dataclass(frozen=True)
class Backtest:
    """The environment's account of N parents."""

    rows: NDArray[np.void]  # RESULT_DTYPE (N,)
    fills: list[list[Fill]]  # of each parent, sorted
    seen: list[NDArray[np.float32]]  # by decision (N, D)
    acted: list[NDArray[Any]]  # by decision (N,) or (N, 2)

    def action(self, parent: int, step: int) -> tuple[float, ...] | None:
        """What was done for a parent at a decision; None beyond the last."""
        if step >= len(self.acted):
            return None
        return tuple(float(value) for value in np.atleast_1d(self.acted[step][parent]))


def backtest(bundle: Bundle, days: Sequence[MarketDay], parents: NDArray[np.void], config: ExecutionConfig) -> Backtest:
    """Work `parents` (PARENT_DTYPE) with `bundle` in the environment of `config`."""
    policy = RecordingPolicy(bundle)
    found = run_policy(policy, days, parents, settings_for(policy, config), record=range(len(parents)))
    fills: list[list[Fill]] = [[] for _ in range(len(parents))]
    for fill in found.fills:
        fills[int(fill["episode"])].append((int(fill["ts_ns"]), int(fill["price_ticks"]), int(fill["lots"])))
    return Backtest(found.rows, [sorted(item) for item in fills], policy.seen, policy.acted)
