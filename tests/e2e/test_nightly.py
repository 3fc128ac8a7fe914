"""The nightly command end to end on a tiny market: what it prints, what it leaves, and that a kill changes nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from night import TINY, content

from flows.params import STAGES

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.ray]


def test_nightly_when_done_then_reports_every_stage_row_and_policy(tiny_night):
    report = tiny_night.report
    assert {stage["name"] for stage in report["stages"]} == set(STAGES)
    assert not any(stage["skipped"] for stage in report["stages"])
    rows = report["rows"]
    assert rows["in"] == rows["kept"] + sum(rows["quarantined"].values()) > 0
    assert sum(part["in"] for part in rows["by_symbol_and_day"]) == rows["in"]
    wanted = {"agent", "untrained", "champion", "immediate", "random", "twap_market", "twap_passive", "imbalance_rule"}
    assert wanted | {"vwap_market", "almgren_chriss"} <= set(report["evaluation"])
    for policy in report["evaluation"].values():
        assert policy["n"] > 0
        if policy["ci_low"] is not None:  # half an hour of test has too few clusters for an interval
            assert policy["ci_low"] <= policy["mean_is_bps"] <= policy["ci_high"]
    assert not any(policy["established"] for policy in report["evaluation"].values())
    html = Path(report["report"]).read_text()
    assert "SYNTHETIC" in html and "agent" in html


def test_nightly_when_policy_is_promoted_or_kept_then_the_journal_says_why(tiny_night, monkeypatch):
    from serving.registry import Registry

    registry = Registry(tiny_night.lake / "registry" / "synthetic")
    history = registry.history()
    assert history[0]["action"] == "registered" and history[1]["action"] == "promoted"
    assert history[-1]["action"] in ("promoted", "kept")
    standing = registry.load_champion()
    assert standing is not None and standing[0] == tiny_night.report["champion"]["version"]


def test_nightly_when_run_twice_then_does_no_stage_again_and_says_so(tiny_night, shell):
    before = content(tiny_night.lake)
    done = shell.run(tiny_night.lake, *TINY)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Every stage was already done" in done.stdout
    assert content(tiny_night.lake) == before


def test_nightly_when_one_stage_is_forced_then_only_it_is_redone_with_equal_content(tiny_night, shell):
    before = content(tiny_night.lake)
    done = shell.run(tiny_night.lake, *TINY, "--force", "clean", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    redone = [stage["name"] for stage in json.loads(done.stdout)["stages"] if not stage["skipped"]]
    assert redone == ["clean"]
    assert content(tiny_night.lake) == before


def test_nightly_when_killed_at_every_stage_boundary_then_ends_with_the_content_of_an_unbroken_run(
    tiny_night, shell, tmp_path
):
    killed_after = []
    for stage in STAGES[:-1]:
        process = shell.start(tmp_path, *TINY, "--json")
        try:
            _wait_for_output(tmp_path / stage, process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        killed_after.append(stage)
    assert killed_after == list(STAGES[:-1])
    done = shell.run(tmp_path, *TINY, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    skipped = {stage["name"]: stage["skipped"] for stage in report["stages"] if stage["name"] != "materialize"}
    assert skipped == {stage: stage != "promote" for stage in STAGES if stage != "materialize"}
    assert content(tmp_path) == tiny_night.published


def _wait_for_output(folder: Path, process) -> None:
    """Until a stage has published; fails at once where the run ends without."""
    limit = time.monotonic() + 240
    while not list(folder.glob("*/_stage.json")):
        if process.poll() is not None:
            raise AssertionError(f"the run ended before {folder.name}: {process.communicate()[1][-4000:]}")
        assert time.monotonic() < limit, f"no output of {folder.name}"
        time.sleep(0.05)
