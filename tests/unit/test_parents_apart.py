"""Several parents of one symbol at once: two of a side work side by side, two of both sides never reach each other."""

from dataclasses import replace

import numpy as np
import pytest
from ems_world import NS, Ems, policy, request
from market_fixtures import make_day, open_ns, random_rows

from serving.contracts.decisions import Denied
from serving.contracts.orders import Cancel, ChildOrder, Replace
from serving.parents.apart import keep_apart
from serving.parents.orders import Phase
from serving.parents.planning import Move, Place, Withdraw
from serving.parents.records import Decided, Sent
from training.market.venue.depth_world import DepthWorld

WAIT, PLACE, IMPROVE, CROSS = range(4)
START = open_ns() + 120 * NS
DAY = make_day(random_rows(np.random.default_rng(3), 1500, step_ns=NS))


def guarded(decide, champion=None):
    """An EMS whose gateway denies what the real one's `self_match` does."""
    ems = Ems(DepthWorld(DAY), DAY.instrument, decide, champion or policy(), start_ns=open_ns())
    gateway = ems.gateway

    def self_match(item):
        order = item if isinstance(item, ChildOrder) else gateway.orders[gateway.ids[item.order_key]]
        if isinstance(item, Cancel):
            return None
        sign = 1 if order.side == "buy" else -1
        for child in ems.core.state.children.values():
            other = child.request
            if child.is_open and child.order_id and other.side != order.side:
                for price in {child.price_ticks, child.replace.price_ticks if child.replace else child.price_ticks}:
                    if not price or not item.price_ticks or sign * (price - item.price_ticks) <= 0:
                        return Denied(control="self_match", message="meets our own", key="")
        return None

    ems.gateway.deny = self_match
    return ems


def submit(ems, *asked):
    for one in asked:
        ems.core.submit(one, 1)
    return [ems.core.state.find(one.account, one.parent_id) for one in asked]


def denials(ems):
    return [alert.message for alert in ems.alerts if alert.what == "denied"]


def test_parents_of_one_side_work_at_once_and_each_as_if_it_were_alone():
    def decide(seen, mask):
        return next(item for item in ((PLACE, CROSS, WAIT) if seen[0] > 0.5 else (CROSS, PLACE, WAIT)) if mask[item])

    asked = [request("p1", 120, start_ns=START), request("p2", 90, start_ns=START + 45 * NS),
             request("p3", 60, start_ns=START + 100 * NS)]  # fmt: skip
    together = guarded(decide)
    parents = submit(together, *asked)
    together.run(START + 110 * NS)
    assert all(parent.phase is Phase.WORKING for parent in parents)
    together.run(START + 720 * NS)
    assert not denials(together) and {parent.how for parent in parents} == {"filled"}
    for one, parent in zip(asked, parents, strict=True):
        alone = guarded(decide)
        (same,) = submit(alone, one)
        alone.run(START + 720 * NS)
        fills = [
            [(found.ts_ns, found.mark) for child in item.children.values() for found in child.executions.values()]
            for item in (parent, same)
        ]  # fmt: skip
        assert fills[0] == fills[1] and same.tca["is_bps"] == parent.tca["is_bps"]


@pytest.mark.parametrize("seed", range(4))
def test_parents_of_both_sides_work_at_once_and_the_gateway_has_nothing_to_deny(seed):
    rng = np.random.default_rng(seed)

    def decide(seen, mask):
        return next(int(item) for item in rng.permutation(4) if mask[item])

    ems = guarded(decide, policy(decisions_per_slice=5, ahead_slices=3))
    parents = submit(ems, *(
        request(f"p{k}", 90, 1 - 2 * (k % 2), horizon_ns=500 * NS, start_ns=START + 20 * k * NS) for k in range(6)
    ))  # fmt: skip
    ems.run(START + 640 * NS, NS // 2)
    assert not denials(ems)
    assert {parent.how for parent in parents} == {"filled"} and all(parent.tca["completion"] > 0 for parent in parents)
    held = [record for record in ems.records if isinstance(record, Decided) and "of our own" in record.held]
    priced = [
        record.request for record in ems.records if isinstance(record, Sent) and isinstance(record.request, ChildOrder)
        and record.request.tif == "ioc" and record.request.type == "limit"
    ]  # fmt: skip
    assert held and (priced or seed)


def test_buyer_that_must_complete_asks_the_order_in_its_way_to_step_back():
    ems = guarded(lambda seen, mask: WAIT, policy(decision_interval_s=600))
    sells, buys = submit(
        ems, request("sells", 60, -1, start_ns=START), request("buys", 60, 1, horizon_ns=60 * NS, start_ns=START)
    )
    ems.run(START + 60 * NS - NS // 10, NS // 10)
    ems.core.sender.carry_out(sells, Place(ems.core.markets["T"].last.best(1)[2], 50), "agent")
    ems.settle()
    assert not buys.filled and sells.resting is not None
    ems.run(START + 65 * NS, NS // 10)
    mine, theirs = (
        [(record.market_ns, type(record.request)) for record in ems.records
         if isinstance(record, Sent) and record.number == parent.number] for parent in (buys, sells)
    )  # fmt: skip
    assert [kind for _, kind in theirs] == [ChildOrder, Cancel] and mine[0][0] > theirs[1][0] >= buys.end_ns
    assert buys.how == "filled" and not denials(ems)
    ems.run(START + 620 * NS)
    assert sells.how == "filled" and not denials(ems)


def a_book(sells_at=None, market=False):
    """State with a buyer and a seller, the seller with an order at a price (or at the market)."""
    ems = guarded(lambda seen, mask: WAIT)
    sells, buys = submit(ems, request("sells", 200, -1, start_ns=START), request("buys", 100, 1, start_ns=START))
    ems.run(START + NS)
    if sells_at or market:
        ems.core.sender.carry_out(sells, Place(sells_at or 0, 10, market), "agent")
    return ems.core.state, sells, buys


LEVELS = [(101, 5), (102, 5), (104, 5)]


@pytest.mark.parametrize(
    ("sells_at", "step", "wanted"),
    [
        (None, Place(0, 9, True), Place(0, 9, True)),
        (103, Place(0, 9, True), Place(102, 9, True)),  # priced before the own order
        (200, Place(0, 9, True), Place(104, 9, True)),  # never at any price while one is open
        (101, Place(0, 9, True), None),  # nothing is shown before it
        (100, Place(0, 9, True), None),
        (101, Place(100, 9), Place(100, 9)),
        (101, Place(101, 9), None),
        (101, Place(105, 9), None),
    ],
)
def test_what_is_sent_stays_before_the_other_side(sells_at, step, wanted):
    state, _, buys = a_book(sells_at)
    kept = keep_apart(state, buys, [step], LEVELS)
    assert kept.steps == ([] if wanted is None else [wanted]) and kept.short == (wanted != step)


def test_order_at_the_market_that_is_out_lets_nothing_of_the_other_side_leave_but_cancels():
    state, sells, buys = a_book(market=True)
    for step in (Place(0, 9, True), Place(1, 9)):
        assert keep_apart(state, buys, [step], LEVELS) == ([], True)
    child = next(iter(sells.children.values()))
    assert keep_apart(state, buys, [Withdraw(child)], LEVELS) == ([Withdraw(child)], False)
    assert keep_apart(state, sells, [Place(0, 9, True)], [(99, 5)]) == ([Place(0, 9, True)], False)  # its own side


def test_change_that_is_not_answered_counts_at_both_prices_and_one_that_takes_is_priced_before_the_other_side():
    state, sells, buys = a_book(104)
    child = next(iter(sells.children.values()))
    head = {"key": "k", "strategy": "agent", "account": "main", "algorithm": "a", "trader": "t", "sent_ns": 1}
    child.replace = Replace(**head, order_key=child.key, price_ticks=102, lots=10)
    assert keep_apart(state, buys, [Place(0, 9, True)], LEVELS).steps == [Place(101, 9, True)]
    assert keep_apart(state, buys, [Place(102, 9)], LEVELS).steps == []
    own = replace(child, replace=None)
    assert keep_apart(state, buys, [Move(own, 104, 9, True)], LEVELS).steps == [Move(own, 101, 9, True)]
    assert keep_apart(state, buys, [Move(own, 102, 9, False)], LEVELS).steps == []
    child.replace, child.price_ticks = None, 101
    assert keep_apart(state, buys, [Withdraw(own), Place(0, 9, True)], LEVELS) == ([], True)  # what rests stays
