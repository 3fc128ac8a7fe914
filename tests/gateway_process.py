"""The gateway's process with the real venue behind it, on loopback: what the process tests and others start."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fix_peers import free_port

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Cancel, ChildOrder, Filled, Replace
from serving.gateway.paper import PaperInstrument, write_paper
from serving.wire.frames import Hello
from serving.wire.link import connect
from training.market.venue.received import read_received

SYMBOL, ACCOUNT, STRATEGY, VENUE = "SYN1", "main", "policy", "SYN"
DEADLINE_S = 60.0
INSTRUMENT = PaperInstrument(SYMBOL, tick_size="0.01", mark_ticks=10_000)


class Process:
    """A Python process of the project; its stderr goes to a file."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition, what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.said()[-3000:]}"
            time.sleep(0.02)

    def end(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)


class Trading:
    """Venue and gateway over files in `folder`; each may be ended and started again."""

    def __init__(self, folder: Path, limits=None, venue_words: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self.folder, self.venue_words, self.words = folder, venue_words, list(words)
        self.fix_port, self.feed_port = free_port(), free_port()
        self.files = write_paper(
            folder / "gateway", [INSTRUMENT], fix_port=self.fix_port, feed_port=self.feed_port, limits=limits
        )
        self.venue_runs = 0
        self.venue = self.gateway = None

    @property
    def state(self) -> Path:
        return self.files.folder / "state"

    @property
    def ports(self) -> dict[str, int]:
        return json.loads((self.state / "ports.json").read_text())

    def start_venue(self) -> None:
        self.venue_runs += 1
        words = [f"--fix-port={self.fix_port}", f"--feed-port={self.feed_port}", "--drop-copy=DROPCOPY", "--speed=1"]
        self.venue_folder = self.folder / f"venue{self.venue_runs}"
        self.venue = Process(
            self.folder / f"venue{self.venue_runs}.log", "training.market.venue", f"--folder={self.venue_folder}",
            "--hours=0.2", *words, *self.venue_words,
        )  # fmt: skip
        self.venue.wait_for(lambda: "FIX on" in self.venue.said(), "the venue")

    def start_gateway(self, *words: str) -> None:
        ports = ["--order-port=0", "--admin-port=0", "--metrics-port=0", "--probe-s=0.2", "--probe-timeout-s=1"]
        (self.state / "ports.json").unlink(missing_ok=True)
        self.gateway = Process(
            self.folder / "gateway.log", "serving.gateway", *self.files.arguments(), *ports, *self.words, *words
        )
        self.gateway.wait_for((self.state / "ports.json").exists, "the gateway")

    def armed(self) -> None:
        self.gateway.wait_for(lambda: "armed without a person" in self.gateway.said(), "arming")

    def __enter__(self) -> "Trading":
        self.start_venue()
        self.start_gateway()
        self.armed()
        return self

    def __exit__(self, *_) -> None:
        for process in (self.gateway, self.venue):
            if process is not None:
                process.end()

    def received(self, what: str | None = None) -> list[dict]:
        """What the venue received so far, in order."""
        lines = read_received(self.venue_folder / "received.jsonl")
        return [line for line in lines if what is None or line["what"] == what]


_KEYS = itertools.count(1)


class Desk:
    """A client of the order port that keeps what it hears."""

    def __init__(self, token: str, strategies=(STRATEGY,)) -> None:
        self.token, self.strategies = token, strategies
        self.decisions, self.reports, self.downs = {}, [], []
        self.line = None
        self._heard = asyncio.Event()

    async def open(self, port: int) -> "Desk":
        hello = Hello(account=ACCOUNT, strategies=tuple(self.strategies), token=self.token)
        self.line = await connect(self, hello, "127.0.0.1", port)
        return self

    def decided(self, decision):
        self.decisions[decision.key] = decision
        self._heard.set()

    def reported(self, report):
        self.reports.append(report)
        self._heard.set()

    def down(self, reason):
        self.downs.append(reason)
        self._heard.set()

    def order(self, side="buy", price=None, lots=10, **more) -> ChildOrder:
        kind = "market" if price is None else "limit"
        values = {
            "tif": "ioc" if price is None else "day",
            "reduce_only": False,
            "key": f"P1/{next(_KEYS)}",
            "sent_ns": time.time_ns(),
            "venue": VENUE,
            **more,
        }
        return ChildOrder(
            strategy=STRATEGY, account=ACCOUNT, algorithm="a", trader="ada", symbol=SYMBOL, side=side, type=kind,
            price_ticks=price, lots=lots, **values,
        )  # fmt: skip

    def change(self, order_key: str, price: int, lots: int) -> Replace:
        return Replace(
            key=f"r{next(_KEYS)}", strategy=STRATEGY, account=ACCOUNT, algorithm="a", trader="ada",
            sent_ns=time.time_ns(), order_key=order_key, price_ticks=price, lots=lots,
        )  # fmt: skip

    def withdraw(self, order_key: str) -> Cancel:
        return Cancel(
            key=f"c{next(_KEYS)}", strategy=STRATEGY, account=ACCOUNT, algorithm="a", trader="ada",
            sent_ns=time.time_ns(), order_key=order_key,
        )  # fmt: skip

    async def ask(self, *requests):
        """Send, and wait for every answer."""
        self.line.send(*requests)
        await self.until(lambda: all(request.key in self.decisions for request in requests))
        found = [self.decisions[request.key] for request in requests]
        return found[0] if len(found) == 1 else found

    async def allowed(self, *requests):
        answers = await self.ask(*requests)
        for answer in answers if isinstance(answers, list) else [answers]:
            assert isinstance(answer, Allowed), answer
        return answers

    async def until(self, condition, what="what was waited for"):
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._heard.clear()
                try:
                    await asyncio.wait_for(self._heard.wait(), 0.05)
                except TimeoutError:
                    continue

    def of(self, kind, order_id=None):
        return [r for r in self.reports if isinstance(r, kind) and order_id in (None, r.order_id)]

    @property
    def filled(self) -> int:
        return sum(report.lots for report in self.of(Filled))
