"""TLS in front of QuickFIX, which sees no certificate: whose certificate it is decides which CompID may log on.

QuickFIX knows files of a certificate and of an authority, and nothing else of TLS: its application hears a SessionID
and a message, no session has a way to its socket, and its initiator compares no host name. So it speaks plain FIX on
loopback, and a line is between it and the network. `TlsAcceptorLine` reads the first message of a connection and holds
its SenderCompID to the subject of the client's certificate; `TlsInitiatorLine` holds the server's certificate to the
venue's name. Behind them bytes pass unchanged, but that a Logon gets a secret by which the acceptor knows its way.
"""

import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from serving.wire.identity import IdentityError, subject_of
from serving.wire.tls_logon import LogonError, comp_ids, read_logon, with_secret
from serving.wire.tls_pipe import Pipe, TlsEnd

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
STOP_S = 2.0
REFUSALS_LOGGED = 10
"""In a second; more are counted only: who is turned away must not fill the disk."""
TOLD_EVERY_S, TOLD_MOST = 60.0, 16
"""One reason is told to people once in this time, and so many of them: a stranger must neither drown other alerts nor,
by making refusals that are logged, hide the one that counts."""


@dataclass(frozen=True)
class Bounds:
    """What connections may cost."""

    logon_s: float = 5.0  # from connecting to the end of the handshake and, for an acceptor, of the Logon
    waiting: int = 64  # such connections at once
    waiting_each: int = 8  # of one address
    of_peer: int = 4  # connections of one CompID that have logged on; QuickFIX takes one, and holds the others for 5 s


class _Line:
    """A listener and its connections, each in a thread of its own."""

    def __init__(self, name: str, bounds: Bounds, on_refused: Callable[[str], None] | None = None) -> None:
        self._on_refused = on_refused
        self.refusals = 0
        self.last_refusal = ""
        self._name, self._bounds = name, bounds
        self._listener: socket.socket | None = None
        self._waiting: Counter[str] = Counter()
        self._pipes: set[Pipe] = set()
        self._logged: list[float] = []
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Take nothing more; what is open has STOP_S to end by itself."""
        self._stopping.set()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
        deadline = time.monotonic() + STOP_S
        while self._pipes and time.monotonic() < deadline:
            time.sleep(0.005)
        with self._lock:
            for pipe in self._pipes:
                pipe.abort()

    def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name=f"{self._name}-accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if not self._stopping.wait(0.05):  # no file left: there may be one for the next
                    self._refuse("somebody", str(error))
                continue
            address = str(peer[0])
            if reason := self._begin(address):
                sock.close()
                self._refuse(address, reason)
                continue
            try:
                threading.Thread(target=self._run, args=(sock, address), name=self._name, daemon=True).start()
            except RuntimeError as error:  # no thread left
                sock.close()
                self._over(address)
                self._refuse(address, str(error))

    def _begin(self, address: str) -> str:
        """Count a connection that has not logged on. Why there is no room for it, or ""."""
        bounds = self._bounds
        with self._lock:
            if self._waiting.total() >= bounds.waiting:
                return f"{bounds.waiting} connections have not logged on yet"
            if self._waiting[address] >= bounds.waiting_each:
                return f"{bounds.waiting_each} connections of this address have not logged on yet"
            self._waiting[address] += 1
        return ""

    def _over(self, address: str) -> None:
        with self._lock:
            self._waiting[address] -= 1
            self._waiting += Counter()  # drops what is zero

    def _run(self, sock: socket.socket, address: str) -> None:
        pipe = None
        try:
            pipe = self._open(sock, time.monotonic() + self._bounds.logon_s)
        except (OSError, LogonError, ValueError) as error:
            self._refuse(address, str(error) or type(error).__name__, is_known=isinstance(error, IdentityError))
        except Exception as error:
            log.exception("%s: a connection failed", self._name)
            self._refuse(address, type(error).__name__)
        finally:
            self._over(address)
            if pipe is None:
                sock.close()
        if pipe is not None:
            self._carry(pipe)

    def _open(self, sock: socket.socket, deadline: float) -> Pipe:
        """Find out who it is, and join it. Raises OSError, IdentityError, LogonError: what it is refused for."""
        raise NotImplementedError

    def _carry(self, pipe: Pipe) -> None:
        with self._lock:
            self._pipes.add(pipe)
        try:
            if self._stopping.is_set():
                pipe.abort()
            pipe.run()
        except Exception:
            log.exception("%s: a connection failed", self._name)
        finally:
            with self._lock:
                self._pipes.discard(pipe)

    def _refuse(self, address: str, reason: str, is_known: bool = False) -> None:
        """Count it, and say why; `is_known`: it showed a certificate of the authority."""
        now = time.monotonic()
        with self._lock:
            self.refusals, self.last_refusal = self.refusals + 1, reason
            self._logged = [at for at in self._logged if now - at < 1.0]
            is_logged = len(self._logged) < REFUSALS_LOGGED
            if is_logged:
                self._logged.append(now)
            is_told = is_known and self._on_refused is not None and self._may_tell(reason, now)
        if is_logged:
            log.warning("%s: a connection of %s is refused (%d so far): %s", self._name, address, self.refusals, reason)
        if is_told:
            assert self._on_refused is not None
            self._on_refused(f"{self._name}: {address} is refused: {reason}")

    def _may_tell(self, reason: str, now: float) -> bool:
        self._told = {told: at for told, at in self._told.items() if now - at < TOLD_EVERY_S}
        if reason in self._told or len(self._told) >= TOLD_MOST:
            return False
        self._told[reason] = now
        return True


class TlsAcceptorLine(_Line):
    """Listens for TLS, and joins whoever may log on to the acceptor that listens on loopback.

    A CompID is bound to the subject of a certificate: another certificate of the same authority is refused, before
    QuickFIX hears of it. What a connection says after its Logon is QuickFIX's to judge: it refuses another CompID.
    """

    def __init__(
        self, comp_id: str, subjects: Mapping[str, str], context: ssl.SSLContext, inner: tuple[str, int],
        vouch: Callable[[str], str], *, source: str = LOOPBACK, bounds: Bounds | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """`subjects` by CompID, as `identity.subject_of` writes them. `vouch(comp_id)` gives the secret that the
        acceptor's application will find in the Logon; `source` is the loopback address that the line comes from.
        `on_refused(reason)` hears of certificates of the authority that asked for what is not theirs, in any thread."""
        super().__init__(f"FIX {comp_id}", bounds or Bounds(), on_refused)
        self._comp_id, self._subjects, self._context = comp_id, dict(subjects), context
        self._inner, self._vouch, self._source = inner, vouch, source

    def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the port cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listen(socket.create_server((host, port), family=family, backlog=64))

    def _open(self, sock: socket.socket, deadline: float) -> Pipe:
        end = TlsEnd(sock, self._context, server=True)
        end.handshake(deadline)
        subject = subject_of(end.certificate)
        try:
            logon, rest = read_logon(lambda: end.receive(deadline))
            sender, target = comp_ids(logon)
        except (LogonError, OSError) as error:
            raise IdentityError(f"{subject}: {error}") from error
        wanted = self._subjects.get(sender)
        if wanted is None or target != self._comp_id:
            raise IdentityError(f"{subject} logs on as {sender!r} to {target!r}, no session of {self._comp_id}")
        if subject != wanted:
            raise IdentityError(f"{subject} logs on as {sender!r}, which is {wanted}")
        with self._lock:
            found = sum(pipe.peer == sender for pipe in self._pipes)
        if found >= self._bounds.of_peer:
            raise LogonError(f"{subject}: {found} connections of {sender} are open already")
        plain = socket.create_connection(self._inner, max(deadline - time.monotonic(), 0.1), (self._source, 0))
        log.info("%s: %s logs on as %s", self._name, subject, sender)
        return Pipe(end, plain, with_secret(logon, self._vouch(sender)) + rest, sender)


class TlsInitiatorLine(_Line):
    """Listens on loopback for the initiator of this very process, and joins it to the venue over TLS.

    Whoever connected there would speak with this process's certificate: so a socket of any other process is refused.
    """

    def __init__(
        self, name: str, context: ssl.SSLContext, address: tuple[str, int], server_name: str, subject: str = "",
        *, bounds: Bounds | None = None,
    ) -> None:  # fmt: skip
        """The server's certificate must have `server_name` (a DNS name or an address) and, where given, `subject`.

        Raises OSError where there is no port left on loopback.
        """
        super().__init__(f"FIX to {name}", bounds or Bounds())
        self._context, self._address, self._server_name, self._subject = context, address, server_name, subject
        self._own = socket.create_server((LOOPBACK, 0), backlog=8)
        self.port = int(self._own.getsockname()[1])

    def start(self) -> None:
        """Take the initiator's connections."""
        self._listen(self._own)

    def stop(self) -> None:
        """See _Line."""
        super().stop()
        self._own.close()

    def _open(self, sock: socket.socket, deadline: float) -> Pipe:
        if not is_own(sock):
            raise IdentityError("it is of another process")
        remote = socket.create_connection(self._address, max(deadline - time.monotonic(), 0.1))
        try:
            end = TlsEnd(remote, self._context, server=False, name=self._server_name)
            end.handshake(deadline)
            subject = subject_of(end.certificate)
            if self._subject and subject != self._subject:
                raise IdentityError(f"{self._address[0]}:{self._address[1]} is {subject}, not {self._subject}")
        except BaseException:
            remote.close()
            raise
        self.last_refusal = ""
        return Pipe(end, sock)

    def _refuse(self, address: str, reason: str, is_known: bool = False) -> None:
        """Count it, and say why once, not at every try."""
        with self._lock:
            is_new, self.last_refusal, self.refusals = reason != self.last_refusal, reason, self.refusals + 1
        if is_new:
            log.warning("%s: no line: %s", self._name, reason)


def is_own(sock: socket.socket) -> bool:
    """Whether the other end of an IPv4 loopback connection is a socket of this process, as Linux's kernel says it.

    Where it cannot be asked nobody is. Raises OSError where `sock` is no longer connected.
    """
    ends = f"{_as_listed(sock.getpeername())} {_as_listed(sock.getsockname())}"
    with suppress(OSError), open("/proc/self/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if " ".join(fields[1:3]) == ends:
                return f"socket:[{fields[9]}]" in _own_files()
    return False


def _own_files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def _as_listed(address: tuple[str, int]) -> str:
    """An address as /proc/net/tcp writes it: in the machine's order of bytes."""
    return f"{struct.unpack('=I', socket.inet_aton(address[0]))[0]:08X}:{address[1]:04X}"
