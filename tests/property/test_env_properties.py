import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import make_day, random_rows

from training.execution.baselines import default_policies
from training.execution.config import ExecutionConfig
from training.execution.env import ExecutionEnv
from training.execution.parents import ParentOrder, parent_grid, sample_parents
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.execution.vector_env import ExecutionVectorEnv

CONFIG = ExecutionConfig(lots=120, maker_fee_bps=-0.1, taker_fee_bps=0.3)
FREE = ExecutionConfig(lots=120)
seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(11)
    rows = random_rows(rng)
    return [make_day(rows), make_day(rows, snapshot=True), make_day(random_rows(rng, start_mid=300), latency_ns=0)]


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_reward_telescopes_to_minus_the_shortfall(days, seed):
    env = ExecutionEnv(days, CONFIG)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    total, done, steps = 0.0, False, 0
    while not done:
        assert env.observation_space.contains(observation)
        observation, reward, done, truncated, info = env.step(rng.integers(0, 4))
        total, steps = total + reward, steps + 1
    assert not truncated and steps <= CONFIG.slices
    assert total == pytest.approx(-info["is_bps"], abs=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_vector_environment_agrees_with_single_environments_step_by_step(days, seed):
    rng = np.random.default_rng(seed)
    parents = sample_parents(days, CONFIG, rng, 5)
    vector = ExecutionVectorEnv(days, CONFIG, 5)
    singles = [ExecutionEnv(days, CONFIG) for _ in parents]
    batch, _ = vector.reset(options={"parents": parents})
    for env, parent in zip(singles, parents, strict=True):
        env.reset(options={"parent": ParentOrder(*(int(value) for value in parent))})
    running = np.ones(5, bool)
    while running.any():
        actions = rng.integers(0, 4, 5)
        batch, rewards, ended, _, _ = vector.step(actions)
        for i in np.flatnonzero(running):
            observation, reward, done, _, _ = singles[i].step(actions[i])
            assert reward == rewards[i] and done == ended[i]
            for name in observation:
                np.testing.assert_array_equal(observation[name], batch[name][i])
        running &= ~ended


@settings(max_examples=15, deadline=None)
@given(seed=seeds, ahead=st.integers(0, 3))
def test_lots_are_conserved_and_parts_sum_to_the_shortfall_whatever_the_actions(days, seed, ahead):
    config = ExecutionConfig(lots=90, ahead_slices=ahead, taker_fee_bps=0.3)
    rng = np.random.default_rng(seed)
    parents = sample_parents(days, config, rng, 8)
    policy = ModelPolicy("any", lambda observation, mask: rng.integers(0, 4, len(mask)))
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


def test_same_seed_gives_the_same_bytes(days):
    def trace(seed):
        env = ExecutionVectorEnv(days, FREE, 4, seed=seed)
        env.reset(seed=seed)
        rng = np.random.default_rng(5)
        return b"".join(env.step(rng.integers(0, 4, 4))[0]["observation"].tobytes() for _ in range(60))

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)
