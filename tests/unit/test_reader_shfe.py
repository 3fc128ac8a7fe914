import numpy as np
import pyarrow as pa
import pytest
from reader_files import shfe_columns, shfe_file

from feature_repo.errors import InputError
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from feature_repo.ticks.shfe import ShfeReader

FLAT = {"volume": [100.0, 100.0], "amount": [3_000_000.0, 3_000_000.0]}


def read(data, **request):
    reader, count = ShfeReader(), ReadCount()
    (plan,) = reader.plan(IngestRequest("shfe", data, **request))
    return pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA).to_pydict(), count


def refusal(data, **request):
    with pytest.raises(InputError) as caught:
        read(data, **request)
    return str(caught.value)


def trades(events, after=0):
    """(price, size, side) of the trades, the first `after` left out."""
    rows = zip(events["kind"], events["price_ticks"], events["size"], events["side"], strict=True)
    return [row[1:] for row in rows if row[0] == Kind.TRADE][after:]


def test_reader_shfe_when_nothing_trades_then_snapshot_is_clear_and_ten_levels(tmp_path):
    shfe_file(tmp_path, shfe_columns([0.0], [0.0]))
    events, count = read(tmp_path)
    assert events["kind"] == [Kind.CLEAR] + [Kind.LEVEL] * 10
    assert [flag & Flag.LEVEL_MASK for flag in events["flags"][1:]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [bool(flag & Flag.LAST) for flag in events["flags"]] == [False] * 10 + [True]
    bids = [price for price, side in zip(events["price_ticks"], events["side"], strict=True) if side == Side.BUY]
    asks = [price for price, side in zip(events["price_ticks"], events["side"], strict=True) if side == Side.SELL]
    assert bids == [3000, 2999, 2998, 2997, 2996] and asks == [3001, 3002, 3003, 3004, 3005]
    assert count.vendor_rows == {"rb_20250605.parquet": 1}


def test_reader_shfe_when_shanghai_time_is_read_then_utc_is_eight_hours_less(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT, start="2025-06-05T09:00:00.5"))
    events, _ = read(tmp_path)
    assert str(np.datetime64(events["ts_event_ns"][0], "ns")) == "2025-06-05T01:00:00.500000000"


def test_reader_shfe_when_volume_rises_then_trade_stands_before_its_snapshot_at_the_same_time(tmp_path):
    shfe_file(tmp_path, shfe_columns([100, 105], [3_000_000.0, 3_000_000.0 + 5 * 10 * 3001]))
    events, _ = read(tmp_path)
    second = events["kind"].index(Kind.TRADE, 2)
    assert events["kind"][second + 1] == Kind.CLEAR
    assert events["ts_event_ns"][second] == events["ts_event_ns"][second + 1]
    assert trades(events, after=1) == [(3001, 5, Side.BUY)]


@pytest.mark.parametrize(
    ("price", "side"), [(3000, Side.SELL), (2998, Side.SELL), (3001, Side.NONE), (3002, Side.BUY), (3007, Side.BUY)]
)
def test_reader_shfe_when_price_meets_earlier_book_then_side_is_the_quote_rule_s(tmp_path, price, side):
    columns = shfe_columns([100, 101], [3_000_000.0, 3_000_000.0 + 10 * price])
    for k in range(1, 6):  # two ticks of spread: 3001 lies inside
        columns[f"ask{k}"] = pa.array([3001.0 + k] * 2)
    shfe_file(tmp_path, columns)
    assert trades(read(tmp_path)[0], after=1) == [(price, 1, side)]


def test_reader_shfe_when_average_is_between_ticks_then_lots_are_split_and_amount_conserved(tmp_path):
    amount = 10 * (7 * 3000 + 3 * 3001)
    shfe_file(tmp_path, shfe_columns([100, 110], [3_000_000.0, 3_000_000.0 + amount]))
    got = trades(read(tmp_path)[0], after=1)
    assert got == [(3000, 7, Side.SELL), (3001, 3, Side.BUY)]
    assert sum(price * size * 10 for price, size, _ in got) == amount


def test_reader_shfe_when_first_snapshot_has_volume_then_auction_is_a_trade_without_side(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    assert trades(read(tmp_path)[0]) == [(3000, 100, Side.NONE)]


def test_reader_shfe_when_total_falls_then_trade_of_negative_size_is_left_for_cleaning(tmp_path):
    shfe_file(tmp_path, shfe_columns([100, 90], [3_000_000.0, 2_700_000.0]))
    assert trades(read(tmp_path)[0], after=1) == [(3000, -10, Side.SELL)]


@pytest.mark.parametrize("absent", [float("nan"), 1.7976931348623157e308])
def test_reader_shfe_when_level_is_absent_then_no_event_and_last_moves_up(tmp_path, absent):
    columns = shfe_columns([0.0], [0.0])
    columns |= {"ask5": pa.array([absent]), "askSize5": pa.array([0.0])}
    shfe_file(tmp_path, columns)
    events, _ = read(tmp_path)
    assert len(events["kind"]) == 10
    assert events["side"][-1] == Side.BUY and events["flags"][-1] == Flag.LAST | 4


def test_reader_shfe_when_price_is_nan_but_size_is_not_then_row_stays_for_cleaning(tmp_path):
    columns = shfe_columns([0.0], [0.0]) | {"bid1": pa.array([float("nan")])}
    shfe_file(tmp_path, columns)
    events, _ = read(tmp_path)
    assert (events["price_ticks"][1], events["size"][1], events["kind"][1]) == (0, 10, Kind.LEVEL)


def test_reader_shfe_when_price_is_between_ticks_then_flagged(tmp_path):
    columns = shfe_columns([0.0], [0.0]) | {"bid1": pa.array([3000.4])}
    shfe_file(tmp_path, columns)
    events, _ = read(tmp_path)
    assert events["price_ticks"][1] == 3000 and events["flags"][1] == Flag.SUB_TICK


def test_reader_shfe_when_earlier_best_is_absent_then_trade_has_no_side(tmp_path):
    columns = shfe_columns([0.0, 1.0], [0.0, 30_000.0]) | {
        "bid1": pa.array([1.7976931348623157e308, 3000.0]),
        "ask1": pa.array([float("nan"), 3001.0]),
    }
    shfe_file(tmp_path, columns)
    assert trades(read(tmp_path)[0]) == [(3000, 1, Side.NONE)]


def test_reader_shfe_when_file_spans_batches_then_totals_carry_over(tmp_path):
    rows = 20_000
    volume = np.arange(1.0, rows + 1)
    shfe_file(tmp_path, shfe_columns(volume, volume * 30_000, start="2025-06-05T09:00:00"))
    events, count = read(tmp_path)
    got = trades(events)
    assert len(got) == rows and {size for _, size, _ in got} == {1} and {price for price, _, _ in got} == {3000}
    assert np.array_equal(events["sequence"], np.arange(12 * rows))
    assert count.total == rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1.7976931348623157e308])
@pytest.mark.parametrize("name", ["volume", "amount"])
def test_reader_shfe_when_running_total_is_no_number_then_names_row_and_column(tmp_path, name, value):
    columns = shfe_columns(**FLAT) | {name: pa.array([100.0, value])}
    shfe_file(tmp_path, columns)
    message = refusal(tmp_path)
    assert f"rb_20250605.parquet: row 2: {name} is" in message


def test_reader_shfe_when_timestamp_is_empty_then_names_row(tmp_path):
    columns = shfe_columns(**FLAT)
    columns["timestamp"] = pa.array([columns["timestamp"][0].as_py(), None], pa.timestamp("us"))
    shfe_file(tmp_path, columns)
    assert "row 2: timestamp is empty" in refusal(tmp_path)


def test_reader_shfe_when_column_is_missing_then_names_it(tmp_path):
    columns = shfe_columns(**FLAT)
    del columns["askSize3"]
    shfe_file(tmp_path, columns)
    assert "rb_20250605.parquet: no column 'askSize3'" in refusal(tmp_path)


def test_reader_shfe_when_column_has_wrong_type_then_names_it(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT) | {"bid1": pa.array(["x", "y"])})
    assert "column 'bid1' holds string" in refusal(tmp_path)


def test_reader_shfe_when_timestamp_is_text_then_says_so(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT) | {"timestamp": pa.array(["x", "y"])})
    assert "column 'timestamp' holds string" in refusal(tmp_path)


def test_reader_shfe_when_file_is_no_parquet_then_names_it(tmp_path):
    (tmp_path / "rb_20250605.parquet").write_bytes(b"PAR1 no")
    assert "rb_20250605.parquet: not a readable Parquet file" in refusal(tmp_path)


def test_reader_shfe_when_file_is_truncated_then_names_it(tmp_path):
    path = shfe_file(tmp_path, shfe_columns(**FLAT))
    path.write_bytes(path.read_bytes()[:-200])
    assert "rb_20250605.parquet: not a readable Parquet file" in refusal(tmp_path)


def test_reader_shfe_when_pages_are_damaged_then_names_file(tmp_path):
    volume = np.arange(1.0, 3_001)
    path = shfe_file(tmp_path, shfe_columns(volume, volume * 30_000))
    content = bytearray(path.read_bytes())
    content[8:4_000] = bytes(3_992)
    path.write_bytes(content)
    assert "rb_20250605.parquet" in refusal(tmp_path)


def test_reader_shfe_when_file_has_no_row_then_empty_session_names_it(tmp_path):
    shfe_file(tmp_path, shfe_columns([], []))
    assert "rb_20250605.parquet: empty session" in refusal(tmp_path)


def test_reader_shfe_when_file_mixes_contracts_then_refuses(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT) | {"instrumentID": pa.array(["rb2510", "rb2601"])})
    assert "holds 2 contracts (rb2510, rb2601)" in refusal(tmp_path)


@pytest.mark.parametrize("name", [None, "../../x", "rb"])
def test_reader_shfe_when_contract_is_no_contract_then_refuses(tmp_path, name):
    shfe_file(tmp_path, shfe_columns(**FLAT) | {"instrumentID": pa.array([name, name], pa.string())})
    assert "a contract such as rb2510 is wanted" in refusal(tmp_path)


@pytest.mark.parametrize("symbol", ["rb", "RB", "rb2510", "RB2510"])
def test_reader_shfe_when_symbol_is_product_or_contract_then_finds_it(tmp_path, symbol):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    (plan,) = ShfeReader().plan(IngestRequest("shfe", tmp_path, (symbol,)))
    assert plan.partition.instrument_id == "SHFE:rb2510"


@pytest.mark.parametrize(("symbol", "there"), [("cu2510", "rb"), ("r", "rb"), ("rb2605", "rb2510")])
def test_reader_shfe_when_symbol_is_absent_then_lists_what_is_there(tmp_path, symbol, there):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    assert f"symbol {symbol} is not in {tmp_path}; there: {there}" in refusal(tmp_path, symbols=(symbol,))


def test_reader_shfe_when_no_day_is_in_range_then_lists_days_there(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    assert "there: 2025-06-05" in refusal(tmp_path, date_from="2025-06-06")


def test_reader_shfe_when_a_file_out_of_range_is_bad_then_it_is_not_opened(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    (tmp_path / "rb_20250606.parquet").write_bytes(b"junk")
    assert len(ShfeReader().plan(IngestRequest("shfe", tmp_path, date_to="2025-06-05"))) == 1


def test_reader_shfe_when_two_files_hold_one_contract_and_day_then_refuses(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT))
    shfe_file(tmp_path, shfe_columns(**FLAT), product="rb2510")
    assert "holds the same contract and day as" in refusal(tmp_path)


def test_reader_shfe_when_folder_is_absent_or_without_files_then_says_so(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "holds no file that source shfe reads" in refusal(tmp_path)
    assert "holds no file that source shfe reads" in refusal(tmp_path, symbols=("rb",))


def test_reader_shfe_when_monday_is_asked_for_then_night_session_is_friday_s(tmp_path):
    shfe_file(tmp_path, shfe_columns(**FLAT), day="20250609")
    (item,) = ShfeReader().instruments(IngestRequest("shfe", tmp_path))
    opens, closes = item.session_ns("2025-06-09")[0]
    assert str(np.datetime64(opens, "ns")) == "2025-06-06T13:00:00.000000000"  # Friday 21:00 in Shanghai
    assert closes - opens == 2 * 3_600_000_000_000
    assert (item.depth, item.snapshot_data, item.lot_size, item.tick_size) == (5, True, 10.0, 1.0)
