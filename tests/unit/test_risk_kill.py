"""The kill switch: latched, durable, cancels until confirmed; who may liquidate under it, and who may re-arm."""

import pytest
from gateway_world import ANN, BOB, EVE, SYMBOL, VENUE, World

from serving.contracts.decisions import Allowed, Denied
from serving.gateway.kill import LIQUIDATION_LASTS_NS, kill, order_liquidation, rearm
from serving.gateway.live import SECOND_NS
from serving.gateway.people import PersonError
from serving.gateway.recovery import reconcile

SCOPES = [("all", ""), ("venue", VENUE), ("account", "A1"), ("strategy", "S1"), ("symbol", SYMBOL)]


def stop(world, scope="all", name=""):
    return kill(world.watch, scope, name, EVE, "test", world.clock())


def compare(world):
    return reconcile(world.gateway, world.venue.status, world.venue.open_ids(), world.venue.drop_copy(), world.clock())


def confirm(world):
    for message in world.venue.cancels():
        if world.venue.orders[message.order_id].is_open:
            world.report(world.venue.cancelled(message.order_id))


@pytest.mark.parametrize(("scope", "name"), SCOPES)
def test_kill_stops_its_scope_and_cancels_what_is_open_there(scope, name):
    world = World()
    order_id = world.work(price=9_900)
    answer = stop(world, scope, name)
    assert answer == (True, True, 1, "blocked, flushed")
    denied = world.send()
    assert type(denied) is Denied and denied.control == "kill_switch"
    assert [message.order_id for message in world.venue.cancels()] == [order_id]
    if scope not in ("all", "venue"):
        assert type(world.send(account="A2", strategy="S3", symbol="MSFT")) is Allowed


@pytest.mark.parametrize(("scope", "name"), [("everything", ""), ("all", "x"), ("venue", ""), ("", "")])
def test_kill_of_what_is_no_scope_raises(scope, name):
    with pytest.raises(ValueError, match="scope"):
        stop(World(), scope, name)


def test_kill_needs_no_known_name():
    world = World()
    assert stop(world, "strategy", "S77").persisted
    assert type(world.send()) is Allowed


def test_kill_survives_a_restart():
    world = World()
    stop(world)
    world.disk.crash()
    world.restart()
    world.see()
    compare(world)
    assert world.state.all.killed and type(world.send()) is Denied


def test_what_was_decided_and_has_not_left_stays():
    world = World()
    decision = world.gateway.decide(world.order(), world.clock())
    assert type(decision) is Allowed
    stop(world)
    assert world.venue.news() == []
    order = world.state.orders[decision.order_id]
    assert order.stage == "unsent" and world.state.all.open_lots == 0


def test_kill_cancels_until_the_venue_confirms():
    world = World()
    order_id = world.work(price=9_900)
    stop(world)
    for seconds, cancels in ((0.5, 1), (0.5, 2), (0.9, 2), (0.1, 3)):
        world.clock.pass_(seconds)
        world.watch.tick(world.clock())
        world.gateway.commit(world.clock())
        assert len(world.venue.cancels()) == cancels
    world.report(world.venue.cancel_rejected(order_id))
    world.watch.tick(world.clock())
    world.clock.pass_(1)
    world.watch.tick(world.clock())
    world.gateway.commit(world.clock())
    assert len(world.venue.cancels()) == 4
    confirm(world)
    world.clock.pass_(5)
    world.watch.tick(world.clock())
    world.gateway.commit(world.clock())
    assert len(world.venue.cancels()) == 4


def test_kill_cancels_although_the_clients_cancel_capacity_is_used_up():
    from gateway_world import limits_of

    world = World(limits_of(max_cancels_per_second=0))
    for price in range(9_900, 9_950):
        world.work(price=price)
    stop(world)
    assert len(world.venue.cancels()) == 50


def test_kill_without_the_barrier_says_not_flushed():
    world = World()
    world.venue.reachable = False
    assert stop(world).message == "blocked, not flushed"
    world.venue.barrier = lambda: 1 / 0
    assert stop(world).message == "blocked, not flushed"


def test_fill_during_a_kill_is_counted():
    world = World()
    order_id = world.work(lots=100, price=9_900)
    stop(world)
    world.report(world.venue.fill(order_id, 40, 9_900))
    world.report(world.venue.cancelled(order_id))
    assert world.state.leg("A1", "S1", SYMBOL).position == 40 and world.state.all.open_lots == 0


def test_liquidation_takes_two_people_and_passes_reduce_only_orders_alone():
    world = World()
    world.hold(100)
    stop(world)
    assert world.send("sell", 100, 10_000, reduce_only=True).control == "kill_switch"
    assert not order_liquidation(world.gateway, "all", "", ANN, world.clock())
    with pytest.raises(PersonError):
        order_liquidation(world.gateway, "all", "", "cn=ANN,o=risk", world.clock())
    assert world.send("sell", 100, 10_000, reduce_only=True).control == "kill_switch"
    assert order_liquidation(world.gateway, "all", "", BOB, world.clock())
    assert world.send("sell", 100, 10_000).control == "kill_switch"
    assert world.send("sell", 101, 10_000, reduce_only=True).control == "reduce_only"
    allowed = world.send("sell", 100, 10_000, reduce_only=True)
    assert type(allowed) is Allowed
    world.report(world.venue.ack(allowed.order_id))
    world.watch.tick(world.clock())
    world.gateway.commit(world.clock())
    assert world.venue.cancels() == []  # a liquidation's order is not swept away


def test_liquidation_of_each_killed_scope_must_be_ordered():
    world = World()
    world.hold(100)
    stop(world)
    stop(world, "strategy", "S1")
    for who in (ANN, BOB):
        order_liquidation(world.gateway, "all", "", who, world.clock())
    assert world.send("sell", 10, 10_000, reduce_only=True).control == "kill_switch"


def test_liquidation_expires_and_a_second_kill_ends_it():
    world = World()
    world.hold(100)
    stop(world)
    for who in (ANN, BOB):
        order_liquidation(world.gateway, "all", "", who, world.clock())
    stop(world)
    assert world.send("sell", 10, 10_000, reduce_only=True).control == "kill_switch"
    for who in (ANN, BOB):
        order_liquidation(world.gateway, "all", "", who, world.clock())
    world.clock.pass_(LIQUIDATION_LASTS_NS / SECOND_NS)
    world.watch.tick(world.clock())
    world.see()
    assert world.send("sell", 10, 10_000, reduce_only=True).control == "kill_switch"


def test_liquidation_where_nothing_is_killed_raises():
    with pytest.raises(ValueError, match="not killed"):
        order_liquidation(World().gateway, "all", "", ANN, World().clock())


def test_liquidation_does_not_outlive_a_restart():
    world = World()
    stop(world)
    for who in (ANN, BOB):
        order_liquidation(world.gateway, "all", "", who, world.clock())
    world.disk.crash()
    world.restart()
    assert world.state.all.killed and not world.state.all.liquidating


def test_rearming_takes_a_person_a_reconciled_book_and_no_open_order():
    world = World()
    world.work(price=9_900)
    stop(world)
    with pytest.raises(ValueError, match="not confirmed"):
        rearm(world.gateway, "all", "", ANN, world.clock())
    confirm(world)
    with pytest.raises(ValueError, match="not reconciled"):
        rearm(world.gateway, "all", "", ANN, world.clock())
    assert compare(world) == ()
    with pytest.raises(PersonError):
        rearm(world.gateway, "all", "", "model-7", world.clock())
    assert type(world.send()) is Denied
    rearm(world.gateway, "all", "", ANN, world.clock())
    assert type(world.send()) is Allowed
    with pytest.raises(ValueError, match="not killed"):
        rearm(world.gateway, "all", "", ANN, world.clock())


def test_rearming_one_scope_leaves_the_others_killed():
    world = World()
    stop(world)
    stop(world, "strategy", "S1")
    compare(world)
    rearm(world.gateway, "all", "", ANN, world.clock())
    assert world.send().control == "kill_switch"
    assert type(world.send(strategy="S2")) is Allowed
