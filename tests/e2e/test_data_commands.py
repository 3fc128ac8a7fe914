"""The data stages as commands of their own, and the backfill: only new days are worked on, and content is the same."""

import json
from dataclasses import replace

import pytest
from night import content

pytestmark = [pytest.mark.e2e, pytest.mark.spark]

SMALL = ["--synthetic-days", "3", "--synthetic-hours", "0.2", "--json"]
DAYS = ("2025-01-06", "2025-01-07", "2025-01-08")


def run(shell, lake, command, *arguments):
    done = replace(shell, command=command).run(lake, *SMALL, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def stamps(lake, stage):
    """When each part of a stage was made."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (lake / "parts" / stage).glob("*/part.json")}


def test_data_commands_when_run_in_turn_then_each_goes_on_from_the_one_before_and_only_new_days_are_worked_on(
    shell, tmp_path
):
    two_days = run(shell, tmp_path, "clean", "--to", DAYS[1])
    assert [stage["name"] for stage in two_days["stages"]] == ["ingest", "clean"]
    rows = two_days["rows"]
    assert rows["in"] == rows["kept"] + sum(rows["quarantined"].values())
    assert [part["date"] for part in rows["by_symbol_and_day"]] == list(DAYS[:2])
    for part in rows["by_symbol_and_day"]:
        assert part["in"] == part["kept"] + sum(part["quarantined"].values()) > 0
    before = {stage: stamps(tmp_path, stage) for stage in ("ingest", "clean")}
    assert all(len(parts) == 2 for parts in before.values())

    whole = run(shell, tmp_path, "features")
    assert [stage["skipped"] for stage in whole["stages"]] == [False] * 4
    for stage, parts in before.items():
        after = stamps(tmp_path, stage)
        assert len(after) == 3 and {key: after[key] for key in parts} == parts
    assert whole["gate"]["expectations"] > 20 and whole["features"]["rows"] == 3 * 720
    again = run(shell, tmp_path, "features")
    assert all(stage["skipped"] for stage in again["stages"]) and again["folder"] == whole["folder"]


def test_backfill_when_done_then_the_range_has_the_content_of_one_run_over_it(shell, tmp_path):
    at_once = run(shell, tmp_path / "a", "features")
    by_day = run(shell, tmp_path / "b", "backfill")
    assert by_day["rows"] == at_once["rows"]
    assert by_day["folder"].removeprefix(str(tmp_path / "b")) == at_once["folder"].removeprefix(str(tmp_path / "a"))
    ours, theirs = content(tmp_path / "b"), content(tmp_path / "a")
    assert {name: ours.get(name) for name in theirs} == theirs


def test_backfill_when_a_day_cannot_be_read_then_names_it_and_keeps_the_days_before(shell, tmp_path):
    from reader_files import lean_day

    data, lake = tmp_path / "lean", tmp_path / "lake"
    lean_day(data, "aig", "20131007", quotes=["34200100,494100,300,0,0,Q,1,0", "34200200,0,0,4942"])
    done = replace(shell, command="backfill").run(lake, "--source", "lean", "--data", str(data))
    assert done.returncode == 2, done.stderr[-2000:]
    assert "backfill stopped at 2013-10-07" in done.stderr and "line 2: 4 columns" in done.stderr
    assert "Traceback" not in done.stderr
