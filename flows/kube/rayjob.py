"""Creates a RayJob, follows it until it ends, and leaves nothing of it behind, however the flow ends."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from feature_repo.errors import ShortfallError
from flows.kube.client import KubeError, absent_is_none, persistently, status_of
from flows.kube.ray_manifest import GROUP, LABEL, PLURAL, VERSION, RayTraining

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

POLL_S = 2.0
GONE_S = 180.0
"""How long pods of a deleted RayJob may take to go."""

SUBMITTER = "ray-job-submitter"
Say = Callable[[str], None]


class RayJobError(ShortfallError):
    """A RayJob that did not succeed."""


def run_rayjob(training: RayTraining, client: "ApiClient", say: Say, poll_s: float = POLL_S) -> None:
    """Run a RayJob to its end; every line of its log goes to `say`.

    One of the same name that a lost attempt left behind is taken away first, pods and all, so that two trainings never
    write side by side. The RayJob is deleted at the end, also where the caller is interrupted; where even that is cut
    off, it goes with its owner. Raises RayJobError with KubeRay's reason where it fails.
    """
    calls = _Calls(training, client)
    if calls.read() is not None:
        say(f"RayJob {training.name}: taking away what an earlier attempt left")
        calls.delete()
        _wait_until_gone(calls, poll_s)
    calls.create()
    say(f"RayJob {training.name}: created in {training.namespace}")
    stop = threading.Event()
    follower = threading.Thread(target=_follow_log, args=(calls, say, stop, poll_s), daemon=True)
    follower.start()
    try:
        _wait_until_done(calls, say, poll_s)
        follower.join(10 * poll_s)  # what the submitter still has to say
    finally:
        stop.set()
        calls.delete()
        say(f"RayJob {training.name}: deleted")
        follower.join(5 * poll_s)


class _Calls:
    """The calls that are made about one RayJob: its Role allows these and no others."""

    def __init__(self, training: RayTraining, client: "ApiClient") -> None:
        from kubernetes.client import CoreV1Api, CustomObjectsApi

        self.training = training
        self._ray, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._where = (GROUP, VERSION, training.namespace, PLURAL)

    def create(self) -> None:
        """Raises KubeError."""
        what = f"create RayJob {self.training.name}"
        try:
            persistently(
                what, lambda: self._ray.create_namespaced_custom_object(*self._where, self.training.manifest())
            )
        except KubeError as error:
            if status_of(error) != 409 or not self._is_mine():
                raise  # 409: an answer that was lost, and the call was tried again

    def read(self) -> dict[str, Any] | None:
        """The RayJob, None where there is none."""
        name = self.training.name
        return absent_is_none(f"read RayJob {name}", lambda: self._ray.get_namespaced_custom_object(*self._where, name))

    def delete(self) -> None:
        """With all that it owns; one that is gone already is no fault."""
        name = self.training.name
        body = {"propagationPolicy": "Background"}
        absent_is_none(
            f"delete RayJob {name}", lambda: self._ray.delete_namespaced_custom_object(*self._where, name, body=body)
        )

    def pods(self) -> list[Any]:
        """Pods of the RayJob."""
        selector = f"{LABEL}={self.training.name}"
        space = self.training.namespace
        return persistently(
            f"list pods of RayJob {self.training.name}",
            lambda: self._core.list_namespaced_pod(space, label_selector=selector).items,
        )

    def log(self, pod: str) -> Any:
        """The submitter's log as it grows, each line with the time that it was written."""
        return self._core.read_namespaced_pod_log(
            pod, self.training.namespace, container=SUBMITTER, follow=True, timestamps=True, _preload_content=False
        )

    def _is_mine(self) -> bool:
        there, owner = self.read(), self.training.owner
        owners = [item["uid"] for item in (there or {}).get("metadata", {}).get("ownerReferences", [])]
        return there is not None and owner is not None and owner["uid"] in owners


def _wait_until_done(calls: _Calls, say: Say, poll_s: float) -> None:
    seen = ""
    while True:
        job = calls.read()
        if job is None:
            raise RayJobError(f"RayJob {calls.training.name} was deleted while it ran")
        status = job.get("status") or {}
        deployment, state = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
        if (now := " ".join(filter(None, (deployment, state)))) != seen:
            seen = now
            say(f"RayJob {calls.training.name}: {now}")
        if state == "SUCCEEDED":
            return
        if deployment == "Failed" or (state in ("FAILED", "STOPPED") and deployment == "Complete"):
            why = ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "no reason given"
            raise RayJobError(f"RayJob {calls.training.name} ended {state or deployment}: {why}")
        time.sleep(poll_s)


def _wait_until_gone(calls: _Calls, poll_s: float) -> None:
    """Wait for the pods to go too: they may still write. Raises RayJobError where they stay."""
    limit = time.monotonic() + GONE_S
    while calls.read() is not None or calls.pods():
        if time.monotonic() > limit:
            left = [pod.metadata.name for pod in calls.pods()]
            raise RayJobError(
                f"RayJob {calls.training.name} of an earlier attempt is not gone after {GONE_S:.0f} s; pods left: "
                f"{left}; is their node lost? delete it, or the pods with --force"
            )
        time.sleep(poll_s)


def _follow_log(calls: _Calls, say: Say, stop: threading.Event, poll_s: float) -> None:
    """Hand on the log of each submitter pod, once each line, through broken connections and further submitters."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    last: dict[str, str] = {}  # time of the last line told, by pod
    finished: set[str] = set()
    while not stop.is_set():
        try:
            for pod in calls.pods():
                name = pod.metadata.name
                waits = (pod.status.phase or "Pending") == "Pending"
                if pod.spec.containers[0].name != SUBMITTER or name in finished or waits:
                    continue
                for line in _lines(calls.log(name)):
                    stamp, _, text = line.partition(" ")
                    if stamp > last.get(name, ""):
                        last[name] = stamp
                        say(text)
                if pod.status.phase in ("Succeeded", "Failed"):
                    finished.add(name)
        except (ApiException, HTTPError, OSError, ShortfallError) as error:
            if not stop.is_set():
                say(f"log of RayJob {calls.training.name} is interrupted: {str(error).splitlines()[0]}")
        stop.wait(poll_s)


def _lines(stream: Any) -> Any:
    rest = b""
    for part in stream.stream():
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
    if rest:
        yield rest.decode("utf-8", "replace")
