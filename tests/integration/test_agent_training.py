import json
from dataclasses import replace

import numpy as np
import pytest
from agents import DAYS, TINY, features_dir, one_ray, train

from feature_repo.errors import InputError
from serving.contracts.bundle import load_bundle

__all__ = ["features_dir", "one_ray"]  # fixtures


@pytest.mark.ray
def test_training_when_repeated_then_every_byte_is_the_same(features_dir, tmp_path):
    reports = []
    first = train(features_dir, tmp_path / "a", progress=lambda *report: reports.append(report))
    second = train(features_dir, tmp_path / "b")
    assert first == second
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.name for path in files} == {"policy.onnx", "metadata.json", "curves.json", "times.json"}
    for path in files:
        if path.name == "times.json":
            continue
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    assert reports[-1] == (2_048, 2_048, "env steps")
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)


@pytest.mark.ray
def test_training_when_done_then_bundles_load_and_curves_tell_the_choice(features_dir, tmp_path):
    config = replace(TINY, seeds=(3, 4), warm_start=False)
    summary = train(features_dir, tmp_path / "out", config)
    trained, untrained = (load_bundle(tmp_path / "out" / name) for name in ("bundle", "bundle_untrained"))
    curves = json.loads((tmp_path / "out" / "curves.json").read_text())
    scores = {row["seed"]: row["best_validation_bps"] for row in curves["seeds"]}
    assert curves["chosen_seed"] == min(scores, key=lambda seed: scores[seed]) == summary["seed"]
    assert trained.metadata["seed"] == untrained.metadata["seed"] == summary["seed"]
    assert trained.metadata["training_days"] == list(DAYS)
    assert untrained.metadata["env_steps"] == 0
    passive_bps = curves["validation"].pop("twap_passive_bps")
    assert curves["validation"] == {"days": [DAYS[1]], "parents": 32, "days_are_trained_on": False}
    assert summary["validation_twap_passive_bps"] == pytest.approx(passive_bps, abs=1e-4)
    assert str(tmp_path) not in json.dumps(dict(trained.metadata)) + json.dumps(curves)


@pytest.mark.ray
def test_training_when_done_then_tells_when_its_validation_was_below_twap_passive(features_dir, tmp_path, monkeypatch):
    from training.execution import train as stage

    monkeypatch.setattr(stage, "twap_passive_bps", lambda validation: 1e9)  # every policy is below it
    summary = train(features_dir, tmp_path / "out", replace(TINY, seeds=(3, 4)))
    curves, times = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("curves", "times"))
    assert summary["below_twap_passive_at_env_steps"] == 0
    for curve, row in zip(curves["seeds"], times["seeds"], strict=True):
        assert curve["below_twap_passive"]["update"] == row["below_at_env_steps"] == 0
        assert 0.0 < row["below_after_wall_s"] <= row["wall_s"] and 0.0 < row["below_after_cpu_s"] <= row["cpu_s"]
    monkeypatch.setattr(stage, "twap_passive_bps", lambda validation: -1e9)
    summary = train(features_dir, tmp_path / "never")
    times = json.loads((tmp_path / "never" / "times.json").read_text())
    assert summary["below_twap_passive_at_env_steps"] is None and times["seeds"][0]["below_after_wall_s"] is None


def test_cost_of_twap_passive_is_that_of_its_best_pace_on_the_validation_parents(features_dir):
    from training.execution.baselines import TwapPassive
    from training.execution.crossing import twap_passive_bps
    from training.execution.run import run_policy
    from training.execution.world import open_worlds

    _, validation = open_worlds(features_dir, None, TINY)
    world = validation.world
    costs = [
        run_policy(TwapPassive(pace), world.days, validation.parents, world.execution).rows["is_bps"].mean()
        for pace in (1, 6, 15)
    ]
    assert twap_passive_bps(validation) == pytest.approx(min(costs)) and len(set(costs)) > 1


@pytest.mark.ray
def test_training_when_started_from_a_rule_then_the_untrained_twin_is_still_random(features_dir, tmp_path):
    train(features_dir, tmp_path / "cold", replace(TINY, warm_start=False))
    train(features_dir, tmp_path / "warm", replace(TINY, warm_start_steps=4_096, warm_start_epochs=20))
    cold, warm = (load_bundle(tmp_path / name / "bundle_untrained") for name in ("cold", "warm"))
    assert cold.policy_onnx == warm.policy_onnx
    imitated = json.loads((tmp_path / "warm" / "curves.json").read_text())["seeds"][0]
    start, others = imitated["curve"][0]["validation_bps"], imitated["validation_of_others_bps"]
    assert abs(start - others["imitated"]) < abs(others["untrained"] - others["imitated"])
    assert others["imitated"] <= others["rule"]


@pytest.mark.ray
def test_runner_when_it_samples_then_episodes_are_whole_and_within_their_masks(features_dir):
    from training.execution.ppo import build_algorithm, new_module, stop
    from training.execution.world import open_worlds

    world, _ = open_worlds(features_dir, None, TINY)
    spaces = world.spaces()
    width = spaces[0]["observation"].shape[0]
    module = new_module(*spaces, np.zeros(width, np.float32), np.ones(width, np.float32), TINY, 1)
    algorithm = build_algorithm(world.make_env, module, TINY, 1)
    try:
        runner = algorithm.env_runner
        first, second = (list(runner.sample(num_timesteps=500)[0].episodes()) for _ in range(2))
    finally:
        stop(algorithm)
    slices = 300 // 30
    for batch in (first, second):
        assert 500 <= sum(len(episode) for episode in batch) < 500 + TINY.num_envs
        for episode in batch:
            episode.validate()
            masks = episode.get_observations()["action_mask"][:-1]
            assert (masks[np.arange(len(episode)), episode.get_actions()] == 1).all()
    whole = [episode for episode in first if episode.is_terminated and episode.t_started == 0]
    assert whole and all(len(episode) <= slices for episode in whole)
    continued = [episode for episode in second if episode.t_started > 0]
    assert continued, "episodes that were cut go on in the next batch"


def test_training_when_a_day_is_absent_then_names_it(features_dir, tmp_path):
    with pytest.raises(InputError, match="2024-02-01"):
        train(features_dir, tmp_path / "out", replace(TINY, train_days=("2024-02-01",)))
    assert list((tmp_path / "out").iterdir()) == []


def test_training_when_no_day_is_given_then_says_so(features_dir, tmp_path):
    with pytest.raises(InputError, match="no day to train on"):
        train(features_dir, tmp_path / "out", replace(TINY, train_days=()))
