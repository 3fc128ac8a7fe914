"""Starting and stopping FIX sessions, the TestRequest barrier, and the probe that watches a session by itself."""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import quickfix

from serving.wire.fix_application import FixHandler, GuardedApplication
from serving.wire.fix_fields import TEST_REQUEST, Tag, build
from serving.wire.fix_listen import keep_to_loopback
from serving.wire.fix_settings import (
    FixSettings,
    FixTls,
    acceptor_settings,
    initiator_settings,
    is_set,
    names,
    ports,
    session_ids,
)
from serving.wire.fix_store import sent_message
from serving.wire.fix_vouched import VouchedApplication
from serving.wire.identity import is_loopback
from serving.wire.tls_line import LOOPBACK, TlsAcceptorLine, TlsInitiatorLine

log = logging.getLogger(__name__)
LOGOUT_S = 2.0
_SERIAL = count(1)


class FixDownError(ConnectionError):
    """The message was not handed over: the session is down, or a veto held it back."""


class FixAcceptor:
    """An acceptor for any `quickfix.Application`; one thread a session calls it. `GuardedApplication` never raises.

    With TLS the acceptor itself listens on loopback alone, and takes the logons that its line brings.
    `quickfix.SessionSettings` in place of ours hold any sessions, of any version, as QuickFIX knows them: without TLS,
    reached from this machine alone.
    """

    def __init__(
        self, application: quickfix.Application, settings: FixSettings | quickfix.SessionSettings,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """`on_refused` as of `TlsAcceptorLine`.

        Raises ValueError where TLS lacks the subject of a peer's certificate, OSError where its files do not fit.
        """
        self._on_refused = on_refused
        self.settings = settings
        self.line: TlsAcceptorLine | None = None
        self._kept: socket.socket | None = None  # the inner port, until QuickFIX listens there
        self._place = "the ports of QuickFIX's settings"
        # QuickFIX keeps references without owning them: what it uses must live as long as it does
        self._parts: tuple[Any, ...]
        if isinstance(settings, FixSettings):
            self.sessions = dict(zip(settings.peers, session_ids(settings), strict=True))
            self._place = f"{settings.host}:{settings.port}"
            if settings.tls is not None:
                application, settings = self._behind_line(application, settings, settings.tls)
            self._parts = _parts(application, acceptor_settings(settings), settings.log is not None)
        else:
            self.sessions = {session.toString(): session for session in settings.getSessions()}
            self._parts = _parts(application, settings, is_set(settings, "FileLogPath"))
        # the one without threads now and then ends the process when it is stopped (quickfix-tls 1.16.0.1rc1)
        self._acceptor: Any = quickfix.ThreadedSocketAcceptor(*self._parts)

    def start(self) -> None:
        """Listen. Raises OSError where the port cannot be had."""
        settings = self.settings
        try:
            self._acceptor.start()
            for port in ports(self._parts[2]):
                if not keep_to_loopback(port) and not isinstance(settings, FixSettings):
                    raise OSError(f"port {port} cannot be kept to this machine")
            if self.line is not None:
                self.line.start(settings.host, settings.port)
        except (quickfix.ConfigError, quickfix.RuntimeError) as error:
            self._acceptor, self._parts = None, ()
            raise OSError(f"FIX cannot listen on {self._place}: {error}") from error
        except OSError as error:
            self.stop()
            raise OSError(f"FIX cannot listen on {self._place}: {error}") from error
        finally:
            if self._kept is not None:
                self._kept.close()

    def stop(self) -> None:
        """Log out and close, within some seconds."""
        if self._acceptor is not None:
            _log_out(list(self.sessions.values()))
            self._acceptor.stop(True)
        # its end must come now: a session that is collected later takes the next one of the same name with it
        self._acceptor, self._parts = None, ()
        if self.line is not None:
            self.line.stop()

    def _behind_line(
        self, application: quickfix.Application, settings: FixSettings, tls: FixTls
    ) -> tuple[quickfix.Application, FixSettings]:
        subjects = dict(tls.subjects)
        if missing := [peer for peer in settings.peers if not subjects.get(peer)]:
            raise ValueError(f"TLS without the subject of {', '.join(missing)}: any certificate could log on as it")
        vouched, source = VouchedApplication(application), _source()
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind((LOOPBACK, 0))
        inner = self._kept.getsockname()
        context = tls.context(server=True)
        self.line = TlsAcceptorLine(
            settings.comp_id, subjects, context, inner, vouched.vouch, source=source, on_refused=self._on_refused
        )
        only = ("AllowedRemoteAddresses", source)
        return vouched, replace(settings, host=LOOPBACK, port=inner[1], tls=None, more=(*settings.more, only))

    def send(self, peer: str, message: quickfix.Message) -> bool:
        """Hand a message to a session; it is stored, and sent when the session is up. False where a veto held it.

        `peer` is a key of `sessions`: the other end's CompID, with QuickFIX's settings `FIX.4.4:ISLD->TW`.
        """
        return bool(quickfix.Session.sendToTarget(message, self.sessions[peer]))


class FixInitiator:
    """One session to a venue, reconnecting by itself."""

    def __init__(
        self, handler: FixHandler, settings: FixSettings, token: str = "",
        on_reject: Callable[[str, int, str], None] | None = None,
    ) -> None:  # fmt: skip
        """`token` is given as the logon's Password, on loopback or over TLS; it stays in the store's files. `on_reject`
        as of `GuardedApplication`.

        Raises ValueError for what does not fit together, OSError where TLS's files cannot be used.
        """
        if token and settings.tls is None and not is_loopback(settings.host):
            raise ValueError(f"a token for {settings.host}, which is not a loopback address: use certificates")
        self.settings = settings
        self.peer = settings.peers[0]
        self.app = GuardedApplication(handler, token=token, on_reject=on_reject)
        self.line: TlsInitiatorLine | None = None
        self._session = session_ids(settings)[0]
        if (tls := settings.tls) is not None:
            context, address = tls.context(server=False), (settings.host, settings.port)
            subject = dict(tls.subjects).get(self.peer, "")
            self.line = TlsInitiatorLine(self.peer, context, address, tls.server_name or settings.host, subject)
            settings = replace(settings, host=LOOPBACK, port=self.line.port, tls=None)
        self._parts = _parts(self.app, initiator_settings(settings), settings.log is not None)
        # the one without threads never connects again after a logout by the other end (quickfix-tls 1.16.0.1rc1)
        self._initiator: Any = quickfix.ThreadedSocketInitiator(*self._parts)

    @property
    def is_up(self) -> bool:
        """Logged on, and no callback has raised."""
        return self.app.is_up(self.peer) and not self.app.failure

    def start(self) -> None:
        """Connect, and go on trying."""
        if self.line is not None:
            self.line.start()
        self._initiator.start()

    def stop(self) -> None:
        """Log out and close."""
        if self._initiator is not None:
            _log_out([self._session])
            self._initiator.stop(True)
        self._initiator, self._parts = None, ()  # as with the acceptor
        if self.line is not None:
            self.line.stop()

    def send(self, message: quickfix.Message) -> None:
        """Send a message now or not at all.

        Raises FixDownError where the session is down or a veto held the message back: nobody has it then.
        """
        if not self.app.is_up(self.peer):
            raise FixDownError(f"the session with {self.peer} is down")
        try:
            sent = quickfix.Session.sendToTarget(message, self._session)
        except quickfix.SessionNotFound as error:
            raise FixDownError(f"there is no session with {self.peer}: {error}") from error
        if not sent:
            raise FixDownError(f"a message to {self.peer} was held back")

    def sent(self, number: int) -> str | None:
        """The message that was sent under a MsgSeqNum, None where the store has none."""
        return sent_message(self.settings.store, self._session, number)

    def barrier(self, timeout_s: float) -> bool:
        """Whether the other end has taken everything sent before: it answered a TestRequest that followed.

        Not to be called from a callback, which would wait for itself.
        """
        if not self.app.is_up(self.peer):
            return False
        test_id = f"B{time.monotonic_ns()}-{next(_SERIAL)}"
        answered = self.app.expect(test_id)
        try:
            if not quickfix.Session.sendToTarget(build(TEST_REQUEST, {Tag.TEST_REQ_ID: test_id}), self._session):
                return False
            return answered.wait(timeout_s)
        except quickfix.SessionNotFound:
            return False
        finally:
            self.app.forget(test_id)


class SessionProbe:
    """Asks the session for a sign of life, in a thread of its own, and believes nothing that QuickFIX says of itself.

    `on_change(reason)` is called with "" when the session is well and with the reason when it is not, in the probe's
    thread: callbacks that hang, a line that is half open and a peer that does not process all show here.
    """

    def __init__(
        self,
        session: FixInitiator,
        on_change: Callable[[str], None],
        every_s: float = 1.0,
        timeout_s: float = 2.0,
    ) -> None:
        self.reason = "not yet probed"
        self._session, self._on_change, self._every_s, self._timeout_s = session, on_change, every_s, timeout_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fix-probe", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the latest after a probe in flight."""
        self._stop.set()
        self._thread.join(self._timeout_s + self._every_s + 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            reason = self._probe()
            if reason != self.reason and not self._stop.is_set():
                self.reason = reason
                try:
                    self._on_change(reason)
                except Exception as error:
                    self._session.app.fail(f"probe: {type(error).__name__}: {error}")
            self._stop.wait(self._every_s)

    def _probe(self) -> str:
        app, peer = self._session.app, self._session.peer
        if app.failure:
            return f"a callback raised: {app.failure}"
        if not app.is_up(peer):
            return f"the session with {peer} is down"
        if self._session.barrier(self._timeout_s):
            return ""
        return f"{peer} did not answer a test request within {self._timeout_s:g} s"


def _parts(application: quickfix.Application, built: quickfix.SessionSettings, logged: bool) -> tuple[Any, ...]:
    parts = (application, quickfix.FileStoreFactory(built), built)
    return (*parts, quickfix.FileLogFactory(built)) if logged else parts


def _source() -> str:
    """An address of loopback by chance, where there are many (Linux): QuickFIX turns all others away unheard."""
    address = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
    with suppress(OSError), socket.socket() as probe:
        probe.bind((address, 0))
        return address
    return LOOPBACK


def _log_out(sessions: list[quickfix.SessionID]) -> None:
    """Ask every session to log out, and wait until none is logged on, or LOGOUT_S."""
    found = [session for item in sessions if (session := quickfix.Session.lookupSession(item)) is not None]
    for session in found:
        session.logout("stopping")
    deadline = time.monotonic() + LOGOUT_S
    while any(session.isLoggedOn() for session in found) and time.monotonic() < deadline:
        time.sleep(0.01)


__all__ = ["FixAcceptor", "FixDownError", "FixInitiator", "SessionProbe", "names"]
