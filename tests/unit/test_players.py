"""Which settings a policy is run with: its own where they belong to its actions, the evaluation's for all else."""

from dataclasses import replace

from training.evaluation.players import BundlePolicy, settings_for
from training.execution.baselines import Carry
from training.execution.config import ExecutionConfig
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
