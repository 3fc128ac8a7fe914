"""The EMS against the real gateway and the real venue, in lockstep over loopback: from HTTP to the last fill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import parents_process
import pytest
from gateway_process import Trading
from parents_process import ACCOUNT, HTTP_TOKEN, SYMBOL, Resting, settings_for

from serving.parents.journal import ParentsJournal
from serving.parents.orders import Stage
from serving.parents.service import ParentsService

NS = 1_000_000_000
LOCKSTEP = ("--pace=lockstep", "--step-s=1", "--hours=0.1")
BY_THE_CLOCK = ("--pace=real", "--speed=20", "--hours=0.5")


@pytest.fixture
def trading(tmp_path):
    with Trading(tmp_path, venue_words=LOCKSTEP) as running:
        time.sleep(1.2)  # after its start the gateway's message windows are full for a second, of the clock
        yield running


@asynccontextmanager
async def served(settings, policies):
    service = ParentsService(settings, policies)
    task = asyncio.create_task(service.run())
    waiting = asyncio.create_task(service.ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()
    headers = {"Authorization": f"Bearer {HTTP_TOKEN}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{service.ports['http']}", headers=headers) as http:
        try:
            yield service, http
        finally:
            service.stop()
            await task


async def until(condition, limit_s=60.0):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def parent(parent_id="p1", lots=40, horizon_s=60, **more):
    return {"parent_id": parent_id, "account": ACCOUNT, "symbol": SYMBOL, "side": "buy", "lots": lots,
            "horizon_s": horizon_s, **more}  # fmt: skip


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def traded(trading):
    """Lots that the venue traded for each order's parent, by its own log of what it was asked."""
    return [line for line in trading.received("NewOrder")]


def test_parent_is_worked_to_its_end_through_gateway_and_venue(trading, tmp_path):
    async def run():
        policies = Resting(interval_s=10)
        policies.challenger = Resting(version=2).champion
        async with served(settings_for(tmp_path, trading), policies) as (service, http):
            async with http.post("/v1/parents", json=parent()) as answer:
                assert answer.status == 202, await answer.text()
            await until(lambda: service.parent(1).is_ended)
            async with http.get("/v1/parents/p1") as answer:
                shown = await answer.json()
            async with http.get("/v1/parents/p1/tca") as answer:
                tca = await answer.json()
            async with http.get("/v1/shadow") as answer:
                shadows = (await answer.json())["decisions"]
            ready = await asyncio.to_thread(page, service.ports["metrics"], "/readyz")
            metrics = await asyncio.to_thread(page, service.ports["metrics"], "/metrics")
            return shown, tca, shadows, policies.asked, ready, metrics[1]

    shown, tca, shadows, asked, ready, metrics = asyncio.run(run())
    assert (shown["status"], shown["filled_lots"], shown["left_lots"]) == ("filled", 40, 0)
    assert shown["fallback"] is None and asked == 2 * shown["decisions"] >= 4
    assert [item["step"] for item in shadows] == list(range(shown["decisions"]))
    assert {(item["version"], item["error"]) for item in shadows} == {(2, None)}
    assert sum(fill["lots"] for fill in tca["fills"]) == 40
    parts = [tca[f"{part}_bps"] for part in ("spread", "impact", "timing", "fees", "left")]
    assert tca["is_bps"] == pytest.approx(sum(parts)) and tca["window_whole"]
    sent = trading.received("NewOrder")
    assert sent and {line["link"] for line in sent} == {shown["children"][0]["key"].rpartition("/")[0]}
    assert {line["strategy"] for line in sent} == {"policy"}
    assert ready == (200, "ok\n") and 'shortfall_parents_ended_total{how="filled"} 1.0' in metrics
    assert json.loads((tmp_path / "parents" / "ports.json").read_text()).keys() == {"http", "metrics"}


@pytest.mark.slow
@pytest.mark.parametrize("fails", [None, "unknown"])
def test_parents_of_both_sides_work_at_once_and_the_real_gateway_denies_nothing(trading, tmp_path, fails):
    async def run():
        policies = Resting(interval_s=5, prefer=(3, 1, 0) if fails is None else (1, 0))
        policies.fails = fails
        async with served(settings_for(tmp_path, trading), policies) as (service, http):
            for number in range(6):
                wanted = parent(f"p{number}", lots=30) | {"side": ("buy", "sell")[number % 2]}
                async with http.post("/v1/parents", json=wanted) as answer:
                    assert answer.status == 202
            await until(lambda: all(item.is_ended for item in service.state.parents.values()))
            denied = [item.denied for item in service.state.parents.values() if item.denied is not None]
            return [(item.how, item.side) for item in service.state.parents.values()], denied

    ended, denied = asyncio.run(run())
    assert ended == [("filled", 1), ("filled", -1)] * 3 and not denied


def test_policy_that_is_gone_leaves_the_fallback_to_finish_under_its_own_strategy(trading, tmp_path):
    async def run():
        policies = Resting(interval_s=10)
        policies.fails = "unknown"
        async with served(settings_for(tmp_path, trading), policies) as (service, http):
            async with http.post("/v1/parents", json=parent()) as answer:
                assert answer.status == 202
            await until(lambda: service.parent(1).is_ended)
            async with http.get("/v1/parents/p1") as answer:
                return await answer.json()

    shown = asyncio.run(run())
    assert shown["status"] == "filled" and "the policy failed: unknown" in shown["fallback"]
    assert {line["strategy"] for line in trading.received("NewOrder")} == {"twap"}


def test_gateway_that_is_killed_and_comes_back_is_sent_nothing_twice(tmp_path):
    with Trading(tmp_path, venue_words=BY_THE_CLOCK) as trading:
        port = trading.ports["order"]

        async def run():
            configured = settings_for(tmp_path, trading, paces=False, speed=20.0)
            async with served(configured, Resting(interval_s=5)) as (service, http):
                await until(lambda: service.core.now_ns > 0)
                start = service.core.now_ns + 90 * NS
                async with http.post("/v1/parents", json=parent(lots=60, horizon_s=200, start=start)) as answer:
                    assert answer.status == 202, await answer.text()
                await until(lambda: service.parent(1).step >= 2)
                await asyncio.to_thread(trading.gateway.end, signal.SIGKILL)
                await until(lambda: service.core.lines.why_down())
                await asyncio.to_thread(trading.start_gateway, f"--order-port={port}")
                await until(lambda: service.parent(1).is_ended, 120)
                return service.parent(1), service.core.state

        one, state = asyncio.run(run())
        ids = [line["cl_ord_id"] for line in trading.received("NewOrder")]
    assert one.how in ("filled", "expired") and one.filled + one.left == 60
    allowed = {child.order_id for child in state.children.values() if child.order_id}
    assert len(ids) == len(set(ids)) and {int(item) for item in ids} <= allowed
    assert not state.unanswered and all(child.stage is Stage.DONE for child in state.children.values())


def test_parent_is_worked_by_the_clock_where_the_venue_waits_for_nobody(tmp_path):
    with Trading(tmp_path, venue_words=BY_THE_CLOCK) as trading:

        async def run():
            configured = settings_for(tmp_path, trading, paces=False, speed=20.0)
            async with served(configured, Resting(interval_s=5)) as (service, http):
                await until(lambda: service.core.now_ns > 0)
                start = service.core.now_ns + 90 * NS  # features are to be trusted by then
                async with http.post("/v1/parents", json=parent(lots=30, start=start)) as answer:
                    assert answer.status == 202, await answer.text()
                await until(lambda: service.parent(1).is_ended)
                return service.parent(1)

        one = asyncio.run(run())
    assert one.how == "filled" and not one.fallback and one.began_ns >= one.start_ns > 0
    assert one.step >= 2 and one.finished_ns <= one.end_ns + 6 * NS


class Victim:
    """The EMS as a process of its own that is killed at will."""

    def __init__(self, folder: Path, settings) -> None:
        self.folder, self.file = folder, folder / "settings.json"
        plain = json.loads(settings.model_dump_json())
        accounts = {name: {**item.model_dump(), "order_token_file": None} for name, item in settings.accounts.items()}
        self.file.write_text(json.dumps({**plain, "accounts": accounts, "decide_token": "", "decide_token_file": None}))
        self.ports_file = settings.folder / "ports.json"
        self.process = None

    def start(self) -> None:
        self.ports_file.unlink(missing_ok=True)
        with open(self.folder / "victim.log", "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, parents_process.__file__, str(self.file)], stdout=out, stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.ports_file.exists():
            assert self.process.poll() is None, (self.folder / "victim.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.ports = json.loads(self.ports_file.read_text())

    def kill(self, how=signal.SIGKILL) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)

    def ask(self, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['http']}{path}", None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {HTTP_TOKEN}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


@pytest.mark.parametrize("seed", [1])
def test_kill_9_at_random_points_loses_no_parent_and_sends_nothing_twice(trading, tmp_path, seed):
    rng = np.random.default_rng(seed)
    victim = Victim(tmp_path, settings_for(tmp_path, trading, told_s=2.0))
    victim.start()
    first = victim.ask("/v1/parents", parent(lots=80, horizon_s=120))
    for _ in range(3):
        time.sleep(float(rng.uniform(0.05, 1.0)))
        victim.kill()
        victim.start()
        assert victim.ask("/v1/parents", parent(lots=80, horizon_s=120))["number"] == first["number"]
    deadline = time.monotonic() + 240
    while not (shown := victim.ask("/v1/parents/p1"))["ended_ns"]:
        assert time.monotonic() < deadline, (shown, (tmp_path / "victim.log").read_text()[-3000:])
        time.sleep(0.1)
    assert victim.kill(signal.SIGTERM) == 0
    assert shown["filled_lots"] + shown["left_lots"] == 80
    journal, state = ParentsJournal.open(tmp_path / "parents")
    journal.close()
    ids = [line["cl_ord_id"] for line in trading.received("NewOrder")]
    asked = {child.order_id for child in state.children.values() if child.order_id}
    assert len(ids) == len(set(ids)) and {int(item) for item in ids} <= asked
    assert state.parents[1].filled == shown["filled_lots"]
    gateway = [child for child in state.children.values()]
    assert all(child.stage is Stage.DONE for child in gateway) and not state.unanswered
