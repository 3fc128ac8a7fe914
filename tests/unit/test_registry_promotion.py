import pytest

from feature_repo.errors import InputError
from serving.promotion import decide_promotion, live_stack


def comparison(**changes):
    row = {"a": "agent", "b": "champion", "mean_diff_bps": -0.4, "ci_low": -0.6, "ci_high": -0.2, "established": True}
    return {"comparisons": [row | changes]}


def test_promotion_when_difference_is_established_below_zero_then_moves():
    decision = decide_promotion(comparison(), "champion", "agent")
    assert decision.moved
    assert "-0.400" in decision.reason


def test_promotion_when_comparison_is_the_other_way_round_then_turns_the_sign():
    turned = comparison(a="champion", b="agent", mean_diff_bps=0.4, ci_low=0.2, ci_high=0.6)
    assert decide_promotion(turned, "champion", "agent").moved
    assert not decide_promotion(comparison(a="champion", b="agent"), "champion", "agent").moved


@pytest.mark.parametrize(
    "changes",
    [{"established": False}, {"ci_high": 0.0}, {"ci_high": 0.1}, {"mean_diff_bps": 0.4, "ci_low": 0.2, "ci_high": 0.6}],
)
def test_promotion_when_not_established_below_zero_then_keeps(changes):
    assert not decide_promotion(comparison(**changes), "champion", "agent").moved


@pytest.mark.parametrize("changes", [{"ci_low": None}, {"ci_high": float("nan")}, {"mean_diff_bps": "x"}, {"a": "z"}])
def test_promotion_when_evidence_is_unusable_then_refuses(changes):
    with pytest.raises(InputError):
        decide_promotion(comparison(**changes), "champion", "agent")


def test_live_stack_when_rolled_back_then_earlier_version_is_live():
    moves = [("promoted", 1), ("promoted", 2), ("kept", 3), ("promoted", 4), ("rolled_back", 2)]
    assert live_stack([{"action": action, "version": version} for action, version in moves]) == [1, 2]
