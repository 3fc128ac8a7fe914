import json
from dataclasses import replace

import numpy as np
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, SessionWindow
from serving.contracts.bundle import load_bundle
from training.execution.agent_config import AgentConfig

DAYS = ("2024-01-02", "2024-01-03")
INSTRUMENT = Instrument(
    "TEST", "AAA", 0.01, 1.0, "USD", "UTC", (SessionWindow("09:00:00", "11:00:00"),), 2, False, 10_000_000, True
)
TINY = AgentConfig(
    train_days=DAYS,
    env_steps=2_048,
    num_envs=32,
    batch_steps=1_024,
    minibatch_steps=256,
    epochs=1,
    normaliser_steps=1_024,
    warm_start_steps=1_024,
    warm_start_epochs=1,
    validation_every=1,
    validation_parents=32,
    execution={"horizon_s": 300, "lots": 60},
)


def random_walk_day(partition, seed):
    """A book of two levels, one row a second, whose mid walks by ticks, with trades at the best prices."""
    from feature_repo.pipeline.books import Book
    from feature_repo.pipeline.kernels import SIGNAL_V1
    from training.market.day import MarketDay, with_history

    rng = np.random.default_rng(seed)
    ((opens, closes),) = INSTRUMENT.session_ns(partition.date)
    ts = np.arange(opens, closes, 1_000_000_000)
    mid = 10_000 + np.cumsum(rng.integers(-1, 2, len(ts)))
    levels = np.arange(2)
    bid, ask = (mid[:, None] - levels).astype(np.int32), (mid[:, None] + 1 + levels).astype(np.int32)
    sizes = [rng.integers(10, 200, (len(ts), 2)).astype(np.int32) for _ in range(2)]
    side = rng.choice([-1, 0, 1], len(ts)).astype(np.int8)
    trade_px = np.where(side > 0, ask[:, 0], np.where(side < 0, bid[:, 0], 0)).astype(np.int32)
    trade_sz = np.where(side != 0, rng.integers(1, 80, len(ts)), 0).astype(np.int32)
    book = Book(ts, bid, sizes[0], ask, sizes[1], trade_px, trade_sz, side)
    features = rng.normal(size=(len(ts), len(SIGNAL_V1))).astype(np.float32)
    forecasts, missing = np.zeros((len(ts), 3), np.float32), np.ones(len(ts), np.float32)
    names, spans = tuple(SIGNAL_V1), tuple(INSTRUMENT.session_ns(partition.date))
    day = MarketDay(INSTRUMENT, partition, book, names, ts, features, (10, 30, 60), forecasts, missing, spans)
    return with_history(day, [])


@pytest.fixture
def features_dir(tmp_path, monkeypatch):
    """A features dataset by name, whose days are made in memory."""
    for date in DAYS:
        folder = Partition("TEST", "AAA", date).folder(tmp_path / "features")
        folder.mkdir(parents=True)
        for name in ("book.parquet", "features.parquet"):
            (folder / name).write_bytes(f"{date} {name}".encode())

    def load(features, forecasts, partitions):
        return [random_walk_day(item, int(item.date[-2:])) for item in partitions]

    monkeypatch.setattr("training.market.day.load_market_days", load)
    return tmp_path / "features"


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    from training.execution.local_ray import local_ray

    with local_ray(1):
        yield


def train(features_dir, out, config=TINY, progress=None):
    from training.execution.train import train_agent

    out.mkdir()
    return train_agent(features_dir, None, out, config, progress or (lambda done, total, unit: None))


@pytest.mark.ray
def test_training_when_repeated_then_every_byte_is_the_same(features_dir, tmp_path):
    reports = []
    first = train(features_dir, tmp_path / "a", progress=lambda *report: reports.append(report))
    second = train(features_dir, tmp_path / "b")
    assert first == second
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.name for path in files} == {"policy.onnx", "metadata.json", "curves.json"}
    for path in files:
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
    assert curves["validation"] == {"days": [DAYS[1]], "parents": 32, "days_are_trained_on": False}
    assert str(tmp_path) not in json.dumps(dict(trained.metadata)) + json.dumps(curves)


@pytest.mark.ray
def test_training_when_started_from_a_rule_then_the_untrained_twin_is_still_random(features_dir, tmp_path):
    train(features_dir, tmp_path / "cold", replace(TINY, warm_start=False))
    train(features_dir, tmp_path / "warm", replace(TINY, warm_start_steps=4_096, warm_start_epochs=20))
    cold, warm = (load_bundle(tmp_path / name / "bundle_untrained") for name in ("cold", "warm"))
    assert cold.policy_onnx == warm.policy_onnx
    imitated = json.loads((tmp_path / "warm" / "curves.json").read_text())["seeds"][0]
    start, others = imitated["curve"][0]["validation_bps"], imitated["validation_of_others_bps"]
    assert abs(start - others["rule"]) < abs(others["untrained"] - others["rule"])


@pytest.mark.ray
def test_runner_when_it_samples_then_episodes_are_whole_and_within_their_masks(features_dir):
    from training.execution.ppo import build_algorithm, new_module
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
        algorithm.stop()
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
