"""The whole gateway's process between the order port and a FIX acceptor on loopback: latency, rate, kill switch."""

import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from flows.bench.gateway.core import environment, p99
from flows.bench.gateway.line import TOKEN, Line
from flows.bench.gateway.venue import TICK_SIZE, received
from flows.bench.gateway.world import VENUE, Orders, accounts, limits_document, symbols
from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import ChildOrder
from serving.gateway.killing import kill_locally
from serving.wire.frames import encode_message
from serving.wire.identity import hash_token

WAIT_S = 60.0
LATENCIES, EVERY_S = 400, 0.005
SUSTAINED, SUSTAINED_WINDOW = 6_000, 64
KILLS = 100


class Measured(NamedTuple):
    """What the process did."""

    to_venue_us: float  # p50 from the write of a request to the acceptor's callback with its NewOrderSingle
    sync_us: float  # p50 of a bare append and fdatasync in the same folder, in turn with those
    orders_s: float  # NewOrderSingles a second at the acceptor, SUSTAINED of them
    kill_p50_ms: float  # over KILLS scopes from asking for a kill to the first denial read on the order port
    kill_p99_ms: float
    after_kill: int  # new orders of a killed scope at the venue after its kill was acknowledged: must be 0


def through_fix(folder: Path, compiled: Path | None) -> Measured:
    """Start a venue and the gateway's process on loopback, every limit in every scope, each group synced to disk."""
    with _processes(folder, compiled) as port:
        account = "A0"
        line = Line(port, account, TOKEN + account)
        orders = _Of(account)
        to_venue, sync = _latency_us(line, orders, folder)
        rate = _sustained(line, orders, folder)
        kills_ms, after = _kills(line, orders, folder)
        line.socket.close()
    return Measured(to_venue, sync, rate, statistics.median(kills_ms), p99(kills_ms), after)


class _Of:
    """Orders of one account."""

    def __init__(self, account: str) -> None:
        self._orders, self._account = Orders(), account

    def next(self, **changes: Any) -> ChildOrder:
        """The next one, sent now."""
        while True:
            (order,) = self._orders.take(1)
            if order.account == self._account:
                fields = {name: getattr(order, name) for name in order.__struct_fields__}
                return ChildOrder(**{**fields, "sent_ns": time.time_ns(), **changes})


def _latency_us(line: Line, orders: _Of, folder: Path) -> tuple[float, float]:
    sent: dict[int, int] = {}
    bare = []
    for _ in range(LATENCIES):
        bare.append(_sync_s(folder / "bare"))
        frame = encode_message(orders.next())
        at = time.monotonic_ns()
        line.socket.sendall(frame)
        (allowed,) = _decisions(line, 1)
        sent[allowed.order_id] = at
        time.sleep(EVERY_S)
    came = dict(_at_venue(folder, sent))
    return statistics.median(came[number] - at for number, at in sent.items()) / 1e3, statistics.median(bare) * 1e6


def _sync_s(path: Path) -> float:
    with open(path, "ab", buffering=0) as file:
        began = time.perf_counter()
        file.write(b"x" * 1024)
        os.fdatasync(file.fileno())
        return time.perf_counter() - began


def _sustained(line: Line, orders: _Of, folder: Path) -> float:
    frames = [encode_message(orders.next(tif="ioc")) for _ in range(SUSTAINED)]
    numbers: list[int] = []
    sent = 0
    while len(numbers) < SUSTAINED:
        more = min(SUSTAINED_WINDOW - (sent - len(numbers)), SUSTAINED - sent)
        if more > SUSTAINED_WINDOW // 2 or sent + more == SUSTAINED:
            line.socket.sendall(b"".join(frames[sent : sent + more]))
            sent += more
        numbers += [decision.order_id for decision in _decisions(line, 1)]
    came = [at for _, at in _at_venue(folder, numbers)]
    return (len(came) - 1) / (max(came) - min(came)) * 1e9


def _kills(line: Line, orders: _Of, folder: Path) -> tuple[list[float], int]:
    """Kill one symbol after another under orders for it."""
    state, spent, after = folder / "state", [], 0
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # who kills is not slowed down by who sends
        pool.submit(os.getpid).result()
        for symbol in symbols()[:KILLS]:
            numbers, denied_ns, answer = [], 0, None
            pace = 0
            while not denied_ns or answer is None or not answer.done():
                line.socket.sendall(encode_message(orders.next(symbol=symbol, tif="ioc")))
                pace += 1
                if pace == 5:
                    answer = pool.submit(_kill, state, symbol)
                for message in line.messages(WAIT_S):
                    if isinstance(message, Allowed):
                        numbers.append(message.order_id)
                    elif isinstance(message, Denied) and not denied_ns:
                        if message.control != "kill_switch":
                            raise RuntimeError(f"an order was denied by another control: {message}")
                        denied_ns = time.monotonic_ns()
            said, asked_ns, acknowledged_ns = answer.result()
            if said["message"] != "blocked, flushed":
                raise RuntimeError(f"a kill was not flushed: {said}")
            spent.append((denied_ns - asked_ns) / 1e6)
            time.sleep(0.02)
            while line.messages(0.02):
                pass
            after += sum(at > acknowledged_ns for number, at in received(folder) if number in set(numbers))
    return spent, after


def _kill(state: Path, symbol: str) -> tuple[dict[str, Any], int, int]:
    """In a process of its own: the answer, and when it was asked for and came."""
    asked_ns = time.monotonic_ns()
    return kill_locally(state, "symbol", symbol, "the benchmark"), asked_ns, time.monotonic_ns()


def _decisions(line: Line, least: int) -> list[Allowed]:
    found: list[Allowed] = []
    while len(found) < least:
        messages = line.messages(WAIT_S)
        if not messages:
            raise TimeoutError(f"no decision within {WAIT_S:g} s")
        for message in messages:
            if isinstance(message, Denied):
                raise RuntimeError(f"an order was denied, which is another path: {message}")
            if isinstance(message, Allowed):
                found.append(message)
    return found


def _at_venue(folder: Path, numbers: Any) -> list[tuple[int, int]]:
    """The venue's records of some orders, once it has them all."""
    wanted = set(numbers)

    def found() -> list[tuple[int, int]] | None:
        records = [(number, at) for number, at in received(folder) if number in wanted]
        return records if len(records) == len(wanted) else None

    return _until(found, f"{len(wanted)} orders at the venue")


def _until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {WAIT_S:g} s")
        time.sleep(0.01)
    return found


@contextmanager
def _processes(folder: Path, compiled: Path | None) -> Iterator[int]:
    """Venue and gateway; gives the order port of an armed gateway."""
    fix_port, feed_port = _free_port(), _free_port()
    names = _files(folder, fix_port, feed_port)
    source = environment(None)
    venue = subprocess.Popen(
        [sys.executable, "-m", "flows.bench.gateway.venue", str(folder), str(fix_port), str(feed_port)],
        env=source, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert venue.stdin is not None and venue.stdout is not None
    log = folder / "gateway.log"
    try:
        if venue.stdout.readline() != "ready\n":
            raise RuntimeError("the venue did not start")
        words = [*names, "--order-port=0", "--admin-port=0", "--metrics-port=0", "--paper=true", "--auto-arm=true"]
        with open(log, "wb") as out:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "serving.gateway", *words, "--clock=assumed", "--cancel-on-stop=false"],
                env=environment(compiled), cwd=compiled or folder, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            _until(lambda: "armed without a person" in log.read_text() or gateway.poll() is not None, "arming")
            if gateway.poll() is not None:
                raise RuntimeError(f"the gateway ended: {log.read_text()[-2000:]}")
            time.sleep(2.5)  # message windows are full after a start
            yield json.loads((folder / "state" / "ports.json").read_text())["order"]
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(WAIT_S)
    finally:
        venue.stdin.close()
        venue.wait(WAIT_S)


def _files(folder: Path, fix_port: int, feed_port: int) -> list[str]:
    """Write what the gateway reads (JSON is YAML); the words of its command line that name it."""
    opens = datetime.now(UTC) - timedelta(minutes=1)
    session = {"host": "127.0.0.1", "port": fix_port, "peer": "VENUE"}
    venue = {
        "fix": {**session, "comp_id": "GATEWAY"},
        "drop_copy": {**session, "comp_id": "DROPCOPY"},
        "feed": {"url": f"ws://127.0.0.1:{feed_port}"},
        "symbols": {symbol: {"tick_size": TICK_SIZE} for symbol in symbols()},
    }
    client = [
        {"account": account, "strategies": names, "token_sha256": hash_token(TOKEN + account)}
        for account, names in accounts().items()
    ]
    person = {"subject": "CN=ann", "scopes": ["read"], "token_sha256": hash_token(secrets.token_hex(24))}
    instrument = {"tick_value": 10, "mark_ticks": 10_000, "adv_lots": 10**7, "needs_locate": False}
    documents: dict[str, Any] = {
        "venues": {"venues": {VENUE: venue}},
        "clients": {"clients": client},
        "people": {"people": [person]},
        "limits": limits_document(),
        "day": {
            "date": opens.date().isoformat(),
            "opens": opens.isoformat(),
            "closes": (opens + timedelta(hours=20)).isoformat(),
            "instruments": [{"symbol": symbol, **instrument} for symbol in symbols()],
        },
    }
    for name, document in documents.items():
        (folder / f"{name}.yaml").write_text(json.dumps(document))
    return [f"--folder={folder / 'state'}", *(f"--{name}={folder / name}.yaml" for name in documents)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
