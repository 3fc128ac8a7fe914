"""Runs one stage inside a Prefect task: retries what may pass, publishes what is whole, shows how far it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

from feature_repo.errors import DiskFullError, GateFailedError, InputError
from feature_repo.progress import Progress
from flows.ids import lake
from flows.lake import StageResult
from flows.progress import ArtifactProgress, reporter

FINAL = (InputError, GateFailedError, DiskFullError)
"""Errors that trying again cannot mend."""


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Retry a failure unless it is one that the same input will give again."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, FINAL)


stage_task = partial(task, retries=2, retry_delay_seconds=5, retry_condition_fn=_may_pass, cache_policy=None)
"""Decorator of every stage's task: two retries, five seconds apart, for failures that may pass."""


def run_stage(
    stage: str,
    id_: str,
    work: Callable[[Path, Progress], dict[str, Any]],
    *,
    force: bool = False,
    keeps_parts: bool = False,
) -> StageResult:
    """Publish the output of `work(out_dir, progress)` as (stage, id_) unless it is there; report and return it."""
    reporter().begin(stage)

    def with_progress(folder: Path) -> dict[str, Any]:
        progress = ArtifactProgress(stage)
        summary = work(folder, progress)
        progress.finish()
        return summary

    result = lake().run(stage, id_, with_progress, force=force, keeps_parts=keeps_parts)
    reporter().end(result)
    if flow_run.id:
        lake().note_run(flow_run.id, result)
    return result
