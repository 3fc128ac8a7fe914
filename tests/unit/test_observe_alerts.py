"""Alerts: out at once, tried again, bounded, and never in the way of whoever raises them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fix_peers import until
from pydantic import ValidationError

from serving.decide.settings import DecideSettings
from serving.gateway.settings import GatewaySettings
from serving.observe import alerts as module
from serving.observe.alerts import Alerts
from serving.parents.settings import ParentsSettings


class Hook:
    """A webhook that answers as it is told."""

    moved_to = ""

    def __init__(self, answers=()):
        hook = self
        self.heard, self.tokens, self.answers, self.hold = [], [], list(answers), threading.Event()
        self.hold.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.hold.wait(10)
                hook.heard.append(body)
                hook.tokens.append(self.headers.get("Authorization"))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                if hook.moved_to:
                    self.send_header("Location", hook.moved_to)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/"

    def close(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture()
def hook():
    hook = Hook()
    yield hook
    hook.close()


def test_alert_is_posted_with_what_people_need(hook):
    alerts = Alerts("gateway", hook.url, token="s3cret" * 8)
    alerts.start()
    alerts.raise_("critical", "kill", "all is killed, token=abcdefgh", scope="all")
    until(lambda: alerts.sent == 1, "the alert")
    alerts.stop()
    (body,) = hook.heard
    assert (body["process"], body["severity"], body["what"], body["scope"]) == ("gateway", "critical", "kill", "all")
    assert body["message"] == "all is killed, token=***" and body["utc_ns"] > 0
    assert hook.tokens == ["Bearer " + "s3cret" * 8]


@pytest.mark.parametrize(
    ("url", "token", "error"),
    [
        ("http://alerts.example.com/hook", "t", "plain http beyond loopback"),
        ("http://10.0.0.7/hook", "t", "plain http beyond loopback"),
        ("http://localhost/hook", "t", "plain http beyond loopback"),  # a name may be anybody
        ("http://127.0.0.1@alerts.example.com/hook", "t", "plain http beyond loopback"),
        ("ftp://alerts.example.com/hook", "", "neither http nor https"),
        ("https:///hook", "", "neither http nor https"),
        (None, "t", "nobody to give the token to"),
    ],
)
def test_webhook_that_would_show_the_token_is_refused_at_the_start(url, token, error):
    with pytest.raises(ValueError, match=error):
        Alerts("gateway", url, token)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("https://a.example.com/", "t"),
        ("http://127.0.0.1:9/", "t"),
        ("http://[::1]:9/", "t"),
        ("http://a.example.com/", ""),
    ],
)
def test_webhook_that_shows_no_token_is_taken(url, token):
    Alerts("gateway", url, token)


@pytest.mark.parametrize("kind", [DecideSettings, GatewaySettings, ParentsSettings])
def test_every_process_refuses_a_token_over_plain_http(kind):
    more = {} if kind is GatewaySettings else {"allow_anonymous_loopback": True}
    with pytest.raises(ValidationError, match="plain http beyond loopback"):
        kind(alert_url="http://alerts.example.com/", alert_token_file="token", **more)


def test_token_does_not_follow_where_a_webhook_has_moved(monkeypatch):
    monkeypatch.setattr(module, "TRIES", 1)
    other = Hook()
    hook = Hook(answers=[302, 307])
    hook.moved_to = other.url
    alerts = Alerts("gateway", hook.url, token="t" * 32)
    alerts.start()
    alerts.raise_("warning", "halted", "one")
    alerts.raise_("warning", "halted", "two")
    until(lambda: alerts.failed == 2, "the redirections")
    alerts.stop()
    assert len(hook.heard) == 2 and not other.heard
    hook.close()
    other.close()


def test_webhook_that_fails_is_tried_again(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)
    hook = Hook(answers=[500, 503])
    alerts = Alerts("gateway", hook.url)
    alerts.start()
    alerts.raise_("warning", "halted", "again")
    until(lambda: alerts.sent == 1, "the third try")
    alerts.stop()
    hook.close()
    assert len(hook.heard) == 3


def test_webhook_that_hangs_blocks_nobody_and_the_queue_is_bounded(hook, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_MAX", 10)
    hook.hold.clear()
    alerts = Alerts("gateway", hook.url)
    alerts.start()
    for number in range(100):
        alerts.raise_("warning", "denial", str(number))
    assert alerts.raised == 100 and alerts.dropped >= 100 - 10 - module.WORKERS
    hook.hold.set()
    alerts.stop()


def test_without_an_address_alerts_are_logged_alone(caplog):
    alerts = Alerts("gateway")
    alerts.start()
    alerts.raise_("critical", "kill", "all is killed")
    alerts.stop()
    assert "ALERT kill: all is killed" in caplog.text and alerts.raised == 1


def test_nobody_at_the_address_is_counted_as_failed(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", 0.001)
    alerts = Alerts("gateway", "http://127.0.0.1:9/")
    alerts.start()
    alerts.raise_("critical", "kill", "x")
    until(lambda: alerts.failed == 1, "giving up")
    alerts.stop()
