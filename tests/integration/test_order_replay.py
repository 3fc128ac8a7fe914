"""Days replayed order by order: history untouched without an agent, and every lot accounted for with one."""

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.pipeline.books import build_book
from feature_repo.ticks.batches import event_batch
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind
from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events
from training.market import replay_state as places
from training.market.messages import pack_messages
from training.market.order_replay import COMMAND_DTYPE, OrderReplay, ReplaySettings
from training.market.replay_state import CommandFlag, CommandKind, OrderStatus, SelfTrade

SECOND = 1_000_000_000


def synthetic_events(seed, hours=0.5):
    reader = SyntheticReader()
    request = IngestRequest("synthetic", options={"days": 1, "seed": seed, "dirt": 0.0, "hours": hours})
    (plan,) = reader.plan(request)
    events = clean_events(SyntheticOptions.parse(plan.options), plan.partition)
    return pa.Table.from_batches([event_batch(events, 0)])


def vendor_days(folder, source, symbols=(), **options):
    """Events of each day that a reader finds, in time order."""
    reader, request = get_reader(source), IngestRequest(source, folder, symbols, options=options)
    keys = [("ts_event_ns", "ascending"), ("sequence", "ascending")]
    for plan in reader.plan(request):
        yield pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA).sort_by(keys)


def assert_history_untouched(events, depth, unknown="refuse"):
    expected, _ = build_book(events, depth)
    day = pack_messages(events, unknown=unknown)
    found = OrderReplay(day).record(depth)
    for name in ("ts_ns", "bid_px", "bid_sz", "ask_px", "ask_sz", "trade_px", "trade_sz"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    told = found.trade_side != 0  # where the vendor does not say, the book infers what messages leave open
    np.testing.assert_array_equal(found.trade_side[told], expected.trade_side[told])
    market = OrderReplay(day)
    market.advance()
    left = vars(market.divergence())
    assert left.pop("book_lots") >= 0
    assert set(left.values()) == {0}
    return day


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_replay_when_no_agent_trades_on_a_synthetic_day_then_the_book_is_history_s(seed):
    events = synthetic_events(seed)
    day = assert_history_untouched(events, 5)
    executed = np.sum(events["kind"].to_numpy() == Kind.TRADE)
    assert np.sum(day.events["flags"] & 2 > 0) == executed  # every execution met the first of the best level


@pytest.mark.parametrize(("symbol", "options"), [("AMZN", {}), ("AAPL", {"date": "2012-06-21"})])
def test_replay_when_no_agent_trades_on_lobster_then_the_book_is_the_vendor_s(real_data, symbol, options):
    (events,) = vendor_days(real_data / "lobster", "lobster", (symbol,), **options)
    assert_history_untouched(events, 10)


def test_replay_when_no_agent_trades_on_databento_then_the_book_is_history_s(real_data):
    days = [assert_history_untouched(events, 10) for events in vendor_days(real_data / "databento", "databento")]
    assert sum(day.counts.paired for day in days) > 5_000  # prints and their cancels are executions again


def test_replay_when_no_agent_trades_on_bitstamp_then_no_order_is_unaccounted(real_data):
    (events,) = vendor_days(real_data / "bitstamp", "bitstamp")
    day = assert_history_untouched(events, 10, unknown="count")
    assert day.counts.unknown_orders == build_book(events, 10)[1].unknown_order


def random_agent(day, seed, count):
    """Messages of two traders over a day: orders at and around the prices of the moment, cancels, replaces."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(day.events["ts_ns"], count))
    priced = np.flatnonzero(day.events["kind"] == 2)
    near = priced[np.minimum(np.searchsorted(day.events["ts_ns"][priced], times), len(priced) - 1)]
    kind = rng.choice([1, 2, 3, 4], count, p=[0.6, 0.1, 0.2, 0.1])
    kind[0] = 1
    new = kind <= 2
    number = np.cumsum(new) - 1
    commands = np.zeros(count, COMMAND_DTYPE)
    commands["arrive_ns"], commands["kind"] = times, kind
    commands["order"] = np.where(new, number, np.maximum(0, number - rng.integers(0, 20, count)))
    commands["side"], commands["trader"] = rng.integers(0, 2, count), rng.integers(0, 2, count)
    commands["price"] = day.events["price"][near] + rng.integers(-4, 5, count)
    commands["lots"] = rng.geometric(0.05, count)
    flags = rng.choice([0, int(CommandFlag.POST_ONLY), int(CommandFlag.IOC)], count)
    commands["flags"] = np.where(kind == CommandKind.LIMIT, flags, 0)
    return commands


def resting_lots(market):
    """Historical and own lots that rest, counted node by node; no level may be crossed."""
    arrays = market._market
    state, nodes = arrays.state, arrays.nodes
    own_base, levels = int(state[places.OWN_BASE]), market.day.levels
    historical = own = 0
    for level in np.flatnonzero(nodes["lots"][:levels]):
        node, total = int(nodes["next"][level]), 0
        while node != level:
            lots = int(nodes["lots"][node])
            assert lots > 0
            total += lots
            if node < own_base:
                historical += lots
            else:
                own += lots
            node = int(nodes["next"][node])
        assert total == nodes["lots"][level]
    return historical, own


@pytest.mark.parametrize("self_trade", list(SelfTrade))
@pytest.mark.parametrize("seed", [1, 2])
def test_replay_when_an_agent_trades_then_every_lot_is_accounted_for(seed, self_trade):
    day = pack_messages(synthetic_events(seed))
    market = OrderReplay(day, ReplaySettings(0, 0, self_trade))
    market.schedule(random_agent(day, seed, 3_000))
    for moment in np.quantile(day.events["ts_ns"], [0.2, 0.4, 0.6, 0.8, 1.0]).astype(np.int64):
        market.advance(int(moment))
        found = market.divergence()
        historical, own = resting_lots(market)
        # what rests of history's lots is what rests in history, moved by what each counter says
        assert historical == found.book_lots - found.taken + found.made_by_trades + found.nothing_found + (
            found.cancels_consumed - found.cancels_surplus + found.replaces_changed
        ) - (found.made_by_arrivals + 2 * found.arrivals_met + found.dropped)
        table = market._market.own[: market._market.state[places.ORDERS]]
        alive = table["status"] == OrderStatus.RESTING
        assert own == int((table["lots"] - table["filled"])[alive].sum())
        bid, bid_lots, ask, ask_lots = market.best()
        assert not (bid_lots and ask_lots) or bid < ask
    fills = market.fills
    filled = np.zeros(len(table), np.int64)
    np.add.at(filled, fills["order"], fills["lots"])
    np.testing.assert_array_equal(filled, table["filled"])
    met = fills["history"] == 1
    assert int(fills["lots"][met & (fills["maker"] == 0)].sum()) == found.taken
    assert int(fills["lots"][met & (fills["maker"] == 1)].sum()) == found.made_by_trades + found.made_by_arrivals
    assert fills["lots"][~met & (fills["maker"] == 1)].sum() == fills["lots"][~met & (fills["maker"] == 0)].sum()
    assert found.taken > 0 and found.made_by_trades > 0 and found.rerouted > 0 and found.cancels_consumed > 0


def test_replay_when_the_same_agent_comes_again_then_every_byte_is_the_same():
    day = pack_messages(synthetic_events(3, hours=0.1))
    commands = random_agent(day, 4, 500)
    runs = []
    for steps in (1, 7):  # however the day is cut into calls
        market = OrderReplay(day, ReplaySettings(0))
        market.schedule(commands)
        for moment in np.linspace(day.events["ts_ns"][0], day.events["ts_ns"][-1], steps + 1).astype(np.int64)[1:]:
            market.advance(int(moment))
        runs.append((market.fills.tobytes(), market._market.nodes.tobytes(), market.divergence()))
    assert runs[0] == runs[1]


def test_replay_when_a_level_is_swept_twice_then_the_second_sweep_gets_nothing():
    events = synthetic_events(7, hours=0.1)
    day = pack_messages(events)
    market = OrderReplay(day, ReplaySettings(0))
    start = int(day.events["ts_ns"][0]) + 60 * SECOND
    market.advance(start)
    _, _, ask, lots = market.best()
    first = market.limit(start, 1, ask, lots, ioc=True)
    second = market.limit(start, 1, ask, lots, ioc=True)
    market.advance(start)
    assert market.order(first)[2] == lots
    assert market.order(second)[2] == 0
    assert market.best()[2] > ask


def test_replay_when_recorded_with_own_orders_then_the_book_shows_them():
    day = pack_messages(synthetic_events(7, hours=0.1))
    start = int(day.events["ts_ns"][0]) + 60 * SECOND
    market = OrderReplay(day, ReplaySettings(0))
    market.advance(start)
    bid, bid_lots, _, _ = market.best()
    market.limit(start, 1, bid, 5)
    assert market.best()[:2] == (bid, bid_lots)
    book = market.record(3, start)
    assert (book.bid_px[-1, 0], book.bid_sz[-1, 0], book.ts_ns[-1]) == (bid, bid_lots + 5, start)
