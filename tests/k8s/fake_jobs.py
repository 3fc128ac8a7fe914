"""The Job controller of a fake API server: a pod for each Job, another one where it failed, until its limits."""

from contextlib import suppress

from fake_api import FakeApi
from fake_store import ApiError, Event, Object

STAMP = "2026-11-24T00:00:00Z"


class Jobs:
    """Follows Jobs and their pods as the controller does: `backoffLimit`, success, and a deadline that a test sets."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        api.store.on_change.append(self.on_change)

    def on_change(self, event: Event) -> None:
        """Start the first pod of a new Job; count a pod that ended."""
        if event.kind.kind == "Job" and event.type == "ADDED":
            self._start(event.item)
        if event.kind.kind == "Pod" and event.type == "MODIFIED" and event.before is not None:
            before, now = (item.get("status", {}).get("phase") for item in (event.before, event.item))
            if before != now and now in ("Succeeded", "Failed"):
                self._count(event.item, now)

    def pass_deadline(self, job: Object) -> None:
        """End a Job as the controller does when `activeDeadlineSeconds` is over: its pods go, it has failed."""
        name, space = job["metadata"]["name"], job["metadata"]["namespace"]
        for pod in self.pods(job):
            with suppress(ApiError):
                self.api.store.delete(self.api.kind("pods"), space, pod["metadata"]["name"])
        status = {**self.read(space, name).get("status", {}), "active": 0}
        self._finish(job, status, "Failed", "DeadlineExceeded")

    def pods(self, job: Object) -> list[Object]:
        """Pods of a Job."""
        selector = f"batch.kubernetes.io/job-name={job['metadata']['name']}"
        return self.api.store.select(self.api.kind("pods"), job["metadata"]["namespace"], selector)

    def read(self, space: str, name: str) -> Object:
        """A Job as it is now."""
        return self.api.store.read(self.api.kind("jobs"), space, name)

    def _start(self, job: Object) -> None:
        metadata = job["metadata"]
        template = job["spec"]["template"]
        labels = {
            **template.get("metadata", {}).get("labels", {}),
            "batch.kubernetes.io/job-name": metadata["name"],
            "batch.kubernetes.io/controller-uid": metadata["uid"],
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        made = {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"], "labels": labels}
        made["ownerReferences"] = [owner]
        self.api.add({"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]})
        self.api.set_status("jobs", job, {**job.get("status", {}), "active": 1, "startTime": STAMP})

    def _count(self, pod: Object, phase: str) -> None:
        owner = next(iter(pod["metadata"].get("ownerReferences", [])), {"kind": ""})
        if owner["kind"] != "Job":
            return
        try:
            job = self.read(pod["metadata"]["namespace"], owner["name"])
        except ApiError:
            return
        status = {**job.get("status", {}), "active": 0}
        if phase == "Succeeded":
            self._finish(job, {**status, "succeeded": 1}, "Complete")
            return
        status["failed"] = status.get("failed", 0) + 1
        if status["failed"] > job["spec"].get("backoffLimit", 6):
            self._finish(job, status, "Failed", "BackoffLimitExceeded")
        else:
            self.api.set_status("jobs", job, status)
            self._start(self.read(pod["metadata"]["namespace"], owner["name"]))

    def _finish(self, job: Object, status: Object, kind: str, reason: str = "") -> None:
        condition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "lastTransitionTime": STAMP,
            "lastProbeTime": STAMP,
        }
        self.api.set_status("jobs", job, {**status, "conditions": [condition]})
