"""Baselines tuned on validation days: the cheapest parameters, each instrument's own, and the opponent."""

from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns, random_rows

from training.evaluation.tuning import TuningGrid, mean_exposure, tune_baselines, untuned_baselines, usual_participation
from training.execution.baselines import ImbalanceRule, Immediate, TwapMarket, schedule_exposure
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.run import run_policy

CONFIG = ExecutionConfig(lots=40, horizon_s=300, decision_interval_s=30, start_every_s=600)
GRID = TuningGrid(substeps=(1, 3), thresholds=(0.0, 0.3, 1.0), offsets=(0, 1))


def busy_day(seed=3, symbol="T"):
    day = make_day(random_rows(np.random.default_rng(seed), count=7000, step_ns=NS))
    return replace(
        day,
        partition=replace(day.partition, symbol=symbol),
        instrument=replace(day.instrument, symbol=symbol),
    )


@pytest.fixture(scope="module")
def tuned():
    return tune_baselines([busy_day(3), busy_day(4, "U")], CONFIG, 0, grid=GRID, agent=ImbalanceRule())


def test_tuning_marks_the_cheapest_of_every_baseline_and_the_cheapest_of_all_is_the_opponent(tuned):
    assert set(tuned.opponents) == {"TEST:T", "TEST:U"}
    for key, trials in tuned.trials.items():
        names = {trial.policy for trial in trials}
        assert names == {
            "immediate", "random", "twap_market", "vwap_market", "twap_passive", "submit_and_leave", "carry",
            "imbalance_rule", "pov", "almgren_chriss", "ac_matched",
        }  # fmt: skip
        for name in names:
            own = [trial for trial in trials if trial.policy == name]
            (chosen,) = [trial for trial in own if trial.chosen]
            assert chosen.mean_is_bps == min(trial.mean_is_bps for trial in own)
        best = min(trials, key=lambda trial: trial.mean_is_bps)
        assert tuned.opponents[key] == best.policy
        assert [policy.name for policy in tuned.policies[key]].count(best.policy) == 1


def test_tuning_gives_the_policies_that_were_tried(tuned):
    days = [busy_day(3)]
    parents = parent_grid(days, CONFIG)
    chosen = {trial.policy: trial for trial in tuned.trials["TEST:T"] if trial.chosen}
    for policy in tuned.policies["TEST:T"]:
        cost = run_policy(policy, days, parents, CONFIG).rows["is_bps"].mean()
        assert cost == pytest.approx(chosen[policy.name].mean_is_bps)


def test_tuning_of_an_instrument_does_not_depend_on_the_others(tuned):
    alone = tune_baselines([busy_day(4, "U")], CONFIG, 0, grid=GRID, agent=ImbalanceRule())
    assert alone.trials["TEST:U"] == tuned.trials["TEST:U"]
    assert alone.record()["by_instrument"]["TEST:U"] == tuned.record()["by_instrument"]["TEST:U"]


def test_tuning_leaves_out_paces_that_do_not_divide_a_slice():
    grid = TuningGrid(substeps=(1, 7), thresholds=(0.2,), offsets=(0,))
    found = tune_baselines([busy_day()], CONFIG, 0, grid=grid)
    assert {trial.params.get("substeps", 1) for trial in found.trials["TEST:T"]} == {1}
    assert "ac_matched" not in {trial.policy for trial in found.trials["TEST:T"]}  # no agent to match


def test_exposure_of_known_schedules_is_what_their_formula_says():
    days = [busy_day()]
    parents = parent_grid(days, CONFIG)
    assert mean_exposure(Immediate(), days, parents, CONFIG) < 1e-3
    even = mean_exposure(TwapMarket(), days, parents, CONFIG)
    assert even == pytest.approx(schedule_exposure(0.0, CONFIG.slices), abs=2e-3)  # the latency is 10 ms


def test_usual_participation_is_the_parent_over_the_volume_of_its_horizon():
    day = replace(busy_day(), adv_lots=72_000.0)  # ten lots a second over two hours
    parents = parent_grid([day], CONFIG)
    assert usual_participation([day], parents) == pytest.approx(40 / 3_000)


def test_untuned_baselines_are_the_defaults_and_look_at_no_market():
    blind = make_day([(open_ns(), [(1, 1)], [(2, 1)], None)])
    found = untuned_baselines([blind], CONFIG, 0)
    assert found.opponents == {"TEST:T": "imbalance_rule"} and found.days == ()
    assert {"twap_market", "carry", "pov"} <= {policy.name for policy in found.policies["TEST:T"]}
