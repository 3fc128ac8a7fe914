"""What the sweeper decides, row for row of its table."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.kube.sweeping import Delete, Finish, Held, Run, decide

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def job(**more) -> Held:
    return Held(**{"kind": "Job", "name": "j", "uid": "u", "run_id": "r", "created": ago(hours=1), **more})


def run(type_: str, since: datetime, **more) -> dict[str, Run]:
    return {"r": Run(**{"id": "r", "type": type_, "since": since, **more})}


def done(held: list[Held], runs: dict[str, Run]) -> list[str]:
    return [
        f"delete {action.held.kind}" if isinstance(action, Delete) else action.state
        for action in decide(held, runs, NOW)
    ]


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
def test_run_when_it_is_over_then_its_living_job_goes_after_a_while_and_a_finished_one_is_kept(state):
    assert done([job()], run(state, ago(seconds=60))) == []
    assert done([job()], run(state, ago(seconds=130))) == ["delete Job"]
    assert done([job(finished=True)], run(state, ago(days=1))) == []


@pytest.mark.parametrize("kind", ["RayJob", "PersistentVolumeClaim"])
def test_run_when_it_is_over_or_unknown_then_its_rayjob_and_claim_go(kind):
    assert done([job(kind=kind)], run("CANCELLED", ago(seconds=130))) == [f"delete {kind}"]
    assert done([job(kind=kind)], run("RUNNING", ago(days=1))) == []
    assert done([job(kind=kind)], {}) == [f"delete {kind}"]
    assert done([job(kind=kind, created=ago(seconds=100))], {}) == []


@pytest.mark.parametrize("pid", [None, "j"])
def test_run_when_it_hangs_in_cancelling_then_its_job_goes_and_it_is_cancelled_pending_ones_too(pid):
    assert done([job()], run("CANCELLING", ago(seconds=170), job=pid)) == []
    assert done([job()], run("CANCELLING", ago(seconds=190), job=pid)) == ["delete Job", "Cancelled"]
    assert done([], run("CANCELLING", ago(seconds=190), job=pid)) == ["Cancelled"]


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "CANCELLING"])
def test_job_when_its_deadline_passed_with_retries_left_then_the_run_is_timed_out_and_told_so(state):
    late = job(finished=True, deadline_s=3600, attempts=2)
    (action,) = decide([late], run(state, ago(seconds=5), job="j"), NOW)
    assert action == Finish("r", "TimedOut", "Job j: the deadline of 3600 s for all attempts passed, after 2 attempts")
    assert done([late], run("FAILED", ago(days=1))) == []
    assert done([job(finished=True)], run(state, ago(seconds=5), job="j")) == []


def test_run_when_its_job_is_gone_then_crashed_unless_another_job_runs_it_or_it_is_of_another_place():
    assert done([], run("RUNNING", ago(seconds=400), job="j")) == ["Crashed"]
    assert done([], run("PENDING", ago(seconds=200), job="j")) == []
    assert done([], run("RUNNING", ago(days=1))) == []
    assert done([job(name="next")], run("RUNNING", ago(days=1), job="j")) == []
    assert done([], run("SCHEDULED", ago(days=1), job="j")) == []


def test_sweep_when_all_is_well_then_nothing_is_done():
    assert done([job()], run("RUNNING", ago(days=2), job="j")) == []
