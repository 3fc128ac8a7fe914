"""A promotion while parents are at work, through the real decide service: new parents take it, old ones keep theirs."""

import asyncio
import json
import threading
from itertools import count

import numpy as np
from ems_world import NS, Ems, request, rules
from market_fixtures import make_day, open_ns, random_rows
from policy_bundles import random_bundle

from serving.decide.service import DecideService
from serving.decide.settings import DecideSettings
from serving.parents.asking import Asker
from serving.parents.records import Decided, FellBack, Sent, Shadowed
from serving.parents.settings import ParentsSettings
from serving.registry import Registry
from serving.wire.identity import hash_token
from training.execution.static_rule import write_bundle_zero
from training.market.venue.depth_world import DepthWorld

TOKEN = "a" * 64
START = open_ns() + 120 * NS
DAY = make_day(random_rows(np.random.default_rng(3), 1500, step_ns=NS))


class Served(Ems):
    """An EMS whose questions go over HTTP."""

    def __init__(self, loop, url):
        self.loop, self.asker = loop, None
        super().__init__(DepthWorld(DAY), DAY.instrument, None, start_ns=open_ns(), core_rules=rules())
        settings = ParentsSettings(
            allow_anonymous_loopback=True, decide_url=url, decide_token=TOKEN, decide_deadline_s=10.0, policies_s=0.02
        )
        self.asker = Asker(self.core, settings, lambda: None, None)

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def _answer(self, ask):
        self.wait(self.asker.ask(ask))


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_promotion_is_used_by_new_parents_and_a_parent_ends_on_the_version_that_it_began_with(tmp_path):
    ticks = count(1_000)
    registry = Registry(tmp_path / "registry", now_ns=lambda: next(ticks))
    registry.ensure_bundle_zero(write_bundle_zero)
    second = registry.register(random_bundle(tmp_path / "second", seed=2, actions="continuous").folder, {})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    state = tmp_path / "state"
    settings = DecideSettings(
        registry=registry.root,
        folder=state,
        port=0,
        metrics_port=0,
        watch_s=0.02,
        tokens={"parents": hash_token(TOKEN)},
    )
    service = DecideService(settings)
    serving = asyncio.run_coroutine_threadsafe(service.run(), loop)
    try:
        asyncio.run(until((state / "ports.json").exists))
        ems = Served(loop, f"http://127.0.0.1:{json.loads((state / 'ports.json').read_text())['http']}")
        ems.wait(ems.asker.first(lambda: False))
        following = asyncio.run_coroutine_threadsafe(ems.asker.follow(), loop)
        ems.core.submit(request("old", 60, horizon_ns=240 * NS, start_ns=START), 1)
        ems.run(START + 100 * NS)
        registry.promote(second, "by hand", force=True)
        asyncio.run(until(lambda: ems.core.policies.champion.version == second))
        ems.core.submit(request("new", 60, horizon_ns=180 * NS), 2)
        ems.run(START + 300 * NS)
        following.cancel()
        ems.wait(ems.asker.close())
    finally:
        service.stop()
        serving.result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
    old, new = ems.core.state.parents[1], ems.core.state.parents[2]
    assert (old.plan.version, new.plan.version) == (1, second) and {old.how, new.how} == {"filled"}
    assert not [record for record in ems.records if isinstance(record, FellBack | Shadowed)]
    decided = [(record.number, len(record.action)) for record in ems.records if isinstance(record, Decided)]
    assert set(decided) == {(1, 1), (2, 2)}  # each answer is of its version's action set to the end
    late = [record for record in ems.records if isinstance(record, Decided) and record.market_ns > new.began_ns]
    assert {record.number for record in late} == {1, 2}
    assert any(isinstance(record, Sent) for record in ems.records)
    assert [alert.fields["version"] for alert in ems.alerts if alert.what == "champion"] == [1, second]
