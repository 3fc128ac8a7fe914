"""From a target to requests: never more in the market than the parent lacks, whatever is still unanswered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.orders import ChildOrder, Replace
from serving.contracts.tca import CostSums
from serving.parents.orders import Child, Parent, Stage
from serving.parents.planning import Move, Place, Withdraw, steps

OPPOSITE = [(101, 5), (102, 5)]


def a_parent(lots=100, filled=0):
    sums = CostSums(1, 200)
    sums.filled = filled
    return Parent(1, "b-1", "p", "main", "agent", "T", "V", 1, lots, 1, 0, "http", "", "ada", 0, lots, "p", sums=sums)


def resting(parent, price=99, lots=20, filled=0, stage=Stage.WORKING, replaced_to=0, cancelling=False, kind="rest"):
    key = f"b-1/{len(parent.children) + 1}"
    order = ChildOrder(
        key=key, strategy="agent", account="main", algorithm="a", trader="ada", sent_ns=1, venue="V", symbol="T",
        side="buy", type="limit", price_ticks=price, lots=lots, tif="day", reduce_only=False,
    )  # fmt: skip
    child = Child(key, 1, order, kind, 1, stage=stage, price_ticks=price, lots=lots, filled=filled)
    if replaced_to:
        child.replace = Replace(
            key=f"{key}r", strategy="agent", account="main", algorithm="a", trader="ada", sent_ns=1, order_key=key,
            price_ticks=price, lots=replaced_to,
        )  # fmt: skip
    child.cancel_key = "c" if cancelling else ""
    parent.children[key] = child
    return child


def test_first_order_rests_or_takes_no_more_than_is_left():
    assert steps(a_parent(100, 90), (99, 30, 0), OPPOSITE) == [Place(99, 10)]
    assert steps(a_parent(100, 90), (0, 0, 30), OPPOSITE) == [Place(0, 10, True)]
    assert steps(a_parent(100, 100), (99, 30, 0), OPPOSITE) == steps(a_parent(100, 100), (0, 0, 3), OPPOSITE) == []
    assert steps(a_parent(), (0, 0, 0), OPPOSITE) == []


def test_resting_order_is_left_alone_replaced_or_cancelled():
    parent = a_parent()
    child = resting(parent, filled=5)
    assert steps(parent, (99, 15, 0), OPPOSITE) == []
    assert steps(parent, (98, 15, 0), OPPOSITE) == [Move(child, 98, 20, False)]
    assert steps(parent, (99, 30, 0), OPPOSITE) == [Move(child, 99, 35, False)]
    assert steps(parent, (0, 0, 0), OPPOSITE) == [Withdraw(child)]
    child.cancel_key = "c"
    assert steps(parent, (0, 0, 0), OPPOSITE) == []


def test_taking_cancels_what_rests_where_the_parent_has_room_for_both_and_moves_it_where_not():
    parent = a_parent(100, 40)
    child = resting(parent, lots=20)
    assert steps(parent, (0, 0, 40), OPPOSITE) == [Withdraw(child), Place(0, 40, True)]
    assert steps(parent, (0, 0, 41), OPPOSITE) == [Move(child, 102, 41, True)]
    assert steps(parent, (0, 0, 60), OPPOSITE) == [Move(child, 102, 60, True)]
    assert steps(parent, (0, 0, 60), []) == [Withdraw(child)]


def test_other_strategy_never_moves_what_rests():
    parent = a_parent(100, 70)
    child = resting(parent, lots=20)
    assert steps(parent, (0, 0, 30), OPPOSITE, may_move=False) == [Withdraw(child), Place(0, 10, True)]
    assert steps(parent, (99, 30, 0), OPPOSITE, may_move=False) == [Withdraw(child)]


def test_unanswered_replace_counts_at_its_larger_size():
    parent = a_parent(100)
    child = resting(parent, lots=20, replaced_to=90)
    assert child.exposed == 90 and parent.free == 10
    assert steps(parent, (0, 0, 50), OPPOSITE) == [Withdraw(child), Place(0, 10, True)]
    assert steps(parent, (98, 50, 0), OPPOSITE) == []


@given(
    st.integers(1, 100), st.integers(0, 100), st.integers(1, 100), st.integers(0, 100), st.integers(0, 150),
    st.booleans(), st.sampled_from(list(Stage)), st.integers(0, 60), st.booleans(),
    st.sampled_from([(0, 0, 0), (99, 30, 0), (0, 0, 30), (98, 100, 0), (0, 0, 100)]),
)  # fmt: skip
def test_no_plan_exceeds_its_parent(
    lots, done, rest, rest_filled, replaced, cancelling, stage, crossing, moves, target
):
    parent = a_parent(lots, min(done, lots))
    rest_filled = min(rest_filled, rest)
    child = resting(parent, 99, rest, rest_filled, stage, max(replaced, rest_filled) if replaced else 0, cancelling)
    if crossing:
        resting(parent, 99, crossing, kind="cross")
    if parent.filled + parent.exposed > parent.lots:
        return  # no such state is ever reached
    worst = parent.exposed
    for step in steps(parent, target, OPPOSITE, may_move=moves):
        if isinstance(step, Place):
            assert step.lots > 0
            worst += step.lots
        elif isinstance(step, Move):
            assert step.child is child and child.is_settled and step.lots > child.filled
            worst += max(0, step.lots - child.lots)
    assert parent.filled + worst <= parent.lots


@pytest.mark.parametrize("lots", [1, 7])
def test_free_is_what_neither_fills_nor_open_orders_hold(lots):
    parent = a_parent(lots + 30, 10)
    resting(parent, lots=20)
    assert (parent.free, parent.left, parent.exposed) == (lots, lots + 20, 20)
