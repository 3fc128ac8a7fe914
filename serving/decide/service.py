"""The decide service as a process: HTTP, the registry's follower, metrics and probes."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.decide.app import make_app
from serving.decide.auth import Gate, checked_protocol
from serving.decide.catalogue import Catalogue, Refusal
from serving.decide.metrics import Metrics
from serving.decide.settings import DecideSettings
from serving.decide.signed import SignedRegistry
from serving.observe.alerts import Alerts
from serving.observe.metrics import MetricsServer, Probes, Pulse, new_registry
from serving.signing import open_verifier

log = logging.getLogger(__name__)
HANGS_AFTER_S = 5.0


class _Server(uvicorn.Server):
    """Signals are the service's: uvicorn would raise them again after a stop in good order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class DecideService:
    """Runs until it is stopped."""

    def __init__(self, settings: DecideSettings) -> None:
        """Read the promoter's public key. Raises InputError where there is none, OSError without the alerts' token."""
        self.settings = settings
        token = "" if settings.alert_token_file is None else settings.alert_token_file.read_text().strip()
        self.alerts = Alerts("decide", settings.alert_url, token)
        registry = SignedRegistry(settings.registry, open_verifier(settings.verifying_key))
        self._registry = registry
        self.catalogue = Catalogue(registry, settings.keep_s, self._refused)
        numbers = new_registry()
        self._metrics = Metrics(numbers, self.catalogue)
        self._numbers = numbers
        self._pulse = Pulse("the event loop", HANGS_AFTER_S)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve. Raises OSError where a port cannot be had."""
        settings, loop = self.settings, asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError, NotImplementedError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(name, self._stop.set)
        self.alerts.start()
        self.catalogue.refresh()
        listener = socket.create_server((settings.host, settings.port), backlog=512)
        probes = Probes(self._pulse.why_not, self._why_not_ready)
        metrics = MetricsServer(self._numbers, probes, settings.metrics_host, settings.metrics_port)
        metrics.start()
        server = _Server(self._config())
        port = listener.getsockname()[1]
        try:
            serve = asyncio.create_task(server.serve([listener]))
            follow = asyncio.create_task(self._follow())
            stop = asyncio.create_task(self._stop.wait())
            while not server.started and not serve.done():
                await asyncio.sleep(0.01)
            write_ports(settings.folder, http=port, metrics=metrics.port)
            _settle()
            log.info("deciding on %s:%d, metrics on %d", settings.host, port, metrics.port)
            done, _ = await asyncio.wait({serve, follow, stop}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            follow.cancel()
            await serve
            for task in done - {serve}:
                task.result()  # raises what it raised
        finally:
            metrics.stop()
            listener.close()
            self.alerts.stop()

    def stop(self) -> None:
        """Ask for the end, from the event loop's thread."""
        self._stop.set()

    def _config(self) -> uvicorn.Config:
        settings = self.settings
        context = settings.tls()
        gate = Gate(settings.tokens, context is not None, settings.allow_anonymous_loopback)
        protocol = HttpToolsProtocol if context is None else checked_protocol(settings.subjects)
        config = uvicorn.Config(
            make_app(self.catalogue, gate, self._metrics), http=protocol, loop="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False, proxy_headers=False, ws="none",
            timeout_keep_alive=120, timeout_graceful_shutdown=5,
        )  # fmt: skip
        config.load()
        config.ssl = context
        return config

    async def _follow(self) -> None:
        """Look for a changed journal often, read everything again now and then; the event loop never waits for it."""
        seen, read_s = self._registry.changed(), time.monotonic()
        while True:
            await asyncio.sleep(self.settings.watch_s)
            self._pulse.beat()
            now = self._registry.changed()
            if now != seen:
                seen, read_s = now, time.monotonic()
                await asyncio.to_thread(self.catalogue.refresh)
            elif time.monotonic() - read_s > self.settings.poll_s:
                read_s = time.monotonic()
                await asyncio.to_thread(self.catalogue.refresh)
                await asyncio.to_thread(self.catalogue.check)

    def _why_not_ready(self) -> str:
        if self.catalogue.champion is None:
            refused = "; ".join(f"{item.what}: {item.reason}" for item in self.catalogue.refusals)
            return f"no champion is loaded{': ' if refused else ''}{refused}"
        return ""

    def _refused(self, refusal: Refusal) -> None:
        self._metrics.refused(refusal)
        self.alerts.raise_("critical", "refused", f"{refusal.what}: {refusal.reason}", refused=refusal.what)


def write_ports(folder: Path, **ports: int) -> None:
    """Say in `ports.json` what was bound, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".ports.json.{os.getpid()}"
    partial.write_text(json.dumps(ports))
    os.replace(partial, folder / "ports.json")


def _settle() -> None:
    """What was made at the start stays: the collector need not look at it again, and looks seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
