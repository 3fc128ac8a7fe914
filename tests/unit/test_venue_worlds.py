"""The venue's worlds in process: the depth world against the engine of training, the order world's life of an order."""

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns, random_rows
from market_folders import synthetic_folders
from order_events import add, table

from feature_repo.errors import InputError
from feature_repo.ticks.schema import Kind, Side
from serving.wire.messages import CancelOrder, MassStatus, NewOrder, ReplaceOrder, StatusOrder
from training.market.engine import Engine
from training.market.messages import pack_messages
from training.market.order_replay import ReplaySettings
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE
from training.market.venue.core import CancelReject, Execution, NothingOpen, Shown, Venue
from training.market.venue.days import depth_listings, silver_listings, synthetic_listings
from training.market.venue.depth_world import DepthWorld
from training.market.venue.order_world import OrderWorld
from training.market.venue.world import Row, Turn


class Agent:
    """Decides at random what shall rest and what is taken, and says it as instructions or as orders of a parent."""

    def __init__(self, seed, side):
        self.rng, self.side = np.random.default_rng(seed), side

    def decide(self, bid, ask):
        own, other = (bid, ask) if self.side > 0 else (ask, bid)
        kind = self.rng.integers(0, 5)
        lots = int(self.rng.integers(1, 120))
        if kind == 0:
            return 0, 0, 0
        if kind == 1:
            return 0, 0, lots
        if kind == 2:
            return own - self.side * int(self.rng.integers(0, 3)), lots, int(self.rng.integers(1, 40))
        if kind == 3:
            return other, lots, 0  # marketable, the rest of it rests
        return own - self.side * int(self.rng.integers(0, 3)), lots, 0


def quotes(day, ts_ns):
    row = int(np.searchsorted(day.book.ts_ns, ts_ns, side="right")) - 1
    return int(day.book.bid_px[row, 0]), int(day.book.ask_px[row, 0])


def by_engine(day, start, side, seed, steps, step_ns):
    engine = Engine([day], 1, fill_capacity=100_000)
    engine.start(np.array([(0, side, 1 << 40, start, 1)], PARENT_DTYPE), record=np.ones(1, np.int64))
    agent = Agent(seed, side)
    for step in range(steps):
        now = start + step * step_ns
        order = np.zeros(1, INSTRUCTION_DTYPE)
        order[0] = (1, *agent.decide(*quotes(day, now)), 0)
        engine.submit(np.array([now]), order)
        engine.advance(np.array([now + step_ns]))
    return [(int(f["ts_ns"]), int(f["price_ticks"]), int(f["lots"]), int(f["kind"]) == 1) for f in engine.fills()]


def by_venue(day, start, side, seed, steps, step_ns):
    venue = Venue({"T": DepthWorld(day)}, start_ns=start)
    agent, name, told, ids = Agent(seed, side), "buy" if side > 0 else "sell", [], 0
    rest = None  # the order that rests
    for step in range(steps):
        price, lots, cross = agent.decide(*quotes(day, start + step * step_ns))
        ids += 10
        working = {state.venue_order_id: state for state in venue.open_orders()}
        state = working.get(rest)
        common = {"account": "a", "symbol": "T", "side": name, "link": "P"}
        if state is not None and lots:
            total = state.filled_lots + lots
            venue.take("G", ReplaceOrder(f"{ids}", state.cl_ord_id, "T", name, price, total))
        elif state is not None:
            venue.take("G", CancelOrder(f"{ids}", state.cl_ord_id, "T", name))
        if cross:
            venue.take("G", NewOrder(f"{ids + 1}", type="market", price_ticks=None, lots=cross, tif="ioc", **common))
        if state is None and lots:
            venue.take("G", NewOrder(f"{ids + 2}", type="limit", price_ticks=price, lots=lots, tif="day", **common))
        for output in venue.advance(start + (step + 1) * step_ns):
            if isinstance(output, Execution) and output.what == "trade":
                told.append((output.ts_ns, *output.last, output.maker))
            if isinstance(output, Execution) and output.what == "new" and output.state.price_ticks:
                rest = output.state.venue_order_id
    return told


@pytest.mark.parametrize("snapshot", [False, True], ids=["latency", "next snapshot"])
@pytest.mark.parametrize("side", [1, -1], ids=["buy", "sell"])
@pytest.mark.parametrize("seed", range(1, 7))
def test_depth_world_gives_the_fills_of_training_for_the_orders_of_training(seed, side, snapshot):
    day = make_day(random_rows(np.random.default_rng(seed), 1500, step_ns=NS), snapshot=snapshot)
    start = open_ns() + 60 * NS
    wanted = by_engine(day, start, side, seed, 120, 10 * NS)
    assert by_venue(day, start, side, seed, 120, 10 * NS) == wanted and len(wanted) > 60


def test_depth_world_holds_an_immediate_order_to_its_limit_and_to_what_was_taken():
    rows = [(open_ns() + i * NS, [(99, 50)], [(101, 10), (102, 20), (103, 30)], None) for i in range(30)]
    venue = Venue({"T": DepthWorld(make_day(rows))}, start_ns=open_ns())
    order = {"account": "a", "symbol": "T", "side": "buy", "type": "limit", "tif": "ioc", "link": "P"}
    fills = []
    for number, limit in enumerate((101, 102, 100, 103)):
        venue.take("G", NewOrder(f"{number}", price_ticks=limit, lots=25, **order))
        for output in venue.advance(venue.now_ns + 2 * NS):
            if isinstance(output, Execution):
                fills.append((number, output.what, output.last))
    assert fills == [
        (0, "new", None), (0, "trade", (101, 10)), (0, "cancelled", None),
        (1, "new", None), (1, "trade", (102, 20)), (1, "cancelled", None),
        (2, "new", None), (2, "cancelled", None),
        (3, "new", None), (3, "trade", (103, 25)),
    ]  # fmt: skip


def test_depth_world_refuses_what_training_cannot_say():
    rows = [(open_ns() + i * NS, [(99, 50)], [(101, 10)], None) for i in range(30)]
    venue = Venue({"T": DepthWorld(make_day(rows))}, start_ns=open_ns())
    order = {"account": "a", "symbol": "T", "side": "buy", "type": "limit", "lots": 5, "link": "P"}
    for number, (price, tif) in enumerate(((98, "day"), (97, "day"), (99, "fok"))):
        venue.take("G", NewOrder(f"{number}", price_ticks=price, tif=tif, **order))
    venue.take("G", CancelOrder("9", "2", "T", "buy"))
    told = [item for item in venue.advance(venue.now_ns + 2 * NS) if not isinstance(item, Shown)]
    heard = {(item.state.cl_ord_id, item.what, item.text) for item in told if isinstance(item, Execution)}
    assert heard == {
        ("0", "new", None),
        ("1", "rejected", "one order of a kind for each parent and side at a time"),
        ("2", "rejected", "fill-or-kill is not offered"),
    }
    assert [item.reason for item in told if isinstance(item, CancelReject)] == ["the order was refused"]


def test_depth_world_closes_with_the_session_and_expires_what_rests():
    rows = [(open_ns() + i * NS, [(99, 50)], [(101, 10)], None) for i in range(30)]
    rows.append((open_ns() + 40 * NS, [], [], None))
    venue = Venue({"T": DepthWorld(make_day(rows))}, start_ns=open_ns() - NS)
    outputs = venue.advance(open_ns() + NS)
    venue.take("G", NewOrder("1", "a", "T", "buy", "limit", 98, 5, "day"))
    outputs += venue.advance(venue.closes_ns)
    turns = [item.what.status for item in outputs if isinstance(item, Shown) and isinstance(item.what, Turn)]
    assert turns == ["open", "unknown", "closed"]
    assert [item.what for item in outputs if isinstance(item, Execution)] == ["new", "expired"]


# The order world ------------------------------------------------------------------------------------------------------


@pytest.fixture
def venue():
    worlds = {
        name: item.world for name, item in synthetic_listings(["SYN1", "SYN2"], "2025-01-06", 0.05, 7, 0.6).items()
    }
    made = Venue(worlds)
    made.advance(made.now_ns + 10 * NS)
    return made


def best(venue, symbol="SYN1"):
    bid, _, ask, _ = venue.worlds[symbol].replay.best()
    return bid, ask


def told(venue, seconds=1):
    return [item for item in venue.advance(venue.now_ns + seconds * NS) if not isinstance(item, Shown)]


def limit(number, price, lots=10, tif="day", side="buy", symbol="SYN1", account="main"):
    return NewOrder(str(number), account, symbol, side, "limit", price, lots, tif)


def test_order_is_acknowledged_one_latency_later_and_trades_as_a_whole(venue):
    _, ask = best(venue)
    sent_ns = venue.now_ns
    venue.submit("G", limit(1, ask + 1, 8))
    new, *trades = told(venue)
    assert new.what == "new" and new.ts_ns == sent_ns + 10_000_000
    assert sum(item.last[1] for item in trades) == 8 and trades[-1].state.status == "filled"
    assert all(item.last[0] <= ask + 1 and not item.maker for item in trades)
    assert len({item.exec_id for item in (new, *trades)}) == 1 + len(trades)


def test_replace_and_cancel_answer_under_their_own_ids(venue):
    bid, _ = best(venue)
    venue.submit("G", limit(1, bid - 3))
    told(venue)
    venue.replace("G", ReplaceOrder("1-2", "1", "SYN1", "buy", bid - 4, 12))
    venue.cancel("G", CancelOrder("1-3", "1", "SYN1", "buy"))
    replaced, cancelled = told(venue)
    assert (replaced.what, replaced.state.cl_ord_id, replaced.orig) == ("replaced", "1-2", "1")
    assert (replaced.state.price_ticks, replaced.state.lots, replaced.state.left_lots) == (bid - 4, 12, 12)
    assert (cancelled.what, cancelled.state.cl_ord_id, cancelled.state.left_lots) == ("cancelled", "1-3", 0)


def test_cancel_that_meets_a_filled_order_is_rejected_and_the_fill_stands(venue):
    _, ask = best(venue)
    venue.submit("G", limit(1, ask + 3, 2))
    venue.cancel("G", CancelOrder("1-2", "1", "SYN1", "buy"))
    new, *trades, rejected = told(venue)
    assert sum(item.last[1] for item in trades) == 2
    assert isinstance(rejected, CancelReject) and rejected.status == "filled" and rejected.to == "cancel"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (CancelOrder("7", "6", "SYN1", "buy"), "order 6 is unknown"),
        (ReplaceOrder("7", "6", "SYN1", "buy", 5, 5), "order 6 is unknown"),
        (CancelOrder("1", "1", "SYN1", "buy"), "ClOrdID 1 was used before"),
        (ReplaceOrder("7", "1", "SYN1", "sell", 5, 5), "symbol and side of an order never change"),
    ],
)
def test_request_about_nothing_is_rejected_at_once(venue, message, reason):
    venue.submit("G", limit(1, best(venue)[0] - 3))
    told(venue)
    venue.take("G", message)
    assert [item.reason for item in venue.drain()] == [reason]


def test_orders_of_one_client_are_not_another_s(venue):
    venue.submit("G", limit(1, best(venue)[0] - 3))
    told(venue)
    venue.cancel("H", CancelOrder("1-2", "1", "SYN1", "buy"))
    venue.take("H", MassStatus("M"))
    rejected, nothing = venue.drain()
    assert rejected.venue_order_id == "NONE" and isinstance(nothing, NothingOpen)
    venue.take("G", MassStatus("M"))
    venue.take("G", StatusOrder("1", "SYN1", "buy", "S"))
    venue.take("G", StatusOrder("8", "SYN1", "buy", "S"))
    mass, one, unknown = venue.drain()
    assert mass.reports == 1 and mass.state == one.state and one.request == "S"
    assert unknown.state.venue_order_id == "NONE" and not unknown.state.is_open


def test_own_orders_do_not_trade_with_each_other(venue):
    bid, ask = best(venue)
    while ask - bid < 2:
        venue.advance(venue.now_ns + NS // 100)
        bid, ask = best(venue)
    venue.submit("G", limit(1, bid + 1, 5))
    venue.submit("G", limit(2, bid + 1, 5, side="sell"))
    heard = told(venue)
    assert [(item.state.cl_ord_id, item.what) for item in heard][:3] == [("1", "new"), ("2", "new"), ("1", "cancelled")]
    assert not [item for item in heard if item.what == "trade" and item.ts_ns == heard[0].ts_ns]
    assert heard[2].text == "would trade with itself"


def test_symbols_are_told_in_one_order_of_time_and_day_ends_closed(venue):
    venue.submit("G", limit(1, best(venue)[0] - 3))
    venue.submit("G", limit(2, best(venue, "SYN2")[0] - 3, symbol="SYN2"))
    outputs = venue.advance(venue.closes_ns)
    times = [item.what.ts_ns if isinstance(item, Shown) else item.ts_ns for item in outputs]
    assert times == sorted(times)
    assert [item.what for item in outputs[-2:]] == ["expired", "expired"] and not venue.open_orders()
    assert set(venue.status.values()) == {"closed"}
    venue.submit("G", limit(3, 5))
    assert venue.drain()[0].text == "the day is over"


def test_second_order_under_a_known_id_changes_nothing_and_is_answered_with_the_first_one_s_state(venue):
    bid, ask = best(venue)
    venue.submit("G", limit(1, bid - 3))
    told(venue)
    venue.submit("G", limit(1, ask + 2, 99))
    (status,) = told(venue)
    assert status.what == "status" and "used before" in status.text and status.state.price_ticks == bid - 3
    assert [state.lots for state in venue.open_orders()] == [10]


def test_sizes_and_prices_beyond_counting_are_refused_and_the_venue_goes_on(venue):
    bid, _ = best(venue)
    venue.submit("G", limit(1, bid - 3, 10**9))
    venue.submit("G", limit(2, 10**10, 5))
    venue.submit("G", limit(3, bid - 3, 5))
    venue.submit("G", limit(4, bid + 500_000, 5, side="sell"))
    for number in range(5, 18):
        venue.submit("G", limit(number, bid - 3, 10**8))
    heard = told(venue)
    venue.replace("G", ReplaceOrder("3-30", "3", "SYN1", "buy", bid - 3, 10**9))
    venue.replace("G", ReplaceOrder("3-31", "3", "SYN1", "buy", bid - 3, 10**8))
    heard += told(venue)
    refused = {
        item.state.cl_ord_id: item.text for item in heard if isinstance(item, Execution) and item.what == "rejected"
    }
    assert refused["1"] == "1000000000 lots exceed 100000000" and refused["2"].startswith("price of 10000000000 ticks")
    assert refused["4"] == "price outside the venue's window" and "lots asked for in all exceed" in refused["17"]
    rejected = [item.reason for item in heard if isinstance(item, CancelReject)]
    assert rejected[0] == "1000000000 lots exceed 100000000" and "in all exceed" in rejected[1]
    assert "3" in {state.cl_ord_id for state in venue.open_orders()}


def test_halt_is_shown_and_refuses_orders_until_trading_goes_on():
    second = 10**9
    ask, bid = add(second, int(Side.SELL), 110, 5, 1), add(second, int(Side.BUY), 90, 5, 2)
    halt = (5 * second, int(Kind.HALT), 0, 0, 0)
    resume = add(8 * second, int(Side.BUY), 91, 5, 3)
    day = pack_messages(table(ask, bid, halt, resume))
    world = OrderWorld(day, ((second, 20 * second),), 5, ReplaySettings(order_latency_ns=1000))
    venue = Venue({"SYN1": world}, start_ns=0)
    outputs = []
    for number, moment in enumerate((2, 6, 9), 1):
        outputs += venue.advance(moment * second)
        venue.submit("G", limit(number, 95))
    venue.cancel("G", CancelOrder("1-9", "1", "SYN1", "buy"))
    outputs += venue.advance(20 * second)
    turns = [(item.what.ts_ns // second, item.what.status) for item in outputs
             if isinstance(item, Shown) and isinstance(item.what, Turn)]  # fmt: skip
    assert turns[-3:] == [(5, "halted"), (8, "open"), (20, "closed")]
    heard = [(item.state.cl_ord_id, item.what) for item in outputs if isinstance(item, Execution)]
    assert heard == [("1", "new"), ("2", "rejected"), ("3", "new"), ("1-9", "cancelled"), ("3", "expired")]


def test_time_never_goes_back(venue):
    with pytest.raises(ValueError, match="time cannot go back"):
        venue.advance(venue.now_ns - 1)


def test_feed_without_orders_is_the_day_s_book():
    from training.market.order_replay import OrderReplay

    item = synthetic_listings(["SYN1"], "2025-01-06", 0.05, 7, 0.6)["SYN1"]
    alone = OrderReplay(item.world.replay.day).record(item.instrument.depth)
    venue, rows = Venue({"SYN1": item.world}), []
    while venue.now_ns < venue.closes_ns:
        outputs = venue.advance(min(venue.now_ns + 700_000_001, venue.closes_ns))
        rows += [output.what for output in outputs if isinstance(output, Shown) and isinstance(output.what, Row)]
    wanted = [
        (int(alone.ts_ns[i]), {int(p): int(s) for p, s in zip(alone.bid_px[i], alone.bid_sz[i], strict=True) if s > 0},
         int(alone.trade_sz[i]))
        for i in range(len(alone.ts_ns)) if alone.ts_ns[i] <= venue.closes_ns
    ]  # fmt: skip
    assert [(row.ts_ns, row.bids, row.trade[1]) for row in rows] == wanted and len(rows) > 500


# The reactive world ---------------------------------------------------------------------------------------------------


def reactive(seed=7):
    listing = synthetic_listings(["SYN1"], "2025-01-06", 0.05, seed, 0.6, reactive=True)["SYN1"]
    return Venue({"SYN1": listing.world})


def shown_book(outputs):
    return [item.what for item in outputs if isinstance(item, Shown) and isinstance(item.what, Row)][-1]


def test_reactive_world_is_the_same_for_the_same_seed_and_steps():
    runs = []
    for seed in (7, 7, 8):
        venue, rows = reactive(seed), []
        for _ in range(20):
            rows += [item for item in venue.advance(venue.now_ns + NS) if isinstance(item, Shown)]
        runs.append(rows)
    assert runs[0] == runs[1] != runs[2] and len(runs[0]) > 200


def test_reactive_world_shows_own_orders_and_holds_one_that_rests():
    venue = reactive()
    row = shown_book(venue.advance(venue.now_ns + 5 * NS))
    bid = max(row.bids)
    venue.submit("G", limit(1, bid, 1000))
    venue.submit("G", limit(2, bid - 1, 5))
    outputs = venue.advance(venue.now_ns + 11_000_000)
    heard = [(item.state.cl_ord_id, item.what) for item in outputs if isinstance(item, Execution)]
    assert heard == [("1", "new"), ("2", "rejected")] and shown_book(outputs).bids[bid] >= 1000
    venue.replace("G", ReplaceOrder("1-3", "1", "SYN1", "buy", bid - 2, 700))
    outputs = venue.advance(venue.now_ns + 11_000_000)
    assert [item.what for item in outputs if isinstance(item, Execution)] == ["replaced"]
    assert shown_book(outputs).bids[bid - 2] >= 700
    venue.cancel("G", CancelOrder("1-4", "1-3", "SYN1", "buy"))
    assert [item.what for item in told(venue)] == ["cancelled"]


def test_reactive_world_fills_add_up_and_never_pass_the_limit():
    venue, rng, orders = reactive(), np.random.default_rng(5), {}
    row = shown_book(venue.advance(venue.now_ns + 5 * NS))
    traded, number = {}, 0
    while venue.now_ns < venue.closes_ns - 2 * NS:
        number += 1
        side = "buy" if rng.random() < 0.5 else "sell"
        price = (max(row.bids) if side == "buy" else min(row.asks)) + int(rng.integers(-2, 3))
        kind = rng.integers(0, 3)
        if kind == 0:
            order = NewOrder(str(number), "a", "SYN1", side, "market", None, int(rng.integers(1, 300)), "ioc")
        else:
            order = limit(number, price, int(rng.integers(1, 200)), "day" if kind == 1 else "ioc", side)
        orders[order.cl_ord_id] = order
        venue.submit("G", order)
        for state in venue.open_orders():
            if state.status != "pending_new" and rng.random() < 0.3:
                number += 1
                venue.cancel("G", CancelOrder(f"c{number}", state.cl_ord_id, "SYN1", state.side))
        outputs = venue.advance(venue.now_ns + NS // 2)
        row = shown_book(outputs) if any(isinstance(i, Shown) and isinstance(i.what, Row) for i in outputs) else row
        assert max(row.bids) < min(row.asks)
        for item in outputs:
            if isinstance(item, Execution) and item.what == "trade":
                first = orders[item.state.cl_ord_id]
                traded[first.cl_ord_id] = traded.get(first.cl_ord_id, 0) + item.last[1]
                assert traded[first.cl_ord_id] == item.state.filled_lots <= first.lots
                if first.price_ticks:
                    assert (item.last[0] - first.price_ticks) * (1 if first.side == "buy" else -1) <= 0
    assert len(traded) > 100 and len(venue.open_orders()) <= 1


# Days from a lake -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return synthetic_folders(tmp_path_factory.mktemp("lake"), 1, 0.05)


def test_days_of_a_lake_show_their_book(folders):
    silver, features = folders
    date = "2025-01-06"
    recorded = Venue({"SYN1": silver_listings(silver, ["SYN1"], date)["SYN1"].world})
    depth = Venue({"SYN1": depth_listings(features, ["SYN1"], date)["SYN1"].world})
    rows = []
    for venue in (recorded, depth):
        outputs = venue.advance(venue.closes_ns)
        rows.append([item.what for item in outputs if isinstance(item, Shown) and isinstance(item.what, Row)])
    assert rows[0] == rows[1] and len(rows[0]) > 500


def test_days_that_a_lake_lacks_are_refused(folders):
    silver, features = folders
    for read, folder in ((silver_listings, silver), (depth_listings, features)):
        with pytest.raises(InputError, match="0 partitions of NOPE on 2025-01-06"):
            read(folder, ["NOPE"], "2025-01-06")
        with pytest.raises(InputError, match="0 partitions of SYN1 on 2020-01-06"):
            read(folder, ["SYN1"], "2020-01-06")
    with pytest.raises(InputError, match="fill_model 'hopeful' is none of"):
        depth_listings(features, ["SYN1"], "2025-01-06", fill_model="hopeful")


def test_venue_when_every_symbol_is_closed_then_the_next_stop_is_the_next_open():
    class Shut:
        depth = 1

        def __init__(self, *windows):
            self.windows = tuple((opens * NS, closes * NS) for opens, closes in windows)
            self.opens_ns, self.closes_ns = self.windows[0][0], self.windows[-1][1]

        def advance(self, until_ns):
            return []

    venue = Venue({"A": Shut((0, 100), (1000, 1100)), "B": Shut((0, 120), (2000, 2100))})
    stops = []
    while venue.now_ns < venue.closes_ns:
        venue.advance(venue.next_stop(10 * NS))
        stops.append(venue.now_ns // NS)
    assert stops[:14] == [*range(10, 140, 10), 140] and stops[14] == 1000  # 15 s after the last close it is passed over
    assert stops[25:27] == [1110, 1120] and stops[27] == 2000 and stops[-1] == 2100
