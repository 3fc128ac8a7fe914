"""Logs, metrics and probes that every serving process shares."""

import io
import json
import logging
import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter

from serving.observe.logs import MESSAGE_MAX, JsonFormatter, configure, masked
from serving.observe.metrics import MetricsServer, Probes, Pulse, new_registry


def line_of(message, *arguments, **kwargs):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, "args": arguments, **kwargs})
    return json.loads(JsonFormatter("gateway").format(record))


def test_log_line_carries_process_level_and_extra_fields():
    line = line_of("order %d", 17, order_id=17, legs=["a", "b"])
    assert (line["process"], line["level"], line["message"]) == ("gateway", "info", "order 17")
    assert line["order_id"] == 17 and line["legs"] == '["a", "b"]'
    assert line["ts"].endswith("Z")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cr3ts3cr3t",
        "token=s3cr3ts3cr3t",
        '{"password": "s3cr3ts3cr3t"}',
        "8=FIX.4.4\x0135=A\x01554=s3cr3ts3cr3t\x0110=000",
        "-----BEGIN PRIVATE KEY-----\ns3cr3ts3cr3t\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_never_reach_a_log_line(text):
    assert "s3cr3t" not in masked(text)
    assert "s3cr3t" not in json.dumps(line_of("said %s", text, detail=text))
    assert "s3cr3t" not in json.dumps(line_of("said", token="s3cr3ts3cr3t"))


def test_a_record_that_cannot_be_formatted_is_logged_all_the_same():
    assert "%d" in line_of("order %d", "seventeen")["message"]


def test_an_exception_and_a_long_field_stay_one_line():
    try:
        raise ValueError("x" * 3 * MESSAGE_MAX)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    line = line_of("failed", exc_info=info)
    assert "ValueError" in line["exception"] and len(line["exception"]) < MESSAGE_MAX + 100


def test_configure_sends_everything_one_way_and_replaces_what_was_there():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        stream = io.StringIO()
        configure("venue", stream=stream)
        configure("gateway", stream=stream)
        logging.getLogger("some.where").info("hello")
        assert [json.loads(text)["process"] for text in stream.getvalue().splitlines()] == ["gateway"]
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(False)


def get(port, path, **headers):
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_with_a_token_are_for_its_holder_and_probes_for_everybody():
    token = "s" * 40
    server = MetricsServer(new_registry(), Probes(live=lambda: "", ready=lambda: ""), token=token)
    server.start()
    try:
        for wrong in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": f"Bearer {token}x"},
            {"Authorization": token},
        ):
            assert get(server.port, "/metrics", **wrong) == (401, "a bearer token is needed\n")
            assert get(server.port, "/metrics?name[]=up", **wrong)[0] == 401
        status, text = get(server.port, "/metrics", Authorization=f"Bearer {token}")
        assert status == 200 and "process_cpu_seconds_total" in text
        assert get(server.port, "/livez")[0] == get(server.port, "/readyz")[0] == 200
    finally:
        server.stop()


def test_metrics_and_probes_say_what_the_process_says():
    registry, why = new_registry(), [""]
    Counter("shortfall_test_orders", "Orders", registry=registry).inc(3)

    def broken():
        raise RuntimeError("planted")

    server = MetricsServer(registry, Probes(live=lambda: why[0], ready=broken))
    server.start()
    try:
        assert "shortfall_test_orders_total 3.0" in get(server.port, "/metrics")[1]
        assert get(server.port, "/livez") == (200, "ok\n")
        why[0] = "the loop stands still"
        assert get(server.port, "/livez") == (503, "the loop stands still\n")
        assert get(server.port, "/readyz")[0] == 503 and "planted" in get(server.port, "/readyz")[1]
        assert get(server.port, "/v1/state")[0] == 404
    finally:
        server.stop()


def test_pulse_says_how_long_something_stands_still():
    assert Pulse("the loop", 60.0).why_not() == ""
    still = Pulse("the loop", -1.0)
    assert "the loop stands still" in still.why_not()
