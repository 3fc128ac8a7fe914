"""A foreign FIX engine, FIXcore, as either end of a session: it shares nothing with QuickFIX but the protocol."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import quickfix
from fix_peers import until
from fixcore.application import Application
from fixcore.message.message import Message
from fixcore.session.session_settings import SessionSettings
from fixcore.transport.acceptor import SocketAcceptor
from fixcore.transport.initiator import SocketInitiator

from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_settings import FixSettings

SETTINGS = """
[DEFAULT]
ConnectionType={kind}
HeartBtInt=1
ReconnectInterval=1
FileStorePath={store}
FileLogPath={store}
SocketAcceptHost=127.0.0.1
SocketAcceptPort={port}
SocketConnectHost=127.0.0.1
SocketConnectPort={port}
UseDataDictionary=Y
DataDictionary=FIX44.xml
ValidateFieldsOutOfRange=Y
"""


class ForeignEnd(Application):
    """One end with sessions to `peers`, in a thread of its own; validates what comes against FIX44.xml, enums too.

    `lose` set: what it sends is numbered and kept, and never reaches the line.
    """

    def __init__(self, kind: str, own: str, peers: tuple[str, ...], port: int, store: Path, more: str = "") -> None:
        self.came: list[dict[str, str]] = []
        self.admin: list[dict[str, str]] = []
        self.sent: list[dict[str, str]] = []
        self.ups: list[str] = []
        self.lose = False
        self.password = ""
        self._own, self._store = own, store
        text = SETTINGS.format(kind=kind, port=port, store=store) + more
        for peer in peers:
            text += f"\n[SESSION]\nBeginString=FIX.4.4\nSenderCompID={own}\nTargetCompID={peer}\n"
        self._settings = SessionSettings.from_string(text)
        self._kind = SocketInitiator if kind == "initiator" else SocketAcceptor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._engine = None

    # FIXcore's callbacks, in its thread

    def on_logon(self, session_id):
        session = self._engine.sessions[session_id]
        to_line = session._send_fn

        async def send(data: bytes) -> None:
            if not self.lose:
                await to_line(data)

        session._send_fn = send
        self.ups.append(session_id.target_comp_id)

    def to_admin(self, message, session_id):
        if message.msg_type == "A" and self.password:
            message.set_field(553, session_id.sender_comp_id)
            message.set_field(554, self.password)
        self.sent.append(fields(message))

    def to_app(self, message, session_id):
        self.sent.append(fields(message))

    def from_admin(self, message, session_id):
        self.admin.append(fields(message))

    def from_app(self, message, session_id):
        self.came.append(fields(message))

    # what tests do

    def start(self) -> None:
        self._thread.start()
        self._do(self._begin())

    def stop(self) -> None:
        if self._engine is not None:
            self._do(self._engine.stop())
            for session in self._engine.sessions.values():
                session.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def session(self, peer: str):
        return next(s for sid, s in self._engine.sessions.items() if sid.target_comp_id == peer)

    def is_up(self, peer: str) -> bool:
        return self.session(peer).is_logged_on

    def send(self, peer: str, kind: str, pairs) -> None:
        self._do(self.session(peer).send_app(message_of(kind, pairs)))

    def send_admin(self, peer: str, kind: str, pairs) -> None:
        self._do(self.session(peer)._send_message(message_of(kind, pairs), is_admin=True))

    def skip_to(self, peer: str, number: int) -> None:
        """Say that the next message has this number (SequenceReset in reset mode), and go on from there."""
        self.send_admin(peer, "4", [(36, number)])
        self._loop.call_soon_threadsafe(self.session(peer)._store.set_next_sender_msg_seq_num, number)

    def drop(self, peer: str) -> None:
        """Cut the line without a word."""
        self._do(self.session(peer).disconnect())

    def log_out(self) -> None:
        for session in self._engine.sessions.values():
            self._do(session.send_logout())

    def wait(self, kind: str, found=lambda values: True, since: int = 0) -> dict[str, str]:
        """The first message of a type behind `since` that fits."""

        def fitting():
            return [m for m in [*self.came[since:], *self.admin] if m["35"] == kind and found(m)]

        until(fitting, f"a {kind}")
        return fitting()[0]

    def lines(self, peer: str) -> list[str]:
        """All that came from a peer, as it came, with | between the fields."""
        log = self._store / f"FIX.4.4-{self._own}-{peer}.log"
        return [line for line in log.read_text().splitlines() if "<incoming>" in line]

    async def _begin(self) -> None:
        self._engine = self._kind(self._settings, self)
        await self._engine.start()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)


class ForeignAcceptor(ForeignEnd):
    """In the place of `FixAcceptor`: FIXcore listens, and the application's handler hears as if QuickFIX had."""

    def __init__(self, application: GuardedApplication, settings: FixSettings) -> None:
        super().__init__("acceptor", settings.comp_id, settings.peers, settings.port, settings.store)
        self._handler = application._handler
        # the handler sends and waits, which the engine's own thread must not
        self._calls = ThreadPoolExecutor(1)

    def from_app(self, message, session_id):
        super().from_app(message, session_id)
        came = quickfix.Message(message.encode().decode(), False)
        self._calls.submit(self._handler.received, session_id.target_comp_id, came)

    def stop(self) -> None:
        self._calls.shutdown()
        super().stop()

    def send(self, peer: str, message: quickfix.Message) -> None:
        pairs = [field.partition("=")[::2] for field in message.toString().split("\x01")[:-1]]
        kind = next(value for tag, value in pairs if tag == "35")
        super().send(peer, kind, [(tag, value) for tag, value in pairs if tag not in ("8", "9", "10", "35")])


def message_of(kind: str, pairs) -> Message:
    message = Message()
    message.set_field(35, kind)
    for tag, value in pairs:
        message.set_field(int(tag), str(value))
    return message


def fields(message: Message) -> dict[str, str]:
    return {str(tag): value for tag, value in [*message.header.items(), *message.body.items()]}
