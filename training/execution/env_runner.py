"""An RLlib EnvRunner that steps a native VectorEnv and hands over whole columns instead of one object a step."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.annotations import override
from torch import Tensor

from training.execution.rollout import Rollout
from training.execution.tail import TailReward

EnvFactory = Callable[[int, int], gym.vector.VectorEnv]
"""`(num_envs, seed) -> VectorEnv` whose observations are `{"observation": (N, D), "action_mask": (N, A)}`."""


class Acting(Protocol):
    """What the runner asks of its module."""

    def act(
        self, observation: Tensor, action_mask: Tensor, explore: bool, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Tensor]:
        """Actions `(N,)` or `(N, K)` and their log probabilities `(N,)`, after `step` environment steps in all."""
        ...


def resets_in_next_step(env: gym.vector.VectorEnv) -> bool:
    """True where the step after an episode's end only resets; False where the ending step itself does."""
    return AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)) == AutoresetMode.NEXT_STEP


class ColumnEnvRunner(SingleAgentEnvRunner):
    """Samples `rollout_fragment_length` steps of every sub-environment straight into arrays.

    RLlib's stock runner makes Python objects for each step of each environment; this one makes one `Rollout` a sample,
    which learners of `training.execution.learners` and the replay buffer take whole. With `env_config["episodes"]` True
    it is cut into RLlib's own episodes, for stock learners. Observations go to the module as they are: no
    env-to-module connector runs, because normaliser and mask are in the module, which has to be `Acting`.
    `env_config["make"]` is an `EnvFactory` (`config.env` only has to be an environment class);
    `env_config["tail"]` a `TailReward`'s arguments where the objective is not the mean alone. Both autoreset modes of
    Gymnasium are understood. Several runners sample different parents: each has a seed of its own.
    """

    env: Any
    _steps_taken, _tail = 0, None  # of a runner that has no environment, because remote ones sample

    @override(SingleAgentEnvRunner)
    def make_env(self) -> None:
        """Build the vector environment with the factory in `config.env_config`."""
        if self.env is not None:
            self.env.close()
        torch.set_num_threads(1)  # a batch of a few hundred rows is slower on more
        self.num_envs = int(self.config.num_envs_per_env_runner)
        make: EnvFactory = getattr(self, "_make", None) or self.config.env_config["make"]
        self.env = make(self.num_envs, self._seed or 0)
        self._resets_in_next_step = resets_in_next_step(self.env)
        self._generator = torch.Generator().manual_seed((self._seed or 0) * 1_000_003 + 0x5A11)
        tail: Mapping[str, Any] | None = self.config.env_config.get("tail")
        self._tail = TailReward(**tail) if tail else None
        self._needs_initial_reset = True
        self._steps_taken = 0

    def use(self, make: EnvFactory) -> None:
        """Go on in environments of another factory, from fresh episodes; step count and value at risk stay."""
        if self.env is None:
            return
        steps, tail = self._steps_taken, self._tail
        self._make = make
        self.make_env()
        self._steps_taken, self._tail = steps, tail

    def restart(self, mark: int) -> None:
        """Begin fresh episodes and fresh noise that follow from seed, runner and `mark` alone.

        A training that goes on from a checkpoint does what the one that wrote it did.
        """
        if self.env is None:
            return
        seed = int(np.random.SeedSequence([self._seed or 0, mark]).generate_state(1)[0]) >> 1
        self._generator.manual_seed(seed)
        self._begin(seed)

    def progress(self) -> dict[str, Any]:
        """What `restart` does not set: steps taken, and the tail's value at risk and spread."""
        tail = self._tail and (self._tail.value_at_risk, self._tail.spread)
        return {"steps": self._steps_taken, "tail": tail}

    def set_progress(self, found: Mapping[str, Any]) -> None:
        """The inverse of `progress`."""
        self._steps_taken = found["steps"]
        if self._tail is not None:
            self._tail.value_at_risk, self._tail.spread = found["tail"]

    def _begin(self, seed: int | None = None) -> None:
        """Start all sub-environments afresh; seeded once where no seed is given, as Gymnasium recommends."""
        if seed is None and self._needs_initial_reset:
            seed = self._seed
        self._observation, _ = self._try_env_reset(seed=seed, options=None)
        self._steps = np.zeros(self.num_envs, np.int64)  # of the episode under way
        self._returns = np.zeros(self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)  # the next step only resets
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
    ) -> list[Any]:
        if num_timesteps is None:
            raise NotImplementedError("this runner samples steps: set batch_mode to truncate_episodes")
        if force_reset or self._needs_initial_reset:
            self._begin()
        with torch.inference_mode():
            rollout, finished = self._collect(num_timesteps, explore, random_actions)
        steps = int(rollout.valid.sum())
        self._steps_taken += steps
        self._log_finished(finished)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        # Without this the algorithm's step count stands still and `train()` never returns.
        self._increase_sampled_metrics(steps, len(finished))
        return list(rollout.episodes()) if self.config.env_config.get("episodes") else [rollout]

    def _collect(self, num_timesteps: int, explore: bool, random_actions: bool) -> tuple[Rollout, NDArray[np.float64]]:
        """Step until `num_timesteps` were taken in all; the rollout, and (length, return) of episodes that ended."""
        columns = self._columns(num_timesteps)
        started, taken, t = self._steps.copy(), 0, 0
        finished: list[NDArray[np.float64]] = []
        last_seen: list[Any] = []
        while taken < num_timesteps:
            if t == len(columns["valid"]):
                columns = {name: np.concatenate([value, np.empty_like(value)]) for name, value in columns.items()}
            row = {name: value[t] for name, value in columns.items()}
            for name, value in self._observation.items():
                row[name][...] = value
            np.logical_not(self._ended, out=row["valid"])
            actions, logp = self._act(row, explore, random_actions)
            row["actions"][...], row["logp"][...] = actions, logp
            self._observation, rewards, terminated, truncated, infos = self._try_env_step(row["actions"])
            row["terminated"][...], row["truncated"][...], row["rewards"][...] = terminated, truncated, rewards
            taken += self.num_envs - int(np.count_nonzero(self._ended))  # a step that only reset is no step
            if not self._resets_in_next_step and truncated.any():
                last_seen += _last_seen(t, truncated & ~terminated, infos)
            self._follow(row, rewards, terminated | truncated, finished)
            t += 1
        whole = {name: value[:t] for name, value in columns.items()}
        for name, value in self._observation.items():
            whole[name] = np.concatenate([whole[name], value[None]])
        rollout = Rollout(
            **whole,
            chosen=whole["valid"],
            started=started,
            last_seen=tuple(last_seen),
            weights=self._weights_seq_no,
        )
        return rollout, np.concatenate(finished) if finished else np.zeros((0, 2))

    def _columns(self, num_timesteps: int) -> dict[str, NDArray[Any]]:
        """Room for the steps and for an eighth as many resets."""
        rows, n = -(-num_timesteps // self.num_envs), self.num_envs
        shape = (rows + rows // 8 + 1, n)
        action = self.env.single_action_space
        kinds: dict[str, np.dtype[Any]] = {
            "actions": np.dtype(np.int64) if action.shape == () else np.dtype(np.float32)
        }
        kinds |= {name: np.dtype(np.float32) for name in ("logp", "rewards")}
        kinds |= {name: np.dtype(np.bool_) for name in ("terminated", "truncated", "valid")}
        columns: dict[str, NDArray[Any]] = {
            name: np.empty((*shape, *(action.shape if name == "actions" else ())), kind) for name, kind in kinds.items()
        }
        for name, value in self._observation.items():
            columns[name] = np.empty((shape[0], *value.shape), np.float32)
        return columns

    def _act(
        self, row: Mapping[str, NDArray[Any]], explore: bool, random_actions: bool
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Actions and their log probabilities for the row's observations and masks."""
        observation, mask = (torch.from_numpy(row[name]).to(self._device) for name in ("observation", "action_mask"))
        step = self._steps_taken * max(1, self.config.num_env_runners)
        if random_actions:
            actions, logp = _at_random(self.env.single_action_space, mask, self._generator)
        else:
            actions, logp = self.module.act(observation, mask, explore, self._generator, step)
        return actions.cpu().numpy(), logp.cpu().numpy()

    def _follow(
        self,
        row: Mapping[str, NDArray[Any]],
        rewards: NDArray[Any],
        done: NDArray[np.bool_],
        finished: list[NDArray[np.float64]],
    ) -> None:
        """Keep count of each sub-environment's episode, shape the reward's tail, collect the episodes that ended."""
        live = row["valid"]
        before = self._returns
        after = np.where(live, before + rewards, before)
        if self._tail is not None:
            row["rewards"][...] = np.where(live, self._tail.shape(before, after), 0.0)
        self._steps += live
        ended = done & live
        if ended.any():
            finished.append(np.column_stack([self._steps[ended], after[ended]]))
            if self._tail is not None:
                self._tail.learn(after[ended])
            self._steps[ended] = 0
            after[ended] = 0.0
        self._returns = after
        self._ended = ended if self._resets_in_next_step else np.zeros_like(ended)

    def _log_finished(self, finished: NDArray[np.float64]) -> None:
        """RLlib's metrics of the episodes that ended, logged once a sample: a call an episode costs more than it."""
        if not len(finished):
            return
        length, reward = finished.T
        window = {"window": 1}
        for name, value in (("episode_len", length), ("episode_return", reward)):
            self.metrics.log_value(f"{name}_mean", float(value.mean()), **window)
            self.metrics.log_value(f"{name}_min", float(value.min()), reduce="min", **window)
            self.metrics.log_value(f"{name}_max", float(value.max()), reduce="max", **window)

    @override(EnvRunner)
    def get_metrics(self) -> Any:
        """Metrics since the last call; episodes were logged as they ended."""
        return self.metrics.reduce()


def _at_random(space: gym.Space[Any], mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform actions: over the allowed ones, or over the box."""
    if isinstance(space, gym.spaces.Box):
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        share = torch.rand((len(mask), *space.shape), generator=generator)
        return low + share * (high - low), -torch.log(high - low).sum().expand(len(mask))
    weights = (mask.cpu() > 0.5).float()
    actions = torch.multinomial(weights, 1, generator=generator).squeeze(1)
    return actions, -torch.log(weights.sum(dim=1))


def _last_seen(t: int, cut: NDArray[np.bool_], infos: Mapping[str, Any]) -> list[Any]:
    """Observations with which truncated episodes ended that the same step reset, from Gymnasium's `final_obs`."""
    if "final_obs" not in infos:
        raise ValueError("a SAME_STEP environment truncated an episode without `final_obs` in its infos")
    found = ((int(n), infos["final_obs"][n]) for n in np.flatnonzero(cut))
    return [(t, n, np.asarray(seen["observation"]), np.asarray(seen["action_mask"])) for n, seen in found]
