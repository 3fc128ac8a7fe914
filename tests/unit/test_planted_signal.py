"""The rule that sees the planted signal, and how near an agent comes to it."""

from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import make_day, open_ns, random_rows
from market_folders import synthetic_folders

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.ticks.synthetic import latent_signal
from training.evaluation.oracle import Oracle, distance_closed, distance_sentences, tune_oracle
from training.evaluation.statistics import HALF_HOUR_NS, ClusterBootstrap
from training.evaluation.tca import ORDER_DTYPE
from training.execution.baselines import Carry
from training.execution.clairvoyant import NEVER, ORACLE, PlantedSignal, SignalRule
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.run import run_policy
from training.market.day import load_market_days

CONFIG = ExecutionConfig(lots=100, horizon_s=300, start_every_s=200)
KEY, HOURS = "SYN:SYN1", 6.5


def synthetic_days(root, strength):
    _, features = synthetic_folders(root, days=2, hours=HOURS, strength=strength)
    options = {"hours": HOURS, "days": 2, "strength": strength, "dirt": 0.0}
    return load_market_days(features, None, list_partitions(features, "features.parquet")), options


@pytest.fixture(scope="module")
def strong(tmp_path_factory):
    return synthetic_days(tmp_path_factory.mktemp("strong"), 1.0)


def paired(policy, other, days, config=CONFIG):
    """Mean difference of the costs, and its standard error over half hours."""
    parents = parent_grid(days, config)
    one, two = (run_policy(each, days, parents, config).rows["is_bps"] for each in (policy, other))
    found = ClusterBootstrap(parents["start_ns"] // HALF_HOUR_NS, np.random.default_rng(0), 99).interval(one - two)
    return found.mean, found.error


def test_signal_in_force_is_the_one_of_the_present_second_and_never_a_later_one(strong):
    days, options = strong
    seconds, path = latent_signal(options, days[0].partition)
    signal = PlantedSignal(options)
    asked = seconds[[5, 5, 6]] + np.array([0, 999_999_999, 0])
    np.testing.assert_array_equal(signal.at(days[0], asked), path[[5, 5, 6]])
    with pytest.raises(InputError, match="before the session"):
        signal.at(days[0], seconds[:1] - 1)


def test_signal_of_a_recorded_market_or_of_unknown_options_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no synthetic market"):
        PlantedSignal({}).at(make_day(random_rows(rng, count=50)), np.array([open_ns()]))
    with pytest.raises(InputError, match="unknown"):
        PlantedSignal({"truth": 1})


def test_rule_that_never_acts_on_the_signal_is_carry(strong):
    days, options = strong
    blind = SignalRule(PlantedSignal(options), aside=NEVER, chase=NEVER, substeps=6, ahead=1)
    mean, error = paired(blind, Carry(6, 1), days)
    assert mean == 0.0 and error == 0.0


def test_tuned_rule_costs_less_than_carry_on_a_day_it_was_not_tuned_on(strong):
    days, options = strong
    found = tune_oracle(days[:1], CONFIG, options)
    mean, error = paired(found.rules[KEY], Carry(15, 1), days[1:])
    assert mean < -2 * error and found.validation_bps[KEY] is not None


def test_rule_sees_the_signal_of_the_reactive_world_itself(strong):
    days, _ = strong
    config = replace(CONFIG, world="reactive", signal_strength=1.0)
    watcher = Watcher()
    run_policy(watcher, days[:1], parent_grid(days[:1], config), config)
    leans, moves = np.stack(watcher.planted)[:-1], np.diff(np.stack(watcher.mid2), axis=0)
    assert np.abs(leans).max() <= 1.0
    assert np.corrcoef(leans.ravel(), moves.ravel())[0, 1] > 0.15
    assert np.isfinite(
        run_policy(SignalRule(None), days[:1], parent_grid(days[:1], config)[:4], config).rows["is_bps"]
    ).all()
    with pytest.raises(InputError, match="options of the synthetic market"):
        run_policy(SignalRule(None), days[:1], parent_grid(days[:1], CONFIG), CONFIG)


class Watcher:
    """Sends nothing and keeps what it sees, every five seconds."""

    name, substeps = "watcher", 6

    def __init__(self):
        self.planted, self.mid2 = [], []

    def decide(self, batch):
        self.planted.append(batch.planted)
        self.mid2.append(batch.own_px + batch.opp_px)
        return batch.message()


def orders(means, noise, rng, count=400):
    """Three policies on the same parents in twenty clusters; costs share the market's moves."""
    market = rng.normal(0, 1, count)
    made = {}
    for name, mean in means.items():
        rows = np.zeros(count, ORDER_DTYPE)
        rows["instrument_id"], rows["date"] = KEY, "2025-01-06"
        rows["start_ns"] = np.repeat(np.arange(20), count // 20) * 1_800 * 1_000_000_000
        rows["is_bps"] = mean + market + rng.normal(0, noise, count)
        made[name] = rows
    return made


ORACLE_FOUND = Oracle({KEY: SignalRule(None)}, {KEY: {"substeps": 1}}, {KEY: 0.1})


def closed(made, seed_costs=None):
    rng = np.random.default_rng(1)
    return distance_closed(made, "agent", {KEY: "carry"}, ORACLE_FOUND, rng, 999, 0.05, seed_costs)[KEY]


def test_share_is_exact_where_costs_differ_by_constants():
    row = closed(orders({"agent": 0.4, "carry": 1.0, ORACLE: 0.2}, 1e-6, np.random.default_rng(0)))
    assert row["distance_bps"] == pytest.approx(0.8, rel=1e-5) and row["share"] == pytest.approx(0.75, rel=1e-5)
    assert row["half"] and row["half_diff_bps"] == pytest.approx(-0.2, rel=1e-5)


@pytest.mark.parametrize(("agent", "share", "half"), [(0.3, 0.7, True), (0.9, 0.1, False), (0.5, 0.5, False)])
def test_share_lies_in_its_interval_and_half_is_claimed_only_where_established(agent, share, half):
    row = closed(orders({"agent": agent, "carry": 1.0, ORACLE: 0.0}, 0.3, np.random.default_rng(3)))
    assert row["share_low"] < row["share"] < row["share_high"]
    assert row["share_low"] < share < row["share_high"] and row["half"] is half
    (line,) = distance_sentences({"distance_closed": {KEY: row}})
    assert ("half: established" in line) is half


def test_interval_of_the_share_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(5), 0
    for _ in range(200):
        row = closed(orders({"agent": 0.6, "carry": 1.0, ORACLE: 0.0}, 1.0, rng))
        hits += row["share_low"] is not None and row["share_low"] <= 0.4 <= row["share_high"]
    assert hits / 200 > 0.9


def test_no_share_is_bounded_where_no_distance_is_established():
    row = closed(orders({"agent": 0.5, "carry": 0.52, ORACLE: 0.5}, 1.0, np.random.default_rng(2)))
    assert row["share_low"] is None and not row["half"]
    (line,) = distance_sentences({"distance_closed": {KEY: row}})
    assert "no distance is established" in line


def test_agent_of_several_seeds_counts_by_their_mean():
    made = orders({"agent": 0.4, "carry": 1.0, ORACLE: 0.0}, 0.3, np.random.default_rng(4))
    seeds = made["agent"]["is_bps"] + np.array([[-0.1], [0.0], [0.1], [0.2]])
    row = closed(made, seeds)
    assert row["agent_bps"] == pytest.approx(seeds.mean())
    alone = closed(made)
    assert row["share_high"] - row["share_low"] > alone["share_high"] - alone["share_low"]
