"""What nobody thought of, asked of the admin API: schemathesis over its own schema, and bytes that are no HTTP."""

import socket

import pytest
import schemathesis
from gateway_served import Served
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

EXAMPLES = 40


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("fuzz")) as served:
        yield served


def test_no_request_is_a_server_error_or_answered_beyond_the_schema(served):
    asked = set()
    schema = schemathesis.openapi.from_dict(served.process.admin_app.openapi())
    for found in schema.exclude(path="/v1/events").get_all_operations():  # a stream: it never ends
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            database=None,
        )  # fmt: skip
        @given(case=operation.as_strategy(), who=st.sampled_from(["ann", "bob", "mon", "risk"]))
        def ask(case, who):
            headers = {"Authorization": f"Bearer {served.files.admin_tokens[who]}"}
            answer = case.call(base_url=served.base, headers=headers, timeout=30)
            asked.add((case.operation.path, answer.status_code))
            case.validate_response(answer, checks=[not_a_server_error, status_code_conformance])

        ask()
    assert len({path for path, _ in asked}) == 21
    assert {200, 403, 409, 422} <= {status for _, status in asked}


def test_whatever_was_asked_the_gateway_stands(served):
    assert not served.gateway.broken
    assert served.service.pulse.why_not() == ""
    with served.client() as client:
        assert client.get("/v1/state").status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 64, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/kill HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/kill HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
def test_bytes_that_are_no_http_end_their_connection_alone(served, raw):
    with socket.create_connection(("127.0.0.1", served.process.admin.port), timeout=5) as line:
        line.sendall(raw)
        line.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while part := line.recv(4096):
                said += part
        except ConnectionError:
            pass
    assert b" 500 " not in said[:20]
    with served.client() as client:
        assert client.get("/v1/state").status_code == 200
