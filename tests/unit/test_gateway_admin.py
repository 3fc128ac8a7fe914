"""The admin plane: who may do what, two people where two are needed, and no other way in."""

import json
from threading import Thread

import httpx
import pytest
import yaml
from fix_peers import until
from gateway_served import Served

from serving.gateway import killing
from serving.gateway.killing import kill_locally

COMMANDS = {
    "/v1/kill": ("kill", {"scope": "strategy", "name": "nobody"}),
    "/v1/reconcile": ("arm", {}),
    "/v1/arm": ("arm", {}),
    "/v1/rearm": ("arm", {"scope": "strategy", "name": "never killed"}),
    "/v1/liquidate": ("risk", {"scope": "strategy", "name": "never killed"}),
    "/v1/reset": ("risk", {"scope": "strategy", "name": "any"}),
    "/v1/posture": ("posture", {"scope": "strategy", "name": "s9", "factor_bps": 5_000, "lasts_s": 60}),
    "/v1/limits/approve": ("risk", {"change": "0" * 64}),
    "/v1/limits/propose": ("risk", "version: 1"),
    "/v1/day/propose": ("risk", "date: 2020-01-01"),
    "/v1/day/approve": ("risk", {"change": "0" * 64}),
    "/v1/day/tighten": ("risk", {"restricted": ["SYN1"]}),
    "/v1/reload": ("risk", {}),
    "/v1/reload/approve": ("risk", {"change": "0" * 64}),
    "/v1/day/end": ("risk", {}),
}
VIEWS = ("/v1/state", "/v1/orders", "/v1/positions", "/v1/limits", "/v1/denials", "/v1/proposals", "/v1/openapi.json")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


def post(client, path, body):
    if isinstance(body, str):
        return client.post(path, content=body, headers={"Content-Type": "application/yaml"})
    return client.post(path, json=body)


def limits_of(served, **more):
    document = yaml.safe_load((served.files.folder / "limits.yaml").read_text())
    document["limits"]["all"].update(more)
    return yaml.safe_dump(document)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_without_its_scope_is_refused_and_does_nothing(served, path):
    scope, body = COMMANDS[path]
    before = served.gateway.journal.sequence, served.gateway.state.hash()
    for who in {"mon", "risk"} - ({"risk"} if scope == "posture" else set()):
        with served.client(who) as client:
            answer = post(client, path, body)
        assert answer.status_code == 403 and scope in answer.json()["error"]
    assert (served.gateway.journal.sequence, served.gateway.state.hash()) == before


@pytest.mark.parametrize("path", [*COMMANDS, *VIEWS])
def test_nobody_that_is_known_hears_401_and_no_reason(served, path):
    headers = [
        {}, {"Authorization": "Bearer short"}, {"Authorization": f"Bearer {'x' * 48}"}, {"Authorization": "Basic YTpi"},
        {"Authorization": f"Bearer {served.files.client_token}"},  # of the order port: no person
    ]  # fmt: skip
    for given in headers:
        with httpx.Client(base_url=served.base, headers=given) as client:
            answer = post(client, path, COMMANDS[path][1]) if path in COMMANDS else client.get(path)
        assert answer.status_code == 401 and answer.json() == {"error": "not authenticated"}


@pytest.mark.parametrize("path", VIEWS)
def test_views_need_read_and_change_nothing(served, path):
    before = served.gateway.state.hash()
    with served.client("risk") as client:
        assert client.get(path).status_code == 403
    with served.client("mon") as client:
        assert client.get(path).status_code == 200
    assert served.gateway.state.hash() == before


def test_state_says_who_asks(served):
    with served.client("mon") as client:
        assert client.get("/v1/state").json()["you"] == {"subject": "cn=mon", "scopes": ["read"]}


def test_halted_gateway_is_live_and_ready_for_cancels_and_people(served):
    base = f"http://127.0.0.1:{served.process.metrics.port}"
    with served.client() as client:
        assert not client.get("/v1/state").json()["armed"]
    assert httpx.get(f"{base}/livez").status_code == 200
    assert httpx.get(f"{base}/readyz").status_code == 200


def test_looser_limits_hold_after_two_people_and_never_after_one_twice(served):
    with served.client("ann") as ann, served.client("bob") as bob:
        change = post(ann, "/v1/limits/propose", limits_of(served)).json()["change"]
        assert ann.post("/v1/limits/approve", json={"change": change}).json() == {"holds": False}
        again = ann.post("/v1/limits/approve", json={"change": change})
        assert again.status_code == 403 and "another person must" in again.json()["error"]
        assert served.gateway.state.limits is None
        assert bob.post("/v1/limits/approve", json={"change": change}).json() == {"holds": True}
        assert served.gateway.state.limits is not None
        # tighter holds at once; looser again does not, whoever says so
        tight = post(ann, "/v1/limits/propose", limits_of(served, max_order_lots=10)).json()
        assert tight["tightened"] and not tight["change"]
        loose = post(ann, "/v1/limits/propose", limits_of(served, max_order_lots=11)).json()
        assert not loose["tightened"] and loose["looser"] == ["all.max_order_lots 10 becomes 11"]
        assert served.gateway.state.limits.numbers["all", ""]["max_order_lots"] == 10
        # an approval is for one exact change
        other = post(ann, "/v1/limits/propose", limits_of(served, max_order_lots=10_000)).json()["change"]
        assert ann.post("/v1/limits/approve", json={"change": loose["change"]}).json() == {"holds": False}
        assert bob.post("/v1/limits/approve", json={"change": other}).json() == {"holds": False}
        assert served.gateway.state.limits.numbers["all", ""]["max_order_lots"] == 10


def test_liquidation_takes_two_people_and_a_kill(served):
    place = {"scope": "strategy", "name": "policy"}
    with served.client("ann") as ann, served.client("bob") as bob:
        assert ann.post("/v1/liquidate", json=place).status_code == 409
        said = ann.post("/v1/kill", json={**place, "reason": "test"}).json()
        assert said["message"] == "blocked, not flushed"  # nobody is at the venue's port
        assert ann.post("/v1/liquidate", json=place).json() == {"liquidating": False}
        assert ann.post("/v1/liquidate", json=place).status_code == 403
        assert bob.post("/v1/liquidate", json=place).json() == {"liquidating": True}
        assert ann.post("/v1/rearm", json=place).status_code == 409  # the book was not reconciled since
        served.reconcile()
        assert ann.post("/v1/rearm", json=place).status_code == 200
        assert not any(item["name"] == "policy" for item in ann.get("/v1/state").json()["killed"])


def test_arming_takes_a_reconciled_book_and_limits(served):
    served.do(lambda: served.service.halt("test"))
    with served.client() as client:
        refused = client.post("/v1/arm", json={})
        assert refused.status_code == 409 and "not reconciled" in refused.json()["error"]
        answer = client.post("/v1/reconcile", json={}).json()
        assert not answer["reconciled"] and "did not list its open orders" in " ".join(answer["breaks"])
        assert client.post("/v1/arm", json={}).status_code == 409


def test_posture_only_tightens(served):
    place = {"scope": "account", "name": "main"}
    with served.client("risk") as client:
        assert client.post("/v1/posture", json={**place, "factor_bps": 5_000, "lasts_s": 60}).status_code == 200
        softer = client.post("/v1/posture", json={**place, "factor_bps": 6_000, "lasts_s": 600})
        assert softer.status_code == 409 and "looser" in softer.json()["error"]
        assert client.post("/v1/posture", json={**place, "factor_bps": 10_001, "lasts_s": 60}).status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/kill", {"scope": "all", "name": "SYN"}, 422),
        ("/v1/kill", {"scope": "everything"}, 422),
        ("/v1/kill", {"scope": "symbol", "name": "x" * 65}, 422),
        ("/v1/kill", {"scope": "all", "more": 1}, 422),
        ("/v1/kill", {"scope": "symbol", "name": "Ω"}, 422),
        ("/v1/posture", {"scope": "all", "factor_bps": 1.5, "lasts_s": 1}, 422),
        ("/v1/posture", {"scope": "all", "factor_bps": True, "lasts_s": 1}, 422),
        ("/v1/limits/approve", {"change": "no"}, 422),
        ("/v1/limits/propose", "a: &x [1]\nb: *x", 422),
        ("/v1/limits/propose", "[" * 5_000, 422),
        ("/v1/limits/propose", "a: " + "9" * 5_000, 422),
        ("/v1/limits/propose", "a: 2026-99-99", 422),
        ("/v1/day/propose", "date: 2026-01-01\nopens: now\ncloses: later\ninstruments: []", 422),
        ("/v1/day/propose", json.dumps({"date": "2020-01-01", "opens": "2020-01-01T00:00:00Z",
                                      "closes": "2020-01-01T01:00:00Z", "instruments": []}), 409),
        ("/v1/day/tighten", {"restricted": ["GONE"]}, 409),
        ("/v1/day/tighten", {"volumes": [{"symbol": "SYN1", "adv_lots": 10**10}]}, 409),  # looser
        ("/v1/reload", {"people": []}, 422),
        ("/v1/arm", {"by": "CN=someone else"}, 422),
    ],
)  # fmt: skip
def test_what_is_no_value_of_the_api_is_refused_with_its_place(served, path, body, status):
    with served.client() as client:
        answer = post(client, path, body)
    assert answer.status_code == status and answer.json()["error"]


def test_body_of_another_type_or_too_large_is_refused(served):
    with served.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/yaml"):
            assert client.post("/v1/kill", content=b"{}", headers={"Content-Type": kind}).status_code == 415
        large = client.post("/v1/limits/propose", content=b"a" * 1_100_000, headers={"Content-Type": "text/yaml"})
        assert large.status_code == 413

        def chunks():
            for _ in range(20):
                yield b"a" * 100_000

        endless = client.post("/v1/limits/propose", content=chunks(), headers={"Content-Type": "text/yaml"})
        assert endless.status_code == 413


def test_page_of_another_site_may_command_nothing(served):
    before = served.gateway.journal.sequence
    with served.client() as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            answer = client.post("/v1/kill", json={"scope": "all"}, headers=headers)
            assert answer.status_code == 403
        own = client.post("/v1/reset", json={"scope": "all"}, headers={"Origin": served.base})
        assert own.status_code == 200
    assert served.gateway.journal.sequence == before + 1


def test_events_stream_what_happens_and_the_state(served):
    kinds = set()
    with served.client() as client, client.stream("GET", "/v1/events?since=0") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kinds.add(line.removeprefix("event: "))
            if {"state", "limits", "kill"} <= kinds:
                break
    assert {"state", "limits", "kill"} <= kinds


def test_streams_of_events_leave_room_for_those_who_command(served, monkeypatch):
    from contextlib import ExitStack

    monkeypatch.setattr("serving.gateway.admin.STREAMS_MAX", 3)
    with ExitStack() as stack:
        lines = []  # held, since a stream ends with its iterator
        for _ in range(3):
            answer = stack.enter_context(stack.enter_context(served.client("mon")).stream("GET", "/v1/events"))
            lines.append(answer.iter_lines())
            next(lines[-1])
        with served.client("mon") as client:
            assert client.get("/v1/events").status_code == 503
        with served.client() as client:
            assert client.post("/v1/kill", json={"scope": "strategy", "name": "nobody"}).status_code == 200


def test_views_answer_while_the_deciding_thread_is_stuck_and_commands_say_so(served, monkeypatch):
    import threading

    monkeypatch.setattr("serving.gateway.admin_commands.CALL_S", 0.3)
    monkeypatch.setattr("serving.gateway.killing.BLOCK_S", 0.3)
    hold = threading.Event()
    stuck = served.service.deciding.call(hold.wait)
    try:
        with served.client() as client:
            assert client.get("/v1/state").status_code == 200
            assert client.post("/v1/arm", json={}).status_code == 503
            said = client.post("/v1/kill", json={"scope": "venue", "name": "SYN"}).json()
            assert said["message"] == "blocked, not persisted, not flushed"
            place = ("SYN", "main", "policy", "SYN1")
            assert served.service.transport.blocks.why_not(place) == "venue SYN is being killed"
    finally:
        hold.set()
    stuck.result(10)
    until(lambda: served.service.transport.blocks.why_not(place) is None, "the kill's turn to become durable")
    assert served.gateway.state.nodes["venue", "SYN"].killed


def test_local_kill_works_again_once_there_are_files_and_without_threads(served, monkeypatch):
    killer, folder = served.service.killer, served.settings.folder

    class Flaky:
        def __init__(self, real):
            self.real, self.fails = real, 3

        def accept(self):
            self.fails -= 1
            if self.fails >= 0:
                raise OSError(24, "Too many open files")
            return self.real.accept()

    def no_thread(*, target, **more):
        if target == killer._accept:
            raise RuntimeError("can't start new thread")
        return Thread(target=target, **more)

    real = killer._socket
    with monkeypatch.context() as planted:
        planted.setattr(killing, "RETRY_S", 0.01)
        planted.setattr(killer, "_socket", flaky := Flaky(real))
        for _ in range(killing.WAITING + 1):  # the first ones are taken by the calls that waited before
            assert kill_locally(folder, "strategy", "nobody", "test", 10)["message"].startswith("blocked")
        assert flaky.fails < 0
        planted.setattr(killing.threading, "Thread", no_thread)
        planted.setattr(killing, "WAITING", 1)  # the others end, and the last one cannot be replaced
        for _ in range(8):
            assert kill_locally(folder, "strategy", "nobody", "test", 10)["message"].startswith("blocked")
    assert kill_locally(folder, "strategy", "nobody", "test", 10)["message"].startswith("blocked")
