import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from agents import DAYS, TINY, features_dir, one_ray, train
from gymnasium import spaces

from serving.contracts.bundle import load_bundle
from training.execution.agent_config import AgentConfig

__all__ = ["features_dir", "one_ray"]  # fixtures

pytestmark = pytest.mark.ray

DQN = replace(TINY, algorithm="dqn", dqn_learning_starts=256, dqn_batch=128, dqn_capacity=2_000, dqn_target_every=512)
CONTINUOUS = replace(TINY, execution={**TINY.execution, "actions": "continuous"})
KINDS = {
    "dqn": DQN,
    "continuous": CONTINUOUS,
    "stacked": replace(TINY, stack=3),
    "risk averse": replace(TINY, cvar_weight=0.5),
    "mixed": replace(TINY, variants=({"lots": 20}, {"horizon_s": 600}), curriculum=(0.0, 0.5)),
}


def files_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "times.json")
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_training_of_each_kind_when_repeated_then_bundles_are_equal_and_decide(features_dir, tmp_path, kind):
    config = KINDS[kind]
    train(features_dir, tmp_path / "a", config)
    train(features_dir, tmp_path / "b", config)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    bundle, untrained = (load_bundle(tmp_path / "a" / name) for name in ("bundle", "bundle_untrained"))
    curve = json.loads((tmp_path / "a" / "curves.json").read_text())["seeds"][0]["curve"]
    assert curve[-1]["env_steps"] >= config.env_steps
    assert bundle.kind == config.algorithm
    assert bundle.policy_onnx != untrained.policy_onnx
    decide = bundle.decider()
    rng = np.random.default_rng(0)
    width = len(bundle.metadata["observation_names"])
    actions = decide(rng.normal(size=(9, width)).astype(np.float32), np.ones((9, 4), np.float32))
    assert actions.shape == ((9, 2) if kind == "continuous" else (9,))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["ppo", "dqn", "risk averse", "mixed"])
def test_training_when_killed_then_goes_on_to_the_bytes_of_an_unbroken_one(features_dir, tmp_path, kind):
    config = replace(KINDS.get(kind, TINY), env_steps=5_120, checkpoint_every=2, seeds=(3,))
    train(features_dir, tmp_path / "whole", config)
    seen = []

    def die(done, total, unit):
        seen.append(done)
        if done >= 3 * config.batch_steps:
            raise Killed

    with pytest.raises(Killed):
        train(features_dir, tmp_path / "broken", config, die)
    assert (tmp_path / "broken" / ".checkpoints" / "seed_3.pickle").is_file()
    resumed = []
    train(features_dir, tmp_path / "broken", config, lambda done, total, unit: resumed.append(done))
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")
    assert resumed[:3] == seen[:3], "what the checkpoint knows is told again, not trained again"


def test_training_when_settings_compete_then_all_seeds_train_with_the_one_whose_rule_is_best(features_dir, tmp_path):
    config = replace(TINY, ahead_candidates=(0, 10), pace_candidates=(1, 2), seeds=(3, 4))
    reports = []
    summary = train(features_dir, tmp_path / "both", config, lambda *report: reports.append(report))
    scores = json.loads((tmp_path / "both" / "curves.json").read_text())["candidates"]
    winner = min(scores, key=lambda row: row["rule_bps"])
    ahead, pace = winner["ahead_slices"], winner["decisions_per_slice"]
    assert {(row["ahead_slices"], row["decisions_per_slice"]) for row in scores} == {(0, 1), (10, 1), (0, 2), (10, 2)}
    assert (summary["ahead_slices"], summary["decisions_per_slice"]) == (ahead, pace)
    assert reports[-1][:2] == (2 * config.env_steps,) * 2
    alone = train(features_dir, tmp_path / "alone", config.with_candidate(ahead, pace))
    assert alone == summary
    for name in ("bundle", "bundle_untrained", "seeds"):
        assert files_of(tmp_path / "both" / name) == files_of(tmp_path / "alone" / name)


def test_training_when_started_from_a_bundle_then_begins_with_its_policy_on_one_symbol(features_dir, tmp_path):
    train(features_dir, tmp_path / "many")
    tuned = replace(TINY, fine_tune_from=str(tmp_path / "many" / "bundle"), symbols=("AAA",), learning_rate=1e-9)
    train(features_dir, tmp_path / "one", tuned)
    before, after = (load_bundle(tmp_path / name / "bundle") for name in ("many", "one"))
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(500, len(before.metadata["observation_names"]))).astype(np.float32)
    mask = np.ones((500, 4), np.float32)
    np.testing.assert_array_equal(before.decide(seen, mask), after.decide(seen, mask))
    assert str(tmp_path) not in json.dumps(dict(after.metadata))


@pytest.mark.parametrize("config", [TINY, DQN], ids=["ppo", "dqn"])
def test_training_when_runners_are_remote_then_each_samples_its_own_parents(features_dir, tmp_path, config):
    from training.execution.ppo import build_algorithm, new_module, stop
    from training.execution.world import open_worlds

    world, _ = open_worlds(features_dir, None, config)
    width = world.spaces()[0]["observation"].shape[0]
    module = new_module(*world.spaces(), np.zeros(width, np.float32), np.ones(width, np.float32), config, 1)
    days, execution = world.days, world.execution  # made in memory here, so they have to travel

    def make_env(num_envs, seed):
        from training.execution.vector_env import ExecutionVectorEnv

        return ExecutionVectorEnv(days, execution, num_envs, seed)

    algorithm = build_algorithm(make_env, module, replace(config, num_env_runners=1), 1)
    try:
        result = algorithm.train()
        seeds = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: (runner.worker_index, runner._seed), local_env_runner=False
        )
    finally:
        stop(algorithm)
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= config.batch_steps
    assert result["learners"]["default_policy"]["num_module_steps_trained_lifetime"] > 0
    assert seeds == [(1, 2)]


class Gamble(gym.vector.VectorEnv):
    """One step: action 0 costs 1, action 1 costs nothing nine times in ten and `loss` else; mask and NaN-free noise."""

    metadata = {"render_modes": [], "autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    loss = 7.0

    def __init__(self, num_envs, seed):
        self.num_envs = num_envs
        box = {
            "observation": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "action_mask": spaces.Box(0.0, 1.0, (2,), np.float32),
        }
        self.single_observation_space, self.single_action_space = spaces.Dict(box), spaces.Discrete(2)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.rng = np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        return self._seen(), {}

    def step(self, actions):
        bad = self.rng.random(self.num_envs) < 0.1
        rewards = -np.where(actions == 0, 1.0, np.where(bad, self.loss, 0.0))
        done = np.ones(self.num_envs, bool)
        return self._seen(), rewards, done, np.zeros(self.num_envs, bool), {}

    def _seen(self):
        noise = self.rng.uniform(-1.0, 1.0, (self.num_envs, 2)).astype(np.float32)
        return {"observation": noise, "action_mask": np.ones((self.num_envs, 2), np.float32)}


@pytest.mark.parametrize("weight, wanted", [(0.0, 1), (0.9, 0)])
def test_training_when_risk_averse_then_declines_the_gamble_that_wins_on_average(weight, wanted):
    """Costs 1 for sure against 0.7 on average; the worst tenth costs 1 against 7."""
    from training.execution.ppo import build_algorithm, greedy, new_module, stop

    config = AgentConfig(
        env_steps=20 * 1_024, num_envs=64, batch_steps=1_024, minibatch_steps=256, epochs=4, learning_rate=3e-3,
        cvar_weight=weight, cvar_tail=0.1, entropy_start=0.01, hidden=(8,),
    )  # fmt: skip
    env = Gamble(1, 0)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    module = new_module(env.single_observation_space, env.single_action_space, zeros, ones, config, 2)
    algorithm = build_algorithm(Gamble, module, config, 2)
    try:
        for _ in range(config.updates):
            algorithm.train()
        act = greedy(algorithm.get_module())
    finally:
        stop(algorithm)
    seen = np.random.default_rng(9).uniform(-1.0, 1.0, (200, 2)).astype(np.float32)
    assert (act(seen, np.ones((200, 2), np.float32)) == wanted).mean() > 0.95


class Casino:
    """A world of gambles, as training asks for one."""

    variants = ()
    make_env = staticmethod(lambda num_envs, seed: Gamble(num_envs, seed))

    def with_variants(self, count):
        return self


@pytest.mark.slow
@pytest.mark.parametrize("runners, learners", [(2, 0), (0, 2), (1, 1)])
def test_training_when_spread_over_actors_then_learns_as_well_as_in_one_process(runners, learners):
    import sys

    import ray
    from ray import cloudpickle

    from training.execution.local_ray import local_ray
    from training.execution.ppo import new_module, train_policy

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    config = AgentConfig(
        env_steps=20 * 1_024, num_envs=64, batch_steps=1_024, minibatch_steps=256, learning_rate=3e-3, hidden=(8,),
        validation_every=20, entropy_start=0.01, num_env_runners=runners, num_learners=learners,
    )  # fmt: skip
    env = Gamble(1, 0)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    module = new_module(env.single_observation_space, env.single_action_space, zeros, ones, config, 2)
    seen, mask = np.random.default_rng(9).uniform(-1.0, 1.0, (200, 2)).astype(np.float32), np.ones((200, 2), np.float32)
    shares, steps = [], []

    def validate(act):
        shares.append((act(seen, mask) == 1).mean())
        return -shares[-1]

    ray.shutdown()  # the one of the other tests has a core only
    try:
        with local_ray(6):
            train_policy(Casino(), module, validate, config, 2, lambda update: steps.append(update.env_steps))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert shares[-1] > 0.95
    assert steps[-1] >= config.env_steps


@pytest.mark.gpu
def test_training_when_the_learner_has_a_gpu_then_updates_there_and_acts_here(features_dir, tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    train(features_dir, tmp_path / "out", replace(TINY, num_gpus_per_learner=1))
    curve = json.loads((tmp_path / "out" / "curves.json").read_text())["seeds"][0]["curve"]
    assert curve[-1]["env_steps"] >= TINY.env_steps
    assert load_bundle(tmp_path / "out" / "bundle").metadata["training_days"] == list(DAYS)
