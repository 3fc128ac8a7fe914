"""A QuickFIX application that fails closed: callbacks that never raise, a veto before anything leaves.

Two traps of QuickFIX are met here. `sendToTarget` on a session that is down answers True and delivers the message when
the session is back: `toApp` is the last line, and for a message that is sent again it asks too. An exception in a
callback ends the processing of messages although the session says that it is logged on: so none leaves a callback; the
first one is told as a failure, and from then on nothing but cancels goes out.
"""

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from threading import Event, Lock, RLock
from typing import Protocol

import quickfix

from serving.wire.fix_fields import (
    CANCEL,
    HEARTBEAT,
    LOGON,
    NEW_ORDER,
    REJECT,
    REPLACE,
    TEST_REQUEST,
    Tag,
    is_resent,
    message_type,
)
from serving.wire.identity import TOKEN_LEAST, hash_token

log = logging.getLogger(__name__)


class FixHandler(Protocol):
    """What is done with sessions and messages.

    Called in QuickFIX's threads, one call at a time; `veto` and `vetoed` in whichever thread sends, at any time.
    """

    def logged_on(self, peer: str) -> None:
        """The session with `peer` is up."""

    def logged_out(self, peer: str) -> None:
        """It is down."""

    def received(self, peer: str, message: quickfix.Message) -> None:
        """An application message came; PossDup says that it may have come before."""

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """Why an application message must not leave now, or None; `resent`: the other end asked for it again."""

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """It did not leave; one that was `resent` was handed over once, and may have arrived then."""

    def failed(self, reason: str) -> None:
        """A callback raised, for the first time: nothing but cancels leaves any more."""


class GuardedApplication(quickfix.Application):
    """Wraps a handler; also keeps what barrier and probe need to know of each session.

    For loopback, where no certificate speaks: with `tokens` (SHA-256 by peer, `identity.hash_token`) a logon must carry
    the peer's token as its Password, and `token` is what own logons carry.
    """

    def __init__(
        self, handler: FixHandler, *, tokens: Mapping[str, str] | None = None, token: str = "",
        on_reject: Callable[[str, int, str], None] | None = None,
    ) -> None:  # fmt: skip
        """`on_reject(peer, number, reason)`: the other end rejects our message of that MsgSeqNum on the level of the
        session (0: it names none). Without it a rejection is logged."""
        super().__init__()
        self._on_reject = on_reject
        self.on_refused: Callable[[str], None] | None = None
        """Told why QuickFIX itself refused what came, which `received` never sees; must only hand over."""
        self.failure = ""
        self._tokens, self._token = None if tokens is None else dict(tokens), token
        self._handler = handler
        self._up: set[str] = set()
        self._heard_ns: dict[str, int] = {}
        self._answers: dict[str, Event] = {}  # TestReqID that somebody waits for
        self._lock = Lock()
        self._one_at_a_time = RLock()

    def is_up(self, peer: str) -> bool:
        """Logged on, as the callbacks say."""
        return peer in self._up

    def heard_ns(self, peer: str) -> int:
        """Monotonic time of the last message from `peer`, 0 for never."""
        return self._heard_ns.get(peer, 0)

    def expect(self, test_id: str) -> Event:
        """Set once the heartbeat that answers TestRequest `test_id` came."""
        with self._lock:
            return self._answers.setdefault(test_id, Event())

    def forget(self, test_id: str) -> None:
        """Nobody waits for `test_id` any more."""
        with self._lock:
            self._answers.pop(test_id, None)

    def fail(self, reason: str) -> None:
        """Let nothing but cancels out from here on, and tell the handler, once. Never raises."""
        with self._lock:
            first, self.failure = not self.failure, self.failure or reason
        if first:
            log.critical("FIX stops: %s", reason)
            try:
                self._handler.failed(reason)
            except BaseException:
                log.exception("the handler failed at being told of a failure")

    def onCreate(self, session: quickfix.SessionID) -> None:  # noqa: N802 - QuickFIX's names
        """Nothing is to be done."""

    def onLogon(self, session: quickfix.SessionID) -> None:  # noqa: N802
        """The session is up."""
        peer = _peer(session)
        self._up.add(peer)
        self._heard_ns[peer] = time.monotonic_ns()
        self._guard("onLogon", self._tell, self._handler.logged_on, peer)

    def onLogout(self, session: quickfix.SessionID) -> None:  # noqa: N802
        """The session is down."""
        peer = _peer(session)
        self._up.discard(peer)
        self._guard("onLogout", self._tell, self._handler.logged_out, peer)

    def toAdmin(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """A logon carries the token, where there is one; a Reject says that a message was not handed over."""
        kind = message_type(message)
        if kind == REJECT and self.on_refused is not None:
            reason = message.getField(int(Tag.TEXT)) if message.isSetField(int(Tag.TEXT)) else "no reason given"
            number = message.getField(int(Tag.REF_SEQ_NUM)) if message.isSetField(int(Tag.REF_SEQ_NUM)) else "?"
            self._guard("toAdmin", self.on_refused, f"message {number} of {_peer(session)} was refused: {reason}")
        if self._token and kind == LOGON:
            message.setField(int(Tag.USERNAME), session.getSenderCompID().getValue())
            message.setField(int(Tag.PASSWORD), self._token)

    def fromAdmin(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """A sign of life; perhaps the answer to a test request, or a logon that may be turned away."""
        if self._tokens is not None and not self._may_log_on(message, _peer(session)):
            log.warning("%s gave no token that fits: turned away", _peer(session))
            raise quickfix.RejectLogon
        self._guard("fromAdmin", self._alive, message, _peer(session))

    def toApp(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """The last line before a message leaves."""
        if self._may_not_leave(message, _peer(session)):
            raise quickfix.DoNotSend

    def fromApp(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """An application message."""
        peer = _peer(session)
        self._heard_ns[peer] = time.monotonic_ns()
        self._guard("fromApp", self._tell, self._handler.received, peer, message)

    def _may_not_leave(self, message: quickfix.Message, peer: str) -> bool:
        try:
            resent = is_resent(message)
            reason = self.failure if message_type(message) != CANCEL else None
            reason = reason or self._handler.veto(peer, message, resent)
            if not reason:
                return False
            self._handler.vetoed(peer, message, reason, resent)
        except BaseException as error:
            self.fail(f"toApp: {type(error).__name__}: {error}")
        return True

    def _may_log_on(self, message: quickfix.Message, peer: str) -> bool:
        try:
            if message_type(message) != LOGON:
                return True
            given = message.getField(int(Tag.PASSWORD)) if message.isSetField(int(Tag.PASSWORD)) else ""
            known = (self._tokens or {}).get(peer, "")
            return len(given) >= TOKEN_LEAST and hmac.compare_digest(hash_token(given), known)
        except BaseException as error:
            self.fail(f"fromAdmin: {type(error).__name__}: {error}")
            return False

    def _alive(self, message: quickfix.Message, peer: str) -> None:
        self._heard_ns[peer] = time.monotonic_ns()
        kind = message_type(message)
        if kind == HEARTBEAT and message.isSetField(int(Tag.TEST_REQ_ID)):
            answered = self._answers.get(message.getField(int(Tag.TEST_REQ_ID)))
            if answered is not None:
                answered.set()
        elif kind == REJECT:
            number = message.getField(int(Tag.REF_SEQ_NUM)) if message.isSetField(int(Tag.REF_SEQ_NUM)) else ""
            reason = message.getField(int(Tag.TEXT)) if message.isSetField(int(Tag.TEXT)) else "no reason given"
            log.warning("%s rejects message %s of the session: %s", peer, number or "?", reason[:200])
            if self._on_reject is not None:
                self._tell(self._on_reject, peer, int(number) if number.isdecimal() else 0, reason[:200])

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with self._one_at_a_time:
            call(*arguments)

    def _guard(self, name: str, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            log.exception("a FIX callback raised")
            self.fail(f"{name}: {type(error).__name__}: {error}")


def stale_order(app: GuardedApplication, peer: str, message: quickfix.Message, resent: bool) -> str | None:
    """The least that a sender of orders must veto.

    An order or a replace that would be sent again after a line was down, and one that is handed over while it is: the
    market has moved on, and whoever sent it may have given it up.
    """
    if message_type(message) not in (NEW_ORDER, REPLACE):
        return None
    if resent:
        return "an order is never sent a second time"
    return None if app.is_up(peer) else f"the session with {peer} is down"


def _peer(session: quickfix.SessionID) -> str:
    return str(session.getTargetCompID().getValue())


__all__ = ["TEST_REQUEST", "FixHandler", "GuardedApplication", "stale_order"]
