import numpy as np
import pytest

from training.execution.tail import TailReward


def test_tail_when_costs_are_normal_then_value_at_risk_settles_at_their_quantile():
    rng = np.random.default_rng(0)
    tail = TailReward(1.0, 0.1, rate=0.005)
    for _ in range(3_000):
        tail.learn(rng.normal(2.0, 3.0, 64))
    # Costs are returns negated: mean -2, and 1.2816 standard deviations above it for the worst tenth.
    assert tail.value_at_risk == pytest.approx(-2.0 + 3.0 * 1.2816, abs=0.25)


def test_tail_when_steps_are_summed_then_they_give_the_objective_of_the_episode():
    rng = np.random.default_rng(1)
    tail = TailReward(0.4, 0.2)
    tail.learn(rng.normal(size=50))
    path = np.cumsum(rng.normal(size=(12, 5)), axis=0)
    before = np.vstack([np.zeros(5), path[:-1]])
    total = sum(tail.shape(b, a) for b, a in zip(before, path, strict=True))
    cost = -path[-1]
    beyond = np.maximum(cost - tail.value_at_risk, 0.0) - max(-tail.value_at_risk, 0.0)
    np.testing.assert_allclose(total, -0.6 * cost - 0.4 * beyond / 0.2)


@pytest.mark.parametrize("weight, share", [(0.0, 0.1), (1.1, 0.1), (0.5, 0.0), (0.5, 1.0)])
def test_tail_when_a_share_is_out_of_range_then_refuses(weight, share):
    with pytest.raises(ValueError, match=str(weight)):
        TailReward(weight, share)
