"""Own orders in the queues: priority, what each kind of order does, latency, halts, and what history makes of them."""

import numpy as np
import pytest
from order_events import add, table

from feature_repo.errors import InputError
from feature_repo.ticks.schema import Flag, Kind, Side
from training.market.messages import blank_day, pack_messages
from training.market.order_replay import COMMAND_DTYPE, OrderReplay, ReplaySettings
from training.market.replay_state import OrderStatus, Reason, SelfTrade

BUY, SELL, NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
CANCEL, REPLACE, TRADE = int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
AT_ONCE = ReplaySettings(order_latency_ns=0)


def exchange(self_trade=SelfTrade.ALLOW):
    return OrderReplay(blank_day(90, 110), ReplaySettings(0, 0, self_trade))


def replay(*rows, settings=AT_ONCE):
    return OrderReplay(pack_messages(table(*rows)), settings)


def test_exchange_when_two_orders_rest_at_a_price_then_the_first_is_filled_first():
    market = exchange()
    first, second = market.limit(1, -1, 100, 5), market.limit(1, -1, 100, 5)
    taker = market.limit(2, 1, 100, 7)
    market.advance(2)
    assert [market.order(n)[2] for n in (first, second, taker)] == [5, 2, 7]
    assert market.fills[["order", "price", "lots", "maker", "side"]].tolist() == [
        (first, 100, 5, 1, 1),
        (taker, 100, 5, 0, 0),
        (second, 100, 2, 1, 1),
        (taker, 100, 2, 0, 0),
    ]


def test_exchange_when_an_order_is_marketable_then_it_takes_best_first_and_rests_with_what_is_left():
    market = exchange()
    market.limit(1, -1, 102, 5)
    market.limit(1, -1, 101, 5)
    taker = market.limit(2, 1, 102, 12)
    market.advance(2)
    assert market.best() == (102, 2, 0, 0)
    assert market.order(taker) == (OrderStatus.RESTING, Reason.NONE, 10)


def test_exchange_when_a_market_order_exhausts_the_book_then_the_remainder_is_cancelled():
    market = exchange()
    market.limit(1, -1, 110, 5)
    taker = market.market(2, 1, 9)
    market.advance(2)
    assert market.order(taker) == (OrderStatus.CANCELLED, Reason.REMAINDER, 5)


def test_exchange_when_post_only_would_take_then_it_is_rejected_and_ioc_never_rests():
    market = exchange()
    market.limit(1, -1, 100, 5)
    post = market.limit(2, 1, 100, 5, post_only=True)
    ioc = market.limit(2, 1, 100, 8, ioc=True)
    market.advance(2)
    assert market.order(post) == (OrderStatus.REJECTED, Reason.WOULD_TAKE, 0)
    assert market.order(ioc) == (OrderStatus.CANCELLED, Reason.REMAINDER, 5)
    assert market.best() == (0, 0, 0, 0)


@pytest.mark.parametrize(("price", "lots", "ahead"), [(100, 3, 4), (100, 9, 10), (100, 5, 4), (99, 5, 0)])
def test_exchange_when_replaced_then_only_fewer_lots_at_the_same_price_keep_the_place(price, lots, ahead):
    market = exchange()
    market.limit(1, 1, 100, 4)
    mine = market.limit(1, 1, 100, 5)
    market.limit(1, 1, 100, 6)
    market.replace(2, mine, price, lots)
    market.advance(2)
    assert market.lots_ahead(mine) == ahead


def test_exchange_when_filled_on_the_way_then_a_replace_asks_for_no_more_than_its_total():
    market = exchange()
    mine = market.limit(1, 1, 100, 10)
    market.limit(2, -1, 100, 6)
    market.replace(2, mine, 101, 8)
    market.advance(2)
    assert market.best() == (101, 2, 0, 0)
    market.replace(3, mine, 101, 5)
    market.advance(3)
    assert market.order(mine) == (OrderStatus.CANCELLED, Reason.ASKED, 6)
    market.cancel(4, mine)
    market.advance(4)
    assert market.order(mine)[2] == 6


@pytest.mark.parametrize(
    ("rule", "resting", "incoming"),
    [
        (SelfTrade.ALLOW, OrderStatus.FILLED, OrderStatus.FILLED),
        (SelfTrade.CANCEL_RESTING, OrderStatus.CANCELLED, OrderStatus.RESTING),
        (SelfTrade.CANCEL_INCOMING, OrderStatus.RESTING, OrderStatus.CANCELLED),
    ],
)
def test_exchange_when_a_trader_would_meet_himself_then_the_rule_decides(rule, resting, incoming):
    market = exchange(rule)
    first, second = market.limit(1, -1, 100, 5, trader=3), market.limit(1, 1, 100, 5, trader=3)
    market.advance(1)
    assert (market.order(first)[0], market.order(second)[0]) == (resting, incoming)
    third = market.limit(2, 1 if rule != SelfTrade.CANCEL_RESTING else -1, 100, 5, trader=4)
    market.advance(2)
    assert market.order(third)[2] == (0 if rule == SelfTrade.ALLOW else 5)


def test_exchange_when_a_price_lies_beyond_the_window_then_the_order_is_rejected():
    market = exchange()
    far = market.limit(1, 1, 10_000, 5)
    mine = market.limit(1, 1, 95, 5)
    market.replace(1, mine, 10_000, 5)
    market.advance(1)
    assert market.order(far) == (OrderStatus.REJECTED, Reason.PRICE, 0)
    assert market.order(mine) == (OrderStatus.RESTING, Reason.PRICE, 0)


def test_exchange_when_asked_for_nonsense_then_it_is_refused():
    market = exchange()
    market.advance(100)
    for call in (
        lambda: market.limit(100, 2, 100, 5),
        lambda: market.limit(100, 1, 100, 0),
        lambda: market.limit(100, 1, 100, 2**31),
        lambda: market.limit(100, 1, 100, 5, post_only=True, ioc=True),
        lambda: market.limit(100, 1, 100, 5, trader=200),
        lambda: market.limit(99, 1, 100, 5),
        lambda: market.cancel(100, 0),
        lambda: market.replace(100, -1, 100, 5),
        lambda: market.advance(99),
        lambda: market.schedule(np.array([(100, 3, 100, 5, 1, 0, 0, 0)], COMMAND_DTYPE)),
        lambda: market.schedule(np.array([(99, 0, 100, 5, 1, 0, 0, 0)], COMMAND_DTYPE)),
        lambda: market.schedule(np.array([(100, 0, 100, 0, 1, 0, 0, 0)], COMMAND_DTYPE)),
        lambda: ReplaySettings(order_latency_ns=-1),
    ):
        with pytest.raises(InputError):
            call()


def test_replay_when_an_order_is_sent_then_it_meets_what_stands_after_its_latency():
    rows = [add(0, SELL, 100, 5, 1), add(10, SELL, 99, 5, 2), (11, CANCEL, SELL, 99, 5, 2)]
    for latency, price in ((9, 100), (10, 99), (11, 100)):
        market = replay(*rows, settings=ReplaySettings(latency, feed_latency_ns=50))
        taker = market.market(0, 1, 3)
        market.advance(20)
        assert market.fills[["ts_ns", "order", "price", "lots"]].tolist() == [(latency, taker, price, 3)]
        assert len(market.seen_fills(latency + 49)) == 0
        assert len(market.seen_fills(latency + 50)) == 1


def test_replay_when_history_executes_then_own_orders_are_filled_in_their_turn():
    rows = [add(0, BUY, 100, 5, 1), add(2, BUY, 100, 5, 2), (3, TRADE, SELL, 100, 5, 1), (4, TRADE, SELL, 100, 4, 2)]
    market = replay(*rows)
    mine = market.limit(1, 1, 100, 3)
    market.advance(2)
    assert market.lots_ahead(mine) == 5
    market.advance(3)
    assert market.lots_ahead(mine) == 0
    market.advance()
    assert market.fills[["ts_ns", "order", "price", "lots", "maker"]].tolist() == [(4, mine, 100, 3, 1)]
    found = market.divergence()
    # order 2 was executed for one lot of four: four rest here, one in history
    assert (found.made_by_trades, found.book_lots, found.book_difference, found.left_over) == (3, 1, 3, 0)


def test_replay_when_own_orders_took_first_then_executions_move_on_and_cancels_find_less():
    rows = [
        add(0, SELL, 100, 5, 1),
        add(0, SELL, 100, 6, 2),
        add(0, SELL, 101, 9, 3),
        (2, TRADE, BUY, 100, 5, 1),
        (3, CANCEL, SELL, 100, 6, 2),
        (4, TRADE, BUY, 101, 9, 3),
    ]
    market = replay(*rows)
    market.market(1, 1, 7)
    market.advance(2)  # 4 lots of order 2 are left, then one of order 3
    found = market.divergence()
    assert (found.taken, found.rerouted, found.nothing_found) == (7, 5, 0)
    assert market.best()[2:] == (101, 8)
    market.advance()
    found = market.divergence()
    assert (found.cancels_consumed, found.nothing_found, found.book_difference) == (6, 1, 0)


@pytest.mark.parametrize(("reach", "nothing"), [(0, 5), (1, 4), (2, 0)])
def test_replay_when_the_level_is_gone_then_executions_reach_so_many_levels_further(reach, nothing):
    rows = [add(0, SELL, 100, 5, 1), add(0, SELL, 101, 1, 2), add(0, SELL, 105, 9, 3), (2, TRADE, BUY, 100, 5, 1)]
    market = replay(*rows, settings=ReplaySettings(0, reach_levels=reach))
    market.market(1, 1, 5)
    market.advance()
    assert market.divergence().nothing_found == nothing


def test_replay_when_an_arrival_crosses_an_own_order_then_they_trade():
    rows = [add(0, SELL, 105, 5, 1), add(0, BUY, 100, 5, 2), add(2, SELL, 102, 8, 3), (3, CANCEL, SELL, 102, 8, 3)]
    market = replay(*rows)
    mine = market.limit(1, 1, 103, 6)
    market.advance(2)
    assert market.order(mine) == (OrderStatus.FILLED, Reason.NONE, 6)
    assert market.fills["price"].tolist() == [103]
    assert market.best() == (100, 5, 102, 2)
    market.advance()
    found = market.divergence()
    assert (found.made_by_arrivals, found.cancels_consumed, found.book_difference) == (6, 6, 0)


def test_replay_when_lots_outlive_history_then_later_arrivals_meet_them():
    rows = [
        add(0, BUY, 100, 5, 1),
        (2, TRADE, SELL, 100, 5, 1),  # met our better bid
        add(3, BUY, 98, 2, 4),  # history's slot is used again while the order rests on
        add(4, SELL, 100, 3, 5),
        add(5, SELL, 99, 9, 6),
    ]
    market = replay(*rows)
    market.limit(1, 1, 101, 5)
    market.advance(3)
    assert market.best()[:2] == (100, 5)
    assert market.divergence().left_over == 5
    market.advance()
    assert market.best() == (98, 2, 99, 7)
    assert market.divergence().arrivals_met == 5


def test_replay_when_an_order_was_partly_taken_then_its_replace_brings_only_the_rest():
    rows = [
        add(0, SELL, 100, 5, 1),
        add(0, SELL, 101, 4, 2),
        (2, REPLACE, SELL, 102, 8, 1),
        (2, REPLACE, SELL, 103, 4, 2),
        add(3, BUY, 90, 1, 9),
    ]
    for took, expected in ((3, (101, 4)), (5, (101, 4)), (9, (0, 0))):
        market = replay(*rows)
        market.market(1, 1, took)
        market.advance(1)
        if took < 9:
            assert market.best()[2] == (100 if took == 3 else expected[0])
        market.advance()
        asks = {3: (102, 5), 5: (103, 4), 9: (0, 0)}[took]
        assert market.best()[2:] == asks
        assert market.divergence().replaces_consumed == {3: 0, 5: 8, 9: 12}[took]


def test_replay_when_executions_are_hidden_or_name_no_order_then_no_queue_moves():
    rows = [
        add(0, BUY, 100, 5, 1),
        (2, TRADE, SELL, 100, 4, 1, int(Flag.HIDDEN)),
        (3, TRADE, SELL, 100, 4, 0),
        add(4, BUY, 99, 1, 2),
    ]
    market = replay(*rows)
    mine = market.limit(1, 1, 100, 3)
    market.advance()
    assert market.lots_ahead(mine) == 5
    assert market.best()[:2] == (100, 8)


HALT = [add(0, SELL, 100, 5, 1), (2, int(Kind.HALT), NONE, 0, 0), add(9, SELL, 101, 5, 2)]


@pytest.mark.parametrize("hold", [False, True])
def test_replay_when_trading_halts_then_orders_wait_or_are_refused_and_cancels_are_taken(hold):
    market = replay(*HALT, settings=ReplaySettings(0, hold_in_halt=hold))
    resting = market.limit(1, 1, 99, 5)
    moved = market.limit(1, 1, 98, 5)
    taker, asked, swept = market.limit(3, 1, 100, 4), market.limit(3, 1, 100, 4), market.market(3, 1, 4)
    market.replace(3, moved, 97, 5)
    market.cancel(4, resting)
    market.cancel(4, asked)
    market.advance(5)
    refused = (OrderStatus.REJECTED, Reason.HALTED, 0)
    assert market.order(taker) == ((OrderStatus.HELD, Reason.NONE, 0) if hold else refused)
    assert market.order(asked) == ((OrderStatus.CANCELLED, Reason.ASKED, 0) if hold else refused)
    assert market.order(swept) == refused
    assert market.order(resting)[0] == OrderStatus.CANCELLED
    assert market.order(moved) == (OrderStatus.RESTING, Reason.HALTED, 0)
    market.advance()
    assert market.order(taker)[2] == (4 if hold else 0)


def test_replay_when_the_book_is_lost_then_own_orders_wait_behind_the_next_snapshot():
    carried, last = int(Flag.CARRIED), int(Flag.CARRIED | Flag.LAST)
    rows = [
        add(0, BUY, 100, 5, 1),
        (2, int(Kind.CLEAR), NONE, 0, 0, 0, int(Flag.GAP)),
        (4, int(Kind.CLEAR), NONE, 0, 0, 0, carried),
        add(4, BUY, 100, 7, 1, carried),
        add(4, BUY, 100, 8, 3, last),
        (6, TRADE, SELL, 100, 16, 1),
    ]
    market = replay(*rows)
    mine = market.limit(1, 1, 100, 5)
    late = market.limit(3, 1, 100, 5)
    market.advance(3)
    assert market.order(late) == (OrderStatus.REJECTED, Reason.HALTED, 0)
    assert market.best() == (0, 0, 0, 0)
    assert market.lots_ahead(mine) == -1
    market.advance(4)
    assert market.lots_ahead(mine) == 15
    market.advance()
    assert market.order(mine)[2] == 0
