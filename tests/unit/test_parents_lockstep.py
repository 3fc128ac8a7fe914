"""Live equals training: the core of the EMS in lockstep with the depth venue, decision by decision."""

from dataclasses import replace

import numpy as np
import pytest
from ems_world import NS, SHA, Ems, policy, request, seeded
from market_fixtures import make_day, open_ns, random_rows

from feature_repo.pipeline.books import Book
from feature_repo.pipeline.kernels import FEATURES, SIGNAL_V1, compute_features
from serving.contracts.observation import FORECAST_HORIZONS_S, OBSERVATION_NAMES
from serving.contracts.stacking import ObservationStack
from training.execution.config import ExecutionConfig
from training.execution.env import ExecutionEnv
from training.execution.parents import ParentOrder
from training.execution.run import results
from training.market.venue.depth_world import DepthWorld

WINDOW = 8
START = open_ns() + 120 * NS


def a_forecast(window):
    """A signal model of the test: horizons (H,) from the last rows (L, F)."""
    last = np.asarray(window, np.float32)
    return np.array([last[-1, 2] * 3.0, last[:, 3].mean(), last[-1, 9] - last[0, 9]], np.float32)


def day_of(seed, snapshot=False, forecasts=False):
    """A day with the features, and perhaps forecasts, that the stages would give it."""
    day = make_day(random_rows(np.random.default_rng(seed), 1500, step_ns=NS), snapshot=snapshot)
    book = day.book
    columns = [getattr(book, name) for name in ("ts_ns", "bid_px", "bid_sz", "ask_px", "ask_sz")]
    ts, values, valid = compute_features(Book(*columns, book.trade_px, book.trade_sz, book.trade_side), day.windows)
    market = values[:, [FEATURES.index(name) for name in SIGNAL_V1]]
    found, missing = np.zeros((len(ts), len(FORECAST_HORIZONS_S)), np.float32), np.ones(len(ts), np.float32)
    for row in range(WINDOW - 1, len(ts)) if forecasts else ():
        if valid[row - WINDOW + 1 : row + 1].all():
            found[row], missing[row] = a_forecast(market[row - WINDOW + 1 : row + 1]), 0.0
    good = valid != 0
    return replace(
        day, feature_ns=ts[good], features=np.ascontiguousarray(market[good]), forecasts=found[good],
        forecast_missing=missing[good],
    )  # fmt: skip


def by_environment(day, config, side, lots, decide, stack=1):
    """Observations, actions and the account of an episode."""
    env, history, seen, actions, done = ExecutionEnv([day], config), ObservationStack(stack), [], [], False
    state, _ = env.reset(options={"parent": ParentOrder(0, side, lots, START, 600 * NS)})
    while not done:
        stacked = history.push(state["observation"][None])[0]
        action = decide(stacked, state["action_mask"])
        seen.append(stacked)
        actions.append(tuple(np.atleast_1d(np.asarray(action, np.float32)).tolist()))
        state, _, done, _, _ = env.step(action if isinstance(action, int) else np.array(action, np.float32))
    return seen, actions, results(env._stepper.engine, [day], config)[0]


def by_ems(day, config, side, lots, decide, **more):
    """The same parent, worked by the core."""
    made_for = {**config.to_dict(), "horizon_s": 600}
    champion = replace(policy(action_set=config.actions, **more), execution=made_for)
    ems = Ems(
        DepthWorld(day, fill_model=config.fill_model), day.instrument, decide, champion, start_ns=open_ns(),
        forecast=a_forecast,
    )  # fmt: skip
    ems.core.submit(request(lots=lots, side=side, start_ns=START), 1)
    ems.run(START + 620 * NS)
    return ems


def check_same(day, config, side, lots, decide, stack=1, champion_more=()):
    seen, actions, row = by_environment(day, config, side, lots, decide, stack)
    ems = by_ems(day, config, side, lots, decide, stack=stack, **dict(champion_more))
    asked = [ask for ask in ems.asks if ask.features is None]
    for step, (mine, theirs) in enumerate(zip(asked, seen, strict=False)):
        differs = np.flatnonzero(mine.observation != theirs)
        names = [OBSERVATION_NAMES[place % len(OBSERVATION_NAMES)] for place in differs]
        assert not names, f"decision {step}: {names} {mine.observation[differs]} live, {theirs[differs]} in training"
    assert len(asked) == len(seen)
    decided = [record.action for record in ems.records if type(record).__name__ == "Decided"]
    assert decided == actions
    parent = ems.core.state.parents[1]
    assert parent.how == "filled" and not parent.fallback
    for name in ("is_bps", "spread_bps", "impact_bps", "timing_bps", "passive_share", "completion"):
        assert parent.tca[name] == pytest.approx(row[name], abs=1e-9), name
    return ems, row


@pytest.mark.parametrize("snapshot", [False, True], ids=["latency", "next snapshot"])
@pytest.mark.parametrize("actions", ["discrete", "continuous"])
@pytest.mark.parametrize("side", [1, -1], ids=["buy", "sell"])
@pytest.mark.parametrize(("seed", "per_slice", "lots"), [(1, 1, 200), (2, 5, 200), (3, 15, 60), (4, 3, 7)])
def test_core_decides_and_fills_as_the_environment(seed, per_slice, lots, side, actions, snapshot):
    config = ExecutionConfig(decisions_per_slice=per_slice, actions=actions)
    check_same(day_of(seed, snapshot), config, side, lots, seeded(seed, actions == "continuous"))


@pytest.mark.parametrize("model", ["expected", "optimistic"])
@pytest.mark.parametrize("ahead", [0, 3])
def test_core_estimates_the_queue_as_each_fill_model_does(model, ahead):
    config = ExecutionConfig(decisions_per_slice=5, fill_model=model, ahead_slices=ahead)
    for seed in (5, 6):
        check_same(day_of(seed), config, 1, 150, seeded(seed))


def test_core_sees_forecasts_and_the_past_as_the_environment():
    day = day_of(7, forecasts=True)
    assert float(np.mean(day.forecast_missing == 0)) > 0.1
    config = ExecutionConfig(decisions_per_slice=3)
    more = {"signal_window": WINDOW, "feature_names": SIGNAL_V1, "horizons_s": FORECAST_HORIZONS_S}
    ems, _ = check_same(day, config, -1, 100, seeded(7), stack=4, champion_more=more.items())
    assert sum(ask.features is not None for ask in ems.asks) > 10
    assert all(ask.sha256 == SHA for ask in ems.asks)


def test_core_sweeps_what_the_visible_book_holds_and_states_the_rest():
    rows = [(open_ns() + i * NS, [(99, 5)], [(101, 5), (102, 5)], None) for i in range(900)]
    day = make_day(rows)
    ems = Ems(DepthWorld(day), day.instrument, lambda seen, mask: 0, policy(), start_ns=open_ns())
    ems.core.submit(request(lots=100, horizon_ns=300 * NS, start_ns=open_ns() + 120 * NS), 1)
    ems.run(open_ns() + 440 * NS)
    parent = ems.core.state.parents[1]
    assert (parent.how, parent.filled, parent.left) == ("expired", 10, 90)
    assert parent.reason == "the market had not enough to take"
    # ten at 101 and 102 against a mid of 100; ninety more charged from there on, a tick apart, five lots each
    assert parent.tca["completion"] == 0.0 and parent.tca["left_bps"] > parent.tca["impact_bps"] > 0
    assert [alert.what for alert in ems.alerts][-1] == "left"
