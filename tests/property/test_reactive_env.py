"""Parents in the reactive world: the environments' contract, their accounts, and what two policies share."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import make_day, random_rows

from feature_repo.errors import InputError
from feature_repo.pipeline.kernels import SIGNAL_V1, FeatureState
from serving.contracts.actions import ACTION_SETS
from serving.contracts.observation import MARKET_NAMES, OBSERVATION_NAMES
from training.execution.baselines import Pov, default_policies
from training.execution.config import NS, ExecutionConfig
from training.execution.env import ExecutionEnv
from training.execution.parents import ParentOrder, sample_parents
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.execution.vector_env import ExecutionVectorEnv
from training.market.orders import PARENT_DTYPE
from training.market.queues import kernel
from training.market.reactive.episode import WARMUP_S, market_stream
from training.market.reactive.kernel import next_event, open_market
from training.market.reactive.rows import show
from training.market.reactive.state import new_markets, prepare
from training.market.reactive.world import ReactiveEngine

CONFIG = ExecutionConfig(lots=90, world="reactive", maker_fee_bps=-0.1, taker_fee_bps=0.3, horizon_s=300)
MODES = [
    replace(CONFIG, actions=actions, decision_every_events=events) for actions in ACTION_SETS for events in (None, 150)
]
seeds = st.integers(0, 2**31 - 1)


def mode_name(config):
    return f"{config.actions}-{config.decision_every_events}"


@pytest.fixture(scope="module")
def days():
    found = [make_day(random_rows(np.random.default_rng(3))), make_day(random_rows(np.random.default_rng(4)))]
    return [replace(day, instrument=replace(day.instrument, synthetic=True)) for day in found]


def uniform_policy(seed):
    rng = np.random.default_rng(seed)
    return ModelPolicy("any", lambda observation, mask: rng.integers(0, 4, len(mask)))


def parent_at(vector, i):
    return ParentOrder(*(int(value) for value in vector.parents[i]))


@pytest.mark.filterwarnings("error")
def test_environment_passes_gymnasiums_checker(days):
    check_env(ExecutionEnv(days, CONFIG), skip_render_check=True)


@settings(max_examples=4, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_reward_telescopes_to_minus_the_shortfall(days, config, seed):
    env = ExecutionEnv(days, config)
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        assert env.observation_space.contains(observation)
        observation, reward, done, truncated, info = env.step(env.action_space.sample())
        total += reward
        assert not truncated
    assert total == pytest.approx(-info["is_bps"], abs=1e-8)


@settings(max_examples=3, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_vector_environment_agrees_with_single_environments_step_by_step_and_after_resets(days, config, seed):
    vector = ExecutionVectorEnv(days, config, 4)
    vector.action_space.seed(seed)
    singles = [ExecutionEnv(days, config) for _ in range(4)]

    def again(i):
        options = {"parent": parent_at(vector, i), "market": int(vector._stepper.markets[i])}
        return singles[i].reset(options=options)[0]

    batch, _ = vector.reset(seed=seed)
    for i in range(4):
        check_same(again(i), batch, i)
    ended, resets = np.zeros(4, bool), 0
    for _ in range(40):
        actions = vector.action_space.sample()
        batch, rewards, terminated, _, infos = vector.step(actions)
        for i, env in enumerate(singles):
            if ended[i]:
                observation, reward, done = again(i), 0.0, False
                resets += 1
            else:
                observation, reward, done, _, info = env.step(actions[i])
                assert all(infos[name][i] == value for name, value in info.items())
            check_same(observation, batch, i)
            assert (reward, done) == (rewards[i], terminated[i])
        ended = terminated
    assert resets >= 4 and len(set(vector._stepper.markets)) == 4


def check_same(observation, batch, i):
    for name in observation:
        np.testing.assert_array_equal(observation[name], batch[name][i])


@settings(max_examples=6, deadline=None)
@given(seed=seeds, ahead=st.integers(0, 3), lots=st.sampled_from([5, 90, 900]))
def test_lots_are_conserved_and_parts_sum_to_the_shortfall_whatever_the_actions(days, seed, ahead, lots):
    config = replace(CONFIG, lots=lots, ahead_slices=ahead)
    parents = sample_parents(days, config, np.random.default_rng(seed), 8)
    check_accounts(run_policy(uniform_policy(seed), days, parents, config, record=range(8)), parents)


def test_every_baseline_fills_each_parent_exactly_and_accounts_for_it(days):
    parents = sample_parents(days, CONFIG, np.random.default_rng(1), 12)
    for policy in default_policies(CONFIG):
        check_accounts(run_policy(policy, days, parents, CONFIG, record=range(12)), parents)


def check_accounts(result, parents):
    rows = result.rows
    assert (result.world, result.fill_model) == ("reactive", "conservative")
    np.testing.assert_array_equal(rows["filled_lots"], parents["lots"])
    parts = rows["spread_bps"] + rows["impact_bps"] + rows["timing_bps"] + rows["fees_bps"]
    np.testing.assert_allclose(parts, rows["is_bps"], atol=1e-9)
    assert (rows["impact_bps"] >= 0).all()
    for i in range(len(parents)):
        fills = result.fills[result.fills["episode"] == i]
        assert fills["lots"].sum() == parents["lots"][i] and (fills["lots"] > 0).all()
        cost = rows["passive_cost"][i] + rows["aggressive_cost"][i] + rows["forced_cost"][i]
        assert (fills["lots"] * fills["price_ticks"]).sum() == cost
        assert (np.diff(fills["ts_ns"]) >= 0).all() and fills["ts_ns"][0] > parents["start_ns"][i]


def test_same_parents_and_markets_give_the_same_run_and_another_market_seed_another(days):
    parents = sample_parents(days, CONFIG, np.random.default_rng(1), 10)
    first, again = (run_policy(uniform_policy(5), days, parents, CONFIG).rows for _ in range(2))
    other = run_policy(uniform_policy(5), days, parents, replace(CONFIG, market_seed=1)).rows
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_policies_share_their_market_until_the_first_own_message_meets_it(days):
    parents = sample_parents(days, CONFIG, np.random.default_rng(2), 6)
    seen = {}

    def acting(name, late):
        def act(observation, mask):
            seen[name].append(observation.copy())
            wait = len(seen[name]) <= late
            return np.where(wait | (mask[:, 1] < 0.5), 0, 1)

        seen[name] = []
        return ModelPolicy(name, act)

    for name, late in (("at once", 0), ("after four", 4), ("after eight", 8)):
        run_policy(acting(name, late), days, parents, CONFIG)
    market = [OBSERVATION_NAMES.index(name) for name in ("mid_move_bps", *MARKET_NAMES[1:])]
    now, four, eight = (np.array([rows[:, market] for rows in seen[name][:9]]) for name in seen)
    np.testing.assert_array_equal(now[0], four[0])
    np.testing.assert_array_equal(four[:5], eight[:5])
    assert (now[1:4] != four[1:4]).any() and (four[5:] != eight[5:]).any()


@kernel
def one_event(p, m, until_ns):
    return next_event(p, m, until_ns)


def test_features_are_those_of_the_simulated_feed(days):
    parent = np.array([(0, 1, 90, days[0].windows[0][0] + 1800 * NS, 300 * NS)], PARENT_DTYPE)
    engine = ReactiveEngine(days, 1)
    engine.start(parent, numbers=np.array([7]))
    start_ns = int(parent["start_ns"][0])
    markets = new_markets(1)
    world, warm_ns = engine.world, start_ns - WARMUP_S * NS
    opens, closes = days[0].windows[0]
    prepare(markets, world.parameters, 0.0, opens, closes - opens)
    row = np.searchsorted(days[0].book.ts_ns, start_ns, side="right") - 1
    bid = int(days[0].book.bid_px[row, 0])
    open_market(world.parameters, markets[0], market_stream(engine.base, 7), warm_ns, bid)
    feed = FeatureState([(warm_ns, start_ns + 3600 * NS)], 3)
    levels = np.zeros((4, 3), np.int32)
    assert not one_event(world.parameters, markets[0], warm_ns)  # the engine plays up to the first bar, which is now
    show(markets[0], levels)
    feed.on_row(warm_ns, levels, 0, 0)
    feed.open_window()
    for second in range(WARMUP_S):
        end = warm_ns + (second + 1) * NS
        while one_event(world.parameters, markets[0], end):
            trade = int(markets["trade_lots"][0]), int(markets["trade_side"][0])
            if show(markets[0], levels) or trade[0] > 0:
                feed.on_row(int(markets["now_ns"][0]), levels, *(trade if trade[0] > 0 else (0, 0)))
        features, valid = feed.close_bar(end)
    clock = SIGNAL_V1.index("time_of_day")
    keep = [i for i in range(len(SIGNAL_V1)) if i != clock]
    np.testing.assert_array_equal(world.features[0, keep], features[keep])
    assert valid and world.features[0, clock] == pytest.approx((start_ns - opens) / (closes - opens), rel=1e-6)


def test_market_orders_alone_pay_half_the_spread_and_time_nothing(days):
    free = replace(CONFIG, maker_fee_bps=0.0, taker_fee_bps=0.0)
    parents = sample_parents(days, free, np.random.default_rng(3), 1500)
    crossing = ModelPolicy("cross", lambda observation, mask: np.where(mask[:, 3] > 0.5, 3, 0))
    rows = run_policy(crossing, days, parents, free).rows
    half_tick_bps = 1e4 / np.array([2 * 1000])  # levels of about 1,000 ticks
    assert (rows["passive_share"] == 0).all() and rows["spread_bps"].mean() > 0.9 * half_tick_bps
    error = rows["timing_bps"].std() / np.sqrt(len(rows))
    assert abs(rows["timing_bps"].mean()) < 3.5 * error


def test_a_larger_parent_moves_the_market_more_and_pays_for_it(days):
    costs = []
    for lots in (30, 300, 3000):
        config = replace(CONFIG, lots=lots, maker_fee_bps=0.0, taker_fee_bps=0.0)
        parents = sample_parents(days, config, np.random.default_rng(4), 300)
        crossing = ModelPolicy("cross", lambda observation, mask: np.where(mask[:, 3] > 0.5, 3, 0))
        costs.append(run_policy(crossing, days, parents, config).rows["is_bps"].mean())
    assert costs[0] < costs[1] < costs[2] and costs[2] > 3 * costs[0]


def test_what_the_reactive_world_cannot_do_is_refused(days):
    parents = sample_parents(days, CONFIG, np.random.default_rng(5), 2)
    late = parents.copy()
    late["start_ns"] = days[0].windows[0][1] - 10 * NS
    with pytest.raises(InputError, match="session window closes"):
        run_policy(uniform_policy(1), days, late, CONFIG)
    other = replace(
        days[0],
        partition=replace(days[0].partition, symbol="U"),
        instrument=replace(days[0].instrument, synthetic=False),
    )
    with pytest.raises(InputError, match="one instrument's"):
        ExecutionEnv([days[0], other], CONFIG)
    with pytest.raises(InputError, match="signal_strength 1.5"):
        ExecutionConfig(world="reactive", signal_strength=1.5)
    vector = ExecutionVectorEnv(days, replace(CONFIG, world="replay"), 2)
    with pytest.raises(InputError, match="one market, history"):
        vector.reset(options={"parents": parents, "markets": np.arange(2)})


def test_participation_keeps_up_with_the_volume_of_its_own_market(days):
    config = replace(CONFIG, maker_fee_bps=0.0, taker_fee_bps=0.0)
    parents = sample_parents(days, config, np.random.default_rng(6), 40)
    parents["lots"] = 5000  # more than a tenth of any market's volume
    rows = run_policy(Pov(0.1), days, parents, config).rows
    taken = rows["completion"] * rows["quantity_lots"]
    other = run_policy(Pov(0.1), days, parents, replace(config, market_seed=9)).rows
    assert (taken > 0).all() and taken.std() > 0.1 * taken.mean()  # each market has a volume of its own
    assert (other["completion"] != rows["completion"]).any()
    assert 50 < taken.mean() < 1000  # of some 2,300 lots in five minutes at the published tables
