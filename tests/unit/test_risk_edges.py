"""The last lot, tick and minor unit: what one changed comparison of a control (`make mutants`) would let through."""

from gateway_world import BID, SYMBOL, TICK_VALUE, VENUE, World, limits_of
from test_risk_controls import assert_allowed, assert_denied

from serving.gateway.events import Holding, Instrument, Locate
from serving.gateway.live import SECOND_NS

CHEAP = (Instrument(symbol=SYMBOL, tick_value=1, mark_ticks=10_000, adv_lots=10**6),)


def loosened(world, limits):
    """Let a world that holds something have other limits, past its full windows."""
    world.set_limits(limits)
    world.clock.pass_(2)
    world.see()


def test_day_value_when_a_replace_adds_a_single_minor_unit_then_denies():
    world = World(limits_of(max_day_value=10_020), instruments=CHEAP)
    world.work(key="a", lots=1, price=10_020)
    assert_denied(world.submit(world.replace("a", 10_021, 1)), "day_turnover", 10_021, 10_020)
    assert_allowed(world.submit(world.replace("a", 10_019, 1)))


def test_day_lots_when_they_were_lowered_then_a_dearer_replace_passes_and_one_lot_more_does_not():
    world = World()
    world.work(key="a", lots=10, price=10_020)
    loosened(world, limits_of(max_day_lots=5))
    assert_denied(world.submit(world.replace("a", 10_021, 11)), "day_turnover", 11, 5)
    assert_allowed(world.submit(world.replace("a", 10_021, 10)))


def test_gross_of_a_single_minor_unit_is_counted_on_either_side():
    for side in ("buy", "sell"):
        world = World(limits_of(max_gross_value=0, drift_collar_bps=10_000), instruments=CHEAP)
        world.see(1, 1)
        assert world.state.symbols[SYMBOL].mark == 1
        assert_denied(world.send(side, 1, 1), "gross_net", 1, 0)


def test_increments_when_a_replace_is_below_what_is_filled_then_names_both():
    world = World()
    world.work(key="a", lots=100)
    world.report(world.venue.fill(1, 60))
    assert_denied(world.submit(world.replace("a", 10_000, 50)), "increments", 50, 60)


def test_locate_of_a_single_share_held_and_of_none():
    located = [Locate(account="A1", symbol=SYMBOL, lots=100)]
    assert_denied(World(locates=located).send("sell", 101), "locate", 101, 100)
    assert_allowed(World(locates=located).send("sell", 100))
    one = [Holding(account="A1", strategy="S1", symbol=SYMBOL, lots=1)]
    assert_denied(World(locates=located, holdings=one).send("sell", 102), "locate", 101, 100)
    assert_allowed(World(locates=located, holdings=one).send("sell", 101))


def test_locate_when_a_bust_used_up_more_than_is_located_then_what_is_held_may_still_be_sold():
    world = World(locates=[Locate(account="A1", symbol=SYMBOL, lots=100)])
    world.hold(50, price=9_990)
    world.hold(-150)
    world.report(world.venue.bust(1, "x1"))
    assert world.state.exposure("account", "A1", SYMBOL).sold_short == 150
    world.hold(200)
    assert_allowed(world.send("sell", 50, 10_050))
    assert_denied(world.send("sell", 1, 10_060), "locate", 151, 100)


def test_locate_when_a_bust_leaves_an_open_sale_short_then_another_price_passes():
    world = World(locates=[Locate(account="A1", symbol=SYMBOL, lots=100)])
    world.hold(50)
    world.work("sell", 150, 10_050, key="a")
    world.report(world.venue.bust(1, "x1"))
    assert_denied(world.submit(world.replace("a", 10_060, 151)), "locate", 151, 100)
    assert_allowed(world.submit(world.replace("a", 10_060, 150)))


def test_drawdown_names_how_far_profit_is_below_its_best():
    world = World(limits_of(max_drawdown=99_999, max_loss=10**9))
    world.hold(100)
    world.see(10_090, 10_110)
    world.see(9_980, 10_000)
    assert_denied(world.send(), "loss", 110 * 100 * TICK_VALUE, 99_999)


def test_open_orders_when_they_are_all_there_may_be_then_a_replace_passes():
    world = World(limits_of(max_open_orders=1))
    world.work(key="a", price=9_900)
    assert_denied(world.send(), "open_orders", 2, 1)
    assert_allowed(world.submit(world.replace("a", 9_910, 100)))


def test_reduce_only_when_one_is_on_its_way_out_then_an_ordinary_order_may_change_its_price():
    world = World()
    world.hold(50)
    world.hold(50)
    reducing = world.work("sell", 60, 10_050, reduce_only=True)
    world.work("sell", 40, 10_050, key="a")
    world.report(world.venue.bust(2, "x2"))
    assert [message.order_id for message in world.venue.cancels()] == [reducing]  # not confirmed yet
    assert_denied(world.submit(world.replace("a", 10_060, 41)), "reduce_only", 1, 0)
    assert_allowed(world.submit(world.replace("a", 10_060, 40)))


def test_reference_when_it_is_lost_then_says_that_there_is_none():
    world = World()
    world.see(BID + 100, BID)  # crossed
    assert "no reference price" in assert_denied(world.send(), "reference").message


def test_reference_when_the_feed_lags_then_names_the_venue():
    world = World()
    world.gateway.live.feed(VENUE).lag_ns = SECOND_NS + 1
    assert f"the feed of {VENUE} is" in assert_denied(world.send(), "reference", SECOND_NS + 1, SECOND_NS).message


def test_self_match_names_the_price():
    world = World()
    world.work("sell", 10, 10_005)
    assert assert_denied(world.send("buy", price=10_005), "self_match").value == 10_005
    assert assert_denied(world.send("buy", price=0), "self_match").value is None


def test_unacknowledged_when_an_older_message_was_answered_then_the_next_counts_to_the_nanosecond():
    world = World(limits_of(max_unacknowledged_ns=SECOND_NS))
    first = assert_allowed(world.send(lots=1)).order_id
    world.clock.pass_(0.5)
    assert_allowed(world.send(lots=2))
    world.report(world.venue.ack(first))
    world.clock.pass_(1)
    assert_allowed(world.send(lots=3))
    world.clock.mono_ns += 1
    assert_denied(world.send(lots=4), "unacknowledged", SECOND_NS + 1, SECOND_NS)


def test_clock_when_it_is_behind_then_denies_as_when_it_is_ahead():
    for sign in (1, -1):
        world = World()
        world.watch.clock_offset(sign * 10_000_001, world.clock())
        assert_denied(world.send(), "clock", 10_000_001, 10_000_000)
        world.watch.clock_offset(sign * 10_000_000, world.clock())
        assert_allowed(world.send())


def test_drift_collar_below_the_market_of_a_while_ago():
    world = World(limits_of(collar_bps=500, drift_collar_bps=300))
    assert_denied(world.send("sell", price=9_699), "drift_collar", 301, 300)
    assert_allowed(world.send("sell", price=9_700))


def test_replace_pending_while_the_venue_has_not_answered_a_replace_or_a_cancel():
    world = World()
    world.work(key="a", lots=10)
    assert_allowed(world.submit(world.replace("a", 10_000, 11)))
    assert "pending replace" in assert_denied(world.submit(world.replace("a", 10_000, 12)), "replace_pending").message
    world.report(world.venue.replaced(1))
    assert_allowed(world.submit(world.replace("a", 10_000, 12)))
    world.report(world.venue.replaced(1))
    assert_allowed(world.submit(world.cancel("a")))
    assert "pending cancel" in assert_denied(world.submit(world.replace("a", 10_000, 13)), "replace_pending").message
    world.report(world.venue.cancel_rejected(1))
    assert_allowed(world.submit(world.replace("a", 10_000, 13)))


def test_venue_rejects_of_several_strategies_add_up_at_the_venue():
    world = World(limits_of(max_venue_rejects=2))
    for strategy in ("S1", "S2"):
        world.report(world.venue.reject(assert_allowed(world.send(strategy=strategy)).order_id))
    denied = assert_denied(world.send(account="A2", strategy="S3"), "venue_rejects", 2, 2)
    assert f"at venue {VENUE}" in denied.message
