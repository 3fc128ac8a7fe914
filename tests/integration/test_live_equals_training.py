"""A recorded day through venue, feed, parents and policies gives, decision by decision, the environment's actions."""

import pytest
from live_day import play_live, requests_of
from policy_bundles import random_bundle
from synthetic_features import synthetic_features
from traded_day import params, traded_day

from flows.trade import trade_day
from flows.trade_backtest import backtest
from flows.trade_day import parents_of
from serving.contracts.observation import OBSERVATION_NAMES
from serving.decide.local import LocalPolicies
from serving.parents.observing import unpacked
from training.execution.config import ExecutionConfig
from training.execution.static_rule import write_bundle_zero
from training.market.day import load_market_day
from training.signals.apply import apply_signal

SHORT = {"horizon_s": 120, "decision_interval_s": 10, "start_every_s": 120, "lots": 60, "first_start_s": 120}
BUNDLES = {
    "bundle 0": lambda folder: write_bundle_zero(folder),
    "discrete, history, a decision a second": lambda folder: random_bundle(
        folder, seed=3, stack=4, decisions_per_slice=10, ahead_slices=3, **SHORT
    ),
    "continuous": lambda folder: random_bundle(folder, seed=4, actions="continuous", decisions_per_slice=2, **SHORT),
    "forecasts and history": lambda folder: random_bundle(folder, seed=5, stack=3, window=20, **SHORT),
    "waiting keeps its place": lambda folder: random_bundle(
        folder, seed=7, decisions_per_slice=5, ahead_slices=2, wait_keeps=True, **SHORT
    ),
    "optimistic queue": lambda folder: random_bundle(folder, seed=6, fill_model="optimistic", **SHORT),
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    return root, synthetic_features(root, hours=0.5)


def forecasts_of(bundle, features_dir, out):
    """The forecasts that this bundle's signal model gives on the day; None without one."""
    if bundle.signal_onnx is None:
        return None
    spec = {
        "features": bundle.metadata["feature_names"], "horizons_s": bundle.metadata["horizons_s"],
        "window": bundle.signal_window, "model_version": "test", "train_days": [],
    }  # fmt: skip
    out.mkdir()
    apply_signal(features_dir, out, bundle.signal_onnx, spec)
    return out


@pytest.mark.parametrize("name", BUNDLES)
def test_live_when_a_day_is_played_in_lockstep_then_acts_and_fills_as_the_environment(features, tmp_path, name):
    root, partition = features
    bundle = BUNDLES[name](tmp_path / "bundle")
    config = ExecutionConfig.from_dict(dict(bundle.metadata["execution"]))
    day = load_market_day(root, forecasts_of(bundle, root, tmp_path / "forecasts"), partition)
    together = 3 if config.horizon_s <= 120 else 1  # the half hour has no room for three long ones of both sides
    parents = parents_of([day], config, None, together)
    env = backtest(bundle, [day], parents, config)
    live = play_live(day, requests_of(day, parents), LocalPolicies.of(bundle), fill_model=config.fill_model)
    actions = set()
    assert {int(side) for side in parents["side"]} == {1, -1}
    apart_ns = (parents["start_ns"][1:] - parents["start_ns"][:-1]).min()
    assert (apart_ns < config.horizon_s * 10**9) == (together > 1)
    for index in range(len(parents)):
        parent, decided = live.parent(f"p{index}"), live.decisions[f"p{index}"]
        assert (parent.how, parent.fallback) == ("filled", "")
        for step, record in enumerate(decided):
            seen = env.seen[step][index]
            differs = [row for row in zip(OBSERVATION_NAMES, seen, unpacked(record.seen), strict=True)
                       if row[1] != row[2]]  # fmt: skip
            assert not differs, (index, step, differs)
            assert record.action == env.action(index, step), (index, step)
            actions.add(record.action)
        assert live.fills(f"p{index}") == env.fills[index]
        assert parent.tca["is_bps"] == pytest.approx(float(env.rows["is_bps"][index]), abs=1e-9)
    assert len(actions) > 1
    if bundle.signal_onnx is not None:
        last = live.decisions["p0"][-1]
        values = dict(zip(OBSERVATION_NAMES, unpacked(last.seen), strict=True))
        assert values["forecast_missing"] == 0.0 and values["forecast_10s_bps"] != 0.0


THROUGH_PROCESSES = {
    "bundle 0": (lambda folder: write_bundle_zero(folder), 0.45),
    "forecasts, history, a decision every 2 s": (
        lambda folder: random_bundle(folder, seed=5, stack=3, window=20, decisions_per_slice=5, **SHORT),
        0.3,
    ),
}


@pytest.mark.parametrize("name", THROUGH_PROCESSES)
def test_processes_when_a_day_is_played_in_lockstep_then_venue_parents_gateway_and_decide_act_as_the_environment(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("SHORTFALL_LAKE", str(tmp_path / "lake"))
    make, hours = THROUGH_PROCESSES[name]
    bundle = make(tmp_path / "bundle")

    def forecasts(bundle, features_dir):
        return forecasts_of(bundle, features_dir, tmp_path / "forecasts")

    day = traded_day(tmp_path / "lake", bundle.folder, hours, forecasts)
    found = trade_day(day, params())
    assert found["parents"] == {"asked": len(day.parents), "filled": len(day.parents), "fallback": 0, "not_done": 0}
    assert len(day.parents) >= 2 and found["fills"] > 10
    assert found["same_parents"] == len(day.parents)
    assert found["same_decisions"] == found["decisions"] > 10
    assert found["difference_bps"] == pytest.approx(0.0, abs=1e-9)
    assert found["processes"] == {"venue": 0, "decide": 0, "gateway": 0, "parents": 0} and found["killed"] == []
