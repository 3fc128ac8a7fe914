"""Starts the serving processes on loopback, watches them, and stops them in order, whatever happens."""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from feature_repo.errors import ShortfallError

STOP_S = 15.0
"""A process has this long to end after SIGTERM; then it is killed, and that is told."""
TAIL_LINES = 6
_PR_SET_PDEATHSIG = 1


class ProcessFailedError(ShortfallError):
    """A process ended, or did not come up; the message ends with what it said last."""


@dataclass
class Worker:
    """One of the processes."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    ready: Path  # the file in which it says what it bound

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@dataclass
class Team:
    """The processes of a run; a context manager that stops all it started, last first."""

    folder: Path
    start_s: float = 90.0
    workers: dict[str, Worker] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)  # names of those that SIGTERM did not end
    cpu_s: dict[str, float] = field(default_factory=dict)  # that each had used when it was stopped

    def __enter__(self) -> "Team":
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], ready: Path
    ) -> None:
        """Start `python -m module`; `ready` is the file that it writes once it listens, removed here first."""
        ready.unlink(missing_ok=True)
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever stops them in order
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        self.workers[name] = Worker(name, process, log, ready)

    def wait_ready(self, name: str) -> dict[str, Any]:
        """What a process bound, once it says so. Raises ProcessFailedError where it ends or is silent."""
        worker = self.workers[name]
        deadline = time.monotonic() + self.start_s
        while not worker.ready.exists():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailedError(f"{name} did not come up within {self.start_s:g} s{_said(worker)}")
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(worker.ready.read_text())
        return found

    def check(self) -> None:
        """Raise ProcessFailedError where one has ended."""
        for worker in self.workers.values():
            if (code := worker.process.poll()) is not None:
                raise ProcessFailedError(f"{worker.name} ended with exit code {code}{_said(worker)}")

    def ended(self, name: str) -> bool:
        """Whether a process has ended in good order."""
        return self.workers[name].process.poll() == 0

    def stop(self) -> None:
        """End every process, the last one started first; none is left when this returns."""
        for worker in reversed(self.workers.values()):
            if worker.process.poll() is None:
                with suppress(psutil.Error):
                    used = psutil.Process(worker.pid).cpu_times()
                    self.cpu_s[worker.name] = round(used.user + used.system, 1)
                with suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGTERM)
                try:
                    worker.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    self.killed.append(worker.name)
                    worker.process.kill()
                    worker.process.wait()

    def codes(self) -> dict[str, int | None]:
        """Exit code of each process; None while it runs."""
        return {name: worker.process.poll() for name, worker in self.workers.items()}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at this moment, all different."""
    with _Sockets() as sockets:
        return [sockets.bind() for _ in range(count)]


def new_token() -> str:
    """A token for one run."""
    return secrets.token_hex(32)


class _Sockets:
    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def __enter__(self) -> "_Sockets":
        return self

    def __exit__(self, *_: object) -> None:
        for item in self._open:
            item.close()

    def bind(self) -> int:
        item = socket.socket()
        self._open.append(item)
        item.bind(("127.0.0.1", 0))
        return int(item.getsockname()[1])


def _said(worker: Worker) -> str:
    """The end of a process's log, as the end of a message."""
    lines = worker.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    said = "".join(f"\n  {line[:300]}" for line in lines)
    return f"; its log {worker.log} ends:{said}" if said else f"; its log {worker.log} is empty"


def _end_with_parent() -> None:
    """In the child: end when whoever started it is killed, so that no venue trades on unattended (Linux alone)."""
    if sys.platform == "linux":
        with suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
