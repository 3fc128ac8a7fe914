"""A real Prefect server and worker: the deployments of prefect.yaml, the schedule, and a run as the UI starts it."""

import json
from pathlib import Path

import pytest
from night import TINY, Shell, call, wait_until_completed

from flows.params import STAGES

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.ray]


def test_deployments_when_applied_then_one_for_the_night_one_for_each_stage_and_all_in_one_pool(running):
    found = {item["name"]: item for item in call(running, "/deployments/filter", {})}
    assert set(found) == {"nightly", "backfill", "simulate", "opponent", "rollback"} | {
        stage.replace("_", "-") for stage in STAGES
    }
    assert {item["work_pool_name"] for item in found.values()} == {"shortfall"}
    schedule = found["nightly"]["schedules"][0]
    assert schedule["active"] and schedule["schedule"]["cron"] == "0 2 * * 2-6"
    assert schedule["schedule"]["timezone"] == "America/New_York"
    form = found["nightly"]["parameter_openapi_schema"]["definitions"]["NightlyParams"]["properties"]
    assert all("description" in field for field in form.values())
    assert {"source", "symbols", "profile", "synthetic_days", "test_days"} <= set(form)


def test_nightly_deployment_when_started_with_changed_parameters_then_completes_with_its_artifacts(running):
    deployment = call(running, "/deployments/name/nightly/nightly")
    params = {"profile": "tests/e2e/tiny.yaml", "synthetic_days": 3, "synthetic_hours": 0.5, "test_days": 1}
    run = call(running, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"params": params}})
    wait_until_completed(running, run["id"])
    children = call(running, "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run["id"]]}}})
    assert children == [] or all(child["state"]["type"] == "COMPLETED" for child in children)
    keys = {item["key"] for item in call(running, "/artifacts/latest/filter", {})}
    assert {"nightly", "tca", "tca-report", "champion", "quarantined-by-rule", "signal-skill", "data-docs"} <= keys
    assert {f"{stage.replace('_', '-')}-lineage" for stage in STAGES} <= keys


def test_nightly_when_each_stage_is_its_own_deployment_then_the_worker_runs_them_all(running, shell):
    lake = Path(running.environment["SHORTFALL_LAKE"])
    apart = Shell({**shell.environment, "SHORTFALL_EXECUTION": "deployments"})
    arguments = ["--profile", TINY[1], "--synthetic-days", "2", "--synthetic-hours", "0.4", "--synthetic-seed", "11"]
    done = apart.run(lake, *arguments, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert {stage["name"] for stage in report["stages"]} == set(STAGES)
    assert not any(stage["skipped"] for stage in report["stages"])
    runs = call(running, "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 60})
    on_worker = [run for run in runs if run["deployment_id"] and run["work_pool_name"] == "shortfall"]
    completed = [run for run in on_worker if run["state"]["type"] == "COMPLETED"]
    assert len(completed) >= len(report["stages"])
