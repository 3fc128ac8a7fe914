from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import make_day, random_rows

from feature_repo.errors import InputError
from serving.contracts.observation import MID_MOVE_BPS, REMAINING_FRACTION
from training.execution.agent_config import AgentConfig
from training.execution.config import ExecutionConfig
from training.execution.drift import DriftlessVectorEnv
from training.execution.vector_env import ExecutionVectorEnv

CONFIG = ExecutionConfig(lots=60)


@pytest.fixture(scope="module")
def day():
    return make_day(random_rows(np.random.default_rng(2)))


def play(env, steps, seed=5):
    """Rewards, ends, open shares and mids `(T, N)` under random actions; shares and mids begin at the reset."""
    rng = np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    seen, rewards, ended = [state["observation"].astype(np.float64)], [], []
    for _ in range(steps):
        state, reward, terminated, truncated, _ = env.step(rng.integers(0, 4, env.num_envs))
        seen.append(state["observation"].astype(np.float64))
        rewards.append(reward)
        ended.append(terminated | truncated)
    shown = np.array(seen)
    return np.array(rewards), np.array(ended), shown[..., REMAINING_FRACTION], shown[..., MID_MOVE_BPS]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_each_fill_is_marked_at_the_mid_so_many_steps_after_its_own(day, lag):
    plain, ended, left, mid = play(ExecutionVectorEnv([day], CONFIG, 8), 70)
    made, *_ = play(DriftlessVectorEnv(ExecutionVectorEnv([day], CONFIG, 8), lag), 70)
    checked = 0
    for i in range(8):
        ends = np.flatnonzero(ended[:, i])
        begins = [0, *(ends + 2)]  # the step after an end only resets
        for first, last in zip(begins, ends, strict=False):
            steps = np.arange(first, last + 1)
            filled = left[steps, i] - left[steps + 1, i]
            later = np.minimum(steps + 1 + lag, last + 1)
            # Cost at the arrival mid is minus the plain return; against its own mark each fill gains that mid's move.
            wanted = plain[steps, i].sum() + (filled * mid[later, i]).sum()
            assert made[steps, i].sum() == pytest.approx(wanted, abs=1e-4)
            checked += 1
    assert checked > 10


def test_rewards_no_longer_vary_with_a_market_that_an_idle_policy_only_watches(day):
    env = DriftlessVectorEnv(ExecutionVectorEnv([day], CONFIG, 4), 1)
    env.reset(seed=1)
    for _ in range(CONFIG.slices - 1):
        _, rewards, terminated, _, _ = env.step(np.zeros(4, np.int64))
        assert not terminated.any()
        np.testing.assert_allclose(rewards, 0.0, atol=1e-5)


@pytest.mark.parametrize("values", [{"mark_after_s": -1.0}, {"mark_after_s": 30.0, "cvar_weight": 0.5}])
def test_config_when_fills_are_marked_early_or_with_a_tail_then_refuses(values):
    with pytest.raises(InputError, match="mark_after_s"):
        replace(AgentConfig(), **values)
