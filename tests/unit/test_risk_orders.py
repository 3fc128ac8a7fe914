"""An order's life and what it reserves, whatever the order in which reports come; money is exact."""

import pytest
from gateway_world import ASK, SYMBOL, TICK_VALUE, VENUE, World

from serving.contracts.orders import Corrected, Filled
from serving.gateway.events import Holding
from serving.gateway.journal import JournalError
from serving.gateway.money import MoneyOverflowError, checked, worth


def stage(world, order_id=1):
    return world.state.orders[order_id].stage


def reserved(world):
    node = world.state.all
    return node.open_orders, node.open_lots, node.open_value


def test_life_of_an_order():
    world = World()
    order_id = world.send(key="a").order_id
    assert stage(world) == "pending new" and reserved(world) == (1, 100, 100 * ASK * TICK_VALUE)
    world.report(world.venue.ack(order_id))
    assert stage(world) == "working"
    world.report(world.venue.fill(order_id, 30))
    assert stage(world) == "working" and reserved(world) == (1, 70, 70 * ASK * TICK_VALUE)
    world.submit(world.replace("a", 10_005, 150))
    assert stage(world) == "pending replace" and reserved(world)[1] == 120
    world.report(world.venue.replaced(order_id))
    assert stage(world) == "working" and reserved(world)[1] == 120
    world.submit(world.cancel("a"))
    assert stage(world) == "pending cancel" and reserved(world)[1] == 120
    world.report(world.venue.cancel_rejected(order_id))
    assert stage(world) == "working"
    world.submit(world.cancel("a"))
    world.report(world.venue.cancelled(order_id))
    assert stage(world) == "done" and reserved(world) == (0, 0, 0)
    assert world.state.all.traded_lots == 30 and world.state.leg("A1", "S1", SYMBOL).position == 30


def test_replace_reserves_the_larger_and_dearer_until_it_is_answered():
    world = World()
    world.work(key="a")
    world.submit(world.replace("a", 10_300, 60))
    assert reserved(world) == (1, 100, 100 * 10_300 * TICK_VALUE)
    world.report(world.venue.replaced(1))
    assert reserved(world) == (1, 60, 60 * 10_300 * TICK_VALUE)
    world.submit(world.replace("a", 10_000, 90))
    assert reserved(world) == (1, 90, 90 * 10_300 * TICK_VALUE)
    world.report(world.venue.replace_rejected(1))
    assert reserved(world) == (1, 60, 60 * 10_300 * TICK_VALUE)


def test_replace_below_what_is_filled_or_of_what_is_done_is_denied():
    world = World()
    world.work(key="a")
    world.report(world.venue.fill(1, 60))
    assert world.submit(world.replace("a", 10_000, 60)).control == "increments"
    assert world.submit(world.replace("b", 10_000, 60)).control == "order"
    assert world.submit(world.replace("a", 10_000, 70, strategy="S2")).control == "order"  # another's order
    world.report(world.venue.fill(1, 40))
    assert stage(world) == "done"
    assert world.submit(world.replace("a", 10_000, 200)).control == "order"
    assert world.submit(world.cancel("a")).control == "order"


def test_replace_of_a_market_order_is_denied():
    world = World()
    world.work(key="a", price=0)
    assert world.submit(world.replace("a", 10_000, 100)).control == "increments"


def test_fill_that_completes_an_order_whose_replace_is_unanswered():
    world = World()
    world.work(key="a", lots=100)
    world.submit(world.replace("a", 10_000, 150))
    world.report(world.venue.fill(1, 100))
    assert stage(world) == "pending replace" and reserved(world)[1] == 50  # the venue may still follow the replace
    world.report(world.venue.replace_rejected(1))
    assert stage(world) == "done" and reserved(world) == (0, 0, 0)


def test_reports_out_of_order():
    world = World()
    order_id = world.send().order_id
    world.report(world.venue.fill(order_id, 40))  # before the acknowledgement
    assert stage(world) == "working"
    world.report(world.venue.ack(order_id))
    world.report(world.venue.cancelled(order_id))
    world.report(world.venue.fill(order_id, 60))  # after the cancel: true all the same
    assert stage(world) == "done" and reserved(world) == (0, 0, 0)
    assert world.state.leg("A1", "S1", SYMBOL).position == 100
    world.report(world.venue.ack(order_id))
    world.report(world.venue.cancelled(order_id))
    assert stage(world) == "done" and not world.state.node("venue", VENUE).tripped


def test_execution_that_comes_twice_counts_once():
    world = World()
    order_id = world.work()
    fill = world.venue.fill(order_id, 40)
    for _ in range(3):
        world.report(fill)
    assert world.state.leg("A1", "S1", SYMBOL).position == 40 and reserved(world)[1] == 60
    other = Filled(order_id=order_id, ts_ns=0, exec_id=fill.exec_id, price_ticks=10_000, lots=41)
    world.report(other)
    assert "twice with different contents" in world.state.node("venue", VENUE).tripped


def test_fill_after_a_reject_stops_the_venue_and_is_counted():
    world = World()
    order_id = world.send().order_id
    world.report(world.venue.reject(order_id))
    world.report(world.venue.fill(order_id, 10))
    assert "rejected" in world.state.node("venue", VENUE).tripped
    assert world.state.leg("A1", "S1", SYMBOL).position == 10


def test_bust_takes_back_and_the_lots_may_trade_again():
    world = World()
    order_id = world.work()
    world.report(world.venue.fill(order_id, 40, fee=7))
    world.report(world.venue.bust(order_id, "x1"))
    leg = world.state.leg("A1", "S1", SYMBOL)
    assert (leg.position, leg.cost, leg.realised) == (0, 0, 0) and reserved(world)[1] == 100
    assert world.state.all.traded_lots == 40  # the day's turnover is not given back
    world.report(world.venue.fill(order_id, 100))
    assert stage(world) == "done" and not world.state.node("venue", VENUE).tripped
    world.venue.orders[order_id].fills["x1"] = Filled(order_id=order_id, ts_ns=0, exec_id="x1", price_ticks=1, lots=1)
    world.report(world.venue.bust(order_id, "x1"))  # a second time: nothing
    assert leg.position == 100


def test_correction_replaces_what_an_execution_said():
    world = World()
    order_id = world.work()
    world.report(world.venue.fill(order_id, 40))
    world.report(Corrected(order_id=order_id, ts_ns=0, exec_id="x1", price_ticks=9_990, lots=50))
    leg = world.state.leg("A1", "S1", SYMBOL)
    assert (leg.position, leg.cost) == (50, 50 * 9_990 * TICK_VALUE) and reserved(world)[1] == 50
    assert world.state.all.traded_lots == 50
    world.report(Corrected(order_id=order_id, ts_ns=0, exec_id="x9", price_ticks=9_990, lots=50))
    assert "does not stand" in world.state.node("venue", VENUE).tripped


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_profit_realised_and_marked_is_exact(side):
    world = World()
    sign = 1 if side == "buy" else -1
    trades = [(sign * 7, 10_001), (sign * 6, 9_998), (-sign * 5, 10_007), (-sign * 11, 10_003), (sign * 3, 9_990)]
    cash = position = 0
    for lots, price in trades:
        order_id = world.work("buy" if lots > 0 else "sell", abs(lots), price)
        world.report(world.venue.fill(order_id, abs(lots), price, fee=3))
        cash -= lots * price * TICK_VALUE + 3
        position += lots
        node = world.state.all
        assert node.profit == cash + position * world.state.symbols[SYMBOL].mark * TICK_VALUE
    assert position == 0 and world.state.all.unrealised == 0 and world.state.all.realised == cash


def test_start_position_is_marked_at_the_close_and_profits_nothing():
    world = World(holdings=[Holding(account="A1", strategy="S1", symbol=SYMBOL, lots=-30)])
    assert world.state.all.profit == 0 and world.state.all.gross == 30 * 10_000 * TICK_VALUE
    world.see(9_900, 9_920)
    assert world.state.all.unrealised == 30 * 90 * TICK_VALUE


def test_position_beyond_int64_halts_and_nothing_of_the_fill_is_half_counted():
    from serving.gateway.events import Instrument

    instrument = Instrument(symbol=SYMBOL, tick_value=10**6, mark_ticks=10_000, adv_lots=10**9)
    world = World(instruments=(instrument,))
    order_id = world.work(lots=100)
    report = Filled(order_id=order_id, ts_ns=0, exec_id="big", price_ticks=10**12, lots=10**12)
    with pytest.raises(JournalError):
        world.report(report)
    assert world.state.leg("A1", "S1", SYMBOL).position == 0 and world.state.all.traded_lots == 0
    assert world.send().control in ("standing", "journal")


def test_money_is_checked_against_int64():
    assert checked(2**63 - 1) == 2**63 - 1 == worth(1, 2**63 - 1, 1)
    for wrong in (2**63, -(2**63)):
        with pytest.raises(MoneyOverflowError, match="int64"):
            checked(wrong)


def test_state_hash_tells_any_two_states_apart():
    world = World()
    seen = {world.state.hash()}
    for step in (
        lambda: world.send(key="a"),
        lambda: world.report(world.venue.ack(1)),
        lambda: world.report(world.venue.fill(1, 10)),
        lambda: world.submit(world.replace("a", 10_001, 90)),
        lambda: world.report(world.venue.replaced(1)),
        lambda: world.submit(world.cancel("a")),
        lambda: world.report(world.venue.cancelled(1)),
        lambda: world.gateway.halt("x", world.clock()),
    ):
        step()
        assert world.state.hash() not in seen
        seen.add(world.state.hash())


def test_peak_is_that_of_the_whole_book_and_not_of_a_mark_half_done():
    world = World()
    world.hold(100, strategy="S1")
    world.hold(-100, strategy="S2")
    for bid in (10_090, 9_890, 10_090):
        world.see(bid, bid + 20)
    assert world.state.all.unrealised == 0 and world.state.all.peak == 0
    assert world.state.node("strategy", "S1").peak == world.state.node("strategy", "S2").peak == 100 * 100 * TICK_VALUE
