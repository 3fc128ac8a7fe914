"""The kill switch of the process: from any thread, while the deciding thread is busy, and with HTTP down.

A scope is blocked at the last line before anything waits; then the deciding thread blocks it in the state, persists and
cancels; then whoever asked waits for each venue's barrier, in his own thread. A kill overtakes every request that waits
to be decided, within a group too: those of its scope are denied, and one sync makes kill and denials durable.

The local way in is a Unix socket in the state folder that only the gateway's own user may open: one line of JSON
`{"scope", "name", "reason"}` in, one line `{"message", ...}` out. It has threads of its own, some of which always wait:
each hand-over between threads costs up to `service.SWITCH_S` while the deciding one computes, so there are few.
"""

import asyncio
import json
import logging
import os
import pwd
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.contracts.orders import TEXT_MAX
from serving.gateway.fix_out import VenueSession, read_now
from serving.gateway.kill import Blocked, KillAnswer, answer, check_scope, clear, stop

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)
SOCKET = "kill.sock"
LINE_MAX = 4_096
READ_S = 5
WAITING = 4
"""Threads that wait at the socket: one that took a connection is replaced where fewer are left."""
RETRY_S = 0.1
REASON_MAX = 500
LOG_S = 0.02
"""A kill is logged once it is in the state, or after this."""
BLOCK_S = 2.0
"""Wait this long for the deciding thread; without it the scope is blocked all the same, and not persisted yet."""


class _Asked:
    """A kill on its way through the deciding thread."""

    def __init__(self, scope: str, name: str, by: str, reason: str) -> None:
        self.scope, self.name, self.by, self.reason = scope, name, by, reason
        self.latched: Future[bool] = Future()  # whether it is durable
        self.cleared: Future[Blocked] = Future()  # its cancels went


class Killer:
    """Stops scopes. `kill` may be called from every thread but the deciding one.

    `waiting` to `persisted` belong to the deciding thread, which takes what waits before it decides any request, and
    says after each commit how that ended.
    """

    def __init__(self, service: "GatewayService") -> None:
        self._service = service
        self._folder = service.settings.folder
        self._socket: socket.socket | None = None
        self._idle = 0  # threads that wait at the socket
        self._idle_lock = threading.Lock()
        self._stopped = threading.Event()
        self.waiting: deque[_Asked] = deque()
        self._taken: list[_Asked] = []  # blocked in the state, and not known to be durable

    def kill(self, scope: str, name: str, by: str, reason: str) -> KillAnswer:
        """Stop a scope and say how far that is known to have gone. Raises ValueError where the scope is none."""
        check_scope(scope, name)
        if len(name) > TEXT_MAX or not name.isascii() or (name and not name.isprintable()):
            raise ValueError(f"name {name[:80]!r} is not printable ASCII of up to {TEXT_MAX} characters")
        reason = reason.encode("utf-8", "replace").decode()[:REASON_MAX]
        service = self._service
        assert service.deciding is not None
        service.transport.blocks.add(scope, name)
        asked = _Asked(scope, name, by, reason)
        self.waiting.append(asked)
        woken = service.deciding.call(self._wake)
        with suppress(FutureTimeout):  # to log takes the interpreter, which the deciding thread needs now
            asked.latched.result(LOG_S)
        log.critical("KILL %s by %s: %s", f"{scope} {name}".strip(), by, reason)
        try:
            if woken.done():
                woken.result()  # raises where there is no deciding thread any more
            blocked = asked.cleared.result(BLOCK_S)
        except FutureTimeout:  # BusyError too
            if not asked.latched.done():
                return KillAnswer(False, False, -1, "blocked, not persisted, not flushed")
            blocked = Blocked(asked.latched.result(), -1)
        except Exception as error:
            log.exception("a kill failed in the deciding thread")
            return KillAnswer(False, False, -1, f"blocked, not persisted, not flushed ({type(error).__name__})")
        return answer(blocked, self.flush(name if scope == "venue" else None))

    def take(self) -> None:
        """Block what waits in the state; the next commit makes it durable. Never raises."""
        service = self._service
        while self.waiting:
            asked = self.waiting.popleft()
            self._taken.append(asked)
            stop(service.gateway, asked.scope, asked.name, asked.by, asked.reason, read_now())

    def persisted(self, durable: bool) -> None:
        """A commit ended: what was taken before it is durable, or never will be. Cancels go after whoever waits."""
        taken, self._taken = self._taken, []
        for asked in taken:
            if durable:  # the state blocks it; where the disk refused, the gateway is broken and the block stays
                self._service.transport.blocks.remove(asked.scope, asked.name)
            asked.latched.set_result(durable)
            asyncio.get_running_loop().call_soon(self._clear, asked)

    def _wake(self) -> None:
        """In the deciding thread, which may have been idle."""
        self.take()
        asyncio.get_running_loop().call_soon(self._persist)  # what has come meanwhile is read first, and denied with it

    def _persist(self) -> None:
        if self._taken and not self._service.orders.is_scheduled:  # else a group is about to be committed
            self._service.try_commit()

    def _clear(self, asked: _Asked) -> None:
        service = self._service
        try:
            blocked = clear(service.watch, asked.scope, asked.name, asked.latched.result(0), read_now())
            service.try_commit()
            asked.cleared.set_result(blocked)
        except Exception as error:
            asked.cleared.set_exception(error)

    def flush(self, venue: str | None = None) -> bool:
        """Whether every venue, or one, is known to have taken all that was sent before. Waits."""
        sessions = self._service.sessions
        wanted = [sessions[venue]] if venue in sessions else list(sessions.values())
        found = [False] * len(wanted)

        def ask(place: int, session: VenueSession) -> None:
            found[place] = session.initiator.barrier(self._service.settings.barrier_s)

        threads = [threading.Thread(target=ask, args=item, daemon=True) for item in enumerate(wanted)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return all(found)

    def start(self) -> None:
        """Listen on the socket. Raises OSError."""
        (self._folder / SOCKET).unlink(missing_ok=True)  # the journal's lock says that nobody else is there
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            with _short(self._folder) as path:
                listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(16)
        self._socket = listener
        _user(os.getuid())  # looked up once, now
        for _ in range(WAITING):
            self._add_thread()

    def stop(self) -> None:
        """Close the socket."""
        self._stopped.set()
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            (self._folder / SOCKET).unlink(missing_ok=True)

    def _add_thread(self) -> None:
        threading.Thread(target=self._accept, name="kill-socket", daemon=True).start()

    def _accept(self) -> None:
        """Take connections, as long as there are not WAITING others."""
        assert self._socket is not None
        while True:
            with self._idle_lock:
                if self._idle >= WAITING:
                    return
                self._idle += 1
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if self._stopped.is_set():
                    return
                log.error("the kill socket could not take a connection: %s", error)  # no file left, say: it passes
                self._stopped.wait(RETRY_S)
                continue
            finally:
                with self._idle_lock:
                    self._idle -= 1
                    none_waits = not self._idle
            if none_waits:
                with suppress(RuntimeError):  # no thread left: the next one waits for this one
                    self._add_thread()
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", READ_S, 0))
                asked = _read_line(connection)
                said = self.kill(asked["scope"], asked.get("name", ""), _peer(connection), asked.get("reason", ""))
                reply: dict[str, Any] = {"ok": True, **said._asdict()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                reply = {"ok": False, "message": f"not a kill: {error}"}
            except OSError as error:
                log.warning("the kill socket's client went away: %s", error)
                return
            try:
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError as error:
                log.warning("the kill socket's client did not wait for its answer: %s", error)


def kill_locally(folder: Path, scope: str, name: str, reason: str, timeout_s: float = 40.0) -> dict[str, Any]:
    """Ask the gateway whose state folder this is to stop a scope. Raises OSError where none listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)
        with _short(folder) as path:
            line.connect(path)
        line.sendall(json.dumps({"scope": scope, "name": name, "reason": reason}).encode() + b"\n")
        return _read_line(line)


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """The socket's path in few characters: Unix allows 107, and folders may be longer."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _read_line(connection: socket.socket) -> dict[str, Any]:
    raw = b""
    while not raw.endswith(b"\n"):
        part = connection.recv(LINE_MAX)
        raw += part
        if not part or len(raw) > LINE_MAX:
            raise ValueError(f"{len(raw)} bytes without a line of up to {LINE_MAX}")
    found = json.loads(raw)
    if not isinstance(found, dict) or not all(isinstance(value, str | int | bool) for value in found.values()):
        raise ValueError("the line is no object of plain values")
    return found


def _peer(connection: socket.socket) -> str:
    """Who is at the other end, as the kernel says."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return _user(uid)


@lru_cache(maxsize=64)
def _user(uid: int) -> str:
    try:
        return f"local user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"local user {uid}"
