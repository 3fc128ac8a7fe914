"""The depth book of real Binance dumps against the best quotes that Binance sent beside it, and across midnight."""

import gzip
import json
from bisect import bisect_left, bisect_right, insort
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.lake import Partition
from feature_repo.pipeline.books import build_book
from feature_repo.ticks import binance
from feature_repo.ticks.binance import BinanceReader
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from feature_repo.ticks.standing import read_standing

BTC_2023 = ("usdm_btcusdt_20230404.dat.gz", "usdm_btcusdt_20230405.dat.gz")
BTC_2024 = ("usdm_btcusdt_20240718.gz", "usdm_btcusdt_20240719.gz")
ETH_2024 = ("usdm_ethusdt_20240718.gz", "usdm_ethusdt_20240719.gz")
SPOT = "spot_btcusdt_20230405.dat.gz"
DAYS = (*BTC_2023, *BTC_2024, *ETH_2024)


class Sides:
    """A plain book: a dictionary and a sorted list of prices a side."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.lots, self.prices = {Side.BUY: {}, Side.SELL: {}}, {Side.BUY: [], Side.SELL: []}

    def put(self, side, price, size):
        lots, prices = self.lots[side], self.prices[side]
        if size and price not in lots:
            insort(prices, price)
        if size:
            lots[price] = size
        elif lots.pop(price, None) is not None:
            del prices[bisect_left(prices, price)]

    @property
    def best(self):
        """(bid price, bid size, ask price, ask size)."""
        bid, ask = self.prices[Side.BUY][-1], self.prices[Side.SELL][0]
        return bid, self.lots[Side.BUY][bid], ask, self.lots[Side.SELL][ask]


@pytest.fixture(scope="module")
def lake(real_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("binance")
    return out, ingest(IngestRequest("binance", real_data / "binance"), out)


def partition(name):
    market, symbol, day = name.split(".")[0].split("_")
    return Partition(binance.VENUES[market], symbol.upper(), f"{day[:4]}-{day[4:6]}-{day[6:]}")


def events_of(lake, name):
    return pq.read_table(partition(name).folder(lake[0]) / "events.parquet", partitioning=None)


def columns(events):
    names = ("kind", "side", "price_ticks", "size", "order_id", "flags")
    return zip(*(events.column(name).to_pylist() for name in names), strict=True)


def replay(events):
    """Best prices and sizes after each depth message (by update number), and the quotes, in the order received.

    Gives `({number: best}, [(number, quote, number the book stood at)])`; only of the time when the book was whole.
    """
    book, whole, opened, stands = Sides(), False, False, 0
    bests, quotes, bid = {}, [], None
    for kind, side, price, size, number, flags in columns(events):
        if kind == Kind.CLEAR:
            book.clear()
            whole, opened = False, not flags & Flag.GAP
        elif kind == Kind.DEPTH and (whole or opened):
            book.put(Side(side), price, size)
            if flags & Flag.LAST:
                whole, stands = True, number
                bests[number] = book.best
        elif kind == Kind.QUOTE and side == Side.BUY:
            bid = price, size
        elif kind == Kind.QUOTE:
            quotes.append((number, (*bid, price, size), stands if whole else None))
    return bests, quotes


# Of each file: quotes that came when the book stood at their very update, updates that both streams name, and depth
# messages (after each the latest best quote of an earlier or equal update must be the book's best, sizes included).
COMPARABLE = {
    BTC_2023[0]: (0, 310, 4_323),
    BTC_2023[1]: (0, 1_255, 11_783),
    BTC_2024[0]: (24, 195, 3_320),
    BTC_2024[1]: (82, 430, 5_692),
    ETH_2024[0]: (28, 281, 3_263),
    ETH_2024[1]: (62, 553, 5_655),
}


@pytest.mark.parametrize("name", DAYS)
def test_binance_book_when_rebuilt_from_diffs_then_its_best_is_the_best_quote_on_every_comparable_tick(lake, name):
    bests, quotes = replay(events_of(lake, name))
    at_once = [(quote, bests[stands]) for number, quote, stands in quotes if stands == number]
    same = [(quote, bests[number]) for number, quote, _ in quotes if number in bests]
    numbers = [number for number, _, _ in quotes]
    latest = [
        (quotes[bisect_right(numbers, number) - 1][1], best)
        for number, best in bests.items()
        if numbers[0] <= number < numbers[-1]
    ]
    for pairs in (at_once, same, latest):
        assert [pair for pair in pairs if pair[0] != pair[1]] == []
    print(name, len(at_once), len(same), len(latest), "equal")
    assert (len(at_once), len(same), len(latest)) == COMPARABLE[name]


@pytest.mark.parametrize("name", DAYS)
def test_binance_book_when_the_platform_builds_it_then_quotes_compared_are_equal_and_nothing_is_missing(lake, name):
    events = events_of(lake, name)
    book, counts = build_book(events, 10, name)
    print(name, counts)
    bests, quotes = replay(events)
    reached = [stands for _, _, stands in quotes[1:]] + [max(bests)]
    compared = sum(  # of each side: at the very update that a quote names, or there before the next quote comes
        stands is not None and (number == stands or (number in bests and stands < number <= until))
        for (number, _, stands), until in zip(quotes, reached, strict=True)
    )
    assert counts.quotes_compared == counts.quotes_equal == 2 * compared > 0
    assert counts.gaps == 0
    assert np.all(book.two_sided[-1000:])


@pytest.mark.parametrize("name", DAYS)
def test_binance_book_when_the_platform_builds_it_then_its_best_is_the_plain_replay_s_at_every_message(lake, name):
    events = events_of(lake, name)
    bests, _ = replay(events)
    book, _ = build_book(events, 10, name)
    rows = np.stack([book.bid_px[:, 0], book.bid_sz[:, 0], book.ask_px[:, 0], book.ask_sz[:, 0]], axis=1)
    last = events.filter((events["kind"].to_numpy() == Kind.DEPTH) & (events["flags"].to_numpy() & int(Flag.LAST) != 0))
    by_time = {}
    for number, ts in zip(last["order_id"].to_pylist(), last["ts_event_ns"].to_pylist(), strict=True):
        if number in bests:
            by_time[ts] = bests[number]
    after = np.searchsorted(book.ts_ns, np.array(list(by_time)), side="right") - 1
    assert np.array_equal(rows[after], np.array(list(by_time.values())))


@pytest.mark.parametrize(("before", "after"), [BTC_2023, BTC_2024, ETH_2024])
def test_binance_book_when_the_next_day_has_no_snapshot_then_the_book_is_carried_over_midnight(lake, before, after):
    standing = read_standing(partition(before).folder(lake[0]))
    events = events_of(lake, after)
    kind, flags = events["kind"].to_numpy(), events["flags"].to_numpy()
    first = int(np.flatnonzero(kind == Kind.CLEAR)[0])
    carried = np.flatnonzero(flags & int(Flag.CARRIED))
    assert carried.tolist() == list(range(first, first + 1 + len(standing.size)))
    assert np.sum(kind == Kind.CLEAR) == 1 and not np.any(flags & int(Flag.GAP))
    assert not np.any(kind[:first] == Kind.DEPTH)
    got = {
        tuple(row)
        for row in np.stack([events[name].to_numpy()[carried[1:]] for name in ("side", "price_ticks", "size")], 1)
    }
    assert got == {tuple(row) for row in np.stack([standing.side, standing.price_ticks, standing.size], 1)}


def textbook(folder, names, tick, lot):
    """Binance's own procedure on the raw messages, with decimals: {(side, price): size} after the last of the files."""
    diffs, snapshot = [], None
    for name in names:
        with gzip.open(folder / name) as file:
            for line in file:
                message = json.loads(line.split(b" ", 1)[1])
                if "lastUpdateId" in message:
                    snapshot = message
                elif "@depth" in message["stream"]:
                    diffs.append(message["data"])
    book = {(side, price): size for side, key in ((1, "bids"), (-1, "asks")) for price, size in snapshot[key]}
    diffs = [item for item in diffs if item["u"] >= snapshot["lastUpdateId"]]
    assert diffs[0]["U"] <= snapshot["lastUpdateId"] <= diffs[0]["u"]
    assert all(b["pu"] == a["u"] for a, b in zip(diffs, diffs[1:], strict=False))
    for item in diffs:
        for side, key in ((1, "b"), (-1, "a")):
            book |= {(side, price): size for price, size in item[key]}
    whole = {(s, Decimal(price) / Decimal(tick)): Decimal(size) / Decimal(lot) for (s, price), size in book.items()}
    return diffs[-1]["u"], {key: size for key, size in whole.items() if size}


@pytest.mark.parametrize(
    ("names", "tick"),
    [(BTC_2023[:1], "0.1"), (BTC_2023, "0.1"), (BTC_2024, "0.1"), (ETH_2024[:1], "0.01"), (ETH_2024, "0.01")],
)
def test_binance_book_when_the_day_ends_then_every_level_is_that_of_binance_s_own_procedure(
    lake, real_data, names, tick
):
    standing = read_standing(partition(names[-1]).folder(lake[0]))
    keys = zip(standing.side.tolist(), standing.price_ticks.tolist(), strict=True)
    wanted = textbook(real_data / "binance", names, tick, "0.001")
    assert (standing.update_id, dict(zip(keys, standing.size.tolist(), strict=True))) == wanted


def test_binance_book_when_spot_has_no_snapshot_then_it_is_never_whole_but_known_levels_agree(lake):
    """Of quotes at the end of a diff: the diffs so far may know the size at the best prices, and nothing better."""
    events = events_of(lake, SPOT)
    assert read_standing(partition(SPOT).folder(lake[0])) is None
    _, counts = build_book(events, 10, SPOT)
    assert counts.quotes_compared == counts.gaps == 0 and counts.unwhole == 32_024
    quotes = {number: quote for number, quote, _ in replay(events)[1]}
    book, compared, ticks = Sides(), 0, 0
    for kind, side, price, size, number, flags in columns(events):
        if kind != Kind.DEPTH:
            continue
        book.put(Side(side), price, size)
        if not flags & Flag.LAST or number not in quotes:
            continue
        ticks += 1
        bid, bid_size, ask, ask_size = quotes[number]
        for which, best, wanted, better in (
            (Side.BUY, bid, bid_size, book.prices[Side.BUY][-1:]),
            (Side.SELL, ask, ask_size, book.prices[Side.SELL][:1]),
        ):
            assert not better or int(which) * (better[0] - best) <= 0
            if best in book.lots[which]:
                compared += 1
                assert book.lots[which][best] == wanted
    print(SPOT, ticks, compared, "equal")
    assert (ticks, compared) == (890, 1_780)


def test_binance_when_all_files_are_ingested_then_every_message_is_accounted_for_and_time_never_runs_back(lake):
    out, summary = lake
    assert {item["path"]: item["vendor_rows"] for item in summary["inputs"]} == {
        SPOT: 15_088,
        **dict(zip(DAYS, (13_384, 60_381, 11_414, 60_570, 14_003, 55_910), strict=True)),
    }
    skipped = {
        Partition(*(item[k] for k in ("venue", "symbol", "date"))): item["skipped_rows"]
        for item in summary["partitions"]
    }
    assert {item: rows for item, rows in skipped.items() if rows} == {
        partition(BTC_2023[0]): 99,
        partition(BTC_2023[1]): 415,
    }
    for name in (SPOT, *DAYS):
        events = events_of(lake, name)
        ts, start = events["ts_event_ns"].to_numpy(), np.datetime64(partition(name).date, "ns").astype(int)
        assert np.all(np.diff(ts) >= 0) and ts[0] >= start and ts[-1] < start + 86_400 * 10**9
        assert np.array_equal(ts, events["ts_recv_ns"].to_numpy())
        flags = events["flags"].to_numpy()
        assert not np.any(flags & int(Flag.SUB_TICK))
        assert np.sum(flags & int(Flag.ODD_LOT) != 0) == (15 if name == SPOT else 0)
        assert np.sum(flags & int(Flag.DERIVED) != 0) == (1 if name == BTC_2023[1] else 0)  # INSURANCE_FUND


def test_binance_when_only_the_later_day_is_asked_for_then_the_book_is_carried_all_the_same(lake, real_data, tmp_path):
    request = IngestRequest("binance", real_data / "binance", ("ETHUSDT",), date_from="2024-07-19")
    (item,) = ingest(request, tmp_path)["partitions"]
    assert item["carried_rows"] == 4_222
    name = ETH_2024[1]
    assert events_of((tmp_path, None), name).equals(events_of(lake, name))


def test_binance_when_steps_are_told_by_the_files_then_they_are_the_known_ones(real_data, monkeypatch):
    monkeypatch.setattr(binance, "KNOWN_STEPS", {})
    instruments = BinanceReader().instruments(IngestRequest("binance", real_data / "binance"))
    assert {item.instrument_id: (item.tick_size, item.lot_size) for item in instruments} == {
        "BINANCE:BTCUSDT": (0.01, 0.00001),
        "BINANCE-USDM:BTCUSDT": (0.1, 0.001),
        "BINANCE-USDM:ETHUSDT": (0.01, 0.001),
    }


def test_binance_when_exchange_clock_then_all_events_stay_and_time_never_runs_back(real_data):
    request = IngestRequest(
        "binance", real_data / "binance", ("ETHUSDT",), "2024-07-18", "2024-07-18", {"clock": "exchange"}
    )
    reader, count = BinanceReader(), ReadCount()
    (plan,) = reader.plan(request)
    events = pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA)
    ts, recv = events["ts_event_ns"].to_numpy(), events["ts_recv_ns"].to_numpy()
    assert np.all(np.diff(ts) >= 0)
    assert np.min(ts - recv) / 1e6 > 1_300 and np.max(ts - recv) / 1e6 < 1_600  # ms that the local clock is behind
