"""The adversarial streams of `gateway_streams` through real FIX sessions: two venues, everything both ways by wire.

The gateway sends through its own sessions and its veto in `toApp`; what the venue's log holds is what an acceptor
decoded. Time is the streams' own, so each group is awaited at the other end before anything else happens.
"""

import time
from collections import deque
from pathlib import Path

from fix_peers import DEADLINE_S, free_port, until
from gateway_streams import SYMBOLS, VENUES, Streams

from serving.contracts.orders import (
    Acked,
    Busted,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Filled,
    Rejected,
    Replaced,
    ReplaceRejected,
)
from serving.gateway.config import FeedConfig, FixConfig, SymbolConfig, VenueConfig
from serving.gateway.fix_out import FixTransport, VenueSession
from serving.gateway.transport import CancelMessage, NewMessage, ReplaceMessage
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import Fields
from serving.wire.fix_numbers import Scale
from serving.wire.fix_orders import cl_ord_id, decode_inbound, order_of
from serving.wire.fix_reports import encode_cancel_reject, encode_execution
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import CancelOrder, NewOrder, OrderState

SCALE = Scale.of("0.01")
SCALES = dict.fromkeys(SYMBOLS, SCALE)


def _await(queue: deque, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not queue:
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE_S:g} s"
        time.sleep(0.00005)  # lets FIX's threads run; `until` would sleep away the test


class _VenueEnd:
    """An acceptor that keeps what comes, in order."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name, self.came, self.failures = name, deque(), []
        self.app = GuardedApplication(self)
        self.acceptor = FixAcceptor(self.app, FixSettings(name, ("GATEWAY",), folder / name, port))

    def logged_on(self, peer): ...

    def logged_out(self, peer): ...

    def vetoed(self, peer, message, reason, resent): ...

    def veto(self, peer, message, resent):
        return None

    def failed(self, reason):
        self.failures.append(reason)

    def received(self, peer, message):
        self.came.append(decode_inbound(Fields.of(message), SCALES))


class FixStreams(Streams):
    """One run through FIX. `with FixStreams(...) as streams: streams.run(n)`."""

    def __init__(self, seed, read, folder: Path) -> None:
        self.ends, self.sessions, self.messages = {}, {}, 0
        self._by_venue = {venue: deque() for venue in VENUES}
        for venue in VENUES:
            port = free_port()
            self.ends[venue] = _VenueEnd(venue, folder / "venues", port)
            self.ends[venue].acceptor.start()
            config = VenueConfig(
                fix=FixConfig(port=port, peer=venue), feed=FeedConfig(url="ws://127.0.0.1:1"),
                symbols=dict.fromkeys(SYMBOLS, SymbolConfig(tick_size="0.01")),
            )  # fmt: skip
            session = VenueSession(venue, config, folder / "gateway", folder, self._came)
            session.initiator.start()
            self.sessions[venue] = session
        for session in self.sessions.values():
            until(lambda session=session: session.initiator.is_up, "logon")
            session.not_well = ""  # no probe: time stands still between two steps
        self.fix = FixTransport(self.sessions, self.now)
        self._order_of_sending = deque()
        self._reduce_only: dict[int, bool] = {}
        self.accepted: dict[int, str] = {}
        super().__init__(seed, read)

    def __enter__(self) -> "FixStreams":
        return self

    def __exit__(self, *_) -> None:
        for session in self.sessions.values():
            session.initiator.stop()
        for end in self.ends.values():
            end.acceptor.stop()

    def start(self):
        if not hasattr(self.gateway, "_plain_commit"):
            self.fix.gateway = self.gateway
            self.gateway._plain_commit = self.gateway.commit
            self.gateway.commit = self._commit_and_wait
        self.accepted.clear()
        super().start()

    # gateway to venue

    def send(self, message):
        """As the core's transport: by FIX, and noted where to wait for it."""
        venue = message.order.venue if isinstance(message, NewMessage) else message.venue
        if isinstance(message, NewMessage):
            self._reduce_only[message.order_id] = message.order.reduce_only
        before = self.gateway.journal.sequence, len(self.gateway.journal._pending)
        self.fix.send(message)
        if (self.gateway.journal.sequence, len(self.gateway.journal._pending)) == before:  # not held back
            self._order_of_sending.append(venue)
            self.messages += 1

    def _commit_and_wait(self, now):
        self.gateway._plain_commit(now)
        while self._order_of_sending:
            end = self.ends[self._order_of_sending.popleft()]
            _await(end.came, f"a message at {end.name}")
            assert not end.failures, end.failures
            self._take(end.name, end.came.popleft())
        if self.problem is not None:
            raise self.problem

    def _take(self, venue, asked):
        """What came by wire, as the venue of the streams knows it."""
        order_id, request_id = order_of(asked.cl_ord_id)
        if isinstance(asked, NewOrder):
            assert order_id not in self.accepted, f"order {order_id} came twice"
            self.accepted[order_id] = asked.cl_ord_id
            order = ChildOrder(
                key=str(order_id), strategy=asked.strategy, account=asked.account, algorithm=asked.algorithm,
                trader=asked.trader, sent_ns=0, venue=venue, symbol=asked.symbol, side=asked.side, type=asked.type,
                price_ticks=asked.price_ticks, lots=asked.lots, tif=asked.tif,
                reduce_only=self._reduce_only.pop(order_id),
            )  # fmt: skip
            self.receive(NewMessage(order_id, order))
            return
        assert asked.orig_cl_ord_id == self.accepted[order_id], (asked, self.accepted[order_id])
        if isinstance(asked, CancelOrder):
            self.receive(CancelMessage(order_id, request_id, venue))
        else:
            self.receive(ReplaceMessage(order_id, request_id, venue, asked.price_ticks, asked.lots))

    # venue to gateway

    def on_replace(self, message):
        self._replacing = message
        super().on_replace(message)

    def tell(self, venue, report):
        """Encoded at once, with the order as it stands now."""
        if isinstance(report, Replaced):
            self.accepted[report.order_id] = cl_ord_id(report.order_id, self._replacing.request_id)
        super().tell(venue, (report, self._encode(report)))

    def deliver(self, count):
        """By wire, then in the order in which it came."""
        self.commit()
        part = [self.late.popleft() for _ in range(min(count, len(self.late)))]
        for venue, (_, message) in part:
            self.ends[venue].acceptor.send("GATEWAY", message)
            self.messages += 1
        heard = [self._next(venue, report) for venue, (report, _) in part]
        assert not self.late or count < 10**9
        self.late.extendleft(reversed(heard))
        super().deliver(len(heard))

    def _next(self, venue, report):
        queue = self._by_venue[venue]
        _await(queue, f"a report of {venue}")
        came = queue.popleft()
        assert not came.halt, came.halt
        assert came.report == report, (came.report, report)
        self.sessions[venue].ids.take(came.answer)
        return venue, came.report

    def _came(self, came):
        self._by_venue[came.venue].append(came)

    def _encode(self, report):
        order = self.at_venue[report.order_id]
        request, own = order[0], self.accepted[report.order_id]
        if isinstance(report, CancelRejected | ReplaceRejected):
            to = "cancel" if isinstance(report, CancelRejected) else "replace"
            return encode_cancel_reject(f"{report.order_id}-1", own, "V1", "new", to, report.reason, report.ts_ns)
        kind = {Acked: "0", Filled: "F", Busted: "H", Rejected: "8", Cancelled: "4", Replaced: "5"}[type(report)]
        status = {"8": "rejected", "4": "cancelled", "5": "replaced"}.get(kind, "new")
        state = OrderState(own, "V1", request.symbol, request.side, status, order[1] or None, order[2], order[3], 0)
        more = {}
        if isinstance(report, Filled):
            more = {"last": (report.price_ticks, report.lots)}
        elif isinstance(report, Busted):
            more = {"exec_ref": report.exec_id}
        elif isinstance(report, Rejected):
            more = {"text": report.reason}
        exec_id = report.exec_id if isinstance(report, Filled) else f"e{self.messages}"
        return encode_execution(kind, state, SCALE, exec_id, report.ts_ns, **more)
