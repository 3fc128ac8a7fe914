"""Both ends of the framed order connection over asyncio: handshake, heartbeats, back pressure; no decisions.

    connected -> HELLO within HANDSHAKE_S -> WELCOME -> open -> closed
                    `-> REFUSED, closed

The server's end ends a connection on the first frame that is wrong, on silence longer than its limit, and where the
other end does not read what it is sent. Whoever uses it hears `opened`, `requests` and `closed`, each exactly in that
order, and `closed` never more than once.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Protocol, cast

from serving.contracts.decisions import Decision
from serving.contracts.orders import Report, Request
from serving.wire.frames import (
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    Heartbeat,
    Hello,
    Message,
    Refusal,
    Welcome,
    decode_message,
    encode_message,
)
from serving.wire.identity import Directory, Identity, IdentityError, is_loopback

HANDSHAKE_S = 5.0
SILENCE_S = 10.0
"""A line that says nothing for this long is dead; heartbeats go at a third of it."""
UNREAD_MAX = 4 * 1024 * 1024
"""Bytes that the other end may leave unread before it is cut off."""


class OrderPort(Protocol):
    """What a server does with its connections. Called in the event loop's thread; nothing here may block or raise."""

    def opened(self, line: "ServerLine", identity: Identity) -> None:
        """A client was taken for `identity`."""

    def requests(self, line: "ServerLine", requests: Sequence[Request]) -> None:
        """Requests that came together, in order, each within the line's identity; answer with `ServerLine.send`."""

    def heartbeat(self, line: "ServerLine") -> None:
        """The client says that it lives."""

    def closed(self, line: "ServerLine", reason: str) -> None:
        """The line is down."""


class _Line(asyncio.Protocol):
    """What both ends share."""

    def __init__(self, silence_s: float) -> None:
        self.reason = ""  # why the line is down
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._silence_s = silence_s
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_up(self) -> bool:
        """Bytes may still go out."""
        return self._transport is not None and not self.reason

    @property
    def unread(self) -> int:
        """Bytes that the other end has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, *messages: Message) -> None:
        """Hand frames to the socket in one write; to a line that is down they go nowhere."""
        if not self.is_up:
            return
        assert self._transport is not None
        self._transport.write(b"".join(map(encode_message, messages)))
        if self._transport.get_write_buffer_size() > UNREAD_MAX:
            self.cut(f"more than {UNREAD_MAX} bytes lie unread")

    def close(self, reason: str) -> None:
        """Take the line down; `reason` is kept where it is the first."""
        self.reason = self.reason or reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def cut(self, reason: str) -> None:
        """As `close`, of a line whose other end takes nothing: what lies unread would hold up its end for minutes."""
        self.close(reason)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._heard = time.monotonic()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self.reason:
            return
        self._heard = time.monotonic()
        try:
            frames = self._decoder.feed(data)
            if frames:
                self._take(frames)
        except FrameError as error:
            self._refuse(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.reason = self.reason or (f"connection lost: {error}" if error else "the other end closed")
        self._transport = None
        self._lost()

    def _watch(self) -> None:
        silent_s = time.monotonic() - self._heard
        if silent_s > self._silence_s:
            self.cut(f"silent for {silent_s:.1f} s, limit {self._silence_s:g}")
            return
        self._tick()
        self._timer = asyncio.get_running_loop().call_later(self._silence_s / 3, self._watch)

    def _tick(self) -> None:
        """A third of the silence limit is over."""
        self.send(Heartbeat(sent_ns=time.time_ns()))

    def _refuse(self, reason: str) -> None:
        self.close(reason)

    def _take(self, frames: list[Frame]) -> None:
        raise NotImplementedError

    def _lost(self) -> None:
        raise NotImplementedError


class ServerLine(_Line):
    """The server's end of one connection."""

    def __init__(self, port: OrderPort, directory: Directory, silence_s: float = SILENCE_S) -> None:
        super().__init__(silence_s)
        self.identity: Identity | None = None
        self._port, self._directory = port, directory
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the handshake."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_S, self._refuse, f"no hello within {HANDSHAKE_S:g} s")

    def hold(self) -> None:
        """Read nothing more until `go_on`: the other end is told to wait by its own full socket."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again; the silence until now was not the other end's."""
        self._heard = time.monotonic()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _tick(self) -> None:
        if self.identity is not None:
            super()._tick()

    def _refuse(self, reason: str, told: str | None = None) -> None:
        self.send(Refusal(reason=told or reason))
        self.close(reason)

    def _take(self, frames: list[Frame]) -> None:
        requests: list[Request] = []
        for frame in frames:
            message = decode_message(frame)
            if self.identity is None:
                self._open(message)
                if self.identity is None:
                    return
            elif frame.type is FrameType.REQUEST:
                why = self.identity.why_not(message)  # type: ignore[arg-type]
                if why is not None:
                    self._hand_over(requests)
                    self._refuse(why)
                    return
                requests.append(message)  # type: ignore[arg-type]
            elif frame.type is FrameType.HEARTBEAT:
                self._port.heartbeat(self)
            else:
                self._hand_over(requests)
                raise FrameError(f"a {frame.type.name.lower()} frame from a client")
        self._hand_over(requests)

    def _hand_over(self, requests: list[Request]) -> None:
        if requests:
            self._port.requests(self, requests)

    def _open(self, message: Message) -> None:
        assert self._transport is not None
        if not isinstance(message, Hello):
            raise FrameError(f"a {type(message).__name__} before the hello")
        tls = self._transport.get_extra_info("ssl_object")
        peer = self._transport.get_extra_info("peername") or ("",)
        try:
            identity = self._directory.authenticate(
                message, peer=str(peer[0]), certificate=None if tls is None else tls.getpeercert() or {}
            )
        except IdentityError as error:
            self._refuse(str(error), told="not authenticated")
            return
        self.identity = identity
        if self._deadline is not None:
            self._deadline.cancel()
        strategies = tuple(sorted(identity.strategies))
        self.send(Welcome(subject=identity.subject, account=identity.account, strategies=strategies))
        self._port.opened(self, identity)

    def _lost(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.identity is not None:
            self._port.closed(self, self.reason)


class Client(Protocol):
    """What a client does with what it hears. Called in the event loop's thread."""

    def decided(self, decision: Decision) -> None:
        """The gateway's answer to a request, known by its key."""

    def reported(self, report: Report) -> None:
        """What the venue said of an order."""

    def down(self, reason: str) -> None:
        """The line is down; what was not answered is unknown, and may be sent again under the same keys."""


class ClientLine(_Line):
    """The client's end; `welcomed` resolves to the WELCOME, or raises ConnectionError with the reason."""

    def __init__(self, client: Client, hello: Hello, silence_s: float = SILENCE_S) -> None:
        super().__init__(silence_s)
        self.welcomed: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._client, self._hello = client, hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who this is."""
        super().connection_made(transport)
        self.send(self._hello)

    def _tick(self) -> None:
        if self.welcomed.done():
            super()._tick()

    def _take(self, frames: list[Frame]) -> None:
        for frame in frames:
            message = decode_message(frame)
            if frame.type is FrameType.DECISION:
                self._client.decided(message)  # type: ignore[arg-type]
            elif frame.type is FrameType.REPORT:
                self._client.reported(message)  # type: ignore[arg-type]
            elif isinstance(message, Welcome) and not self.welcomed.done():
                self.welcomed.set_result(message)
            elif isinstance(message, Refusal):
                self.close(message.reason)
                return
            elif frame.type is not FrameType.HEARTBEAT:
                raise FrameError(f"a {frame.type.name.lower()} frame from a server")

    def _lost(self) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(self.reason))
        else:
            self._client.down(self.reason)


async def serve(
    port: OrderPort, directory: Directory, host: str, number: int, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Listen for order connections. Raises ValueError for an address beyond loopback without TLS."""
    if tls is None and not is_loopback(host):
        raise ValueError(f"host {host} is not a loopback address: orders beyond it need TLS")
    return await asyncio.get_running_loop().create_server(lambda: ServerLine(port, directory), host, number, ssl=tls)


async def connect(
    client: Client, hello: Hello, host: str, number: int, tls: ssl.SSLContext | None = None
) -> ClientLine:
    """Connect and shake hands. Raises OSError, of which ConnectionError carries the server's reason."""
    loop = asyncio.get_running_loop()
    _, line = await asyncio.wait_for(
        loop.create_connection(lambda: ClientLine(client, hello), host, number, ssl=tls), HANDSHAKE_S
    )
    try:
        await asyncio.wait_for(asyncio.shield(line.welcomed), HANDSHAKE_S)
    except TimeoutError:
        line.close(f"no welcome within {HANDSHAKE_S:g} s")
        raise ConnectionError(line.reason) from None
    return line
