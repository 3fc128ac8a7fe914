import lzma

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book
from feature_repo.ticks import csv_numbers
from feature_repo.ticks.bitstamp import BitstampReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

HEADER = "id,timestamp,exchange.timestamp,price,volume,action,direction"
T0_MS = 1_430_438_404_518  # 2015-05-01
MIDNIGHT_MS = 1_430_524_800_000  # where 2015-05-02 begins
LOT = 1_000  # 1e-8 BTC


def write(folder, rows, name="orders.csv"):
    """Rows are (id, ms, price, lots or volume, action, side); a float volume is in lots."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [HEADER] + [
        f"{order},{ms},{ms // 1_000 * 1_000},{price},{volume},{action},{side}"
        for order, ms, price, volume, action, side in rows
    ]
    path = folder / name
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
    return path


def tables(data, **request):
    """Events and count of each day."""
    reader, out = BitstampReader(), {}
    for plan in reader.plan(IngestRequest("bitstamp", data, **request)):
        count = ReadCount()
        out[plan.partition.date] = pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA), count
    return out


def events(data):
    """(kind, side, price, size, order) of each event of the only day, and its count."""
    ((table, count),) = tables(data).values()
    columns = table.to_pydict()
    names = ("kind", "side", "price_ticks", "size", "order_id")
    return list(zip(*(columns[name] for name in names), strict=True)), count


def refusal(data, **request):
    with pytest.raises(InputError) as caught:
        tables(data, **request)
    return str(caught.value)


BID = (1, T0_MS, "236.47", 5 * LOT, "created", "bid")
ASK = (2, T0_MS + 1, "236.40", 7 * LOT, "created", "ask")  # arrives across the spread, as aggressors do
ADDED = [(Kind.ADD, Side.BUY, 23_647, 5, 1), (Kind.ADD, Side.SELL, 23_640, 7, 2)]


def test_bitstamp_when_orders_come_and_go_then_events_carry_receive_time_side_and_price(tmp_path):
    write(tmp_path, [BID, (1, T0_MS + 90, "236.47", 5 * LOT, "deleted", "bid")])
    ((table, count),) = tables(tmp_path).values()
    assert events(tmp_path)[0] == [ADDED[0], (Kind.CANCEL, Side.BUY, 23_647, 5, 1)]
    assert table["ts_event_ns"].to_pylist() == [T0_MS * 10**6, (T0_MS + 90) * 10**6]
    assert table["ts_recv_ns"].equals(table["ts_event_ns"]) and not any(table["flags"].to_pylist())
    assert (count.vendor_rows, count.skipped) == ({"orders.csv": 2}, {})


@pytest.mark.parametrize("off", [0, 1, -2])
@pytest.mark.parametrize("bid_first", [True, False])
def test_bitstamp_when_two_sides_stand_side_by_side_then_the_older_order_trades(tmp_path, off, bid_first):
    fills = [
        (1, T0_MS + 120, "236.47", 2 * LOT, "changed", "bid"),
        (2, T0_MS + 122, "236.40", 4 * LOT + off, "changed", "ask"),
    ]
    expected = [(Kind.TRADE, Side.SELL, 23_647, 3, 1), (Kind.CANCEL, Side.SELL, 23_640, 3 - (off > 0), 2)]
    order = slice(None) if bid_first else slice(None, None, -1)
    rows = [(*row[:1], T0_MS + 120 + i, *row[2:]) for i, row in enumerate(fills[order])]
    write(tmp_path, [BID, ASK, *rows])
    assert events(tmp_path)[0] == ADDED + expected[order]


def test_bitstamp_when_the_newer_order_is_filled_then_nothing_of_it_is_left(tmp_path):
    rows = [(2, T0_MS + 120, "236.40", 0, "deleted", "ask"), (1, T0_MS + 121, "236.47", 1 * LOT, "changed", "bid")]
    write(tmp_path, [(*BID[:3], 8 * LOT, *BID[4:]), ASK, *rows])
    assert events(tmp_path)[0][2:] == [(Kind.CANCEL, Side.SELL, 23_640, 7, 2), (Kind.TRADE, Side.SELL, 23_647, 7, 1)]


@pytest.mark.parametrize(
    ("late_ms", "ask_left", "ask_price"),
    [
        (101, 4 * LOT, "236.40"),  # too late
        (1, 3 * LOT, "236.40"),  # another volume
        (1, 4 * LOT, "236.48"),  # prices do not cross
    ],
)
def test_bitstamp_when_two_executions_do_not_go_together_then_nobody_is_said_to_have_rested(
    tmp_path, late_ms, ask_left, ask_price
):
    fills = [
        (1, T0_MS + 120, "236.47", 2 * LOT, "changed", "bid"),
        (2, T0_MS + 120 + late_ms, ask_price, ask_left, "changed", "ask"),
    ]
    write(tmp_path, [BID, (*ASK[:2], ask_price, *ASK[3:]), *fills])
    assert [event[0] for event in events(tmp_path)[0]] == [Kind.ADD, Kind.ADD, Kind.CANCEL, Kind.CANCEL]


def test_bitstamp_when_an_execution_does_not_match_then_it_may_still_match_the_next_row(tmp_path):
    rows = [
        BID,
        ASK,
        (3, T0_MS + 2, "236.30", 9 * LOT, "created", "ask"),
        (2, T0_MS + 100, "236.40", 1 * LOT, "changed", "ask"),
        (1, T0_MS + 101, "236.47", 0, "deleted", "bid"),
        (3, T0_MS + 102, "236.30", 4 * LOT, "changed", "ask"),
    ]
    write(tmp_path, rows)
    assert events(tmp_path)[0][3:] == [
        (Kind.CANCEL, Side.SELL, 23_640, 6, 2),
        (Kind.TRADE, Side.SELL, 23_647, 5, 1),
        (Kind.CANCEL, Side.SELL, 23_630, 5, 3),
    ]


def test_bitstamp_when_the_resting_order_is_from_before_the_file_then_its_trade_has_the_other_s_size(tmp_path):
    rows = [(1, T0_MS + 120, "236.50", 0, "deleted", "bid"), (2, T0_MS + 121, "236.40", 4 * LOT, "changed", "ask")]
    write(tmp_path, [ASK, *rows])
    got, count = events(tmp_path)
    assert got == [ADDED[1], (Kind.TRADE, Side.SELL, 23_650, 3, 1), (Kind.CANCEL, Side.SELL, 23_640, 3, 2)]
    assert count.skipped == {}


def test_bitstamp_when_an_order_is_first_seen_by_a_change_then_what_was_and_is_left_of_it_is_known(tmp_path):
    change = (1, T0_MS + 120, "236.50", 6 * LOT, "changed", "bid")
    write(tmp_path / "alone", [ASK, change])
    assert events(tmp_path / "alone")[0] == [ADDED[1], (Kind.ADD, Side.BUY, 23_650, 6, 1)]
    write(tmp_path / "paired", [ASK, change, (2, T0_MS + 121, "236.40", 4 * LOT, "changed", "ask")])
    assert events(tmp_path / "paired")[0] == [
        ADDED[1],
        (Kind.ADD, Side.BUY, 23_650, 9, 1),
        (Kind.TRADE, Side.SELL, 23_650, 3, 1),
        (Kind.CANCEL, Side.SELL, 23_640, 3, 2),
    ]


def test_bitstamp_when_an_unknown_order_ends_then_it_is_a_cancel_or_counted(tmp_path):
    rows = [(1, T0_MS, "236.50", 6 * LOT, "deleted", "bid"), (2, T0_MS + 500, "236.60", 0, "deleted", "ask")]
    write(tmp_path, rows)
    got, count = events(tmp_path)
    assert got == [(Kind.CANCEL, Side.BUY, 23_650, 6, 1)]
    assert count.skipped == {"orders.csv": {"end of an order from before the file, its size not told": 1}}


def test_bitstamp_when_the_price_follows_or_more_is_left_then_the_order_is_replaced(tmp_path):
    rows = [
        BID,
        (1, T0_MS + 1, "236.50", 5 * LOT, "changed", "bid"),
        (1, T0_MS + 2, "236.51", 4 * LOT, "changed", "bid"),
        (1, T0_MS + 3, "236.51", 6 * LOT, "changed", "bid"),
        (1, T0_MS + 4, "236.51", 6 * LOT, "changed", "bid"),
        (1, T0_MS + 5, "236.52", 6 * LOT, "deleted", "bid"),
    ]
    write(tmp_path, rows)
    got, count = events(tmp_path)
    replaced = [(Kind.REPLACE, Side.BUY, price, size, 1) for price, size in ((23_650, 5), (23_651, 4), (23_651, 6))]
    assert got == [ADDED[0], *replaced, (Kind.CANCEL, Side.BUY, 23_651, 6, 1)]
    assert count.skipped == {"orders.csv": {"nothing changed": 1}}


def test_bitstamp_when_a_row_comes_after_the_deletion_that_overtook_it_then_no_order_stays(tmp_path):
    gone = (1, T0_MS, "236.47", 5 * LOT, "deleted", "bid")
    rows = [gone, (*BID[:1], T0_MS + 11, *BID[2:]), (1, T0_MS + 12, "236.47", 5 * LOT, "deleted", "bid")]
    rows.append((*BID[:1], T0_MS + 10_013, *BID[2:]))  # more than ten seconds later it is a new word
    write(tmp_path, rows)
    got, count = events(tmp_path)
    assert got == [(Kind.CANCEL, Side.BUY, 23_647, 5, 1), ADDED[0]]
    assert count.skipped == {"orders.csv": {"of an order that was deleted just before": 2}}


def test_bitstamp_when_volumes_are_no_whole_lots_then_a_resting_order_never_vanishes(tmp_path):
    volumes = [2_500, 2_001, 2_000, 1, 0]
    actions = ["created", "changed", "changed", "changed", "deleted"]
    rows = [(1, T0_MS + 200 * i, "236.47", v, a, "bid") for i, (v, a) in enumerate(zip(volumes, actions, strict=True))]
    write(tmp_path, rows)
    got, count = events(tmp_path)
    assert [(kind, size) for kind, _, _, size, _ in got] == [
        (Kind.ADD, 3),
        (Kind.CANCEL, 1),
        (Kind.CANCEL, 1),
        (Kind.CANCEL, 1),
    ]
    assert count.skipped == {"orders.csv": {"executed less than a lot": 1}}  # 2,500 to 2,001


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_bitstamp_when_any_orders_end_then_their_events_leave_nothing_and_every_row_is_accounted_for(
    tmp_path_factory, data
):
    rows, live = [], {}
    ms = T0_MS
    for i in range(data.draw(st.integers(1, 40))):
        ms += data.draw(st.integers(0, 150))
        if not live or data.draw(st.booleans()):
            side = data.draw(st.sampled_from(["bid", "ask"]))
            live[i + 1] = [data.draw(st.integers(1, 9_999)), f"{data.draw(st.integers(230, 240))}.5", side]
            rows.append((i + 1, ms, live[i + 1][1], live[i + 1][0], "created", side))
            continue
        order = data.draw(st.sampled_from(sorted(live)))
        volume, price, side = live[order]
        left = data.draw(st.integers(0, volume))
        if left in (0, volume):
            rows.append((order, ms, price, left, "deleted", side))
            del live[order]
        else:
            live[order][0] = left
            rows.append((order, ms, price, left, "changed", side))
    for order, (volume, price, side) in live.items():
        rows.append((order, ms, price, volume, "deleted", side))
    folder = tmp_path_factory.mktemp("bitstamp")
    write(folder, rows)
    got, count = events(folder)
    resting = {}
    for kind, _, _, size, order in got:
        assert size > 0
        resting[order] = resting.get(order, 0) + (size if kind == Kind.ADD else -size)
    assert set(resting.values()) == {0}
    assert len(rows) == count.total == len(got) + sum(count.skipped.get("orders.csv", {}).values())


def test_bitstamp_when_a_file_holds_days_then_each_is_a_partition_and_opens_with_what_rests(tmp_path, monkeypatch):
    rows = [
        (1, MIDNIGHT_MS - 50, "236.47", 5 * LOT, "created", "bid"),
        (2, MIDNIGHT_MS - 40, "236.90", 2_500, "created", "ask"),
        (3, MIDNIGHT_MS - 30, "236.40", 5 * LOT, "created", "bid"),
        (3, MIDNIGHT_MS - 20, "236.40", 5 * LOT, "deleted", "bid"),
        (1, MIDNIGHT_MS - 1, "236.47", 4 * LOT, "changed", "bid"),
        (1, MIDNIGHT_MS, "236.47", 4 * LOT, "deleted", "bid"),
        (4, MIDNIGHT_MS - 1, "236.30", 1 * LOT, "created", "bid"),  # was overtaken: stays with the later day
        (4, MIDNIGHT_MS + 3 * 86_400_000, "236.30", 1 * LOT, "deleted", "bid"),
    ]
    write(tmp_path, rows)
    days = tables(tmp_path)
    assert [(day, count.total) for day, (_, count) in days.items()] == [
        ("2015-05-01", 5),
        ("2015-05-02", 2),
        ("2015-05-05", 1),
    ]
    table = days["2015-05-02"][0].to_pydict()
    assert table["kind"] == [Kind.CLEAR, Kind.ADD, Kind.ADD, Kind.CANCEL, Kind.ADD]
    assert table["flags"] == [Flag.CARRIED, Flag.CARRIED, Flag.CARRIED | Flag.LAST, 0, 0]
    assert table["size"] == [0, 4, 3, 4, 1] and table["order_id"] == [0, 1, 2, 1, 4]
    assert set(table["ts_event_ns"][:4]) == {MIDNIGHT_MS * 10**6} and table["sequence"] == list(range(5))
    book, counts = build_book(days["2015-05-05"][0], 2)
    assert (book.bid_px[0].tolist(), book.ask_px[0].tolist()) == ([23_630, 0], [23_690, 0])
    assert book.bid_sz[-1].tolist() == [0, 0] and counts.unknown_order == 0
    monkeypatch.setattr(csv_numbers, "BLOCK_BYTES", 128)
    assert {day: table.to_pydict() for day, (table, _) in tables(tmp_path).items()} == {
        day: table.to_pydict() for day, (table, _) in days.items()
    }
    assert list(tables(tmp_path, date_from="2015-05-02", date_to="2015-05-03")) == ["2015-05-02"]


def test_bitstamp_when_nothing_rests_at_midnight_then_the_day_opens_with_an_empty_book(tmp_path):
    rows = [
        (1, MIDNIGHT_MS - 9, "236.47", 5 * LOT, "created", "bid"),
        (1, MIDNIGHT_MS - 1, "236.47", 5 * LOT, "deleted", "bid"),
        (2, MIDNIGHT_MS + 1, "236.40", 5 * LOT, "created", "bid"),
    ]
    write(tmp_path, rows)
    table = tables(tmp_path)["2015-05-02"][0].to_pydict()
    assert table["kind"] == [Kind.CLEAR, Kind.ADD] and table["flags"] == [Flag.CARRIED | Flag.LAST, 0]


def test_bitstamp_when_file_is_compressed_or_comes_in_pieces_then_events_are_the_same(tmp_path, monkeypatch):
    rows = [BID, ASK, (1, T0_MS + 120, "236.47", 2 * LOT, "changed", "bid")]
    rows += [
        (2, T0_MS + 121, "236.40", 4 * LOT, "changed", "ask"),
        (2, T0_MS + 300, "236.40", 4 * LOT, "deleted", "ask"),
    ]
    write(tmp_path / "plain", rows)
    write(tmp_path / "packed", rows, "orders.csv.xz")
    whole = events(tmp_path / "plain")[0]
    assert events(tmp_path / "packed")[0] == whole and Kind.TRADE in [event[0] for event in whole]
    monkeypatch.setattr(csv_numbers, "BLOCK_BYTES", 80)
    assert events(tmp_path / "plain")[0] == whole


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((2, T0_MS, "236.405", LOT, "created", "ask"), "line 3: price is '236.405', a number with at most 2 decimals"),
        ((2, T0_MS, "nan", LOT, "created", "ask"), "line 3: price is 'nan'"),
        ((2, T0_MS, "236.40", "1e5", "created", "ask"), "line 3: volume is '1e5'"),
        ((2, T0_MS, "236.40", -1, "created", "ask"), "line 3: volume is '-1'"),
        ((2, T0_MS, "236.40", LOT, "moved", "ask"), "line 3: action is 'moved', one of created, changed, deleted"),
        ((2, T0_MS, "236.40", LOT, "created", "buy"), "line 3: direction is 'buy', one of bid, ask"),
        ((0, T0_MS, "236.40", LOT, "created", "bid"), "line 3: id is '0'"),
        ((2, T0_MS // 1_000, "236.40", LOT, "created", "bid"), "line 3: timestamp is '1430438404'"),
        ((2, T0_MS - 3_600_001, "236.40", LOT, "created", "bid"), "row 2: timestamp 1430434804517 ms is 3600001 ms"),
    ],
)
def test_bitstamp_when_a_row_is_wrong_then_names_file_line_and_value(tmp_path, row, said):
    path = write(tmp_path, [BID, row])
    assert f"{path}: {said}" in refusal(tmp_path)


def test_bitstamp_when_header_is_another_then_shows_both(tmp_path):
    (tmp_path / "orders.csv").write_text("id,price\n1,2\n")
    assert f"line 1: 'id,price' is not the header '{HEADER}'" in refusal(tmp_path)


def test_bitstamp_when_folder_is_wrong_then_says_what_is_there(tmp_path):
    assert "holds no file that source bitstamp reads" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "nowhere")
    write(tmp_path, [])
    assert "orders.csv: empty session" in refusal(tmp_path)
    write(tmp_path, [BID])
    assert "symbol ETHUSD is not in" in refusal(tmp_path, symbols=("ETHUSD",))
    assert "there: 2015-05-01" in refusal(tmp_path, date_from="2015-05-02")
    write(tmp_path, [BID], "orders.csv.xz")
    assert "orders.csv.xz: holds the same instrument as" in refusal(tmp_path)


def test_bitstamp_when_instrument_is_asked_for_then_the_session_is_the_utc_day(tmp_path):
    (item,) = BitstampReader().instruments(IngestRequest("bitstamp", tmp_path))
    assert item.session_ns("2015-05-01") == [((MIDNIGHT_MS - 86_400_000) * 10**6, MIDNIGHT_MS * 10**6)]
    assert (item.instrument_id, item.tick_size, item.lot_size) == ("BITSTAMP:BTCUSD", 0.01, 1e-5)


def test_bitstamp_when_real_file_is_read_then_rows_balance_and_most_executions_find_their_other_side(real_data):
    ((table, count),) = tables(real_data / "bitstamp").values()
    assert count.vendor_rows == {"orders.csv.xz": 50_414}
    skipped = {"of an order that was deleted just before": 27, "executed less than a lot": 4}
    assert count.skipped == {"orders.csv.xz": skipped}
    kinds = table["kind"].to_pylist()
    found = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    assert found == {Kind.ADD: 24_892, Kind.CANCEL: 24_890, Kind.REPLACE: 36, Kind.TRADE: 568}
    # each row one event, and three orders first seen by their execution come and trade in one row
    assert len(table) == 50_414 - 31 + 3
    book, counts = build_book(table, 10)
    assert counts.unknown_order == 184 and counts.oversized == 0
    assert (book.trade_sz > 0).sum() == 568
    # Aggressors rest across the spread until they are matched, 584 ms at the most: no order that is gone stays behind.
    crossed = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0) & (book.bid_px[:, 0] >= book.ask_px[:, 0])
    ends = np.flatnonzero(np.diff(np.concatenate([[0], crossed.astype(int), [0]])))
    lasted_ns = book.ts_ns[ends[1::2]] - book.ts_ns[ends[::2]]
    assert len(lasted_ns) == 381 and lasted_ns.max() < 600_000_000
