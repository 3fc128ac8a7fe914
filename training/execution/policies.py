"""What a policy is: it sees N parents in lockstep and sends one message each; and policies made of actions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from training.execution.config import ExecutionConfig
from training.market.day import MarketDay
from training.market.orders import INSTRUCTION_DTYPE

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DecisionBatch:
    """The present of N parents at decision `step` of `config.slices`; arrays are `(N,) int64`, sides are 1 or -1.

    Nothing in it is later than `now_ns`. Prices are ticks, sizes lots; 0 where a side of the book is empty.
    """

    days: Sequence[MarketDay]
    config: ExecutionConfig
    step: int
    substep: int  # decision within the slice, for policies with more than one a slice
    day: Ints
    side: Ints
    lots: Ints
    filled: Ints
    start_ns: Ints
    now_ns: Ints
    arrival_mid2: Ints
    own_px: Ints
    own_sz: Ints
    opp_px: Ints
    opp_sz: Ints
    rest_px: Ints
    rest_lots: Ints
    rest_ahead: Ints
    traded: Ints | None = None  # lots that others traded since the arrival, where the market is not the recorded day's
    planted: Floats | None = None  # signal of the reactive market, in [-1, 1]: to measure its worth, for no baseline

    def scheduled(self, step: int) -> Ints:
        """Lots that the even schedule has sent by the end of slice `step`."""
        return self.lots * min(max(step + 1, 0), self.config.slices) // self.config.slices

    def due(self) -> Ints:
        """Lots that the even schedule still wants by the end of this slice."""
        return np.maximum(self.scheduled(self.step) - self.filled, 0)

    def message(self) -> NDArray[np.void]:
        """Empty instructions: nothing is sent until `send` is set."""
        return np.zeros(len(self.side), INSTRUCTION_DTYPE)


class Policy(Protocol):
    """A way of working parents; stateless between runs."""

    name: str
    substeps: int  # decisions per slice

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """One INSTRUCTION_DTYPE row per parent."""
        ...


DecideFn = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.int64]]


class ModelPolicy:
    """A policy of the four actions: observations `(N, D)` and masks `(N, 4)`, both float32, to actions `(N,) int64`.

    Trained agents and bundle 0 run through this; parents that are done are seen too and their actions ignored.
    """

    substeps = 1

    def __init__(self, name: str, decide_fn: DecideFn) -> None:
        """Wrap `decide_fn` under the `name` that results carry."""
        self.name = name
        self.act = decide_fn


class RandomPolicy(ModelPolicy):
    """Uniform over the possible actions, seeded: once a slice and at most a slice ahead, whatever the agent's pace.

    The more often it draws, the nearer it comes to crossing at once, so that its pace is part of what it is.
    """

    pace: ClassVar[dict[str, Any]] = {
        "ahead_slices": 1, "decisions_per_slice": 1, "decision_every_events": None, "wait_keeps": False,
    }  # fmt: skip

    def __init__(self, seed: int = 0) -> None:
        """Every run with this `seed` draws the same."""
        self._seed = seed
        super().__init__("random", self._draw)
        self.restart()

    def restart(self) -> None:
        """Begin the stream of draws anew, so that every run of the policy is the same."""
        self._rng = np.random.default_rng(self._seed)

    def _draw(self, observation: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.argmax(self._rng.random(mask.shape) * (mask > 0.5), axis=1).astype(np.int64)
