"""The second simulator, by hand-made steps and beside the market engine."""

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns, random_rows

from flows.bench.reference import CHECK, RULES, notes
from flows.bench.step_market import CARRY, STEP_NS, TWAP_MARKET, TWAP_PASSIVE, Prints, book_prints, step_market, work
from training.execution.baselines import Carry, TwapMarket
from training.execution.config import ExecutionConfig
from training.execution.parents import ParentOrder, parent_grid
from training.execution.run import run_policy

T0 = open_ns()
SLICES, SLICE_STEPS = 10, 120


def quiet(bid_sz=30, trades=(), ask_sz=50):
    """Best 100 / 101 all day; trades are (second, price, lots, aggressor)."""
    at = {second: (price, lots, side) for second, price, lots, side in trades}
    return make_day([(T0 + k * NS, [(100, bid_sz)], [(101, ask_sz)], at.get(k)) for k in range(7200)])


def outcome(day, rule, start_s=300, delay=1, prints=None, side=1):
    market = step_market(day, prints or book_prints(day), *day.windows[0])
    start = (T0 + start_s * NS - market.first_ns) // STEP_NS
    log = np.zeros((64, 4))
    cost, passive, filled, logged = work(market, start, side, 200, SLICES, SLICE_STEPS, rule, 0.2, delay, log)
    assert filled == 200
    return cost, passive, log[:logged]


def test_crossing_meets_the_price_one_step_after_its_decision():
    cost, passive, log = outcome(quiet(), TWAP_MARKET)
    assert log[:, 0].tolist() == [1 + SLICE_STEPS * k for k in range(SLICES)] and set(log[:, 2]) == {20}
    assert cost == pytest.approx(1e4 * 0.5 / 100.5) and passive == 0


def test_resting_order_fills_after_the_queue_that_stood_when_it_joined():
    day = quiet(trades=[(310, 100, 29, -1), (320, 100, 11, -1)])
    _, passive, log = outcome(day, CARRY)
    assert log[0].tolist() == [40, 100, 10, 1]  # 29 + 11 traded, 30 stood ahead: 10 are left for us
    assert passive == pytest.approx(10 / 200)


def test_resting_order_when_it_joins_at_once_then_a_trade_of_the_next_step_counts():
    day = quiet(bid_sz=5, trades=[(300, 100, 9, -1), (301, 100, 12, -1)])
    late = outcome(day, TWAP_PASSIVE, delay=1)[2]
    assert late[0].tolist() == [2, 100, 7, 1]  # joined at 300.5 s behind 5, the trade at 301 s
    moved = Prints(*(np.array([value], np.int64) for value in (T0 + 300 * NS + 400_000_000, 100, 12, -1)))
    assert outcome(day, TWAP_PASSIVE, delay=0, prints=moved)[2][0].tolist() == [1, 100, 7, 1]
    assert outcome(day, TWAP_PASSIVE, delay=1, prints=moved)[2][0][0] > 1  # it was not there yet


def test_resting_order_when_it_fills_while_its_successor_is_in_flight_then_no_lot_is_filled_twice():
    day = quiet(bid_sz=1, trades=[(310, 100, 500, -1), (311, 100, 500, -1)])
    log = outcome(day, CARRY)[2]
    assert log[0].tolist() == [20, 100, 20, 1]
    assert log[1][0] > SLICE_STEPS  # nothing is due before the next slice


@pytest.mark.parametrize("side", [1, -1])
def test_both_simulators_give_the_same_cost_in_a_quiet_market(side):
    trades = [(second, 100, 6_000, -1) for second in range(305, 900, 37)]
    day = quiet(bid_sz=5_000, ask_sz=5_000, trades=trades)  # no order here takes all that is shown
    config = ExecutionConfig(lots=200, decision_interval_s=60, latency_ns=STEP_NS)
    parent = ParentOrder(0, side, 200, T0 + 300 * NS, 600 * NS).row()
    for policy, rule in ((TwapMarket(), TWAP_MARKET), (Carry(SLICE_STEPS), CARRY)):
        ours = run_policy(policy, [day], parent, config).rows
        cost, passive, _ = outcome(day, rule, side=side)
        assert cost == pytest.approx(ours["is_bps"][0]) and passive == pytest.approx(ours["passive_share"][0])


def test_both_simulators_agree_on_average_in_a_busy_market():
    day = make_day(random_rows(np.random.default_rng(8), count=14_000, step_ns=NS // 2))
    config = ExecutionConfig(lots=100, decision_interval_s=60, latency_ns=STEP_NS, start_every_s=120)
    parents = parent_grid([day], config)
    ours = run_policy(Carry(SLICE_STEPS), [day], parents, config).rows
    market = step_market(day, book_prints(day), *day.windows[0])
    theirs = []
    for parent in parents:
        start = (int(parent["start_ns"]) - market.first_ns) // STEP_NS
        log = np.zeros((1, 4))
        theirs.append(work(market, start, int(parent["side"]), 100, SLICES, SLICE_STEPS, CARRY, 0.2, 1, log)[0])
    spread = np.std(ours["is_bps"])
    assert abs(np.mean(theirs) - ours["is_bps"].mean()) < 0.1 * spread


def test_notes_give_the_distance_to_the_check_of_every_simulator():
    wanted = dict(zip(RULES, CHECK["AIG", "2013-10-07"], strict=True))
    played = {"engine": {policy: {"mean_is_bps": value + 0.1} for policy, value in wanted.items()}}
    (line,) = notes([{"symbol": "AIG", "check": wanted, "played": played}])
    assert line.startswith("AIG, engine: +0.100 bps from the check on average")
