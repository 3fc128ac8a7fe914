"""`shortfall bench training`: environment steps a second of PPO and DQN on one core, beside RLlib's stock runner."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.bench.environments import hundred_row_config, synthetic_market_day
from flows.bench.machine import Row, result
from flows.bench.simulator import synthetic_events

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from training.execution.agent_config import AgentConfig
    from training.execution.env_runner import EnvFactory
    from training.execution.ppo import ActingModule

NUM_ENVS, BATCH, MINIBATCH, EPOCHS, HIDDEN = 256, 16_384, 2_048, 4, (64, 64)
UPDATES, STOCK_UPDATES = 5, 2
DECISIONS, WARM_DECISIONS = 20_000, 2_000
END_TO_END_TARGET, STOCK_TARGET, SAMPLING_TARGET, DQN_TARGET, ONNX_TARGET_US = 30_000.0, 2.0, 5.0, 4_000.0, 100.0


def run() -> dict[str, Any]:
    """Measure on a day of the seeded synthetic market, 100 book rows a decision, 256 environments, 64x64 networks.

    `ppo end to end steps/s` are environment steps over the time of `Algorithm.train()`: sampling, advantages, 4 epochs
    of minibatches of 2,048 over batches of 16,384, weights back to the runner. The stock side has RLlib's runner, its
    learner and its connectors, with the same module on the same environment; both take turns in one process and the
    ratios are of their medians. `dqn steps/s` is the same for DQN, double and dueling with prioritised replay, that
    learns from one transition for each that it samples. All are times of one core (the thread's processor time); wall
    clocks stand beside them. `onnx p99 us` is the wall clock of one decision of the exported policy in ONNX Runtime,
    batch 1, one thread, as bundles open it.
    """
    from training.execution.agent_config import AgentConfig
    from training.execution.local_ray import local_ray

    day = synthetic_market_day(synthetic_events())
    execution = hundred_row_config(day)
    config = AgentConfig(
        num_envs=NUM_ENVS,
        env_steps=64 * BATCH,
        batch_steps=BATCH,
        minibatch_steps=MINIBATCH,
        epochs=EPOCHS,
        hidden=HIDDEN,
        execution=execution.to_dict(),
    )

    def make_env(num_envs: int, seed: int) -> Any:
        from training.execution.vector_env import ExecutionVectorEnv

        return ExecutionVectorEnv([day], execution, num_envs=num_envs, seed=seed)

    with local_ray(1):
        rows = ppo_rows(make_env, config) + dqn_rows(make_env, config)
    return result(rows + onnx_rows(_module(make_env, config)))


def ppo_rows(make_env: "EnvFactory", config: "AgentConfig", updates: int = UPDATES) -> list[Row]:
    """Our runner and learner, and RLlib's own, in turn."""
    from training.execution.ppo import build_algorithm, stop

    module = _module(make_env, config)
    ours, stock = build_algorithm(make_env, module, config, 1), stock_ppo(make_env, module, config)
    try:
        for algorithm in (ours, stock):
            algorithm.train()  # compiled, warm
        rates: dict[str, list[tuple[float, float]]] = {}

        def measure(name: str, call: Callable[[], int]) -> None:
            rates.setdefault(name, []).append(_rate(call))

        for turn in range(updates):
            measure("ours", lambda: _trained(ours))
            measure("ours sampling", lambda: _sampled(ours))
            if turn < STOCK_UPDATES:
                measure("stock", lambda: _trained(stock))
                measure("stock sampling", lambda: _sampled(stock))
    finally:
        stop(ours)
        stop(stock)
    core, wall = ({name: statistics.median(r[i] for r in found) for name, found in rates.items()} for i in (0, 1))
    ratio, sampling = core["ours"] / core["stock"], core["ours sampling"] / core["stock sampling"]
    return [
        Row("ppo end to end steps/s", core["ours"], "steps/s", END_TO_END_TARGET, core["ours"] >= END_TO_END_TARGET),
        Row("ratio end to end to stock", ratio, "ratio", STOCK_TARGET, ratio >= STOCK_TARGET),
        Row("ratio sampling to stock", sampling, "ratio", SAMPLING_TARGET, sampling >= SAMPLING_TARGET),
        Row("ppo sampling steps/s", core["ours sampling"], "steps/s"),
        Row("stock end to end steps/s", core["stock"], "steps/s"),
        Row("stock sampling steps/s", core["stock sampling"], "steps/s"),
        Row("ppo end to end steps/s, wall clock", wall["ours"], "steps/s"),
    ]


def dqn_rows(make_env: "EnvFactory", config: "AgentConfig", updates: int = UPDATES) -> list[Row]:
    """DQN at training intensity 1, once its replay buffer has what learning starts with."""
    from dataclasses import replace

    from training.execution.ppo import build_algorithm, stop

    chosen = replace(config, algorithm="dqn", dqn_learning_starts=BATCH // 2)
    algorithm = build_algorithm(make_env, _module(make_env, chosen), chosen, 1)
    try:
        algorithm.train()
        found = [_rate(lambda: _trained(algorithm)) for _ in range(updates)]
    finally:
        stop(algorithm)
    core, wall = (statistics.median(rate[i] for rate in found) for i in (0, 1))
    return [
        Row("dqn steps/s", core, "steps/s", DQN_TARGET, core >= DQN_TARGET),
        Row("dqn steps/s, wall clock", wall, "steps/s"),
    ]


def onnx_rows(module: "ActingModule") -> list[Row]:
    """One decision at a time of the module's exported policy."""
    from serving.contracts.bundle import POLICY_FILE, open_session
    from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of

    session = open_session(export_policy(weights_of(module)), Path(POLICY_FILE))
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(DECISIONS, 1, OBSERVATION_SIZE)).astype(np.float32)
    mask = np.ones((1, len(ACTION_NAMES)), np.float32)
    spans = np.zeros(DECISIONS)
    for i in range(DECISIONS):
        start = time.perf_counter_ns()
        session.run(["action"], {"observation": seen[i], "action_mask": mask})
        spans[i] = time.perf_counter_ns() - start
    p50, p99 = (float(value) / 1e3 for value in np.quantile(spans[WARM_DECISIONS:], (0.5, 0.99)))
    return [
        Row("onnx p99 us", p99, "us", ONNX_TARGET_US, p99 <= ONNX_TARGET_US),
        Row("onnx p50 us", p50, "us"),
    ]


def stock_ppo(make_env: "EnvFactory", module: "ActingModule", config: "AgentConfig") -> "Algorithm":
    """The same training with RLlib's own runner, learner and connectors around our module and environment."""
    from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from training.execution.ppo import ppo_config

    class StockRunner(SingleAgentEnvRunner):
        """RLlib's runner, given an environment that Gymnasium's registry does not know."""

        def make_env(self) -> None:
            """Build our vector environment."""
            from gymnasium.wrappers.vector import DictInfoToList

            self.num_envs = int(self.config.num_envs_per_env_runner)
            self.env = DictInfoToList(self.config.env_config["make"](self.num_envs, self._seed or 0))
            self._needs_initial_reset = True

    settings = ppo_config(make_env, module, config, 1)
    return settings.env_runners(env_runner_cls=StockRunner).training(learner_class=PPOTorchLearner).build_algo()


def _module(make_env: "EnvFactory", config: "AgentConfig") -> "ActingModule":
    from serving.contracts.observation import OBSERVATION_SIZE
    from training.execution.ppo import new_module

    env = make_env(1, 0)
    mean, scale = np.zeros(OBSERVATION_SIZE, np.float32), np.ones(OBSERVATION_SIZE, np.float32)
    return new_module(env.single_observation_space, env.single_action_space, mean, scale, config, 1)


def _trained(algorithm: "Algorithm") -> int:
    """Environment steps of one `train()`."""
    before = algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"))
    algorithm.train()
    return int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime")) - before)


def _sampled(algorithm: "Algorithm") -> int:
    """Environment steps of one sample that nothing learns from."""
    steps = sum(len(episode) for episode in algorithm.env_runner.sample(num_timesteps=BATCH))
    algorithm.env_runner.get_metrics()  # or the next `train()` would count them as its own
    return steps


def _rate(call: Callable[[], int]) -> tuple[float, float]:
    """Steps a second of one core, and on the wall clock."""
    core, wall = time.thread_time(), time.perf_counter()
    steps = call()
    return steps / (time.thread_time() - core), steps / (time.perf_counter() - wall)
