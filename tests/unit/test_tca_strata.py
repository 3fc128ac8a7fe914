"""Which sizes, horizons and markets an evaluation plays, and what of a ranking stands in all of them."""

from dataclasses import replace

import pytest
from market_fixtures import NS, make_day, open_ns

from training.evaluation.config import EvaluationConfig
from training.evaluation.sensitivity import moves_the_market, settings_of, survival, with_impact
from training.evaluation.strata import plan_strata
from training.execution.config import WORLDS, ExecutionConfig
from training.market.tape import FILL_MODELS

BASE = ExecutionConfig(start_every_s=300)
SIZES = EvaluationConfig(sizes_adv=(0.0001, 0.005, 0.01, 0.05))


def two_hours():
    """A session window of 7,200 s."""
    return make_day([(open_ns() + k * NS, [(100, 9)], [(101, 9)], None) for k in range(7200)])


def test_strata_keep_the_expected_participation_below_the_limit_and_name_several_horizons():
    strata = plan_strata([two_hours()], BASE, SIZES)
    for stratum in strata:
        if stratum.execution is not None:
            assert stratum.size_adv * 7_200 / stratum.horizon_s <= 0.1
            assert stratum.execution.horizon_s == stratum.horizon_s and stratum.execution.lots is None
            assert stratum.execution.horizon_ns % stratum.execution.interval_ns == 0
    horizons = {size: [s.horizon_s for s in strata if s.size_adv == size] for size in SIZES.sizes_adv}
    assert horizons == {0.0001: [300, 600], 0.005: [600, 1_800], 0.01: [1_800, 3_600], 0.05: [3_600, 7_200]}


def test_strata_of_large_sizes_are_played_with_impact_and_never_without():
    strata = plan_strata([two_hours()], BASE, SIZES)
    for stratum in strata:
        if stratum.execution is not None:
            assert moves_the_market(stratum.execution) == (stratum.size_adv >= 0.01)
    missing = plan_strata([two_hours()], BASE, SIZES, impact_missing="3 trades are too few")
    large = [s for s in missing if s.size_adv >= 0.01 and s.horizon_s < 7_200]
    assert large and all(s.execution is None for s in large)
    assert {s.why_not for s in large} == {"impact off: 3 trades are too few"}


def test_stratum_when_no_session_window_is_long_enough_then_it_does_not_count_and_says_so():
    (last,) = [s for s in plan_strata([two_hours()], BASE, SIZES) if s.horizon_s == 7_200]
    assert last.execution is None and not last.facts()["counted"]
    assert last.why_not.startswith("needs a horizon of 7200 s, the longest session window has room for 7134 s")


def test_markets_change_one_thing_at_a_time_and_hold_every_world_model_and_strength():
    found = settings_of(BASE)
    names = [item.name for item in found]
    assert len(names) == len(set(names))
    assert {item.execution.fill_model for item in found} == set(FILL_MODELS)
    assert {item.execution.world for item in found} == set(WORLDS)
    assert {item.execution.impact_scale for item in found if item.execution.world == "impact"} == {0.5, 1.0, 1.5}
    for item in found:
        changed = [name for name, value in item.execution.to_dict().items() if value != BASE.to_dict()[name]]
        assert changed in (
            ["fill_model"],
            ["world"],
            ["impact_scale", "world"],
            ["world", "impact_scale"],
            ["latency_ns"],
        )
    assert [item.name for item in found if not item.decides] == ["zero latency"]


def test_markets_when_the_headline_has_impact_then_replay_is_one_of_the_others():
    names = [item.name for item in settings_of(with_impact(BASE))]
    assert "replay world" in names and "impact world, nominal impact" not in names


def test_world_of_impact_when_it_is_switched_off_then_nothing_moves():
    assert moves_the_market(with_impact(BASE)) and not moves_the_market(BASE)
    assert not moves_the_market(replace(with_impact(BASE), impact_scale=0.0))


def rows(*verdicts, **changes):
    return [
        {"name": f"m{i}", "decides": True, "available": True, "by_instrument": {"X:A": {"verdict": verdict}}, **changes}
        for i, verdict in enumerate(verdicts)
    ]


@pytest.mark.parametrize(
    ("verdict", "others", "played", "stands"),
    [
        ("lower cost", rows("lower cost", "lower cost"), True, True),
        ("lower cost", rows("lower cost", "not established"), True, False),
        ("lower cost", rows("higher cost"), True, False),
        ("lower cost", rows("higher cost", decides=False), True, True),
        ("lower cost", rows("higher cost", available=False), True, True),
        ("not established", rows("lower cost"), True, None),
        ("lower cost", [], False, None),
    ],
)
def test_ranking_stands_only_where_every_deciding_market_gives_the_same_verdict(verdict, others, played, stands):
    found, where = survival(verdict, "X:A", others, played)
    assert found is stands
    if found is False:
        assert where == others[-1]["name"]
