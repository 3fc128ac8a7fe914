"""An RLlib EnvRunner that steps a native VectorEnv and hands over whole columns instead of one object a step."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

EnvFactory = Callable[[int, int], gym.vector.VectorEnv]
"""`(num_envs, seed) -> VectorEnv` whose observations are `{"observation": (N, D), "action_mask": (N, A)}`."""

Columns2d = dict[str, NDArray[Any]]


def resets_in_next_step(env: gym.vector.VectorEnv) -> bool:
    """True where the step after an episode's end only resets; False where the ending step itself does."""
    return AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)) == AutoresetMode.NEXT_STEP


class ColumnEnvRunner(SingleAgentEnvRunner):
    """Samples `rollout_fragment_length` steps of every sub-environment as arrays, then cuts them into episodes.

    RLlib's stock runner makes Python objects for each step of each environment; this one makes one
    `SingleAgentEpisode` a chunk, over views of `(T, N, ...)` arrays. Observations go to the module as they are: no
    env-to-module connector runs, because normaliser and mask are in the module. `config.env_config["make"]` is an
    `EnvFactory` (`config.env` only has to be an environment class).
    Both autoreset modes of Gymnasium are understood; with SAME_STEP an episode must end by termination.
    """

    env: Any

    @override(SingleAgentEnvRunner)
    def make_env(self) -> None:
        """Build the vector environment with the factory in `config.env_config`."""
        if self.env is not None:
            self.env.close()
        self.num_envs = int(self.config.num_envs_per_env_runner)
        self.env = self.config.env_config["make"](self.num_envs, self._seed or 0)
        self._resets_in_next_step = resets_in_next_step(self.env)
        self._random = np.random.default_rng([self._seed or 0, 0x5A11])
        self._needs_initial_reset = True

    def _begin(self) -> None:
        """Start all sub-environments afresh; seeded at the first time only, as Gymnasium recommends."""
        seed = self._seed if self._needs_initial_reset else None
        self._observation, _ = self._try_env_reset(seed=seed, options=None)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)  # of the episode under way
        self._returns = np.zeros(self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)  # the next step only resets
        self._needs_initial_reset = False

    @override(SingleAgentEnvRunner)
    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        if num_timesteps is None:
            raise NotImplementedError("this runner samples steps: set batch_mode to truncate_episodes")
        if force_reset or self._needs_initial_reset:
            self._begin()
        columns = self._collect(num_timesteps, explore, random_actions)
        episodes = self._cut(columns)
        steps = int(columns["valid"].sum())
        done = int((columns["terminated"] | columns["truncated"])[columns["valid"]].sum())
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        # Without this the algorithm's step count stands still and `train()` never returns.
        self._increase_sampled_metrics(steps, done)
        return episodes

    def _collect(self, num_timesteps: int, explore: bool, random_actions: bool) -> Columns2d:
        """Step until `num_timesteps` were taken in all; columns `(T, N, ...)`, observations `(T + 1, N, ...)`."""
        start_t = self._steps.copy()
        rows: list[Columns2d] = []
        taken = 0
        while taken < num_timesteps:
            actions, logp, logits = self._act(explore, random_actions)
            row = {name: value.copy() for name, value in self._observation.items()}
            row |= {"actions": actions, "logp": logp, "logits": logits, "valid": ~self._ended}
            self._observation, rewards, terminated, truncated, _ = self._try_env_step(actions)
            row |= {"rewards": np.asarray(rewards, dtype=np.float32), "terminated": terminated.copy()}
            row |= {"truncated": truncated.copy()}
            taken += int(row["valid"].sum())  # a step that only reset a sub-environment is no step
            self._follow_episodes(rewards, terminated | truncated)
            rows.append(row)
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        for name, value in self._observation.items():
            columns[name] = np.concatenate([columns[name], value[None]])
        return columns | {"start_t": start_t}

    def _act(self, explore: bool, random_actions: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Actions (N,), their log probabilities (N,) and the masked logits (N, A)."""
        mask = self._observation["action_mask"]
        if random_actions:
            logits = np.where(mask > 0.5, 0.0, -1.0e9).astype(np.float32)
        else:
            batch = {Columns.OBS: {name: torch.from_numpy(value) for name, value in self._observation.items()}}
            forward = self.module.forward_exploration if explore else self.module.forward_inference
            logits = forward(batch)[Columns.ACTION_DIST_INPUTS].cpu().numpy()
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        if explore or random_actions:
            # Gumbel-max: argmax of logits plus Gumbel noise is a draw from the softmax.
            noise = -np.log(-np.log(self._random.random(logits.shape) + 1e-300))
            actions = (log_probabilities + noise).argmax(axis=1)
        else:
            actions = logits.argmax(axis=1)
        logp = np.take_along_axis(log_probabilities, actions[:, None], axis=1)[:, 0]
        return actions, logp, logits

    def _follow_episodes(self, rewards: NDArray[Any], done: NDArray[np.bool_]) -> None:
        """Keep count of each sub-environment's episode and log those that ended."""
        live = ~self._ended
        self._steps[live] += 1
        self._returns[live] += rewards[live]
        finished = np.flatnonzero(done & live)
        for index in finished:
            self._log_episode_metrics(int(self._steps[index]), float(self._returns[index]), 0.0)
        self._steps[finished] = 0
        self._returns[finished] = 0.0
        self._ended = (done & live) if self._resets_in_next_step else np.zeros_like(done)

    def _cut(self, columns: Columns2d) -> list[SingleAgentEpisode]:
        """Episodes and chunks of episodes, one sub-environment after the other, in time order."""
        episodes = []
        done = columns["terminated"] | columns["truncated"]
        length = len(done)
        for env_index in range(self.num_envs):
            start, started_at = 0, int(columns["start_t"][env_index])
            for t in range(length):
                if not columns["valid"][t, env_index]:
                    start = t + 1
                elif done[t, env_index] or t == length - 1:
                    episodes.append(self._episode(columns, env_index, start, t + 1, started_at))
                    start, started_at = t + 1, 0
        return episodes

    def _episode(
        self, columns: Columns2d, env_index: int, start: int, stop: int, started_at: int
    ) -> SingleAgentEpisode:
        def buffer(name: str, until: int) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(columns[name][start:until, env_index], lookback=0)

        observations = InfiniteLookbackBuffer(
            {name: columns[name][start : stop + 1, env_index] for name in self._observation}, lookback=0
        )
        rows = stop - start
        return SingleAgentEpisode(
            # RLlib's own ids are random; these are unique within the batch and the same in every run.
            id_=f"{env_index}.{start}",
            observations=observations,
            infos=InfiniteLookbackBuffer([{}] * (rows + 1), lookback=0),
            actions=buffer("actions", stop),
            rewards=buffer("rewards", stop),
            extra_model_outputs={
                Columns.ACTION_LOGP: buffer("logp", stop),
                Columns.ACTION_DIST_INPUTS: buffer("logits", stop),
                WEIGHTS_SEQ_NO: InfiniteLookbackBuffer(np.full(rows, self._weights_seq_no), lookback=0),
            },
            terminated=bool(columns["terminated"][stop - 1, env_index]),
            truncated=bool(columns["truncated"][stop - 1, env_index]),
            t_started=started_at,
            len_lookback_buffer=0,
        )

    @override(EnvRunner)
    def get_metrics(self) -> Any:
        """Metrics since the last call; episodes were logged as they ended."""
        return self.metrics.reduce()
