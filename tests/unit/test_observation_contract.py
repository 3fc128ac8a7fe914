import numpy as np
import pytest

from feature_repo.errors import InputError
from serving.contracts.observation import (
    FORECAST_HORIZONS_S,
    MARKET_NAMES,
    OBSERVATION_NAMES,
    OPPOSITE_QUEUE_SHARE,
    PRIVATE_NAMES,
    allowed_actions,
    build_observation,
    due_lots,
    is_directional,
    observation_bounds,
    private_state,
    scheduled_lots,
)


def private(side, own_px, own_sz, opp_px, opp_sz, mid2, arrival_mid2, rest_px=0, rest_lots=0):
    out = np.zeros(len(PRIVATE_NAMES), np.float32)
    private_state(
        out, side, 100, 40, 0.5, 10, 10, rest_px, rest_lots, 7, own_px, own_sz, opp_px, opp_sz, mid2, arrival_mid2
    )
    return out


def test_buy_and_sell_in_mirrored_markets_see_the_same():
    # The sell's market is the buy's, mirrored at 1000 ticks: price p becomes 2000 - p, bids become asks.
    buy = private(1, 1000, 30, 1002, 10, 2002, 2000, rest_px=999, rest_lots=5)
    sell = private(-1, 1000, 30, 998, 10, 1998, 2000, rest_px=1001, rest_lots=5)
    np.testing.assert_array_equal(buy, sell)
    rng = np.random.default_rng(0)
    features = rng.normal(size=len(MARKET_NAMES)).astype(np.float32)
    mirrored = np.where([is_directional(name) for name in MARKET_NAMES], -features, features)
    forecasts = np.array([0.5, -0.2, 0.1], np.float32)
    one, other = build_observation(buy, features, forecasts, 1), build_observation(sell, mirrored, -forecasts, -1)
    np.testing.assert_array_equal(one, other)


def test_opposite_queue_share_is_where_the_contract_says():
    values = private(1, 1000, 30, 1001, 10, 2001, 2001)
    assert values[OPPOSITE_QUEUE_SHARE] == pytest.approx(0.25)
    assert OBSERVATION_NAMES[OPPOSITE_QUEUE_SHARE] == "opposite_queue_share"


def test_observation_is_clipped_to_its_bounds():
    values = np.full(len(PRIVATE_NAMES), 1e9, np.float32)
    out = build_observation(values, np.full(len(MARKET_NAMES), -1e9, np.float32), None, 1)
    low, high = observation_bounds()
    assert (out >= low).all() and (out <= high).all()
    assert out[-1] == 1.0  # missing forecasts are flagged


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_observation_when_a_value_is_not_finite_then_names_it(bad):
    features = np.zeros(len(MARKET_NAMES), np.float32)
    features[1] = bad
    with pytest.raises(InputError, match=MARKET_NAMES[1]):
        build_observation(np.zeros(len(PRIVATE_NAMES), np.float32), features, None, 1)


def test_observation_when_shapes_or_side_are_wrong_then_refuses():
    good = np.zeros(len(PRIVATE_NAMES), np.float32), np.zeros(len(MARKET_NAMES), np.float32)
    with pytest.raises(InputError, match="shapes"):
        build_observation(good[0], good[1][:-1], None, 1)
    with pytest.raises(InputError, match="side 0"):
        build_observation(*good, np.zeros(len(FORECAST_HORIZONS_S), np.float32), 0)


def test_schedule_sums_to_the_parent_and_due_never_exceeds_what_remains():
    assert [scheduled_lots(103, k, 10) for k in range(10)][-1] == 103
    assert due_lots(103, 100, 3, 10, 5) == 0
    assert due_lots(103, 0, 0, 10, 1) == 20
    assert due_lots(103, 98, 9, 10, 5) == 5


@pytest.mark.parametrize(
    ("due", "own_sz", "opp_sz", "spread", "wanted"),
    [
        (5, 10, 10, 1, [1, 1, 0, 1]),
        (5, 10, 10, 2, [1, 1, 1, 1]),
        (0, 10, 10, 2, [1, 0, 0, 0]),
        (5, 0, 10, 2, [1, 0, 0, 1]),
        (5, 10, 0, 2, [1, 1, 0, 0]),
    ],
)
def test_mask_allows_what_is_possible(due, own_sz, opp_sz, spread, wanted):
    mask = np.zeros(4, np.float32)
    allowed_actions(mask, due, 100, own_sz, 100 + spread, opp_sz)
    assert mask.tolist() == wanted
