import numpy as np
import pytest

from serving.contracts.observation import (
    CROSS,
    IMPROVE,
    OBSERVATION_NAMES,
    OBSERVATION_SIZE,
    OPPOSITE_QUEUE_SHARE,
    PLACE,
    REST_DISTANCE_TICKS,
    RESTING,
    WAIT,
)
from training.execution.config import ExecutionConfig
from training.execution.static_rule import static_rule
from training.execution.warm_start import AS_CONTINUOUS, CHASES_BPS, KEEP_TICKS, THIN_SHARES, best_rule

FORECAST = OBSERVATION_NAMES.index("forecast_10s_bps")
SHARES = np.linspace(0.0, 1.0, 101, dtype=np.float32)


def crossings(rule):
    """How many of 101 opposite queues, from none to all of the lots at the best prices, the rule crosses."""
    observation = np.zeros((len(SHARES), OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE] = SHARES
    return int((rule(observation, np.ones((len(SHARES), 4), np.float32)) == CROSS).sum())


@pytest.mark.parametrize("wanted", THIN_SHARES)
def test_best_rule_is_the_one_whose_threshold_costs_least(wanted):
    rule, cost = best_rule(lambda rule: abs(crossings(rule) - round(100 * wanted)) + 0.5, ExecutionConfig())
    assert (crossings(rule), cost) == (round(100 * wanted), 0.5)


def test_best_rule_when_all_cost_the_same_then_rests_throughout():
    assert crossings(best_rule(lambda rule: 1.0, ExecutionConfig())[0]) == 0


def test_best_rule_of_the_continuous_set_answers_in_shares():
    rule, _ = best_rule(lambda rule: 1.0, ExecutionConfig(actions="continuous"))
    made = rule(np.zeros((3, OBSERVATION_SIZE), np.float32), np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(made, np.repeat(AS_CONTINUOUS[None, PLACE], 3, axis=0))


def test_rule_without_a_threshold_given_is_that_of_bundle_zero():
    observation = np.zeros((2, OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE] = [0.19, 0.21]
    assert static_rule(observation, np.ones((2, 4), np.float32)).tolist() == [CROSS, PLACE]


def waits(rule):
    """Ticks from what rests to the best price at which the rule waits."""
    away = np.arange(-2, 5)
    observation = np.zeros((len(away), OBSERVATION_SIZE), np.float32)
    observation[:, [RESTING, OPPOSITE_QUEUE_SHARE]], observation[:, REST_DISTANCE_TICKS] = (1.0, 0.5), away
    return away[rule(observation, np.ones((len(away), 4), np.float32)) == WAIT].tolist()


@pytest.mark.parametrize("wanted", KEEP_TICKS)
def test_best_rule_where_waiting_keeps_what_rests_is_as_patient_as_costs_least(wanted):
    rule, cost = best_rule(lambda rule: abs(len(waits(rule)) - wanted), ExecutionConfig(wait_keeps=True))
    assert (waits(rule), cost) == (list(range(1, wanted + 1)), 0)


def test_best_rule_where_waiting_cancels_then_never_waits():
    assert waits(best_rule(lambda rule: -len(waits(rule)), ExecutionConfig())[0]) == []


def test_patient_rule_places_where_nothing_rests():
    observation = np.zeros((1, OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE] = 0.5
    assert static_rule(observation, np.ones((1, 4), np.float32), keep_ticks=2).tolist() == [PLACE]


def chases(rule):
    """Adverse forecasts in hundredths of a bps, up to 0.30, at which the rule improves on the price."""
    hundredths = np.arange(-10, 31)
    observation = np.zeros((len(hundredths), OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE], observation[:, FORECAST] = 0.5, hundredths / 100
    return hundredths[rule(observation, np.ones((len(hundredths), 4), np.float32)) == IMPROVE].tolist()


@pytest.mark.parametrize("wanted", CHASES_BPS)
def test_best_rule_improves_from_the_adverse_forecast_on_that_costs_least(wanted):
    least = round(100 * wanted) + 1
    rule, _ = best_rule(lambda rule: abs((chases(rule) or [99])[0] - least), ExecutionConfig())
    assert chases(rule) == list(range(least, 31))


def test_best_rule_when_chasing_does_not_pay_then_never_improves():
    assert chases(best_rule(lambda rule: float(bool(chases(rule))), ExecutionConfig())[0]) == []


def test_chasing_rule_improves_only_where_it_may_and_the_forecast_is_there():
    observation = np.zeros((3, OBSERVATION_SIZE), np.float32)
    observation[:, OPPOSITE_QUEUE_SHARE], observation[:, FORECAST] = 0.5, 1.0
    observation[1, OBSERVATION_NAMES.index("forecast_missing")] = 1.0
    mask = np.ones((3, 4), np.float32)
    mask[2, IMPROVE] = 0.0
    assert static_rule(observation, mask, 0.0, 0, 0.1).tolist() == [IMPROVE, PLACE, PLACE]
