"""What clients send the EMS: FIX from a foreign engine, and HTTP that means no good."""

import asyncio
import json
import socket
import time
import urllib.request
from contextlib import asynccontextmanager

import aiohttp
import pytest
from certificates import Authority
from fix_peers import RawEnd
from gateway_process import Trading
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parents_process import ACCOUNT, FIX_TOKEN, HTTP_TOKEN, SYMBOL, Resting, settings_for
from pydantic import ValidationError

from serving.contracts.orders import Acked
from serving.parents.journal import DiskError, ParentsJournal
from serving.parents.outputs import ParentRequest
from serving.parents.service import ParentsService
from serving.wire.fix_numbers import utc_text
from serving.wire.identity import client_tls, hash_token

NS = 1_000_000_000


class Nowhere:
    """Stands for a venue and a gateway that are not there."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.feed_port = probe.getsockname()[1]
        self.ports = {"order": self.feed_port}
        self.files = type("Files", (), {"client_token": "t" * 40})()


@asynccontextmanager
async def served(configured, policies=None):
    service = ParentsService(configured, policies or Resting(interval_s=5))
    task = asyncio.create_task(service.run())
    waiting = asyncio.create_task(service.ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()
    try:
        yield service
    finally:
        service.stop()
        await task


def fix_settings(folder, trading, **more):
    peers = {"OMS": {"account": ACCOUNT, "token_sha256": hash_token(FIX_TOKEN)}}
    return settings_for(folder, trading, fix_peers=peers, **more)


class Client:
    """A FIX client by simplefix."""

    def __init__(self, port, token=FIX_TOKEN, sequence=1):
        self.end = RawEnd(socket.create_connection(("127.0.0.1", port), timeout=20), "OMS", "PARENTS")
        self.end.sequence = sequence
        self.end.send("A", [(98, "0"), (108, "30"), (553, "OMS"), (554, token)])

    def logged_on(self):
        return self.end.receive("A")

    def new(self, own, until_ns, lots=30, start_ns=None, **fields):
        start = [] if start_ns is None else [(168, utc_text(start_ns))]
        base = {11: own, 55: SYMBOL, 54: "1", 38: str(lots), 40: "1", 847: "1001", 60: utc_text(1)}
        base.update({int(tag): value for tag, value in fields.items()})
        self.end.send("D", [item for item in base.items() if item[1] is not None]
                      + start + ([] if until_ns is None else [(126, utc_text(until_ns))]))  # fmt: skip

    def reports(self, *wanted):
        """Execution reports up to one whose ExecType is among `wanted`."""
        found = []
        while True:
            found.append(self.end.receive("8"))
            if found[-1]["150"] in wanted or found[-1]["39"] in wanted:
                return found

    def close(self):
        self.end.connection.close()


def test_parent_by_fix_is_acknowledged_filled_replaced_cancelled_and_asked_for(tmp_path):
    with Trading(tmp_path, venue_words=("--pace=lockstep", "--step-s=1", "--hours=1")) as trading:
        time.sleep(1.2)

        async def run():
            async with served(fix_settings(tmp_path, trading)) as service:
                client = await asyncio.to_thread(Client, service.ports["fix"])
                await asyncio.to_thread(client.logged_on)
                try:
                    return await asyncio.to_thread(talk, client, service)
                finally:
                    client.close()

        def talk(client, service):
            while not service.core.now_ns:
                time.sleep(0.01)
            client.new("A1", service.core.now_ns + 60 * NS, lots=30)
            filled = client.reports("2")
            client.new("B1", service.core.now_ns + 3000 * NS, lots=5000)
            client.reports("0")
            client.end.send("G", [(11, "B2"), (41, "B1"), (55, SYMBOL), (54, "1"), (38, "4000"), (40, "1")])
            replaced = client.reports("5")[-1]
            client.end.send("H", [(11, "B2"), (55, SYMBOL), (54, "1"), (790, "S1")])
            status = client.reports("I")[-1]
            client.end.send("F", [(11, "B3"), (41, "B2"), (55, SYMBOL), (54, "1")])
            cancelled = client.reports("4")[-1]
            client.end.send("F", [(11, "B4"), (41, "B2"), (55, SYMBOL), (54, "1")])
            late = client.end.receive("9")
            client.end.send("AF", [(584, "M1"), (585, "7")])
            nothing = client.reports("I")[-1]
            return filled, replaced, status, cancelled, late, nothing

        filled, replaced, status, cancelled, late, nothing = asyncio.run(run())
    assert filled[0]["150"] == "0" and filled[0]["39"] == "0" and filled[0]["11"] == "A1"
    trades = [report for report in filled if report["150"] == "F"]
    assert sum(int(report["32"]) for report in trades) == 30 == int(filled[-1]["14"])
    assert filled[-1]["151"] == "0" and len({report["17"] for report in filled}) == len(filled)
    assert (replaced["11"], replaced["38"]) == ("B2", "4000")
    assert (status["11"], status["790"]) == ("B2", "S1")
    assert (cancelled["39"], cancelled["11"], cancelled["41"], cancelled["151"]) == ("4", "B3", "B2", "0")
    assert "is done: cancelled" in late["58"] and late["434"] == "1"
    assert nothing["911"] == "0"


def test_fix_message_that_cannot_be_taken_is_refused_by_its_fields(tmp_path):
    async def run():
        async with served(fix_settings(tmp_path, Nowhere(), decide_wait_s=0.0)) as service:
            client = await asyncio.to_thread(Client, service.ports["fix"])
            await asyncio.to_thread(client.logged_on)
            try:
                return await asyncio.to_thread(talk, client, service), len(service.state.parents)
            finally:
                client.close()

    def talk(client, service):
        soon, said = time.time_ns() + 600 * NS, []
        for fields in ({"847": None}, {"847": "7"}, {"40": "2", "44": "100.00"}, {"44": "100.00"}, {"38": "0"},
                       {"38": "1.5"}, {"54": "9"}, {"55": "XXX"}, {"59": "3"}, {"11": "x" * 65}):  # fmt: skip
            client.new("C1", soon, **fields)
            said.append(client.end.receive("j")["58"])
        client.new("C2", None)
        said.append(client.end.receive("j")["58"])
        client.new("C3", soon, start_ns=soon + NS)
        said.append(client.end.receive("j")["58"])
        client.new("C4", soon, **{"1": "other"})
        refused = client.reports("8")[-1]
        client.new("C5", soon, lots=9_000_000, start_ns=soon - 60 * NS)
        large = client.reports("8")[-1]
        client.new("C6", soon)
        assert "time is not known" in client.reports("8")[-1]["58"]
        client.new("C6", soon, start_ns=soon - 60 * NS)
        client.reports("0")
        client.new("C6", soon, start_ns=soon - 60 * NS)
        again = client.reports("I")[-1]
        client.end.send("F", [(11, "C7"), (41, "C9"), (55, SYMBOL), (54, "1")])
        unknown = client.end.receive("9")
        client.end.send("F", [(11, "C8"), (41, "C6"), (55, SYMBOL), (54, "2")])
        other_side = client.end.receive("9")
        service.later(service.submit, ParentRequest("H1", ACCOUNT, SYMBOL, 1, 10, 60 * NS))
        client.end.send("F", [(11, "C10"), (41, "H1"), (55, SYMBOL), (54, "1")])
        assert "did not come by this session" in client.end.receive("9")["58"]
        return said, refused, large, again, unknown, other_side

    (said, refused, large, again, unknown, other_side), count = asyncio.run(run())
    for text, why in zip(said, ("TARGET_STRATEGY(847) is missing", "TargetStrategy(847) 7", "ORD_TYPE(40) 2",
                                "Price(44) on a parent", "less than one lot", "quantity 1.5", "SIDE(54) 9",
                                "Symbol XXX", "TIME_IN_FORCE(59) 3", "CL_ORD_ID(11) of 65", "EXPIRE_TIME(126) is m",
                                "does not lie after"), strict=True):  # fmt: skip
        assert why in text
    assert "account other is not main" in refused["58"] and refused["39"] == "8"
    assert "lots 9000000 is not an integer from 1 to 1000000" in large["58"]
    assert "was used before" in again["58"] and again["39"] == "0" and count == 2
    assert unknown["37"] == "NONE" and "never change" in other_side["58"]


def test_parent_that_ended_as_the_process_did_is_told_of_at_the_next_logon_and_none_that_ended_long_before(tmp_path):
    async def serve(talk, sequence=1):
        async with served(fix_settings(tmp_path, Nowhere(), decide_wait_s=0.0)) as service:
            client = await asyncio.to_thread(Client, service.ports["fix"], FIX_TOKEN, sequence)
            await asyncio.to_thread(client.logged_on)
            try:
                return await asyncio.to_thread(talk, client, service), client.end.sequence
            finally:
                client.close()

    def work(client, service):
        soon = time.time_ns() + 600 * NS
        for own in ("E1", "E2", "E3"):
            client.new(own, soon, start_ns=soon - 60 * NS)
            client.reports("0")
        for own in ("E1", "E2"):
            client.end.send("F", [(11, f"{own}-x"), (41, own), (55, SYMBOL), (54, "1")])
            client.reports("4")
        service.later(setattr, service.state.parents[1], "done_ns", 1)  # ended long ago
        service.later(service._roll)

    def listen(client, service):
        return [client.reports("I")[-1] for _ in range(2)]

    _, sequence = asyncio.run(serve(work))
    told, _ = asyncio.run(serve(listen, sequence))
    assert [(report["11"], report["39"]) for report in told] == [("E2", "4"), ("E3", "0")]


def test_fix_logon_with_another_token_is_turned_away(tmp_path):
    async def run():
        async with served(fix_settings(tmp_path, Nowhere(), decide_wait_s=0.0)) as service:
            client = await asyncio.to_thread(Client, service.ports["fix"], "g" * 40)
            return await asyncio.to_thread(client.end.closed)

    assert asyncio.run(run())


# HTTP -----------------------------------------------------------------------------------------------------------------


def parent(**more):
    return {"parent_id": "p1", "account": ACCOUNT, "symbol": SYMBOL, "side": "buy", "lots": 10, "horizon_s": 60, **more}


BAD = [
    (b"", 422), (b"{", 422), (b"[]", 422), (b"null", 422), (b"\xff\xfe", 422), (b'{"lots": NaN}', 422),
    (b"[" * 5000, 422), (b"x" * 20_000, 413),
    *[(json.dumps(parent(**change)).encode(), status) for change, status in [
        ({"lots": 0}, 422), ({"lots": -1}, 422), ({"lots": 1.0}, 422), ({"lots": "5"}, 422), ({"lots": True}, 422),
        ({"lots": 2**70}, 422), ({"lots": 10**9}, 422), ({"lots": None}, 422), ({"side": "BUY"}, 422),
        ({"side": 1}, 422), ({"horizon_s": 0}, 422), ({"horizon_s": 10**9}, 422), ({"horizon_s": 1.5}, 422),
        ({"symbol": ""}, 422),
        ({"symbol": "X" * 65}, 422), ({"symbol": "NOPE"}, 404), ({"parent_id": ""}, 422), ({"parent_id": "é"}, 422),
        ({"parent_id": "a\u0000b"}, 422), ({"parent_id": "\ud800"}, 422), ({"account": "other"}, 403),
        ({"strategy": "mine"}, 422), ({"start": -5}, 422), ({"start": 2**64}, 422), ({"more": 1}, 422),
        ({"trader": "x\ny"}, 422),
    ]],
]  # fmt: skip


@pytest.mark.parametrize("tls", [False, True], ids=["loopback", "tls"])
def test_http_refuses_with_a_reason_and_never_breaks(tmp_path, tls):
    more, context = {}, None
    if tls:
        made = Authority(tmp_path)
        certificate, key = made.issue("parents")
        subject = "commonName=oms,organizationName=desk"
        more = {
            "certificate": certificate, "key": key, "authority": made.certificate,
            "clients": {"oms": {"account": ACCOUNT, "subject": subject}},
        }  # fmt: skip
        context = client_tls(*made.issue("oms"), made.certificate)
        stranger = client_tls(*made.issue("eve"), made.certificate)

    async def run():
        configured = settings_for(tmp_path, Nowhere(), decide_wait_s=0.0, **more)
        async with served(configured) as service:
            base = f"{'https' if tls else 'http'}://127.0.0.1:{service.ports['http']}"
            headers = {} if tls else {"Authorization": f"Bearer {HTTP_TOKEN}"}
            connector = aiohttp.TCPConnector(ssl=context or True)
            async with aiohttp.ClientSession(base, headers=headers, connector=connector) as http:
                for body, status in BAD:
                    async with http.post("/v1/parents", data=body) as answer:
                        text = await answer.text()
                        assert (answer.status, bool(json.loads(text)["error"])) == (status, True), (body[:80], text)
                assert not service.state.parents
                async with http.post("/v1/parents", json=parent()) as answer:
                    assert answer.status == 202, await answer.text()
                for path, status in (("/v1/parents/p1", 200), ("/v1/parents/nope", 404), ("/v1/parents/p1/tca", 409),
                                     ("/v1/parents", 200), ("/v1/parents?limit=0", 422), ("/v1/parents?limit=x", 422),
                                     ("/v1/shadow", 200), ("/v1/parents/%00", 404), ("/v1/parents/%ff", 404),
                                     ("/v2", 404), ("/docs", 404), ("/openapi.json", 404)):  # fmt: skip
                    async with http.get(path) as answer:
                        assert answer.status == status, (path, await answer.text())
                for path, body, status in (("p1/replace", b'{"lots": 0}', 422), ("p1/replace", b"{}", 422),
                                           ("p1/replace", b'{"lots": 7}', 202), ("p1/cancel", b"rubbish", 202),
                                           ("p1/cancel", b"", 409), ("p1/replace", b'{"lots": 9}', 409),
                                           ("nope/cancel", b"", 404)):  # fmt: skip
                    async with http.post(f"/v1/parents/{path}", data=body) as answer:
                        assert answer.status == status, (path, body, await answer.text())
                async with http.get("/v1/parents/p1/tca") as answer:
                    assert answer.status == 200 and (await answer.json())["left_lots"] == 7
            if tls:
                nobody = aiohttp.TCPConnector(ssl=stranger)
                header = {"Authorization": f"Bearer {HTTP_TOKEN}"}
                async with (
                    aiohttp.ClientSession(base, connector=nobody, headers=header) as http,
                    http.get("/v1/parents") as answer,
                ):
                    assert answer.status == 401
            return service.failure

    assert asyncio.run(run()) == ""


def test_http_answers_nobody_without_the_right_token_and_no_account_but_one_s_own(tmp_path):
    other = "o" * 40
    accounts = {name: {"strategy": f"s-{name}", "fallback_strategy": f"f-{name}", "order_token": "t" * 40}
                for name in (ACCOUNT, "second")}  # fmt: skip
    clients = {
        "oms": {"account": ACCOUNT, "token_sha256": hash_token(HTTP_TOKEN)},
        "two": {"account": "second", "token_sha256": hash_token(other)},
    }

    async def run():
        configured = settings_for(tmp_path, Nowhere(), decide_wait_s=0.0, accounts=accounts, clients=clients)
        async with (
            served(configured) as service,
            aiohttp.ClientSession(f"http://127.0.0.1:{service.ports['http']}") as http,
        ):
            for header in (
                None,
                "",
                "Basic x",
                "Bearer",
                "Bearer short",
                "Bearer " + "z" * 40,
                "Bearer " + "é" * 40,
            ):
                headers = {} if header is None else {"Authorization": header}
                async with http.get("/v1/parents", headers=headers) as answer:
                    assert answer.status == 401, header
            mine, theirs = ({"Authorization": f"Bearer {token}"} for token in (HTTP_TOKEN, other))
            async with http.post("/v1/parents", json=parent(), headers=mine) as answer:
                assert answer.status == 202
            async with http.post("/v1/parents", json=parent(), headers=theirs) as answer:
                assert answer.status == 403
            for path in ("/v1/parents/p1", "/v1/parents/p1/tca"):
                async with http.get(path, headers=theirs) as answer:
                    assert answer.status == 404
            async with http.post("/v1/parents/p1/cancel", headers=theirs) as answer:
                assert answer.status == 404
            async with http.get("/v1/parents", headers=theirs) as answer:
                assert (await answer.json()) == {"parents": []}

    asyncio.run(run())


def test_ready_while_feed_and_gateway_are_away_takes_parents_and_says_what_they_wait_for(tmp_path):
    def probe(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status

    async def run():
        async with (
            served(settings_for(tmp_path, Nowhere(), decide_wait_s=0.0)) as service,
            aiohttp.ClientSession(
                f"http://127.0.0.1:{service.ports['http']}", headers={"Authorization": f"Bearer {HTTP_TOKEN}"}
            ) as http,
        ):
            assert await asyncio.to_thread(probe, service.ports["metrics"]) == 200
            async with http.post("/v1/parents", json=parent()) as answer:
                taken = answer.status, (await answer.json())["waits_for"]
            async with http.post("/v1/parents/p1/cancel") as answer:
                return taken, (await answer.json())["status"]

    taken, status = asyncio.run(run())
    assert taken == (202, "the feed has not told yet what time it is") and status == "cancelled"


def test_disk_that_refuses_ends_the_process_and_nothing_is_acknowledged(tmp_path):
    async def run():
        service = ParentsService(settings_for(tmp_path, Nowhere(), decide_wait_s=0.0), Resting())
        task = asyncio.create_task(service.run())
        await service.ready.wait()

        def full(records):
            raise DiskError("the disk refused the journal of parents: no space")

        service._journal.append = full
        headers = {"Authorization": f"Bearer {HTTP_TOKEN}"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{service.ports['http']}", headers=headers) as http,
            http.post("/v1/parents", json=parent()) as answer,
        ):
            said = answer.status, (await answer.json())["error"]
        with pytest.raises(RuntimeError, match="no space"):
            await task
        journal, state = ParentsJournal.open(tmp_path / "parents")
        journal.close()
        return said, len(state.parents)

    assert asyncio.run(run()) == ((503, "the disk refused the journal of parents: no space"), 0)


def broken_by(tmp_path, disturb):
    """How the process ends after `disturb(service)`."""

    async def run():
        service = ParentsService(settings_for(tmp_path, Nowhere(), decide_wait_s=0.0), Resting())
        task = asyncio.create_task(service.run())
        await service.ready.wait()
        disturb(service)
        with pytest.raises(RuntimeError) as ended:
            await asyncio.wait_for(task, 20)
        return str(ended.value)

    return asyncio.run(run())


def fail(*arguments):
    raise KeyError("a bug")


def test_report_that_the_core_cannot_follow_ends_the_process_and_with_it_the_line_that_its_orders_hang_on(tmp_path):
    def disturb(service):
        service.core.reported = fail
        service.reported(ACCOUNT, Acked(order_id=1, ts_ns=1))

    assert broken_by(tmp_path, disturb) == "the core could not follow: KeyError: 'a bug'"


def test_failure_between_the_core_and_the_journal_ends_the_process_before_anything_is_sent(tmp_path):
    sent = []

    def disturb(service):
        service._metrics.follow = fail
        service._lines[ACCOUNT].send = sent.append
        service.core.alert("test", "something to flush")
        service.flush()

    assert broken_by(tmp_path, disturb).startswith("what the core wanted was not done: KeyError") and not sent


def test_failure_in_a_callback_of_the_event_loop_ends_the_process(tmp_path):
    assert "a bug" in broken_by(tmp_path, lambda service: service.later(fail))


def test_request_that_fails_half_way_is_answered_as_failed_and_ends_the_process(tmp_path):
    async def run():
        service = ParentsService(settings_for(tmp_path, Nowhere(), decide_wait_s=0.0), Resting())
        task = asyncio.create_task(service.run())
        await service.ready.wait()
        service.core.submit = fail
        headers = {"Authorization": f"Bearer {HTTP_TOKEN}"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{service.ports['http']}", headers=headers) as http,
            http.post("/v1/parents", json=parent()) as answer,
        ):
            status = answer.status
        with pytest.raises(RuntimeError, match="could not be followed"):
            await task
        return status

    assert asyncio.run(run()) == 503


def test_fix_peer_without_a_token_on_loopback_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="FIX peer OMS needs a token's hash"):
        settings_for(tmp_path, Nowhere(), fix_peers={"OMS": {"account": ACCOUNT}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(list(parent(start=1, strategy="agent", trader="x", other=1)))


def test_http_meets_any_json_with_a_refusal_or_a_parent(tmp_path):
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(FIELDS, JSON | st.just("keep"), max_size=9))
    def bodies(change):
        found.append({**parent(), **{key: value for key, value in change.items() if value != "keep"}})

    found = []
    bodies()

    async def run():
        async with served(settings_for(tmp_path, Nowhere(), decide_wait_s=0.0, max_parents=5)) as service:
            headers = {"Authorization": f"Bearer {HTTP_TOKEN}"}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{service.ports['http']}", headers=headers) as http:
                for body in found:
                    raw = json.dumps(body).encode()
                    async with http.post("/v1/parents", data=raw) as answer:
                        assert answer.status in (202, 403, 404, 409, 413, 422, 429), (raw, await answer.text())

    asyncio.run(run())
