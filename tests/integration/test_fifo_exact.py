"""The fill model fifo against the order-by-order market: many resting orders, each alone in its own copy of a day.

On synthetic days every fill is the same, time and lots, also after own lots have changed history: what stands behind an
own order cannot reach it, and what stands before it knows nothing of it. On vendors' days three things set the two
apart, and the tests hold each to what was counted:

* an order that crosses history's own book and rests on there, through our price (Bitstamp tells executions after the
  order that caused them; a print of CME's precedes the lots that it takes off): the engine fills us once history's book
  is in order again, the market leaves the two crossed;
* executions of orders whose lots the vendor's depth had denied (LOBSTER at level 1): they are executions here, the
  market cancels what it knows of nobody;
* orders that history moves after own lots had met them: here they are history's, there they have been filled.
"""

from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import NS, make_day
from test_order_replay import synthetic_events, vendor_days

from feature_repo.pipeline.books import build_book
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from training.market.engine import Engine
from training.market.messages import pack_messages
from training.market.order_replay import OrderReplay, ReplaySettings
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE

LATENCY_NS = 10_000_000


def day_of(events, depth):
    """A MarketDay of the events' book and leaves, its one session window the whole day."""
    book, _ = build_book(events, depth)
    window = (int(book.ts_ns[0]), int(book.ts_ns[-1]) + 3600 * NS)
    return replace(make_day([(0, [(1, 1)], [(2, 1)], None)], depth), book=book, windows=(window,),
                   leaves=LeafBuilder(depth).add(events))  # fmt: skip


def random_orders(book, count, horizon_ns, seed):
    """Parents and one resting order each: at the best price, up to two behind it or one before it."""
    rng = np.random.default_rng(seed)
    sane = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0) & (book.ask_px[:, 0] > book.bid_px[:, 0])
    first, last = int(book.ts_ns[np.argmax(sane)]), int(book.ts_ns[-1]) - 2 * horizon_ns
    parents, messages = np.zeros(count, PARENT_DTYPE), np.zeros(count, INSTRUCTION_DTYPE)
    parents["start_ns"] = np.sort(rng.integers(first, last, count))
    parents["side"], parents["horizon_ns"], parents["lots"] = 1 - 2 * rng.integers(0, 2, count), horizon_ns, 10**6
    row = np.searchsorted(book.ts_ns, parents["start_ns"], side="right") - 1
    buys = parents["side"] > 0
    own = np.where(buys, book.bid_px[row, 0], book.ask_px[row, 0])
    opposite = np.where(buys, book.ask_px[row, 0], book.bid_px[row, 0])
    price = own - parents["side"] * rng.choice([-1, 0, 0, 0, 1, 1, 2], count)
    marketable = parents["side"] * (price - opposite) >= 0
    messages["send"], messages["rest_px"] = 1, np.where(marketable, own, price)
    messages["rest_lots"] = rng.choice([1, 5, 20, 100, 500], count)
    sane_start = sane[row]
    return parents[sane_start], messages[sane_start]


def fills_by_moment(ts_ns, price, lots):
    """Lots by (time, price), sorted."""
    found = {}
    for key in zip(ts_ns.tolist(), price.tolist(), lots.tolist(), strict=True):
        found[key[:2]] = found.get(key[:2], 0) + key[2]
    return sorted((*key, lots) for key, lots in found.items())


def compare(events, depth, count, horizon_s, seed, unknown="refuse"):
    """Orders, those of them that the market fills, those whose first fill differs, those any of whose fills do."""
    horizon_ns = horizon_s * NS
    day = day_of(events, depth)
    parents, messages = random_orders(day.book, count, horizon_ns, seed)
    engine = Engine([day], len(parents), LATENCY_NS, "fifo", fill_capacity=1 << 18)
    engine.start(parents, record=np.ones(len(parents), np.int64))
    engine.submit(parents["start_ns"], messages)
    engine.advance(parents["start_ns"] + horizon_ns)
    fills, packed = engine.fills(), pack_messages(events, unknown=unknown)
    filled = first = any_differs = 0
    for i, (parent, message) in enumerate(zip(parents, messages, strict=True)):
        market = OrderReplay(packed, ReplaySettings(LATENCY_NS))
        start = int(parent["start_ns"])
        market.advance(start)
        market.limit(start, int(parent["side"]), int(message["rest_px"]), int(message["rest_lots"]))
        market.advance(start + horizon_ns)
        own, truth = fills[fills["episode"] == i], market.fills
        here = fills_by_moment(own["ts_ns"], own["price_ticks"], own["lots"])
        there = fills_by_moment(truth["ts_ns"], truth["price"], truth["lots"])
        filled += bool(there)
        first += here[:1] != there[:1]
        any_differs += here != there
    return len(parents), filled, first, any_differs


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_fifo_on_a_synthetic_day_then_gives_the_fills_of_the_order_by_order_market(seed):
    orders, filled, first, differ = compare(synthetic_events(seed, hours=0.5), 5, 150, 60, seed)
    assert (first, differ) == (0, 0) and filled > orders // 2


@pytest.mark.slow
def test_fifo_on_longer_synthetic_days_then_gives_the_fills_of_the_order_by_order_market():
    for seed in range(20, 26):
        orders, filled, _, differ = compare(synthetic_events(seed, hours=2), 10, 500, 120, seed)
        assert differ == 0 and filled > orders // 2


@pytest.mark.parametrize(
    ("symbol", "options", "most"),
    [("AMZN", {}, 0.13), ("AAPL", {"date": "2012-06-21"}, 0.0)],
)
def test_fifo_on_lobster_then_differs_where_depth_had_denied_lots(real_data, symbol, options, most):
    (events,) = vendor_days(real_data / "lobster", "lobster", (symbol,), **options)
    orders, filled, first, _ = compare(events, 10, 200, 60 if symbol == "AMZN" else 10, 1)
    assert first <= most * orders and filled > 10


def test_fifo_on_databento_then_differs_where_an_aggressor_rests_before_its_prints_are_taken_off(real_data):
    days = [events for events in vendor_days(real_data / "databento", "databento") if len(events) > 20_000]
    orders, filled, first, _ = compare(days[0], 10, 200, 600, 2)
    assert first <= 0.01 * orders


def test_fifo_on_bitstamp_then_differs_where_history_crosses_itself(real_data):
    (events,) = vendor_days(real_data / "bitstamp", "bitstamp")
    orders, filled, first, _ = compare(events, 10, 200, 600, 3, unknown="count")
    assert first <= 0.1 * orders and filled > orders // 2
