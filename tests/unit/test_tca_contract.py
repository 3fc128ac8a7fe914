"""The cost of a parent from its fills: parts that sum, fills that are taken back, the charge for what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.tca import CostSums, FillMark, shortfall, sweep_cost


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
