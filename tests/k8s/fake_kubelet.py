"""Runs the containers of a fake API server's pods as processes on this machine, as a kubelet does on a node."""

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fake_api import FakeApi
from fake_store import ApiError, Event, Object

IP = "127.0.0.1"
Command = Callable[[Object, Object], list[str] | None]
"""Process that a pod's container stands for, or None for a pod that is not to be run."""


@dataclass
class Kubelet:
    """Starts a process for each pod that `command` knows, reports what becomes of it, and ends it with its pod."""

    api: FakeApi
    command: Command
    environment: dict[str, str]  # goes before the pod's own: where things are on this machine
    folder: Path  # of the containers' output
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def on_change(self, event: Event) -> None:
        """Follow the life of pods."""
        if event.kind.kind != "Pod":
            return
        name = event.item["metadata"]["name"]
        if event.type == "ADDED":
            threading.Thread(target=self._run, args=(event.item,), daemon=True).start()
        elif event.type == "DELETED" and name in self.processes:
            self.processes[name].terminate()

    def lose(self, name: str) -> None:
        """Kill everything of a pod at once, as when its node is lost."""
        import psutil

        process = psutil.Process(self.processes[name].pid)
        for each in [process, *process.children(recursive=True)]:
            each.kill()

    def stop(self) -> None:
        """End every process."""
        for process in self.processes.values():
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def output(self) -> str:
        """What all containers wrote."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _run(self, pod: Object) -> None:
        container, name = pod["spec"]["containers"][0], pod["metadata"]["name"]
        command = self.command(pod, container)
        if command is None:
            return
        environment = {**os.environ, **self._environment_of(pod, container), **self.environment}
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.processes[name] = process
        self._report(pod, "Running")
        code = process.wait()
        self._report(pod, "Succeeded" if code == 0 else "Failed", code)

    def _environment_of(self, pod: Object, container: Object) -> dict[str, str]:
        metadata = pod["metadata"]
        fields = {"status.podIP": IP, **{f"metadata.{key}": metadata[key] for key in ("name", "namespace", "uid")}}
        fields |= {f"metadata.labels['{key}']": value for key, value in metadata.get("labels", {}).items()}
        found = {}
        for source in container.get("envFrom", []):
            found |= self._read("configmaps", metadata["namespace"], source["configMapRef"]["name"])["data"]
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if "fieldRef" in source:
                found[entry["name"]] = fields[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                named = source["secretKeyRef"]
                secret = self._read("secrets", metadata["namespace"], named["name"])
                found[entry["name"]] = base64.b64decode(secret["data"][named["key"]]).decode()
            elif "resourceFieldRef" in source:
                kind, _, what = source["resourceFieldRef"]["resource"].partition(".")
                found[entry["name"]] = container["resources"][kind][what]
            else:
                found[entry["name"]] = entry.get("value", "")
        return found

    def _read(self, plural: str, namespace: str, name: str) -> Object:
        return self.api.store.read(self.api.kind(plural), namespace, name)

    def _report(self, pod: Object, phase: str, code: int | None = None) -> None:
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        status = {
            "phase": phase, "podIP": IP, "conditions": [{"type": "Ready", "status": str(code is None)}],
            "containerStatuses": [
                {"name": item["name"], "state": state, "ready": code is None, "restartCount": 0,
                 "image": item["image"], "imageID": ""}
                for item in pod["spec"]["containers"]
            ],
        }  # fmt: skip
        with suppress(ApiError):  # the pod may be gone
            self.api.set_status("pods", pod, status)


@contextmanager
def kubelet(api: FakeApi, command: Command, environment: dict[str, str], folder: Path) -> Iterator[Kubelet]:
    """A kubelet for the length of the block."""
    node = Kubelet(api, command, environment, folder)
    api.store.on_change.append(node.on_change)
    try:
        yield node
    finally:
        api.store.on_change.remove(node.on_change)
        node.stop()
