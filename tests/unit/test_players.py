"""Which settings a policy is run with: its own where they belong to its actions, the evaluation's for all else."""

from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import make_day, random_rows

from training.evaluation.players import BundlePolicy, settings_for
from training.evaluation.runs import play
from training.execution.baselines import Carry
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.policies import RandomPolicy
from training.execution.static_rule import write_bundle_zero


def test_settings_when_the_agent_may_run_further_ahead_and_more_often_then_another_bundle_keeps_its_own_pace(tmp_path):
    champion = BundlePolicy("champion", write_bundle_zero(tmp_path / "zero"))
    agents = ExecutionConfig(ahead_slices=20, decisions_per_slice=15, lots=120, latency_ns=0)
    own = ExecutionConfig()
    wanted = replace(agents, ahead_slices=own.ahead_slices, decisions_per_slice=own.decisions_per_slice)
    assert settings_for(champion, agents) == wanted != agents


def test_settings_when_the_policy_sends_messages_then_they_are_the_evaluation_s(tmp_path):
    agents = ExecutionConfig(ahead_slices=20, actions="continuous")
    assert settings_for(Carry(), agents) == replace(agents, actions="discrete")


@pytest.mark.parametrize("changed", [{"decisions_per_slice": 15}, {"decision_every_events": 9}, {"ahead_slices": 20}])
def test_settings_when_the_policy_is_the_random_baseline_then_its_pace_is_its_own(changed):
    agents = ExecutionConfig(**changed)
    assert settings_for(RandomPolicy(), agents) == settings_for(RandomPolicy(), ExecutionConfig()) == ExecutionConfig()


def test_random_baseline_when_the_agent_decides_more_often_then_costs_the_same():
    days = [make_day(random_rows(np.random.default_rng(2), count=4000))]
    slow, fast = ExecutionConfig(lots=40), ExecutionConfig(lots=40, decisions_per_slice=15)
    parents = parent_grid(days, slow)
    one, two = (play(RandomPolicy(3), days, parents, config)[0] for config in (slow, fast))
    assert (one == two).all()
