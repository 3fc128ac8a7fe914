"""Counterparties of FIX tests: handlers that note what they hear, and a foreign engine driven by hand."""

import socket
import time
from pathlib import Path

import simplefix

from serving.wire.fix_application import GuardedApplication, stale_order
from serving.wire.fix_fields import Fields
from serving.wire.fix_session import FixAcceptor, FixInitiator
from serving.wire.fix_settings import FixSettings

DEADLINE_S = 20.0


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition, what="the condition") -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {DEADLINE_S:g} s"
        time.sleep(0.005)


class Notes:
    """A handler that keeps everything; `raises` makes `received` raise."""

    def __init__(self) -> None:
        self.messages: list[Fields] = []
        self.vetoes: list[tuple[str, str, bool]] = []
        self.failures: list[str] = []
        self.events: list[str] = []
        self.raises = self.hangs = False
        self.forbidden = ""
        self.app: GuardedApplication | None = None

    def logged_on(self, peer):
        self.events.append("on")

    def logged_out(self, peer):
        self.events.append("out")

    def received(self, peer, message):
        if self.raises:
            raise KeyError("planted")
        while self.hangs:
            time.sleep(0.01)
        self.messages.append(Fields.of(message))

    def veto(self, peer, message, resent):
        if self.forbidden:
            return self.forbidden
        return stale_order(self.app, peer, message, resent) if self.app else None

    def vetoed(self, peer, message, reason, resent):
        self.vetoes.append((Fields.of(message)._values.get("11", ""), reason, resent))

    def failed(self, reason):
        self.failures.append(reason)

    def values(self, tag: str) -> list[str | None]:
        return [fields._values.get(tag) for fields in self.messages]


class Pair:
    """An acceptor VENUE and an initiator GATE on loopback, with stores that outlive a restart."""

    def __init__(self, folder: Path, port: int | None = None, **more) -> None:
        self.folder, self.port, self.more = folder, port or free_port(), {"heartbeat_s": 1, **more}
        self.venue, self.gate = Notes(), Notes()
        self.acceptor = self.initiator = None

    def start_venue(self, notes=None):
        self.venue = notes or self.venue
        self.application = GuardedApplication(self.venue)
        self.acceptor = FixAcceptor(
            self.application, FixSettings("VENUE", ("GATE",), self.folder / "venue", self.port, **self.more)
        )
        self.acceptor.start()

    def start_gate(self):
        self.initiator = FixInitiator(
            self.gate, FixSettings("GATE", ("VENUE",), self.folder / "gate", self.port, **self.more)
        )
        self.gate.app = self.initiator.app
        self.initiator.start()

    def up(self):
        until(lambda: self.initiator.is_up and self.application.is_up("GATE"), "logon")

    def __enter__(self):
        self.start_venue()
        self.start_gate()
        self.up()
        return self

    def __exit__(self, *_):
        for end in (self.initiator, self.acceptor):
            if end is not None:
                end.stop()


class RawEnd:
    """A FIX end by simplefix, of which every byte is in the test's hands: sequence numbers, PossDup, silence."""

    def __init__(self, connection: socket.socket, me: str, other: str, version: str = "FIX.4.4") -> None:
        self.connection, self.me, self.other, self.version = connection, me, other, version
        self.sequence = 1
        self._parser = simplefix.FixParser()
        connection.settimeout(DEADLINE_S)

    def send(self, kind: str, fields=(), *, sequence: int | None = None, dup: bool = False) -> None:
        message = simplefix.FixMessage()
        message.append_pair(8, self.version, header=True)
        message.append_pair(35, kind, header=True)
        message.append_pair(49, self.me, header=True)
        message.append_pair(56, self.other, header=True)
        message.append_pair(34, self.sequence if sequence is None else sequence, header=True)
        message.append_utc_timestamp(52, precision=3, header=True)
        if dup:
            message.append_pair(43, "Y", header=True)
            message.append_utc_timestamp(122, precision=3, header=True)
        for tag, value in fields:
            message.append_pair(tag, value)
        if sequence is None:
            self.sequence += 1
        self.connection.sendall(message.encode())

    def receive(self, kind: str) -> dict[str, str]:
        """The next message of `kind`; heartbeats and others before it are passed over."""
        while True:
            message = self._parser.get_message()
            if message is None:
                data = self.connection.recv(4096)
                assert data, f"the line closed before a {kind} came"
                self._parser.append_buffer(data)
                continue
            fields = {tag.decode(): value.decode() for tag, value in message.pairs}
            if fields["35"] == kind:
                return fields

    def closed(self) -> bool:
        """Whether the other end closes, what it still sends aside."""
        try:
            while self.connection.recv(4096):
                pass
        except ConnectionError:
            pass
        return True
