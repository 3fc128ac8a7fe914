"""Many execution episodes stepped in one compiled call: `ExecutionEnv`, vectorised natively."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from training.execution.actions import step_batch, step_settings
from training.execution.config import ExecutionConfig
from training.execution.env import Observation, checked_observe, observation_space
from training.execution.parents import ParentSampler, check_parents
from training.market.day import MarketDay
from training.market.engine import Engine

INFO_FIELDS = ("is_bps", "risk", "passive_share", "masked", "extrapolated_lots")


class ExecutionVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` episodes of ExecutionEnv side by side; its class docstring is the specification of one.

    Observations are batched: `{"observation": (N, D) float32, "action_mask": (N, 4) float32}`, fresh arrays each step.
    Autoreset is Gymnasium's NEXT_STEP: the step after an episode's end ignores its action, resets that episode with a
    newly drawn parent, and returns reward 0 with both flags False. `reset(options={"parents": PARENT_DTYPE (N,)})`
    starts given parents instead of drawn ones. Infos hold, where episodes ended, `(N,)` arrays of ExecutionEnv's infos
    with Gymnasium's `_name` masks. All days and books are shared between the episodes.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        days: Sequence[MarketDay],
        config: ExecutionConfig | None = None,
        num_envs: int = 64,
        seed: int | None = None,
    ) -> None:
        """`num_envs` episodes over `days`; `seed` starts the generator that draws parents."""
        if num_envs < 1:
            raise InputError(f"num_envs {num_envs} must be at least 1")
        self.config = config or ExecutionConfig()
        self.num_envs = num_envs
        self.single_observation_space = observation_space()
        self.single_action_space = spaces.Discrete(len(ACTION_NAMES))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._days = list(days)
        self._sampler = ParentSampler(self._days, self.config)
        self._engine = Engine(self._days, num_envs, self.config.latency_ns, self.config.fill_model)
        self._settings = step_settings(self.config)
        self._ended = np.zeros(num_envs, bool)
        self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every episode anew; an int `seed` (of a list, the first) seeds the one generator that draws parents."""
        first = seed[0] if isinstance(seed, list) else seed
        if first is not None:
            self._np_random, self._np_random_seed = seeding.np_random(first)
        parents = (options or {}).get("parents")
        if parents is None:
            parents = self._sampler.draw(self.np_random, self.num_envs)
        else:
            check_parents(self._days, parents, self.config)
        self._engine.start(parents)
        self._ended[:] = False
        return self._observe(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all episodes that run and reset those that ended in the step before."""
        engine = self._engine
        rewards = np.zeros(self.num_envs)
        step_batch(
            engine.tape, engine.states, np.asarray(actions, np.int64), self._settings, engine.taken_px,
            engine.taken_lots, engine.fill_rows, engine.fill_count, rewards,
        )  # fmt: skip
        terminated = (engine.states["done"] == 1) & ~self._ended
        infos = self._infos(terminated) if terminated.any() else {}
        again = np.flatnonzero(self._ended)
        if len(again):
            engine.start(self._sampler.draw(self.np_random, len(again)), again)
        self._ended = terminated.copy()
        return self._observe(), rewards, terminated, np.zeros(self.num_envs, bool), infos

    def _observe(self) -> Observation:
        out = np.empty((self.num_envs, OBSERVATION_SIZE), np.float32)
        mask = np.empty((self.num_envs, len(ACTION_NAMES)), np.float32)
        checked_observe(self._engine, self._settings, out, mask)
        return {"observation": out, "action_mask": mask}

    def _infos(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        states = self._engine.states
        lots = np.maximum(states["lots"], 1)
        columns = (
            states["mark_bps"],
            states["penalty"],
            states["passive_lots"] / lots,
            states["masked"].astype(float),
            states["extrapolated_lots"].astype(float),
        )
        infos: dict[str, Any] = {}
        for name, column in zip(INFO_FIELDS, columns, strict=True):
            infos[name] = np.where(ended, column, 0.0)
            infos[f"_{name}"] = ended.copy()
        return infos
