"""The service without a disk and without a venue: pipelined requests through the framed TCP order port, to a sink.

`python -m flows.bench.gateway.port FOLDER` is the server; `pipelined` starts it and is its client.
"""

import asyncio
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from flows.bench.gateway.core import WINDOW, environment, p99
from flows.bench.gateway.line import TOKEN, Line
from flows.bench.gateway.world import Orders, RealClock, Unsynced, accounts, build
from serving.gateway import engine
from serving.gateway.collector import quieten_collector
from serving.gateway.order_server import OrderServer
from serving.gateway.watch import Watch
from serving.wire.frames import encode_message
from serving.wire.identity import Directory, Principal, hash_token
from serving.wire.link import serve

ORDERS, AT_RATE = 120_000, 60_000
"""How many orders go as fast as they are taken, and how many at half of that."""
BURST_S = 0.0005
WARM = 40 * WINDOW
"""Orders before anything is measured."""


class Pipelined(NamedTuple):
    """What the port did."""

    rate_cpu: float  # decisions a second of the deciding thread's CPU time
    rate_wall: float  # decisions a second by the clock
    half_p99_ms: float  # from when an order is due until its answer is read, at half of the lower rate


def pipelined(compiled: Path | None) -> Pipelined:
    """Start the server, keep WINDOW requests unanswered on each account's line, then send at half of what it took."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.bench.gateway.port", folder], env=environment(compiled), text=True,
            cwd=compiled or folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            port, kind = server.stdout.readline().split()
            if (kind == "compiled") != (compiled is not None):
                raise RuntimeError(f"the server runs the {kind} core")
            orders = Orders(time.time_ns())
            warm, full, half = (_frames(orders, count) for count in (WARM, ORDERS, AT_RATE))
            lines = {account: Line(int(port), account, TOKEN + account) for account in accounts()}
            _saturate(lines, warm)
            cpu_ns, began = _cpu_ns(server.pid), time.perf_counter()
            _saturate(lines, full)
            wall_s, cpu_s = time.perf_counter() - began, (_cpu_ns(server.pid) - cpu_ns) / 1e9
            late = _at_rate(lines, half, ORDERS / max(cpu_s, wall_s) / 2)
        finally:
            server.kill()  # told that its lines are down, it would cancel every order that it let through
            server.wait()
    return Pipelined(ORDERS / cpu_s, ORDERS / wall_s, p99(late) * 1e3)


def _frames(orders: Orders, count: int) -> dict[str, deque[bytes]]:
    """Frames of the next orders by account."""
    frames: dict[str, deque[bytes]] = {account: deque() for account in accounts()}
    for order in orders.take(count):
        frames[order.account].append(encode_message(order))
    return frames


def _saturate(lines: dict[str, Line], frames: dict[str, deque[bytes]]) -> None:
    """Send everything, each line with up to WINDOW requests unanswered, and wait for the answers."""
    waiting = dict.fromkeys(lines, 0)
    with _selector(lines) as selector:
        while any(frames.values()) or any(waiting.values()):
            for account, line in lines.items():
                if waiting[account] <= WINDOW // 2 and frames[account]:
                    waiting[account] += line.send(frames[account], WINDOW - waiting[account])
            for key, _ in selector.select(1.0):
                waiting[key.data] -= lines[key.data].answers()


def _at_rate(lines: dict[str, Line], frames: dict[str, deque[bytes]], rate: float) -> list[float]:
    """Send a burst each BURST_S so that `rate` a second are sent; seconds from when each was due to its answer."""
    due: dict[str, deque[float]] = {account: deque() for account in lines}
    late: list[float] = []
    turn, owed, burst, began = cycle(lines), 0.0, 0, time.perf_counter() + 0.01
    with _selector(lines) as selector:
        while any(frames.values()) or any(due.values()):
            at = began + burst * BURST_S
            left = at - time.perf_counter()
            if left <= 0 and any(frames.values()):
                burst, owed = burst + 1, owed + rate * BURST_S
                account = next(turn)
                sent = lines[account].send(frames[account], int(owed))
                due[account].extend([at] * sent)
                owed -= int(owed)
            for key, _ in selector.select(max(0.0, left) if any(frames.values()) else 1.0):
                got, now = lines[key.data].answers(), time.perf_counter()
                late.extend(now - due[key.data].popleft() for _ in range(got))
    return late


def _selector(lines: dict[str, Line]) -> selectors.BaseSelector:
    selector = selectors.SelectSelector()  # epoll's would wait for whole milliseconds
    for account, line in lines.items():
        selector.register(line.socket, selectors.EVENT_READ, account)
    return selector


def _cpu_ns(pid: int) -> int:
    """CPU time of a process's first thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def _serve(folder: str) -> None:
    gateway, _ = build(Unsynced(Path(folder)), RealClock())
    port = OrderServer(gateway, Watch(gateway), gateway.commit, WINDOW)
    principals = [
        Principal(account, frozenset(strategies), "", hash_token(TOKEN + account))
        for account, strategies in accounts().items()
    ]
    server = await serve(port, Directory(principals), "127.0.0.1", 0)
    quieten_collector()
    kind = "reference" if engine.__file__.endswith(".py") else "compiled"
    print(server.sockets[0].getsockname()[1], kind, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1]))
