"""The core alone, in process: what a decision costs, and what it costs to make it durable."""

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flows.bench.gateway.world import Orders, Unsynced, build
from serving.contracts.orders import ChildOrder
from serving.gateway.collector import quieten_collector
from serving.gateway.disk import RealDisk
from serving.gateway.engine import Gateway
from serving.gateway.live import Now

WINDOWS = 320
WINDOW, ACK_WINDOW = 256, 16
"""Decisions that are made durable together: the pipelining windows of the ratio and of the acknowledgement."""
REPEATS, ACKS = 7, 200


def decide_us() -> float:
    """Thread CPU time of one decision, in us: the median of WINDOWS windows of orders that pass every control.

    The garbage collector is set as the process sets it: it runs within the windows, over young objects.
    """
    threshold = gc.get_threshold()
    with tempfile.TemporaryDirectory() as folder:
        gateway, clock = build(RealDisk(Path(folder)))
        orders = Orders()
        for request in orders.everywhere():
            gateway.decide(request, clock.now())
        clock.commit(gateway)
        quieten_collector()
        windows = []
        for _ in range(WINDOWS):
            part, now = orders.take(WINDOW), clock.now()
            began = time.thread_time()
            for request in part:
                gateway.decide(request, now)
            windows.append((time.thread_time() - began) / WINDOW * 1e6)
            clock.commit(gateway)
    gc.unfreeze()
    gc.set_threshold(*threshold)
    denied = [decision for _, decision in gateway.state.keys.given if not hasattr(decision, "order_id")]
    if denied:
        raise RuntimeError(f"{len(denied)} orders were denied, which is another path: {denied[0]}")
    return statistics.median(windows)


def compiled_us(compiled: Path) -> float:
    """The same with the core compiled into a folder (`serving.gateway.compile_core`), in a process of its own."""
    code = (
        "import serving.gateway.engine as engine; assert engine.__file__.endswith('.so'), engine.__file__\n"
        "from flows.bench.gateway.core import decide_us\n"
        "print(decide_us())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=compiled, env=environment(compiled), check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return float(done.stdout)


def environment(compiled: Path | None) -> dict[str, str]:
    """The environment of a process that runs the compiled core, or the reference where there is none."""
    source = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([source] if compiled is None else [str(compiled), source])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def durable(folder: Path) -> tuple[float, float]:
    """The durable rate over that without a sync, and an acknowledgement's p99 over a bare fdatasync's.

    Of the second, the median of REPEATS ratios, each of ACKS acknowledgements and as many bare syncs in turn.
    """
    worlds = [build(RealDisk(folder / "durable")), build(Unsynced(folder / "unsynced"))]
    streams = [Orders(), Orders()]
    for stream, (gateway, clock) in zip(streams, worlds, strict=True):
        for request in stream.everywhere():
            gateway.decide(request, clock.now())
        clock.commit(gateway)
    spent: list[list[float]] = [[], []]
    ratios = []
    for _ in range(WINDOWS // 4):
        for side, (gateway, clock) in enumerate(worlds):
            spent[side].append(_group_s(gateway, streams[side].take(WINDOW), clock.now()))
    gateway, clock = worlds[0]
    with open(folder / "bare", "ab", buffering=0) as file:
        for _ in range(REPEATS):
            acks, bare = [], []
            for _ in range(ACKS):
                acks.append(_group_s(gateway, streams[0].take(ACK_WINDOW), clock.now()))
                began = time.perf_counter()
                file.write(b"x" * 4096)
                os.fdatasync(file.fileno())
                bare.append(time.perf_counter() - began)
            ratios.append(p99(acks) / p99(bare))
    return statistics.median(spent[1]) / statistics.median(spent[0]), statistics.median(ratios)


def _group_s(gateway: Gateway, requests: list[ChildOrder], now: Now) -> float:
    """Seconds from a group's first decision until all of it may be acknowledged."""
    began = time.perf_counter()
    for request in requests:
        gateway.decide(request, now)
    gateway.commit(now)
    return time.perf_counter() - began


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]
