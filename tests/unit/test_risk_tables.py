"""Orders and unanswered messages in parts: the same as one dictionary, whatever comes in and goes."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.live import PART as WAITING_PART
from serving.gateway.live import Waiting
from serving.gateway.tables import PART, Orders

numbers = st.lists(
    st.tuples(st.booleans(), st.sampled_from([1, 2, PART - 1, PART, PART + 1, 5 * PART, 9 * PART + 7])), max_size=60
)


def alike(table, expected):
    assert dict(zip(table, table.values(), strict=True)) == expected
    assert len(table) == len(expected) and bool(table) == bool(expected)


@given(numbers)
def test_orders_are_those_of_one_dictionary_after_any_adding_and_taking_out(steps):
    table, expected = Orders(), {}
    for comes, number in steps:
        if comes:
            expected[number] = SimpleNamespace(id=number)
            table.add(expected[number])
        else:
            table.discard(number)
            expected.pop(number, None)
        alike(table, expected)
        assert table.get(number) is expected.get(number) and (number in table) == (number in expected)
    copy = table.copy()
    table.clear()
    alike(table, {})
    alike(copy, expected)
    table.add(SimpleNamespace(id=3))
    assert list(table) == [3] and (3 in copy) == (3 in expected)


def test_orders_stand_in_the_order_in_which_their_numbers_came_across_parts():
    table = Orders()
    for number in range(1, 3 * PART):
        table.add(SimpleNamespace(id=number))
    for number in range(1, 3 * PART, 2):
        table.discard(number)
    assert list(table) == list(range(2, 3 * PART, 2))


def test_oldest_unanswered_message_is_found_across_parts_whatever_was_answered():
    waiting = Waiting()
    for key in range(3 * WAITING_PART):
        waiting.add(key, 1_000 + key)
    assert len(waiting) == 3 * WAITING_PART and waiting.oldest_ns() == 1_000
    for key in range(WAITING_PART + 5):
        waiting.discard(key)
        assert waiting.oldest_ns() == waiting.floor_ns == 1_001 + key
    waiting.add(1, 99_999)  # of an old order, but newer than all: it comes last
    assert waiting.oldest_ns() == 1_005 + WAITING_PART and waiting.get(1) == 99_999 and waiting.get(2) is None
    for key in range(3 * WAITING_PART):
        waiting.discard(key)
    assert waiting.oldest_ns() is None and len(waiting) == 0 and not waiting.parts[0]
    waiting.add(7, 123_456)
    assert waiting.floor_ns == waiting.oldest_ns() == 123_456
