from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import NS, make_day, open_ns, random_rows

from serving.contracts.actions import ACTION_SETS
from training.execution.baselines import default_policies
from training.execution.config import ExecutionConfig
from training.execution.env import ExecutionEnv, action_space
from training.execution.parents import ParentOrder, parent_grid, sample_parents
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.execution.vector_env import ExecutionVectorEnv

CONFIG = ExecutionConfig(lots=120, maker_fee_bps=-0.1, taker_fee_bps=0.3)
FREE = ExecutionConfig(lots=120)
MODES = [
    replace(CONFIG, actions=actions, decision_every_events=events) for actions in ACTION_SETS for events in (None, 20)
]
seeds = st.integers(0, 2**31 - 1)


def mode_name(config):
    return f"{config.actions}-{config.decision_every_events}"


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(11)
    rows = random_rows(rng)
    return [make_day(rows), make_day(rows, snapshot=True), make_day(random_rows(rng, start_mid=300), latency_ns=0)]


@settings(max_examples=8, deadline=None)
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


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_vector_environment_agrees_with_single_environments_step_by_step_and_after_resets(days, config, seed):
    vector = ExecutionVectorEnv(days, config, 5)
    vector.action_space.seed(seed)
    singles = [ExecutionEnv(days, config) for _ in range(5)]
    batch, _ = vector.reset(seed=seed)
    for i, env in enumerate(singles):
        check_same(env.reset(options={"parent": parent_at(vector, i)})[0], batch, i)
    ended, resets = np.zeros(5, bool), 0
    for _ in range(50):
        actions = vector.action_space.sample()
        batch, rewards, terminated, _, infos = vector.step(actions)
        for i, env in enumerate(singles):
            if ended[i]:  # this step only started the next parent, whatever the action
                observation, _ = env.reset(options={"parent": parent_at(vector, i)})
                reward, done, resets = 0.0, False, resets + 1
            else:
                observation, reward, done, _, info = env.step(actions[i])
                assert all(infos[name][i] == value for name, value in info.items())
            check_same(observation, batch, i)
            assert (reward, done) == (rewards[i], terminated[i])
        ended = terminated
    assert resets >= 5


@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_vector_environment_of_one_draws_the_parents_of_the_single_one(days, config):
    single, vector = ExecutionEnv(days, config), ExecutionVectorEnv(days, config, 1)
    single.action_space.seed(8)
    check_same(single.reset(seed=8)[0], vector.reset(seed=8)[0], 0)
    for _ in range(60):
        action = single.action_space.sample()
        observation, reward, done, _, _ = single.step(action)
        batch, rewards, terminated, _, _ = vector.step(np.array([action]))
        check_same(observation, batch, 0)
        assert (reward, done) == (rewards[0], terminated[0])
        if done:
            check_same(single.reset()[0], vector.step(np.array([action]))[0], 0)


def parent_at(vector, i):
    return ParentOrder(*(int(value) for value in vector.parents[i]))


def check_same(observation, batch, i):
    for name, value in observation.items():
        np.testing.assert_array_equal(value, batch[name][i])


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_a_sell_in_the_mirrored_market_sees_and_earns_what_the_buy_does(config, seed):
    rng, config = np.random.default_rng(seed), replace(config, maker_fee_bps=0.0, taker_fee_bps=0.0)
    rows, start = random_rows(rng, 700), open_ns() + 300 * NS
    _, bids, asks, _ = [row for row in rows if row[0] <= start][-1]
    axis = bids[0][0] + asks[0][0]  # the arrival mid is its own mirror image: bps are of the same value, fees are not
    flipped = [
        (ts, mirror(asks, axis), mirror(bids, axis), trade and (axis - trade[0], trade[1], -trade[2]))
        for ts, bids, asks, trade in rows
    ]
    buys, sells = ExecutionEnv([make_day(rows)], config), ExecutionEnv([make_day(flipped)], config)
    buys.action_space.seed(seed)
    one, _ = buys.reset(options={"parent": ParentOrder(0, 1, 120, start, config.horizon_ns)})
    other, _ = sells.reset(options={"parent": ParentOrder(0, -1, 120, start, config.horizon_ns)})
    done = False
    while not done:
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
        action = buys.action_space.sample()
        one, reward, done, _, _ = buys.step(action)
        other, same, ended, _, _ = sells.step(action)
        assert ended == done and same == pytest.approx(reward, abs=1e-9)


def mirror(levels, axis):
    return [(axis - price, size) for price, size in levels]


@settings(max_examples=6, deadline=None)
@given(seed=seeds, ahead=st.integers(0, 3))
@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_lots_are_conserved_and_parts_sum_to_the_shortfall_whatever_the_actions(days, mode, seed, ahead):
    config = replace(mode, lots=90, ahead_slices=ahead)
    rng = np.random.default_rng(seed)
    parents = sample_parents(days, config, rng, 8)
    space = action_space(config)
    space.seed(seed)
    policy = ModelPolicy("any", lambda observation, mask: np.stack([space.sample() for _ in mask]))
    result = run_policy(policy, days, parents, config, record=range(8))
    check_accounts(result, parents)


def test_every_baseline_fills_each_parent_exactly_and_accounts_for_it(days):
    parents = parent_grid(days, FREE)
    for policy in default_policies(FREE):
        check_accounts(run_policy(policy, days, parents, FREE, record=range(len(parents))), parents)


def check_accounts(result, parents):
    rows = result.rows
    np.testing.assert_array_equal(rows["filled_lots"], parents["lots"])
    parts = rows["spread_bps"] + rows["impact_bps"] + rows["timing_bps"] + rows["fees_bps"]
    np.testing.assert_allclose(parts, rows["is_bps"], atol=1e-9)
    assert (rows["impact_bps"] >= 0).all()
    for i in range(len(parents)):
        fills = result.fills[result.fills["episode"] == i]
        assert fills["lots"].sum() == parents["lots"][i] and (fills["lots"] > 0).all()
        cost = rows["passive_cost"][i] + rows["aggressive_cost"][i] + rows["forced_cost"][i]
        assert (fills["lots"] * fills["price_ticks"]).sum() == cost
        assert (np.diff(fills["ts_ns"]) >= 0).all() and fills["ts_ns"][0] >= parents["start_ns"][i]


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_taken_fills_are_never_better_than_the_opposite_best(days, seed):
    config = ExecutionConfig(lots=90)
    rng = np.random.default_rng(seed)
    parents = sample_parents(days, config, rng, 8)
    policy = ModelPolicy("any", lambda observation, mask: rng.integers(0, 4, len(mask)))
    fills = run_policy(policy, days, parents, config, record=range(8)).fills
    for fill in fills[fills["kind"] != 1]:
        parent = parents[fill["episode"]]
        book = days[parent["day"]].book
        row = np.searchsorted(book.ts_ns, fill["ts_ns"], side="right") - 1
        best = book.ask_px[row, 0] if parent["side"] > 0 else book.bid_px[row, 0]
        assert parent["side"] * (fill["price_ticks"] - best) >= 0


@pytest.mark.parametrize("config", MODES, ids=mode_name)
def test_same_seed_gives_the_same_bytes(days, config):
    def trace(seed):
        env = ExecutionVectorEnv(days, config, 4, seed=seed)
        env.action_space.seed(5)
        parts = [env.reset(seed=seed)[0]["observation"].tobytes()]
        for _ in range(60):
            observation, rewards, terminated, _, _ = env.step(env.action_space.sample())
            parts += [observation["observation"].tobytes(), rewards.tobytes(), terminated.tobytes()]
            parts.append(env.parents.tobytes())
        return b"".join(parts)

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)


def test_arrays_that_a_step_returned_are_never_written_again(days):
    env = ExecutionVectorEnv(days, FREE, 3, seed=1)
    observation, _ = env.reset(seed=1)
    kept, copies = [], []
    for _ in range(5):
        kept += list(observation.values())
        copies += [value.copy() for value in observation.values()]
        observation, rewards, terminated, _, _ = env.step(np.ones(3, np.int64))
        kept += [rewards, terminated]
        copies += [rewards.copy(), terminated.copy()]
    for value, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(value, copy)
