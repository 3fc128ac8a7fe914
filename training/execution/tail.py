"""A risk-averse objective: part mean, part conditional value at risk of an episode's cost, as rewards of steps."""

import numpy as np
from numpy.typing import NDArray


class TailReward:
    """Rewards that sum to `(1 - weight) x return - weight x (cost beyond its value at risk) / tail`.

    CVaR of the cost C = -return at level `tail` is `min over v of v + E[(C - v)+] / tail` (Rockafellar and Uryasev
    2000, eq. 4), attained where v is the value at risk. Between two moves of v, policy gradients on these rewards are
    the sampled CVaR gradient of Tamar, Glassner and Mannor (2015), spread over the steps as a difference of potentials,
    so that the discount must be 1. v follows the costs of finished episodes by stochastic quantile steps (Robbins and
    Monro 1951) whose size is scaled by their spread.
    """

    def __init__(self, weight: float, tail: float, rate: float = 0.02) -> None:
        """`weight` in (0, 1] goes to the tail; `tail` in (0, 1) is the share of the worst episodes it looks at."""
        if not 0.0 < weight <= 1.0 or not 0.0 < tail < 1.0:
            raise ValueError(f"weight {weight} must lie in (0, 1] and tail {tail} between 0 and 1")
        self.weight, self.tail, self.rate = weight, tail, rate
        self.value_at_risk: float | None = None  # of the cost, reward units; None before the first finished episode
        self.spread = 0.0

    def shape(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shaped rewards `(N,)` of a step that took the running returns `(N,)` from `before` to `after`."""
        return (1.0 - self.weight) * (after - before) + self.weight * (self._potential(after) - self._potential(before))

    def learn(self, returns: NDArray[np.float64]) -> None:
        """Move the value at risk towards the `1 - tail` quantile of the costs of these finished episodes."""
        cost = -returns
        if self.value_at_risk is None:
            self.value_at_risk = float(np.quantile(cost, 1.0 - self.tail))
            self.spread = float(np.abs(cost - self.value_at_risk).mean())
            return
        share = 1.0 - np.power(1.0 - self.rate, len(cost))  # many episodes at once move as far as one after the other
        self.spread += share * (float(np.abs(cost - self.value_at_risk).mean()) - self.spread)
        beyond = float((cost > self.value_at_risk).mean())
        self.value_at_risk += share * self.spread * (beyond - self.tail) / max(self.tail, 1.0 - self.tail)

    def _potential(self, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Minus the cost so far beyond the value at risk, over the tail's share."""
        level = 0.0 if self.value_at_risk is None else self.value_at_risk
        return -np.maximum(-returns - level, 0.0) / self.tail
