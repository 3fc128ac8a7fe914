"""The adversarial streams with QuickFIX between gateway and venue: what the venue's log holds came over a socket.

Both ways: orders leave by the gateway's own FIX transport and veto and are read by an acceptor; reports go back as
execution reports and are read by the gateway's sessions. Time stays the streams' own.
"""

import contextlib
import itertools
import threading
import time
from collections import deque

from fix_peers import free_port
from gateway_streams import SYMBOLS, VENUES, Streams

from serving.contracts.orders import (
    Acked,
    Busted,
    Cancelled,
    CancelRejected,
    Filled,
    Rejected,
    Replaced,
    ReplaceRejected,
)
from serving.gateway.config import VenueConfig
from serving.gateway.fix_out import FixTransport, VenueSession
from serving.gateway.transport import CancelMessage, NewMessage, ReplaceMessage
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import Fields
from serving.wire.fix_orders import cl_ord_id, decode_inbound, order_of
from serving.wire.fix_reports import encode_cancel_reject, encode_execution
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import CancelOrder, NewOrder, OrderState

WAIT_S = 30.0
EXEC_TYPES = {Acked: "0", Rejected: "8", Filled: "F", Cancelled: "4", Replaced: "5", Busted: "H"}


class _Desk:
    """The venue's end: a handler that only keeps what comes."""

    def __init__(self, scales):
        self.scales, self.came, self.failures = scales, deque(), []
        self.heard = threading.Semaphore(0)

    def logged_on(self, peer):
        pass

    def logged_out(self, peer):
        pass

    def received(self, peer, message):
        self.came.append((peer, decode_inbound(Fields.of(message), self.scales)))
        self.heard.release()

    def veto(self, peer, message, resent):
        return None

    def vetoed(self, peer, message, reason, resent):
        pass

    def failed(self, reason):
        self.failures.append(reason)


class FixStreams(Streams):
    """`Streams` whose every message and report goes through real sessions; a context manager, since they must end."""

    def __init__(self, seed, read, folder, monkeypatch, disk=None):
        port = free_port()
        config = {
            "feed": {"url": "ws://127.0.0.1:1"},
            "symbols": {symbol: {"tick_size": "0.01"} for symbol in SYMBOLS},
        }
        fix = {"port": port, "heartbeat_s": 60}
        configs = {v: VenueConfig.model_validate({**config, "fix": {**fix, "comp_id": v}}) for v in VENUES}
        self.scales = configs[VENUES[0]].scales()
        self.desk = _Desk(self.scales)
        self.acceptor = FixAcceptor(
            GuardedApplication(self.desk), FixSettings("VENUE", VENUES, folder / "venue", port, heartbeat_s=60)
        )
        self.acceptor.start()
        self._answers, self._told = deque(), threading.Semaphore(0)
        self.sessions = {v: VenueSession(v, configs[v], folder, folder, self._came) for v in VENUES}
        self.fix = FixTransport(self.sessions, self.now)
        self.requests_sent, self.through_fix, self.on_the_way, self.halts = {}, 0, 0, []
        self._own, self._asked, self._execs = {}, "", itertools.count(1)
        for session in self.sessions.values():
            session.start()
        deadline = time.monotonic() + WAIT_S
        while any(session.not_well for session in self.sessions.values()):
            assert time.monotonic() < deadline, [session.not_well for session in self.sessions.values()]
            time.sleep(0.01)
        for session in self.sessions.values():
            session.probe.stop()  # the streams wait for every message themselves
            send = session.initiator.send
            monkeypatch.setattr(session.initiator, "send", lambda message, send=send: self.left(send(message)))
        self.halts.clear()  # what was said before the sessions were up
        super().__init__(seed, read, disk)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for session in self.sessions.values():
            with contextlib.suppress(RuntimeError):
                session.initiator.stop()
        self.acceptor.stop()

    def _came(self, came):
        if came.answer is not None:
            self._answers.append(came)
            self._told.release()
        elif came.halt:
            self.halts.append(came.halt)

    # what leaves

    def left(self, message):
        self.on_the_way += 1

    def send(self, message):
        self.fix.gateway = self.gateway
        if type(message) is NewMessage:
            self.requests_sent[message.order_id] = message.order
        self.fix.send(message)

    def barrier(self):
        return all(session.initiator.barrier(WAIT_S) for session in self.sessions.values())

    def commit(self):
        super().commit()
        self.drain()
        assert not self.desk.failures and not self.halts, (self.desk.failures, self.halts)

    def drain(self):
        """Wait for what left, and let the venue act on it."""
        while self.on_the_way:
            assert self.desk.heard.acquire(timeout=WAIT_S), f"a message did not come: {self.halts}"
            venue, asked = self.desk.came.popleft()
            self.on_the_way -= 1
            self.through_fix += 1
            self.receive(self._read(venue, asked))

    def _read(self, venue, asked):
        """A message as the venue read it, which must be what the gateway decided."""
        order_id, request_id = order_of(asked.cl_ord_id)
        if isinstance(asked, NewOrder):
            order = self.requests_sent.pop(order_id)
            names = ("account", "symbol", "side", "type", "price_ticks", "lots", "tif", "trader", "algorithm")
            assert venue == order.venue and asked.strategy == order.strategy
            assert [getattr(asked, name) for name in names] == [getattr(order, name) for name in names]
            return NewMessage(order_id, order)
        self._asked = asked.cl_ord_id
        assert order_of(asked.orig_cl_ord_id)[0] == order_id
        if isinstance(asked, CancelOrder):
            return CancelMessage(order_id, request_id, venue)
        return ReplaceMessage(order_id, request_id, venue, asked.price_ticks, asked.lots)

    # what comes back

    def tell(self, venue, report):
        """Keep the report as the FIX message that says it now."""
        super().tell(venue, report)
        order_id, kind = report.order_id, type(report)
        order, price, lots, filled, _, _, is_open = self.at_venue[order_id]
        own = cl_ord_id(order_id)
        if kind in (CancelRejected, ReplaceRejected):
            to = "cancel" if kind is CancelRejected else "replace"
            message = encode_cancel_reject(self._asked, own, f"V{order_id}", "new", to, report.reason, report.ts_ns)
        else:
            asked = bool(self._asked) and kind in (Replaced, Cancelled) and order_of(self._asked)[0] == order_id
            status = {Rejected: "rejected", Cancelled: "cancelled"}.get(kind, "new" if is_open else "filled")
            state = OrderState(
                self._asked if asked else own, f"V{order_id}", order.symbol, order.side, status, price or None, lots,
                filled, max(0, lots - filled) if is_open else 0,
            )  # fmt: skip
            trade = kind is Filled
            message = encode_execution(
                EXEC_TYPES[kind], state, self.scales[order.symbol],
                report.exec_id if trade else f"E{next(self._execs)}", report.ts_ns,
                last=(report.price_ticks, report.lots) if trade else None,
                exec_ref=report.exec_id if kind is Busted else None,
                text=report.reason if kind is Rejected else None,
            )  # fmt: skip
        self._own[id(report)] = message

    def deliver(self, count):
        """Send the oldest reports through the sessions, and hand over what was read there."""
        self.commit()
        told = [self.late.popleft() for _ in range(min(count, len(self.late)))]
        for venue, report in told:
            self.acceptor.send(venue, self._own.pop(id(report)))
        read = {venue: deque() for venue in VENUES}
        for _ in told:
            assert self._told.acquire(timeout=WAIT_S), f"a report did not come: {self.halts}"
            came = self._answers.popleft()
            self.sessions[came.venue].ids.take(came.answer)
            read[came.venue].append(came.report)
        for venue, report in reversed(told):
            came = read[venue].pop()
            assert came == report, (came, report)
            self.late.appendleft((venue, came))
        self.through_fix += len(told)
        super().deliver(len(told))
