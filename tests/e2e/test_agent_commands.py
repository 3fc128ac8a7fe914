"""Agents outside the night: the commands work alone, go on from what is done, and judge only on days never seen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from night import TINY

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.ray]


def test_backtest_when_given_the_night_s_bundle_and_more_days_then_judges_it_on_those_alone(tiny_night, shell):
    lake = tiny_night.lake
    (bundle,) = lake.glob("train_agent/*/bundle")
    more = ["5" if value == "4" else value for value in TINY]
    command = replace(shell, command="backtest")
    done = command.run(lake, "--bundle", str(bundle), *more, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    trained = json.loads((bundle / "metadata.json").read_text())
    assert report["test_days"] and min(report["test_days"]) > max(trained["training_days"])
    assert {"agent", "twap_market", "twap_passive", "carry", "random", "immediate"} <= set(report["evaluation"])
    assert {row["n"] for row in report["evaluation"].values()} == {report["evaluation"]["agent"]["n"]}
    assert "SYNTHETIC" in Path(report["report"]).read_text()
    again = command.run(lake, "--bundle", str(bundle), *more, "--json")
    assert all(stage["skipped"] for stage in json.loads(again.stdout)["stages"])


def test_train_agent_when_the_night_has_trained_it_then_nothing_is_done_again(tiny_night, shell):
    done = replace(shell, command="train-agent").run(tiny_night.lake, *TINY, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert [stage["name"] for stage in report["stages"]][-2:] == ["train_signal", "train_agent"]
    assert [stage["name"] for stage in report["stages"] if not stage["skipped"]] == []
    assert (Path(report["bundle"]) / "policy.onnx").is_file()


def test_backtest_when_the_bundle_is_none_then_says_so_before_any_data_is_read(shell, tmp_path):
    done = replace(shell, command="backtest").run(tmp_path, "--bundle", str(tmp_path / "no"), *TINY)
    assert done.returncode == 2 and "no such bundle folder" in done.stderr
    assert not (tmp_path / "ingest").exists()


@pytest.mark.slow
def test_train_agent_when_signals_are_ablated_then_prints_their_worth_with_its_interval(tiny_night, shell):
    done = replace(shell, command="train-agent").run(tiny_night.lake, *TINY, "--ablate", "signals", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    row = report["ablation"]["all"]
    assert row["diff_bps"] == pytest.approx(row["with_bps"] - row["without_bps"])
    assert {"ci_low", "ci_high", "n", "n_seeds", "verdict"} <= set(row)
    assert report["blind_agent"]["seed"] == report["agent"]["seed"]


@pytest.mark.slow
def test_train_agent_when_settings_are_searched_then_prints_trials_best_first_and_does_them_once(tiny_night, shell):
    command = replace(shell, command="train-agent")
    done = command.run(tiny_night.lake, *TINY, "--search", "2", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    costs = [row["validation_bps"] for row in report["trials"]]
    assert len(costs) == 2 and costs == sorted(costs)
    again = json.loads(command.run(tiny_night.lake, *TINY, "--search", "2", "--json").stdout)
    assert again["trials"] == report["trials"] and all(stage["skipped"] for stage in again["stages"])


def test_train_agent_when_what_to_ablate_is_unknown_then_says_what_can_be(shell, tmp_path):
    done = replace(shell, command="train-agent").run(tmp_path, *TINY, "--ablate", "spread")
    assert done.returncode == 2 and "--ablate spread" in done.stderr
