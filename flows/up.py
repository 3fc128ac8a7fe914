"""Starts the Prefect server, a worker and the deployments on this machine, and stops them together."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_repo.errors import InputError, ShortfallError
from flows.deployments import LAPTOP_POOL, for_laptop, read_deployments, write_file
from flows.embedded import PREFECT_DEFAULTS, prefect_home
from flows.settings import settings

POOL = LAPTOP_POOL
REPO = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Platform:
    """A running server and worker on loopback."""

    url: str  # of the UI; the API is below /api
    environment: Mapping[str, str]  # what a Prefect client needs to reach it
    server: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]


@contextmanager
def platform(port: int, *, schedule: bool = True, start_timeout_s: float = 180.0) -> Iterator[Platform]:
    """Server, work pool, deployments of prefect.yaml and a process worker; all stopped by process id on the way out.

    Raises InputError where the port is taken, ShortfallError where a part does not start.
    """
    _require_free(port)
    environment = _environment(port)
    logs = settings().lake.absolute() / ".logs"
    logs.mkdir(parents=True, exist_ok=True)
    server = _start(["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment, logs / "server.log")
    worker: subprocess.Popen[bytes] | None = None
    try:
        _wait_healthy(f"http://127.0.0.1:{port}/api/health", server, start_timeout_s, logs / "server.log")
        _prefect(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
        path = write_file(for_laptop(read_deployments()), prefect_home() / "deployments.yaml")
        _prefect(["--no-prompt", "deploy", "--all", "--prefect-file", str(path)], environment)
        if not schedule:
            _prefect(["deployment", "schedule", "pause", "--all"], environment)
        worker = _start(["worker", "start", "--pool", POOL, "--type", "process"], environment, logs / "worker.log")
        yield Platform(f"http://127.0.0.1:{port}", environment, server, worker)
    finally:
        for process in (worker, server):
            if process is not None:
                _stop(process)


def serve_until_interrupted(port: int, schedule: bool) -> None:
    """Run the platform until Ctrl-C or SIGTERM; raises ShortfallError when the server or the worker dies."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"starting the Prefect server on port {port}, the deployments and a worker: up to a minute", flush=True)
    with platform(port, schedule=schedule) as running:
        print(f"Prefect UI: {running.url}")
        print(
            f"nightly schedule: {'on' if schedule else 'off'}, time zone {settings().timezone}; "
            f"lake: {settings().lake.absolute()}"
        )
        print("Ctrl-C stops the server and the worker", flush=True)
        try:
            while True:
                time.sleep(1.0)
                for name, process in (("server", running.server), ("worker", running.worker)):
                    if process.poll() is not None:
                        raise ShortfallError(
                            f"the Prefect {name} ended with exit code {process.returncode}; see <lake>/.logs/{name}.log"
                        )
        except KeyboardInterrupt:
            print("stopping", flush=True)


def _environment(port: int) -> dict[str, str]:
    return {
        **PREFECT_DEFAULTS,
        **os.environ,
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(prefect_home())),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "SHORTFALL_HOME": str(REPO),
        "SHORTFALL_LAKE": str(settings().lake.absolute()),
        "SHORTFALL_TIMEZONE": settings().timezone,
    }


def _require_free(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} on 127.0.0.1 is taken ({error.strerror}): stop what uses it or give --port"
            ) from error


def _start(arguments: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            env=dict(environment), stdout=output, stderr=subprocess.STDOUT, cwd=REPO, start_new_session=True,
        )  # fmt: skip


def _prefect(arguments: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=dict(environment),
        cwd=REPO,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise ShortfallError(
            f"prefect {' '.join(arguments)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
        )


def _wait_healthy(url: str, server: subprocess.Popen[bytes], timeout_s: float, log: Path) -> None:
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if server.poll() is not None:
            raise ShortfallError(f"the Prefect server ended with exit code {server.returncode}; see {log}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise ShortfallError(f"the Prefect server did not answer at {url} within {timeout_s:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group to end, and end it after 15 seconds."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
