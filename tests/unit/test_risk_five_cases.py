"""Five orders that a well-known engine lets through, each denied here by the control that it is meant for."""

from gateway_world import ASK, SYMBOL, TICK_VALUE, World, limits_of

from serving.gateway.events import Holding


def assert_denied(decision, control, world):
    assert getattr(decision, "control", None) == control, decision
    assert world.venue.log == []


def test_reduce_only_order_of_500_times_the_position_is_denied():
    world = World(holdings=[Holding(account="A1", strategy="S1", symbol=SYMBOL, lots=10)])
    assert_denied(world.send("sell", 5_000, 10_000, reduce_only=True), "reduce_only", world)


def test_reduce_only_order_when_flat_is_denied():
    for side in ("buy", "sell"):
        world = World()
        assert_denied(world.send(side, 1, 10_000, reduce_only=True), "reduce_only", world)


def test_market_order_over_the_notional_limit_without_a_quote_is_denied():
    world = World(limits_of(max_order_value=100 * ASK * TICK_VALUE))
    world.gateway.live.market("SIM", SYMBOL).lose()
    assert_denied(world.send("buy", 1_000, 0), "reference", world)
    world.see()
    assert_denied(world.send("buy", 1_000, 0), "order_value", world)


def test_limit_order_over_the_notional_limit_without_an_account_is_denied():
    world = World(limits_of(max_order_value=100 * ASK * TICK_VALUE))
    assert_denied(world.send("buy", 1_000, 10_000, account="NONE"), "identity", world)
    assert_denied(world.send("buy", 1_000, 10_000), "order_value", world)


def test_buying_at_ten_times_the_market_is_denied():
    world = World()
    assert_denied(world.send("buy", 1, 10 * ASK), "collar", world)
