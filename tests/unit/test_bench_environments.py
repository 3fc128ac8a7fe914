import json

import numpy as np
import pytest
from market_fixtures import make_day, random_rows
from typer.testing import CliRunner

from flows.bench import environments
from flows.cli import app


@pytest.fixture
def small(monkeypatch):
    for name, value in (("WIDTH", 8), ("VECTOR_STEPS", 30), ("SINGLE_STEPS", 60), ("REACTIVE_SECONDS", 5)):
        monkeypatch.setattr(environments, name, value)
    day = make_day(random_rows(np.random.default_rng(6)))
    monkeypatch.setattr(environments, "synthetic_market_day", lambda events: day)
    return day


def test_bench_environments_when_run_then_gives_the_promised_rows_with_targets_judged(small):
    rows = {row.name: row for row in environments.environment_rows(None, 1) + environments.reactive_rows(1)}
    targets = {"vector env steps/s": 200_000, "single env steps/s": 50_000, "reactive events/s": 10_000_000}
    for name, target in targets.items():
        assert rows[name].target == target and rows[name].value > 0
        assert rows[name].met == (rows[name].value >= target)
        assert rows[name].unit == name.split()[-1]
    assert rows["vector env steps/s, always resting"].target is None
    assert rows["bytes per book row"].value == 40 + 16 * (small.book.bid_px.shape[1] - 1)
    assert rows["book rows a step"].value == pytest.approx(100, rel=0.02)


def test_bench_config_when_made_for_a_day_then_a_step_spans_a_hundred_of_its_rows(small):
    config = environments.hundred_row_config(small)
    rate = len(small.book.ts_ns) / (small.book.ts_ns[-1] - small.book.ts_ns[0])
    assert config.slices == environments.SLICES
    assert rate * config.interval_ns == pytest.approx(100, rel=0.02)


def test_bench_simulator_command_prints_its_rows_and_what_was_left_out(monkeypatch):
    found = {
        "machine": {"cores": 2},
        "rows": [vars(environments.Row("a", 1.0, "b", 2.0, False))],
        "notes": ["left out"],
    }
    monkeypatch.setattr("flows.bench.simulator.run", lambda data: found)
    table = CliRunner().invoke(app, ["bench", "simulator"])
    assert table.exit_code == 0 and "left out" in table.output and "no" in table.output
    assert json.loads(CliRunner().invoke(app, ["bench", "simulator", "--json"]).output) == found
