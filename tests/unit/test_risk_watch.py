"""What the gateway does by itself: cancels of the silent and the gone, marks, vetoes at the last line, halts."""

import pytest
from gateway_world import ACCOUNT, STRATEGY, SYMBOL, TICK_VALUE, VENUE, World, limits_of

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Acked, Cancelled, ContractError
from serving.gateway.kill import stop
from serving.gateway.live import SECOND_NS


def tick(world):
    world.watch.tick(world.clock())
    world.gateway.commit(world.clock())


def test_dead_man_when_a_strategy_falls_silent_then_its_orders_are_cancelled():
    world = World()
    mine, other = world.work(price=9_900), world.work(price=9_900, strategy="S2")
    world.clock.pass_(10)
    world.see(strategies=("S2",))
    tick(world)
    assert world.venue.cancels() == []
    world.clock.mono_ns += 1
    tick(world)
    assert [message.order_id for message in world.venue.cancels()] == [mine]
    assert other in world.state.open_orders


def test_disconnect_cancels_at_once():
    world = World()
    mine = world.work(price=9_900)
    world.work(price=9_900, strategy="S2")
    world.watch.disconnected("S1", world.clock())
    world.gateway.commit(world.clock())
    assert [message.order_id for message in world.venue.cancels()] == [mine]


def _strike_the_strategy(world):
    world.set_limits(limits_of(accounts={ACCOUNT: ["S2", "S3"]}))


@pytest.mark.parametrize(
    "happen",
    [
        lambda world: stop(world.gateway, "symbol", SYMBOL, "ann", "", world.clock()),
        lambda world: setattr(world.gateway.live.beat(STRATEGY), "connected", False),
        lambda world: world.clock.pass_(11),
        lambda world: world.clock.pass_(20 * 3600),
        lambda world: setattr(world.gateway, "broken", "a disk"),
        _strike_the_strategy,
    ],
    ids=["killed", "disconnected", "silent", "closed", "broken", "struck"],
)
def test_tick_that_found_all_well_still_sees_what_happens_later(happen):
    world = World()
    mine = world.work(price=9_900)
    for _ in range(3):
        tick(world)
    assert world.venue.cancels() == []
    happen(world)
    world.watch.tick(world.clock())
    if not world.gateway.broken:
        world.gateway.commit(world.clock())
    assert [message.order_id for message in world.venue.cancels()] == [mine]


def test_disconnect_cancels_while_halted_too_and_a_restart_alone_does_not():
    world = World()
    world.work(price=9_900)
    world.disk.crash()
    world.restart()
    tick(world)
    assert world.venue.cancels() == []
    world.see()
    world.watch.disconnected("S1", world.clock())
    world.gateway.commit(world.clock())
    assert len(world.venue.cancels()) == 1


def test_strategy_that_does_not_come_back_before_arming_loses_its_orders():
    world = World()
    world.work(price=9_900)
    world.disk.crash()
    world.restart()
    world.see(strategies=("S2",))
    world.reconcile_and_arm()
    tick(world)
    assert len(world.venue.cancels()) == 1


def test_end_of_the_trading_day_cancels_and_stays_ended_when_the_clock_goes_back():
    world = World()
    world.work(price=9_900)
    ahead = world.state.closes_ns - world.clock.utc_ns
    world.clock.utc_ns += ahead
    tick(world)
    assert len(world.venue.cancels()) == 1
    world.clock.utc_ns -= ahead
    world.see()
    assert world.send().control == "session"
    world.report(world.venue.cancelled(1))
    world.disk.crash()
    world.restart()
    world.see()
    world.reconcile_and_arm()
    world.clock.pass_(2)
    world.see()
    assert world.send().control == "session"


def test_monotonic_clock_that_jumps_back_reopens_no_window():
    world = World(limits_of(max_messages_per_second=1, duplicate_window_ns=10 * SECOND_NS))
    assert world.send().control == "duplicate"  # young process: any order may be the second
    world.clock.pass_(8)
    world.see()
    assert type(world.send()) is Allowed
    world.clock.mono_ns -= 100 * SECOND_NS
    assert world.send().control in ("duplicate", "clock")
    assert world.send(lots=7).control == "message_rate"


def test_windows_are_full_after_a_restart():
    world = World(limits_of(max_messages_per_second=5))
    world.disk.crash()
    world.restart()
    world.see()
    world.reconcile_and_arm()
    assert world.send().control == "message_rate"
    world.clock.pass_(1)
    assert type(world.send()) is Allowed


def test_marks_follow_the_feed_at_once_when_it_moves_and_else_by_the_second():
    world = World()
    world.hold(100)
    world.see(9_992, 10_012)  # 2 bps
    assert world.state.all.unrealised == 0
    tick(world)
    assert world.state.all.unrealised == 100 * 2 * TICK_VALUE
    world.see(10_090, 10_110)
    assert world.state.all.unrealised == 100 * 100 * TICK_VALUE == world.state.all.peak


def test_veto_holds_back_what_is_too_old_when_it_comes_to_leave():
    world = World()
    decision = world.gateway.decide(world.order(key="a"), world.clock())
    world.clock.pass_(1.1)
    world.gateway.commit(world.clock())
    assert world.venue.log == []
    assert world.state.orders[decision.order_id].stage == "unsent"
    assert world.state.all.open_orders == 0
    assert world.submit(world.cancel("a")).control == "order"


def test_veto_holds_back_a_replace_and_the_order_stays_as_it_was():
    world = World()
    world.work(key="a", lots=10, price=9_900)
    world.gateway.decide(world.replace("a", 9_950, 50), world.clock())
    assert world.state.all.open_lots == 50
    world.gateway.halt("test", world.clock())
    world.gateway.commit(world.clock())
    assert len(world.venue.log) == 1 and world.state.all.open_lots == 10
    assert world.state.open_orders[1].stage == "working"


def test_order_and_its_cancel_in_one_group_leave_nothing_at_the_venue():
    world = World()
    world.gateway.decide(world.order(key="a"), world.clock())
    world.gateway.decide(world.cancel("a"), world.clock())
    world.gateway.commit(world.clock())
    assert world.venue.log == [] and world.state.all.open_orders == 0


def test_transport_that_raises_halts_and_the_order_counts_as_sent():
    world = World()
    world.venue.fails = ConnectionError("gone")
    decision = world.send()
    assert type(decision) is Allowed
    assert "gone" in world.state.halted and world.state.all.open_lots == 100
    world.venue.fails = None
    assert world.send().control == "standing"
    assert world.venue.log == []  # nobody knows whether it left: it is never sent again


def test_listener_that_raises_halts():
    world = World()

    def broken(event):
        raise RuntimeError("listener")

    world.gateway._listener = broken
    order = world.order()
    assert world.submit(order).control == "journal"
    world.gateway._listener = None
    assert world.send().control == "journal"
    assert world.venue.log == []
    world.disk.crash()
    world.restart()  # what was denied because of it is not allowed on the disk
    assert ("A1", "S1", order.key) not in world.state.keys


def test_report_that_cannot_be_followed_halts_and_never_raises():
    world = World()
    world.gateway.on_report(VENUE, object(), world.clock())
    assert world.gateway.broken or world.state.halted
    assert world.send().control in ("standing", "journal")


def test_request_of_another_type_halts_nothing_leaves():
    world = World()

    class Fake:
        key, account, strategy, algorithm, trader = "k", ACCOUNT, STRATEGY, "a", "t"

    assert world.submit(Fake()).control == "gateway"
    assert world.send().control == "standing" and world.venue.log == []


def test_report_of_an_order_that_was_never_sent_stops_the_venue():
    world = World()
    for report in (Acked(order_id=99, ts_ns=1), Cancelled(order_id=99, ts_ns=1)):
        world.report(report)
    assert world.send().control == "false_fills"


@pytest.mark.parametrize(
    "quote", [(0, 5), (-1, 5), (5.0, 6), (float("nan"), 6), (True, 5), (None, 5), (5, 10**13), ("5", 6)]
)
def test_feed_when_a_price_is_none_then_there_is_no_reference(quote):
    world = World()
    with pytest.raises(ContractError):
        world.watch.quote(VENUE, SYMBOL, *quote, world.clock())
    assert world.send().control == "reference"


@pytest.mark.parametrize("volume", [-1, 1.5, True, None, 10**13])
def test_feed_when_a_volume_is_none_then_it_raises(volume):
    with pytest.raises(ContractError):
        World().watch.volume(VENUE, SYMBOL, volume)
