"""FIX out: one session a venue, the last-line veto in `toApp`, and the transport that the core sends through.

QuickFIX calls back in threads of its own: what comes is decoded there and handed over, the deciding thread does the
rest. An order leaves from the deciding thread alone; `toApp` asks the core once more, with the age since the decision.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import quickfix

from serving.contracts.orders import CancelRejected, Rejected, ReplaceRejected, Report
from serving.gateway.config import FixConfig, VenueConfig, read_token
from serving.gateway.engine import Gateway
from serving.gateway.limits import SCOPES
from serving.gateway.live import Now
from serving.gateway.transport import CancelMessage, NewMessage, VenueMessage
from serving.wire.fix_application import FixHandler, stale_order
from serving.wire.fix_chain import AcceptedIds
from serving.wire.fix_fields import BUSINESS_REJECT, CANCEL, NEW_ORDER, REPLACE, Fields, FixMessageError, Tag
from serving.wire.fix_numbers import Scale
from serving.wire.fix_orders import (
    encode_cancel,
    encode_mass_status,
    encode_new,
    encode_replace,
    encode_status,
    order_of,
)
from serving.wire.fix_reports import Answer, decode_answer
from serving.wire.fix_session import FixDownError, FixInitiator, SessionProbe
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import OrderState

log = logging.getLogger(__name__)
REF_ID, REF_TYPE = "379", "372"
REFUSALS: dict[str, Callable[..., Report]] = {NEW_ORDER: Rejected, REPLACE: ReplaceRejected, CANCEL: CancelRejected}


def read_now() -> Now:
    """Both clocks."""
    return Now(time.monotonic_ns(), time.time_ns())


class Came(NamedTuple):
    """What a session has to say; the deciding thread takes it in order."""

    venue: str
    report: Report | None = None
    answer: Answer | None = None  # as it came, for the ClOrdID chain and status requests
    total: int | None = None  # reports that answer a mass status request
    halt: str = ""  # something is wrong with the session, or with what it said
    well: bool | None = None  # what the probe finds


class VenueSession:
    """A `FixHandler` and its session. `came` is called in FIX's and the probe's threads and must only hand over."""

    def __init__(
        self, name: str, config: VenueConfig, folder: Path, base: Path, came: Callable[[Came], None],
        probe_s: float = 1.0, probe_timeout_s: float = 2.0, log_fix: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.scales, self._came = name, config.scales(), came
        self.not_well = "not yet probed"  # why the session must not be used for orders; read in any thread
        self.ids = AcceptedIds()
        self.strangers: dict[int, OrderState] = {}  # orders that a mass status listed
        self._leaving: Callable[[], str | None] | None = None
        self._veto = ""  # why the message that is leaving was held back
        self.initiator = initiator(self, config.fix, folder / "fix" / name, base, log_fix, self._rejected)
        self.initiator.app.on_refused = self._unheard
        self.probe = SessionProbe(self.initiator, self._probed, probe_s, probe_timeout_s)

    @property
    def state(self) -> str:
        """For people: up, or what is wrong."""
        return self.not_well or "up"

    def start(self) -> None:
        """Connect and watch."""
        self.initiator.start()
        self.probe.start()

    def stop(self) -> None:
        """Log out and close."""
        self.probe.stop()
        self.initiator.stop()

    def send(self, message: quickfix.Message, ask: Callable[[], str | None]) -> None:
        """Send an order, a replace or a cancel, unless `ask` says why not when it is about to leave.

        Raises FixDownError with the reason: nobody has it then.
        """
        self._leaving, self._veto = ask, ""
        try:
            self.initiator.send(message)
        except FixDownError as error:
            raise FixDownError(self._veto or str(error)) from error
        finally:
            self._leaving = None

    def ask_open(self, request: str) -> None:
        """Ask for every open order. Raises FixDownError."""
        self.initiator.send(encode_mass_status(request))

    def ask_one(self, order_id: int, symbol: str, side: str, request: str) -> None:
        """Ask how one order stands. Raises FixDownError."""
        self.initiator.send(encode_status(order_id, symbol, side, request))  # type: ignore[arg-type]

    def logged_on(self, peer: str) -> None:
        """See FixHandler. The probe decides when the session is well again."""
        log.info("venue %s: logged on to %s", self.name, peer)

    def logged_out(self, peer: str) -> None:
        """See FixHandler. Nothing new leaves from here on, before the deciding thread has even heard of it."""
        self._lost(f"the session with {peer} is down")

    def received(self, peer: str, message: quickfix.Message) -> None:
        """See FixHandler."""
        raw = message.toString()
        fields = Fields.of(raw)
        try:
            if fields.type == BUSINESS_REJECT:
                self._refused(fields, raw)
                return
            answer = decode_answer(fields, self.scales)
            total = fields.get(Tag.TOT_NUM_REPORTS)
        except FixMessageError as error:
            self._came(Came(self.name, halt=f"venue {self.name} said what cannot be understood: {error}"))
            return
        self._came(Came(self.name, answer.report, answer, int(total) if total and total.isdigit() else None))

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """See FixHandler. In the deciding thread for what is sent now, in FIX's for what is asked for again."""
        reason = stale_order(self.initiator.app, peer, message, resent)
        kind = message.getHeader().getField(35)
        if reason is None and not resent and kind in (NEW_ORDER, REPLACE, CANCEL):
            ask = self._leaving
            reason = "it does not come from the deciding thread" if ask is None else ask()
        return reason

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """See FixHandler."""
        self._veto = reason
        if resent:
            log.warning("venue %s asked again for a message that is too old to go: %s", self.name, reason)

    def failed(self, reason: str) -> None:
        """See FixHandler."""
        self._lost(f"FIX failed: {reason}")

    def _unheard(self, reason: str) -> None:
        """What QuickFIX turned away may have been a fill."""
        self._came(Came(self.name, halt=f"venue {self.name}: {reason}"))

    def _probed(self, reason: str) -> None:
        if reason:
            self._lost(reason)
        else:
            self.not_well = ""
            self._came(Came(self.name, well=True))

    def _lost(self, reason: str) -> None:
        self.not_well = reason
        self.probe.reason = reason  # so that the probe tells when it is well again, however short this was
        self._came(Came(self.name, well=False, halt=f"venue {self.name}: {reason}"))

    def _refused(self, fields: Fields, raw: str) -> None:
        """A BusinessMessageReject is the venue's answer to the message that it names."""
        values = dict(part.partition("=")[::2] for part in raw.split("\x01"))
        text, kind = fields.get(Tag.TEXT) or "no reason given", values.get(REF_TYPE, "")
        if not self._answers(kind, values.get(REF_ID), text):
            log.warning("venue %s refused a message of type %s: %s", self.name, kind, text)

    def _rejected(self, peer: str, number: int, reason: str) -> None:
        """A session-level Reject names a MsgSeqNum alone: the store has what was sent under it.

        What was no order, replace or cancel, or is no longer known, halts: what the venue did not take is not known.
        """
        raw = self.initiator.sent(number)
        fields = Fields(()) if raw is None else Fields.of(raw)
        kind = "" if raw is None else fields.type
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in reason) or "no reason given"
        if not self._answers(kind, fields.get(Tag.CL_ORD_ID), f"rejected by the session: {text}"):
            what = f"message {number} of type {kind}" if kind else f"message {number}, which is not among those sent"
            self._came(Came(self.name, halt=f"venue {self.name} rejected {what}: {text}"))

    def _answers(self, kind: str, cl_ord_id: str | None, text: str) -> bool:
        """Take a refusal as the answer to an order, replace or cancel; False where it was of something else."""
        make = REFUSALS.get(kind)
        if make is None or not cl_ord_id:
            return False
        order_id, request_id = order_of(cl_ord_id)
        report = make(order_id=order_id, ts_ns=time.time_ns(), reason=text[:200])
        self._came(Came(self.name, report, Answer(order_id, request_id, report, None)))
        return True


def initiator(
    handler: FixHandler, config: FixConfig, store: Path, base: Path, log_fix: bool,
    on_reject: Callable[[str, int, str], None],
) -> FixInitiator:  # fmt: skip
    """The session that `config` tells of; its files are relative to `base`."""
    settings = FixSettings(
        config.comp_id, (config.peer,), store, config.port, config.host, config.heartbeat_s,
        dictionary=None if config.dictionary is None else base / config.dictionary,
        log=store.with_name(store.name + "_log") if log_fix else None, tls=config.tls(base),
        day_start=config.day_start,
    )  # fmt: skip
    token = "" if config.token_file is None else read_token(base / config.token_file)
    return FixInitiator(handler, settings, token, on_reject)


class Blocks:
    """Scopes that are blocked before the deciding thread has heard of it. Written in any thread, read at the last line.

    A kill enters here first, so that nothing leaves even while the deciding thread waits for a disk.
    """

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether anything is blocked."""
        return bool(self._scopes)

    def add(self, scope: str, name: str) -> None:
        """Block a scope, from now on."""
        with self._lock:
            self._scopes[scope, name] = self._scopes.get((scope, name), 0) + 1

    def remove(self, scope: str, name: str) -> None:
        """The state itself blocks it now."""
        with self._lock:
            left = self._scopes.pop((scope, name), 1) - 1
            if left > 0:
                self._scopes[scope, name] = left

    def why_not(self, place: tuple[str, str, str, str]) -> str | None:
        """Why nothing may leave for (venue, account, strategy, symbol), or None."""
        if not self._scopes:
            return None
        for scope, name in zip(SCOPES, ("", *place), strict=True):
            if (scope, name) in self._scopes:
                return f"{scope} {name}".strip() + " is being killed"
        return None


class FixTransport:
    """The core's `Transport` over the venues' sessions. All but `blocks` belongs to the deciding thread."""

    def __init__(self, sessions: Mapping[str, VenueSession], now: Callable[[], Now] = read_now) -> None:
        self.sessions, self._now = sessions, now
        self.blocks = Blocks()
        self.gateway: Gateway | None = None  # set once it is open
        self.asked: set[int] = set()  # cancels that a strategy asked for: they carry its name, the gateway's own do not

    def send(self, message: VenueMessage) -> None:
        """See Transport. What is known not to have left is released and raises nothing."""
        gateway = self.gateway
        assert gateway is not None
        venue = message.order.venue if isinstance(message, NewMessage) else message.venue
        session = self.sessions.get(venue)
        try:
            if session is None:
                raise FixDownError(f"venue {venue} is not among the sessions")
            if self.blocks.any and (reason := self._last_line(session, message)):  # what is killed need not be written
                raise FixDownError(reason)
            session.send(self._encode(session, message), lambda: self._last_line(session, message))
        except FixDownError as error:
            if message.order_id in gateway.state.orders:
                gateway.unsent(message, str(error), self._now())
            else:
                log.warning("order %d at venue %s, unknown here, was not cancelled: %s", message.order_id, venue, error)

    def barrier(self) -> bool:
        """See Transport. False: the deciding thread never waits for a venue (`Killer` asks in its own)."""
        return False

    def _last_line(self, session: VenueSession, message: VenueMessage) -> str | None:
        gateway, now = self.gateway, self._now()
        assert gateway is not None
        if isinstance(message, CancelMessage):
            return gateway.veto(message, now.mono_ns, now)
        order = gateway.state.orders[message.order_id]
        request = order.request
        place = (request.venue, request.account, request.strategy, request.symbol)
        reason = session.not_well or self.blocks.why_not(place)
        if reason:
            return reason
        decided_ns = gateway.unanswered.sent_ns(order, "new" if isinstance(message, NewMessage) else "replace")
        return "it is not waited for" if decided_ns is None else gateway.veto(message, decided_ns, now)

    def _encode(self, session: VenueSession, message: VenueMessage) -> quickfix.Message:
        assert self.gateway is not None
        sent_ns = time.time_ns()
        if isinstance(message, NewMessage):
            scale = _scale(session, message.order.symbol)
            link = message.order.key.rpartition("/")[0]
            return encode_new(message.order_id, message.order, scale, sent_ns, link)
        orig = session.ids.orig(message.order_id)
        order = self.gateway.state.orders.get(message.order_id)
        if isinstance(message, CancelMessage):
            if order is None:
                stranger = session.strangers.get(message.order_id)
                if stranger is None:
                    raise FixDownError(f"order {message.order_id} is unknown here and was not listed by the venue")
                return encode_cancel(
                    message.order_id, message.request_id, stranger.cl_ord_id, stranger.symbol, stranger.side, sent_ns
                )
            first, by = order.request, ""
            if message.request_id in self.asked:
                self.asked.discard(message.request_id)
                by = first.strategy
            return encode_cancel(message.order_id, message.request_id, orig, first.symbol, first.side, sent_ns, by)
        assert order is not None
        return encode_replace(
            message.order_id, message.request_id, orig, order.request, message.price_ticks, message.lots,
            _scale(session, order.request.symbol), sent_ns,
        )  # fmt: skip


def _scale(session: VenueSession, symbol: str) -> Scale:
    scale = session.scales.get(symbol)
    if scale is None:
        raise FixDownError(f"symbol {symbol} is not among those of venue {session.name}: it cannot be written in FIX")
    return scale
