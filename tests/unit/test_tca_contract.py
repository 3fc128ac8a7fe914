"""The cost of a parent from its fills: parts that sum, fills that are taken back, the charge for what is left."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_fixtures import make_day, open_ns

from serving.contracts.tca import CostSums, FillMark, in_bps, lost2, shortfall, sweep_cost
from training.market.engine import cost_bps
from training.market.fills import AGGRESSIVE, FORCED, PASSIVE, record_fill, sweep
from training.market.orders import EPISODE_DTYPE, FILL_DTYPE, TAKEN_CAPACITY
from training.market.tape import build_tape


def test_parts_of_a_purchase_are_those_by_hand():
    sums = CostSums(1, 2000)  # arrival mid 1000
    sums.add(FillMark(999, 10, 0, 2002, 1002, True))  # rested at 999 while the mid stood at 1001
    sums.add(FillMark(1005, 10, 50, 2004, 1003, False))  # took at 1005, the best was 1003 and the mid 1002
    found = shortfall(sums, tick_value=1.0)
    value = 20 * 1000
    assert found.timing_bps == pytest.approx(1e4 * (10 * 1 + 10 * 2) / value)
    assert found.spread_bps == pytest.approx(1e4 * (10 * -2 + 10 * 1) / value)
    assert found.impact_bps == pytest.approx(1e4 * 10 * 2 / value)
    assert found.fees_bps == pytest.approx(1e4 * 50 / value)
    assert found.is_bps == pytest.approx(1e4 * (10 * -1 + 10 * 5) / value + found.fees_bps)
    assert found.passive_share == 0.5


FILLS = st.lists(
    st.builds(
        FillMark, st.integers(1, 10**6), st.integers(1, 10**4), st.integers(-100, 100), st.integers(2, 2 * 10**6),
        st.integers(1, 10**6), st.booleans(),
    ), min_size=1, max_size=20,
)  # fmt: skip


@given(FILLS, st.sampled_from([1, -1]), st.integers(2, 2 * 10**6), st.floats(0.01, 100))
def test_parts_sum_to_the_whole_and_a_fill_that_is_taken_back_leaves_no_trace(fills, side, arrival, tick_value):
    sums, fewer = CostSums(side, arrival), CostSums(side, arrival)
    for fill in fills:
        sums.add(fill)
    for fill in fills[:-1]:
        fewer.add(fill)
    found = shortfall(sums, tick_value)
    assert found.is_bps == pytest.approx(sum(found[1:5]), rel=1e-9, abs=1e-6)
    sums.add(fills[-1], -1)
    assert all(getattr(sums, name) == getattr(fewer, name) for name in CostSums.__slots__)


def test_nothing_filled_costs_nothing():
    assert shortfall(CostSums(1, 2000), 1.0) is None


@pytest.mark.parametrize(
    ("levels", "side", "lots", "wanted"),
    [
        ([(101, 5), (102, 5)], 1, 7, (5 * 101 + 2 * 102, 0)),
        ([(101, 4), (102, 8)], 1, 20, (4 * 101 + 8 * 102 + 6 * 103 + 2 * 104, 8)),  # six lots a tick behind
        ([(99, 4)], -1, 9, (4 * 99 + 4 * 98 + 97, 5)),
        ([], 1, 3, (101 + 102 + 103, 3)),  # from the first price beyond the mid of 100
        ([], -1, 2, (99 + 98, 2)),
        ([(2, 1)], -1, 10, (2 + 9 * 1, 9)),  # no price falls below a tick
    ],
)
def test_sweep_is_charged_level_by_level_and_beyond_them_a_tick_apart(levels, side, lots, wanted):
    assert sweep_cost(levels, side, lots, 200) == wanted


# Training's kernels ---------------------------------------------------------------------------------------------------


def episode(side, lots, arrival_mid2):
    state = np.zeros(1, EPISODE_DTYPE).view(np.recarray)[0]
    state.side, state.lots, state.arrival_mid2 = side, lots, arrival_mid2
    return state


def no_fills():
    return np.zeros(1, FILL_DTYPE), np.zeros(1, np.int64)


@pytest.mark.parametrize("side", [1, -1])
def test_accounts_of_the_environment_are_those_of_serving_to_the_last_bit(side):
    rng = np.random.default_rng(side + 1)
    for _ in range(50):
        arrival = int(rng.integers(100, 10**6))
        state, sums = episode(side, 0, arrival), CostSums(side, arrival)
        for _ in range(int(rng.integers(1, 12))):
            price, lots, mid2, best = (int(value) for value in rng.integers(1, 10**6, 4))
            kind = (PASSIVE, AGGRESSIVE, FORCED)[int(rng.integers(3))]
            record_fill(state, 1, price, lots, kind, best, mid2, 0, *no_fills())
            sums.add(FillMark(price, lots, 0, mid2, best, kind == PASSIVE))
        for name in ("spread2", "timing2", "impact2", "filled", "passive_lots"):
            assert state[name] == getattr(sums, name)
        state.lots = sums.filled
        paid = int(state.passive_cost + state.aggressive_cost + state.forced_cost)
        assert paid == sums.cost
        columns = (np.array([value]) for value in (side, 2 * paid, sums.filled, arrival))
        column = in_bps(lost2(*columns), np.array([sums.filled * arrival], np.float64))
        assert column[0] == shortfall(sums, 1.0).is_bps == cost_bps(state, np.int64(7), 0.0, 0.0)


BOOKS = (
    ([(99, 4), (98, 8), (96, 3)], [(101, 5), (102, 7), (105, 1)]),
    ([(99, 4)], [(101, 5)]),
    ([(3, 4)], [(4, 5), (6, 2)]),
    ([(99, 4)], []),
    ([], [(101, 5)]),
)  # fmt: skip


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("lots", [1, 7, 13, 60])
@pytest.mark.parametrize("book", range(len(BOOKS)))
def test_sweep_of_the_environment_pays_what_serving_charges_for_lots_that_are_left(book, lots, side):
    bids, asks = BOOKS[book]
    rows = [(open_ns(), [(99, 4)], [(101, 5)], None), (open_ns() + 1, bids, asks, None)]
    tape = build_tape([make_day(rows)])
    state = episode(side, lots, 200)
    state.row = 1
    mid2 = int(tape.rows["mid2"][1])
    taken = np.zeros(TAKEN_CAPACITY, np.int64), np.zeros((TAKEN_CAPACITY, 2), np.int64)
    assert sweep(tape, state, 1, lots, 0, 1, FORCED, *taken, 0, *no_fills()) == lots
    cost, beyond = sweep_cost(asks if side > 0 else bids, side, lots, mid2)
    assert (state.forced_cost, state.extrapolated_lots) == (cost, beyond)
