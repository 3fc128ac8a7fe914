"""Alerts to a webhook: out within a second, and never in the way of whoever raises them.

    alerts = Alerts("gateway", url); alerts.start(); alerts.raise_("critical", "kill", "all is killed", scope="all")

`raise_` only puts into a bounded queue. WORKERS threads post one JSON object an alert, each tried up to TRIES times:
one slow answer does not hold the others back. What finds the queue full is dropped and counted: the log has it anyway.
Without an address alerts are logged and counted alone. A bearer token goes by https, or to this machine, and to no
other address than the one that was given: no redirection is followed, and no proxy asked for plain http.
"""

import ipaddress
import json
import logging
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Literal

from serving.observe.logs import masked

log = logging.getLogger(__name__)
QUEUE_MAX = 1_000
WORKERS = 4
TRIES = 5
TIMEOUT_S = 3.0
BACKOFF_S = 0.25
Severity = Literal["info", "warning", "critical"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


def check_webhook(url: str | None, has_token: bool) -> None:
    """Raises ValueError for an address that alerts, or a token, must not be posted to."""
    if url is None:
        if has_token:
            raise ValueError("alert_token_file without alert_url: there is nobody to give the token to")
        return
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"alert_url {url!r} is neither http nor https")
    if has_token and parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"alert_url {url!r} is plain http beyond loopback: it would show the token; use https")


class Alerts:
    """A bounded queue and the threads that empty it. `raise_` may be called from any thread and never blocks."""

    def __init__(self, process: str, url: str | None = None, token: str = "") -> None:
        """Raises ValueError as `check_webhook` does."""
        check_webhook(url, bool(token))
        proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme != "http"}
        self._opener = urllib.request.build_opener(_NoRedirection, urllib.request.ProxyHandler(proxies))
        self._process, self._url, self._token = process, url, token
        self._queue: queue.Queue[dict[str, object] | None] = queue.Queue(QUEUE_MAX)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.raised = self.sent = self.dropped = self.failed = 0

    def start(self) -> None:
        """Begin to post."""
        if self._url is not None:
            self._threads = [
                threading.Thread(target=self._work, name=f"alerts-{number}", daemon=True) for number in range(WORKERS)
            ]
            for thread in self._threads:
                thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Post what waits, for `timeout_s` at most."""
        deadline = time.monotonic() + timeout_s
        while not self._queue.empty() and self._threads and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping.set()
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def raise_(self, severity: Severity, what: str, message: str, **fields: object) -> None:
        """Alert: `what` is its kind, for routing and grouping; `message` is for people."""
        with self._lock:
            self.raised += 1
        log.log(_LEVELS[severity], "ALERT %s: %s", what, message, extra={"alert": what})
        if self._url is None:
            return
        body: dict[str, object] = {
            "process": self._process, "severity": severity, "what": what, "message": masked(message),
            "utc_ns": time.time_ns(), **fields,
        }  # fmt: skip
        try:
            self._queue.put_nowait(body)
        except queue.Full:
            with self._lock:
                self.dropped += 1

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                body = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if body is not None:
                sent = self._post(json.dumps(body, default=str).encode())
                with self._lock:
                    self.sent, self.failed = self.sent + sent, self.failed + (not sent)

    def _post(self, body: bytes) -> bool:
        assert self._url is not None
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        for attempt in range(TRIES):
            try:
                request = urllib.request.Request(self._url, body, headers, method="POST")
                with self._opener.open(request, timeout=TIMEOUT_S):
                    return True
            except (OSError, ValueError) as error:  # HTTPError is an OSError
                log.warning("an alert was not taken (%d of %d): %s", attempt + 1, TRIES, error)
            if self._stopping.wait(BACKOFF_S * 2**attempt):
                break
        return False


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """What is moved is a failure: urllib would take the token along to wherever the answer says."""

    def redirect_request(self, *_: object) -> None:
        """None: the answer is an HTTPError."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
