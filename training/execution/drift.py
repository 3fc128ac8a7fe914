"""Rewards without the market's drift: what lots that stay open gain or lose by it is left out of training."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from serving.contracts.observation import MID_MOVE_BPS, REMAINING_FRACTION
from training.execution.mixing import Observation, Step


class DriftlessVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """A vector environment that marks each fill at the mid `lag` steps after its own, and what is open not at all.

    The reward of a step counts the mid's move for all lots that were open when it began. Of a lot that will stay open
    for long that is noise, which has zero mean where the mid is a martingale and is nearly all of the variance: a
    parent's cost has a deviation of bps, what a policy changes is hundredths. Here the move counts only for lots that
    were filled since `lag` steps before, which is what their fills were worth: the market that fills an order goes on
    against it for a while. What a forecast says of the market beyond that is lost to the training, never to validation,
    which counts the whole shortfall. Only for markets that own orders do not move: elsewhere the drift is the policy's
    own doing.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], lag: int) -> None:
        """Wrap `env`, which resets in the step after an end; fills are marked `lag` steps after theirs has ended."""
        self.env, self.lag = env, lag
        self.metadata, self.num_envs = env.metadata, env.num_envs
        self.single_observation_space, self.single_action_space = env.single_observation_space, env.single_action_space
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset the environment."""
        first = seed[0] if isinstance(seed, list) else seed
        state, infos = self.env.reset(seed=first, options=options)
        self._ended = np.zeros(self.num_envs, bool)
        self._mid = state["observation"][:, MID_MOVE_BPS].astype(np.float64)
        self._open = np.repeat(state["observation"][None, :, REMAINING_FRACTION], self.lag + 1, axis=0)
        return state, infos

    def step(self, actions: NDArray[Any]) -> Step:
        """Step the environment, without the drift of what was open `lag` steps before."""
        state, rewards, terminated, truncated, infos = self.env.step(actions)
        mid = state["observation"][:, MID_MOVE_BPS].astype(np.float64)
        left = state["observation"][:, REMAINING_FRACTION]
        drift = np.where(self._ended, 0.0, self._open[0] * (mid - self._mid))  # a step that only resets has none
        self._open = np.concatenate([self._open[1:], left[None]])
        self._open[:, self._ended] = left[self._ended]
        self._mid, self._ended = mid, terminated | truncated
        return state, rewards + drift, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self.env.close(**kwargs)
