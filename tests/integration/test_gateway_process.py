"""The gateway's process on loopback with the real venue behind it: orders, kills, crashes, lines that break."""

import asyncio
import json
import random
import signal
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from gateway_process import SYMBOL, Desk, Trading

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import Acked, Cancelled, Filled, Replaced
from serving.gateway.audit import verify
from serving.gateway.disk import RealDisk
from serving.gateway.killing import kill_locally

PASSIVE, FAR = 9_800, 9_810


@pytest.fixture(scope="module")
def trading(tmp_path_factory):
    with Trading(tmp_path_factory.mktemp("trading")) as trading:
        yield trading


class SlowLine:
    """Between a feed and who follows it: bytes arrive `delay_s` after they were sent, all of them, in order."""

    def __init__(self, to: int) -> None:
        self.delay_s, self._to, self._loop = 0.0, to, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "SlowLine":
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._join, "127.0.0.1", 0), self._loop)
        self.port = server.result(10).sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _join(self, reader, writer) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._carry(reader, up_writer, slow=False), self._carry(up_reader, writer, slow=True))

    async def _carry(self, reader, writer, slow) -> None:
        held: asyncio.Queue = asyncio.Queue()

        async def hand_on():
            while (item := await held.get()) is not None:
                came, part = item
                await asyncio.sleep(max(0.0, came + self.delay_s * slow - time.monotonic()))
                writer.write(part)
            writer.close()

        task = asyncio.create_task(hand_on())
        with suppress(OSError):
            while part := await reader.read(65_536):
                held.put_nowait((time.monotonic(), part))
        held.put_nowait(None)
        await task


def admin(trading, who="ann"):
    return httpx.Client(
        base_url=f"http://127.0.0.1:{trading.ports['admin']}", timeout=30,
        headers={"Authorization": f"Bearer {trading.files.admin_tokens[who]}"},
    )  # fmt: skip


def wait(condition, what, limit_s=30.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {limit_s:g} s"
        time.sleep(0.02)
    return found


def state(trading):
    with admin(trading) as client:
        return client.get("/v1/state").json()


def open_for_orders(trading):
    """Armed, the feed known, the session well."""

    def ready():
        now = state(trading)
        venue = now["venues"]["SYN"]
        if now["utc_ns"] - now["started_ns"] < 1_200_000_000:
            return False  # message windows are full for a second
        return now["armed"] and venue["session"] == "up" and venue["feed"]["known"] == 1 and venue["feed"]["up"]

    wait(ready, "an armed gateway with a feed", 60.0)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 90))


async def desk_of(trading):
    await asyncio.to_thread(open_for_orders, trading)
    return await Desk(trading.files.client_token).open(trading.ports["order"])


def stop_and_rearm(trading):
    """Lift a kill as people must: reconciled, nothing open."""
    with admin(trading) as client:
        wait(lambda: client.get("/v1/state").json()["open_orders"] == 0, "the cancels")
        assert client.post("/v1/reconcile", json={}).json()["breaks"] == []
        assert client.post("/v1/rearm", json={"scope": "all"}).status_code == 200


def test_order_goes_to_the_venue_and_its_reports_come_back(trading):
    async def go():
        desk = await desk_of(trading)
        bought = await desk.allowed(desk.order(lots=5))
        await desk.until(lambda: desk.of(Filled, bought.order_id))
        order = desk.order(price=PASSIVE, lots=7)
        resting = await desk.allowed(order)
        await desk.until(lambda: desk.of(Acked, resting.order_id))
        await desk.allowed(desk.change(order.key, FAR, 9))
        await desk.until(lambda: desk.of(Replaced, resting.order_id))
        withdrawn = desk.withdraw(order.key)
        await desk.allowed(withdrawn)
        await desk.until(lambda: desk.of(Cancelled, resting.order_id))
        return bought, resting, await desk.ask(withdrawn)

    bought, resting, again = run(go())
    assert isinstance(again, Allowed)  # the same key and payload: the first decision
    sent = {line["cl_ord_id"]: line for line in trading.received("NewOrder")}
    assert sent[str(bought.order_id)]["lots"] == 5 and sent[str(bought.order_id)]["link"] == "P1"
    assert sent[str(resting.order_id)]["price_ticks"] == PASSIVE
    assert {"ReplaceOrder", "CancelOrder"} <= {line["what"] for line in trading.received()}


def test_denied_orders_never_reach_the_venue(trading):
    async def go():
        desk = await desk_of(trading)
        before = len(trading.received("NewOrder"))
        answers = [
            await desk.ask(desk.order(price=100_000, lots=1)),  # ten times the market
            await desk.ask(desk.order(price=PASSIVE, lots=10**9)),
            await desk.ask(desk.order(side="sell", price=PASSIVE, lots=50_000, reduce_only=True)),
            await desk.ask(desk.order(price=PASSIVE, venue="NOPE")),
            await desk.ask(desk.order(price=PASSIVE, sent_ns=1)),
        ]
        used = await desk.ask(order := desk.order(price=PASSIVE, lots=1))
        del desk.decisions[order.key]
        other = await desk.ask(desk.order(price=FAR, lots=2, key=order.key))
        return before, answers, used, other

    before, answers, used, other = run(go())
    assert [answer.control for answer in answers] == ["collar", "order_lots", "reduce_only", "identity", "request_age"]
    assert isinstance(used, Allowed) and other.control == "idempotency"
    assert len(trading.received("NewOrder")) == before + 1


def test_kill_during_a_stream_of_orders_lets_nothing_new_out_after_its_answer(trading):
    async def go():
        desk = await desk_of(trading)
        said, sending = {}, True

        async def stream():
            while sending:
                desk.line.send(*(desk.order(price=PASSIVE, lots=1) for _ in range(20)))
                await asyncio.sleep(0.005)

        streaming = asyncio.create_task(stream())
        await desk.until(lambda: len(desk.decisions) > 200, "a stream")
        said = await asyncio.to_thread(kill_locally, trading.state, "all", "", "test")
        known_ns = time.time_ns()
        await asyncio.sleep(0.5)
        sending = False
        await streaming
        last = await desk.ask(desk.order(price=PASSIVE, lots=1))
        return said, known_ns, last

    said, known_ns, last = run(go())
    assert said["message"] == "blocked, flushed"
    assert isinstance(last, Denied) and last.control == "kill_switch"
    news = trading.received("NewOrder")
    assert news and max(line["utc_ns"] for line in news) < known_ns
    with admin(trading) as client:
        wait(lambda: client.get("/v1/state").json()["open_orders"] == 0, "every cancel's confirmation")
    stop_and_rearm(trading)


def test_line_that_drops_has_its_orders_cancelled(trading):
    async def go():
        desk = await desk_of(trading)
        resting = await desk.allowed(desk.order(price=PASSIVE, lots=4))
        await desk.until(lambda: desk.of(Acked, resting.order_id))
        desk.line.close("gone")
        return resting.order_id

    order_id = run(go())
    with admin(trading) as client:
        wait(lambda: client.get("/v1/state").json()["open_orders"] == 0, "cancel on disconnect")
        stages = {item["order_id"]: item["stage"] for item in client.get("/v1/orders?open=false").json()["orders"]}
    assert stages[order_id] == "done"


def test_client_that_comes_again_hears_what_it_missed(trading):
    async def go():
        desk = await desk_of(trading)
        bought = await desk.allowed(desk.order(lots=3))
        await desk.until(lambda: desk.of(Filled, bought.order_id))
        desk.line.close("gone")
        again = await Desk(trading.files.client_token).open(trading.ports["order"])
        await again.until(lambda: again.of(Filled, bought.order_id))
        return desk.of(Filled, bought.order_id), again.of(Filled, bought.order_id)

    first, repeated = run(go())
    assert [item.exec_id for item in first] == [item.exec_id for item in repeated]


def test_newer_line_of_a_strategy_takes_over_and_its_orders_stand(trading):
    async def go():
        desk = await desk_of(trading)
        resting = await desk.allowed(desk.order(price=PASSIVE, lots=2))
        await desk.until(lambda: desk.of(Acked, resting.order_id))
        newer = await Desk(trading.files.client_token).open(trading.ports["order"])
        await desk.until(lambda: desk.downs, "the older line's end")
        await asyncio.sleep(0.3)
        assert not newer.of(Cancelled, resting.order_id)
        key = next(key for key, value in desk.decisions.items() if value.order_id == resting.order_id)
        await newer.allowed(newer.withdraw(key))
        await newer.until(lambda: newer.of(Cancelled, resting.order_id))
        return desk.downs

    assert run(go())


def test_metrics_and_probes_answer_on_a_port_of_their_own(trading):
    base = f"http://127.0.0.1:{trading.ports['metrics']}"
    assert httpx.get(f"{base}/livez").status_code == 200
    assert httpx.get(f"{base}/readyz").status_code == 200
    text = httpx.get(f"{base}/metrics").text
    for name in (
        "shortfall_gateway_allowed_total", "shortfall_gateway_denied_total", "shortfall_gateway_answer_seconds_bucket",
        "shortfall_gateway_commit_seconds_bucket",
        "shortfall_gateway_session_up", "shortfall_gateway_feed_age_seconds", "shortfall_gateway_position_lots",
        "shortfall_gateway_limit_used_ratio", "shortfall_gateway_killed", "shortfall_gateway_journal_records_total",
    ):  # fmt: skip
        assert name in text
    assert httpx.get(f"{base}/v1/state").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{trading.ports['admin']}/metrics").status_code == 404


class _Hook(BaseHTTPRequestHandler):
    heard: list = []

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((time.monotonic(), json.loads(raw)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture()
def hook():
    _Hook.heard = []
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_restart_with_working_orders_after_kill_9_reconciles_and_sends_nothing_twice(tmp_path, hook):
    with Trading(tmp_path, words=[f"--alert-url=http://127.0.0.1:{hook.server_port}/"]) as trading:

        async def before():
            desk = await desk_of(trading)
            bought = await desk.allowed(desk.order(lots=5))
            await desk.until(lambda: desk.of(Filled, bought.order_id))
            orders = [desk.order(price=PASSIVE - n, lots=3) for n in range(5)]
            answers = await desk.allowed(*orders)
            await desk.until(lambda: len(desk.of(Acked)) >= 6)
            trading.gateway.end(signal.SIGKILL)
            await desk.until(lambda: desk.downs)
            return orders, answers

        orders, answers = run(before())
        assert verify(RealDisk(trading.state / "journal"))["torn_bytes"] == 0
        trading.start_gateway()

        async def after():
            desk = await Desk(trading.files.client_token).open(trading.ports["order"])  # back before it is armed
            await asyncio.to_thread(open_for_orders, trading)
            again = await desk.ask(orders[0])
            assert again == answers[0]  # the first decision, and no second order
            reports = {report.order_id for report in desk.of(Acked)}
            assert reports >= {answer.order_id for answer in answers}
            for order in orders:
                await desk.allowed(desk.withdraw(order.key))
            await desk.until(lambda: len(desk.of(Cancelled)) == 5)
            return desk

        run(after())
        news = [line["cl_ord_id"] for line in trading.received("NewOrder")]
        assert len(news) == len(set(news)) == 6
        with admin(trading) as client:
            legs = client.get("/v1/positions").json()["legs"]
            assert [leg["position_lots"] for leg in legs] == [5]
            asked = time.monotonic()
            client.post("/v1/kill", json={"scope": "symbol", "name": SYMBOL, "reason": "alert me"})
        wait(lambda: any(body["what"] == "kill" for _, body in _Hook.heard), "the alert")
        told = next(moment for moment, body in _Hook.heard if body["what"] == "kill")
        assert told - asked < 5.0  # within a second where the machine is not as busy as in tests
        assert {"armed", "limits"} <= {body["what"] for _, body in _Hook.heard}


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_kill_9_in_a_stream_of_orders_loses_no_acknowledged_decision_and_sends_none_twice(tmp_path):
    """Ten times at random: every answer is given again, the venue saw each order once, positions are its fills."""
    rng = random.Random(7)
    answers, fills = {}, {}
    with Trading(tmp_path) as trading:
        for round_ in range(10):

            async def go():
                desk = await Desk(trading.files.client_token).open(trading.ports["order"])
                await asyncio.to_thread(open_for_orders, trading)
                for request, answer in answers.values():
                    assert await desk.ask(request) == answer
                sent = {}

                async def stream():
                    while not desk.downs:
                        orders = [desk.order(price=PASSIVE, lots=1), desk.order(side="buy", lots=1)]
                        sent.update((order.key, order) for order in orders)
                        desk.line.send(*orders)
                        await asyncio.sleep(0.002)

                streaming = asyncio.create_task(stream())
                await asyncio.sleep(0.2 + rng.random())
                trading.gateway.end(signal.SIGKILL)
                await streaming
                fills.update((report.exec_id, report) for report in desk.of(Filled))
                for key, answer in desk.decisions.items():
                    if key in sent and isinstance(answer, Allowed):
                        answers[key] = (sent[key], answer)

            run(go())
            assert verify(RealDisk(trading.state / "journal"))["torn_bytes"] >= 0, round_
            trading.start_gateway()
        open_for_orders(trading)
        news = [line["cl_ord_id"] for line in trading.received("NewOrder")]
        assert len(news) == len(set(news))
        assert len(answers) > 100
        with admin(trading) as client:
            assert client.post("/v1/reconcile", json={}).json()["breaks"] == []
            held = client.get("/v1/positions").json()["legs"][0]["position_lots"]
        assert held >= len(fills)  # what was filled while nobody listened counts too


def test_orderly_stop_cancels_what_works_and_ends_with_0(tmp_path):
    with Trading(tmp_path) as trading:

        async def go():
            desk = await desk_of(trading)
            resting = await desk.allowed(desk.order(price=PASSIVE, lots=2))
            await desk.until(lambda: desk.of(Acked, resting.order_id))
            trading.gateway.process.send_signal(signal.SIGTERM)
            await desk.until(lambda: desk.downs)
            return desk

        desk = run(go())
        assert trading.gateway.end() == 0
        assert desk.of(Cancelled)
        assert not (trading.state / "ports.json").exists()
        trading.start_gateway()
        open_for_orders(trading)


def test_second_gateway_over_the_same_state_is_locked_out(trading):
    from gateway_process import Process

    second = Process(
        trading.folder / "second.log", "serving.gateway", *trading.files.arguments(), "--order-port=0",
        "--admin-port=0", "--metrics-port=0",
    )  # fmt: skip
    assert second.process.wait(60) == 1
    assert "another process writes the journal" in second.said()
    open_for_orders(trading)


def test_venue_that_goes_away_halts_and_a_return_reconciles(tmp_path):
    with Trading(tmp_path) as trading:

        async def go():
            desk = await desk_of(trading)
            resting = await desk.allowed(desk.order(price=PASSIVE, lots=2))
            await desk.until(lambda: desk.of(Acked, resting.order_id))
            trading.venue.process.send_signal(signal.SIGSTOP)  # half open: the line stands, nobody answers
            await asyncio.to_thread(wait, lambda: not state(trading)["armed"], "a halt")
            denied = await desk.ask(desk.order(price=PASSIVE, lots=1))
            with admin(trading) as client:
                said = (await asyncio.to_thread(client.post, "/v1/kill", json={"scope": "all", "reason": "x"})).json()
            trading.venue.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(wait, lambda: state(trading)["open_orders"] == 0, "the cancel's confirmation")
            return denied, said, resting

        denied, said, resting = run(go())
        assert denied.control == "standing" and "did not answer a test request" in denied.message
        assert said["message"] == "blocked, not flushed"
        assert len(trading.received("NewOrder")) == 1
        with admin(trading) as client:
            wait(lambda: client.get("/v1/state").json()["venues"]["SYN"]["session"] == "up", "the session")
            assert client.post("/v1/reconcile", json={}).json() == {"reconciled": True, "breaks": []}
            assert client.post("/v1/rearm", json={"scope": "all"}).status_code == 200


def test_client_that_is_struck_by_sighup_loses_its_line_and_its_orders_and_comes_back_with_two_people(trading):
    path = trading.files.folder / "clients.yaml"
    text = path.read_text()

    async def go():
        desk = await desk_of(trading)
        working = await desk.allowed(desk.order(price=PASSIVE, lots=3))
        await desk.until(lambda: desk.of(Acked, working.order_id))
        path.write_text("clients: []\n")
        trading.gateway.process.send_signal(signal.SIGHUP)
        await desk.until(lambda: desk.downs)
        return working

    before = len(trading.received("CancelOrder"))
    run(go())
    wait(lambda: len(trading.received("CancelOrder")) == before + 1, "the cancel at the venue")
    wait(lambda: state(trading)["open_orders"] == 0, "its confirmation")
    with pytest.raises(ConnectionError):
        run(desk_of(trading))
    path.write_text(text)
    with admin(trading) as ann, admin(trading, "bob") as bob:
        change = {"change": ann.post("/v1/reload", json={}).json()["change"]}
        assert [one.post("/v1/reload/approve", json=change).json()["holds"] for one in (ann, bob)] == [False, True]

    async def back():
        (await desk_of(trading)).line.close("done")

    run(back())


def test_feed_that_is_late_silent_or_gone_denies(tmp_path):
    limits = {"max_reference_age_ns": 1_000_000_000, "max_feed_lag_ns": 500_000_000}
    trading = Trading(tmp_path, limits=limits)
    with SlowLine(trading.feed_port) as line:
        path = trading.files.folder / "venues.yaml"
        path.write_text(path.read_text().replace(f":{trading.feed_port}", f":{line.port}"))
        with trading:
            _feed_denies(trading, line)


def _feed_denies(trading, line):
    async def go():
        desk = await desk_of(trading)
        await desk.allowed(desk.order(price=PASSIVE, lots=1))
        gaps = (await asyncio.to_thread(state, trading))["venues"]["SYN"]["feed"]["gaps"]
        line.delay_s = 0.8  # from here on all comes, none is missing, and it comes late
        await asyncio.sleep(1.0)
        late = await desk.ask(desk.order(price=PASSIVE, lots=1))
        assert late.control == "reference" and late.value > 500_000_000 == late.limit, late
        now = (await asyncio.to_thread(state, trading))["venues"]["SYN"]["feed"]
        assert now["late"] and now["age_s"] < 1.0 and now["gaps"] == gaps and now["up"]
        line.delay_s = 0.0
        await asyncio.to_thread(wait, lambda: not state(trading)["venues"]["SYN"]["feed"]["late"], "the feed")
        await desk.allowed(desk.order(price=PASSIVE, lots=1))
        trading.venue.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.3)
        silent = await desk.ask(desk.order(price=PASSIVE, lots=1))
        trading.venue.process.send_signal(signal.SIGCONT)
        trading.venue.end(signal.SIGKILL)
        await asyncio.sleep(0.5)
        gone = await desk.ask(desk.order(price=PASSIVE, lots=1))
        return silent, gone

    silent, gone = run(go())
    assert silent.control in ("reference", "standing")
    assert gone.control in ("session", "standing", "reference")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--order-port=70000"], "order_port"),
        (["--host=0.0.0.0"], "not a loopback address"),
        (["--auto-arm=true", "--paper=false"], "paper"),
        (["--venues=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_settings_end_with_one_clear_line_and_code_2(tmp_path, capsys, words, says):
    from gateway_process import INSTRUMENT

    from serving.gateway.__main__ import main
    from serving.gateway.paper import write_paper

    files = write_paper(tmp_path, [INSTRUMENT])
    assert main([*files.arguments(), *words]) == 2
    assert says in capsys.readouterr().err


def test_local_kill_where_no_gateway_runs_says_so(tmp_path, capsys):
    from serving.gateway.__main__ import main

    assert main(["kill", f"--folder={tmp_path}"]) == 1
    assert "no gateway answers" in capsys.readouterr().err
