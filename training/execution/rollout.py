"""What the column runner samples: steps of many sub-environments side by side, as arrays, and their advantages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Advantages(NamedTuple):
    """Generalised advantage estimates and value targets of a rollout, both `(T, N) float64`, reward units."""

    advantages: NDArray[np.float64]
    targets: NDArray[np.float64]


@dataclass(frozen=True)
class Rollout:
    """`T` steps of `N` sub-environments in time order; RLlib passes it on in place of a list of episodes.

    Row t holds what was seen before step t, what was done, and what followed; observations have one row more, what was
    seen after the last step. A row that is not `valid` only reset its sub-environment. Where an episode was truncated
    and the same step reset it, `last_seen` holds the observation that it ended with. Its length is the number of steps
    that `chosen` marks: all valid ones, or fewer where several learners share one rollout.
    """

    observation: Floats  # (T + 1, N, D)
    action_mask: Floats  # (T + 1, N, A)
    actions: NDArray[Any]  # (T, N) int64, or (T, N, K) float32
    logp: Floats  # (T, N)
    rewards: Floats  # (T, N)
    terminated: Flags  # (T, N)
    truncated: Flags  # (T, N)
    valid: Flags  # (T, N)
    chosen: Flags  # (T, N)
    started: NDArray[np.int64]  # (N,) steps of the episode under way before the first row
    last_seen: tuple[tuple[int, int, Floats, Floats], ...] = ()  # (t, n, observation (D,), mask (A,))
    weights: int = 0  # sequence number of the policy's weights

    def __len__(self) -> int:
        """Number of chosen steps."""
        return int(self.chosen.sum())

    def __getitem__(self, part: slice) -> Self:
        """The steps that `part` chooses, counted one sub-environment after the other."""
        return self.slice(part)

    def slice(self, part: slice, **_: Any) -> Self:
        """As `rollout[part]`; whole columns are kept where one of their steps is, so that advantages do not change."""
        columns, rows = np.nonzero(self.chosen.T)
        kept = np.zeros_like(self.chosen)
        kept[rows[part], columns[part]] = True
        used = np.flatnonzero(kept.any(axis=0))
        place = {int(n): at for at, n in enumerate(used)}
        wide = {name: getattr(self, name)[:, used] for name in _COLUMNS}
        last = tuple((t, place[n], seen, mask) for t, n, seen, mask in self.last_seen if n in place)
        return replace(self, **wide, chosen=kept[:, used], started=self.started[used], last_seen=last)

    @property
    def ends(self) -> Flags:
        """`(T, N)`: the episode ended with this step."""
        return (self.terminated | self.truncated) & self.valid

    def gae(self, values: NDArray[np.floating[Any]], last_values: Floats, gamma: float, lambda_: float) -> Advantages:
        """Generalised advantage estimation (Schulman et al. 2016, eq. 16) and value targets, advantage plus value.

        `values (T + 1, N)` are those of `observation`, `last_values` those of `last_seen`. Beyond a termination nothing
        is worth anything; a truncated episode, and one that goes on after the last row, is worth what its last
        observation promises.
        """
        value = np.asarray(values, np.float64)
        follows = value[1:].copy()
        for (t, n, *_), seen in zip(self.last_seen, last_values, strict=True):
            follows[t, n] = seen
        delta = self.rewards + gamma * np.where(self.terminated, 0.0, follows) - value[:-1]
        decay = np.where(self.ends, 0.0, gamma * lambda_)
        advantages = np.zeros_like(delta)
        ahead = np.zeros(delta.shape[1])
        for t in reversed(range(len(delta))):
            # A row that only resets lies between two episodes: nothing passes through it.
            ahead = np.where(self.valid[t], delta[t] + decay[t] * ahead, 0.0)
            advantages[t] = ahead
        return Advantages(advantages, advantages + value[:-1])

    def episodes(self) -> "Iterator[SingleAgentEpisode]":
        """RLlib's episodes and chunks of them, views of the columns, for its own connectors."""
        ends = self.ends
        for n in range(ends.shape[1]):
            start, before = 0, int(self.started[n])
            for t in range(len(ends)):
                if not self.valid[t, n]:
                    start = t + 1
                elif ends[t, n] or t == len(ends) - 1:
                    yield self._episode(n, start, t + 1, before)
                    start, before = t + 1, 0

    def _episode(self, n: int, start: int, stop: int, before: int) -> "SingleAgentEpisode":
        """Steps `start` to `stop` of sub-environment `n`, of an episode that had taken `before` steps."""
        from ray.rllib.core.columns import Columns
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode
        from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
        from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

        def buffer(column: Any) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(column, lookback=0)

        rows = stop - start
        seen = {name: getattr(self, name)[start : stop + 1, n] for name in ("observation", "action_mask")}
        for t, column, observation, mask in self.last_seen:
            if (t, column) == (stop - 1, n):
                seen = {name: value.copy() for name, value in seen.items()}
                seen["observation"][-1], seen["action_mask"][-1] = observation, mask
        return SingleAgentEpisode(
            # RLlib's own ids are random; these are unique within the rollout and the same in every run.
            id_=f"{n}.{start}",
            observations=buffer(seen),
            infos=buffer([{}] * (rows + 1)),
            actions=buffer(self.actions[start:stop, n]),
            rewards=buffer(self.rewards[start:stop, n]),
            extra_model_outputs={
                Columns.ACTION_LOGP: buffer(self.logp[start:stop, n]),
                WEIGHTS_SEQ_NO: buffer(np.full(rows, self.weights)),
            },
            terminated=bool(self.terminated[stop - 1, n]),
            truncated=bool(self.truncated[stop - 1, n]),
            t_started=before,
            len_lookback_buffer=0,
        )


_COLUMNS = ("observation", "action_mask", "actions", "logp", "rewards", "terminated", "truncated", "valid")
