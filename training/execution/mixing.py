"""Vector environments made of others: several kinds of parents and markets side by side, and stacked observations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.stacking import ObservationStack

Observation = dict[str, NDArray[Any]]
Step = tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class MixedVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Vector environments of equal spaces in one: the first ones' episodes first, each with parents of its own kind.

    Normalised observations make a parent of 100 lots in five minutes and one of 10,000 in an hour look alike, so that
    one policy learns from all. Seeds differ from part to part.
    """

    def __init__(self, parts: Sequence[VectorEnv[Any, Any, Any]]) -> None:
        """Join `parts`; InputError where their spaces or their ways of resetting differ."""
        first = parts[0]
        for part in parts[1:]:
            same = part.single_action_space == first.single_action_space
            if not same or part.single_observation_space != first.single_observation_space:
                raise InputError("environments of different spaces cannot be mixed: give all the same action set")
        self.parts = list(parts)
        self.metadata = first.metadata
        self.num_envs = sum(part.num_envs for part in parts)
        self.single_observation_space, self.single_action_space = (
            first.single_observation_space,
            first.single_action_space,
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._bounds = np.cumsum([0, *(part.num_envs for part in parts)])

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset every part; part k with `seed + k`."""
        first = seed[0] if isinstance(seed, list) else seed
        found = [
            part.reset(seed=None if first is None else first + 7_919 * k, options=options)
            for k, part in enumerate(self.parts)
        ]
        return _joined([state for state, _ in found]), {}

    def step(self, actions: NDArray[Any]) -> Step:
        """Step every part with its share of the actions."""
        found = [
            part.step(actions[low:high])
            for part, low, high in zip(self.parts, self._bounds[:-1], self._bounds[1:], strict=True)
        ]
        rewards, terminated, truncated = (np.concatenate([step[i] for step in found]) for i in (1, 2, 3))
        return _joined([step[0] for step in found]), rewards, terminated, truncated, self._infos([s[4] for s in found])

    def _infos(self, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for part, (low, high) in zip(found, zip(self._bounds[:-1], self._bounds[1:], strict=True), strict=True):
            for name, values in part.items():
                whole = infos.setdefault(name, np.zeros(self.num_envs, np.asarray(values).dtype))
                whole[low:high] = values
        return infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close every part."""
        for part in self.parts:
            part.close(**kwargs)


class StackedVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Shows the last `depth` observations of each episode instead of the present one, as serving does."""

    def __init__(self, env: VectorEnv[Any, Any, Any], depth: int) -> None:
        """Widen the observation space; the mask stays that of the present."""
        self.env, self.num_envs, self.metadata = env, env.num_envs, env.metadata
        self.single_action_space, self.action_space = env.single_action_space, env.action_space
        inner = env.single_observation_space
        assert isinstance(inner, spaces.Dict)
        seen = inner["observation"]
        assert isinstance(seen, spaces.Box)
        wide = spaces.Box(np.tile(seen.low, depth), np.tile(seen.high, depth), dtype=np.float32)
        self.single_observation_space = spaces.Dict({"observation": wide, "action_mask": inner["action_mask"]})
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._stack = ObservationStack(depth)
        self._depth = depth

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset; every past is the first observation."""
        state, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._stack = ObservationStack(self._depth)
        return self._stacked(state), infos

    def step(self, actions: NDArray[Any]) -> Step:
        """Step; an episode that begins has no past but its first observation."""
        state, rewards, terminated, truncated, infos = self.env.step(actions)
        return self._stacked(state), rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close what it wraps."""
        self.env.close(**kwargs)

    def _stacked(self, state: Observation) -> Observation:
        return {**state, "observation": self._stack.push(state["observation"])}


def shared_out(num_envs: int, kinds: int) -> list[int]:
    """`num_envs` environments over `kinds` kinds, as evenly as whole numbers allow, none without one."""
    if num_envs < kinds:
        raise InputError(f"agent num_envs {num_envs} is less than its {kinds} variants: each needs one")
    return [(num_envs * (k + 1)) // kinds - (num_envs * k) // kinds for k in range(kinds)]


def _joined(states: Sequence[Observation]) -> Observation:
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}
