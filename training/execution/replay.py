"""A replay buffer of columns: transitions in arrays, drawn by priority from a sum tree in a few array operations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.utils.annotations import override
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from training.execution.rollout import Rollout

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ReplayBatch:
    """`B` transitions; RLlib passes them on in place of a list of episodes."""

    observation: Floats  # (B, D)
    action_mask: Floats  # (B, A)
    actions: NDArray[np.int64]  # (B,)
    rewards: Floats  # (B,) discounted sum of the steps
    next_observation: Floats  # (B, D)
    next_mask: Floats  # (B, A)
    terminated: NDArray[np.bool_]  # (B,)
    steps: Floats  # (B,) steps that `rewards` sums; the next value counts gamma to this power
    weights: Floats  # (B,) importance weights, at most 1

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.actions)


class SumTree:
    """Non-negative weights and their sums in a binary tree: drawing by weight, and changing one, take log time."""

    def __init__(self, capacity: int) -> None:
        """Room for at least `capacity` weights, all 0."""
        self.levels = max(1, (capacity - 1).bit_length())
        self.first = 1 << self.levels  # the first leaf
        self.sums = np.zeros(2 * self.first)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self.sums[1])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Weights at `places`."""
        return self.sums[self.first + places]

    def set(self, places: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Replace weights; of equal places the last counts."""
        at = self.first + places
        self.sums[at] = weights
        for _ in range(self.levels):
            at = np.unique(at >> 1)
            self.sums[at] = self.sums[2 * at] + self.sums[2 * at + 1]

    def find(self, marks: NDArray[np.float64]) -> NDArray[np.int64]:
        """Places whose cumulated weights enclose `marks`, each in [0, total)."""
        at, rest = np.ones(len(marks), np.int64), marks.copy()
        for _ in range(self.levels):
            left = self.sums[2 * at]
            # An empty right side is never entered, whatever rounding left of the mark.
            right = (rest >= left) & (self.sums[2 * at + 1] > 0.0)
            rest -= np.where(right, left, 0.0)
            at = 2 * at + right
        return at - self.first


class ColumnReplayBuffer(PrioritizedEpisodeReplayBuffer):
    """RLlib's prioritised episode buffer (Schaul et al. 2016) for rollouts instead of episodes.

    Every step is stored once with what followed it after `n_step` steps, fewer where its episode or its rollout ended
    before; `steps` says how many, and the target discounts by that. A step's priority is its last absolute TD error,
    the largest seen so far until it was drawn. Equal seeds and rollouts give equal samples.
    """

    def __init__(
        self,
        capacity: int = 100_000,
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        n_step: int = 1,
        gamma: float = 1.0,
        seed: int = 0,
        **_: Any,
    ) -> None:
        """`alpha` 0 draws evenly; `beta` is the share of the bias that importance weights take back."""
        EpisodeReplayBuffer.__init__(self, capacity=capacity)
        self._alpha, self._beta, self._n_step, self._gamma = alpha, beta, n_step, gamma
        self._columns: dict[str, NDArray[Any]] = {}
        self._tree = SumTree(capacity)
        self._random = np.random.default_rng(seed)
        self._largest = 1.0
        self._added = 0
        self._drawn = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Transitions in the buffer."""
        return min(self._added, self.capacity)

    @override(PrioritizedEpisodeReplayBuffer)
    def add(self, episodes: Any, weight_per_episode: Any = None) -> None:
        """Store every step of the rollouts, over the oldest ones where there is no room."""
        for rollout in episodes if isinstance(episodes, list) else [episodes]:
            rows = transitions(rollout, self._n_step, self._gamma)
            count = len(rows["actions"])
            if not self._columns:
                self._columns = {k: np.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in rows.items()}
            places = (self._added + np.arange(count)) % self.capacity
            for name, values in rows.items():
                self._columns[name][places] = values
            self._tree.set(places, np.full(count, self._largest**self._alpha))
            self._added += count

    @override(PrioritizedEpisodeReplayBuffer)
    def sample(self, num_items: int | None = None, *, beta: float | None = None, **_: Any) -> list[ReplayBatch]:  # type: ignore[override]
        """One batch of `num_items` steps, one from each of as many equal parts of the priorities' sum."""
        count = int(num_items or 1)
        marks = (np.arange(count) + self._random.random(count)) * (self._tree.total / count)
        places = self._drawn = self._tree.find(marks)
        share = self._tree[places] / self._tree.total
        importance = (share * len(self)) ** -(self._beta if beta is None else beta)
        columns = {name: values[places] for name, values in self._columns.items()}
        self.sampled_timesteps += count
        return [ReplayBatch(**columns, weights=(importance / importance.max()).astype(np.float32))]

    @override(PrioritizedEpisodeReplayBuffer)
    def update_priorities(self, priorities: Any, module_id: Any = None) -> None:
        """Absolute TD errors of the last sample, in its order."""
        errors = np.abs(np.asarray(priorities, np.float64)) + 1e-6
        self._largest = max(self._largest, float(errors.max()))
        self._tree.set(self._drawn, errors**self._alpha)

    @override(PrioritizedEpisodeReplayBuffer)
    def get_metrics(self) -> Any:
        """RLlib's metrics of this buffer since the last call."""
        self.metrics.log_value("num_timesteps_stored", len(self), window=1)
        return self.metrics.reduce()

    @override(PrioritizedEpisodeReplayBuffer)
    def get_state(self) -> dict[str, Any]:
        """All that the next samples depend on."""
        return {
            "columns": {name: values[: len(self)].copy() for name, values in self._columns.items()},
            "weights": self._tree[np.arange(len(self))],
            "random": self._random.bit_generator.state,
            "largest": self._largest,
            "added": self._added,
        }

    @override(PrioritizedEpisodeReplayBuffer)
    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        self._added, self._largest = state["added"], state["largest"]
        self._random.bit_generator.state = state["random"]
        self._columns = {k: np.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in state["columns"].items()}
        for name, values in state["columns"].items():
            self._columns[name][: len(values)] = values
        self._tree = SumTree(self.capacity)
        if len(self):
            self._tree.set(np.arange(len(self)), state["weights"])


def transitions(rollout: Rollout, n_step: int, gamma: float) -> dict[str, NDArray[Any]]:
    """Every valid step of a rollout with the discounted reward of the `n_step` steps from it, and what it led to."""
    length = len(rollout.valid)
    ends = rollout.ends
    after, mask_after = rollout.observation[1:], rollout.action_mask[1:]
    if rollout.last_seen:
        after, mask_after = after.copy(), mask_after.copy()
        for t, n, observation, mask in rollout.last_seen:
            after[t, n], mask_after[t, n] = observation, mask
    rows = np.broadcast_to(np.arange(length)[:, None], ends.shape)
    columns = np.broadcast_to(np.arange(ends.shape[1]), ends.shape)
    last, total = rows.copy(), rollout.rewards.astype(np.float64)
    going = ~ends
    for ahead in range(1, n_step):
        going = going & (rows + ahead < length)
        at = np.minimum(rows + ahead, length - 1)
        total += np.where(going, gamma**ahead * rollout.rewards[at, columns], 0.0)
        last = np.where(going, at, last)
        going = going & ~ends[at, columns]
    keep = rollout.valid
    last, columns = last[keep], columns[keep]
    return {
        "observation": rollout.observation[:-1][keep],
        "action_mask": rollout.action_mask[:-1][keep],
        "actions": rollout.actions[keep],
        "rewards": total[keep].astype(np.float32),
        "next_observation": after[last, columns],
        "next_mask": mask_after[last, columns],
        "terminated": rollout.terminated[last, columns],
        "steps": (last - rows[keep] + 1).astype(np.float32),
    }
