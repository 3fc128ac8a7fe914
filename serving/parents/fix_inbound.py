"""The FIX side: an acceptor for clients who send parents, and the reports of what becomes of them.

Reports follow the journal: one goes out for each record that a client must hear of, after it is durable. The session's
store keeps them for a client that is away; after a restart it also hears, at its logon, where its open parents stand.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import quickfix

from serving.contracts.orders import Busted, Corrected, Filled
from serving.parents.fix_messages import (
    AskCancel,
    AskNew,
    AskReplace,
    AskStatus,
    cancel_rejected,
    decode_parent,
    rejected,
    state_of,
)
from serving.parents.orders import Parent
from serving.parents.outputs import ParentRequest, Refusal
from serving.parents.records import Changed, Ended, Heard, Record, Taken
from serving.parents.settings import FixPeer, ParentsSettings
from serving.parents.state import State
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import BUSINESS_REJECT, Fields, FixMessageError, Tag, build
from serving.wire.fix_numbers import Scale
from serving.wire.fix_reports import encode_execution, encode_no_orders
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import OrderState

log = logging.getLogger(__name__)
END_CODES = {"cancelled": "4", "expired": "C"}
UNSENT_NS = 10 * 10**9
"""Reports leave as soon as their record is durable: what was recorded longer before an end has left."""


class Desk(Protocol):
    """What the process does for a client. Each call has reached the disk when it returns."""

    state: State

    def submit(self, request: ParentRequest) -> Parent:
        """Take a parent. Raises Refusal."""

    def cancel(self, parent: Parent, reason: str) -> None:
        """End it. Raises Refusal."""

    def replace(self, parent: Parent, lots: int, parent_id: str = "") -> None:
        """Change its size. Raises Refusal."""

    def market_ns(self) -> int:
        """Time of the market."""

    def alert(self, what: str, message: str) -> None:
        """Tell people."""

    def later(self, call: Callable[..., None], *arguments: Any) -> None:
        """Do something in the event loop's thread."""


class FixInbound:
    """A `serving.wire.fix_application.FixHandler` and the sender of reports."""

    def __init__(
        self, settings: ParentsSettings, scales: Mapping[str, Scale], desk: Desk, port: int, ended_ns: int = 0
    ) -> None:
        """`ended_ns`: the last that the process before this one recorded, UTC."""
        self._since_ns = ended_ns - UNSENT_NS if ended_ns else 2**63
        self._peers: Mapping[str, FixPeer] = settings.fix_peers
        self._strategies, self._scales, self._desk = frozenset(settings.fix_strategies), dict(scales), desk
        tokens = {name: peer.token_sha256 for name, peer in self._peers.items() if peer.token_sha256}
        self._application = GuardedApplication(self, tokens=tokens or None, on_reject=self._rejected)
        self._acceptor = FixAcceptor(
            self._application,
            FixSettings(
                settings.fix_comp_id, tuple(self._peers), settings.folder / "fix", port, settings.fix_host,
                tls=settings.fix_tls(), day_start=settings.fix_day_start,
            ),
            lambda reason: desk.later(desk.alert, "intruder", reason),
        )  # fmt: skip
        self._cancels: dict[int, tuple[str, str]] = {}  # own and original ClOrdID of a cancel, by parent
        self._greeted: set[str] = set()
        self._asked = 0
        self.failure = ""

    def start(self) -> None:
        """Listen. Raises OSError where the port cannot be had."""
        self._acceptor.start()

    def stop(self) -> None:
        """Log out and close."""
        self._acceptor.stop()

    # FixHandler, in QuickFIX's threads --------------------------------------------------------------------------------

    def logged_on(self, peer: str) -> None:
        """See FixHandler."""
        log.info("%s logged on", peer)
        self._desk.later(self._greet, peer)

    def logged_out(self, peer: str) -> None:
        """See FixHandler. Its parents are worked on."""
        log.info("%s logged out", peer)

    def received(self, peer: str, message: quickfix.Message) -> None:
        """See FixHandler."""
        self._desk.later(self._take, peer, message.toString(), int(message.getHeader().getField(34)))

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """See FixHandler. Reports are facts: they always go."""
        return None

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """See FixHandler."""

    def failed(self, reason: str) -> None:
        """See FixHandler."""
        self.failure = reason

    def _rejected(self, peer: str, number: int, reason: str) -> None:
        """A report that a client could not read: it does not know what the report said, and nobody tells it again."""
        self._desk.later(self._desk.alert, "report", f"{peer} rejected message {number}: {reason}")

    # In the event loop's thread ---------------------------------------------------------------------------------------

    def follow(self, record: Record, sequence: int) -> None:
        """Tell clients what a durable record means to them; `sequence` makes the report's number."""
        state, exec_id = self._desk.state, f"{self._desk.state.birth}-{sequence}"
        if isinstance(record, Heard):
            child = state.orders.get((record.account, record.report.order_id))
            if child is not None:
                self._tell_fill(state.parents[child.parent], record, exec_id)
        elif isinstance(record, Taken | Ended | Changed):
            parent = state.parents[record.number]
            if parent.source != "fix":
                return
            if isinstance(record, Taken):
                self._report(parent, "0", exec_id, record.utc_ns)
            elif isinstance(record, Changed):
                self._report(parent, "5", exec_id, record.utc_ns)
            elif record.how == "filled" and parent.number in self._cancels:  # its cancel came too late
                own, orig = self._cancels.pop(parent.number)
                ask = AskCancel(own, orig, parent.symbol, parent.side)
                if parent.peer in self._peers:
                    self._acceptor.send(parent.peer, cancel_rejected(ask, parent, "it is filled", record.utc_ns))
            elif record.how in END_CODES:
                own, orig = self._cancels.pop(parent.number, ("", ""))
                text = parent.reason or None
                self._report(parent, END_CODES[record.how], exec_id, record.utc_ns, own=own, orig=orig, text=text)

    def _tell_fill(self, parent: Parent, record: Heard, exec_id: str) -> None:
        if parent.source != "fix":
            return
        report = record.report
        if isinstance(report, Filled):
            self._report(parent, "F", exec_id, report.ts_ns, last=(report.price_ticks, report.lots), fee=report.fee)
        elif isinstance(report, Busted | Corrected):
            code, last = ("H", None) if isinstance(report, Busted) else ("G", (report.price_ticks, report.lots))
            self._report(parent, code, exec_id, report.ts_ns, last=last, exec_ref=report.exec_id)

    def _report(
        self, parent: Parent, code: str, exec_id: str, ts_ns: int, *, own: str = "", orig: str = "",
        text: str | None = None, **more: Any,
    ) -> None:  # fmt: skip
        state = state_of(parent, own or None)
        if code == "F":
            state = state._replace(status="filled" if parent.filled >= parent.lots else "partially_filled")
        scale = self._scales[parent.symbol]
        text = text[:200].encode("ascii", "replace").decode() if text else None
        message = encode_execution(code, state, scale, exec_id, ts_ns, orig=orig or None, text=text, **more)
        if parent.peer in self._peers:
            self._acceptor.send(parent.peer, message)

    def _greet(self, peer: str) -> None:
        """At its first logon since the start a client hears where its parents stand that are open, or had just ended
        when the process did: their last report may never have left."""
        if peer in self._greeted:
            return
        self._greeted.add(peer)
        for parent in self._of(peer):
            if not parent.is_ended or parent.done_ns >= self._since_ns:
                self._status(peer, parent, parent.parent_id, "")

    def _take(self, peer: str, raw: str, number: int) -> None:
        fields = Fields.of(raw)
        try:
            ask = decode_parent(fields, self._scales, self._strategies)
        except FixMessageError as error:
            self._refuse(peer, fields, str(error), number)
            return
        try:
            if isinstance(ask, AskNew):
                self._new(peer, ask, fields.is_resent)
            elif isinstance(ask, AskStatus):
                self._answer(peer, ask)
            else:
                self._change(peer, ask)
        except RuntimeError as error:
            self._refuse(peer, fields, str(error), number)

    def _new(self, peer: str, ask: AskNew, is_resent: bool) -> None:
        desk, account = self._desk, self._peers[peer].account
        now = desk.market_ns()
        start = ask.start_ns or now
        known = desk.state.find(account, ask.own)
        if known is not None:  # a repetition is answered with where it stands; a rejection would look like its own
            self._status(peer, known, ask.own, "", f"ClOrdID {ask.own} was used before: nothing was done")
            return
        try:
            if ask.account not in ("", account):
                raise Refusal("unknown", f"account {ask.account} is not {account}, that of {peer}")
            if not start:
                raise Refusal("busy", "the market's time is not known yet: give EffectiveTime(168)")
            if ask.end_ns <= start:
                raise Refusal("invalid", f"ExpireTime(126) {ask.end_ns} ns is not after {start} ns")
            desk.submit(
                ParentRequest(
                    ask.own,
                    account,
                    ask.symbol,
                    ask.side,
                    ask.lots,
                    ask.end_ns - start,
                    ask.start_ns,
                    "",
                    ask.trader[:64],
                    "fix",
                    peer,
                )  # fmt: skip
            )
        except Refusal as error:
            message = rejected(ask, self._scales[ask.symbol], self._exec_id(), now, str(error))
            self._acceptor.send(peer, message)

    def _change(self, peer: str, ask: AskCancel | AskReplace) -> None:
        desk, account = self._desk, self._peers[peer].account
        parent = desk.state.find(account, ask.orig)
        try:
            if parent is None:
                raise Refusal("unknown", f"order {ask.orig} is unknown")
            if parent.peer != peer:  # whoever sent it hears of it, and nobody else would
                raise Refusal("unknown", f"order {ask.orig} did not come by this session")
            if (ask.symbol, ask.side) != (parent.symbol, parent.side):
                raise Refusal("invalid", "symbol and side of an order never change")
            if isinstance(ask, AskReplace):
                desk.replace(parent, ask.lots, ask.own)
                return
            if desk.state.find(account, ask.own) is not None:
                raise Refusal("conflict", f"ClOrdID {ask.own} was used before")
            self._cancels.setdefault(parent.number, (ask.own, ask.orig))
            desk.cancel(parent, f"cancelled by {peer}")
        except Refusal as error:
            if parent is not None:
                self._cancels.pop(parent.number, None)
            self._acceptor.send(peer, cancel_rejected(ask, parent, str(error)[:200], desk.market_ns()))

    def _answer(self, peer: str, ask: AskStatus) -> None:
        state = self._desk.state
        if not ask.is_mass:
            parent = state.find(self._peers[peer].account, ask.own)
            if parent is not None:
                self._status(peer, parent, ask.own, ask.request)
                return
            symbol = next(iter(self._scales))
            unknown = OrderState(ask.own, "NONE", symbol, "buy", "rejected", None, 0, 0, 0)
            request = (Tag.ORD_STATUS_REQ_ID, ask.request) if ask.request else None
            message = encode_execution(
                "I", unknown, self._scales[symbol], self._exec_id(), self._desk.market_ns(), request=request,
                text="the order is unknown",
            )  # fmt: skip
            self._acceptor.send(peer, message)
            return
        open_ones = [parent for parent in self._of(peer) if not parent.is_ended]
        if not open_ones:
            self._acceptor.send(peer, encode_no_orders(ask.request, self._exec_id(), self._desk.market_ns()))
        for parent in open_ones:
            self._status(peer, parent, parent.parent_id, ask.request, mass=len(open_ones))

    def _status(
        self, peer: str, parent: Parent, own: str, request: str, text: str | None = None, mass: int | None = None
    ) -> None:
        tag = Tag.ORD_STATUS_REQ_ID if mass is None else Tag.MASS_STATUS_REQ_ID
        message = encode_execution(
            "I", state_of(parent, own), self._scales[parent.symbol], self._exec_id(), self._desk.market_ns(),
            request=(tag, request) if request else None, count=mass, text=text,
        )  # fmt: skip
        self._acceptor.send(peer, message)

    def _of(self, peer: str) -> list[Parent]:
        return [parent for parent in self._desk.state.parents.values() if parent.peer == peer]

    def _exec_id(self) -> str:
        """A number for a report that no record stands behind."""
        self._asked += 1
        return f"{self._desk.state.birth}-S{self._desk.state.utc_ns}-{self._asked}"

    def _refuse(self, peer: str, fields: Fields, reason: str, number: int) -> None:
        """BusinessMessageReject of a message that cannot be taken."""
        message = build(BUSINESS_REJECT, {Tag.TEXT: reason[:200].encode("ascii", "replace").decode()})
        try:
            kind, reference = fields.type, fields.get(Tag.CL_ORD_ID)
        except FixMessageError:
            kind, reference = "?", None
        for tag, value in ((45, str(number)), (372, kind), (380, "0")):
            message.setField(tag, value)
        if reference:
            message.setField(379, reference)
        self._acceptor.send(peer, message)
