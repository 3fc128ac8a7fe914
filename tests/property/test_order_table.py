import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.ticks.order_table import ARRIVAL, LIVE, SIZE, OrderTable, clear, find, put, take
from feature_repo.ticks.schema import Kind

# Few numbers, some at the edges and some that collide, so that chains of slots form and break.
NUMBERS = st.sampled_from([0, -1, 2**63 - 1, -(2**63), *range(1, 60), *(k << 32 for k in range(1, 60))])
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "take", "reserve", "clear"]), NUMBERS, st.integers(1, 9)), max_size=300
)


def crowded():
    """An empty table in arrays that its orders fill to half."""
    table = OrderTable()
    table.keys, table.rows = np.zeros(256, np.int64), np.zeros((256, 5), np.int64)
    return table


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_order_table_when_orders_come_and_go_then_it_equals_a_dictionary(steps):
    table, live = crowded(), {}
    for what, number, lots in steps:
        at = find(table.keys, table.rows, number)
        if what == "put":
            put(table.keys, table.rows, table.state, number, 1, 100, lots)
            live.pop(number, None)  # it goes to the back
            live[number] = lots
        elif what == "take" and at >= 0:
            take(table.keys, table.rows, table.state, at, lots)
            live[number] -= lots
            if live[number] <= 0:
                del live[number]
        elif what == "reserve":
            table.reserve(lots * 1000)
        elif what == "clear" and lots == 9:
            clear(table.rows, table.state)
            live.clear()
        assert table.state[LIVE] == np.count_nonzero(table.rows[:, ARRIVAL]) == len(live)
    for number, lots in live.items():
        assert table.rows[find(table.keys, table.rows, number), SIZE] == lots
    events = table.opening(7, 10)
    assert events.kind.tolist() == [Kind.CLEAR] + [Kind.ADD] * len(live)
    assert events.order_id.tolist()[1:] == list(live)


def test_order_table_when_orders_have_gone_then_the_room_is_given_back():
    table = OrderTable()
    table.reserve(100_000)
    most = len(table.keys)
    for number in range(1000):
        put(table.keys, table.rows, table.state, number, 1, 100, 5)
    table.reserve(10)
    assert most >= 200_000 and len(table.keys) < most // 4
    assert all(find(table.keys, table.rows, number) >= 0 for number in range(1000))
