"""`shortfall bench gateway`: what a decision costs with every control on, what the disk, the port and FIX add to it.

Limits stand in all four scopes beside the firm's, over 1,000 symbols and 20 strategies; every order reserves.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from flows.bench.decide import measure_decide
from flows.bench.gateway.core import ACK_WINDOW, ACKS, REPEATS, WINDOW, compiled_us, decide_us, durable
from flows.bench.gateway.fix import KILLS, SUSTAINED, SUSTAINED_WINDOW, through_fix
from flows.bench.gateway.port import pipelined
from flows.bench.machine import Row, result
from serving.gateway.compile_core import compile_core

MEMORY = Path("/dev/shm")


def run() -> dict[str, Any]:
    """Measure. Names and units:

    `decision us` is the thread's CPU time of `Gateway.decide` for a new order that passes all controls: idempotency,
    every control, reservation, the event's encoding into the journal's group; median over windows of orders, each of
    another strategy and symbol than the one before, the garbage collector set as the process sets it
    (`serving.gateway.collector`). `decision us, compiled`: the same source compiled by mypyc.
    `durable ratio`: decisions a second with each WINDOW of them written and fdatasynced before they go out, over the
    same without the sync, in turn; the median window by the wall clock. `ack p99 ratio to fdatasync`: from the first of
    ACK_WINDOW decisions until they may be acknowledged, over a bare 4 KiB append and fdatasync, in turn; the median of
    REPEATS ratios of p99s.
    `pipelined decisions/s`: through the framed TCP order port to a sink, each group written and not synced, per second
    of the deciding thread's CPU time; `wall clock` beside it is what was left of the machine. `p99 at half`: from when
    a request was due until its answer was read, at half of the lower of both rates.
    `order to venue p50 us`: from the write of a request to the acceptor's callback, one order at a time, each synced;
    `fix orders/s`: NewOrderSingles at the acceptor, SUSTAINED_WINDOW unanswered on the order port; `kill p99 ms`: from
    asking the local socket until the first denial is read, under orders; both denial and kill are synced first.
    `decide p99 ms`: the decide process over HTTP at 500 requests a second (`flows.bench.decide`).
    """
    notes = [
        f"durable ratio: {WINDOW} decisions in a window; acks: {ACK_WINDOW} in a window, {REPEATS} times {ACKS}",
        f"fix orders/s: {SUSTAINED} orders, {SUSTAINED_WINDOW} unanswered; kill: {KILLS} symbols, one after another",
    ]
    rows = [_at_most("decision us", decide_us(), "us", 8.0)]
    with tempfile.TemporaryDirectory() as folder:
        compiled: Path | None = Path(folder)
        try:
            compile_core(Path(folder))
            rows.append(_at_most("decision us, compiled", compiled_us(Path(folder)), "us", 1.5))
        except (OSError, subprocess.CalledProcessError) as error:
            compiled = None
            notes.append(f"decision us, compiled left out: the core could not be compiled here ({error})")
        rows += _of_core()
        rows += _of_port(compiled)
        rows += _of_fix(compiled)
    rows += _of_decide()
    if compiled is not None:
        notes.append("port and FIX rows: with the compiled core; those of the reference code say so")
    found = result(rows)
    found["notes"] = notes
    return found


def _of_core() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ratio, ack = durable(Path(folder))
    return [
        _at_least("durable ratio", ratio, "ratio", 0.5),
        _at_most("ack p99 ratio to fdatasync", ack, "ratio", 3.0),
    ]


def _of_port(compiled: Path | None) -> list[Row]:
    found = pipelined(compiled)
    rows = [
        _at_least("pipelined decisions/s", found.rate_cpu, "decisions/s", 50_000.0),
        Row("pipelined decisions/s, wall clock", found.rate_wall, "decisions/s"),
        _at_most("pipelined p99 ms at half", found.half_p99_ms, "ms", 1.0),
    ]
    if compiled is not None:
        rows.append(Row("pipelined decisions/s, reference code", pipelined(None).rate_cpu, "decisions/s"))
    return rows


def _of_fix(compiled: Path | None) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        found = through_fix(Path(folder), compiled)
    rows = [
        _at_most("order to venue p50 us", found.to_venue_us, "us", 500.0),
        Row("order to venue p50 us, of it fdatasync", found.sync_us, "us"),
        _at_least("fix orders/s", found.orders_s, "orders/s", 1_000.0),
        _at_most("kill p99 ms", found.kill_p99_ms, "ms", 1.0),
        Row("kill p50 ms", found.kill_p50_ms, "ms"),
        _at_most("new orders at the venue after a kill", found.after_kill, "orders", 0),
    ]
    if MEMORY.is_dir():
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            memory = through_fix(Path(folder), compiled)
        rows += [
            Row("order to venue p50 us, journal in memory", memory.to_venue_us, "us"),
            Row("fix orders/s, journal in memory", memory.orders_s, "orders/s"),
            Row("kill p99 ms, journal in memory", memory.kill_p99_ms, "ms"),
            Row("kill p50 ms, journal in memory", memory.kill_p50_ms, "ms"),
        ]
    return rows


def _of_decide() -> list[Row]:
    found = measure_decide()
    if found["errors"]:
        raise RuntimeError(f"{found['errors']:.0f} of {found['requests']:.0f} requests to decide failed")
    return [
        _at_most("decide p99 ms", found["p99_ms"], "ms", 1.5),
        Row("decide p99 ms, median of rounds", found["round_p99_ms"], "ms"),
        Row("decide p50 ms", found["p50_ms"], "ms"),
        Row("decide p99 ms, of it a bare socket", found["echo_p99_ms"], "ms"),
    ]


def _at_most(name: str, value: float, unit: str, target: float) -> Row:
    return Row(name, value, unit, target, value <= target)


def _at_least(name: str, value: float, unit: str, target: float) -> Row:
    return Row(name, value, unit, target, value >= target)
