import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mapped_files import BERLIN, FILE, INSTRUMENT, ORDERS, QUOTES, TRADES, TS, folder, plans, read, trades

from feature_repo.ticks import mapped, mapped_table
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.mapped import MappedReader
from feature_repo.ticks.mapped_spec import load_mapping
from feature_repo.ticks.merging import merge_in_time
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side


def test_reader_mapped_when_the_mapping_of_its_own_documentation_is_loaded_then_it_is_valid(tmp_path):
    text = mapped.__doc__.split("left out):\n", 1)[1].split("\nEvents keep", 1)[0]
    (tmp_path / "mapping.yaml").write_text(textwrap.dedent(text))
    mapping = load_mapping(tmp_path / "mapping.yaml")
    assert [file.kind for file in mapping.files] == ["trades", "quotes", "orders"]
    assert mapping.instrument_of("SAP").tick_size == 0.02 and mapping.instrument_of("SIE").tick_size == 0.01


def test_reader_mapped_when_trades_are_read_then_price_size_side_and_conditions_are_exact(tmp_path):
    changes = {
        "columns": {"price": "price", "size": "size", "side": "side", "order_id": "id", "condition": "cond"},
        "sides": {"B": "buy", "S": "sell", "*": "none"},
        "conditions": {"": [], "Z": ["late", "derived"], "I": ["odd_lot"], "X": ["cancelled"], "?": ["suspicious"]},
    }
    rows = [f"{TS},120.01,7,B,{2**53 + 1},", f"{TS + 1},120.02,8,S,2,Z", f"{TS + 2},120.03,9,,3,I", f"{TS},1,1,x,4,X"]
    events, count = read(trades(tmp_path, *rows, header="time,price,size,side,id,cond", **changes))
    assert events["ts_event_ns"] == events["ts_recv_ns"] == [TS, TS + 1, TS + 2, TS]
    assert events["kind"] == [Kind.TRADE] * 4
    assert events["side"] == [Side.BUY, Side.SELL, Side.NONE, Side.NONE]
    assert events["price_ticks"] == [12001, 12002, 12003, 100] and events["size"] == [7, 8, 9, 1]
    assert events["order_id"] == [2**53 + 1, 2, 3, 4]
    assert events["flags"] == [0, Flag.LATE | Flag.DERIVED, Flag.ODD_LOT, Flag.CANCELLED]
    assert count.vendor_rows == {FILE: 4} and not count.skipped


def test_reader_mapped_when_quotes_are_read_then_each_row_is_two_sides_in_an_order_that_does_not_cross(tmp_path):
    rows = f"time,bid,bid_size,ask,ask_size\n{TS},10.00,5,10.01,6\n{TS + 1},10.02,7,10.03,8\n{TS + 2},9.98,0,9.99,1\n"
    events, _ = read(folder(tmp_path, [QUOTES], {"SAP_20240502_q.csv": rows}))
    got = list(zip(events["side"], events["price_ticks"], events["size"], strict=True))
    buy, sell = Side.BUY, Side.SELL
    assert got == [(buy, 1000, 5), (sell, 1001, 6), (sell, 1003, 8), (buy, 1002, 7), (buy, 998, 0), (sell, 999, 1)]
    assert set(events["kind"]) == {Kind.QUOTE} and set(events["flags"]) == {0}


def test_reader_mapped_when_quotes_have_no_size_then_they_say_so(tmp_path):
    spec = {**QUOTES, "columns": {"bid": "bid", "ask": "ask"}}
    events, _ = read(folder(tmp_path, [spec], {"SAP_20240502_q.csv": f"time,bid,ask\n{TS},10.005,10.01\n"}))
    assert events["size"] == [1, 1] and events["price_ticks"] == [1001, 1001]
    assert events["flags"] == [Flag.NO_SIZE | Flag.SUB_TICK, Flag.NO_SIZE]


def test_reader_mapped_when_orders_are_read_then_actions_become_kinds_and_skipped_rows_are_counted(tmp_path):
    lines = [
        "time,type,id,side,price,size",
        *(
            f"{TS + 1},A,11,B,10.00,5",
            f"{TS + 2},U,11,B,10.01,4",
            f"{TS + 3},heartbeat,,,,",
            f"{TS + 4},E,11,B,10.01,1",
        ),
        *(f"{TS + 5},D,11,B,10.01,3", f"{TS + 6},R,,,,", f"{TS + 7},H,,,,", f"{TS + 8},A,12,S,10.02,2"),
    ]
    data = {"SAP_20240502_o.csv": "\n".join(lines)}
    events, count = read(folder(tmp_path, [{**ORDERS, "trade_side": "resting"}], data))
    assert events["kind"] == [Kind.ADD, Kind.REPLACE, Kind.TRADE, Kind.CANCEL, Kind.CLEAR, Kind.HALT, Kind.ADD]
    assert events["side"] == [Side.BUY, Side.BUY, Side.SELL, Side.BUY, Side.NONE, Side.NONE, Side.SELL]
    assert events["price_ticks"] == [1000, 1001, 1001, 1001, 0, 0, 1002]
    assert events["size"] == [5, 4, 1, 3, 0, 0, 2] and events["order_id"] == [11, 11, 11, 11, 0, 0, 12]
    assert count.vendor_rows == {"SAP_20240502_o.csv": 8}
    assert count.skipped == {"SAP_20240502_o.csv": {"an action that the mapping skips": 1}}
    aggressor = folder(tmp_path, [ORDERS], data)
    assert read(aggressor)[0]["side"][2] == Side.BUY


def test_reader_mapped_when_the_same_rows_come_as_csv_and_parquet_then_events_are_equal_and_exact(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(mapped_table, "BATCH_ROWS", 700)
    monkeypatch.setattr(mapped_table, "BLOCK_BYTES", 10_000)
    rng = np.random.default_rng(5)
    rows = 3_000
    ts, ticks = TS + np.cumsum(rng.integers(0, 3, rows)), rng.integers(1, 10**9, rows)
    size, side, order = rng.integers(1, 10**9, rows), rng.integers(-1, 2, rows), rng.integers(1, 2**62, rows)
    names = np.array(["S", "N", "B"])[side + 1]
    spec = {
        **TRADES,
        "columns": {"price": "price", "size": "size", "side": "side", "order_id": "id"},
        "sides": {"B": "buy", "S": "sell", "N": "none"},
    }
    table = {"time": ts, "price": ticks / 100, "size": size, "side": names, "id": order}
    text = "time,price,size,side,id\n" + "".join(
        f"{t},{p // 100}.{p % 100:02},{s},{n},{o}\n"
        for t, p, s, n, o in zip(ts, ticks, size, names, order, strict=True)
    )
    parquet = {**spec, "path": "{symbol}_{date}.parquet"}
    (tmp_path / "csv").mkdir()
    results = [
        read(folder(tmp_path / "csv", [spec], {FILE: text})),
        read(folder(tmp_path, [parquet], {"SAP_2024-05-02.parquet": pa.table(table)})),
    ]
    for events, count in results:
        for name, values in {
            "ts_event_ns": ts, "price_ticks": ticks, "size": size, "side": side, "order_id": order
        }.items():  # fmt: skip
            assert np.array_equal(events[name], values), name
        assert not any(events["flags"]) and events["sequence"] == list(range(rows))
        assert count.total == rows


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([12345, 12346], pa.int64()), [12345, 12346]),
        (pa.array([12345, 12346], pa.uint16()), [12345, 12346]),
        (pa.array([12345.0, 12345.6], pa.float32()), [12345, 12346]),
        (pa.array(["123.45", "123.46"]).cast(pa.decimal128(9, 2)), [123, 123]),
    ],
)
def test_reader_mapped_when_parquet_prices_are_of_any_number_type_then_units_become_ticks(tmp_path, column, expected):
    spec = {**TRADES, "path": "{symbol}_{date}.parquet", "price_unit": 0.01}
    table = pa.table({"time": pa.array([TS, TS]), "price": column, "size": pa.array([1, 2], pa.int8())})
    events, _ = read(folder(tmp_path, [spec], {"SAP_20240502.parquet": table}))
    assert events["price_ticks"] == expected


@pytest.mark.parametrize(
    ("price", "unit", "ticks", "between"),
    [
        *(("100.03", 1, 10003, False), ("100.034", 1, 10003, True), ("100.035", 1, 10004, True)),
        *(("1000300", 0.0001, 10003, False), ("1000350", 0.0001, 10004, True), ("-0.01", 1, -1, False)),
        *(("5", 10, 5000, False), ("9999999999.99", 1, 999_999_999_999, False)),
    ],
)
def test_reader_mapped_when_a_price_lies_between_ticks_then_the_nearest_is_flagged(
    tmp_path, price, unit, ticks, between
):
    events, _ = read(trades(tmp_path, f"{TS},{price},1", price_unit=unit))
    assert events["price_ticks"] == [ticks]
    assert events["flags"] == [Flag.SUB_TICK if between else 0]


def test_reader_mapped_when_sizes_are_in_other_units_then_they_become_lots(tmp_path):
    data = trades(tmp_path, f"{TS},1,0.003", f"{TS},1,1.5")
    folder(data, [{**TRADES, "size_unit": 2}], instrument={**INSTRUMENT, "lot_size": 0.001})
    assert read(data)[0]["size"] == [6, 3000]


MOMENT = np.datetime64("2024-05-02T08:00:00.123456789", "ns").astype(np.int64)


@pytest.mark.parametrize(
    ("text", "spec", "expected"),
    [
        (f"{TS}", {"unit": "ns"}, TS),
        (f"{TS // 1000}.789", {"unit": "us"}, TS),
        (f"{TS // 10**6}", {"unit": "ms"}, TS // 10**6 * 10**6),
        ("1714636800.123456789", {"unit": "s"}, TS),
        ("36000123.456789", {"unit": "ms", "since": "midnight", **BERLIN}, TS),
        ("2024-05-02T10:00:00.123456789", {"unit": "iso", **BERLIN}, MOMENT),
        ("2024-05-02 08:00:00.123456789Z", {"unit": "iso"}, MOMENT),
        ("2024-05-02T03:00:00.123456789-05:00", {"unit": "iso"}, MOMENT),
        ("2024-05-02T08:00:00", {"unit": "iso", "timezone": "UTC"}, TS // 10**9 * 10**9),
    ],
)
def test_reader_mapped_when_time_is_written_in_any_way_then_it_is_the_same_nanosecond(tmp_path, text, spec, expected):
    events, _ = read(trades(tmp_path, f"{text},1.00,1", time={"column": "time", **spec}))
    assert events["ts_event_ns"] == [expected]


@pytest.mark.parametrize(
    ("column", "spec"),
    [
        (pa.array([TS]), {"unit": "ns"}),
        (pa.array([TS], pa.timestamp("ns", "UTC")), {"unit": "iso"}),
        (pa.array([TS], pa.timestamp("ns", "Asia/Tokyo")), {"unit": "iso"}),
        (pa.array([TS + 2 * 3600 * 10**9], pa.timestamp("ns")), {"unit": "iso", **BERLIN}),
        (pa.array(["2024-05-02T10:00:00.123456789"]), {"unit": "iso", **BERLIN}),
        (pa.array(["2024-05-02T10:00:00.123456789"]).dictionary_encode(), {"unit": "iso", **BERLIN}),
    ],
)
def test_reader_mapped_when_parquet_holds_times_of_any_type_then_they_are_the_same_nanosecond(tmp_path, column, spec):
    spec = {**TRADES, "path": "{symbol}_{date}.parquet", "time": {"column": "time", **spec}}
    table = pa.table({"time": column, "price": pa.array([1.0]), "size": pa.array([1])})
    events, _ = read(folder(tmp_path, [spec], {"SAP_20240502.parquet": table}))
    assert events["ts_event_ns"] == [TS]


def test_reader_mapped_when_the_receive_time_is_given_then_it_is_kept(tmp_path):
    data = trades(
        tmp_path,
        f"{TS},1.00,1,{TS // 1000 + 5}",
        header="time,price,size,recv",
        received={"column": "recv", "unit": "us"},
    )
    assert read(data)[0]["ts_recv_ns"] == [(TS // 1000 + 5) * 1000]


def test_reader_mapped_when_a_file_holds_symbols_and_days_then_each_partition_takes_its_own_rows(tmp_path):
    spec = {**TRADES, "path": "all.csv", "symbol_column": "ticker", "date_column": "day"}
    rows = [f"{TS},1.00,1,SAP,20240502", f"{TS},2.00,2,SIE,2024-05-02", f"{TS},3.00,3,SAP,20240503"]
    data = folder(tmp_path, [spec], {"all.csv": "time,price,size,ticker,day\n" + "\n".join(rows)})
    found = {}
    for plan in plans(data):
        count = ReadCount()
        table = pa.Table.from_batches(list(MappedReader().read(plan, count)), EVENT_SCHEMA)
        found[plan.partition.symbol, plan.partition.date] = table["size"].to_pylist()
        assert count.vendor_rows == {"all.csv": 3}
        assert count.elsewhere == {"all.csv": 2} and not count.skipped
    assert found == {("SAP", "2024-05-02"): [1], ("SAP", "2024-05-03"): [3], ("SIE", "2024-05-02"): [2]}


def test_reader_mapped_when_parquet_names_symbol_and_day_in_any_type_then_rows_are_told_apart(tmp_path):
    spec = {**TRADES, "path": "all.parquet", "symbol_column": "ticker", "date_column": "day"}
    days = pa.array([19845, 19846], pa.int32()).cast(pa.date32())
    table = pa.table(
        {"time": [TS, TS], "price": [1.0, 2.0], "size": [1, 2], "day": days, "ticker": pa.array([600000, 600000])}
    )
    planned = plans(folder(tmp_path, [spec], {"all.parquet": table}))
    assert [(plan.partition.symbol, plan.partition.date) for plan in planned] == [
        ("600000", "2024-05-02"),
        ("600000", "2024-05-03"),
    ]


def test_reader_mapped_when_files_share_a_time_then_the_one_listed_first_goes_first(tmp_path):
    quotes = f"time,bid,bid_size,ask,ask_size\n{TS},1.00,1,1.01,1\n{TS + 5},1.00,2,1.01,2\n"
    content = {FILE: f"time,price,size\n{TS},1.00,1\n{TS + 5},1.00,2\n{TS + 9},1.00,3\n", "SAP_20240502_q.csv": quotes}
    kinds = {}
    for name, files in {"trades first": [TRADES, QUOTES], "quotes first": [QUOTES, TRADES]}.items():
        (tmp_path / name).mkdir()
        events, _ = read(folder(tmp_path / name, files, content))
        kinds[name] = ["T" if kind == Kind.TRADE else "q" for kind in events["kind"]]
    assert kinds == {"trades first": list("TqqTqqT"), "quotes first": list("qqTqqTT")}


def test_reader_mapped_when_several_files_make_a_day_then_they_follow_by_name(tmp_path):
    content = {f"SAP_20240502_{hour}.csv": f"time,price,size\n{TS + hour},1.00,{hour}\n" for hour in (8, 9, 7)}
    events, count = read(folder(tmp_path, [{**TRADES, "path": "{symbol}_{date}_*.csv"}], content))
    assert events["size"] == [7, 8, 9] and count.total == 3


@pytest.mark.parametrize("seed", range(8))
def test_merge_when_sources_come_in_any_batches_then_it_is_a_stable_sort_by_time(seed):
    rng = np.random.default_rng(seed)
    sources, key, mark = [], [], []
    for number in range(rng.integers(1, 4)):
        ts = np.sort(rng.integers(0, rng.integers(1, 60), rng.integers(0, 80)))
        late = np.where(rng.random(len(ts)) < 0.1, ts - 20, ts)  # a clock that runs back
        events = EventColumns.build(late, Kind.TRADE, 0, number, np.arange(len(ts)))
        cuts = np.sort(rng.integers(0, len(ts) + 1, 6))
        bounds = [0, *cuts, len(ts)]
        sources.append(iter([events.slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]))
        key += np.maximum.accumulate(late).tolist() if len(late) else []
        mark += [(number, row) for row in range(len(ts))]
    merged = EventColumns.concatenate(list(merge_in_time(sources)))
    wanted = [mark[at] for at in np.argsort(np.array(key), kind="stable")]
    assert list(zip(merged.price_ticks.tolist(), merged.size.tolist(), strict=True)) == wanted


def test_reader_mapped_when_instruments_are_asked_for_then_they_are_the_mapping_s(tmp_path):
    night = {**INSTRUMENT, "windows": [{"open": "22:00:00", "close": 63000, "days_before": 1, "skips_weekends": False}]}
    data = trades(tmp_path, f"{TS},1.00,1")
    folder(data, [TRADES], instrument={**night, "latency_ms": 0.5, "depth": 3}, symbols={"SAP": {"tick_size": "1e-8"}})
    (item,) = MappedReader().instruments(IngestRequest("mapped", data))
    assert (item.instrument_id, item.tick_size, item.lot_size, item.depth) == ("XETR:SAP", 1e-8, 1.0, 3)
    assert item.latency_ns == 500_000 and not item.snapshot_data
    assert item.windows[0].close == "17:30:00" and not item.windows[0].skips_weekends


def test_reader_mapped_when_the_mapping_changes_then_its_plans_do(tmp_path):
    data = trades(tmp_path, f"{TS},1.00,1")
    before = plans(data)[0].options
    (data / "mapping.yaml").write_text("# a comment\n" + (data / "mapping.yaml").read_text())
    assert plans(data)[0].options == before
    folder(data, [{**TRADES, "price_unit": 2}])
    assert plans(data)[0].options != before


def test_reader_mapped_when_it_is_ingested_then_every_row_is_accounted_for(tmp_path):
    content = {FILE: f"time,price,size\n{TS},1.00,1\n", "B_20240503.csv": f"time,price,size\n{TS},1.00,2\n"}
    data = folder(tmp_path, [TRADES], content)
    out = tmp_path / "out"
    out.mkdir()
    summary = ingest(IngestRequest("mapped", data), out)
    assert summary["vendor_rows"] == summary["rows"] == 2
    assert [item["path"] for item in summary["inputs"]] == ["B_20240503.csv", FILE]


def test_reader_mapped_when_real_lobster_messages_are_mapped_then_new_orders_equal_its_own_reader_s(
    tmp_path, real_data
):
    name = "AMZN_2012-06-21_34200000_57600000_message_1.csv.gz"
    spec = {
        "path": "{symbol}_{date}_34200000_57600000_message_1.csv.gz",
        "kind": "orders",
        "header": ["time", "type", "id", "size", "price", "direction"],
        "time": {"column": "time", "unit": "s", "since": "midnight", "timezone": "America/New_York"},
        "columns": {"action": "type", "order_id": "id", "side": "direction", "price": "price", "size": "size"},
        "price_unit": 0.0001,
        "actions": {1: "add", 2: "cancel", 3: "cancel", 4: "trade", "*": "skip"},
        "sides": {1: "buy", -1: "sell"},
        "trade_side": "resting",
    }
    (tmp_path / name).symlink_to(real_data / "lobster" / name)
    events, count = read(folder(tmp_path, [spec], instrument={**INSTRUMENT, "venue": "NASDAQ", "currency": "USD"}))
    assert count.vendor_rows == {name: 57_515}
    assert len(events["kind"]) == 57_515 - count.skipped[name]["an action that the mapping skips"]
    reader, own = get_reader("lobster"), []
    for plan in reader.plan(IngestRequest("lobster", real_data / "lobster", ("AMZN",))):
        own += reader.read(plan, ReadCount())
    columns = ("ts_event_ns", "side", "price_ticks", "size", "order_id")
    wanted = pa.Table.from_batches(own).filter(pc.field("kind") == int(Kind.ADD)).select(columns).to_pydict()
    added = np.array(events["kind"]) == Kind.ADD
    assert added.sum() > 20_000
    for column in columns:
        assert np.array_equal(np.array(events[column])[added], wanted[column]), column


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_reader_mapped_when_csv_has_another_separator_quotes_and_a_byte_order_mark_then_it_is_read(tmp_path, end):
    text = "\ufeff" + end.join(['"time";"note";"price";"size"', f'"{TS}";"a;b";"1.25";"3"', f'{TS + 1};"";1.26;4'])
    data = folder(tmp_path, [{**TRADES, "separator": ";", "quoted": True}], {FILE: text})
    events, _ = read(data)
    assert (events["ts_event_ns"], events["price_ticks"], events["size"]) == ([TS, TS + 1], [125, 126], [3, 4])


def test_reader_mapped_when_csv_has_no_header_then_its_columns_are_named_by_the_mapping(tmp_path):
    data = folder(
        tmp_path, [{**TRADES, "header": ["size", "time", "price"]}], {FILE: f"3,{TS},1.25\n4,{TS + 1},1.26\n"}
    )
    events, count = read(data)
    assert (events["price_ticks"], events["size"], count.total) == ([125, 126], [3, 4], 2)
