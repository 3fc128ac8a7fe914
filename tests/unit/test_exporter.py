"""What nights did, as metrics: runs as Prefect's client gives them, results as stages leave them."""

import json
import os
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from flows.exporter import Sources, of_lake, of_runs
from flows.lake import MARKER
from serving.observe.metrics import MetricsServer, Probes, new_registry

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
NIGHTLY, CLEAN = uuid4(), uuid4()


def run(kind, ended, deployment=NIGHTLY, seconds=60.0):
    state = SimpleNamespace(
        timestamp=ended,
        is_final=lambda: kind not in ("RUNNING", "PENDING"),
        is_completed=lambda: kind == "COMPLETED",
        is_running=lambda: kind == "RUNNING",
    )
    return SimpleNamespace(deployment_id=deployment, state=state, total_run_time=timedelta(seconds=seconds))


def values(metrics):
    return {
        (sample.name.removeprefix("shortfall_"), *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def publish(lake, stage, name, summary, **files):
    folder = lake / stage / name
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    (folder / MARKER).write_text(json.dumps({"stage": stage, "id": name, "summary": summary}))
    return folder


def test_runs_when_the_newest_failed_then_success_is_the_one_before():
    earlier = NOW - timedelta(days=1)
    runs = [run("FAILED", NOW), run("RUNNING", NOW), run("COMPLETED", earlier, seconds=90.0)]
    found = values(of_runs(runs, {NIGHTLY: "nightly", CLEAN: "clean"}))
    assert found["flow_failed", "nightly"] == 1
    assert found["flow_success_timestamp_seconds", "nightly"] == earlier.timestamp()
    assert found["flow_seconds", "nightly"] == 90.0
    assert found["flow_running", "nightly"] == 1
    assert ("flow_failed", "clean") not in found  # it never ended: nothing is claimed
    assert found["flow_running", "clean"] == 0


def test_runs_when_one_completes_again_then_nothing_is_failed():
    runs = [run("COMPLETED", NOW), run("CRASHED", NOW - timedelta(hours=1))]
    assert values(of_runs(runs, {NIGHTLY: "nightly"}))["flow_failed", "nightly"] == 0


def test_lake_gives_drift_of_each_instruments_newest_day_and_costs_of_each_policy(tmp_path):
    rows = [
        {"partition": "SYN:A 2025-01-06", "size_distance": 0.9, "spread_distance": None},
        {"partition": "SYN:A 2025-01-07", "size_distance": 0.1, "spread_distance": None},
        {"partition": "SYN:B 2025-01-06", "size_distance": 0.3, "spread_distance": 0.2},
    ]
    report = {"success": True, "excluded": [{}], "partitions": rows}
    publish(tmp_path, "validate", "v", {}, validation=report)
    policies = {"twap": {"mean_is_bps": 2.5, "ci_low": 2.0, "ci_high": None}}
    publish(tmp_path, "evaluate", "e", {"policies": policies})
    publish(tmp_path, "train_signal", "s", {"skill": {"10": {"r2": 0.04}}})
    publish(tmp_path, "train_agent", "t", {"validation_bps": 1.5})
    found = values(of_lake(tmp_path))
    assert found["drift", "SYN:A", "size_distance"] == 0.1
    assert found["drift", "SYN:B", "spread_distance"] == 0.2
    assert ("drift", "SYN:A", "spread_distance") not in found
    assert found["gate_passed",] == 1 and found["gate_excluded",] == 1
    assert found["policy_is_bps", "twap"] == 2.5 and found["policy_is_bps_low", "twap"] == 2.0
    assert ("policy_is_bps_high", "twap") not in found
    assert found["signal_r2", "10"] == 0.04 and found["agent_validation_bps",] == 1.5
    assert {key[1] for key in found if key[0] == "stage_timestamp_seconds"} == {
        "validate", "evaluate", "train_signal", "train_agent",
    }  # fmt: skip


def test_gate_when_it_stopped_the_last_night_then_did_not_pass(tmp_path):
    report = {"success": True, "excluded": [], "partitions": []}
    publish(tmp_path, "validate", "v", {}, validation=report)
    assert values(of_lake(tmp_path))["gate_passed",] == 1
    stopped = publish(tmp_path, "failed", "validate-w", {}, validation=report | {"success": False})
    os.utime(stopped / "validation.json", (time.time() + 60,) * 2)
    assert values(of_lake(tmp_path))["gate_passed",] == 0


def test_empty_lake_gives_no_value(tmp_path):
    assert values(of_lake(tmp_path)) == {}


def test_source_when_it_fails_then_its_last_values_stay_and_its_fault_is_said_once(tmp_path):
    answers = [list(of_runs([run("COMPLETED", NOW)], {NIGHTLY: "nightly"})), OSError("away"), OSError("away")]

    def read():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    said = []
    sources = Sources({"prefect": read})
    for _ in range(3):
        sources.refresh(said.append)
    found = values(sources.collect())
    assert found["flow_failed", "nightly"] == 0
    assert found["exporter_source_up", "prefect"] == 0
    assert said == ["prefect cannot be read: OSError: away"]


def test_metrics_are_served_as_prometheus_reads_them(tmp_path):
    publish(tmp_path, "train_agent", "t", {"validation_bps": 1.5})
    sources = Sources({"lake": lambda: list(of_lake(tmp_path))})
    sources.refresh(pytest.fail)
    registry = new_registry()
    registry.register(sources)
    server = MetricsServer(registry, Probes(str, str))
    server.start()
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5).read().decode()
    finally:
        server.stop()
    assert "shortfall_agent_validation_bps 1.5" in text
    assert 'shortfall_exporter_source_up{source="lake"} 1.0' in text
