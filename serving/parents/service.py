"""The EMS as a process: one thread owns the core; feed, gateway, policies, HTTP and FIX hand to it and wait for it.

What comes in is taken at once; what the core wants is done together in `flush`: the records are made durable, then
requests leave, then policies are asked and clients are told. The first failure of the journal ends the process: what it
left is recovered at the next start.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import uvicorn

from feature_repo.errors import InputError
from serving.contracts.decisions import Decision
from serving.contracts.orders import Report
from serving.decide.protocol import PolicyClient
from serving.observe.alerts import Alerts, Severity
from serving.observe.metrics import MetricsServer, Probes, Pulse, new_registry
from serving.parents.access import Access
from serving.parents.app import make_app
from serving.parents.asking import Asker
from serving.parents.core import Core
from serving.parents.fix_inbound import FixInbound
from serving.parents.gateway_line import GatewayLine
from serving.parents.journal import DiskError, ParentsJournal
from serving.parents.metrics import Metrics
from serving.parents.orders import Parent
from serving.parents.outputs import Alert, Ask, ParentRequest, Refusal, Run
from serving.parents.pacing import Pacer, write_ports
from serving.parents.records import Shadowed
from serving.parents.settings import ParentsSettings
from serving.wire.feed_socket import FeedClient
from serving.wire.feed_state import Follower
from serving.wire.fix_numbers import Scale

log = logging.getLogger(__name__)
HANGS_AFTER_S = 5.0
STOP_S = 3.0
SEVERITIES: dict[str, Severity] = {"champion": "info", "fallback": "critical", "overfill": "critical"}
"""Alerts that are not warnings."""


class _Server(uvicorn.Server):
    """Signals are the service's: uvicorn would raise them again after a stop in good order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ParentsService:
    """Runs until it is stopped or fails. Also what HTTP (`app.Works`), FIX (`fix_inbound.Desk`) and lines talk to."""

    def __init__(self, settings: ParentsSettings, policies: PolicyClient | None = None) -> None:
        """Take the journal and replay it. Raises InputError, LockedError, JournalError, OSError.

        `policies` in place of the decide service of the settings, for tests.
        """
        self.settings = settings
        instruments = settings.known_instruments()
        self._journal, self.state = ParentsJournal.open(settings.folder)
        self._ended_ns = self.state.utc_ns
        try:
            self.core = Core(settings.rules(), instruments, self.state, secrets.token_hex(4), time.time_ns())
        except InputError:
            self._journal.close()
            raise
        anonymous = next(iter(settings.accounts)) if settings.allow_anonymous_loopback else None
        self.access = Access(settings.clients, settings.own_tls() is not None, anonymous)
        self.scales = {s: Scale.of(repr(i.tick_size), repr(i.lot_size)) for s, i in instruments.items()}
        registry = new_registry()
        self._registry, self._metrics = registry, Metrics(registry, self.core)
        self._pulse = Pulse("the event loop", HANGS_AFTER_S)
        self._pacer = Pacer(
            self.core, self.flush, settings.speed, settings.paces, settings.told_s, settings.feed_has_no_send_time
        )
        self._policies = policies
        self._asker: Asker | None = None
        token = "" if settings.alert_token_file is None else settings.alert_token_file.read_text().strip()
        self._alerts = Alerts("parents", settings.alert_url, token)
        self._lines: dict[str, GatewayLine] = {}
        self._fix: FixInbound | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushing = self._scheduled = False
        self.failure = ""
        self.ports: dict[str, int] = {}
        self.ready = asyncio.Event()
        if self._journal.torn:
            log.warning("the journal's torn tail was set aside: %s", self._journal.torn)

    async def run(self) -> None:
        """Serve. Raises OSError where a port cannot be had, RuntimeError with the reason where it failed."""
        settings, loop = self.settings, asyncio.get_running_loop()
        self._loop = loop
        loop.set_exception_handler(self._unhandled)
        for name in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError, NotImplementedError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(name, self._stop.set)
        listener = socket.create_server((settings.host, settings.port), backlog=128)
        probes = Probes(self._pulse.why_not, self._why_not_ready)
        metrics = MetricsServer(
            self._registry, probes, settings.metrics_host, settings.metrics_port, settings.metrics_token()
        )  # fmt: skip
        metrics.start()
        self._alerts.start()
        self.flush()
        try:
            self._asker = Asker(self.core, settings, self._wake, self._policies)
            await self._asker.first(self._stop.is_set)
            self._open_lines()
            self._open_feed()
            server, serving = self._serve(listener)
            self.ports = {"http": listener.getsockname()[1], "metrics": metrics.port, **self._open_fix()}
            write_ports(settings.folder, **self.ports)
            log.info("parents on %s:%d", settings.host, self.ports["http"], extra={"ports": self.ports})
            for work in (self._pacer.tick(self._went_round), self._asker.follow()):
                self._spawn(work)
            self.ready.set()
            await self._stop.wait()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=STOP_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._fix is not None:
                await asyncio.to_thread(self._fix.stop)
            if self._asker is not None:
                await self._asker.close()
            metrics.stop()
            await asyncio.to_thread(self._alerts.stop)
            listener.close()
            self._journal.close()
        if self.failure:
            raise RuntimeError(self.failure)

    def stop(self) -> None:
        """Ask for the end; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    # What HTTP and FIX ask --------------------------------------------------------------------------------------------

    def submit(self, request: ParentRequest) -> Parent:
        """Take a parent; durable on return. Raises Refusal, RuntimeError where the journal cannot be written."""
        if self.failure:
            raise RuntimeError(self.failure)
        if self._journal.is_full() and self.state.find(request.account, request.parent_id) is None:
            raise Refusal("busy", "the disk of the journal is nearly full: no new parent is taken")
        return self._do(self.core.submit, request, time.time_ns())

    def cancel(self, parent: Parent, reason: str) -> None:
        """End a parent. Raises Refusal, RuntimeError."""
        self._do(self.core.cancel, parent, reason, time.time_ns())

    def replace(self, parent: Parent, lots: int, parent_id: str = "") -> None:
        """Change a parent's size. Raises Refusal, RuntimeError."""
        self._do(self.core.replace, parent, lots, time.time_ns(), parent_id)

    def find(self, account: str, parent_id: str) -> Parent | None:
        """A parent of an account by its id."""
        return self.state.find(account, parent_id)

    def parents_of(self, account: str) -> list[Parent]:
        """All parents of an account, oldest first."""
        return [parent for parent in self.state.parents.values() if parent.account == account]

    def parent(self, number: int) -> Parent:
        """A parent by its number."""
        return self.state.parents[number]

    def run_of(self, parent: Parent) -> Run | None:
        """What is held of a parent at work."""
        return self.core.runs.get(parent.number)

    def shadows(self) -> list[Shadowed]:
        """Decisions of challengers, oldest first."""
        return self.state.shadows

    def market_ns(self) -> int:
        """Time of the market."""
        return self.core.now_ns

    def later(self, call: Callable[..., None], *arguments: Any) -> None:
        """Do something in the event loop's thread, from any."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    # What the lines to the gateway tell -------------------------------------------------------------------------------

    def line_up(self, account: str) -> None:
        """See gateway_line.LineUser."""
        self._hear(self.core.line_up, account)

    def line_down(self, account: str, reason: str) -> None:
        """See gateway_line.LineUser."""
        log.warning("the line of account %s to the gateway is down: %s", account, reason)
        self._hear(self.core.line_down, account, reason)

    def decided(self, account: str, decision: Decision) -> None:
        """See gateway_line.LineUser."""
        self._hear(self.core.answered, account, decision, time.time_ns())

    def reported(self, account: str, report: Report) -> None:
        """See gateway_line.LineUser."""
        self._hear(self.core.reported, account, report, time.time_ns())

    # Doing what the core wants ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make records durable, then send, ask and tell, until nothing more is wanted."""
        if self._flushing:
            return
        self._flushing, self._scheduled = True, False
        try:
            while not self.failure:
                out = self.core.drain()
                if not (out.records or out.sends or out.asks or out.alerts):
                    break
                first = self._journal.sequence + 1
                if out.records:
                    began = time.perf_counter()
                    self._journal.append(out.records)
                    self._metrics.journal_s.observe(time.perf_counter() - began)
                self._metrics.follow(out.records)
                for account in {item.account for item in out.sends}:
                    if account in self._lines:
                        self._lines[account].send([item.request for item in out.sends if item.account == account])
                for ask in out.asks:
                    self._spawn(self._ask(ask))
                if self._fix is not None:
                    for place, record in enumerate(out.records):
                        self._fix.follow(record, first + place)
                for alert in out.alerts:
                    self._alert(alert)
        except DiskError as error:
            self._fail(str(error))
        except Exception as error:  # what was wanted is lost: nothing may go on from here
            self._escaped("what the core wanted was not done", error)
        finally:
            self._flushing = False
        self._pacer.changed.set()

    def _hear(self, call: Callable[..., None], *arguments: Any) -> None:
        """Hand something to the core that nobody waits for; what it cannot follow ends the process."""
        if self.failure:
            return
        try:
            call(*arguments)
        except Exception as error:
            self._escaped("the core could not follow", error)
        self._wake()

    def _escaped(self, what: str, error: BaseException) -> None:
        log.critical("%s", what, exc_info=error)
        self._fail(f"{what}: {type(error).__name__}: {error}")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Of the event loop: a callback raised. One of a socket's end is that socket's alone."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError) or "transport" in context or "protocol" in context:
            loop.default_exception_handler(context)
        else:
            self._escaped(str(context.get("message", "a callback raised")), error)

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self.failure:
            raise RuntimeError(self.failure)
        try:
            found = call(*arguments)
        except Refusal:
            raise
        except Exception as error:  # half of it may have happened
            self._escaped("a request could not be followed", error)
        finally:
            self.flush()
        if self.failure:
            raise RuntimeError(self.failure)
        return found

    def _wake(self) -> None:
        """Flush once whatever came together has been taken."""
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def alert(self, what: str, message: str) -> None:
        """Tell people."""
        self._alert(Alert(what, message, {}))

    def _alert(self, alert: Alert) -> None:
        self._metrics.alerted(alert)
        self._alerts.raise_(SEVERITIES.get(alert.what, "warning"), alert.what, alert.message, **alert.fields)

    def _fail(self, reason: str) -> None:
        self._alerts.raise_("critical", "failed", f"parents cannot go on: {reason}")
        self.failure = self.failure or reason
        self._stop.set()

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(f"{type(task.exception()).__name__}: {task.exception()}")

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open_lines(self) -> None:
        settings = self.settings
        for name, account in settings.accounts.items():
            tls = settings.tls_to_others()
            line = self._lines[name] = GatewayLine(
                name, (account.strategy, account.fallback_strategy), (lambda: "") if tls else account.token,
                settings.gateway_host, settings.gateway_port, self, tls,
            )  # fmt: skip
            self._spawn(line.run())

    def _open_feed(self) -> None:
        settings = self.settings
        tls = settings.tls_to_others() if settings.feed_url.startswith("wss://") else None
        follower = Follower(settings.symbols)
        feed = FeedClient(settings.feed_url, follower, self._pacer.on_feed, paces=settings.paces, tls=tls)
        self._spawn(feed.run())
        self._spawn(self._pacer.pace(feed))

    def _serve(self, listener: socket.socket) -> "tuple[uvicorn.Server, asyncio.Task[None]]":
        config = uvicorn.Config(
            make_app(self), http=self.access.protocol(), loop="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False, proxy_headers=False, ws="none",
            timeout_keep_alive=60, timeout_graceful_shutdown=2, limit_concurrency=256,
        )  # fmt: skip
        config.load()
        config.ssl = self.settings.own_tls()
        server = _Server(config)
        return server, self._spawn(server.serve([listener]))

    def _open_fix(self) -> dict[str, int]:
        settings = self.settings
        if not settings.fix_peers:
            return {}
        port = settings.fix_port
        if not port:  # QuickFIX does not say which port it took
            with socket.create_server((settings.fix_host, 0)) as probe:
                port = int(probe.getsockname()[1])
        self._fix = FixInbound(settings, self.scales, self, port, self._ended_ns)
        self._fix.start()
        return {"fix": port}

    # Going round ------------------------------------------------------------------------------------------------------

    def _went_round(self) -> None:
        self._pulse.beat()
        if self._journal.is_due(time.time_ns()):
            self._roll()
        if self._fix is not None and self._fix.failure:
            self._fail(f"FIX stopped: {self._fix.failure}")

    def _roll(self) -> None:
        """Begin the day's file of the journal: all that is remembered must be written first."""
        self.flush()
        if self.failure:
            return
        try:
            self._journal.roll(self.state, time.time_ns())
        except DiskError as error:
            self._fail(str(error))

    async def _ask(self, ask: Ask) -> None:
        assert self._asker is not None
        began = time.perf_counter()
        await self._asker.ask(ask)
        self._metrics.decide_s.observe(time.perf_counter() - began)
        self.flush()

    def _why_not_ready(self) -> str:
        """It takes orders, changes and questions; while feed or gateway are away parents wait, and say for what."""
        return self.failure or ("" if self.ready.is_set() else "it is starting")
