"""The feed over websockets: a server for one publisher, a follower that reconnects."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import InvalidHandshake, WebSocketException

from serving.wire.feed import MESSAGE_MAX, Ask, FeedError, Watermark, decode_up, encode_feed
from serving.wire.feed_state import Event, Follower, Publisher
from serving.wire.identity import is_loopback

UNSENT_MAX = 50_000
"""Messages that may wait for one follower; a slower one is cut off, and finds the gap when it comes again."""
BEAT_S = 1.0
SILENCE_S = 3.0
RETRY_S = 0.5


class _Subscriber:
    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.symbols: set[str] = set()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(UNSENT_MAX)
        self.watermark = -1  # -1: it does not pace the venue
        self.sent: dict[str, int] = {}

    def put(self, raw: bytes) -> None:
        try:
            self.queue.put_nowait(raw)
        except asyncio.QueueFull:
            self.connection.transport.abort()


class FeedServer:
    """Serves what its publisher says. `send`, `beat` and `until` from the event loop's thread only."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self._subscribers: set[_Subscriber] = set()
        self._moved = asyncio.Event()
        self._server: Server | None = None
        self._until: bytes | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; gives the port. Raises ValueError for an address beyond loopback without TLS."""
        if tls is None and not is_loopback(host):
            raise ValueError(f"host {host} is not a loopback address: the feed beyond it needs TLS")
        self._server = await serve(
            self._serve, host, port, ssl=tls, max_size=MESSAGE_MAX, compression=None, ping_interval=None
        )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def send(self, symbol: str, raw: bytes | None) -> None:
        """Send a publisher's message to whoever follows the symbol."""
        if raw is not None:
            for subscriber in self._subscribers:
                if symbol in subscriber.symbols:
                    subscriber.put(raw)

    def beat(self, ts_ns: int) -> None:
        """Send the heartbeat to everybody."""
        raw = self.publisher.beat(ts_ns)
        for subscriber in self._subscribers:
            subscriber.put(raw)

    def until(self, ts_ns: int, told: Mapping[str, int] | None = None) -> None:
        """Tell everybody that all up to `ts_ns` has been sent; who asks for snapshots later hears it behind them."""
        raw = self._until = self.publisher.until(ts_ns, told)
        for subscriber in self._subscribers:
            subscriber.put(raw)

    async def wait(self, ts_ns: int, paces: int) -> dict[str, int]:
        """Wait until `paces` followers at least have set a watermark, and none of those is behind `ts_ns`.

        Gives what they say they have sent, by strategy. One that goes away stops counting, so that fewer than `paces`
        are left: the venue then stands until it is back.
        """
        while True:
            pacing = [item for item in self._subscribers if item.watermark >= 0]
            if len(pacing) >= paces and all(item.watermark >= ts_ns for item in pacing):
                return {name: number for item in pacing for name, number in item.sent.items()}
            self._moved.clear()
            await self._moved.wait()

    async def _serve(self, connection: ServerConnection) -> None:
        subscriber = _Subscriber(connection)
        subscriber.put(encode_feed(self.publisher.opening))
        self._subscribers.add(subscriber)
        sender = asyncio.create_task(self._drain(subscriber))
        try:
            async for raw in connection:
                self._take(subscriber, raw if isinstance(raw, bytes) else raw.encode())
        except FeedError as error:
            await connection.close(1008, str(error)[:120])
        except WebSocketException:
            pass  # its line broke: it comes again
        finally:
            self._subscribers.discard(subscriber)
            self._moved.set()
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender

    def _take(self, subscriber: _Subscriber, raw: bytes) -> None:
        message = decode_up(raw)
        if isinstance(message, Ask):
            for symbol in message.symbols:
                subscriber.put(self.publisher.snapshot(symbol))
                subscriber.symbols.add(symbol)
            if self._until is not None:
                subscriber.put(self._until)
        elif isinstance(message, Watermark):
            subscriber.watermark = max(subscriber.watermark, message.ts_ns)
            subscriber.sent = message.sent
            self._moved.set()

    async def _drain(self, subscriber: _Subscriber) -> None:
        with suppress(WebSocketException):
            while (raw := await subscriber.queue.get()) is not None:
                await subscriber.connection.send(raw)


class FeedClient:
    """Follows a feed and hands each event to `on_event`, in order, in the event loop's thread."""

    def __init__(
        self,
        url: str,
        follower: Follower,
        on_event: Callable[[Event], None],
        *,
        paces: bool = False,
        tls: ssl.SSLContext | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """`paces`: the venue waits for this follower; call `watermark` after each `Until`."""
        self.follower = follower
        self._url, self._on_event, self._paces, self._tls, self._silence_s = url, on_event, paces, tls, silence_s
        self._connection: Any = None

    async def run(self) -> None:
        """Follow until cancelled; a line that breaks or says nothing for `silence_s` is made anew."""
        while True:
            reason = "the line of the feed is down"
            try:
                async with connect(
                    self._url, ssl=self._tls, max_size=MESSAGE_MAX, compression=None, ping_interval=None
                ) as connection:
                    self._connection = connection
                    self.follower.connected()
                    if self._paces:
                        await connection.send(encode_feed(Watermark(ts_ns=0)))
                    reason = await self._follow(connection)
            except (OSError, WebSocketException, InvalidHandshake) as error:
                reason = f"the line of the feed is down: {error}"
            finally:
                self._connection = None
                for event in self.follower.disconnected(reason):
                    self._on_event(event)
            await asyncio.sleep(RETRY_S)

    async def watermark(self, ts_ns: int, sent: dict[str, int] | None = None) -> None:
        """Tell the venue that everything up to `ts_ns` is done; without a line it is lost, and the venue stands."""
        if self._connection is not None:
            with suppress(WebSocketException):
                await self._connection.send(encode_feed(Watermark(ts_ns=ts_ns, sent=sent or {})))

    async def _follow(self, connection: Any) -> str:
        while True:
            wanted = self.follower.asks()
            if wanted is not None:
                await connection.send(wanted)
            try:
                async with asyncio.timeout(self._silence_s):
                    raw = await connection.recv(decode=False)
            except TimeoutError:
                return f"the feed said nothing for {self._silence_s:g} s"
            for event in self.follower.take(raw):
                self._on_event(event)
