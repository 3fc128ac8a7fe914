"""One training: RLlib's new API stack around an execution module, by default all in the calling process."""

import logging
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.execution.agent_config import AgentConfig
from training.execution.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    import gymnasium as gym
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.algorithms.ppo import PPOConfig

    from training.execution.env_runner import EnvFactory
    from training.execution.rl_module import BoxExecutionModule, ExecutionModule, QModule

    ActingModule = ExecutionModule | BoxExecutionModule | QModule
    Settings = TypeVar("Settings", bound=AlgorithmConfig)

Policy = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]
"""`(observation (N, D), action_mask (N, A)) -> actions (N,) int64, or (N, K) float32 of a continuous set`."""

Weights = dict[str, NDArray[np.float32]]
"""A module's parameters and buffers by name."""


@dataclass(frozen=True)
class Update:
    """What one update of the policy did, in the order of training; a row of the learning curve."""

    update: int  # 0 before the first
    env_steps: int
    return_mean: float | None  # mean return of the episodes that ended, in the reward's unit
    entropy: float | None  # nats
    value_explained: float | None  # explained variance of the value function
    validation_bps: float | None  # mean implementation shortfall, greedy, on the validation parents


@dataclass(frozen=True)
class Trained:
    """The outcome of one seed."""

    seed: int
    curve: tuple[Update, ...]
    best_update: int
    best_validation_bps: float
    weights: Weights  # of the best validation


def train_policy(
    world: "World",
    module: "ActingModule",
    validate: Callable[[Policy], float],
    config: AgentConfig,
    seed: int,
    on_update: Callable[[Update], None],
    checkpoint: Path | None = None,
) -> Trained:
    """Train from `module`'s weights for `config.env_steps` and keep the weights that were best in validation.

    `validate` gives the mean implementation shortfall in bps of a greedy policy; lower is better, the earlier of two
    equals wins. Same arguments, same weights where runner and learner are in this process: one thread, all randomness
    from `seed`. With `checkpoint` and `config.checkpoint_every` a training that was killed goes on from that file and
    ends with the weights of an unbroken one. Ray must be running.
    """
    with deterministic_torch(seed):
        algorithm = build_algorithm(_stage(world, config, 0).make_env, module, config, seed)
        try:
            course = _Course([], None)
            if checkpoint is not None and checkpoint.exists():
                course = _Course(**load_checkpoint(checkpoint, algorithm))
                for update in course.curve:
                    on_update(update)
            else:
                _load(algorithm, weights_of(module))
            _train(algorithm, world, validate, config, on_update, course, checkpoint)
        finally:
            stop(algorithm)
    best = course.best
    assert best is not None, "update 0 is always validated"
    return Trained(seed, tuple(course.curve), best[1], best[0], best[2])


@dataclass
class _Course:
    """Where a training stands."""

    curve: list[Update]
    best: tuple[float, int, Weights] | None


def _train(
    algorithm: "Algorithm",
    world: "World",
    validate: Callable[[Policy], float],
    config: AgentConfig,
    on_update: Callable[[Update], None],
    course: _Course,
    checkpoint: Path | None,
) -> None:
    """Go on where `course` stands, up to the last update."""
    for number in range(len(course.curve), config.updates + 1):
        stage = _stage(world, config, number)
        if number and stage.variants != _stage(world, config, number - 1).variants:
            algorithm.env_runner_group.foreach_env_runner(lambda runner, make=stage.make_env: runner.use(make))
        result = algorithm.train() if number else {}
        is_due = number % config.validation_every == 0 or number == config.updates
        acting = acting_module(algorithm)
        score = validate(greedy(acting)) if is_due else None
        if score is not None and (course.best is None or score < course.best[0]):
            course.best = (score, number, weights_of(acting))
        course.curve.append(_update(number, result, score))
        saves = checkpoint is not None and config.checkpoint_every and number % config.checkpoint_every == 0
        if checkpoint is not None and saves and 0 < number < config.updates:
            save_checkpoint(checkpoint, algorithm, vars(course), number)
        on_update(course.curve[-1])


def _stage(world: "World", config: AgentConfig, update: int) -> "World":
    """The world of this update: the variants that its curriculum has let in by now."""
    if not config.curriculum:
        return world
    share = max(0, update - 1) / config.updates
    return world.with_variants(sum(start <= share for start in config.curriculum))


class World(Protocol):
    """What a training asks of its market; `training.execution.world.ExecutionWorld` is one."""

    variants: Any

    def make_env(self, num_envs: int, seed: int) -> Any:
        """A vector environment; an `EnvFactory`."""

    def with_variants(self, count: int) -> "World":
        """The same world with its first `count` variants only."""


def acting_module(algorithm: "Algorithm") -> "ActingModule":
    """The module with the weights as they are now; that of the local runner, which remote ones follow."""
    module = algorithm.get_module()
    if algorithm.config.num_env_runners == 0:
        return module
    import torch
    from ray.rllib.core import DEFAULT_MODULE_ID

    found = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    module.load_state_dict({name: torch.as_tensor(value) for name, value in found.items()}, strict=False)
    return module


def build_algorithm(make_env: "EnvFactory", module: "ActingModule", config: AgentConfig, seed: int) -> "Algorithm":
    """The RLlib algorithm that `config.algorithm` names; all in this process unless it says otherwise."""
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it announces its own defaults as warnings
    if config.algorithm == "dqn":
        from training.execution.dqn import dqn_config

        return dqn_config(make_env, module, config, seed).build_algo()
    return ppo_config(make_env, module, config, seed).build_algo()


def stop(algorithm: "Algorithm") -> None:
    """Stop an algorithm and remove the folder that it opened in the user's home."""
    algorithm.stop()
    shutil.rmtree(algorithm.logdir, ignore_errors=True)


def ppo_config(make_env: "EnvFactory", module: "ActingModule", config: AgentConfig, seed: int) -> "PPOConfig":
    """RLlib's settings for PPO."""
    from ray.rllib.algorithms.ppo import PPOConfig

    from training.execution.learners import RolloutPPOLearner

    steps = config.updates * config.batch_steps
    runners = max(1, config.num_env_runners)
    made = shared_settings(PPOConfig(), make_env, module, config, seed).env_runners(
        rollout_fragment_length=-(-config.batch_steps // (config.num_envs * runners))
    )
    return made.training(
        learner_class=RolloutPPOLearner,
        train_batch_size_per_learner=-(-config.batch_steps // max(1, config.num_learners)),
        minibatch_size=config.minibatch_steps,
        num_epochs=config.epochs,
        gamma=config.gamma,
        lambda_=config.gae_lambda,
        lr=[[0, config.learning_rate], [steps, config.learning_rate / 10]],
        entropy_coeff=[[0, config.entropy_start], [steps, config.entropy_end]],
        clip_param=config.clip,
        vf_clip_param=float("inf"),
        use_kl_loss=False,
        grad_clip=config.grad_clip,
        grad_clip_by="global_norm",
    )


def shared_settings(
    made: "Settings", make_env: "EnvFactory", module: "ActingModule", config: AgentConfig, seed: int
) -> "Settings":
    """What every algorithm of ours has in common: our runner, our module, and where things run."""
    import gymnasium as gym
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from training.execution.env_runner import ColumnEnvRunner

    tail = {"weight": config.cvar_weight, "tail": config.cvar_tail} if config.cvar_weight else None
    return (
        made.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        .framework("torch")
        .environment(
            env=gym.Env,
            env_config={"make": make_env, "tail": tail},
            observation_space=module.observation_space,
            action_space=module.action_space,
            disable_env_checking=True,
        )
        .env_runners(
            env_runner_cls=ColumnEnvRunner,
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_envs,
            batch_mode="truncate_episodes",
        )
        .learners(num_learners=config.num_learners, num_gpus_per_learner=config.num_gpus_per_learner)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=type(module), model_config=dict(module.model_config)))
        .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
        .debugging(seed=seed, log_level="ERROR")
    )


def new_module(
    observation_space: "gym.Space[Any]",
    action_space: "gym.Space[Any]",
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    config: AgentConfig,
    seed: int,
) -> "ActingModule":
    """A randomly initialised module for the algorithm and the action space; equal arguments give equal weights."""
    import gymnasium as gym

    from training.execution.rl_module import BoxExecutionModule, ExecutionModule, QModule

    settings: dict[str, Any] = {"hidden": list(config.hidden), "mean": mean.tolist(), "scale": scale.tolist()}
    kind: type[ActingModule] = ExecutionModule
    if isinstance(action_space, gym.spaces.Box):
        kind = BoxExecutionModule
    elif config.algorithm == "dqn":
        kind = QModule
        settings |= {"dueling": config.dqn_dueling, "epsilon": list(config.dqn_epsilon)}
        settings["epsilon_steps"] = max(1, round(config.dqn_epsilon_share * config.env_steps))
    with deterministic_torch(seed):
        return kind(observation_space=observation_space, action_space=action_space, model_config=settings)


def greedy(module: "ActingModule") -> Policy:
    """The policy that takes a module's best allowed action: the most likely, the most valuable, or the mean."""
    import torch

    generator = torch.Generator()

    def act(observation: NDArray[np.float32], action_mask: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            seen, mask = torch.from_numpy(observation), torch.from_numpy(action_mask)
            return module.act(seen, mask, False, generator, 0)[0].numpy()

    return act


def weights_of(module: "ActingModule") -> Weights:
    """Copies of a module's parameters and buffers."""
    return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}


@contextmanager
def deterministic_torch(seed: int) -> Iterator[None]:
    """One torch thread and all global generators seeded, both as before on leaving; RLlib draws from the globals."""
    import torch

    threads, torch_state = torch.get_num_threads(), torch.get_rng_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _load(algorithm: "Algorithm", weights: Weights) -> None:
    """Put `weights` into the learners and from there into the runners."""
    import torch
    from ray.rllib.core import DEFAULT_MODULE_ID

    state = {name: torch.from_numpy(value) for name, value in weights.items()}

    def load(learner: Any) -> None:
        module = learner.module[DEFAULT_MODULE_ID]
        module = getattr(module, "unwrapped", lambda: module)()
        module.load_state_dict(state, strict=False)
        if hasattr(module, "target"):
            module.target.load_state_dict(module.policy.state_dict())

    algorithm.learner_group.foreach_learner(load)
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)


def _update(number: int, result: Mapping[str, Any], score: float | None) -> Update:
    runner = result.get("env_runners", {})
    learner = result.get("learners", {}).get("default_policy", {})
    return Update(
        update=number,
        env_steps=int(runner.get("num_env_steps_sampled_lifetime", 0)),
        return_mean=_finite(runner.get("episode_return_mean")),
        entropy=_finite(learner.get("entropy")),
        value_explained=_finite(learner.get("vf_explained_var")),
        validation_bps=score,
    )


def _finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)
