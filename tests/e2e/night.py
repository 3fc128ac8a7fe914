"""What the end-to-end tests share: the tiny night's arguments, a shell, the Prefect API, digests of content."""

import hashlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TINY = ["--profile", "tests/e2e/tiny.yaml", "--synthetic-days", "4", "--synthetic-hours", "0.5"]
VOLATILE = ("data_docs/", "checkpoints/", ".db", "times.json")
"""Parts of a stage's output that hold times, ids or logs, and so differ between two runs of equal content."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(running, path: str, body: dict | None = None) -> object:
    """What the Prefect API answers, as the UI asks it."""
    request = urllib.request.Request(
        f"{running.url}/api{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="GET" if body is None else "POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_until_completed(running, flow_run_id: str) -> None:
    """Wait until a flow run has ended; fails where it did not complete, or takes eight minutes."""
    limit = time.monotonic() + 480
    while True:
        state = call(running, f"/flow_runs/{flow_run_id}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            break
        assert time.monotonic() < limit, f"still {state['name']}"
        time.sleep(1)
    assert state["type"] == "COMPLETED", state


@dataclass(frozen=True)
class Shell:
    """Runs a `shortfall` command as a user does, against the test's Prefect server."""

    environment: dict[str, str]
    command: str = "nightly"

    def start(self, lake: Path, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", self.command, *arguments],
            cwd=REPO,
            env={**self.environment, "SHORTFALL_LAKE": str(lake)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, lake: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(lake, *arguments)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@dataclass(frozen=True)
class Night:
    lake: Path
    report: dict
    published: dict[str, str]  # content as the night left it: other tests add to its lake


def content(lake: Path) -> dict[str, str]:
    """Digest of every published file that is content, by its path in the lake."""
    from flows.params import STAGES

    found = {}
    for stage in STAGES:
        for path in sorted((lake / stage).rglob("*")):
            name = path.relative_to(lake).as_posix()
            if path.is_file() and not any(part in name for part in VOLATILE):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
