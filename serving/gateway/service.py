"""The gateway as a process: the core in one thread, and around it orders in, FIX out, the feed, people, the clock.

order port, feed (this thread's event loop)  ─┐
FIX's threads, probes        ── inbox ────────┼─▶ the deciding thread ─▶ journal ─▶ FIX
admin plane, kill socket     ── Deciding ─────┘
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from serving.contracts.orders import Cancel
from serving.gateway.beginning import PAPER, propose_what_is_set, strategies_back
from serving.gateway.clock_offset import kernel_offset_ns
from serving.gateway.collector import collect_all, quieten_collector
from serving.gateway.config import ConfigError, VenueConfig, load_book, load_venues
from serving.gateway.day import Book, ProposedDay, approve_day, end_day, propose_day
from serving.gateway.deciding import Deciding
from serving.gateway.disk import RealDisk
from serving.gateway.drop_copy import DropCopy
from serving.gateway.events import Accepted, Event
from serving.gateway.feed_in import FeedIn
from serving.gateway.fix_out import Came, FixTransport, VenueSession, read_now
from serving.gateway.following import follow
from serving.gateway.journal import JournalError
from serving.gateway.killing import Killer
from serving.gateway.limits import Limits
from serving.gateway.live import Now
from serving.gateway.observing import Histogram
from serving.gateway.order_server import OrderServer, journalled_reports, told_by
from serving.gateway.reconciling import Reconciler
from serving.gateway.recovery import arm, open_gateway
from serving.gateway.reloading import Reloading
from serving.gateway.settings import GatewaySettings
from serving.gateway.watch import Watch
from serving.observe.metrics import Pulse
from serving.wire.identity import Directory
from serving.wire.link import serve

log = logging.getLogger(__name__)
PULSE_S = 2.0
SWITCH_S = 0.0005
"""The deciding thread waits no longer than this for another thread that computes."""


class GatewayService:
    """Runs the gateway until it is stopped. Made and run in the deciding thread."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Read the files and take the journal: halted from here on.

        Raises ConfigError, LimitsError, OSError; LockedError, CorruptError, JournalError (`Journal.open`).
        """
        self.settings = settings
        self.venues: dict[str, VenueConfig] = load_venues(settings.venues)
        self.reloading = Reloading(self)
        self.directory = Directory(self.reloading.access.clients)
        self.started_ns = time.time_ns()
        if settings.paper and not all(venue.is_loopback for venue in self.venues.values()):
            raise ConfigError("paper: every venue must be on loopback")
        self.first_limits = None if settings.limits is None else Limits.load(settings.limits.read_text())
        self.book: Book | None = None if settings.day is None else load_book(settings.day)
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.disk = RealDisk(settings.folder / "journal")
        self._inbox: deque[Came] = deque()
        self._events: list[Event] = []
        self.listeners: list[Callable[[Event], None]] = []  # told of each event once it is durable
        self._drain_scheduled = False
        self.deciding: Deciding | None = None
        base = settings.venues.resolve().parent
        self.sessions: dict[str, VenueSession] = {}
        self.transport = FixTransport(self.sessions)
        self.gateway = open_gateway(self.disk, self.transport, read_now(), self._hear)  # nothing is touched unlocked
        self.transport.gateway = self.gateway
        for name, venue in self.venues.items():
            self.sessions[name] = VenueSession(
                name, venue, settings.folder, base, self.came, settings.probe_s, settings.probe_timeout_s,
                settings.log_fix,
            )  # fmt: skip
        self.watch = Watch(self.gateway)
        self.orders = OrderServer(self.gateway, self.watch, self.commit, settings.group_max)
        self.orders.history.update(journalled_reports(self.disk, self.gateway.journal.name))
        self.drops = {
            name: DropCopy(name, venue.drop_copy, venue.scales(), settings.folder, base, self._drop_failed)
            for name, venue in self.venues.items()
            if venue.drop_copy is not None
        }
        self.feeds = {name: FeedIn(name, venue, base, self.watch) for name, venue in self.venues.items()}
        self.halts = 0  # how often something asked for a halt, whether or not one stood already
        self.reconciler = Reconciler(
            self.gateway, self.sessions, self.drops, settings.reconcile_s, lambda: self.halts
        )  # fmt: skip
        self.killer = Killer(self)
        self.orders.overtaking, self.orders.overtake = self.killer.waiting, self.killer.take
        self.orders.publish = self._publish
        self.pulse = Pulse("the deciding thread", PULSE_S)
        self.commits = Histogram()  # what it took to make a group durable and send it
        self.breaks: tuple[str, ...] = ()  # of the last reconciliation
        self.ports: dict[str, int] = {}
        self.stopping = self._said = self._again = False
        self._stop: asyncio.Event | None = None
        self._recovery: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, or SIGTERM or SIGINT. Raises OSError where a port cannot be had."""
        loop = asyncio.get_running_loop()
        self.deciding, self._stop = Deciding(loop), asyncio.Event()
        loop.set_exception_handler(self._unhandled)
        for name in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError, NotImplementedError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(name, self._stop.set)
        with suppress(ValueError, NotImplementedError, RuntimeError):
            loop.add_signal_handler(signal.SIGHUP, self.reloading.hang_up)
        if self.gateway.journal.torn:
            log.warning("the journal's torn last group was set aside as %s", self.gateway.journal.torn)
        settings, server = self.settings, None
        tick = loop.create_task(self._tick(), name="tick")
        try:
            self.killer.start()
            for feed in self.feeds.values():
                feed.start()
            for session in self.sessions.values():
                session.start()
            for drop in self.drops.values():
                drop.start()
            server = await serve(self.orders, self.directory, settings.host, settings.order_port, settings.tls())
            self.ports["order"] = int(server.sockets[0].getsockname()[1])
            propose_what_is_set(self)
            ready()
            self._write_ports()
            quieten_collector()
            sys.setswitchinterval(SWITCH_S)
            log.info("gateway: orders on %s:%d, journal sequence %d, epoch %d, halted: %s",
                     settings.host, self.ports["order"], self.gateway.journal.sequence, self.gateway.state.epoch,
                     self.gateway.state.halted)  # fmt: skip
            await self._stop.wait()
        finally:
            if server is not None:
                server.close()
            await self._end(tick)

    def stop(self) -> None:
        """Ask for an orderly end; from any thread."""
        if self.deciding is not None and self._stop is not None:
            self.deciding.loop.call_soon_threadsafe(self._stop.set)

    def commit(self, now: Now) -> None:
        """Make everything decided durable and send it; who must hear of it is told by `_publish`, behind the answers.

        Raises JournalError where nothing of it is durable, and so nothing was sent.
        """
        gateway, began_ns = self.gateway, time.monotonic_ns()
        if self.killer.waiting:
            self.killer.take()
        waiting, decided = gateway.journal.has_pending, len(self._events)
        try:
            gateway.commit(now)
        except JournalError:
            self._events.clear()  # never durable, so never told
            self.killer.persisted(False)
            raise
        self.killer.persisted(True)
        try:
            if gateway.journal.has_pending:  # what a veto held back while it was leaving
                gateway.commit(now)
        except JournalError as error:  # what was decided is durable, and has left: to deny it would be a lie
            del self._events[decided:]
            self._journal_failed(error)
        if waiting:
            self.commits.add((time.monotonic_ns() - began_ns) / 1000)

    def halt(self, reason: str) -> None:
        """Refuse every new order until a person arms again. In the deciding thread."""
        gateway = self.gateway
        self.halts += 1
        if gateway.state.halted and not gateway.state.reconciled:
            log.warning("still halted: %s", reason)
            return
        log.critical("halted: %s", reason)
        gateway.halt(reason, read_now())
        self.try_commit()

    def came(self, came: Came) -> None:
        """Something came from a session. In FIX's and the probes' threads."""
        self._inbox.append(came)
        deciding = self.deciding
        if deciding is not None and not self._drain_scheduled:
            self._drain_scheduled = True
            with suppress(RuntimeError):  # the loop has ended
                deciding.loop.call_soon_threadsafe(self._drain)

    async def reconcile(self, positions: dict[tuple[str, str], int] | None = None) -> tuple[str, ...]:
        """Ask the venues, compare, and say what does not agree. In the deciding thread."""
        self.breaks = await self.reconciler.run(positions)
        self.try_commit()
        for item in self.breaks:
            log.error("break: %s", item)
        return self.breaks

    def propose_day(self, book: Book, by: str) -> ProposedDay:
        """Let a day's book wait for two people. Raises what `day.propose_day` does, ConfigError."""
        unknown = {item.symbol for item in book.instruments} - {s for v in self.venues.values() for s in v.symbols}
        if unknown:
            raise ConfigError(f"symbol {min(unknown)} is among no venue's symbols: it cannot be written in FIX")
        proposed = propose_day(self.gateway, book, by, read_now())
        self.try_commit()
        return proposed

    def approve_day(self, change: str, by: str) -> list[str] | None:
        """Count a person; with the second the day starts. Raises what `day.approve_day` does."""
        differs = approve_day(self.gateway, change, by, read_now())
        if differs is not None:
            self.orders.history.clear()
            for drop in self.drops.values():
                drop.start_day()
            for feed in self.feeds.values():
                feed.show_all()
        self.try_commit()
        return differs

    def end_day(self) -> str:
        """End the day and roll the journal. Raises what `day.end_day` does."""
        name = end_day(self.gateway, read_now())
        self.orders.history.clear()
        self.try_commit()
        collect_all()
        return name

    def try_commit(self) -> None:
        """`commit` where nobody waits for it: a journal that fails is logged, and has broken the gateway."""
        try:
            self.commit(read_now())
            self._publish()
        except JournalError as error:
            self._journal_failed(error)
        except Exception as error:
            self._escaped("what was decided could not be sent", error)

    def _journal_failed(self, error: JournalError) -> None:
        if not self._said:
            self._said = True
            log.critical("the journal failed: %s", error)

    def _escaped(self, what: str, error: BaseException) -> None:
        """An exception that nobody caught: nothing trades on behind it. Never raises."""
        log.critical("%s", what, exc_info=error)
        self.halts += 1
        self.gateway.halt(f"{what}: {type(error).__name__}: {error}", read_now())

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Of the event loop: a callback or a task raised. One of a socket's end takes that socket's line down alone."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError) or "transport" in context or "protocol" in context:
            loop.default_exception_handler(context)
        else:
            self._escaped(str(context.get("message", "a callback raised")), error)

    def _hear(self, event: Event) -> None:
        """The core's listener: keep for later what is not durable yet."""
        self._events.append(event)
        if type(event) is Accepted and type(event.request) is Cancel:
            self.transport.asked.add(event.request_id)

    def _publish(self) -> None:
        events, self._events = self._events, []
        for event in events:
            try:
                report = told_by(event)
                if report is not None:
                    order = self.gateway.state.orders.get(report.order_id)
                    if order is not None:
                        self.orders.tell(order, report)
                for listener in self.listeners:
                    listener(event)
            except Exception:  # whoever listens must not stop what trades
                log.exception("a listener failed at %s", type(event).__name__)

    def _drain(self) -> None:
        self._drain_scheduled = False
        gateway, now, inbox = self.gateway, read_now(), self._inbox
        for _ in range(len(inbox)):
            came = inbox.popleft()
            try:
                if came.answer is not None:
                    follow(self, came, now)
            except Exception as error:
                self._escaped(f"what venue {came.venue} said could not be followed", error)
            if came.halt:
                self.halt(came.halt)
            if came.well:
                self._recover(f"venue {came.venue} is well")
        if not self.orders.is_scheduled:  # else one sync makes this and the next group durable
            self.try_commit()
        if gateway.broken:
            self._events.clear()

    def _drop_failed(self, reason: str) -> None:
        self.came(Came("", halt=reason))

    def _recover(self, why: str) -> None:
        """Reconcile once every session is well, where the gateway is halted; in paper trading, arm."""
        if any(session.not_well for session in self.sessions.values()) or not self.gateway.state.halted:
            return
        self._again = self._recovery is not None and not self._recovery.done()
        if not self._again:
            log.info("%s: reconciling", why)
            self._recovery = asyncio.get_running_loop().create_task(self._recovering(), name="recovery")

    async def _recovering(self) -> None:
        try:
            breaks = await self.reconcile()
            if breaks or not self.settings.auto_arm:
                log.warning("reconciled with %d breaks: a person arms", len(breaks))
                return
            await strategies_back(self.gateway)
            arm(self.gateway, PAPER[0], read_now())
            self.try_commit()
            log.warning("PAPER TRADING: armed without a person")
        except Exception as error:
            log.exception("recovery failed")
            self.halt(f"recovery failed: {type(error).__name__}: {error}")
        finally:
            again, self._again = self._again, False
            if again and not self.stopping:
                asyncio.get_running_loop().call_soon(self._recover, "a session came back meanwhile")

    async def _tick(self) -> None:
        """Ten times a second: the watch, the clock's offset, and what is pending."""
        measured = 0.0
        while True:
            self.pulse.beat()
            now = read_now()
            try:
                if time.monotonic() - measured >= 1.0:
                    measured = time.monotonic()
                    offset_ns = 0 if self.settings.clock == "assumed" else kernel_offset_ns()
                    if offset_ns is not None:  # not measured: the last measurement grows old, and orders stop
                        self.watch.clock_offset(offset_ns, now)
                self.watch.tick(now)
            except Exception as error:
                self.halt(f"the tick failed: {type(error).__name__}: {error}")
            self.try_commit()
            await asyncio.sleep(self.settings.tick_s)

    async def _end(self, tick: "asyncio.Task[None]") -> None:
        """Deny, cancel what works, wait for it to be confirmed, close everything."""
        self.stopping = True
        gateway, loop = self.gateway, asyncio.get_running_loop()
        self.halt("the gateway is stopping")
        if self.settings.cancel_on_stop and any(not session.not_well for session in self.sessions.values()):
            with suppress(Exception):
                for order in list(gateway.state.open_orders.values()):
                    if not order.cancelling:
                        gateway.cancel_order(order, "the gateway is stopping", read_now())
            self.try_commit()
            deadline = loop.time() + self.settings.stop_s
            while gateway.state.open_orders and loop.time() < deadline:
                await asyncio.sleep(0.02)
        if gateway.state.open_orders:
            log.warning("%d orders are still working at the venues", len(gateway.state.open_orders))
        tick.cancel()
        if self._recovery is not None:
            self._recovery.cancel()
        self.orders.close("the gateway is stopping")
        for feed in self.feeds.values():
            await feed.stop()
        await asyncio.to_thread(self.killer.stop)
        stops = [end.stop for end in self.sessions.values()] + [end.stop for end in self.drops.values()]
        await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops), return_exceptions=True)
        self._drain()
        gateway.journal.close()
        (self.settings.folder / "ports.json").unlink(missing_ok=True)
        log.info("stopped at journal sequence %d", gateway.journal.sequence)

    def _write_ports(self) -> None:
        path = self.settings.folder / "ports.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({**self.ports, "pid": os.getpid()}))
        os.replace(temporary, path)
