"""Own orders whose market moves away from them, in the order-by-order replay."""

import numpy as np
import pytest
from order_events import add, table

from feature_repo.ticks.schema import Kind, Side
from training.market.impact import NS, OFF, ImpactParameters
from training.market.messages import pack_messages
from training.market.order_replay import COMMAND_DTYPE, OrderReplay, ReplaySettings
from training.market.replay_state import CommandKind, OrderStatus

BUY, SELL = int(Side.BUY), int(Side.SELL)
BID, ASK = 9_999, 10_001  # a tick is a basis point
PERMANENT = ImpactParameters(1000.0, (), (), 0.0, 100.0, 1000.0)  # a lot moves the price by a basis point
FADING = ImpactParameters(0.0, (1000.0,), (10.0,), 0.0, 100.0, 1000.0)
LAST = 10_000 * NS


def still(*rows):
    """A book of a million lots on either side, and what else happens."""
    # the far orders hold the window of prices open
    far = [add(1, BUY, 9_000, 1, 3), add(1, SELL, 11_000, 1, 4)]
    first = [add(1, BUY, BID, 10**6, 1), add(1, SELL, ASK, 10**6, 2), *far]
    return pack_messages(table(*first, *rows, add(LAST, BUY, 9_500, 1, 5)))


def market(impact, *rows):
    return OrderReplay(still(*rows), ReplaySettings(order_latency_ns=0, impact=impact))


def test_second_purchase_meets_the_book_that_the_first_one_moved_and_a_sale_does_not():
    replay = market(PERMANENT)
    replay.market(2, 1, 10)
    replay.market(3, 1, 10)
    replay.market(3, -1, 4)
    replay.advance(3)
    first, second, sale = replay.fills["price"].tolist()
    assert first - ASK in (5, 6)  # half of its own displacement
    assert second - ASK in (15, 16, 17)  # that of the first, and half of its own
    assert sale == BID - 2  # half of its own; what the purchases did is not paid out
    buyer, seller = replay.shifts()
    assert buyer in (16, 17) and seller == 0


def test_displacement_decays_and_the_other_side_takes_it_back():
    replay = market(FADING)
    replay.market(NS, 1, 40)
    replay.advance(NS)
    assert replay.shifts()[0] in (40, 41)
    replay.advance(11 * NS)
    assert replay.shifts()[0] in (14, 15)
    replay.market(11 * NS, -1, 40)
    replay.advance(11 * NS)
    assert replay.shifts()[0] == 0 and replay.shifts()[1] in (-25, -26)
    replay.advance(LAST)
    assert abs(replay.shifts()[1]) <= 1


def test_asking_for_the_shifts_changes_no_byte():
    asked, left_alone = market(FADING), market(FADING)
    for replay in (asked, left_alone):
        replay.market(NS, 1, 40)
        for k in range(1, 300):
            replay.advance(NS + k * NS // 7)
            if replay is asked:
                assert replay.shifts()[0] >= 0
        replay.market(44 * NS, 1, 1)
        replay.advance(44 * NS)
    assert asked.fills.tobytes() == left_alone.fills.tobytes()
    assert asked._market.impact.tobytes() == left_alone._market.impact.tobytes()


def test_order_rests_in_the_queue_of_its_price_less_the_shift_and_is_filled_at_its_own():
    trades = [(5 * NS, int(Kind.TRADE), BUY, BID - 1, lots, order) for lots, order in ((50, 6), (10, 7))]
    replay = market(PERMANENT, add(2, BUY, BID - 1, 50, 6), (4 * NS, int(Kind.CANCEL), BUY, BID, 10**6, 1),
                    add(4 * NS, BUY, BID - 1, 50, 7), *trades)  # fmt: skip
    replay.market(3, 1, 4)
    order = replay.limit(NS, 1, BID - 1 + 4, 20)
    replay.advance(2 * NS)
    shift = replay.shifts()[0]
    assert replay.order(order)[0] == OrderStatus.RESTING and shift in (4, 5)
    if shift == 4:
        assert replay.lots_ahead(order) == 50
    replay.advance(6 * NS)
    mine = replay.fills[replay.fills["order"] == order]
    assert (mine["price"] == BID + 3).all() and (mine["maker"] == 1).all()
    assert mine["lots"].sum() == (10 if shift == 4 else 0)


def test_limit_is_held_however_large_the_concession():
    replay = market(ImpactParameters(5000.0, (), (), 5.0, 500.0, 1000.0))
    for at, price in ((2, ASK), (3, ASK + 30), (4, ASK + 400)):
        replay.limit(at, 1, price, 10)
    replay.advance(4)
    limits = {0: ASK, 1: ASK + 30, 2: ASK + 400}
    assert len(replay.fills) >= 2
    for fill in replay.fills:
        assert ASK <= fill["price"] <= limits[int(fill["order"])]


@pytest.mark.parametrize(
    "impact", [PERMANENT, FADING, ImpactParameters(50.0, (70.0, 30.0), (1.0, 50.0), 0.5, 80.0, 900.0)]
)
@pytest.mark.parametrize("seed", range(6))
def test_no_fill_is_better_than_the_book_and_no_round_trip_earns(impact, seed):
    rng = np.random.default_rng(seed)
    replay, at, position = market(impact), 2, 0
    for _ in range(60):
        at += int(rng.integers(1, 5 * NS))
        side, lots = int(rng.choice([-1, 1])), int(rng.integers(1, 30))
        position += side * lots
        replay.market(at, side, lots)
    if position:
        replay.market(at + 1, -int(np.sign(position)), abs(position))
    replay.advance(at + 2)
    fills = replay.fills
    sign = np.where(fills["side"] == 0, 1, -1)
    assert (sign * fills["lots"]).sum() == 0
    assert (sign * (fills["price"] - np.where(sign > 0, ASK, BID)) >= 0).all()
    cash = (sign * fills["lots"] * fills["price"].astype(np.int64)).sum()
    assert cash >= (ASK - BID) * fills["lots"].sum() / 2


def test_resting_on_one_side_after_taking_on_the_other_earns_nothing_of_the_own_displacement():
    """The trade that would pay: buy, wait for the price to be up, sell by resting up there."""
    sell_side = [add(2, SELL, ASK + 5, 10, 6), (3 * NS, int(Kind.CANCEL), SELL, ASK, 10**6, 2)]
    take = (4 * NS, int(Kind.TRADE), SELL, ASK + 5, 10, 6)
    replay = market(PERMANENT, *sell_side, add(3 * NS, SELL, ASK + 6, 1000, 7), take)
    replay.market(2, 1, 30)
    order = replay.limit(NS, -1, ASK + 5, 10)
    replay.advance(NS)
    assert replay.shifts()[0] >= 30 and replay.shifts()[1] == 0
    assert replay.order(order)[0] == OrderStatus.RESTING  # at its own price in the book, not thirty ticks nearer
    assert replay.lots_ahead(order) == 10


def test_own_orders_that_meet_each_other_displace_nothing_and_share_a_price():
    replay = market(PERMANENT)
    replay.market(2, 1, 6)
    replay.limit(3, -1, 10_000, 5, trader=1)
    replay.limit(4, 1, 10_000 + replay.shifts()[0] + 20, 5, trader=2)
    replay.advance(4)
    before = replay.shifts()
    among = replay.fills[replay.fills["history"] == 0]
    assert len(among) == 2 and len(set(among["price"].tolist())) == 1
    assert before[0] in (6, 7)


def random_commands(rng, count):
    commands = np.zeros(count, COMMAND_DTYPE)
    commands["arrive_ns"] = np.sort(rng.integers(2, LAST, count))
    commands["kind"] = rng.choice([int(CommandKind.LIMIT), int(CommandKind.MARKET)], count)
    commands["order"], commands["side"] = np.arange(count), rng.integers(0, 2, count)
    commands["price"], commands["lots"] = 10_000 + rng.integers(-5, 6, count), rng.integers(1, 20, count)
    commands["trader"] = rng.integers(0, 3, count)
    return commands


def test_impact_that_is_off_changes_no_byte_and_one_that_is_on_is_repeatable():
    day, commands = still(), random_commands(np.random.default_rng(0), 400)
    runs = []
    for impact in (None, OFF, PERMANENT.scaled(0), FADING, FADING):
        replay = OrderReplay(day, ReplaySettings(order_latency_ns=0, impact=impact))
        replay.schedule(commands)
        replay.advance()
        runs.append((replay.fills.tobytes(), replay.divergence()))
    assert runs[0] == runs[1] == runs[2] and runs[3] == runs[4] and runs[3] != runs[0]
    assert replay.divergence().dropped == 0


def test_replace_takes_the_translation_of_its_own_time():
    replay = market(PERMANENT)
    order = replay.limit(2, 1, BID, 10)
    replay.advance(2)
    assert replay.lots_ahead(order) == 10**6
    replay.market(3, 1, 20)
    replay.replace(4, order, BID, 10)
    replay.advance(4)
    assert replay.lots_ahead(order) == 10**6  # the same price and no more lots: the place is kept
    replay.replace(5, order, BID + 1, 10)
    replay.advance(5)
    assert replay.order(order)[0] == OrderStatus.RESTING and replay.lots_ahead(order) == 0
