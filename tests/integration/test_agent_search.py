"""The search for training settings: trials in Ray's workers, best first, and what a killed search leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agents import one_ray
from market_folders import synthetic_folders

from training.execution.agent_config import AgentConfig
from training.execution.search import DRAWN, NAME, applied, search

__all__ = ["one_ray"]  # fixture
CONFIG = AgentConfig(
    train_days=("2025-01-06", "2025-01-07"),
    env_steps=1_024,
    num_envs=16,
    batch_steps=512,
    minibatch_steps=256,
    epochs=1,
    normaliser_steps=512,
    warm_start_steps=512,
    warm_start_epochs=1,
    validation_every=1,
    validation_parents=16,
    execution={"horizon_s": 300, "lots": 40},
)
KILLED = """
import json, sys
from pathlib import Path
from training.execution.agent_config import AgentConfig
from training.execution.search import search
features, folder, config = sys.argv[1:]
values = json.loads(config)
search(Path(features), None, AgentConfig.from_json(values), 3, 5, Path(folder))
"""


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return synthetic_folders(tmp_path_factory.mktemp("market"), days=2, hours=0.5)[1]


def finished(folder: Path) -> dict[str, str]:
    """What the trials reported that the search has noted as done, by trial."""
    states = sorted((folder / NAME).glob("experiment_state-*.json"))
    if not states:
        return {}
    trials = [json.loads(trial) for trial, _ in json.loads(states[-1].read_text())["trial_data"]]
    names = [trial["trial_id"] for trial in trials if trial["status"] == "TERMINATED"]
    return {name: next((folder / NAME).glob(f"*{name}*/result.json")).read_text() for name in names}


@pytest.mark.ray
@pytest.mark.slow
def test_search_when_done_then_trials_come_best_first_with_the_settings_that_the_seed_draws(market, one_ray, tmp_path):
    rows = search(market, None, CONFIG, 2, 5, tmp_path)
    costs = [row["validation_bps"] for row in rows]
    assert len(rows) == 2 and costs == sorted(costs)
    for row in rows:
        assert set(row) == {*DRAWN, "validation_bps"}
        assert 1e-4 <= row["learning_rate"] <= 3e-3 and row["ahead_slices"] in (0, 1, 2, 4)
    done = finished(tmp_path)
    assert len(done) == 2 and all(len(text.splitlines()) <= CONFIG.updates + 1 for text in done.values())  # none twice
    again = search(market, None, CONFIG, 2, 5, tmp_path)
    assert again == rows and finished(tmp_path) == done  # nothing done again


@pytest.mark.ray
def test_trial_when_it_trains_then_reports_every_validation_and_the_best_so_far(market, one_ray, monkeypatch):
    from ray import tune

    from training.execution import search as module

    told: list[dict[str, float]] = []
    monkeypatch.setattr(tune, "report", told.append)
    module._trial(market, None, CONFIG)
    assert told[0]["env_steps"] == 0 and told[-1]["env_steps"] >= CONFIG.env_steps
    costs = [row["validation_bps"] for row in told]
    assert len(costs) == CONFIG.updates + 1
    assert [row["best_bps"] for row in told] == [min(costs[: k + 1]) for k in range(len(costs))]


def test_search_when_settings_are_drawn_then_a_trial_trains_one_seed_with_them_and_logs_nothing():
    chosen = {"learning_rate": 1e-3, "entropy_end": 1e-3, "ahead_slices": 2, "warm_start_confidence": 0.7}
    config = AgentConfig(train_days=CONFIG.train_days, seeds=(3, 4), tracking_uri="sqlite:///x.db", checkpoint_every=2)
    made = applied(config, chosen)
    assert made.execution["ahead_slices"] == 2 and made.learning_rate == 1e-3
    assert made.seeds == (3,) and made.tracking_uri is None and made.checkpoint_every == 0


@pytest.mark.ray
@pytest.mark.slow
def test_search_when_killed_then_goes_on_without_the_trials_that_were_done(market, one_ray, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(market), str(tmp_path), json.dumps(CONFIG.to_json())],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    try:
        limit = time.monotonic() + 240
        while not finished(tmp_path):
            assert process.poll() is None and time.monotonic() < limit, "no trial was done"
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = finished(tmp_path)
    assert 1 <= len(done) < 3
    rows = search(market, None, CONFIG, 3, 5, tmp_path)
    assert len(rows) == 3 and len({row["learning_rate"] for row in rows}) == 3
    assert {name: text for name, text in finished(tmp_path).items() if name in done} == done
