"""Deploy an overlay with kubectl and wait until it runs, or take it away: `deploy.py up|down OVERLAY`.

`up` makes the namespaces, makes and applies the secrets that are not there (`--no-secrets` where something else brings
them), applies the overlay, and follows Jobs and roll-outs until everything is ready or `--timeout` seconds have passed.
It may be run again at any time. `down` deletes what the overlay made, but keeps namespaces, secrets and volumes, so
that `up` goes on with the same data; `--delete-data` deletes those too.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("Namespace", "PersistentVolumeClaim", "PriorityClass")
NAMESPACES = ("shortfall-platform", "shortfall-flows", "shortfall-serving")
READY_AFTER = "shortfall.io/ready-after"
"""Annotation of a workload that cannot be ready on a new cluster, and after what it can."""


class DeployError(Exception):
    """A step that failed; the message says which and what to look at."""


class Kubectl:
    """Calls kubectl in one context."""

    def __init__(self, context: str | None = None) -> None:
        beside = Path(sys.executable).parent / "kubectl"
        found = shutil.which("kubectl") or (str(beside) if beside.exists() else None)
        if found is None:
            raise DeployError("kubectl is not on PATH; install it, or `make setup`, which brings one into .venv/bin")
        self._command = [found, *(["--context", context] if context else [])]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output. Raises DeployError with what kubectl said."""
        done = subprocess.run([*self._command, *arguments], input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise DeployError(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def build(kubectl: Kubectl, overlay: str) -> list[dict[str, Any]]:
    """The overlay's documents."""
    text = kubectl.run("kustomize", str(ROOT / "k8s" / "overlays" / overlay))
    return [document for document in yaml.safe_load_all(text) if document]


def up(kubectl: Kubectl, overlay: str, timeout_s: float, secrets: bool) -> None:
    """Apply and wait. Raises DeployError."""
    documents = build(kubectl, overlay)
    kubectl.run("version", "-o", "yaml")  # an unreachable cluster is one message here, not fifty below
    spaces = [document for document in documents if document["kind"] == "Namespace"]
    print("namespaces", flush=True)
    kubectl.run("apply", "-f", "-", stdin=yaml.safe_dump_all(spaces))
    if secrets:
        folder = ROOT / "build" / "secrets" / overlay
        command = [sys.executable, str(ROOT / "k8s" / "make_secrets.py"), overlay]
        if subprocess.run(command).returncode:
            raise DeployError("the secrets could not be made; see above")
        kubectl.run("apply", "-f", str(folder / "secrets.yaml"))
    print(f"overlay {overlay}: {len(documents)} objects", flush=True)
    kubectl.run("apply", "-k", str(ROOT / "k8s" / "overlays" / overlay))
    deadline = time.monotonic() + timeout_s
    late = []
    for kind, namespace, name, after in _waited(documents):
        if after and not _has_ready(kubectl, kind, namespace, name):
            late.append(f"{kind} {namespace}/{name} is not ready before {after}")
            continue
        print(f"waiting for {kind} {namespace}/{name}", flush=True)
        left = f"{max(1, int(deadline - time.monotonic()))}s"
        try:
            if kind == "Job":
                kubectl.run("wait", "--for=condition=complete", f"job/{name}", "-n", namespace, f"--timeout={left}")
            else:
                kubectl.run("rollout", "status", f"{kind.lower()}/{name}", "-n", namespace, f"--timeout={left}")
        except DeployError as error:
            pods = kubectl.run("get", "pods", "-n", namespace)
            raise DeployError(
                f"{error}\n{pods}look at: kubectl describe pod -n {namespace} NAME; kubectl logs"
            ) from None
    print("\n".join(["everything else is ready", *late] if late else ["everything is ready"]))


def down(kubectl: Kubectl, overlay: str, delete_data: bool) -> None:
    """Delete what the overlay made. Raises DeployError."""
    documents = build(kubectl, overlay)
    if delete_data:
        gone = [document for document in documents if document["kind"] in ("Namespace", "PriorityClass")]
        gone += [document for document in documents if "namespace" not in document["metadata"] and document not in gone]
    else:
        gone = [document for document in documents if document["kind"] not in KEPT]
    kubectl.run("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(gone))
    kept = "nothing" if delete_data else "namespaces, secrets and volumes"
    print(f"overlay {overlay}: deleted {len(gone)} objects; {kept} kept")


def _has_ready(kubectl: Kubectl, kind: str, namespace: str, name: str) -> bool:
    """Whether a pod of a workload is ready: what was once ready is waited for at an upgrade."""
    said = kubectl.run("get", f"{kind.lower()}/{name}", "-n", namespace, "-o", "jsonpath={.status.readyReplicas}")
    return said.strip() not in ("", "0")


def _waited(documents: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """What must be ready, in the order in which it becomes so: databases, Jobs that prepare them, then the rest.

    Kind, namespace, name, and what it cannot be ready before, "" for most.
    """
    order = {"StatefulSet": 0, "Job": 1, "Deployment": 2}
    found = [
        (
            document["kind"],
            document["metadata"]["namespace"],
            document["metadata"]["name"],
            document["metadata"].get("annotations", {}).get(READY_AFTER, ""),
        )
        for document in documents
        if document["kind"] in order
        # rolled out by a person alone: there is nothing to wait for
        and document["spec"].get("updateStrategy", {}).get("type") != "OnDelete"
    ]
    return sorted(found, key=lambda item: (order[item[0]], NAMESPACES.index(item[1]), item[2]))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when done, 2 for bad usage, 1 for what failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("overlay")
    parser.add_argument("--context", help="kubectl's context, the current one where absent")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for everything to be ready")
    parser.add_argument("--no-secrets", action="store_true", help="something else brings the secrets")
    parser.add_argument("--delete-data", action="store_true", help="down: namespaces, secrets and volumes too")
    options = parser.parse_args(arguments)
    known = sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
    if options.overlay not in known:
        parser.error(f"no overlay {options.overlay}: there are {', '.join(known)}")
    try:
        kubectl = Kubectl(options.context)
        if options.action == "up":
            up(kubectl, options.overlay, options.timeout, not options.no_secrets)
        else:
            down(kubectl, options.overlay, options.delete_data)
    except DeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
