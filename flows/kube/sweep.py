"""`python -m flows.kube.sweep`: leaves nothing of runs that are over, and ends runs that hang; a CronJob calls it.

Prefect's worker and the pods do this themselves as a rule; this is for what died in between.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from feature_repo.errors import InputError, ShortfallError
from flows.kube.client import KubeError, absent_is_none, connect, persistently, status_of
from flows.kube.ray_manifest import GROUP, PLURAL, VERSION
from flows.kube.sweeping import STARTED, Action, Delete, Finish, Held, Run, decide
from flows.settings import settings

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

LABEL = "prefect.io/flow-run-id"
SPACE = "shortfall-flows"
PAGE = 200


def read_held(client: "ApiClient", namespace: str) -> list[Held]:
    """Jobs, RayJobs and claims of the namespace that bear a flow run's id. Raises KubeError."""
    from kubernetes.client import BatchV1Api, CoreV1Api, CustomObjectsApi

    plain = client.sanitize_for_serialization
    jobs = persistently("list Jobs", lambda: BatchV1Api(client).list_namespaced_job(namespace, label_selector=LABEL))
    claims = persistently(
        "list claims",
        lambda: CoreV1Api(client).list_namespaced_persistent_volume_claim(namespace, label_selector=LABEL),
    )
    found = [_held_job(plain(job)) for job in jobs.items]
    found += [_held("PersistentVolumeClaim", plain(claim)) for claim in claims.items]
    ray = CustomObjectsApi(client)
    rayjobs = absent_is_none(  # 404: a cluster without KubeRay
        "list RayJobs",
        lambda: ray.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, label_selector=LABEL),
    )
    return found + [_held("RayJob", item) for item in (rayjobs or {}).get("items", [])]


async def read_runs(held: list[Held], namespace: str) -> dict[str, Run]:
    """Every run that something is held for, and every run that is under way in this namespace."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    ids = sorted({UUID(item.run_id) for item in held})
    filters = [FlowRunFilter(id=FlowRunFilterId(any_=ids[at : at + PAGE])) for at in range(0, len(ids), PAGE)]
    started = FlowRunFilterStateType(any_=[StateType(name) for name in STARTED])
    filters.append(FlowRunFilter(state=FlowRunFilterState(type=started)))
    found: dict[str, Run] = {}
    async with get_client() as client:
        for wanted in filters:
            offset = 0
            while page := await client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset):
                offset += len(page)
                found |= {str(run.id): _run(run, namespace) for run in page if run.state is not None}
    return found


async def carry_out(actions: list[Action], client: "ApiClient", namespace: str) -> list[str]:
    """Do it all; what went wrong, as sentences. One failure keeps nothing else from being done."""
    faults = []
    for action in actions:
        try:
            if isinstance(action, Delete):
                print(f"{action.held.kind} {action.held.name}: deleted, {action.why}", flush=True)
                _delete(action.held, client, namespace)
            else:
                print(f"flow run {action.run_id}: {action.state}, {action.message}", flush=True)
                await _finish(action)
        except Exception as error:  # whatever it is, the rest is still to be swept
            faults.append(str(error))
    return faults


async def sweep(client: "ApiClient", namespace: str, now: datetime | None = None) -> list[str]:
    """Look once, and do what is to be done; what went wrong, as sentences."""
    held = await asyncio.to_thread(read_held, client, namespace)
    runs = await read_runs(held, namespace)
    return await carry_out(decide(held, runs, now or datetime.now(UTC)), client, namespace)


def _delete(held: Held, client: "ApiClient", namespace: str) -> None:
    """The very object that was seen: a new one of its name stays."""
    from kubernetes.client import BatchV1Api, CoreV1Api, CustomObjectsApi

    body = {"propagationPolicy": "Background", "preconditions": {"uid": held.uid}}
    what = f"delete {held.kind} {held.name}"
    try:
        if held.kind == "Job":
            absent_is_none(what, lambda: BatchV1Api(client).delete_namespaced_job(held.name, namespace, body=body))
        elif held.kind == "RayJob":
            where = (GROUP, VERSION, namespace, PLURAL, held.name)
            absent_is_none(what, lambda: CustomObjectsApi(client).delete_namespaced_custom_object(*where, body=body))
        else:
            core = CoreV1Api(client)
            absent_is_none(
                what, lambda: core.delete_namespaced_persistent_volume_claim(held.name, namespace, body=body)
            )
    except KubeError as error:
        if status_of(error) != 409:
            raise


async def _finish(action: Finish) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.states import State

    types = {"Cancelled": StateType.CANCELLED, "TimedOut": StateType.FAILED, "Crashed": StateType.CRASHED}
    state: Any = State(type=types[action.state], name=action.state, message=action.message)
    async with get_client() as client:
        await client.set_flow_run_state(UUID(action.run_id), state, force=True)


def _held(kind: Any, item: dict[str, Any], **more: Any) -> Held:
    metadata = item["metadata"]
    created = datetime.fromisoformat(metadata["creationTimestamp"].replace("Z", "+00:00"))
    return Held(kind, metadata["name"], metadata["uid"], metadata["labels"][LABEL], created, **more)


def _held_job(job: dict[str, Any]) -> Held:
    status = job.get("status") or {}
    ended = [item for item in status.get("conditions") or [] if item["status"] == "True"]
    finished = [item for item in ended if item["type"] in ("Complete", "Failed")]
    late = any(item["type"] == "Failed" and item.get("reason") == "DeadlineExceeded" for item in finished)
    return _held(
        "Job",
        job,
        finished=bool(finished),
        deadline_s=job["spec"].get("activeDeadlineSeconds") if late else None,
        attempts=status.get("failed") or 0,
    )


def _run(run: Any, namespace: str) -> Run:
    """`infrastructure_pid` is what the worker wrote: namespace and name of the Job."""
    where, _, name = (run.infrastructure_pid or "").partition(":")
    return Run(str(run.id), run.state.type.value, run.state.timestamp, name if where == namespace and name else None)


def main() -> int:
    """Exit code 0 when all is swept, 1 where something was not, 2 without a cluster."""
    try:
        faults = asyncio.run(sweep(connect(), settings().pod_namespace or SPACE))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ShortfallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
