"""What is said to hold an agent back, and that it is said only where something does."""

from typing import Any

from training.evaluation.limits import limits

PARTS = {"spread_bps": 0.0, "impact_bps": 0.0, "timing_bps": 0.0, "fees_bps": 0.0, "passive_share": 0.5}


def result(**changes: Any) -> dict[str, Any]:
    item = {
        "a": "agent", "b": "carry", "instrument": "X:A", "primary": True, "verdict": "not established",
        "mean_diff_bps": -0.1, "detectable_bps": 0.4, "n_clusters": 12,
    }  # fmt: skip
    found: dict[str, Any] = {
        "comparisons": [item | changes],
        "policies": {"agent": {**PARTS, "timing_bps": 0.3}, "carry": {**PARTS, "passive_share": 0.9}},
        "splits": {"test_days": ["2024-01-04"]},
        "by_instrument": {"X:A": {"carry": {"mean_is_bps": 0.6}}},
        "tuning": {"by_instrument": {"X:A": {"opponent": "carry", "chosen": {"carry": {"mean_is_bps": 0.5}}}}},
    }
    return found


def causes(found: list[dict[str, Any]]) -> list[str]:
    return [item["cause"] for item in found]


def test_limits_when_lower_cost_is_established_then_nothing_is_said():
    assert limits(result(verdict="lower cost"), {}, ()) == []
    assert limits(result(primary=False), {}, ()) == []


def test_limits_when_the_test_is_too_weak_then_names_power_and_the_days_that_it_would_take():
    found = limits(result(), {}, ())
    power, data = found[0], found[1]
    assert power["cause"] == "power" and "0.400 bps" in power["text"] and "-0.100 bps" in power["text"]
    assert data["cause"] == "data" and data["figures"]["needed_days"] == 16  # (0.4 / 0.1)^2 of one day


def test_limits_when_there_is_no_interval_then_power_says_why():
    found = limits(result(detectable_bps=None, n_clusters=2), {}, ())
    assert found[0]["cause"] == "power" and "2 clusters give no interval" in found[0]["text"]


def test_limits_when_the_agent_pays_more_of_a_part_then_behaviour_names_it():
    (found,) = [item for item in limits(result(), {}, ()) if item["cause"] == "behaviour"]
    assert "+0.300 bps more timing cost than carry" in found["text"]
    assert "50% of its lots fill at rest, 90%" in found["text"]


def test_limits_when_other_markets_were_played_then_their_range_is_given():
    other = {"name": "fill model expected", "available": True, "by_instrument": {"X:A": {"mean_diff_bps": -0.7}}}
    (found,) = [i for i in limits(result() | {"sensitivities": [other]}, {}, ()) if i["cause"] == "fill model"]
    assert "-0.700 bps (fill model expected)" in found["text"]


def test_limits_when_the_curve_still_falls_then_training_says_so():
    falling = {"seed 1": (list(range(9)), [3.0, 2.7, 2.4, 2.1, 1.8, 1.5, 1.2, 0.9, 0.6])}
    flat = {"seed 1": (list(range(9)), [3.0, 1.0] + [0.5] * 7)}
    for curves, said in ((falling, "was still falling"), (flat, "had stopped falling")):
        (found,) = [item for item in limits(result(), curves, ()) if item["cause"] == "training"]
        assert said in found["text"]


def test_limits_when_forecasts_were_tested_then_features_give_the_best_of_them():
    skill = [{"horizon_s": 10, "days": "test days", "r2": 0.05}, {"horizon_s": 30, "days": "test days", "r2": 0.02}]
    (found,) = [item for item in limits(result(), {}, skill) if item["cause"] == "features"]
    assert "5.00%" in found["text"] and "at 10 s" in found["text"]


def test_limits_when_the_opponent_was_luckier_on_validation_then_data_says_by_how_much():
    found = [item for item in limits(result(), {}, ()) if item["cause"] == "data"]
    assert "X:A +0.100 bps" in found[-1]["text"]
