"""After a restart: halted, compared with the venue and the drop copy, armed by a person, and nothing sent twice."""

import pytest
from gateway_world import ANN, SYMBOL, VENUE, World

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Filled
from serving.gateway.people import PersonError
from serving.gateway.recovery import OrderStatus, arm, reconcile


def crash(world):
    world.disk.crash()
    world.restart()
    world.see()
    return world.gateway


def compare(world, **changes):
    arguments = {
        "ask": world.venue.status,
        "open_at_venue": world.venue.open_ids(),
        "drop_copy": world.venue.drop_copy(),
        **changes,
    }
    return reconcile(world.gateway, now=world.clock(), **arguments)


def test_restart_is_halted_until_reconciled_and_armed_by_a_person():
    world = World()
    world.work(price=9_900)
    gateway = crash(world)
    assert world.send().control == "standing"
    with pytest.raises(ValueError, match="not reconciled"):
        arm(gateway, ANN, world.clock())
    assert compare(world) == ()
    assert world.send().control == "standing"
    with pytest.raises(PersonError):
        arm(gateway, "cron", world.clock())
    arm(gateway, ANN, world.clock())
    world.clock.pass_(2)
    world.see()
    assert type(world.send(price=9_901)) is Allowed


def test_order_that_never_left_is_released_and_never_sent_again():
    world = World()
    world.gateway.decide(world.order(key="a"), world.clock())
    world.gateway.journal.commit()  # durable, and then the process died before it sent
    crash(world)
    assert world.state.all.open_lots == 100
    assert compare(world) == ()
    assert world.state.orders[1].stage == "unsent" and world.state.all.open_lots == 0
    assert world.venue.log == []


def test_fills_acks_replaces_and_cancels_that_were_missed_are_caught_up():
    world = World()
    missed_fill = world.work(lots=100, price=9_900)
    world.venue.fill(missed_fill, 30, 9_900)
    missed_ack = world.send(price=9_901).order_id
    world.work(key="r", lots=100, price=9_902)
    world.submit(world.replace("r", 9_950, 120))
    world.venue.replaced(3)
    missed_end = world.work(lots=50, price=9_903)
    world.venue.fill(missed_end, 50, 9_903)
    unanswered = world.work(key="s", lots=100, price=9_904)
    world.submit(world.replace("s", 9_960, 120))
    crash(world)
    assert compare(world) == ()
    orders = world.state.orders
    assert (orders[missed_fill].filled, orders[missed_fill].stage) == (30, "working")
    assert orders[missed_ack].stage == "working"
    assert (orders[3].price_ticks, orders[3].lots, orders[3].stage) == (9_950, 120, "working")
    assert (orders[missed_end].filled, orders[missed_end].stage) == (50, "done")
    assert (orders[unanswered].price_ticks, orders[unanswered].lots, orders[unanswered].stage) == (
        9_904,
        100,
        "working",
    )
    assert world.state.leg("A1", "S1", SYMBOL).position == 80
    assert world.state.all.open_lots == 70 + 100 + 120 + 100


def test_order_at_the_venue_that_nobody_knows_is_cancelled_and_is_a_break():
    world = World()
    crash(world)
    breaks = compare(world, open_at_venue={VENUE: [77]})
    assert "holds order 77" in breaks[0]
    assert [message.order_id for message in world.venue.cancels()] == [77]
    with pytest.raises(ValueError, match="not reconciled"):
        arm(world.gateway, ANN, world.clock())


def test_order_that_the_venue_forgot_is_a_break():
    world = World()
    world.work(price=9_900)
    crash(world)
    assert "does not know order 1" in compare(world, ask=lambda venue, order_id: None)[0]


def test_venue_that_does_not_answer_is_a_break():
    world = World()
    world.work(price=9_900)
    crash(world)

    def silent(venue, order_id):
        raise TimeoutError("no answer")

    assert "does not answer" in compare(world, ask=silent)[0]


def test_filled_quantity_without_its_executions_is_a_break():
    world = World()
    world.work(price=9_900)
    crash(world)
    status = OrderStatus(order_id=1, is_open=True, price_ticks=9_900, lots=100, filled_lots=10)
    assert "filled with 0 lots here, 10 at venue" in compare(world, ask=lambda venue, order_id: status)[0]


def test_drop_copy_finds_what_the_venue_did_not_say():
    world = World()
    order_id = world.work(price=9_900)
    fill = Filled(order_id=order_id, ts_ns=0, exec_id="d1", price_ticks=9_900, lots=5)
    crash(world)
    assert compare(world, drop_copy=[(VENUE, fill)]) == ()
    assert world.state.leg("A1", "S1", SYMBOL).position == 5


def test_drop_copy_that_differs_lacks_or_is_missing_is_a_break():
    world = World()
    world.hold(100)
    (venue, fill) = world.venue.drop_copy()[0]
    crash(world)
    assert "not in the drop copy" in compare(world, drop_copy=[])[0]
    wrong = Filled(order_id=1, ts_ns=0, exec_id=fill.exec_id, price_ticks=fill.price_ticks + 1, lots=fill.lots)
    assert "in the drop copy" in compare(world, drop_copy=[(venue, wrong)])[0]
    assert "no drop copy" in compare(world, drop_copy=None)[0]
    assert compare(world) == ()


def test_clearers_positions_are_compared():
    world = World()
    world.hold(100)
    crash(world)
    assert "holds 100 lots of AIG here, 99 at the clearer" in compare(world, positions={("A1", SYMBOL): 99})[0]
    assert compare(world, positions={("A1", SYMBOL): 100}) == ()


def test_reserved_capacity_and_numbers_go_on_where_they_were():
    world = World()
    first = world.work(price=9_900)
    crash(world)
    compare(world)
    arm(world.gateway, ANN, world.clock())
    world.clock.pass_(2)
    world.see()
    second = world.send(price=9_901).order_id
    assert second > first and world.state.all.open_orders == 2


def test_crash_after_crash_comes_to_the_same_state():
    world = World()
    world.hold(100)
    world.work("sell", 40, 10_050)
    hashes = set()
    for _ in range(3):
        crash(world)
        compare(world)
        dump = world.state.dump()
        dump.scalars[0] = dump.scalars[2] = 0  # epoch and time go on
        hashes.add(repr(dump))
    assert len(hashes) == 1
