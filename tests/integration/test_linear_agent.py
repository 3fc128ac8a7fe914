"""An agent in the linear-impact world against the closed form; how its objective is computed against simulation."""

import numpy as np
import pytest
from agents import one_ray

from training.execution.linear_agent import KAPPAS, expected_objective_bps, linear_config, train_linear
from training.market.linear_world import LinearImpactVectorEnv, LinearMarket

__all__ = ["one_ray"]  # fixture


def follower(market, reaction=0.0):
    """The optimal schedule as a policy; with `reaction` it also trades by the sign of the price's move."""
    shares = market.optimal_open_shares()

    def act(observation, mask):
        step = np.round((1.0 - observation[:, 1]) * market.slices).astype(int)
        before, after = shares[step], shares[np.minimum(step + 1, market.slices)]
        traded = 1.0 - after / np.maximum(before, 1e-12) + reaction * np.sign(observation[:, 2])
        return (2.0 * traded - 1.0)[:, None].astype(np.float32)

    return act


@pytest.mark.parametrize("kappa", KAPPAS)
def test_objective_of_the_optimal_schedule_is_the_closed_form(kappa):
    market = LinearMarket.with_kappa(kappa)
    found, shares = expected_objective_bps(market, follower(market), paths=8)
    assert found == pytest.approx(market.objective_bps(), rel=1e-6)
    np.testing.assert_allclose(shares, market.optimal_open_shares(), atol=1e-6)


def test_objective_of_a_policy_that_looks_at_the_price_is_its_mean_reward():
    market = LinearMarket.with_kappa(2.0)
    policy = follower(market, reaction=0.15)
    found, _ = expected_objective_bps(market, policy, paths=20_000)
    env = LinearImpactVectorEnv(market, 200_000, seed=8)
    state, _ = env.reset(seed=8)
    total = np.zeros(env.num_envs)
    for _ in range(market.slices):
        state, rewards, *_ = env.step(policy(state["observation"], state["action_mask"]))
        total += rewards
    assert found > market.objective_bps() * 1.005
    assert -total.mean() == pytest.approx(found, abs=4 * total.std() / np.sqrt(len(total)))


@pytest.mark.ray
@pytest.mark.parametrize("kappa", KAPPAS)
def test_agent_from_a_random_network_comes_within_two_per_cent_of_the_optimum(one_ray, kappa):
    # Where risk matters little the objective is flat, and half the steps do not do.
    outcome = train_linear(kappa, 7, linear_config(300_000) if kappa > 1.0 else None)
    assert 0.0 <= outcome.gap < 0.02
    if kappa > 1.0:  # below, the even schedule is as good
        assert outcome.objective_bps < outcome.twap_bps


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("kappa", KAPPAS)
def test_agent_of_every_seed_comes_within_two_per_cent_of_the_optimum(one_ray, kappa):
    assert max(train_linear(kappa, seed).gap for seed in (11, 13, 17, 19)) < 0.02
