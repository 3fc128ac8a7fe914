"""A venue that does what a test tells it: a real FIX acceptor and a real feed, and no market."""

import asyncio
import itertools
import threading
import time
from pathlib import Path

from serving.wire.feed_socket import FeedServer
from serving.wire.feed_state import Publisher
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import BUSINESS_REJECT, Fields, Tag, build
from serving.wire.fix_numbers import Scale
from serving.wire.fix_orders import decode_inbound
from serving.wire.fix_reports import encode_execution, encode_no_orders
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import CancelOrder, MassStatus, NewOrder, OrderState, StatusOrder

SYMBOL, SCALE = "SYN1", Scale.of("0.01")
BID, ASK = 9_990, 10_010


class ScriptedVenue:
    """Acknowledges orders and confirms cancels while `answers` is set; what it is asked stands in `heard`."""

    def __init__(self, folder: Path, fix_port: int, feed_port: int, tail: str = "", acceptor=FixAcceptor) -> None:
        """`tail` of every CompID: QuickFIX keeps one session of a name in a process; `acceptor`: whose FIX."""
        self.gateway, self.drop = f"GATEWAY{tail}", f"DROPCOPY{tail}"
        self.heard: list = []
        self.numbers: dict[int, str] = {}
        self.answers = self.copies = True
        self.states: dict[str, OrderState] = {}  # what a mass status lists, by ClOrdID
        self._execs = itertools.count(1)
        self._app = GuardedApplication(self)
        peers = (self.gateway, self.drop)
        settings = FixSettings(f"VENUE{tail}", peers, folder / "venue_fix", fix_port, heartbeat_s=1)
        self._acceptor = acceptor(self._app, settings)
        self._feed_port = feed_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "ScriptedVenue":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._feed(), self._loop).result(10)
        self._acceptor.start()
        return self

    def __exit__(self, *_) -> None:
        self._acceptor.stop()
        self._beating.cancel()
        asyncio.run_coroutine_threadsafe(self.feed.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _feed(self) -> None:
        self.feed = FeedServer(Publisher("SYN", "one", [SYMBOL], False))
        self.feed.publisher.status(SYMBOL, 1, "open")
        self.feed.publisher.row(SYMBOL, 2, {BID: 100}, {ASK: 100})
        await self.feed.start("127.0.0.1", self._feed_port)

        async def beat():
            while True:
                self.feed.beat(3)
                await asyncio.sleep(0.1)

        self._beating = self._loop.create_task(beat())

    def of(self, kind) -> list:
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def say(self, exec_type: str, state: OrderState, to: str | None = None, **more) -> str:
        """Send an execution report, a fill to the drop copy too while `copies` is set; gives its ExecID."""
        exec_id = more.pop("exec_id", None) or f"X{next(self._execs)}"
        peers = (to,) if to is not None else (self.gateway,)
        if exec_type == "F" and to is None and self.copies:
            peers = (self.gateway, self.drop)
        for peer in peers:
            self._acceptor.send(peer, encode_execution(exec_type, state, SCALE, exec_id, time.time_ns(), **more))
        return exec_id

    def refuse(self, cl_ord_id: str, kind: str = "D") -> None:
        """BusinessMessageReject of a message."""
        message = build(BUSINESS_REJECT, {Tag.TEXT: "not today"})
        for tag, value in ((45, "1"), (372, kind), (380, "0"), (379, cl_ord_id)):
            message.setField(tag, value)
        self._acceptor.send(self.gateway, message)

    def reject(self, reference: str) -> None:
        """Session-level Reject of what the gateway sent under a MsgSeqNum."""
        self._acceptor.send(self.gateway, build("3", {Tag.REF_SEQ_NUM: reference or None, Tag.TEXT: "required tag"}))

    def number(self, message) -> str:
        """The MsgSeqNum under which a message was heard."""
        return self.numbers[id(message)]

    @staticmethod
    def state(order: NewOrder, status="new", filled=0, **more) -> OrderState:
        left = order.lots - filled if status in ("new", "partially_filled") else 0
        values = {"cl_ord_id": order.cl_ord_id, "symbol": order.symbol, "side": order.side, **more}
        return OrderState(
            values["cl_ord_id"], "V1", values["symbol"], values["side"], status, order.price_ticks, order.lots,
            filled, left,
        )  # fmt: skip

    def logged_on(self, peer):
        pass

    def logged_out(self, peer):
        pass

    def veto(self, peer, message, resent):
        return None

    def vetoed(self, peer, message, reason, resent):
        pass

    def failed(self, reason):
        self.heard.append(reason)

    def received(self, peer, message):
        asked = decode_inbound(Fields.of(message), {SYMBOL: SCALE})
        self.numbers[id(asked)] = message.getHeader().getField(34)
        self.heard.append(asked)
        if isinstance(asked, MassStatus):
            states = list(self.states.values())
            if not states:
                self._acceptor.send(peer, encode_no_orders(asked.request_id, f"X{next(self._execs)}", 1))
            for state in states:
                self.say("I", state, request=(Tag.MASS_STATUS_REQ_ID, asked.request_id), count=len(states))
        elif isinstance(asked, StatusOrder):
            unknown = OrderState(asked.cl_ord_id, "NONE", asked.symbol, asked.side, "rejected", None, 0, 0, 0)
            self.say("I", unknown, request=(Tag.ORD_STATUS_REQ_ID, asked.request_id))
        elif not self.answers:
            return
        elif isinstance(asked, NewOrder):
            self.say("0", self.state(asked))
        elif isinstance(asked, CancelOrder):
            order = next((o for o in self.of(NewOrder) if o.cl_ord_id == asked.orig_cl_ord_id), None)
            if order is not None:
                self.say("4", self.state(order, "cancelled", cl_ord_id=asked.cl_ord_id), orig=asked.orig_cl_ord_id)
