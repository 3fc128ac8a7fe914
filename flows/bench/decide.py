"""The decide service under load: how long a decision takes over HTTP, asked 500 times a second."""

import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from serving.wire.identity import hash_token

RATE, CONNECTIONS, TARGET_MS = 500.0, 8, 1.5
WARM_S, SECONDS, ROUNDS = 2.0, 20.0, 8
HIDDEN = (64, 64)
_START_S = 60.0


def measure_decide(seconds: float = SECONDS, rate: float = RATE) -> dict[str, float]:
    """Latencies of `POST /v1/decide` at `rate` requests a second: p50_ms, p99_ms, p999_ms, and what else is below.

    The service runs as its own process with a token, signed bundle and metrics, as in `make trade`; the policy is a
    network of the size that training uses, with random weights. Arrivals are open-loop: a Poisson process drawn ahead
    of the run, and latency counts from the moment at which a request was due, so that a stall counts for every
    request that it delayed. `round_p99_ms` is the median over ROUNDS parts of the run, which one stall of the machine
    does not decide. `cpu_us` is what a request costs the service's process. `echo_p99_ms` is the p99 of the same load,
    in turn, against a bare socket server of another process, which answers without looking at anything: what the
    machine takes for itself.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        token = secrets.token_hex(32)
        sha256 = _registry(folder / "registry")
        with _service(folder, token) as (port, pid), _echo() as echo:
            ask, bare = _request(port, token, _body(sha256)), _request(echo, token, _body(sha256))
            _load(port, ask, WARM_S, rate)
            rounds, echoes, errors, cpu_s = [], [], 0, 0.0
            for _ in range(ROUNDS):
                before = _cpu_s(pid)
                times, failed = _load(port, ask, seconds / ROUNDS, rate)
                cpu_s, errors = cpu_s + _cpu_s(pid) - before, errors + failed
                rounds.append(times)
                echoes += _load(echo, bare, seconds / ROUNDS / 4, rate)[0]
    times = [value for found in rounds for value in found]
    return {
        "p50_ms": 1e3 * float(statistics.median(times)),
        "p99_ms": 1e3 * float(np.quantile(times, 0.99)),
        "p999_ms": 1e3 * float(np.quantile(times, 0.999)),
        "round_p99_ms": 1e3 * statistics.median(float(np.quantile(found, 0.99)) for found in rounds),
        "requests": float(len(times)),
        "errors": float(errors),
        "cpu_us": 1e6 * cpu_s / len(times),
        "echo_p99_ms": 1e3 * float(np.quantile(echoes, 0.99)),
    }


def random_weights(rng: np.random.Generator, width: int, outputs: int) -> dict[str, NDArray[np.float32]]:
    """Weights of a policy network over `width` inputs, named as those of a trained module."""
    sizes = (width, *HIDDEN, outputs)
    weights: dict[str, NDArray[np.float32]] = {
        "normaliser.mean": np.zeros(width, np.float32),
        "normaliser.scale": np.ones(width, np.float32),
    }
    for layer, (inner, outer) in enumerate(zip(sizes, sizes[1:], strict=False)):
        scale = 1.0 / np.sqrt(inner)
        weights[f"policy.{2 * layer}.weight"] = rng.normal(0.0, scale, (outer, inner)).astype(np.float32)
        weights[f"policy.{2 * layer}.bias"] = np.zeros(outer, np.float32)
    return weights


def _registry(root: Path) -> str:
    """A registry whose champion is a random network; its sha256."""
    from serving.contracts.bundle import write_bundle
    from serving.registry import Registry
    from training.execution.config import ExecutionConfig
    from training.execution.export import export_policy

    metadata: dict[str, Any] = {
        "kind": "ppo",
        "execution": ExecutionConfig().to_dict(),
        "feature_names": [],
        "horizons_s": [],
        "seed": 0,
        "training_days": [],
        "data_fingerprint": None,
        "versions": {},
    }
    weights = random_weights(np.random.default_rng(0), OBSERVATION_SIZE, len(ACTION_NAMES))
    bundle = write_bundle(root.with_name("bundle"), export_policy(weights), None, metadata)
    registry = Registry(root)
    registry.promote(registry.register(bundle.folder, {}), "benchmark")
    return bundle.sha256


def _body(sha256: str) -> bytes:
    values = np.random.default_rng(1).normal(size=OBSERVATION_SIZE).astype(np.float32)
    asked = {"sha256": sha256, "observation": values.tolist(), "action_mask": [1] * len(ACTION_NAMES)}
    return json.dumps(asked, separators=(",", ":")).encode()


def _request(port: int, token: str, body: bytes) -> bytes:
    head = (
        f"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _load(port: int, request: bytes, seconds: float, rate: float) -> tuple[list[float], int]:
    """Latencies in seconds and the number of failed requests; each connection has its own Poisson arrivals."""
    times: list[list[float]] = [[] for _ in range(CONNECTIONS)]
    errors = [0] * CONNECTIONS
    began = time.perf_counter() + 0.2

    def ask(place: int) -> None:
        rng = np.random.default_rng(place)
        due = began + np.cumsum(rng.exponential(CONNECTIONS / rate, int(2 * seconds * rate / CONNECTIONS) + 10))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for moment in due[due < began + seconds]:
                pause = moment - time.perf_counter()
                if pause > 0:
                    time.sleep(pause)
                line.sendall(request)
                if not _answered(line):
                    errors[place] += 1
                times[place].append(time.perf_counter() - moment)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [value for found in times for value in found], sum(errors)


def _answered(line: socket.socket) -> bool:
    """Read one answer to its end; whether it was a decision."""
    content = line.recv(65_536)
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(item.split(b":")[1]) for item in lines if item.startswith(b"content-length")), 0)
    while len(body) < length:
        more = line.recv(65_536)
        if not more:
            return False
        body += more
    return lines[0].endswith(b"200 ok")


@contextmanager
def _service(folder: Path, token: str) -> Iterator[tuple[int, int]]:
    """The service as its own process; gives its port and process id."""
    settings = {
        "REGISTRY": str(folder / "registry"),
        "FOLDER": str(folder / "state"),
        "PORT": "0",
        "METRICS_PORT": "0",
        "TOKENS": json.dumps({"bench": hash_token(token)}),
    }
    with _process([sys.executable, "-m", "serving.decide"], settings) as process:
        ports = folder / "state" / "ports.json"
        deadline = time.monotonic() + _START_S
        while not ports.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the decide service did not start; run `shortfall decide` to see why")
            time.sleep(0.05)
        yield int(json.loads(ports.read_text())["http"]), process.pid


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


_ECHO = """
import asyncio, uvloop
async def main():
    class Line(asyncio.Protocol):
        def connection_made(self, transport): self.transport = transport
        def data_received(self, data): self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    server = await asyncio.get_running_loop().create_server(Line, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""


@contextmanager
def _echo() -> Iterator[int]:
    with _process([sys.executable, "-c", _ECHO], {}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextmanager
def _process(
    command: list[str], settings: Mapping[str, str], stdout: int = subprocess.DEVNULL
) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, **{f"SHORTFALL_DECIDE_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    print(json.dumps(measure_decide()))
