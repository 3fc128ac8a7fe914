"""`shortfall simulate` as a person runs it: the data are prepared, a report is left, nothing is done twice."""

import json
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.spark]

SMALL = ["--synthetic-days", "2", "--synthetic-hours", "1.0"]


def test_simulate_when_run_again_or_for_another_world_then_only_what_is_missing_is_done(shell, tmp_path):
    command = replace(shell, command="simulate")
    lake, copy = tmp_path / "lake", tmp_path / "out.html"
    done = command.run(lake, "--world", "replay", *SMALL, "--report", str(copy), "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert [stage["name"] for stage in found["stages"]] == ["ingest", "clean", "validate", "features", "simulate"]
    assert found["world"] == "replay" and found["synthetic"] and found["report"] == str(copy)
    assert "SYNTHETIC" in copy.read_text()
    assert set(found["instruments"]["SYN:SYN1"]["fill_models"]) == {"conservative", "expected", "optimistic", "fifo"}

    again = command.run(lake, "--world", "replay", *SMALL, "--report", str(copy))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "nothing was done again" in again.stdout and "conservative" in again.stdout

    other = json.loads(command.run(lake, "--world", "impact", *SMALL, "--json").stdout)
    assert [stage["skipped"] for stage in other["stages"]] == [True] * 4 + [False]
    assert other["instruments"]["SYN:SYN1"]["parent_costs_bps"]["0.01"]["off"] == 0.0
