"""What a hostile trader, or a venue that errs in his favour, tries against the controls: each way past one was open."""

import asyncio

import pytest
from gateway_world import ANN, BOB, CLOSES_NS, DAY, INSTRUMENTS, OPENS_NS, SYMBOL, TICK_VALUE, VENUE, World, limits_of

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import Acked, Corrected, Filled
from serving.gateway.day import end_day, start_day
from serving.gateway.kill import LIQUIDATION_LASTS_NS, enable, kill, order_liquidation
from serving.gateway.live import SECOND_NS
from serving.gateway.reconciling import Reconciler
from serving.wire.fix_reports import Answer
from serving.wire.messages import OrderState


def assert_denied(decision, control):
    assert type(decision) is Denied and decision.control == control, decision


def next_day(world, opens=OPENS_NS + 24 * 3600 * SECOND_NS):
    """End the day and begin the next one a second ago, armed and with fresh quotes."""
    end_day(world.gateway, world.clock())
    world.clock.pass_((opens + SECOND_NS - world.clock.utc_ns) / SECOND_NS)
    day = f"{DAY[:-1]}{int(DAY[-1]) + 1}"
    start_day(world.gateway, day, opens, opens + CLOSES_NS - OPENS_NS, INSTRUMENTS, world.clock())
    world.see()


def test_rejects_when_an_order_in_flight_is_acknowledged_after_the_last_one_then_a_person_is_still_needed():
    world = World(limits_of(max_venue_rejects=2))
    first, second, third = (world.send(lots=lots).order_id for lots in (1, 2, 3))
    world.report(world.venue.reject(first))
    world.report(world.venue.reject(second))
    assert_denied(world.send(lots=4), "venue_rejects")
    world.report(world.venue.ack(third))
    assert_denied(world.send(lots=4), "venue_rejects")
    for scope, name in (("venue", VENUE), ("strategy", "S1")):
        enable(world.gateway, scope, name, ANN, world.clock())
    assert type(world.send(lots=4)) is Allowed


def test_rejects_that_stop_a_narrow_scope_do_not_end_with_another_scopes_acknowledgement():
    world = World(limits_of(max_venue_rejects=10, scopes={"symbol": {SYMBOL: {"max_venue_rejects": 1}}}))
    other = world.send(symbol="MSFT").order_id
    world.report(world.venue.reject(world.send().order_id))
    assert_denied(world.send(), "venue_rejects")
    world.report(world.venue.ack(other))
    assert_denied(world.send(), "venue_rejects")


def test_throttle_and_rejects_when_a_new_day_begins_then_a_person_is_still_needed():
    for limit, control in (("max_repeated_orders", "repeated"), ("max_venue_rejects", "venue_rejects")):
        world = World(limits_of(**{limit: 1}))
        world.report(world.venue.reject(world.send(lots=1).order_id))
        assert_denied(world.send(lots=2), control)
        next_day(world)
        assert_denied(world.send(lots=2), control)


def test_acknowledgement_of_an_order_that_never_left_stops_the_venue_and_halts_until_the_book_agrees():
    world = World()
    world.gateway.decide(world.order(), world.clock())
    world.clock.pass_(2)  # too old to leave
    world.gateway.commit(world.clock())
    assert world.state.orders[1].stage == "unsent" and world.venue.log == []
    world.report(Acked(order_id=1, ts_ns=0))
    assert "unsent" in world.state.node("venue", VENUE).tripped
    world.see()
    enable(world.gateway, "venue", VENUE, ANN, world.clock())
    assert_denied(world.send(), "standing")


def test_execution_number_of_a_busted_trade_with_other_contents_stops_the_venue():
    world = World()
    order_id = world.work()
    fill = world.venue.fill(order_id, 40)
    world.report(fill)
    world.report(world.venue.bust(order_id, fill.exec_id))
    world.report(fill)
    assert not world.state.node("venue", VENUE).tripped  # an echo of what was taken back
    world.report(Filled(order_id=order_id, ts_ns=0, exec_id=fill.exec_id, price_ticks=10_000, lots=60))
    assert "different contents" in world.state.node("venue", VENUE).tripped


def test_turnover_of_a_correction_counts_what_is_more_and_is_never_given_back():
    world = World()
    order_id = world.work("sell", 100, 9_900)
    world.report(world.venue.fill(order_id, 100, 9_900))
    lots, value = 100, 100 * 9_900
    for price, now_lots, more in ((10_000, 100, 100 * 100), (10_000, 90, 0), (10_010, 95, 95 * 10_010 - 90 * 10_000)):
        world.report(Corrected(order_id=order_id, ts_ns=0, exec_id="x1", price_ticks=price, lots=now_lots))
        value += more
        lots += 5 if now_lots == 95 else 0
        node = world.state.all
        assert (node.traded_lots, node.traded_value) == (lots, value * TICK_VALUE)


def test_request_of_yesterday_when_the_days_follow_at_once_is_not_taken_for_a_new_one():
    world = World()
    world.clock.pass_((CLOSES_NS - 2 * SECOND_NS - world.clock.utc_ns) / SECOND_NS)
    world.see()
    request = world.order()
    world.submit(request)
    world.report(world.venue.cancelled(1))
    next_day(world, CLOSES_NS)
    assert world.clock.utc_ns - request.sent_ns < world.state.limits.numbers["all", ""]["max_request_age_ns"]
    assert_denied(world.submit(request), "request_age")
    assert len(world.venue.news()) == 1
    assert type(world.send(sent_ns=CLOSES_NS)) is Allowed


def test_liquidation_when_the_first_order_for_it_expired_before_the_second_came_then_it_is_one_person():
    world = World()
    world.hold(100)
    kill(world.watch, "all", "", ANN, "test", world.clock())
    order_liquidation(world.gateway, "all", "", ANN, world.clock())
    world.clock.pass_(LIQUIDATION_LASTS_NS / SECOND_NS)  # and no tick came since
    assert not order_liquidation(world.gateway, "all", "", BOB, world.clock())
    world.see()
    assert_denied(world.send("sell", 100, reduce_only=True), "kill_switch")
    assert order_liquidation(world.gateway, "all", "", ANN, world.clock())


def test_rebate_beyond_what_was_traded_stops_the_venue():
    value = 100 * 10_000 * TICK_VALUE
    for fee, true in ((-value, True), (-value - 1, False)):
        world = World()
        world.report(world.venue.fill(world.work(), 100, fee=fee))
        assert (not world.state.node("venue", VENUE).tripped) == true


class VenueOfReconciler:
    """What `Reconciler` needs of a session and a drop copy: answers at once, and then something happens."""

    name = "SIM"

    def __init__(self, world, then):
        self.world, self.then, self.strangers = world, then, {}

    def ask_open(self, request):
        open_orders = [(i, order) for i, order in self.world.venue.orders.items() if order.is_open]
        for order_id, order in open_orders:
            state = OrderState(
                str(order_id), "V1", SYMBOL, order.side, "new", order.price, order.lots, order.filled,
                order.lots - order.filled,
            )  # fmt: skip
            self.reconciler.take(VENUE, Answer(order_id, order_id, None, state, True, request), len(open_orders))

    def is_caught_up(self, limit_s):
        self.then()
        return True

    def fills(self):
        return [fill for _, fill in self.world.venue.drop_copy()]


def reconcile_while(world, then, monkeypatch):
    """What a reconciliation finds while `then` happens after the venue's answer."""
    monkeypatch.setattr("serving.gateway.reconciling.read_now", world.clock)
    session = VenueOfReconciler(world, then)
    session.reconciler = Reconciler(world.gateway, {VENUE: session}, {VENUE: session}, 1.0, lambda: 0)
    return asyncio.run(session.reconciler.run())


@pytest.mark.parametrize("answered", [True, False])
def test_replace_during_a_reconciliation_keeps_what_it_reserves(answered, monkeypatch):
    """The venue listed its orders before the replace: another scope is compared while this one trades on."""
    world = World(limits_of(max_position_lots=200))
    world.work(key="a", lots=100)

    def replace():
        world.submit(world.replace("a", 10_000, 150))
        if answered:
            world.report(world.venue.replaced(1))

    assert reconcile_while(world, replace, monkeypatch) == ()
    assert world.state.open_orders[1].open_lots == 150 and not world.state.node("venue", VENUE).tripped
    assert_denied(world.send(lots=51), "position")


def test_reconciliation_settles_a_replace_that_was_pending_when_the_venue_was_asked(monkeypatch):
    world = World()
    world.work(key="a", lots=100)
    world.submit(world.replace("a", 10_000, 150))
    world.venue.orders[1].price, world.venue.orders[1].lots = 10_000, 150  # followed, and the answer was lost
    assert reconcile_while(world, lambda: None, monkeypatch) == ()
    assert (world.state.orders[1].lots, world.state.orders[1].new_lots) == (150, 0)
