"""The market that an agent is raised in: environments over training days, fixed parents on the validation days."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.pipeline.leaves import LEAVES_FILE
from training.execution.agent_config import AgentConfig
from training.execution.config import NS, ExecutionConfig

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.vector import VectorEnv

    from training.execution.ppo import Policy
    from training.market.day import MarketDay

VALIDATION_SEED = 20_240_229
"""Draws the validation parents: one constant, so that every seed and every update is judged on the same ones."""


class ExecutionWorld:
    """Environments over the same market days. Copies and pickles carry paths, not days: those are read where needed."""

    def __init__(
        self,
        features_dir: Path,
        forecasts_dir: Path | None,
        partitions: Sequence[Partition],
        execution: ExecutionConfig,
        stack: int = 1,
        variants: Sequence[ExecutionConfig] = (),
        mark_after_s: float | None = None,
    ) -> None:
        """Name the days; nothing is read before the first environment. `variants` are mixed in place of `execution`.

        With `mark_after_s` the rewards of replay mark each fill at the mid so much later, and what is open not at all.
        """
        self.features_dir, self.forecasts_dir = features_dir, forecasts_dir
        self.partitions, self.execution = tuple(partitions), execution
        self.stack, self.variants, self.mark_after_s = stack, tuple(variants) or (execution,), mark_after_s

    @cached_property
    def days(self) -> "list[MarketDay]":
        """The market days, read once."""
        from training.market.day import load_market_days

        impact = any(config.world == "impact" for config in (self.execution, *self.variants))
        return load_market_days(self.features_dir, self.forecasts_dir, self.partitions, impact)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns that the observation and the signal model take from the features."""
        return self.days[0].feature_names

    def make_env(self, num_envs: int, seed: int) -> "VectorEnv[Any, Any, Any]":
        """A vector environment over the days, all variants in it; an `EnvFactory`."""
        from training.execution.mixing import MixedVectorEnv, StackedVectorEnv, shared_out
        from training.execution.vector_env import ExecutionVectorEnv

        parts = [
            self._weighed(ExecutionVectorEnv(self.days, execution, num_envs=count, seed=seed + k), execution)
            for k, (execution, count) in enumerate(
                zip(self.variants, shared_out(num_envs, len(self.variants)), strict=True)
            )
        ]
        env = parts[0] if len(parts) == 1 else MixedVectorEnv(parts)
        return env if self.stack == 1 else StackedVectorEnv(env, self.stack)

    def _weighed(self, env: "VectorEnv[Any, Any, Any]", execution: ExecutionConfig) -> "VectorEnv[Any, Any, Any]":
        if self.mark_after_s is None or execution.world != "replay":
            return env
        from training.execution.drift import DriftlessVectorEnv

        return DriftlessVectorEnv(env, round(self.mark_after_s * NS / execution.pause_ns))

    def with_variants(self, count: int) -> "ExecutionWorld":
        """The same world with its first `count` variants only; the days are shared."""
        world = copy.copy(self)
        world.variants = self.variants[:count]
        if "days" in self.__dict__:
            world.__dict__["days"] = self.days
        return world

    def spaces(self) -> "tuple[gym.Space[Any], gym.Space[Any]]":
        """Observation and action space of one episode."""
        env = self.make_env(len(self.variants), 0)
        return env.single_observation_space, env.single_action_space

    def fingerprint(self) -> str:
        """sha256 (hex) of the names and bytes of all files that the training reads."""
        digest = hashlib.sha256()
        sources: list[tuple[Path, tuple[str, ...]]] = [
            (self.features_dir, ("book.parquet", "features.parquet", LEAVES_FILE))
        ]
        if self.forecasts_dir is not None:
            sources.append((self.forecasts_dir, ("forecasts.parquet",)))
        for item in self.partitions:
            for root, names in sources:
                for name in names:
                    if name == LEAVES_FILE and not (item.folder(root) / name).exists():
                        continue  # only books that are known order by order have leaves
                    content = (item.folder(root) / name).read_bytes()
                    digest.update(f"{item.instrument_id} {item.date} {name} {len(content)}\n".encode())
                    digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Without the days: megabytes that another process reads from disk itself."""
        return {name: value for name, value in self.__dict__.items() if name != "days"}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: RLlib copies its configuration often, and a world never changes."""
        return self


@dataclass(frozen=True)
class Validation:
    """Fixed parent orders on the validation days, a buy and a sell at each arrival, so that the day's drift cancels."""

    world: ExecutionWorld
    days: tuple[str, ...]
    days_are_trained_on: bool  # True where there was one day in all
    parents: NDArray[np.void] = field(repr=False)  # PARENT_DTYPE (N,)

    def is_bps(self, policy: "Policy") -> NDArray[np.float64]:
        """Implementation shortfall of each parent, (N,) float64 bps, under a deterministic policy."""
        env = self._env
        state, _ = env.reset(options={"parents": self.parents})
        result = np.full(len(self.parents), np.nan)
        open_ones = np.ones(len(self.parents), dtype=bool)
        while open_ones.any():
            state, _, terminated, _, infos = env.step(policy(state["observation"], state["action_mask"]))
            ended = terminated & open_ones
            if ended.any():
                result[ended] = infos["is_bps"][ended]
                open_ones &= ~ended
        return result

    def mean_is_bps(self, policy: "Policy") -> float:
        """Mean implementation shortfall, bps."""
        return float(self.is_bps(policy).mean())

    @cached_property
    def _env(self) -> "VectorEnv[Any, Any, Any]":
        return self.world.make_env(len(self.parents), 0)


def open_worlds(
    features_dir: Path,
    forecasts_dir: Path | None,
    config: AgentConfig,
    like: tuple[ExecutionWorld, Validation] | None = None,
) -> tuple[ExecutionWorld, Validation]:
    """The world to train in and the parents to validate on; raises InputError where a training day is not there.

    Days of `like`, opened before with the same days and worlds, are shared and not read again.
    """
    from training.execution.parents import sample_parents

    known = list_partitions(features_dir, "features.parquet")
    absent = sorted(set(config.symbols) - {item.symbol for item in known})
    if absent:
        raise InputError(
            f"{features_dir}: no features of symbol {absent[0]}; there are {sorted({p.symbol for p in known})}"
        )
    known = [item for item in known if not config.symbols or item.symbol in config.symbols]
    if not config.train_days:
        raise InputError("the agent has no day to train on: give train_days, all days before the held-out ones")
    missing = sorted(set(config.train_days) - {item.date for item in known})
    if missing:
        found = ", ".join(sorted({item.date for item in known})) or "none"
        raise InputError(f"{features_dir}: no features of training day {missing[0]}; there are {found}")
    days = sorted(set(config.train_days))
    share = min(config.validation_days, len(days) - 1)
    teaching, judging = (days[:-share], days[-share:]) if share else (days, days[-1:])
    execution = ExecutionConfig.from_dict(config.execution)

    def world(
        chosen: list[str], variants: Sequence[ExecutionConfig] = (), mark_after_s: float | None = None
    ) -> ExecutionWorld:
        partitions = [item for item in known if item.date in chosen]
        return ExecutionWorld(features_dir, forecasts_dir, partitions, execution, config.stack, variants, mark_after_s)

    judged = world(judging)
    if like is not None:
        judged.__dict__["days"] = like[1].world.days
    count = max(1, config.validation_parents // 2)
    buys = sample_parents(judged.days, execution, np.random.default_rng(VALIDATION_SEED), count)
    buys["side"] = 1
    sells = buys.copy()
    sells["side"] = -1
    parents = np.concatenate([buys, sells])
    variants = [ExecutionConfig.from_dict({**config.execution, **item}) for item in config.variants]
    taught = world(teaching, variants, config.mark_after_s)
    if like is not None:
        taught.__dict__["days"] = like[0].days
    return taught, Validation(judged, tuple(judging), not share, parents)
