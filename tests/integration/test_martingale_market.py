"""In a market where nothing can be known, no policy has a timing cost, and takers pay half the spread."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_repo.errors import InputError
from serving.contracts.observation import OBSERVATION_SIZE
from training.execution.baselines import Immediate, TwapMarket, default_policies
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.market.impact import ImpactParameters
from training.market.martingale import MartingaleOptions, martingale_day

CONFIG = ExecutionConfig(lots=80, horizon_s=300, decision_interval_s=30, start_every_s=310)
POLICIES = default_policies(CONFIG, seed=3)
TAKERS = {"immediate", "twap_market", "vwap_market", "almgren_chriss"}
Z = 3.1  # two-sided 95% for the two dozen comparisons of a test


def days(informed=0.0, count=12, seed=20):
    rng = np.random.default_rng(seed)
    options = MartingaleOptions(informed=informed)
    return [martingale_day(rng, options, f"2024-01-{day + 1:02d}") for day in range(count)]


def mean_and_error(rows, values):
    """Mean and standard error over arrivals, which do not overlap; a buy and a sell share one."""
    pairs = values.reshape(-1, 2).mean(axis=1)
    assert (rows["start_ns"].reshape(-1, 2)[:, 0] == rows["start_ns"].reshape(-1, 2)[:, 1]).all()
    return pairs.mean(), pairs.std(ddof=1) / np.sqrt(len(pairs))


@pytest.fixture(scope="module")
def market():
    found = days()
    return found, parent_grid(found, CONFIG)


@pytest.mark.parametrize("policy", POLICIES, ids=[policy.name for policy in POLICIES])
def test_timing_cost_is_zero_within_its_interval_for_every_policy(market, policy):
    found, parents = market
    rows = run_policy(policy, found, parents, CONFIG).rows
    for side in (1, -1):
        timing = rows["timing_bps"][rows["side"] == side]
        assert abs(timing.mean()) < Z * timing.std(ddof=1) / np.sqrt(len(timing)), side
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= Z * error
    assert error < 0.35  # bps: a timing cost of one tick would be seen


@pytest.mark.parametrize("policy", POLICIES, ids=[policy.name for policy in POLICIES])
@pytest.mark.parametrize("model", ["expected", "optimistic"])
def test_timing_cost_is_zero_under_every_fill_model(market, policy, model):
    found, parents = market
    config = replace(CONFIG, fill_model=model)
    rows = run_policy(policy, found, parents, config).rows
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= Z * error


def linear_policy(seed, scale):
    """The action with the highest of four random linear scores of what is observed."""
    weights = np.random.default_rng(seed).normal(0, 1, (4, OBSERVATION_SIZE))

    def act(observation, mask):
        scores = np.clip(observation / scale, -5, 5) @ weights.T
        return np.where(mask > 0, scores, -np.inf).argmax(axis=1)

    return ModelPolicy(f"linear {seed}", act)


def test_timing_cost_is_zero_for_a_policy_that_was_trained_there(market):
    """The cheapest of many on other days of the market, as an agent's training would choose, by a wide margin."""
    found, parents = market
    others = days(count=8, seed=21)
    there, seen = parent_grid(others, CONFIG), []

    def look(observation, mask):
        seen.append(observation)
        return mask[:, 1].astype(int)

    run_policy(ModelPolicy("look", look), others, there, CONFIG)
    scale = np.concatenate(seen).std(axis=0) + 1e-3
    costs = {seed: run_policy(linear_policy(seed, scale), others, there, CONFIG).rows["is_bps"] for seed in range(24)}
    best = min(costs, key=lambda seed: costs[seed].mean())
    assert costs[best].mean() < np.median([cost.mean() for cost in costs.values()]) - 0.1
    rows = run_policy(linear_policy(best, scale), found, parents, CONFIG).rows
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= Z * error and error < 0.35


@pytest.fixture(scope="module")
def trained():
    """PPO from a random network, raised and chosen on days of the market, and the static policy that is best there."""
    from training.evaluation.tuning import TuningGrid, tune_baselines
    from training.execution.agent_config import AgentConfig
    from training.execution.local_ray import local_ray
    from training.execution.ppo import greedy, new_module
    from training.execution.train import train_seed
    from training.execution.world import ExecutionWorld, Validation

    def world(found):
        made = ExecutionWorld(Path("in memory"), None, (), CONFIG)
        made.__dict__["days"] = found
        return made

    config = AgentConfig(
        env_steps=400_000, num_envs=128, batch_steps=16_384, minibatch_steps=2_048, learning_rate=1e-3,
        warm_start=False, execution=CONFIG.to_dict(),
    )  # fmt: skip
    teaching, judging = world(days(count=12, seed=31)), world(days(count=8, seed=32))
    parents = parent_grid(judging.days, CONFIG)
    validation = Validation(judging, ("2024-01-01",), False, parents)
    with local_ray(1):
        outcome, untrained, _ = train_seed(teaching, validation, config, 7, lambda update: None, Path("no checkpoint"))
    width = teaching.spaces()[0]["observation"].shape[0]
    policies = []
    for name, weights in (("trained", outcome.weights), ("untrained", untrained)):
        module = new_module(*teaching.spaces(), np.zeros(width, np.float32), np.ones(width, np.float32), config, 7)
        module.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()}, strict=False)
        policies.append(ModelPolicy(name, greedy(module)))
    grid = TuningGrid(substeps=(1, 6), ahead=(0, 1), thresholds=(0.05, 0.2), participation=(1.0,))
    tuned = tune_baselines(judging.days, CONFIG, 0, grid=grid)
    ((key, opponent),) = tuned.opponents.items()
    return *policies, next(policy for policy in tuned.policies[key] if policy.name == opponent)


@pytest.mark.ray
def test_agent_trained_there_has_no_timing_cost_and_gains_nothing_over_the_best_static_policy(trained):
    agent, untrained, static = trained
    others = days(count=24, seed=33)
    there = parent_grid(others, CONFIG)
    rows, raw, fixed = (run_policy(policy, others, there, CONFIG).rows for policy in (agent, untrained, static))
    mean, error = mean_and_error(rows, rows["is_bps"] - raw["is_bps"])
    assert mean < -0.5 and mean < -Z * error  # it has learned: to rest, which earns the spread
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= 1.96 * error and error < 0.05
    mean, error = mean_and_error(rows, rows["is_bps"] - fixed["is_bps"])
    assert mean > -1.96 * error and error < 0.05  # a gain of a tenth of a tick would be seen


def test_timing_part_is_that_of_the_fills_marked_to_the_mid_just_after_them(market):
    found, parents = market
    for policy in POLICIES:
        result = run_policy(policy, found, parents[:12], CONFIG, record=range(12))
        for i, (row, parent) in enumerate(zip(result.rows, parents[:12], strict=True)):
            book = found[parent["day"]].book
            fills = result.fills[result.fills["episode"] == i]
            after = np.searchsorted(book.ts_ns, fills["ts_ns"], side="right") - 1
            mids = 0.5 * (book.bid_px[after, 0] + book.ask_px[after, 0])
            arrival_row = np.searchsorted(book.ts_ns, parent["start_ns"], side="right") - 1
            arrival = 0.5 * (book.bid_px[arrival_row, 0] + book.ask_px[arrival_row, 0])
            timing = parent["side"] * (mids - arrival) @ fills["lots"] / (parent["lots"] * arrival)
            assert row["timing_bps"] == pytest.approx(1e4 * timing, abs=1e-9), policy.name


def test_takers_never_beat_half_the_spread_plus_fees(market):
    found, parents = market
    config = replace(CONFIG, taker_fee_bps=0.3, maker_fee_bps=-0.1)
    takers = [policy for policy in POLICIES if policy.name in TAKERS]
    assert len(takers) == len(TAKERS)
    for policy in takers:
        rows = run_policy(policy, found, parents, config).rows
        arrival = 1e4 * 1.0 / np.array([found[day].book.bid_px[0, 0] for day in rows["day"]])  # half of two ticks, bps
        floor = 0.95 * arrival + 0.3 * 0.98
        paid = rows["spread_bps"] + rows["impact_bps"] + rows["fees_bps"]
        assert (paid >= floor).all(), policy.name
        mean, error = mean_and_error(rows, rows["is_bps"])
        assert mean > floor.mean() - Z * error


@pytest.mark.parametrize("policy", POLICIES, ids=[policy.name for policy in POLICIES])
def test_own_impact_is_a_cost_and_no_timing(market, policy):
    impact = ImpactParameters(50.0, (60.0, 40.0), (5.0, 60.0), 0.3, 60.0, 3000.0)
    found, parents = market
    moved = [replace(day, impact=impact) for day in found]
    plain = run_policy(policy, found, parents, CONFIG).rows
    rows = run_policy(policy, moved, parents, replace(CONFIG, world="impact")).rows
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= Z * error
    assert (rows["impact_bps"] >= 0).all() and rows["impact_bps"].mean() > plain["impact_bps"].mean()


def test_resting_orders_may_earn_the_spread_there_and_do(market):
    found, parents = market
    carry = next(policy for policy in POLICIES if policy.name == "carry")
    rows = run_policy(carry, found, parents, CONFIG).rows
    taken = run_policy(TwapMarket(), found, parents, CONFIG).rows
    assert rows["passive_share"].mean() > 0.5
    assert rows["spread_bps"].mean() < 0 < taken["spread_bps"].mean()


def test_informed_flow_shows_as_a_timing_cost_of_resting_orders_and_not_of_takers():
    found = days(informed=1.0)
    parents = parent_grid(found, CONFIG)
    carry = next(policy for policy in POLICIES if policy.name == "carry")
    rows = run_policy(carry, found, parents, CONFIG).rows
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert mean > Z * error
    rows = run_policy(Immediate(), found, parents, CONFIG).rows
    mean, error = mean_and_error(rows, rows["timing_bps"])
    assert abs(mean) <= Z * error


def test_same_generator_state_gives_the_same_bytes():
    one, two = (martingale_day(np.random.default_rng(5)) for _ in range(2))
    for name in ("ts_ns", "bid_px", "bid_sz", "ask_px", "ask_sz", "trade_px", "trade_sz", "trade_side"):
        np.testing.assert_array_equal(getattr(one.book, name), getattr(two.book, name))
    np.testing.assert_array_equal(one.features, two.features)


def test_mid_forecasts_nothing_from_trades_or_imbalance():
    day = martingale_day(np.random.default_rng(6), MartingaleOptions(hours=8.0))
    book = day.book
    later = np.roll(book.bid_px[:, 0], -1)[:-1] - book.bid_px[:-1, 0]
    for values in (book.trade_side[:-1] * book.trade_sz[:-1], book.bid_sz[:-1, 0] - book.ask_sz[:-1, 0], np.diff(
        book.bid_px[:, 0], prepend=book.bid_px[0, 0])[:-1]):  # fmt: skip
        assert abs(np.corrcoef(values, later)[0, 1]) < Z / np.sqrt(len(later))


@pytest.mark.parametrize("change", [{"hours": 0.0}, {"move_share": 0.9}, {"informed": -0.1}, {"mean_trade_lots": 0.0}])
def test_options_without_meaning_are_refused(change):
    with pytest.raises(InputError, match="hours|move_share"):
        MartingaleOptions(**change)
