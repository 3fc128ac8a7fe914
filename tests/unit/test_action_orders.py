import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.actions import BEHIND_TICKS, CROSS_FROM, continuous_order, discrete_order
from serving.contracts.observation import CROSS, IMPROVE, PLACE, WAIT

BOOK = (100, 30, 104, 20)  # a buyer's own price and size, the opposite price and size: a spread of four ticks
NO_OWN, NO_OPPOSITE = (0, 0, 104, 20), (100, 30, 0, 0)


@pytest.mark.parametrize(
    ("action", "due", "book", "wanted"),
    [
        (WAIT, 9, BOOK, (0, 0, 0, False)),
        (PLACE, 9, BOOK, (100, 9, 0, False)),
        (IMPROVE, 9, BOOK, (101, 9, 0, False)),
        (CROSS, 9, BOOK, (0, 0, 9, False)),
        (PLACE, 0, BOOK, (0, 0, 0, True)),
        (PLACE, 9, NO_OWN, (0, 0, 0, True)),
        (IMPROVE, 9, (100, 30, 101, 20), (0, 0, 0, True)),
        (CROSS, 9, NO_OPPOSITE, (0, 0, 0, True)),
        (4, 9, BOOK, (0, 0, 0, True)),
        (-1, 9, BOOK, (0, 0, 0, True)),
    ],
)
def test_discrete_action_asks_for_its_order_and_a_masked_one_for_nothing(action, due, book, wanted):
    assert discrete_order(action, 1, due, *book, 0, 0) == wanted


@pytest.mark.parametrize(
    ("action", "rest_px", "rest_lots", "price"),
    [
        (PLACE, 102, 5, 102),  # alone, two ticks before the others: the front is kept
        (PLACE, 100, 5, 100),
        (PLACE, 97, 5, 100),
        (PLACE, 102, 0, 100),  # filled or cancelled: nothing stands there
        (IMPROVE, 102, 5, 101),
    ],
)
def test_place_leaves_an_order_that_stands_alone_at_a_better_price(action, rest_px, rest_lots, price):
    assert discrete_order(action, 1, 9, *BOOK, rest_px, rest_lots) == (price, 9, 0, False)
    mirrored = discrete_order(action, -1, 9, 104, 20, 100, 30, 204 - rest_px, rest_lots)
    assert mirrored == (204 - price, 9, 0, False)


@pytest.mark.parametrize(("action", "due"), [(WAIT, 9), (WAIT, 0), (PLACE, 0), (4, 9)])
def test_wait_that_keeps_leaves_what_rests_as_it_stands(action, due):
    masked = action != WAIT
    assert discrete_order(action, 1, due, *BOOK, 98, 5, True) == (98, 5, 0, masked)
    assert discrete_order(action, 1, due, *BOOK, 98, 0, True) == (0, 0, 0, masked)


@pytest.mark.parametrize(
    ("share", "aggressiveness", "due", "book", "wanted"),
    [
        (1.0, 0.0, 9, BOOK, (100, 9, 0, False)),  # the discrete place
        (0.0, 0.0, 9, BOOK, (100, 5, 0, False)),  # half, to the nearest lot
        (-1.0, 0.0, 9, BOOK, (0, 0, 0, False)),  # the discrete wait
        (1.0, 1.0, 9, BOOK, (0, 0, 9, False)),  # the discrete cross
        (1.0, CROSS_FROM, 9, BOOK, (0, 0, 9, False)),
        (1.0, 0.25 * CROSS_FROM, 9, BOOK, (101, 9, 0, False)),
        (1.0, 0.999 * CROSS_FROM, 9, BOOK, (103, 9, 0, False)),  # never at the opposite price
        (1.0, 0.999 * CROSS_FROM, 9, (100, 30, 101, 20), (100, 9, 0, False)),
        (1.0, 0.999 * CROSS_FROM, 9, (100, 30, 100, 20), (100, 9, 0, False)),  # locked
        (1.0, -1.0, 9, BOOK, (100 - BEHIND_TICKS, 9, 0, False)),
        (1.0, -1.0, 9, (2, 30, 4, 20), (1, 9, 0, False)),
        (1.0, 0.0, 0, BOOK, (0, 0, 0, False)),
        (3.0, 7.0, 9, BOOK, (0, 0, 9, True)),
        (1.0, 1.0, 9, NO_OPPOSITE, (100, 9, 0, True)),
        (1.0, 1.0, 9, (0, 0, 0, 0), (0, 0, 0, True)),
        (1.0, 0.0, 9, NO_OWN, (0, 0, 0, True)),
        (float("nan"), 0.0, 9, BOOK, (0, 0, 0, True)),
        (0.0, float("inf"), 9, BOOK, (0, 0, 5, True)),
    ],
)
def test_continuous_action_asks_for_its_order_clamped_to_what_is_possible(share, aggressiveness, due, book, wanted):
    assert continuous_order(share, aggressiveness, 1, due, *book) == wanted


bounded = st.floats(-1.5, 1.5, allow_nan=False)


@given(
    share=bounded, aggressiveness=bounded, due=st.integers(0, 50), spread=st.integers(1, 6), price=st.integers(50, 99)
)
def test_orders_of_a_sell_mirror_those_of_a_buy(share, aggressiveness, due, spread, price):
    buy_book, sell_book = (price, 5, price + spread, 7), (200 - price, 5, 200 - price - spread, 7)
    pairs = [
        (discrete_order(a, 1, due, *buy_book, 0, 0), discrete_order(a, -1, due, *sell_book, 0, 0)) for a in range(4)
    ]
    pairs.append(
        (
            continuous_order(share, aggressiveness, 1, due, *buy_book),
            continuous_order(share, aggressiveness, -1, due, *sell_book),
        )
    )
    for buy, sell in pairs:
        assert buy[1:] == sell[1:]
        assert buy[1] + buy[2] <= due  # never more than is due
        if buy[1]:
            assert sell[0] == 200 - buy[0] and buy[0] < price + spread  # rests, and never marketable


def test_lots_grow_with_the_share_and_the_price_with_aggressiveness():
    lots = [continuous_order(share, 0.0, 1, 10, *BOOK)[1] for share in np.linspace(-1, 1, 41)]
    prices = [continuous_order(1.0, how, 1, 10, *BOOK)[0] for how in np.linspace(-1, 0.499, 41)]
    assert lots == sorted(lots) and (lots[0], lots[-1]) == (0, 10)
    assert prices == sorted(prices) and set(prices) == set(range(100 - BEHIND_TICKS, 104))
