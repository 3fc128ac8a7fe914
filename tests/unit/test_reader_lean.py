import zipfile

import numpy as np
import pyarrow as pa
import pytest
from reader_files import OPEN_MS, QUOTES, TRADES, lean_day, write_zip

from feature_repo.errors import InputError
from feature_repo.ticks.lean import LeanReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

OPEN_NS = 1_381_152_600_000_000_000  # 2013-10-07 13:30 UTC, 09:30 in New York


def read(data, **request):
    reader, count = LeanReader(), ReadCount()
    (plan,) = reader.plan(IngestRequest("lean", data, **request))
    table = pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA)
    return table.to_pydict(), count


def refusal(data, **request):
    with pytest.raises(InputError) as caught:
        read(data, **request)
    return str(caught.value)


def test_reader_lean_when_quotes_and_trades_share_a_millisecond_then_trade_comes_first(tmp_path):
    events, count = read(lean_day(tmp_path))
    assert events["kind"] == [Kind.QUOTE, Kind.QUOTE, Kind.TRADE, Kind.QUOTE]
    assert events["side"] == [Side.BUY, Side.SELL, Side.NONE, Side.BUY]
    assert events["price_ticks"] == [5000, 5001, 5000, 5000]
    assert events["size"] == [300, 200, 100, 200]
    assert events["sequence"] == [0, 1, 2, 3]
    assert events["ts_event_ns"] == [OPEN_NS, OPEN_NS, OPEN_NS + 5_000_000, OPEN_NS + 5_000_000]
    assert events["ts_recv_ns"] == events["ts_event_ns"]
    assert count.vendor_rows == {"20131007_quote.zip": 3, "20131007_trade.zip": 1}


def test_reader_lean_when_trades_lie_before_and_after_all_quotes_then_none_is_lost(tmp_path):
    trades = [f"{OPEN_MS - 1},500000,1,P,0,0", TRADES[0], f"{OPEN_MS + 900},500000,2,P,0,0"]
    events, _ = read(lean_day(tmp_path, trades=trades))
    assert events["kind"][0] == Kind.TRADE and events["kind"][-1] == Kind.TRADE
    assert events["size"][0] == 1 and events["size"][-1] == 2
    assert len(events["kind"]) == 6


def test_reader_lean_when_clock_runs_back_then_vendor_order_stays(tmp_path):
    quotes = [QUOTES[0], f"{OPEN_MS - 50},500000,7,0,0,P,1,0", QUOTES[2]]
    events, _ = read(lean_day(tmp_path, quotes=quotes))
    quoted = [size for size, kind in zip(events["size"], events["kind"], strict=True) if kind == Kind.QUOTE]
    assert quoted == [300, 7, 200]


@pytest.mark.parametrize(("price", "ticks"), [(164550, 1646), (164549, 1645), (164501, 1645)])
def test_reader_lean_when_trade_is_between_ticks_then_nearest_tick_is_flagged_hidden(tmp_path, price, ticks):
    events, _ = read(lean_day(tmp_path, trades=[f"{OPEN_MS},{price},100,D,0,0"]))
    at = events["kind"].index(Kind.TRADE)
    assert events["price_ticks"][at] == ticks
    assert events["flags"][at] == Flag.SUB_TICK | Flag.HIDDEN


@pytest.mark.parametrize(("exchange", "flags"), [("D", Flag.HIDDEN), ("P", 0), ("", 0), ("DX", 0)])
def test_reader_lean_when_trade_is_reported_off_exchange_then_hidden(tmp_path, exchange, flags):
    events, _ = read(lean_day(tmp_path, trades=[f"{OPEN_MS},500000,100,{exchange},0,0"]))
    assert events["flags"][events["kind"].index(Kind.TRADE)] == flags


def test_reader_lean_when_row_is_suspicious_then_event_is_flagged(tmp_path):
    data = lean_day(tmp_path, quotes=[QUOTES[0][:-1] + "1", QUOTES[1]], trades=[TRADES[0][:-1] + "1"])
    events, _ = read(data)
    assert events["flags"] == [Flag.SUSPICIOUS, 0, Flag.SUSPICIOUS]


@pytest.mark.parametrize(
    ("condition", "flags"),
    [
        ("", 0),
        ("1", 0),
        ("20000020", 0),  # intermarket sweep, exempt from trade-through
        ("20002020", 0),  # extended hours
        ("00000800", Flag.LATE),
        ("4800", Flag.LATE),
        ("20100200", Flag.DERIVED),
        ("2000000", Flag.DERIVED),
        ("4000000", Flag.DERIVED),
        ("80000001", Flag.ODD_LOT),
        ("FFFFFFFF", Flag.LATE | Flag.ODD_LOT | Flag.DERIVED),
    ],
)
def test_reader_lean_when_a_trade_has_a_condition_then_it_is_flagged_beside_the_rest(tmp_path, condition, flags):
    trades = [f"{OPEN_MS},500000,100,P,{condition},0", f"{OPEN_MS},500050,100,D,{condition},1"]
    events, _ = read(lean_day(tmp_path, trades=trades))
    trade_flags = [flag for kind, flag in zip(events["kind"], events["flags"], strict=True) if kind == Kind.TRADE]
    assert trade_flags == [flags, flags | Flag.HIDDEN | Flag.SUB_TICK | Flag.SUSPICIOUS]


def test_reader_lean_when_a_quote_has_a_condition_then_it_is_no_trade_s(tmp_path):
    events, _ = read(lean_day(tmp_path, quotes=[f"{OPEN_MS},500000,300,0,0,P,800,0", QUOTES[1]]))
    assert events["flags"][0] == 0


@pytest.mark.parametrize("condition", ["xyz", "-1", "0x10", " 1", "123456789"])
def test_reader_lean_when_a_condition_is_no_mask_then_names_file_line_and_value(tmp_path, condition):
    message = refusal(lean_day(tmp_path, trades=[TRADES[0], f"{OPEN_MS},500000,100,P,{condition},0"]))
    assert f"20131007_trade.zip: line 2: condition is {condition!r}" in message


def test_reader_lean_when_a_line_is_in_another_encoding_then_names_file_and_line(tmp_path):
    path = lean_day(tmp_path) / "equity/usa/tick/aig/20131007_quote.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("day.csv", f"{QUOTES[0]}\n{OPEN_MS},500000,300,0,0,caf\xe9,1,0\n".encode("latin-1"))
    assert "20131007_quote.zip: line 2: not text in UTF-8" in refusal(tmp_path)


def test_reader_lean_when_real_days_are_read_then_conditions_are_as_rare_as_the_tape_s(real_data):
    shares = {}
    for plan in LeanReader().plan(IngestRequest("lean", real_data / "lean", date_to="2013-10-07")):
        table = pa.Table.from_batches(list(LeanReader().read(plan, ReadCount())), EVENT_SCHEMA)
        flags = table["flags"].to_numpy()[table["kind"].to_numpy() == Kind.TRADE]
        shares[plan.partition.symbol] = [np.mean(flags & int(flag) != 0) for flag in (Flag.DERIVED, Flag.LATE)]
    for derived, late in shares.values():
        assert 0.0005 < derived < 0.005 and 0 < late < 0.0005


def test_reader_lean_when_row_sets_both_sides_or_none_then_every_row_leaves_an_event(tmp_path):
    quotes = [f"{OPEN_MS},500000,300,500100,200,P,1,0", f"{OPEN_MS},0,0,0,0,P,1,0"]
    events, count = read(lean_day(tmp_path, quotes=quotes))
    assert events["side"][:3] == [Side.BUY, Side.SELL, Side.NONE]
    assert events["price_ticks"][:3] == [5000, 5001, 0]
    assert count.vendor_rows["20131007_quote.zip"] == 2


@pytest.mark.parametrize(("day", "utc_hour"), [("20131007", 13), ("20131104", 14)])
def test_reader_lean_when_daylight_saving_ends_then_utc_shifts_by_an_hour(tmp_path, day, utc_hour):
    events, _ = read(lean_day(tmp_path, day=day))
    assert str(np.datetime64(events["ts_event_ns"][0], "ns"))[11:16] == f"{utc_hour}:30"


def test_reader_lean_when_instrument_is_asked_for_then_regular_hours_hold_the_open(tmp_path):
    request = IngestRequest("lean", lean_day(tmp_path))
    (item,) = LeanReader().instruments(request)
    assert item.session_ns("2013-10-07") == [(OPEN_NS, OPEN_NS + 6 * 3_600_000_000_000 + 1_800_000_000_000)]
    assert (item.instrument_id, item.tick_size, item.depth, item.snapshot_data) == ("US:AIG", 0.01, 1, False)


def test_reader_lean_when_no_symbol_is_named_then_takes_those_with_both_files(tmp_path):
    lean_day(tmp_path, "spy", quotes=None)
    lean_day(tmp_path, "bac", day="20131008")
    plans = LeanReader().plan(IngestRequest("lean", lean_day(tmp_path)))
    assert [(plan.partition.symbol, plan.partition.date) for plan in plans] == [
        ("AIG", "2013-10-07"),
        ("BAC", "2013-10-08"),
    ]


def test_reader_lean_when_no_symbol_is_named_then_one_without_a_day_in_range_is_left_out(tmp_path):
    lean_day(tmp_path, "bac", day="20131008")
    plans = LeanReader().plan(IngestRequest("lean", lean_day(tmp_path), date_to="2013-10-07"))
    assert [plan.partition.symbol for plan in plans] == ["AIG"]


def test_reader_lean_when_symbol_has_only_trades_then_refuses_and_names_usable(tmp_path):
    lean_day(tmp_path, "spy", quotes=None)
    message = refusal(lean_day(tmp_path), symbols=("SPY",))
    assert "SPY" in message and "quote" in message and "usable: AIG" in message


def test_reader_lean_when_symbol_is_absent_then_lists_what_is_there(tmp_path):
    lean_day(tmp_path, "bac")
    message = refusal(lean_day(tmp_path), symbols=("XYZ",))
    assert "XYZ" in message and "there: AIG, BAC" in message


@pytest.mark.parametrize("span", [{"date_from": "2013-10-08"}, {"date_to": "2013-10-06"}])
def test_reader_lean_when_no_day_is_in_range_then_lists_days_there(tmp_path, span):
    message = refusal(lean_day(tmp_path), symbols=("AIG",), **span)
    assert "AIG" in message and "there: 2013-10-07" in message and next(iter(span.values())) in message


@pytest.mark.parametrize("value", ["20131007", "2013-13-01", "yesterday", ""])
def test_reader_lean_when_date_is_malformed_then_names_option_and_value(tmp_path, value):
    assert f"--from {value} is not a date YYYY-MM-DD" in refusal(lean_day(tmp_path), date_from=value)


def test_reader_lean_when_folder_is_absent_then_names_it(tmp_path):
    assert f"{tmp_path / 'nowhere'}: no such folder" in refusal(tmp_path / "nowhere")


def test_reader_lean_when_no_folder_is_given_then_asks_for_it():
    assert "--data" in refusal(None)


def test_reader_lean_when_folder_holds_nothing_usable_then_says_so(tmp_path):
    assert "holds no file that source lean reads" in refusal(tmp_path)


def test_reader_lean_when_file_name_is_no_date_then_names_file(tmp_path):
    assert "20131340_quote.zip" in refusal(lean_day(tmp_path, day="20131340"))


def test_reader_lean_when_two_folders_claim_a_symbol_then_refuses(tmp_path):
    lean_day(tmp_path, "AIG")
    message = refusal(lean_day(tmp_path, "aig"))
    assert "same symbol" in message


BAD_LINES = {
    "truncated": (f"{OPEN_MS + 6},5000", "2 columns, 8 wanted"),
    "too many columns": (QUOTES[0] + ",9", "9 columns, 8 wanted"),
    "last field cut off": (QUOTES[0][:-1], "suspicious is ''"),
    "price is text": (f"{OPEN_MS},abc,300,0,0,P,1,0", "bid is 'abc'"),
    "price is NaN": (f"{OPEN_MS},NaN,300,0,0,P,1,0", "bid is 'NaN'"),
    "price has a fraction": (f"{OPEN_MS},50.25,300,0,0,P,1,0", "bid is '50.25'"),
    "price is empty": (f"{OPEN_MS},,300,0,0,P,1,0", "bid is ''"),
    "number wraps around": (f"{OPEN_MS},{2**63},300,0,0,P,1,0", "bid is '9223372036854775808'"),
    "ticks would wrap around": (f"{OPEN_MS},{2**63 - 1},300,0,0,P,1,0", "bid is '9223372036854775807'"),
    "time is outside the day": ("9300000000000,500000,300,0,0,P,1,0", "ms is '9300000000000'"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_reader_lean_when_line_is_bad_then_names_file_line_and_value(tmp_path, name):
    line, expected = BAD_LINES[name]
    message = refusal(lean_day(tmp_path, quotes=[QUOTES[0], QUOTES[1], line]))
    assert "20131007_quote.zip: line 3: " in message
    assert expected in message


def test_reader_lean_when_trade_line_is_bad_then_names_trade_file(tmp_path):
    message = refusal(lean_day(tmp_path, trades=[TRADES[0], "junk"]))
    assert "20131007_trade.zip: line 2: 1 columns, 6 wanted" in message


def test_reader_lean_when_line_is_bad_beyond_the_first_block_then_line_number_is_the_file_s(tmp_path):
    lines = [QUOTES[0]] * 400_000
    lines[390_000] = "cut,off"
    message = refusal(lean_day(tmp_path, quotes=lines))
    assert "line 390001: 2 columns" in message


def test_reader_lean_when_file_spans_blocks_then_sequence_and_order_hold(tmp_path):
    quotes = [f"{OPEN_MS + i // 4},{500000 + i % 7 * 100},{i + 1},0,0,P,1,0" for i in range(400_000)]
    trades = [f"{OPEN_MS + i * 50},500000,{i + 1},P,0,0" for i in range(2_000)]
    events, _ = read(lean_day(tmp_path, quotes=quotes, trades=trades))
    ts, kind, size = (np.array(events[name]) for name in ("ts_event_ns", "kind", "size"))
    assert np.array_equal(events["sequence"], np.arange(402_000))
    assert np.all(np.diff(ts) >= 0)
    assert np.array_equal(size[kind == Kind.TRADE], np.arange(1, 2_001))
    assert np.array_equal(size[kind == Kind.QUOTE], np.arange(1, 400_001))
    after = np.flatnonzero(kind == Kind.TRADE)[1:]
    assert np.all(ts[after - 1] < ts[after])  # a trade opens its millisecond


def test_reader_lean_when_zip_is_no_zip_then_names_file(tmp_path):
    lean_day(tmp_path)
    (tmp_path / "equity/usa/tick/aig/20131007_quote.zip").write_bytes(b"this is no zip")
    message = refusal(tmp_path)
    assert (
        "20131007_quote.zip: starts with bytes 74 68 69 73 20 69, so it is no .zip file" in message
        and "fetch the file again" in message
    )


def test_reader_lean_when_zip_is_truncated_then_names_file(tmp_path):
    path = lean_day(tmp_path) / "equity/usa/tick/aig/20131007_trade.zip"
    path.write_bytes(path.read_bytes()[:-30])
    assert "20131007_trade.zip: not readable (" in refusal(tmp_path)


def test_reader_lean_when_bytes_inside_zip_are_damaged_then_names_file(tmp_path):
    lines = [f"{OPEN_MS + i},{500000 + i * 37 % 991},{i},0,0,P,1,0" for i in range(5_000)]
    path = lean_day(tmp_path, quotes=lines) / "equity/usa/tick/aig/20131007_quote.zip"
    content = bytearray(path.read_bytes())
    content[2_000:2_040] = bytes(40)
    path.write_bytes(content)
    assert "20131007_quote.zip: " in refusal(tmp_path)


def test_reader_lean_when_zip_is_a_folder_then_names_it(tmp_path):
    lean_day(tmp_path, quotes=None)
    (tmp_path / "equity/usa/tick/aig/20131007_quote.zip").mkdir()
    assert "20131007_quote.zip: not readable (Is a directory)" in refusal(tmp_path)


@pytest.mark.parametrize("names", [(), ("a.csv", "b.csv")])
def test_reader_lean_when_zip_holds_not_one_file_then_says_how_many(tmp_path, names):
    path = lean_day(tmp_path) / "equity/usa/tick/aig/20131007_quote.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, QUOTES[0])
    assert f"holds {len(names)} files, exactly one is wanted" in refusal(tmp_path)


def test_reader_lean_when_lines_end_in_crlf_then_reads_the_same(tmp_path):
    plain, _ = read(lean_day(tmp_path / "a"))
    data = lean_day(tmp_path / "b")
    write_zip(data / "equity/usa/tick/aig/20131007_quote.zip", QUOTES, end="\r\n")
    assert read(data)[0] == plain
