"""Many execution episodes stepped in one compiled call: `ExecutionEnv`, vectorised natively."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.execution.config import ExecutionConfig
from training.execution.env import Observation, action_space, observation_space
from training.execution.steppers import make_stepper
from training.execution.stepping import episode_infos
from training.market.day import MarketDay


class ExecutionVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """`num_envs` episodes of ExecutionEnv side by side; its class docstring is the specification of one.

    Observations are batched: `{"observation": (N, D) float32, "action_mask": (N, 4) float32}`. Every step returns fresh
    arrays, so that a caller may keep them; writing them costs less than a tenth of a step. Actions are `(N,)` integers,
    or `(N, 2)` floats of the continuous set.

    Autoreset is Gymnasium's NEXT_STEP: the step after an episode's end ignores its action, resets that episode with a
    newly drawn parent, and returns reward 0 with both flags False. `reset(options={"parents": PARENT_DTYPE (N,)})`
    starts given parents instead of drawn ones, in the reactive world in its markets 0 to N - 1 or those of
    `options["markets"]`. Infos hold, where episodes ended, `(N,)` arrays of ExecutionEnv's infos
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
        self.single_action_space = action_space(self.config)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._stepper = make_stepper(days, self.config, num_envs)
        self._np_random, self._np_random_seed = seeding.np_random(seed)
        self._stepper.seed(self._np_random)

    @property
    def parents(self) -> NDArray[np.void]:
        """The parents at work, PARENT_DTYPE `(N,)`; where an episode has just ended, the one it worked."""
        return self._stepper.parents.copy()

    @property
    def bytes_per_row(self) -> float:
        """Resident bytes of the days that all episodes share over the rows of their books; worlds of history alone."""
        return self._stepper.engine.tape.bytes_per_row

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every episode anew; an int `seed` (of a list, the first) seeds the one stream that draws parents."""
        first = seed[0] if isinstance(seed, list) else seed
        if first is not None:
            self._np_random, self._np_random_seed = seeding.np_random(first)
            self._stepper.seed(self._np_random)
        parents = (options or {}).get("parents")
        if parents is None:
            out, masks = self._stepper.draw()
        else:
            self._stepper.start(parents, markets=(options or {}).get("markets"))
            out, masks = self._stepper.observe()
        return {"observation": out, "action_mask": masks}, {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all episodes that run and reset those that ended in the step before."""
        out, masks, rewards, terminated = self._stepper.step(actions)
        infos = self._infos(terminated) if terminated.any() else {}
        return {"observation": out, "action_mask": masks}, rewards, terminated, np.zeros(self.num_envs, bool), infos

    def _infos(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for name, column in episode_infos(self._stepper.engine.states).items():
            infos[name] = np.where(ended, column, 0.0)
            infos[f"_{name}"] = ended.copy()
        return infos
