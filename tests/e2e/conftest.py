"""One Prefect server and worker for all end-to-end tests, and one finished tiny night."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
TINY = ["--profile", "tests/e2e/tiny.yaml", "--synthetic-days", "4", "--synthetic-hours", "0.5"]
VOLATILE = ("data_docs/", "checkpoints/", ".db")
"""Parts of a stage's output that hold times, ids or logs, and so differ between two runs of equal content."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator["object"]:
    """The platform of `make up`: server, worker and deployments on a free port, over a lake of its own."""
    patch = pytest.MonkeyPatch()
    lake = tmp_path_factory.mktemp("up")
    patch.setenv("SHORTFALL_LAKE", str(lake))
    patch.setenv("SHORTFALL_TIMEZONE", "America/New_York")
    from flows.settings import settings
    from flows.up import platform

    settings.cache_clear()
    with platform(free_port()) as started:
        yield started
    patch.undo()
    settings.cache_clear()


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
    """Runs `shortfall nightly` as a user does, against the test's Prefect server."""

    environment: dict[str, str]

    def start(self, lake: Path, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "nightly", *arguments],
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


@pytest.fixture(scope="session")
def shell(running) -> Shell:
    return Shell({**os.environ, **running.environment})


@dataclass(frozen=True)
class Night:
    lake: Path
    report: dict


@pytest.fixture(scope="session")
def tiny_night(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """An unbroken nightly run on a tiny synthetic market."""
    lake = tmp_path_factory.mktemp("night")
    done = shell.run(lake, *TINY, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    return Night(lake, json.loads(done.stdout))


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
