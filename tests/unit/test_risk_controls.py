"""Each control at its limit, and one beyond it: what is exactly at a limit passes."""

import pytest
from gateway_world import ASK, BID, SYMBOL, TICK_VALUE, VENUE, World, limits_of

from serving.contracts.decisions import Allowed, Denied
from serving.gateway.controls import registry
from serving.gateway.events import Holding, Instrument, Locate
from serving.gateway.kill import enable
from serving.gateway.live import SECOND_NS
from serving.gateway.people import PersonError


def assert_allowed(decision):
    assert type(decision) is Allowed, decision
    return decision


def assert_denied(decision, control, value=None, limit=None):
    assert type(decision) is Denied and decision.control == control, decision
    if value is not None:
        assert (decision.value, decision.limit) == (value, limit)
    assert decision.message and decision.algorithm == "twap" and decision.trader == "ann"
    return decision


def test_gateway_when_all_is_well_then_allows_and_sends_once():
    world = World()
    decision = assert_allowed(world.send())
    assert [message.order_id for message in world.venue.log] == [decision.order_id]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"venue": "XXX"}, "venue XXX"),
        ({"account": "A9"}, "account A9"),
        ({"strategy": "S9"}, "strategy S9"),
        ({"account": "A2"}, "strategy S1 may not trade for account A2"),
        ({"symbol": "ZZZ"}, "symbol ZZZ"),
    ],
)
def test_identity_when_something_is_unknown_or_does_not_belong_then_denies(changes, words):
    assert words in assert_denied(World().send(**changes), "identity").message


def test_order_lots_at_the_limit_of_the_tightest_scope():
    scopes = {"strategy": {"S1": {"max_order_lots": 50}}, "symbol": {SYMBOL: {"max_order_lots": 80}}}
    world = World(limits_of(scopes=scopes, max_order_lots=60))
    assert_allowed(world.send(lots=50))
    denied = assert_denied(world.send(lots=51), "order_lots", 51, 50)
    assert "quantity 51 lots exceeds max_order_lots 50 (symbol AIG)" in denied.message
    assert_allowed(world.send(lots=60, strategy="S2"))
    assert_denied(world.send(lots=61, strategy="S2"), "order_lots", 61, 60)


def test_order_adv_at_the_limit():
    instrument = Instrument(symbol=SYMBOL, tick_value=TICK_VALUE, mark_ticks=10_000, adv_lots=1_999)
    world = World(limits_of(max_order_adv_bps=100), instruments=(instrument,))
    assert_allowed(world.send(lots=19))
    assert_denied(world.send(lots=20), "order_adv", 20, 19)


def test_order_value_at_the_limit_takes_the_dearer_of_price_and_reference():
    world = World(limits_of(max_order_value=100 * ASK * TICK_VALUE))
    assert_allowed(world.send(lots=100, price=9_900))  # valued at the ask
    assert_denied(world.send(lots=101, price=9_900), "order_value")
    assert_denied(
        world.send(lots=100, price=ASK + 1), "order_value", 100 * (ASK + 1) * TICK_VALUE, 100 * ASK * TICK_VALUE
    )
    assert_denied(world.send(lots=100, price=0), "order_value")  # a market order at the end of the collar
    assert_allowed(world.send("sell", lots=100, price=ASK))


def test_order_value_beyond_int64_is_refused():
    instrument = Instrument(symbol=SYMBOL, tick_value=10**12, mark_ticks=10_000, adv_lots=10**12)
    world = World(limits_of(max_order_value=2**63 - 1), instruments=(instrument,))
    assert_denied(world.send(lots=10**12), "order_value", 2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize(
    ("side", "price", "passes"),
    [
        ("buy", ASK + 500, True),
        ("buy", ASK + 501, False),
        ("sell", BID - 499, True),
        ("sell", BID - 500, False),
        ("buy", BID - 499, True),
        ("buy", BID - 500, False),
        ("sell", ASK + 500, True),
        ("sell", ASK + 501, False),
    ],
)
def test_collar_at_the_limit_on_either_side(side, price, passes):
    decision = World(limits_of(collar_bps=500, drift_collar_bps=10_000)).send(side, price=price)
    assert_allowed(decision) if passes else assert_denied(decision, "collar")


def test_collar_to_the_tick():
    world = World(limits_of(collar_bps=500, drift_collar_bps=10_000))
    world.see(8_000, 10_000)
    assert_allowed(world.send(price=10_500))
    assert_denied(world.send(price=10_501), "collar", 10_501, 500)
    world = World(limits_of(collar_bps=500, drift_collar_bps=10_000))
    world.see(8_000, 10_000)
    assert_allowed(world.send(price=7_600))
    assert_denied(world.send(price=7_599), "collar", 7_599, 500)


def test_drift_collar_when_the_market_walks_away_step_by_step_then_denies():
    world = World(limits_of(collar_bps=100, drift_collar_bps=300))
    price = 10_000
    for _ in range(4):
        price = price * 10_090 // 10_000
        world.see(price - 10, price + 10)
    denied = assert_denied(world.send(price=price), "drift_collar")
    assert denied.limit == 300
    assert_denied(world.send(price=0), "drift_collar")  # a market order meets the same
    world.clock.pass_(301)
    world.see(price - 10, price + 10)
    world.clock.pass_(301)
    world.see(price - 10, price + 10)
    assert_allowed(world.send(price=price))


def test_increments_when_off_lot_tick_or_minimum_then_denies():
    instrument = Instrument(
        symbol=SYMBOL, tick_value=1, mark_ticks=10_000, adv_lots=10**6, min_lots=20, lot_multiple=10, price_multiple=5
    )
    world = World(instruments=(instrument,))
    assert_allowed(world.send(lots=20, price=10_005))
    assert_denied(world.send(lots=10), "increments", 10, 20)
    assert_denied(world.send(lots=25), "increments", 25, 10)
    assert_denied(world.send(lots=30, price=10_001), "increments", 10_001, 5)


def test_message_rate_when_the_second_is_full_then_denies_until_it_passed():
    world = World(limits_of(max_messages_per_second=3, max_cancels_per_second=2))
    first = world.order(key="first")
    assert_allowed(world.submit(first))
    assert_allowed(world.send())
    assert_allowed(world.send())
    assert_denied(world.send(), "message_rate", 4, 3)
    assert_denied(world.submit(world.replace("k2", 10_001, 10)), "replace_pending")
    assert_allowed(world.submit(world.cancel("first")))  # cancels have capacity of their own
    assert_allowed(world.submit(world.cancel("first")))
    assert_denied(world.submit(world.cancel("first")), "message_rate", 3, 2)
    world.clock.pass_(1)
    assert_allowed(world.send())


def test_message_rate_counts_by_scope():
    world = World(limits_of(scopes={"strategy": {"S1": {"max_messages_per_second": 1}}}))
    assert_allowed(world.send())
    assert_denied(world.send(), "message_rate")
    assert_allowed(world.send(strategy="S2"))


def test_message_rate_when_limits_change_then_the_window_is_full_again():
    world = World(limits_of(max_messages_per_second=10))
    assert_allowed(world.send())
    world.set_limits(limits_of(max_messages_per_second=9))
    assert_denied(world.send(), "message_rate")


def test_duplicate_when_an_equal_order_went_within_the_window_then_denies():
    world = World(limits_of(duplicate_window_ns=SECOND_NS))
    assert_allowed(world.send())
    world.clock.pass_(0.5)
    assert_denied(world.send(), "duplicate", SECOND_NS // 2, SECOND_NS)
    assert_allowed(world.send(lots=101))
    assert_allowed(world.send(strategy="S2"))
    world.clock.pass_(0.5)
    assert_allowed(world.send())


def test_duplicate_when_a_replace_asks_for_what_another_order_asked_then_passes():
    world = World(limits_of(duplicate_window_ns=SECOND_NS))
    world.work(key="a", price=9_900, lots=100)
    world.work(key="b", price=9_890, lots=100)
    assert_allowed(world.submit(world.replace("b", 9_900, 100)))  # the venue sees one change, not an order twice


def test_repeated_when_a_strategy_ran_its_number_then_a_person_must_enable_it():
    world = World(limits_of(max_repeated_orders=2))
    assert_allowed(world.send())
    assert_allowed(world.send())
    assert_denied(world.send(), "repeated", 3, 2)
    with pytest.raises(PersonError):
        enable(world.gateway, "strategy", "S1", "robot", world.clock())
    enable(world.gateway, "strategy", "S1", "CN=Ann", world.clock())
    assert_allowed(world.send())


def test_cancel_ratio_when_cancels_outrun_fills_then_orders_stop_and_cancels_pass():
    world = World(limits_of(free_cancels=1, max_cancels_per_fill=2))
    world.work(key="a", price=9_900)
    assert_allowed(world.submit(world.cancel("a")))
    assert_allowed(world.send())
    assert_allowed(world.submit(world.cancel("a")))
    assert_denied(world.send(), "cancel_ratio", 2, 1)
    assert_allowed(world.submit(world.cancel("a")))
    world.report(world.venue.fill(1, 1, 9_900))
    assert_allowed(world.send())  # three for one filled order


def test_venue_rejects_when_in_a_row_then_stops_until_enabled():
    world = World(limits_of(max_venue_rejects=2))
    for _ in range(2):
        world.report(world.venue.reject(assert_allowed(world.send()).order_id))
    assert_denied(world.send(), "venue_rejects", 2, 2)
    enable(world.gateway, "venue", VENUE, "CN=Ann", world.clock())
    assert_denied(world.send(), "venue_rejects")
    enable(world.gateway, "strategy", "S1", "CN=Ann", world.clock())
    world.report(world.venue.reject(assert_allowed(world.send()).order_id))
    world.work(price=9_900)  # an acknowledgement begins the row again
    world.report(world.venue.reject(assert_allowed(world.send()).order_id))
    assert_allowed(world.send())


def test_unacknowledged_when_the_oldest_message_is_too_old_then_denies():
    world = World(limits_of(max_unacknowledged_ns=SECOND_NS))
    order_id = assert_allowed(world.send()).order_id
    world.clock.pass_(1)
    assert_allowed(world.send(lots=101))
    world.clock.mono_ns += 1
    assert_denied(world.send(), "unacknowledged", SECOND_NS + 1, SECOND_NS)
    world.report(world.venue.ack(order_id))
    assert_allowed(world.send())


def test_open_orders_count_those_in_flight():
    world = World(limits_of(scopes={"account": {"A1": {"max_open_orders": 2}}}))
    first = assert_allowed(world.send()).order_id
    assert_allowed(world.send(strategy="S2"))
    assert_denied(world.send(), "open_orders", 3, 2)
    assert_allowed(world.send(strategy="S3", account="A2"))
    world.report(world.venue.reject(first))
    assert_allowed(world.send())


@pytest.mark.parametrize(
    ("scopes", "others"),
    [
        ({"all": 250}, True),
        ({"symbol": {SYMBOL: {"max_position_lots": 250}}}, True),
        ({"account": {"A1": {"max_position_lots": 250}}}, True),
        ({"strategy": {"S1": {"max_position_lots": 150}}}, False),
    ],
)
def test_position_counts_held_working_and_in_flight_in_each_scope(scopes, others):
    of_all = {"max_position_lots": scopes.pop("all")} if "all" in scopes else {}
    world = World(limits_of(scopes=scopes, **of_all))
    world.hold(100)
    if others:
        world.work(lots=100, price=9_900, strategy="S2")
    assert_allowed(world.send(lots=50))
    limit = 250 if others else 150
    assert_denied(world.send(lots=1), "position", limit + 1, limit)
    assert_allowed(world.send("sell", lots=limit + 100, price=10_100))  # the other way: 100 held
    assert_denied(world.send("sell", lots=1, price=10_100, **({"strategy": "S1"})), "position", limit + 1, limit)
    assert_allowed(world.send(symbol="MSFT", lots=limit))


def test_gross_counts_each_strategy_without_netting_and_net_nets_them():
    unit = 10_000 * TICK_VALUE
    world = World(limits_of(max_gross_value=300 * unit, max_net_value=120 * unit))
    world.hold(100, strategy="S1")
    world.hold(-100, strategy="S2")
    assert_denied(world.send("sell", lots=101, strategy="S2"), "gross_net", 301 * unit, 300 * unit)
    assert_allowed(world.send("buy", lots=100, price=9_900, strategy="S1"))
    assert world.state.all.gross == 300 * unit
    world = World(limits_of(max_gross_value=10**15, max_net_value=120 * unit))
    world.hold(100, strategy="S1")
    assert_denied(world.send(lots=21, strategy="S2"), "gross_net", 121 * unit, 120 * unit)
    assert_allowed(world.send(lots=20, strategy="S2"))
    assert_allowed(world.send("sell", lots=220, price=10_050, strategy="S1"))
    assert_denied(world.send("sell", lots=1, price=10_050, strategy="S2"), "gross_net", 121 * unit, 120 * unit)


def test_gross_of_an_account_and_a_strategy():
    unit = 10_000 * TICK_VALUE
    scopes = {"account": {"A1": {"max_gross_value": 150 * unit}}, "strategy": {"S1": {"max_gross_value": 100 * unit}}}
    world = World(limits_of(scopes=scopes))
    assert_denied(world.send(lots=101), "gross_net", 101 * unit, 100 * unit)
    assert_allowed(world.send(lots=100))
    assert_denied(world.send(lots=51, strategy="S2"), "gross_net", 151 * unit, 150 * unit)
    assert_allowed(world.send(lots=50, strategy="S2"))
    assert_allowed(world.send(lots=500, account="A2", strategy="S3"))


def test_day_turnover_counts_filled_and_open():
    world = World(limits_of(max_day_lots=250))
    world.hold(100)
    assert_allowed(world.send(lots=100))
    assert_denied(world.send(lots=51), "day_turnover", 251, 250)
    assert_allowed(world.send(lots=50))
    value = 100 * 10_000 * TICK_VALUE + 100 * ASK * TICK_VALUE
    world = World(limits_of(scopes={"venue": {VENUE: {"max_day_value": value}}}))
    world.hold(100)
    assert_denied(world.send(lots=101, price=9_900), "day_turnover", value + ASK * TICK_VALUE, value)
    assert_allowed(world.send(lots=100, price=9_900))


def test_credit_takes_gross_and_todays_loss():
    unit = 10_000 * TICK_VALUE
    world = World(limits_of(scopes={"account": {"A1": {"max_credit": 200 * unit}}}))
    world.hold(100)
    assert_denied(world.send(lots=101), "credit", 201 * unit, 200 * unit)
    world.report(world.venue.fill(world.work("sell", 50, 9_990), 50, 9_990))
    loss = 50 * 10 * TICK_VALUE
    assert_denied(world.send(lots=150), "credit", 200 * unit + loss, 200 * unit)
    assert_allowed(world.send(lots=149))


@pytest.mark.parametrize(("most", "passes"), [(10_200_000, True), (10_199_999, False)])
def test_credit_counts_marked_losses_and_spares_what_reduces(most, passes):
    world = World(limits_of(scopes={"account": {"A1": {"max_credit": most}}}))
    world.hold(-100)
    world.work("buy", 1, 10_000, key="a")
    world.see(10_090, 10_110)
    decision = world.send("buy", 1, 10_050)
    assert_allowed(decision) if passes else assert_denied(decision, "credit", 10_200_000, most)
    assert_allowed(world.send("buy", 1, 10_051, reduce_only=True))
    assert_allowed(world.submit(world.replace("a", 10_020, 1)))  # another price, not another lot


def test_credit_of_exactly_all_passes():
    unit = 10_000 * TICK_VALUE
    world = World(limits_of(scopes={"account": {"A1": {"max_credit": 100 * unit + 5_000}}}))
    world.hold(100)
    world.report(world.venue.fill(world.work("sell", 50, 9_990), 50, 9_990))
    assert_denied(world.send(lots=51), "credit", 101 * unit + 5_000, 100 * unit + 5_000)
    assert_allowed(world.send(lots=50))


def test_lowered_limits_let_through_what_adds_nothing():
    unit = 10_000 * TICK_VALUE
    world = World()
    world.hold(-100)
    world.work("buy", 10, 10_000, key="a", symbol="MSFT")
    world.set_limits(
        limits_of(
            max_gross_value=50 * unit, max_day_lots=5, max_day_value=1, max_position_lots=5, participation_floor_lots=0
        )
    )
    world.clock.pass_(2)
    world.see()
    assert_allowed(world.submit(world.replace("a", 9_990, 10)))
    world.set_limits(limits_of(max_gross_value=50 * unit))
    for sign, side, price in ((-1, "buy", 9_990), (1, "sell", 10_010)):
        world = World()
        world.hold(sign * 100)
        world.set_limits(limits_of(max_gross_value=50 * unit))
        world.clock.pass_(2)
        world.see()
        assert_denied(world.send(side, 201, price), "gross_net", 101 * unit, 50 * unit)
        assert_allowed(world.send(side, 200, price))


def test_lowered_net_lets_another_price_through():
    world = World()
    world.work("buy", 10, 10_000, key="a")
    world.set_limits(limits_of(max_net_value=1))
    world.clock.pass_(2)
    world.see()
    assert_denied(world.submit(world.replace("a", 9_990, 11)), "gross_net", 11 * 10_000 * TICK_VALUE, 1)
    assert_allowed(world.submit(world.replace("a", 9_990, 10)))


def test_gross_of_sales_at_the_limit():
    unit = 10_000 * TICK_VALUE
    world = World(limits_of(max_gross_value=100 * unit))
    assert_denied(world.send("sell", 101), "gross_net", 101 * unit, 100 * unit)
    assert_allowed(world.send("sell", 100))


def test_day_value_counts_what_is_filled_and_what_is_open_and_a_dearer_replace():
    value = 100 * 10_000 * TICK_VALUE + 20 * ASK * TICK_VALUE
    world = World(limits_of(max_day_value=value))
    world.hold(100)
    world.work(lots=10, price=9_900, key="a")
    assert_denied(world.send(lots=11, price=9_900), "day_turnover", value + ASK * TICK_VALUE, value)
    assert_allowed(world.send(lots=10, price=9_900))
    assert_denied(world.submit(world.replace("a", ASK + 1, 10)), "day_turnover", value + 10 * TICK_VALUE, value)


def test_drift_collar_to_the_tick():
    world = World(limits_of(collar_bps=500, drift_collar_bps=300))
    assert_allowed(world.send(price=10_300))
    assert_denied(world.send(price=10_301), "drift_collar", 301, 300)


def test_loss_and_drawdown_deny_and_let_reduce_only_through():
    world = World(limits_of(scopes={"strategy": {"S1": {"max_realised_loss": 4_999, "max_loss": 10**9}}}))
    world.hold(100)
    world.report(world.venue.fill(world.work("sell", 50, 9_990), 50, 9_990))
    assert_denied(world.send(), "loss", 5_000, 4_999)
    assert_allowed(world.send(strategy="S2"))
    assert_allowed(world.send("sell", 50, 10_050, reduce_only=True))

    world = World(limits_of(max_loss=99_999))
    world.hold(100)
    world.see(9_890, 9_910)
    assert_denied(world.send(price=9_900), "loss", 100_000, 99_999)
    world.see(9_891, 9_911)
    world.watch.tick(world.clock())
    assert_allowed(world.send(price=9_900))

    world = World(limits_of(max_drawdown=99_999, max_loss=10**9))
    world.hold(100)
    world.see(10_090, 10_110)
    assert_allowed(world.send(price=10_100))
    world.see(9_990, 10_010)
    assert_denied(world.send(), "loss", 100_000, 99_999)


def test_loss_and_drawdown_of_exactly_the_limit_pass():
    world = World(limits_of(max_realised_loss=5_000))
    world.hold(100)
    world.report(world.venue.fill(world.work("sell", 50, 9_990), 50, 9_990))
    assert_allowed(world.send())
    for limit in ("max_loss", "max_drawdown"):
        world = World(limits_of(**{limit: 100_000}))
        world.hold(100)
        world.see(9_890, 9_910)
        assert_allowed(world.send(price=9_900))


def test_participation_against_the_markets_volume():
    world = World(limits_of(participation_floor_lots=100, max_participation_bps=1_000))
    assert_allowed(world.send(lots=100))
    assert_denied(world.send(lots=1), "participation", 101, 100)
    world.watch.volume(VENUE, SYMBOL, 1_000)
    assert_denied(world.send(lots=101), "participation", 201, 200)
    assert_allowed(world.send(lots=100))


def test_symbol_lists_of_the_day_and_of_each_scope():
    world = World(restricted=("MSFT",))
    assert_denied(world.send(symbol="MSFT"), "symbol_lists")
    assert_allowed(world.send())
    for scopes in (
        {"strategy": {"S1": {"restricted_symbols": [SYMBOL]}}},
        {"account": {"A1": {"allowed_symbols": ["MSFT"]}}},
        {"venue": {VENUE: {"allowed_symbols": []}}},
    ):
        assert_denied(World(limits_of(scopes=scopes)).send(), "symbol_lists")


def test_locate_counts_shares_once_even_when_bought_back():
    located = [Locate(account="A1", symbol=SYMBOL, lots=100)]
    world = World(holdings=[Holding(account="A1", strategy="S1", symbol=SYMBOL, lots=50)], locates=located)
    assert_denied(world.send("sell", 151), "locate", 101, 100)
    world.hold(-150)
    world.hold(100)  # bought back: the located shares are used up
    assert world.state.exposure("account", "A1", SYMBOL).sold_short == 100
    assert_denied(world.send("sell", 1, 10_050), "locate", 101, 100)


def test_locate_is_not_needed_where_the_instrument_needs_none():
    instrument = Instrument(symbol=SYMBOL, tick_value=1, mark_ticks=10_000, adv_lots=10**6, needs_locate=False)
    assert_allowed(World(locates=[], instruments=(instrument,)).send("sell"))
    assert_denied(World(locates=[]).send("sell"), "locate", 100, 0)


@pytest.mark.parametrize("status", ["halted", "closed", "auction", "unknown", "nonsense"])
def test_session_when_the_symbol_does_not_trade_then_denies(status):
    world = World()
    world.watch.status(VENUE, SYMBOL, status)
    assert_denied(world.send(), "session")
    assert_allowed(world.send(symbol="MSFT"))


def test_session_to_the_nanosecond_of_the_day():
    from serving.gateway.controls import session
    from serving.gateway.live import Now

    world = World()
    at, state = world.gateway.at((VENUE, "A1", "S1", SYMBOL)), world.state

    def passes(utc_ns):
        return session.check(at, at.limits, world.gateway._intent, Now(0, utc_ns)) is None

    assert passes(state.opens_ns) and passes(state.closes_ns - 1)
    assert not passes(state.opens_ns - 1) and not passes(state.closes_ns)
    state.day_open = False
    assert not passes(state.opens_ns)


def test_reference_when_stale_missing_crossed_or_lost_then_denies():
    world = World()
    world.clock.pass_(5)
    world.watch.heartbeat("S1", world.clock())
    assert_allowed(world.send())
    world.clock.mono_ns += 1
    assert_denied(world.send(), "reference", 5 * SECOND_NS + 1, 5 * SECOND_NS)
    world.see(10_020, 10_010)
    assert_denied(world.send(), "reference")
    world.see()
    world.watch.gap(VENUE)
    assert_denied(world.send(), "session")
    world.watch.status(VENUE, SYMBOL, "open")
    assert_denied(world.send(), "reference")


def test_heartbeat_when_stale_missing_or_disconnected_then_denies():
    world = World()
    world.clock.pass_(5)
    world.see(strategies=())
    assert_allowed(world.send())
    world.clock.mono_ns += 1
    assert_denied(world.send(), "heartbeat", 5 * SECOND_NS + 1, 5 * SECOND_NS)
    world.watch.heartbeat("S1", world.clock())
    assert_allowed(world.send())
    world.watch.disconnected("S1", world.clock())
    world.watch.heartbeat("S1", world.clock())
    assert_denied(world.send(), "heartbeat")


def test_clock_when_off_unmeasured_or_back_then_denies():
    world = World(limits_of(max_unacknowledged_ns=10**15))
    world.watch.clock_offset(-10_000_000, world.clock())
    assert_allowed(world.send())
    world.watch.clock_offset(10_000_001, world.clock())
    assert_denied(world.send(), "clock", 10_000_001, 10_000_000)
    world.see()
    world.clock.utc_ns -= 10_000_000
    assert_allowed(world.send())
    world.clock.utc_ns -= 1
    assert_denied(world.send(), "clock", 10_000_001, 10_000_000)
    world.clock.utc_ns += 10_000_001
    world.clock.pass_(60)
    world.watch.quote(VENUE, SYMBOL, BID, ASK, world.clock())
    world.watch.heartbeat("S1", world.clock())
    assert_allowed(world.send())
    world.clock.mono_ns += 1
    world.watch.quote(VENUE, SYMBOL, BID, ASK, world.clock())
    world.watch.heartbeat("S1", world.clock())
    assert_denied(world.send(), "clock", 60 * SECOND_NS + 1, 60 * SECOND_NS)


def test_request_age_when_old_or_from_the_future_then_denies():
    world = World()
    assert_allowed(world.send(sent_ns=world.clock.utc_ns - 5 * SECOND_NS))
    assert_denied(
        world.send(sent_ns=world.clock.utc_ns - 5 * SECOND_NS - 1), "request_age", 5 * SECOND_NS + 1, 5 * SECOND_NS
    )
    assert_denied(world.send(sent_ns=world.clock.utc_ns + 5 * SECOND_NS + 1), "request_age")


def test_self_match_when_a_price_meets_our_own_other_side_then_denies():
    world = World()
    world.work("sell", 10, 10_005)
    world.work("buy", 10, 9_995, strategy="S2")
    assert_denied(world.send("buy", price=10_005, strategy="S2"), "self_match")
    assert_denied(world.send("buy", price=0, account="A2", strategy="S3"), "self_match")
    assert_denied(world.send("sell", price=9_995), "self_match")
    assert_denied(world.send("sell", price=0), "self_match")
    assert_allowed(world.send("buy", price=10_004, strategy="S2"))
    world = World()
    assert_allowed(world.send("buy", price=0))
    assert_denied(world.send("sell", price=10_400), "self_match")  # a market order meets every price


def test_self_match_counts_the_price_that_a_replace_asks_for():
    world = World()
    world.work("buy", 10, 9_995, key="a")
    assert_allowed(world.submit(world.replace("a", 10_005, 10)))
    assert_denied(world.send("sell", price=10_005), "self_match")
    world.report(world.venue.replace_rejected(1))
    assert_allowed(world.send("sell", price=10_005))


def test_reduce_only_counts_quantity_and_every_open_order_of_its_side():
    world = World()
    world.hold(100)
    assert_denied(world.send("buy", 1, reduce_only=True), "reduce_only", 1, 0)
    assert_denied(world.send("sell", 101, 10_050, reduce_only=True), "reduce_only", 101, 100)
    assert_allowed(world.send("sell", 60, 10_050, reduce_only=True))
    assert_denied(world.send("sell", 41, 10_050, reduce_only=True), "reduce_only", 41, 40)
    assert_denied(world.send("sell", 41, 10_050), "reduce_only", 41, 40)  # it would turn the one that is open
    assert_allowed(world.send("sell", 40, 10_050))
    assert_denied(world.send("sell", 1, 10_050, reduce_only=True, strategy="S2"), "reduce_only", 1, 0)


def test_reduce_only_of_a_short_position():
    world = World()
    world.hold(-100)
    assert_denied(world.send("sell", 1, reduce_only=True), "reduce_only", 1, 0)
    assert_denied(world.send("buy", 101, 9_950, reduce_only=True), "reduce_only", 101, 100)
    assert_allowed(world.send("buy", 100, 9_950, reduce_only=True))
    assert_denied(world.send("buy", 1, 9_950), "reduce_only", 1, 0)


def test_reduce_only_when_a_bust_takes_the_position_away_then_the_order_is_cancelled():
    world = World()
    bought = world.hold(100)
    order_id = world.work("sell", 100, 10_050, reduce_only=True)
    world.report(world.venue.bust(bought, "x1"))
    assert [message.order_id for message in world.venue.cancels()] == [order_id]


def test_standing_when_halted_then_denies_and_cancels_pass():
    world = World()
    world.work(key="a")
    world.gateway.halt("a person said so", world.clock())
    assert "a person said so" in assert_denied(world.send(), "standing").message
    assert_allowed(world.submit(world.cancel("a")))


def test_registry_when_a_control_raises_then_denies(monkeypatch):
    world = World()

    def broken(at, limits, order, now):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(registry.CONTROLS[10], "check", broken)
    monkeypatch.setattr(registry, "CLEAR_MAY_ANSWER", False)
    assert "oops" in assert_denied(world.send(), registry.CONTROLS[10].NAME).message
    assert world.venue.log == []


def test_registry_holds_every_control_file_once():
    import pkgutil

    from serving.gateway import controls

    files = {module.name for module in pkgutil.iter_modules(controls.__path__)} - {"registry"}
    names = [control.NAME for control in registry.CONTROLS]
    assert sorted(names) == sorted(files)
    assert names[:2] == ["identity", "standing"]


def test_registry_asks_every_control_in_its_order(monkeypatch):
    asked = []
    for control in registry.CONTROLS:
        name = control.NAME
        monkeypatch.setattr(control, "check", lambda *arguments, name=name: asked.append(name))
    monkeypatch.setattr(registry, "CLEAR_MAY_ANSWER", False)
    assert_allowed(World().send())
    assert asked == [control.NAME for control in registry.CONTROLS]


def test_false_fills_when_a_venue_overfills_or_fills_outside_the_limit_then_it_stops():
    for price, lots, words in ((10_000, 101, "was filled with 101"), (10_001, 100, "was filled at 10001")):
        world = World()
        resting = world.work(price=9_900, strategy="S2")
        order_id = world.work()
        world.report(world.venue.fill(order_id, lots, price))
        assert words in assert_denied(world.send(), "false_fills").message
        assert [message.order_id for message in world.venue.cancels()] == [resting]
        assert world.state.leg("A1", "S1", SYMBOL).position == lots  # what is, is counted


def test_posture_can_only_tighten_and_expires_by_both_clocks():
    from serving.gateway.changes import set_posture

    world = World(limits_of(max_order_lots=100))
    set_posture(world.gateway, "strategy", "S1", 2_500, 10 * SECOND_NS, "vol-model", world.clock())
    assert_denied(world.send(lots=26), "order_lots", 26, 25)
    world.clock.pass_(2)
    world.see()
    assert_allowed(world.send(lots=25))
    for factor, lasts in ((10_001, 1), (-1, 1), (5_000, 20 * SECOND_NS), (1_000, SECOND_NS)):
        with pytest.raises(ValueError):
            set_posture(world.gateway, "strategy", "S1", factor, lasts, "vol-model", world.clock())
    world.clock.utc_ns += 20 * SECOND_NS  # a clock that leaps does not end it
    world.watch.tick(world.clock())
    assert world.state.postures
    world.clock.pass_(10)
    world.watch.tick(world.clock())
    assert not world.state.postures


def test_posture_of_zero_stops_everything():
    from serving.gateway.changes import set_posture

    world = World()
    set_posture(world.gateway, "all", "", 0, SECOND_NS, "anomaly", world.clock())
    assert type(world.send(lots=1)) is Denied
