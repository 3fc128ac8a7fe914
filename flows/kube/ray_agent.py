"""Trains the execution agent in a RayJob instead of in the flow's own process; what it gives is the same."""

import hashlib
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.runtime import flow_run

from feature_repo.errors import InputError
from feature_repo.progress import Progress
from flows.kube.client import connect
from flows.kube.ray_manifest import PodSize, RayTraining
from flows.kube.ray_train import read_answer, told, write_request
from flows.kube.rayjob import RayJobError, run_rayjob
from flows.settings import Settings

if TYPE_CHECKING:
    from training.execution.agent_config import AgentConfig


def train_in_rayjob(
    features: Path, forecasts: Path | None, out: Path, config: "AgentConfig", progress: Progress, where: Settings
) -> dict[str, Any]:
    """As `training.execution.train.train_agent`, on the Ray cluster of a RayJob.

    Raises InputError off a cluster, RayJobError where the RayJob fails, and what the training itself raised.
    """
    from prefect.logging import get_run_logger

    say = get_run_logger().info
    for old in out.parent.glob(f"{out.name.partition('.')[0]}.*.ray"):
        shutil.rmtree(old, ignore_errors=True)
    folder = out.with_name(f"{out.name}.ray")
    config = replace(config, ray_address="auto", num_gpus_per_learner=float(min(1, where.ray_head_gpus)))
    write_request(folder, features, forecasts, out, config)
    training = describe(folder, where, str(flow_run.id or ""))
    try:
        run_rayjob(training, connect(), partial(told, progress=progress, say=say))
    except RayJobError:
        if (folder / "answer.json").is_file():
            read_answer(folder)  # raises the training's own error, which says more
        raise
    summary = read_answer(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return summary


def describe(folder: Path, where: Settings, flow_run_id: str) -> RayTraining:
    """The RayJob of the request in `folder`; its name is that of the output, so that one output has one RayJob."""
    if where.pod_namespace is None or where.ray_image is None:
        raise InputError("ray=rayjob needs a cluster: SHORTFALL_POD_NAMESPACE and SHORTFALL_RAY_IMAGE are not both set")
    digest = hashlib.sha256(folder.name.partition(".")[0].encode()).hexdigest()[:12]
    return RayTraining(
        name=f"train-agent-{digest}",
        namespace=where.pod_namespace,
        image=where.ray_image,
        entrypoint=shlex.join(["python", "-m", "flows.kube.ray_train", str(folder)]),
        owner=owner_of(where),
        labels={"prefect.io/flow-run-id": flow_run_id} if flow_run_id else {},
        head=PodSize(where.ray_head_cpu, where.ray_head_memory, where.ray_head_gpus),
        worker=PodSize(where.ray_worker_cpu, where.ray_worker_memory, where.ray_worker_gpus),
        workers=where.ray_workers,
        shared_memory=where.ray_shared_memory,
        deadline_s=where.ray_deadline_s,
        node_selector=where.ray_node_selector,
        lake_folder=str(where.lake.absolute()),
    )


def owner_of(where: Settings) -> dict[str, Any] | None:
    """Owner reference to the flow's Job, else to its pod; None off a cluster.

    The Job, because a pod that was evicted stays as an object while the next attempt runs.
    """
    if where.job_name and where.job_uid:
        return {"apiVersion": "batch/v1", "kind": "Job", "name": where.job_name, "uid": where.job_uid}
    if where.pod_name and where.pod_uid:
        return {"apiVersion": "v1", "kind": "Pod", "name": where.pod_name, "uid": where.pod_uid}
    return None
