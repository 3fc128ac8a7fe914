import numpy as np
import pytest

from serving.contracts.observation import CROSS, OBSERVATION_SIZE, OPPOSITE_QUEUE_SHARE, PLACE
from training.execution.static_rule import static_rule
from training.execution.warm_start import AS_CONTINUOUS, THIN_SHARES, best_rule

SHARES = np.linspace(0.0, 1.0, 101, dtype=np.float32)


def crossings(rule):
    """How many of 101 opposite queues, from none to all of the lots at the best prices, the rule crosses."""
    observation = np.zeros((len(SHARES), OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE] = SHARES
    return int((rule(observation, np.ones((len(SHARES), 4), np.float32)) == CROSS).sum())


@pytest.mark.parametrize("wanted", THIN_SHARES)
def test_best_rule_is_the_one_whose_threshold_costs_least(wanted):
    rule, cost = best_rule(lambda rule: abs(crossings(rule) - round(100 * wanted)) + 0.5)
    assert (crossings(rule), cost) == (round(100 * wanted), 0.5)


def test_best_rule_when_all_cost_the_same_then_rests_throughout():
    assert crossings(best_rule(lambda rule: 1.0)[0]) == 0


def test_best_rule_of_the_continuous_set_answers_in_shares():
    rule, _ = best_rule(lambda rule: 1.0, continuous=True)
    made = rule(np.zeros((3, OBSERVATION_SIZE), np.float32), np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(made, np.repeat(AS_CONTINUOUS[None, PLACE], 3, axis=0))


def test_rule_without_a_threshold_given_is_that_of_bundle_zero():
    observation = np.zeros((2, OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE] = [0.19, 0.21]
    assert static_rule(observation, np.ones((2, 4), np.float32)).tolist() == [CROSS, PLACE]
