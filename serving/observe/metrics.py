"""Metrics and probes of a process on a port of their own: `GET /metrics`, `/livez`, `/readyz`, and nothing else.

    probes = Probes(live=lambda: "", ready=lambda: "no champion is loaded")
    server = MetricsServer(registry, probes, host, port); server.start(); ...; server.stop()

With a token `/metrics` is for whoever has it; probes are for everybody who reaches the port, and say little.
A probe gives "" when all is well and else the reason, which is the body of the 503. The server has threads of its own:
an event loop that hangs shows as a probe that says so (`Pulse`), not as a metrics port that hangs too.
"""

import hmac
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

TIMEOUT_S = 5.0
"""A client that sends nothing for so long is let go."""


class Probes(NamedTuple):
    """Called in the server's threads; each gives "" or why not, and must not block."""

    live: Callable[[], str]  # the process does its work, or must be restarted
    ready: Callable[[], str]  # it takes what others send


class Pulse:
    """Whether something that must go round still does: `beat` in it, `why_not` as a probe."""

    def __init__(self, what: str, limit_s: float) -> None:
        self._what, self._limit_s = what, limit_s
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """It went round."""
        self._beaten = time.monotonic()

    def why_not(self) -> str:
        """The reason where it last went round longer ago than its limit."""
        silent_s = time.monotonic() - self._beaten
        return f"{self._what} stands still for {silent_s:.1f} s" if silent_s > self._limit_s else ""


def new_registry() -> CollectorRegistry:
    """A registry with what the platform says of any process: CPU, memory, open files, versions."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class MetricsServer:
    """Serves a registry and two probes from threads of its own."""

    def __init__(
        self, registry: CollectorRegistry, probes: Probes, host: str = "127.0.0.1", port: int = 0, token: str = ""
    ) -> None:
        """Bind; `port` 0 takes any. `token`: what a scrape must bear. Raises OSError where the port cannot be had."""
        pages, bearer = _pages(registry, probes), f"Bearer {token}" if token else ""

        class Handler(_Handler):
            answers, wanted = pages, bearer

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True, args=(0.1,))

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(TIMEOUT_S)
        self._server.server_close()


Page = Callable[[], tuple[int, str, bytes]]


def _pages(registry: CollectorRegistry, probes: Probes) -> dict[str, Page]:
    def probe(check: Callable[[], str]) -> tuple[int, str, bytes]:
        try:
            reason = check()
        except Exception as error:
            reason = f"the probe failed: {type(error).__name__}: {error}"
        return (503 if reason else 200), "text/plain; charset=utf-8", (reason or "ok").encode() + b"\n"

    return {
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
        "/livez": lambda: probe(probes.live),
        "/readyz": lambda: probe(probes.ready),
    }


def _unauthorized() -> tuple[int, str, bytes]:
    return 401, "text/plain; charset=utf-8", b"a bearer token is needed\n"


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Page]
    wanted: str
    server_version = "shortfall"
    sys_version = ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        path = self.path.partition("?")[0]
        page = self.answers.get(path)
        given = self.headers.get("Authorization") or ""
        if self.wanted and path == "/metrics" and not hmac.compare_digest(given.encode(), self.wanted.encode()):
            page = _unauthorized
        try:
            status, kind, body = (404, "text/plain; charset=utf-8", b"not found\n") if page is None else page()
        except Exception as error:  # a collector failed: say so, and stay up
            status, kind, body = 500, "text/plain; charset=utf-8", f"{type(error).__name__}: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a probe a second is no news."""
