"""The paper venue over loopback, FIX in and feed out, against the same calls in process."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fix_peers import Notes, free_port, until

from serving.contracts.orders import Acked, Cancelled, ChildOrder, Filled, Rejected, Replaced
from serving.wire.feed import SymbolStatus, Until, Update
from serving.wire.feed_socket import FeedClient
from serving.wire.feed_state import Follower, Gap
from serving.wire.fix_orders import (
    cl_ord_id,
    encode_cancel,
    encode_mass_status,
    encode_new,
    encode_replace,
    encode_status,
)
from serving.wire.fix_reports import decode_answer
from serving.wire.fix_session import FixInitiator
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import CancelOrder, NewOrder, ReplaceOrder
from training.market.venue.core import CancelReject, Shown, Venue
from training.market.venue.days import synthetic_listings
from training.market.venue.received import read_received
from training.market.venue.service import VenueService
from training.market.venue.settings import VenueSettings
from training.market.venue.world import Row

HOURS, SYMBOL, STRATEGY = 0.05, "SYN1", "rule"
STEP_S = 5.0


def listings():
    return synthetic_listings([SYMBOL], "2025-01-06", HOURS, 7, 0.6)


def plan(step, bid, ask):
    """Orders, replaces and cancels of a step, as a policy might send them."""
    first = 10 * step + 1
    common = {
        "account": "main",
        "symbol": SYMBOL,
        "trader": "ada",
        "algorithm": "a",
        "strategy": STRATEGY,
        "link": "P1",
    }
    messages = [NewOrder(cl_ord_id(first), side="buy", type="limit", price_ticks=bid, lots=40, tif="day", **common)]
    if step % 3 == 1:
        messages.append(
            NewOrder(cl_ord_id(first + 1), side="buy", type="market", price_ticks=None, lots=25, tif="ioc", **common)
        )
    if step >= 1:
        old = cl_ord_id(first - 10)
        if step % 2:
            messages.append(ReplaceOrder(cl_ord_id(first - 10, first + 2), old, SYMBOL, "buy", bid - 1, 55, STRATEGY))
        else:
            messages.append(CancelOrder(cl_ord_id(first - 10, first + 2), old, SYMBOL, "buy", STRATEGY))
    if step == 4:
        messages.append(
            NewOrder(cl_ord_id(first + 3), side="sell", type="limit", price_ticks=ask, lots=5, tif="fok", **common)
        )
    return messages


def essence(told):
    """What a client must hear, however it hears it."""
    if isinstance(told, CancelReject):
        return ("reject", told.cl_ord_id, told.to, told.reason, told.ts_ns)
    return (told.what, told.state, told.ts_ns, told.last, told.exec_id)


def in_process():
    """The same run without a wire: what the client is told, and each step's book at the end."""
    venue = Venue({symbol: item.world for symbol, item in listings().items()})
    heard, books, row = [], [], None
    step = 0
    outputs = venue.advance(venue.now_ns)
    while True:
        for output in outputs:
            if not isinstance(output, Shown):
                heard.append(essence(output))
            elif isinstance(output.what, Row):
                row = output.what
        books.append((row.bids, row.asks) if row else ({}, {}))
        if venue.now_ns >= venue.closes_ns:
            return heard, books, venue
        if row is not None:
            for message in plan(step, max(row.bids), min(row.asks)):
                venue.take("GATEWAY", message)
        step += 1
        outputs = venue.advance(min(venue.now_ns + int(STEP_S * 1e9), venue.closes_ns))


def child(order):
    return ChildOrder(
        key=order.cl_ord_id, strategy=order.strategy, account=order.account, algorithm="a", trader=order.trader,
        sent_ns=1, venue="SYN", symbol=SYMBOL, side=order.side, type=order.type, price_ticks=order.price_ticks,
        lots=order.lots, tif=order.tif, reduce_only=False,
    )  # fmt: skip


class Desk:
    """Sends the plan by FIX, paced by the feed, and keeps what it hears."""

    def __init__(self, folder, fix_port, feed_port):
        self.notes = Notes()
        self.scale = next(iter(listings().values())).scale
        self.fix = FixInitiator(self.notes, FixSettings("GATEWAY", ("VENUE",), folder / "desk", fix_port))
        self.notes.app = self.fix.app
        self.follower = Follower([SYMBOL])
        self.client = FeedClient(f"ws://127.0.0.1:{feed_port}", self.follower, self._event, paces=True)
        self.moments = asyncio.Queue()
        self.books, self.sent, self.gaps, self.updates, self.statuses = [], [], [], 0, []

    def _event(self, event):
        if isinstance(event, Until):
            book = self.follower.books.get(SYMBOL)
            self.moments.put_nowait((event.ts_ns, book and (dict(book.bids), dict(book.asks))))
        elif isinstance(event, Gap):
            self.gaps.append(event)
        elif isinstance(event, Update):
            self.updates += 1
        elif isinstance(event, SymbolStatus):
            self.statuses.append(event.status)

    def send(self, message):
        orders = {item.cl_ord_id: item for item in self.sent if isinstance(item, NewOrder)}
        self.sent.append(message)
        now = time.time_ns()
        if isinstance(message, NewOrder):
            self.fix.send(encode_new(int(message.cl_ord_id), child(message), self.scale, now, link=message.link))
            return
        order, request = (int(part) for part in message.cl_ord_id.split("-"))
        orig = message.orig_cl_ord_id
        if isinstance(message, ReplaceOrder):
            first = child(orders[orig])
            self.fix.send(
                encode_replace(order, request, orig, first, message.price_ticks, message.lots, self.scale, now)
            )
        else:
            self.fix.send(encode_cancel(order, request, orig, SYMBOL, "buy", now, STRATEGY))

    async def work(self, closes_ns):
        self.fix.start()
        await asyncio.to_thread(until, lambda: self.fix.is_up, "logon")
        feed = asyncio.create_task(self.client.run())
        step = 0
        while True:
            ts_ns, book = await asyncio.wait_for(self.moments.get(), 20)
            self.books.append(book)
            if ts_ns < closes_ns and book is not None and book[0]:
                for message in plan(step, max(book[0]), min(book[1])):
                    self.send(message)
            step += 1
            await self.client.watermark(ts_ns, {STRATEGY: len(self.sent)})
            if ts_ns >= closes_ns:
                break
        self.fix.send(encode_status(1, SYMBOL, "buy", "Q1"))
        self.fix.send(encode_mass_status("M1"))
        await asyncio.to_thread(self.fix.barrier, 10)
        await asyncio.sleep(0.3)
        feed.cancel()


def settings(folder, **more):
    ports = {"fix_port": free_port(), "feed_port": free_port()}
    base = {"folder": folder / "venue", "hours": HOURS, "pace": "lockstep", "step_s": STEP_S, "linger_s": 1.5}
    return VenueSettings(**base, **ports, **more)


@pytest.fixture(scope="module")
def lockstep(tmp_path_factory):
    """One lockstep day by FIX and feed: the desk, and the folder of the venue."""
    folder = tmp_path_factory.mktemp("lockstep")
    chosen = settings(folder)

    async def whole():
        service = VenueService(chosen, listings())
        desk = Desk(folder, chosen.fix_port, chosen.feed_port)
        run = asyncio.create_task(service.run())
        await service.ready.wait()
        try:
            await desk.work(service.venue.closes_ns)
        finally:
            await asyncio.to_thread(desk.fix.stop)
            service.stop()
            await run
        return desk

    return asyncio.run(asyncio.wait_for(whole(), 120)), chosen.folder


def test_lockstep_by_fix_gives_the_fills_of_the_run_in_process(lockstep):
    desk, _ = lockstep
    wanted, books, venue = in_process()
    scales = {SYMBOL: desk.scale}
    answers = [decode_answer(fields, scales) for fields in desk.notes.messages]
    heard = [item for item in answers if not item.is_status]
    assert len(heard) == len(wanted) > 60
    for answer, (what, *rest) in zip(heard, wanted, strict=True):
        if what == "reject":
            assert cl_ord_id(answer.order_id, answer.request_id) == rest[0] and answer.report.reason == rest[2]
            continue
        state, ts_ns, last, exec_id = rest
        kinds = {"new": Acked, "trade": Filled, "cancelled": Cancelled, "expired": Cancelled, "replaced": Replaced}
        assert type(answer.report) is ({**kinds, "rejected": Rejected}[what]) and answer.state == state
        assert answer.report.ts_ns == ts_ns
        if what == "trade":
            assert (answer.report.price_ticks, answer.report.lots, answer.report.exec_id) == (*last, exec_id)
    assert sum(what == "trade" for what, *_ in wanted) > 5
    status = [item for item in answers if item.is_status]
    assert [item.request for item in status] == ["Q1", "M1"] and status[0].order_id == 1 and status[1].state is None


def test_feed_in_lockstep_shows_the_simulator_s_book_at_every_step(lockstep):
    desk, _ = lockstep
    books = in_process()[1]
    assert desk.books == books and len(books) > 30
    assert desk.updates > 500 and not [gap for gap in desk.gaps if "down" not in gap.reason]
    assert desk.statuses[-1] == "closed"


def test_log_holds_exactly_what_was_received(lockstep):
    desk, folder = lockstep
    lines = read_received(folder / "received.jsonl")
    expected = [(type(item).__name__, item.cl_ord_id) for item in desk.sent]
    assert [(line["what"], line["cl_ord_id"]) for line in lines if "cl_ord_id" in line][:-1] == expected
    assert [line["what"] for line in lines[-2:]] == ["StatusOrder", "MassStatus"]
    orders = [line for line in lines if line["what"] == "NewOrder"]
    for line, order in zip(orders, [item for item in desk.sent if isinstance(item, NewOrder)], strict=True):
        assert {key: line[key] for key in ("price_ticks", "lots", "side", "strategy", "link", "trader")} == {
            key: getattr(order, key) for key in ("price_ticks", "lots", "side", "strategy", "link", "trader")
        }
    assert [line["venue_ns"] for line in lines] == sorted(line["venue_ns"] for line in lines)


def test_message_that_cannot_be_taken_is_logged_and_answered(tmp_path):
    chosen = settings(tmp_path).model_copy(update={"pace": "real", "speed": 1.0})

    async def whole():
        service = VenueService(chosen, listings())
        desk = Desk(tmp_path, chosen.fix_port, chosen.feed_port)
        run = asyncio.create_task(service.run())
        await service.ready.wait()
        desk.fix.start()
        await asyncio.to_thread(until, lambda: desk.fix.is_up, "logon")
        order = encode_new(1, child(plan(0, 10_000, 10_001)[0]), desk.scale, 1)
        for tag, wrong in ((44, "100.005"), (38, "2.5"), (55, "NOPE"), (54, "7")):
            spoilt = type(order)(order)
            spoilt.setField(tag, wrong)
            desk.fix.send(spoilt)
        await asyncio.to_thread(until, lambda: len(desk.notes.messages) == 4)
        await asyncio.to_thread(desk.fix.stop)
        service.stop()
        await run
        return desk.notes.messages

    answers = asyncio.run(asyncio.wait_for(whole(), 60))
    assert [fields.type for fields in answers] == ["j"] * 4
    reasons = [line["reason"] for line in read_received(chosen.folder / "received.jsonl")]
    for reason, wanted in zip(
        reasons, ("more than 2 decimals", "decimals", "NOPE is not traded", "7 is none of"), strict=True
    ):
        assert wanted in reason


def run_venue(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "training.market.venue", *arguments],
        env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_process_starts_serves_and_stops_by_its_id(tmp_path):
    fix_port, feed_port = free_port(), free_port()
    ports = ["--fix-port", str(fix_port), "--feed-port", str(feed_port)]
    process = run_venue("--folder", str(tmp_path / "v"), *ports, SHORTFALL_VENUE_HOURS="0.05")
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    until(lambda: any("FIX on 127.0.0.1" in line for line in lines), "the venue's start")
    notes = Notes()
    fix = FixInitiator(notes, FixSettings("GATEWAY", ("VENUE",), tmp_path / "desk", fix_port))
    fix.start()
    until(lambda: fix.is_up, "logon")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    fix.stop()
    reader.join(5)
    assert read_received(tmp_path / "v" / "received.jsonl") == [] and "Traceback" not in "".join(lines)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--host", "0.0.0.0"], "not a loopback address"),
        (["--speed", "-1"], "speed: Input should be greater than 0"),
        (["--world", "replay"], "replay and depth need a folder"),
        (["--symbols", '["NOPE"]'], "symbol NOPE"),
        (["--date", "2024-01-01"], "day 2024-01-01 is not one of"),
        (["--start", "03:00:00"], "outside the session"),
        (["--unknown", "1"], "unknown"),
    ],
)
def test_bad_settings_end_with_one_clear_line_and_code_2(arguments, error, tmp_path, capsys):
    from training.market.venue.__main__ import main

    assert main(["--hours", "0.05", "--folder", str(tmp_path / "v"), *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("error: ") and error in told[0]


def test_log_is_never_written_twice(tmp_path, capsys):
    from training.market.venue.__main__ import main

    (tmp_path / "received.jsonl").touch()
    assert main(["--hours", "0.05", "--folder", str(tmp_path)]) == 2
    assert "received.jsonl" in capsys.readouterr().err
