"""Rolls a new image out to the serving workloads, waits until it is ready, and takes it back by itself where it is not.

The gateway is no part of it: it holds live orders, and its upgrade is a hand-over of its own (docs/operations.md).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from feature_repo.errors import InputError, ShortfallError
from flows.kube.client import KubeError, persistently, status_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

SPACE = "shortfall-serving"
PROTECTED = ("gateway",)
"""Workloads, and containers, that no rollout touches."""

POLL_S = 2.0
Say = Callable[[str], None]


class RolloutError(ShortfallError):
    """A rollout that did not become ready; the message says what was taken back."""


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet and the containers of it that change."""

    kind: Literal["Deployment", "StatefulSet"]
    name: str
    images: dict[str, str]  # by container, init containers (native sidecars) included: what it runs now

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Cluster:
    """The calls that a rollout makes: its Role allows these and no others."""

    def __init__(self, client: "ApiClient", namespace: str = SPACE) -> None:
        from kubernetes.client import AppsV1Api, CoreV1Api

        self.namespace = namespace
        self._apps, self._core, self._plain = AppsV1Api(client), CoreV1Api(client), client.sanitize_for_serialization

    def workloads(self) -> list[dict[str, Any]]:
        """Deployments and StatefulSets of the namespace, as plain objects with their kind."""
        found = []
        for kind, call in (
            ("Deployment", self._apps.list_namespaced_deployment),
            ("StatefulSet", self._apps.list_namespaced_stateful_set),
        ):
            items = persistently(f"list {kind}s", partial(call, self.namespace)).items
            found += [{**self._plain(item), "kind": kind} for item in items]
        return found

    def read(self, workload: Workload) -> dict[str, Any]:
        """The workload as it is now."""
        call = (
            self._apps.read_namespaced_deployment
            if workload.kind == "Deployment"
            else self._apps.read_namespaced_stateful_set
        )
        return self._plain(persistently(f"read {workload}", lambda: call(workload.name, self.namespace)))

    def images(self, workload: Workload) -> dict[str, str]:
        """What its containers of the rollout run now."""
        spec = self.read(workload)["spec"]["template"]["spec"]
        containers = [*spec["containers"], *(spec.get("initContainers") or [])]
        return {c["name"]: c["image"] for c in containers if c["name"] in workload.images}

    def set_images(self, workload: Workload, images: dict[str, str], expected: dict[str, str] | None = None) -> None:
        """Put images into its pod template; with `expected`, only where these are the present ones.

        Raises RolloutError where they are not: somebody else changed the workload.
        """
        spec = self.read(workload)["spec"]["template"]["spec"]
        patch: list[dict[str, Any]] = []
        for place in ("containers", "initContainers"):
            for index, container in enumerate(spec.get(place) or []):
                name, path = container["name"], f"/spec/template/spec/{place}/{index}"
                if name not in images:
                    continue
                patch.append({"op": "test", "path": f"{path}/name", "value": name})
                if expected is not None:
                    patch.append({"op": "test", "path": f"{path}/image", "value": expected[name]})
                patch.append({"op": "replace", "path": f"{path}/image", "value": images[name]})
        call = (
            self._apps.patch_namespaced_deployment
            if workload.kind == "Deployment"
            else self._apps.patch_namespaced_stateful_set
        )
        try:
            persistently(f"patch {workload}", lambda: call(workload.name, self.namespace, patch))
        except KubeError as error:
            if status_of(error) != 422:
                raise
            raise RolloutError(f"{workload} was changed by somebody else meanwhile; look, and run again") from error

    def complaints(self, item: dict[str, Any]) -> list[str]:
        """What containers of the workload's pods wait for, the most telling words that there are."""
        labels = item["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods = persistently(
            "list pods", lambda: self._core.list_namespaced_pod(self.namespace, label_selector=selector).items
        )
        found = []
        for pod in (self._plain(pod) for pod in pods):
            status = pod.get("status") or {}
            for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
                waiting = (container.get("state") or {}).get("waiting") or {}
                if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                    words = ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
                    found.append(f"{pod['metadata']['name']}/{container['name']}: {words}")
        return found


def find_workloads(cluster: Cluster, repository: str, only: Sequence[str] = ()) -> list[Workload]:
    """Workloads that run an image of this repository, all of them or those named.

    Raises InputError for a protected one, for a name that there is not, and where nothing runs the image.
    """
    found, names = [], []
    for item in cluster.workloads():
        name = item["metadata"]["name"]
        names.append(name)
        if only and name not in only:
            continue
        spec = item["spec"]["template"]["spec"]
        containers = [*spec["containers"], *(spec.get("initContainers") or [])]
        images = {c["name"]: c["image"] for c in containers if repository_of(c["image"]) == repository}
        if not images:
            continue
        if name in PROTECTED or set(images) & set(PROTECTED):
            if name in only:
                raise InputError(f"{item['kind']} {name} is not rolled out: it holds live orders; see its own upgrade")
            continue
        found.append(Workload(item["kind"], name, images))
    if missing := sorted(set(only) - set(names)):
        raise InputError(
            f"namespace {cluster.namespace} has no {', '.join(missing)}; there are {sorted(names) or 'none'}"
        )
    if not found:
        raise InputError(f"nothing in {cluster.namespace} runs an image of {repository}; there are {sorted(names)}")
    return found


def roll_out(
    cluster: Cluster, image: str, only: Sequence[str] = (), *, timeout_s: float = 600.0, say: Say = print,
    poll_s: float = POLL_S,
) -> list[str]:  # fmt: skip
    """Put `image` in the place of its repository's present one, workload after workload; returns which changed.

    Where one does not become ready within `timeout_s`, it and those before it get back the images that they had, and
    RolloutError says what its pods complained of. Raises InputError where there is nothing to roll out.
    """
    changed: list[Workload] = []
    for workload in find_workloads(cluster, repository_of(image), only):
        if set(workload.images.values()) == {image}:
            say(f"{workload}: runs {image} already")
            continue
        try:
            changed.append(workload)  # before the call: an answer may be lost and the change be made
            cluster.set_images(workload, dict.fromkeys(workload.images, image), workload.images)
            say(f"{workload}: {', '.join(sorted(set(workload.images.values())))} to {image}")
            wait_until_ready(cluster, workload, timeout_s, poll_s)
            say(f"{workload}: ready")
        except (ShortfallError, KeyboardInterrupt) as error:
            back = take_back(cluster, changed, image, timeout_s, say, poll_s)
            raise RolloutError(f"{workload} did not take {image}: {error or 'interrupted'}; {back}") from error
    return [workload.name for workload in changed]


def take_back(
    cluster: Cluster, changed: list[Workload], image: str, timeout_s: float, say: Say, poll_s: float = POLL_S
) -> str:
    """Give workloads that run `image` what they ran before, the last one first; what came of it, in words.

    What somebody else put there meanwhile stays.
    """
    done, failed = [], []
    for workload in reversed(changed):
        try:
            if set(cluster.images(workload).values()) != {image}:
                continue
            say(f"{workload}: taking it back")
            cluster.set_images(workload, workload.images)
            wait_until_ready(cluster, workload, timeout_s, poll_s)
            done.append(workload.name)
        except ShortfallError as error:
            failed.append(f"{workload.name} ({error})")
    words = [f"taken back: {', '.join(done) or 'nothing'}"]
    return "; ".join([*words, *([f"NOT taken back: {', '.join(failed)}"] if failed else [])])


def wait_until_ready(cluster: Cluster, workload: Workload, timeout_s: float, poll_s: float = POLL_S) -> None:
    """Wait until every replica is of the new template and ready. Raises RolloutError where that does not come."""
    limit = time.monotonic() + timeout_s
    while True:
        item = cluster.read(workload)
        why = not_ready(item)
        if why is None:
            return
        if (late := _progress_failed(item)) or time.monotonic() > limit:
            complaints = "; ".join(cluster.complaints(item)) or "its pods say nothing"
            raise RolloutError(f"{late or f'not ready within {timeout_s:.0f} s'}: {why}; {complaints}")
        time.sleep(poll_s)


def not_ready(item: dict[str, Any]) -> str | None:
    """Why a workload is not wholly rolled out, as `kubectl rollout status` judges; None where it is."""
    status, wanted = item.get("status") or {}, item["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < item["metadata"]["generation"]:
        return "its controller has not seen the change"
    updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    if updated < wanted:
        return f"{updated} of {wanted} replicas are new"
    if item["kind"] == "Deployment":
        if status.get("replicas", 0) > updated:
            return f"{status['replicas'] - updated} old replicas are there yet"
        ready = status.get("availableReplicas", 0)
    elif status.get("updateRevision") != status.get("currentRevision") and ready < wanted:
        return f"{ready} of {wanted} replicas are ready"
    return None if ready >= wanted else f"{ready} of {wanted} replicas are ready"


def repository_of(image: str) -> str:
    """An image reference without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _progress_failed(item: dict[str, Any]) -> str | None:
    if (item.get("status") or {}).get("observedGeneration", 0) < item["metadata"]["generation"]:
        return None  # what stands there is of the template before
    for condition in (item.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return "its progress deadline passed"
    return None
