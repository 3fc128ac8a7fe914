"""The venue as a process: FIX acceptor, feed, clock. One thread owns the core; FIX's threads only fill its inbox."""

import asyncio
import logging
import signal
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import NamedTuple

from serving.wire.feed_socket import BEAT_S, FeedServer
from serving.wire.feed_state import Publisher
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import Inbound
from training.market.venue.core import Execution, Shown, Venue
from training.market.venue.days import Listing
from training.market.venue.fix_edge import VenueFix
from training.market.venue.received import ReceivedLog
from training.market.venue.settings import VenueSettings
from training.market.venue.world import Row

log = logging.getLogger(__name__)
TICK_S = 0.002
"""In real time the clock moves this often."""


class _Came(NamedTuple):
    client: str
    raw: str
    message: Inbound | None
    problem: str
    number: int


class VenueService:
    """Runs a venue until its day is over, it is stopped, or it fails."""

    def __init__(self, settings: VenueSettings, listings: Mapping[str, Listing]) -> None:
        """Open the log; raises FileExistsError where the folder holds one already."""
        self.settings = settings
        folder = settings.folder
        self._log = ReceivedLog(folder / "received.jsonl")
        worlds = {symbol: listing.world for symbol, listing in listings.items()}
        self.venue = Venue(worlds, None, settings.start_ns(worlds))  # logged when it comes
        self._log_turn = Lock()
        self._waking = False
        self._drop = () if settings.drop_copy is None else (settings.drop_copy,)
        self._edge = VenueFix({symbol: item.scale for symbol, item in listings.items()}, self._came, self._failed)
        self._application = GuardedApplication(self._edge, tokens=settings.tokens)
        self._acceptor = FixAcceptor(
            self._application,
            FixSettings(
                settings.comp_id, (*settings.peers, *self._drop), folder / "fix", settings.fix_port, settings.host,
                dictionary=settings.dictionary, log=folder / "fix_log" if settings.log_fix else None,
                tls=settings.fix_tls(), day_start=settings.day_start,
            ),
        )  # fmt: skip
        session = uuid.uuid4().hex
        lockstep = settings.pace == "lockstep"
        self.feed = FeedServer(Publisher(settings.name, session, worlds, lockstep))
        self._inbox: deque[_Came] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._stop = asyncio.Event()
        self.failure = ""
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Serve. Raises OSError where a port cannot be had, RuntimeError with the reason where the venue failed."""
        self._loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError, NotImplementedError, RuntimeError):  # not in the main thread
                self._loop.add_signal_handler(name, self._stop.set)
        settings = self.settings
        await self.feed.start(settings.host, settings.feed_port, settings.feed_tls())
        try:
            self._acceptor.start()
            log.info("venue %s: FIX on %s:%d, feed on %d", settings.name, settings.host, settings.fix_port,
                     settings.feed_port)  # fmt: skip
            self._advance(self.venue.now_ns)
            self.ready.set()
            await self._until_over()
        finally:
            await asyncio.to_thread(self._acceptor.stop)
            await self.feed.stop()
            self._log.close()
        if self.failure:
            raise RuntimeError(self.failure)

    def stop(self) -> None:
        """Ask for the end; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _until_over(self) -> None:
        play = asyncio.create_task(self._lockstep() if self.settings.pace == "lockstep" else self._real_time())
        beat = asyncio.create_task(self._beat())
        take = asyncio.create_task(self._take_all())
        stop = asyncio.create_task(self._stop.wait())
        tasks = {play, beat, take, stop}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()  # raises what it raised

    async def _lockstep(self) -> None:
        """A step, then wait until everybody who paces the venue is done with it and its orders have come."""
        venue, settings = self.venue, self.settings
        step_ns = int(settings.step_s * 1e9)
        self.feed.until(venue.now_ns, venue.told)
        while True:
            sent = await self._watermark(venue.now_ns)
            deadline = time.monotonic() + settings.patience_s
            while any(venue.received.get(name, 0) < number for name, number in sent.items()):
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"lockstep: {sent} messages were sent by {venue.now_ns} ns, {venue.received} came within "
                        f"{settings.patience_s:g} s"
                    )
                self._arrived.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 0.05)
            if venue.now_ns >= venue.closes_ns:
                break
            self._advance(venue.next_stop(step_ns))
            self.feed.until(venue.now_ns, venue.told)
        await self._linger()

    async def _watermark(self, ts_ns: int) -> dict[str, int]:
        return await self.feed.wait(ts_ns, self.settings.followers)

    async def _real_time(self) -> None:
        """The clock of the day runs `speed` times as fast as the one on the wall."""
        venue, speed = self.venue, self.settings.speed
        start_ns, began = venue.now_ns, time.monotonic()
        while venue.now_ns < venue.closes_ns:
            due = start_ns + int((time.monotonic() - began) * 1e9 * speed)
            self._advance(min(max(due, venue.now_ns), venue.closes_ns))
            await asyncio.sleep(TICK_S)
        await self._linger()

    async def _linger(self) -> None:
        """The day is over: stay for questions, then end."""
        self.feed.until(self.venue.now_ns, self.venue.told)
        await asyncio.sleep(self.settings.linger_s)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.feed.beat(self.venue.now_ns)

    async def _take_all(self) -> None:
        """Take what clients sent, when it comes: at once, whatever the clock does."""
        arrived = asyncio.Event()
        self._wake = arrived
        while not self.failure:
            self._take_inbox()
            arrived.clear()
            if not self._inbox:
                await arrived.wait()

    def _take_inbox(self) -> None:
        while self._inbox:
            came = self._inbox.popleft()
            if came.message is None:
                self._acceptor.send(came.client, self._edge.refuse(came.raw, came.problem, came.number))
            else:
                self.venue.take(came.client, came.message)
        self._arrived.set()
        self._send(self.venue.drain())

    def _advance(self, until_ns: int) -> None:
        self._take_inbox()
        self._send(self.venue.advance(until_ns))

    def _send(self, outputs: list) -> None:
        publisher = self.feed.publisher
        for output in outputs:
            if not isinstance(output, Shown):
                self._acceptor.send(output.client, self._edge.encode(output))
                if isinstance(output, Execution) and output.what == "trade":
                    for copy in self._drop:
                        self._acceptor.send(copy, self._edge.encode(output))
            elif isinstance(output.what, Row):
                row = output.what
                self.feed.send(output.symbol, publisher.row(output.symbol, row.ts_ns, row.bids, row.asks, row.trade))
            else:
                turn = output.what
                self.feed.send(output.symbol, publisher.status(output.symbol, turn.ts_ns, turn.status))

    def _came(self, client: str, raw: str, message: Inbound | None, problem: str, number: int) -> None:
        """In FIX's threads."""
        if client in self._drop:
            message, problem = None, f"{client} hears executions and sends nothing"
        what, body = ("refused", {"raw": raw, "reason": problem})
        if message is not None:
            what, body = type(message).__name__, message._asdict()
        with self._log_turn:  # before this returns FIX answers nothing that came later, a TestRequest least of all
            self._log.write(time.time_ns(), self.venue.now_ns, client, what, body)
        self._inbox.append(_Came(client, raw, message, problem, number))
        if self._loop is not None and not self._waking:  # once: a pipe full of these would lose the signal to stop
            self._waking = True
            self._loop.call_soon_threadsafe(self._awake)

    def _awake(self) -> None:
        self._waking = False
        if (wake := getattr(self, "_wake", None)) is not None:
            wake.set()

    def _failed(self, reason: str) -> None:
        """In FIX's threads."""
        self.failure = reason
        self.stop()
