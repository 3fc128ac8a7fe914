"""A promotion is watched at decide: it stands where the new champion decides as recorded, else it is rolled back."""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from policy_bundles import random_bundle

from flows.champions import decide, open_registry, settle
from flows.settings import settings
from flows.smoke import SmokeError, check_champion
from serving.contracts.bundle import load_bundle
from serving.decide.local import LocalPolicies
from serving.decide.protocol import DecideError
from training.execution.static_rule import write_bundle_zero

EVIDENCE = {
    "comparisons": [
        {"a": "agent", "b": "champion", "mean_diff_bps": -0.4, "ci_low": -0.6, "ci_high": -0.2, "established": True}
    ]
}


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A lake with bundle 0 as champion of the synthetic market."""
    monkeypatch.setenv("SHORTFALL_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    open_registry("synthetic").ensure_bundle_zero(write_bundle_zero)
    yield tmp_path / "lake"
    settings.cache_clear()


@pytest.fixture
def agent(tmp_path) -> Path:
    return random_bundle(tmp_path / "agent", seed=3).folder


@pytest.fixture
def served(lake, monkeypatch):
    """A decide process that follows the lake's registry."""
    folder = lake.parent / "decide"
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.decide", f"--registry={lake / 'registry' / 'synthetic'}", f"--folder={folder}",
         "--port=0", "--metrics-port=0", "--allow-anonymous-loopback=true"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    limit = time.monotonic() + 60
    while not (folder / "ports.json").is_file():
        assert process.poll() is None and time.monotonic() < limit, process.stderr.read()[-2000:]
        time.sleep(0.05)
    ports = json.loads((folder / "ports.json").read_text())
    monkeypatch.setenv("SHORTFALL_DECIDE_URL", f"http://127.0.0.1:{ports['http']}")
    monkeypatch.setenv("SHORTFALL_DECIDE_WAIT_S", "30")
    settings.cache_clear()
    yield process
    process.terminate()
    process.communicate(timeout=30)


class Serving(LocalPolicies):
    """A decide service that errs as a test says."""

    fault = ""

    async def policies(self):
        found = await super().policies()
        return replace(found, champion=None) if self.fault == "does not load it" else found

    async def decide(self, sha256, observation, action_mask=None):
        if self.fault == "fails":
            raise DecideError("unavailable", "connection refused")
        answer = await super().decide(sha256, observation, action_mask)
        return replace(answer, action=3 - answer.action) if self.fault == "decides otherwise" else answer


def test_promotion_when_decide_takes_the_champion_up_then_it_stands_and_no_process_is_restarted(served, lake, agent):
    taken = decide("synthetic", agent, "e1", EVIDENCE)
    assert taken["moved"] and "5 smoke decisions as recorded" in taken["reason"]
    assert open_registry("synthetic").champion()[0] == taken["version"] == 2
    assert served.poll() is None, "decide loads the policy hot"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("does not load it", "did not announce champion"), ("decides otherwise", "to smoke observation 0"),
     ("fails", "connection refused")],
)  # fmt: skip
def test_promotion_when_decide_errs_then_it_is_rolled_back_by_itself(lake, agent, monkeypatch, fault, says):
    bundle = load_bundle(agent)
    client = Serving.of(bundle)
    client.fault = fault
    monkeypatch.setenv("SHORTFALL_DECIDE_WAIT_S", "0.2")
    settings.cache_clear()
    monkeypatch.setattr("flows.smoke.open_client", lambda config: client)
    taken = decide("synthetic", agent, "e1", EVIDENCE)
    assert not taken["moved"] and "rolled back to version 1" in taken["reason"] and says in taken["reason"]
    registry = open_registry("synthetic")
    assert registry.champion()[0] == taken["version"] == 1
    assert [record["action"] for record in registry.history()][-2:] == ["promoted", "rolled_back"]
    assert says in registry.history()[-1]["reason"]


def test_promotion_when_the_run_is_repeated_after_its_rollback_then_it_stays_rolled_back(lake, agent, monkeypatch):
    client = Serving.of(load_bundle(agent))
    client.fault = "fails"
    monkeypatch.setattr("flows.smoke.open_client", lambda config: client)
    decide("synthetic", agent, "e1", EVIDENCE)
    client.fault = ""
    again = decide("synthetic", agent, "e1", EVIDENCE)
    assert not again["moved"] and "rolled back since" in again["reason"]
    assert open_registry("synthetic").champion()[0] == 1


def test_promotion_when_killed_before_it_was_watched_then_the_repeated_run_watches_it(lake, agent, monkeypatch):
    client = Serving.of(load_bundle(agent))
    monkeypatch.setattr("flows.champions.settle", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        decide("synthetic", agent, "e1", EVIDENCE)
    monkeypatch.setattr("flows.champions.settle", settle)
    client.fault = "fails"
    monkeypatch.setattr("flows.smoke.open_client", lambda config: client)
    assert not decide("synthetic", agent, "e1", EVIDENCE)["moved"]
    assert open_registry("synthetic").champion()[0] == 1


def test_watch_when_one_replica_of_several_is_behind_then_answers_in_a_row_are_waited_for(agent):
    bundle = load_bundle(agent)
    client = Serving.of(bundle)
    seen = iter([False, True, True, False, True, True, True, True])
    whole = client.policies

    async def policies():
        found = await whole()
        return found if next(seen) else replace(found, champion=None)

    client.policies = policies
    assert "3 smoke decisions" in asyncio.run(check_champion(client, agent, 5.0, 3))
    assert list(seen) == [True]


def test_watch_when_nobody_answers_then_says_what_was_seen_last(agent):
    client = Serving.of(load_bundle(agent))

    async def policies():
        raise DecideError("unavailable", "no route to host")

    client.policies = policies
    with pytest.raises(SmokeError, match="no route to host"):
        asyncio.run(check_champion(client, agent, 0.1, 1))


def test_promotion_when_watched_on_a_cluster_then_it_asks_the_api_server_for_nothing(served, lake, agent, monkeypatch):
    """The gateway cannot be restarted by a promotion: promote has no rights, and no call is made."""

    def refuse(*_args):
        raise AssertionError("promote called the API server")

    monkeypatch.setattr("flows.kube.client.connect", refuse)
    monkeypatch.setattr("subprocess.run", refuse)
    assert decide("synthetic", agent, "e1", EVIDENCE)["moved"]
