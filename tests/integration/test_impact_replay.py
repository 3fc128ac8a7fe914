"""Replay whose book moves away from own trades: the same market without them, a dearer one with them."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from market_fixtures import NS, make_day, open_ns, random_rows
from test_fifo_exact import day_of, random_orders
from test_order_replay import synthetic_events

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from feature_repo.pipeline.kernels import SIGNAL_V1, compute_features
from serving.contracts.observation import FORECAST_NAMES, MARKET_NAMES, PRIVATE_NAMES
from training.execution.baselines import Carry, Immediate, TwapMarket, default_policies
from training.execution.config import ExecutionConfig
from training.execution.env import ExecutionEnv
from training.execution.parents import ParentOrder, parent_grid, sample_parents
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.execution.vector_env import ExecutionVectorEnv
from training.market.engine import Engine
from training.market.impact import ImpactParameters, dither_of
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE

T0 = open_ns()
IMPACT = ImpactParameters(200.0, (400.0, 300.0), (3.0, 40.0), 0.2, 100.0, 4000.0)
CONFIG = ExecutionConfig(lots=120, world="impact", maker_fee_bps=-0.1, taker_fee_bps=0.3)
REPLAY = replace(CONFIG, world="replay")
MODELS = ("conservative", "expected", "optimistic")
FIRST = len(PRIVATE_NAMES)


def featured(day):
    """The day with its own features, and forecasts that are there."""
    book = Book(**vars(day.book))
    stamps, features, valid = compute_features(book, day.windows)
    whole = valid != 0
    count = int(whole.sum())
    return replace(
        day, feature_ns=stamps[whole], features=np.ascontiguousarray(features[whole, : len(SIGNAL_V1)]),
        forecasts=np.full((count, len(FORECAST_NAMES)), 0.5, np.float32), forecast_missing=np.zeros(count, np.float32),
        book=book, impact=IMPACT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(21)
    rows = random_rows(rng, 9000, step_ns=NS // 2)
    made = [make_day(rows), make_day(rows, snapshot=True), make_day(random_rows(rng, 5000), latency_ns=0)]
    return [featured(day) for day in made]


def rows_of(policy, days, config, parents):
    return run_policy(policy, days, parents, config, record=range(len(parents)))


@pytest.mark.parametrize("model", MODELS)
def test_scale_zero_is_plain_replay_bit_by_bit(days, model):
    parents = sample_parents(days, CONFIG, np.random.default_rng(1), 12)
    for policy in default_policies(CONFIG):
        off = rows_of(policy, days, replace(CONFIG, impact_scale=0.0, fill_model=model), parents)
        plain = rows_of(policy, days, replace(REPLAY, fill_model=model), parents)
        assert off.rows.tobytes() == plain.rows.tobytes() and off.fills.tobytes() == plain.fills.tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_without_own_fills_observations_are_those_of_plain_replay(days, model):
    """Orders far behind the best price rest and move, and are never met; the market must not notice them."""
    continuous = replace(CONFIG, actions="continuous", fill_model=model)
    far = np.array([1.0, -1.0], np.float32)
    runs = []
    for config in (continuous, replace(continuous, world="replay")):
        env = ExecutionEnv(days[:1], config)
        seen = [env.reset(options={"parent": ParentOrder(0, 1, 60, T0 + 900 * NS, 600 * NS)})[0]]
        for _ in range(config.slices - 1):
            seen.append(env.step(far)[0])
            if env._stepper.engine.states[0]["filled"]:
                break
        runs.append(seen)
    assert len(runs[0]) == len(runs[1]) > 2
    for one, other in zip(*runs, strict=True):
        if one["observation"][0] < 1:
            break
        np.testing.assert_array_equal(one["observation"], other["observation"])


def test_impact_costs_more_the_larger_it_is_and_the_difference_is_its_impact_part(days):
    parents = parent_grid(days, CONFIG)
    for policy in (Immediate(), TwapMarket()):
        plain = rows_of(policy, days, REPLAY, parents).rows
        costs = [plain["is_bps"]]
        for scale in (0.5, 1.0, 1.5):
            rows = rows_of(policy, days, replace(CONFIG, impact_scale=scale), parents).rows
            parts = rows["spread_bps"] + rows["impact_bps"] + rows["timing_bps"] + rows["fees_bps"]
            np.testing.assert_allclose(parts, rows["is_bps"], atol=1e-9)
            np.testing.assert_allclose(rows["timing_bps"], plain["timing_bps"], atol=1e-9)
            np.testing.assert_allclose(rows["spread_bps"], plain["spread_bps"], atol=1e-9)
            assert (rows["impact_bps"] >= plain["impact_bps"] - 1e-9).all()
            costs.append(rows["is_bps"])
        means = [cost.mean() for cost in costs]
        assert (np.diff(means) >= 0).all() and means[-1] > means[0]


def test_mean_cost_over_the_dither_is_that_of_the_formula():
    """Market orders in a still book, deep enough that walking it costs nothing: all that is paid is half the spread
    and the propagator's sum."""
    rows = [(T0 + k * NS, [(1000, 10_000)], [(1001, 10_000)], None) for k in range(7200)]
    rows[-1] = (*rows[-1][:3], (1000, 10**6, -1))
    day = replace(make_day(rows), impact=IMPACT)
    config = replace(CONFIG, lots=200, maker_fee_bps=0.0, taker_fee_bps=0.0, horizon_s=300, start_every_s=1)
    parents = parent_grid([day], config)
    rows = run_policy(TwapMarket(), [day], parents, config).rows
    share, latency, mid = 20 / IMPACT.adv_lots, 0.01, 1000.5
    wanted = 1e4 * 0.5 / mid + IMPACT.concession_bps(20)
    # the shift is brought up to date at whole seconds: after an order at s + 10 ms the next one meets the state of 30 s
    ages = [np.arange(k, 0, -1) * 30.0 - latency for k in range(10)]
    wanted += np.mean([share * IMPACT.kernel_bps(age).sum() for age in ages])
    assert len(rows) > 10_000
    error = rows["is_bps"].std() / np.sqrt(len(rows))
    assert abs(rows["is_bps"].mean() - wanted) < 4 * error and error < 0.01 * wanted
    assert rows["is_bps"][rows["side"] == 1].mean() == pytest.approx(rows["is_bps"][rows["side"] == -1].mean())


@pytest.mark.parametrize("side", [1, -1])
def test_book_is_seen_moved_against_the_parent_and_comes_back_as_the_impact_decays(days, side):
    still = [(T0 + k * NS, [(1000 - j, 50) for j in range(3)], [(1001 + j, 50) for j in range(3)], None)
             for k in range(7200)]  # fmt: skip
    day = replace(make_day(still), impact=ImpactParameters(0.0, (2000.0,), (20.0,), 0.0, 100.0, 1000.0))
    engine = Engine([day], 1, fill_capacity=64, impact_scale=1.0)
    engine.start(np.array([(0, side, 100, T0 + 60 * NS, 600 * NS)], PARENT_DTYPE), record=np.ones(1, np.int64))
    before = [int(values[0]) for values in engine.best()]
    now = T0 + 60 * NS
    engine.submit(np.array([now]), np.array([(1, 0, 0, 50, 0)], INSTRUCTION_DTYPE))
    shifts = []
    for second in range(0, 200):
        engine.advance(np.array([now + second * NS]))
        own_px, own_sz, opp_px, opp_sz = (int(values[0]) for values in engine.best())
        shift = own_px - before[0]
        assert opp_px - before[2] == shift and (own_sz, opp_sz) == (before[1], before[3])
        shifts.append(side * shift)
    u = dither_of(now, 0)
    fade = 0.05 * 2000.0 * 0.1 * np.exp(-(np.arange(200) - 0.01) / 20.0)  # 10 ticks: a bp is a tenth of one
    assert shifts[0] == 0 and shifts[1:] == np.floor(fade * 1.0005 + u)[1:].astype(int).tolist()
    assert shifts[1] >= 9 and shifts[-1] in (0, 1)
    assert engine.states[0]["arrival_mid2"] == 2001


def test_resting_order_keeps_its_price_and_stands_behind_what_shows_there_when_the_book_moves():
    book = [(T0 + k * NS, [(100, 10), (99, 25), (98, 40)], [(101, 30), (102, 30), (103, 30)], None) for k in range(600)]
    day = replace(make_day(book), impact=ImpactParameters(0.0, (4000.0,), (5.0,), 0.0, 100.0, 100.0))
    engine = Engine([day], 1, impact_scale=1.0)
    engine.start(np.array([(0, 1, 20, T0, 300 * NS)], PARENT_DTYPE))
    send(engine, T0, rest_px=100, rest_lots=5, cross_lots=1)  # the taken lot moves the book by 0.4 ticks or one
    engine.advance(np.array([T0 + NS]))
    state = engine.states[0]
    assert state["shift"] in (0, 1) and state["rest_px"] + state["shift"] == 100
    assert state["rest_ahead"] == (10, 25)[state["shift"]]
    send(engine, T0 + 2 * NS, rest_px=100, rest_lots=5, cross_lots=4)
    engine.advance(np.array([T0 + 3 * NS]))
    assert state["shift"] >= 1 and state["rest_px"] + state["shift"] == 100
    assert state["rest_ahead"] == {1: 25, 2: 40}[int(state["shift"])]


def send(engine, at_ns, rest_px=0, rest_lots=0, cross_lots=0, beyond=0):
    engine.submit(np.array([at_ns]), np.array([(1, rest_px, rest_lots, cross_lots, beyond)], INSTRUCTION_DTYPE))


def test_passive_fills_move_the_book_from_the_next_whole_second_by_their_share():
    rows = [(T0 + k * NS // 4, [(1000, 5)], [(1001, 50)], (1000, 500, -1) if k == 9 else None) for k in range(800)]
    day = replace(make_day(rows), impact=ImpactParameters(2000.0, (), (), 0.0, 100.0, 1000.0, passive_share=0.5))
    engine = Engine([day], 1, impact_scale=1.0)
    engine.start(np.array([(0, 1, 200, T0, 100 * NS)], PARENT_DTYPE))
    send(engine, T0, rest_px=1000, rest_lots=100)
    engine.advance(np.array([T0 + 3 * NS - 1]))
    assert engine.states[0]["passive_lots"] == 100 and engine.states[0]["shift"] == 0
    engine.advance(np.array([T0 + 3 * NS]))
    assert engine.states[0]["shift"] in (10, 11)  # 0.1 of the volume x 2000 bps x 0.5, a tick being 10 bps


def test_limit_that_is_marketable_never_pays_more_than_itself(days):
    rng = np.random.default_rng(4)
    engine = Engine(days, 200, fill_capacity=100_000, impact_scale=3.0)
    parents = sample_parents(days, CONFIG, rng, 200)
    engine.start(parents, record=np.ones(200, np.int64))
    now = parents["start_ns"].copy()
    _, _, opp_px, _ = engine.best()
    limit = opp_px + parents["side"] * rng.integers(0, 4, 200)
    messages = np.zeros(200, INSTRUCTION_DTYPE)
    messages["send"], messages["rest_px"], messages["rest_lots"] = 1, limit, 60
    engine.submit(now, messages)
    engine.advance(now + 20 * NS)
    fills = engine.fills()
    assert len(fills) > 100
    side = parents["side"][fills["episode"]]
    assert (side * (limit[fills["episode"]] - fills["price_ticks"]) >= 0).all()


def shifted_book(book, changes):
    """The book as an explicit stream: each price moved by the shift in force, a row more at each change.

    `changes` are (ts_ns, shift from then on); rows stamped up to a change come before it.
    """
    columns = {name: [] for name in vars(book)}
    shift, row = 0, 0
    for ts_ns, after in [*changes, (np.iinfo(np.int64).max, None)]:
        end = np.searchsorted(book.ts_ns, ts_ns, side="right") if after is not None else len(book.ts_ns)
        for name in columns:
            part = getattr(book, name)[row:end].copy()
            if name.endswith("_px"):
                part[part != 0] += shift
            columns[name].append(part)
        if after is None:
            break
        row, shift = end, after
        for name in columns:
            last = getattr(book, name)[row - 1 : row].copy()
            if name == "ts_ns":
                last[:] = ts_ns
            elif name.startswith("trade"):
                last[:] = 0
            elif name.endswith("_px"):
                last[last != 0] += shift
            columns[name].append(last)
    return Book(**{name: np.concatenate(parts) for name, parts in columns.items()})


def features_seen(env):
    """Market features of the observation, and what follows them, unsigned by the side."""
    observed = env._stepper.observe()[0][0]
    side = int(env._stepper.engine.states[0]["side"])
    signs = np.where(env._stepper._settings.limits[0] > 0, side, 1)
    return (observed * signs)[FIRST : FIRST + len(MARKET_NAMES)], observed[FIRST + len(MARKET_NAMES) :]


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("holes", [False, True])
def test_features_are_those_of_an_explicitly_shifted_book_to_the_bit(side, holes):
    rng = np.random.default_rng(33)
    rows = random_rows(rng, 12_000, step_ns=NS // 3)
    if holes:  # a side goes missing for seconds at a time, now and then
        rows = [(ts, [] if (ts // NS) % 97 < 6 else bids, asks, trade) for ts, bids, asks, trade in rows]
    day = featured(make_day(rows))
    env = ExecutionEnv([day], replace(CONFIG, lots=900, impact_scale=2.0))
    start = T0 + 200 * NS
    env.reset(options={"parent": ParentOrder(0, side, 900, start, 600 * NS)})
    engine, changes, seen = env._stepper.engine, [], []
    state = engine.states[0]
    for second in range(550):
        now, shift = start + second * NS, int(state["shift"])
        own_px = int(engine.best()[0][0])
        if own_px and rng.random() < 0.2:  # resting, taking or both
            send(engine, now, own_px, int(rng.integers(0, 9)), int(rng.integers(0, 9)))
        for moment in (now + 10_000_000, now + NS):  # the book moves when the message arrives and at the whole second
            engine.advance(np.array([moment]))
            if state["shift"] != shift:
                shift = int(state["shift"])
                changes.append((moment, shift))
        if state["done"]:
            break
        engine.states["now_ns"] = now + NS
        engine.states["feature"] = np.searchsorted(day.feature_ns, now + NS, side="right") - 1
        seen.append((now + NS, *features_seen(env), int(engine.tape.reaction.episodes["moved"][0])))
    assert len(changes) > 20 and max(side * after for _, after in changes) >= 2
    stamps, wanted, valid = compute_features(shifted_book(day.book, changes), day.windows)
    places = np.flatnonzero(valid)
    compared = 0
    for now, found, forecasts, moved in seen:
        place = places[np.searchsorted(stamps[places], now, side="right") - 1]
        np.testing.assert_array_equal(found, wanted[place, : len(MARKET_NAMES)])
        if moved:
            assert forecasts.tolist() == [0, 0, 0, 1]
            compared += 1
    assert compared > 300


def test_vector_environment_agrees_with_single_ones_in_the_world_with_impact(days):
    rng = np.random.default_rng(5)
    parents = sample_parents(days, CONFIG, rng, 6)
    vector = ExecutionVectorEnv(days, CONFIG, 6)
    singles = [ExecutionEnv(days, CONFIG) for _ in parents]
    batch, _ = vector.reset(options={"parents": parents})
    for env, parent in zip(singles, parents, strict=True):
        env.reset(options={"parent": ParentOrder(*(int(value) for value in parent))})
    running, moved = np.ones(6, bool), 0
    while running.any():
        actions = rng.integers(0, 4, 6)
        batch, rewards, ended, _, _ = vector.step(actions)
        for i in np.flatnonzero(running):
            observation, reward, done, _, _ = singles[i].step(actions[i])
            assert reward == rewards[i] and done == ended[i]
            for name in observation:
                np.testing.assert_array_equal(observation[name], batch[name][i])
            moved += int(observation["observation"][-1] == 1)
        running &= ~ended
    assert moved > 20


@pytest.mark.parametrize("model", MODELS)
def test_reward_telescopes_and_lots_and_parts_add_up_with_impact(days, model):
    config = replace(CONFIG, fill_model=model)
    for seed in range(20):
        env, rng = ExecutionEnv(days, config), np.random.default_rng(seed)
        env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            _, reward, done, _, info = env.step(rng.integers(0, 4))
            total += reward
        assert total == pytest.approx(-info["is_bps"], abs=1e-8)
    rng = np.random.default_rng(7)
    parents = sample_parents(days, config, rng, 60)
    policy = ModelPolicy("any", lambda observation, mask: rng.integers(0, 4, len(mask)))
    result = rows_of(policy, days, config, parents)
    rows = result.rows
    parts = rows["spread_bps"] + rows["impact_bps"] + rows["timing_bps"] + rows["fees_bps"]
    np.testing.assert_allclose(parts, rows["is_bps"], atol=1e-9)
    for i in range(len(parents)):
        fills = result.fills[result.fills["episode"] == i]
        cost = rows["passive_cost"][i] + rows["aggressive_cost"][i] + rows["forced_cost"][i]
        assert fills["lots"].sum() == parents["lots"][i] and (fills["lots"] * fills["price_ticks"]).sum() == cost
        assert (fills["price_ticks"] >= 1).all()


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("actions", ["discrete", "continuous"])
def test_environment_with_impact_passes_gymnasiums_checker(days, actions):
    check_env(ExecutionEnv(days, replace(CONFIG, actions=actions)), skip_render_check=True)


@pytest.mark.parametrize("seed", range(4))
def test_sell_in_the_mirrored_market_is_moved_against_as_the_buy_is(seed):
    rng, config = np.random.default_rng(seed), replace(CONFIG, maker_fee_bps=0.0, taker_fee_bps=0.0)
    rows, start = random_rows(rng, 3000, step_ns=NS // 2), T0 + 300 * NS
    _, bids, asks, _ = [row for row in rows if row[0] <= start][-1]
    axis = bids[0][0] + asks[0][0]  # the arrival mid is its own mirror image: bps are of the same value
    flipped = [
        (ts, [(axis - px, lots) for px, lots in asks], [(axis - px, lots) for px, lots in bids],
         trade and (axis - trade[0], trade[1], -trade[2]))
        for ts, bids, asks, trade in rows
    ]  # fmt: skip
    results = []
    for side, book in ((1, rows), (-1, flipped)):
        env = ExecutionEnv([replace(make_day(book), impact=IMPACT)], config)
        env.reset(options={"parent": ParentOrder(0, side, 120, start, 600 * NS)})
        draws, rewards, done = np.random.default_rng(seed), [], False
        while not done:
            _, reward, done, _, _ = env.step(draws.integers(0, 4))
            rewards.append(reward)
        results.append(rewards)
    np.testing.assert_allclose(results[0], results[1], atol=1e-9)


def test_exact_queues_with_impact_fill_resting_orders_at_their_price_and_nothing_without_it_changes():
    day = day_of(synthetic_events(7, hours=0.5), 5)
    stamps = np.arange(day.windows[0][0], day.windows[0][1], NS, dtype=np.int64)
    empty = np.zeros((len(stamps), len(MARKET_NAMES)), np.float32)
    day = replace(day, feature_ns=stamps, features=empty, impact=replace(IMPACT, adv_lots=100_000.0))
    parents, messages = random_orders(day.book, 120, 60 * NS, 7)
    messages["cross_lots"] = 10
    runs = {}
    for scale in (None, 0.0, 1.0, 4.0):
        engine = Engine([day], len(parents), 10_000_000, "fifo", 1 << 16, scale)
        engine.start(parents, record=np.ones(len(parents), np.int64))
        engine.submit(parents["start_ns"], messages)
        engine.advance(parents["start_ns"] + 60 * NS)
        runs[scale] = engine.fills()
    assert runs[None].tobytes() == runs[0.0].tobytes()
    for scale in (1.0, 4.0):
        resting = runs[scale][runs[scale]["kind"] == 1]
        assert len(resting) > 50
        np.testing.assert_array_equal(resting["price_ticks"], messages["rest_px"][resting["episode"]])
    lots = [int(fills["lots"][fills["kind"] == 1].sum()) for fills in runs.values()]
    assert lots[0] > lots[2] > lots[3]  # a market that moves away from a resting order fills less of it


def test_resting_policies_pay_for_the_market_that_moves_away_too(days):
    parents = parent_grid(days, CONFIG)
    plain, moved = (rows_of(Carry(), days, config, parents).rows for config in (REPLAY, CONFIG))
    assert moved["is_bps"].mean() > plain["is_bps"].mean()


def test_day_without_parameters_is_refused_by_name(days):
    bare = replace(days[0], impact=None)
    with pytest.raises(InputError, match="TEST.*2024-01-02.*no impact parameters"):
        ExecutionEnv([bare], CONFIG)
    ExecutionEnv([bare], REPLAY)


@pytest.mark.parametrize("scale", [-0.5, float("nan")])
def test_scale_without_meaning_is_refused(scale):
    with pytest.raises(InputError, match="impact_scale"):
        ExecutionConfig(world="impact", impact_scale=scale)
