"""What to take away and which runs to end, from what the cluster holds and what Prefect knows; pure.

| seen | done |
| --- | --- |
| a run is over, its Job still has pods | the Job goes, and its pods with it |
| a run is over, or unknown, and a RayJob or claim is left | it goes |
| a run hangs in Cancelling | its Job goes, the run is Cancelled |
| a Job met its deadline, its run goes on in name | the run is TimedOut |
| a run goes on in name, its Job is gone | the run is Crashed |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STARTED = ("PENDING", "RUNNING", "CANCELLING")


@dataclass(frozen=True)
class Run:
    """A flow run as Prefect knows it."""

    id: str
    type: str  # of its state: RUNNING, CANCELLING, ...
    since: datetime  # when it came into that state, UTC
    job: str | None = None  # name of its Job in this namespace; None where it has none


@dataclass(frozen=True)
class Held:
    """An object of the cluster that belongs to a flow run."""

    kind: Literal["Job", "RayJob", "PersistentVolumeClaim"]
    name: str
    uid: str
    run_id: str
    created: datetime  # UTC
    finished: bool = False  # a Job that has ended: its time to keep takes it away
    deadline_s: int | None = None  # of a Job that ended because it passed
    attempts: int = 0


@dataclass(frozen=True)
class Grace:
    """How long to leave something to those whose task it is."""

    over: timedelta = timedelta(seconds=120)  # pods of a run that is over have so long to end
    cancelling: timedelta = timedelta(seconds=180)
    gone: timedelta = timedelta(seconds=300)  # a worker may be about to create the Job


@dataclass(frozen=True)
class Delete:
    """Take an object away."""

    held: Held
    why: str


@dataclass(frozen=True)
class Finish:
    """End a run."""

    run_id: str
    state: Literal["Cancelled", "TimedOut", "Crashed"]
    message: str


Action = Delete | Finish


def decide(held: Iterable[Held], runs: Mapping[str, Run], now: datetime, grace: Grace = Grace()) -> list[Action]:  # noqa: B008
    """Everything that is to be done, deletions before what they explain. `runs` has every run that is not over."""
    actions: list[Action] = []
    ended: set[str] = set()
    jobs_of: set[str] = set()
    for item in held:
        run = runs.get(item.run_id)
        if item.kind == "Job":
            jobs_of.add(item.run_id)
        if run is not None and run.type in STARTED and item.deadline_s is not None and item.run_id not in ended:
            ended.add(item.run_id)
            attempts = f"{item.attempts} attempt{'s' if item.attempts != 1 else ''}"
            message = f"Job {item.name}: the deadline of {item.deadline_s} s for all attempts passed, after {attempts}"
            actions.append(Finish(item.run_id, "TimedOut", message))
        elif why := _why_away(item, run, now, grace):
            actions.append(Delete(item, why))
    for run in runs.values():
        if run.id in ended:
            continue
        if run.type == "CANCELLING" and now - run.since > grace.cancelling:
            message = f"swept: in Cancelling since {run.since:%Y-%m-%d %H:%M:%S} UTC"
            actions.append(Finish(run.id, "Cancelled", message))
        elif run.type in ("PENDING", "RUNNING") and run.job and run.id not in jobs_of and now - run.since > grace.gone:
            actions.append(Finish(run.id, "Crashed", f"Job {run.job} is gone, and nothing else runs it"))
    return actions


def _why_away(item: Held, run: Run | None, now: datetime, grace: Grace) -> str | None:
    if item.kind == "Job" and item.finished:
        return None
    if run is None:
        return "its run is unknown" if now - item.created > grace.gone else None
    if run.type in OVER and now - run.since > grace.over:
        return f"its run is {run.type.lower()} since {run.since:%Y-%m-%d %H:%M:%S} UTC"
    if run.type == "CANCELLING" and now - run.since > grace.cancelling:
        return "its run hangs in Cancelling"
    return None
