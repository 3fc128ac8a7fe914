import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from training.market.impact import (
    IMPACT_DTYPE,
    NS,
    OFF,
    ImpactParameters,
    concession_ticks,
    decay_to,
    displacement,
    dither_of,
    push,
    shift_of,
    start_impact,
)

T0 = 1_700_000_000 * NS
MID2 = 20_000  # 10,000 ticks: one tick is one basis point
NOMINAL = ImpactParameters(800.0, (600.0, 400.0, 300.0), (1.0, 10.0, 100.0), 0.8, 100.0, 10_000.0)


def started(parameters=NOMINAL, dither=0.5, mid2=MID2):
    impact = np.zeros(1, IMPACT_DTYPE)
    start_impact(impact[0], parameters.row()[0], T0, mid2, dither)
    return impact[0]


def at(seconds):
    return T0 + round(seconds * NS)


def test_displacement_is_the_sum_of_the_kernel_over_own_trades():
    impact = started()
    trades = [(0.0, 100), (3.5, -40), (20.25, 250)]
    for seconds, lots in trades:
        push(impact, lots, at(seconds), False)
    for now in (20.25, 21.0, 50.0, 400.0):
        decay_to(impact, at(now))
        wanted = sum(lots / 10_000 * NOMINAL.kernel_bps(now - seconds) for seconds, lots in trades)
        assert displacement(impact) == pytest.approx(wanted, rel=1e-12)
    assert impact["kept"] == pytest.approx(800 * 310 / 10_000)


def test_displacement_decays_the_same_in_one_step_and_in_many():
    one, many = started(), started()
    for impact in (one, many):
        push(impact, 500, T0, False)
    decay_to(one, at(60))
    for second in range(1, 61):
        decay_to(many, at(second))
    assert displacement(one) == pytest.approx(displacement(many), rel=1e-12)


@pytest.mark.parametrize("side", [1, -1])
def test_shift_in_ticks_has_the_displacement_as_its_mean_over_episodes_and_mirrors(side):
    shifts = []
    for day in range(4000):
        impact = started(dither=dither_of(T0 + day * NS, 0))
        push(impact, side * 6, T0, False)
        shifts.append(int(shift_of(impact)))
    wanted = side * 6 / 10_000 * NOMINAL.kernel_bps(0)
    assert set(shifts) == {side, 2 * side} and 1 < abs(wanted) < 2
    assert np.mean(shifts) == pytest.approx(wanted, abs=0.03)


def test_shift_without_own_trades_is_none_whatever_the_dither():
    for dither in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        assert shift_of(started(dither=dither)) == 0


def test_dither_depends_on_start_and_day_and_fills_the_unit_interval():
    values = np.array([[dither_of(T0 + k * NS, day) for k in range(2000)] for day in range(2)])
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values)[0, 1]) < 0.1 and abs(np.corrcoef(values[0, 1:], values[0, :-1])[0, 1]) < 0.1


def test_passive_fills_displace_by_their_share_with_the_same_sign():
    taken, rested = started(), started()
    push(taken, 100, T0, False)
    push(rested, 100, T0, True)
    assert displacement(rested) == pytest.approx(NOMINAL.passive_share * displacement(taken))
    assert displacement(rested) > 0


def test_concession_is_half_the_own_displacement_and_the_square_root():
    assert concession_ticks(started(), 100) == pytest.approx(0.5 * 0.01 * 2100 + 0.8 * 100 * 0.1)
    assert concession_ticks(started(), 100) == pytest.approx(NOMINAL.concession_bps(100))
    root_alone = ImpactParameters(0.0, (), (), 0.8, 100.0, 10_000.0)
    assert root_alone.concession_bps(400) == pytest.approx(2 * root_alone.concession_bps(100))


trade = st.tuples(st.floats(0.0, 30.0), st.integers(-500, 500))


@settings(max_examples=200, deadline=None)
@given(trades=st.lists(trade, min_size=1, max_size=12), weights=st.lists(st.floats(0, 1e4), min_size=4, max_size=4))
def test_round_trip_never_earns_from_the_propagator(trades, weights):
    parameters = ImpactParameters(weights[0], tuple(weights[1:]), (1.0, 10.0, 100.0), 0.0, 100.0, 10_000.0)
    impact, now, cost, position = started(parameters), 0.0, 0.0, 0
    for wait, lots in [*trades, (0.0, -sum(lots for _, lots in trades))]:
        now += wait
        decay_to(impact, at(now))
        cost += lots * displacement(impact) + abs(lots) * concession_ticks(impact, abs(lots))
        push(impact, lots, at(now), False)
        position += lots
    assert position == 0
    assert cost >= -1e-9 * sum(weights) * sum(abs(lots) for _, lots in trades)


def test_round_trip_pays_the_part_that_decays_in_between():
    impact = started(ImpactParameters(0.0, (1000.0,), (10.0,), 0.0, 100.0, 10_000.0))
    cost = 100 * concession_ticks(impact, 100)
    push(impact, 100, T0, False)
    decay_to(impact, at(10))
    cost += -100 * displacement(impact) + 100 * concession_ticks(impact, 100)
    assert cost == pytest.approx(100 * 10.0 * (1 - np.exp(-1)))


def test_scaled_parameters_scale_every_part_and_nothing_else():
    half, more = NOMINAL.scaled(0.5), NOMINAL.scaled(1.5)
    lags = np.array([0.0, 1.0, 50.0])
    np.testing.assert_allclose(half.kernel_bps(lags), 0.5 * NOMINAL.kernel_bps(lags))
    assert more.concession_bps(70) == pytest.approx(1.5 * NOMINAL.concession_bps(70))
    assert (half.decay_s, half.adv_lots, half.passive_share) == (NOMINAL.decay_s, NOMINAL.adv_lots, 0.5)
    assert NOMINAL.scaled(0).is_off and OFF.is_off and not NOMINAL.is_off


def test_market_that_does_not_react_is_not_active():
    assert started(OFF)["active"] == 0 and started(NOMINAL.scaled(0))["active"] == 0
    assert started(NOMINAL)["active"] == 1


def test_parameters_survive_plain_values_and_name_what_is_wrong():
    assert ImpactParameters.from_dict(NOMINAL.to_dict()) == NOMINAL
    with pytest.raises(InputError, match="permanant_bps"):
        ImpactParameters.from_dict({"permanant_bps": 1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permanent_bps": -1.0}, "from 0 up"),
        ({"transient_bps": (1.0, float("nan"), 1.0)}, "from 0 up"),
        ({"decay_s": (1.0, 0.0, 2.0)}, "above 0"),
        ({"decay_s": (1.0,)}, "as many of each"),
        ({"transient_bps": (1.0,) * 5, "decay_s": (1.0,) * 5}, "4 at most"),
        ({"adv_lots": 0.0}, "above 0"),
        ({"passive_share": 1.5}, "passive_share 1.5"),
    ],
)
def test_parameters_without_meaning_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ImpactParameters.from_dict({**NOMINAL.to_dict(), **change})


@pytest.mark.parametrize("factor", [-0.5, float("inf")])
def test_impact_when_scaled_by_nonsense_then_says_so(factor):
    with pytest.raises(InputError, match="cannot be scaled"):
        NOMINAL.scaled(factor)
