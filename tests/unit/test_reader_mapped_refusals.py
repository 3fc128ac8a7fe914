import numpy as np
import pyarrow as pa
import pytest
from mapped_files import BERLIN, FILE, INSTRUMENT, TRADES, TS, folder, plans, refusal, trades

BAD_ROWS = {
    "empty price": ("{ts},,1", "row 2: price is 'None', a number is wanted"),
    "NaN": ("{ts},NaN,1", "row 2: price is 'nan', a number below"),
    "infinite": ("{ts},1.00,inf", "row 2: size is 'inf', a number below"),
    "overflow": ("{ts},1e300,1", "row 2: price is '1e+300', a number below"),
    "text": ("{ts},abc,1", "row 2: column 'price'"),
    "half a lot": ("{ts},1.00,1.5", "row 2: size is '1.5', a multiple of 1 is wanted"),
    "no time": (",1.00,1", "row 2: time is 'None', a time is wanted"),
    "no such time": ("1e18x,1.00,1", "row 2: column 'time'"),
    "time beyond": ("9223372036854775807,1.00,1", "row 2: time is '9223372036854775807', a time"),
    "too few columns": ("{ts},1.00", "Row #2: Expected 3 columns, got 2"),
    "too many columns": ("{ts},1.00,1,1", "Row #2: Expected 3 columns, got 4"),
    "quoted": ('{ts},"1.00",1', "row 2: column 'price'"),
    "encoding": ("{ts},1.00,1\xe9", "row 2: column 'size'"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_reader_mapped_when_a_value_is_wrong_then_names_file_row_and_column(tmp_path, name):
    row, said = BAD_ROWS[name]
    message = refusal(trades(tmp_path, f"{TS},1.00,1", row.format(ts=TS)))
    assert f"{tmp_path / FILE}: " in message and said in message


@pytest.mark.parametrize("side", ["", "X", "b"])
def test_reader_mapped_when_a_side_is_not_listed_then_it_is_refused(tmp_path, side):
    changes = {"columns": {**TRADES["columns"], "side": "side"}, "sides": {"B": "buy", "S": "sell"}}
    rows = [f"{TS},1.00,1,B", f"{TS},1.00,1,{side}"]
    message = refusal(trades(tmp_path, *rows, header="time,price,size,side", **changes))
    assert f"{FILE}: row 2: side is {side!r}, one of ['B', 'S'] is wanted" in message


@pytest.mark.parametrize(("text", "why"), [("2024-10-27T02:30:00", "twice"), ("2024-03-31T02:30:00", "never")])
def test_reader_mapped_when_a_local_time_is_there_twice_or_never_then_it_is_refused(tmp_path, text, why):
    time = {"column": "time", "unit": "iso", **BERLIN}
    message = refusal(trades(tmp_path, "2024-05-02T10:00:00,1.00,1", f"{text},1.00,1", time=time))
    assert "row 2: time is" in message and "a time that Europe/Berlin has once is wanted" in message, why


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("price", pa.array([1.0, None]), "row 2: price is 'None', a number is wanted"),
        ("price", pa.array([1.0, np.nan]), "row 2: price is 'nan', a number below"),
        ("price", pa.array(["1", "2"]), "column 'price' holds string, which is not read as double"),
        ("size", pa.array([1, 2**63], pa.uint64()), "row 2: size is '9223372036854775808', at most"),
        ("size", pa.array([1, 2**62]), "row 2: size is '4611686018427387904', a number below 1e+12"),
        ("time", pa.array([1, 2**62]), "row 2: time is '4611686018427387904', a time"),
        ("time", pa.array([True, False]), "column 'time' holds bool, which is not read as int64"),
    ],
)
def test_reader_mapped_when_a_parquet_value_is_wrong_then_names_file_row_and_column(tmp_path, column, values, said):
    table = {"time": pa.array([TS, TS]), "price": pa.array([1.0, 2.0]), "size": pa.array([1, 2]), column: values}
    spec = {**TRADES, "path": "{symbol}_{date}.parquet"}
    message = refusal(folder(tmp_path, [spec], {"SAP_20240502.parquet": pa.table(table)}))
    assert f"{tmp_path / 'SAP_20240502.parquet'}: {said}" in message


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("time,px,size", "no column 'price', which mapping.yaml names; there: time, px, size"),
        ("time,price,price,size", "more than one column 'price'"),
    ],
)
def test_reader_mapped_when_a_column_is_not_there_once_then_lists_those_that_are(tmp_path, header, said):
    assert f"{FILE}: {said}" in refusal(trades(tmp_path, f"{TS},1.00,1", header=header))


def test_reader_mapped_when_two_files_of_a_day_have_one_name_then_asks_to_rename(tmp_path):
    files = [{**TRADES, "path": f"{part}/{{symbol}}_{{date}}.csv"} for part in ("a", "b")]
    content = {f"{part}/SAP_20240502.csv": f"time,price,size\n{TS},1.00,1\n" for part in ("a", "b")}
    assert "rename one of them" in refusal(folder(tmp_path, files, content))


BAD_MAPPINGS = {
    "unknown key": ({"lot": 3}, {}, "instrument.lot: Extra inputs are not permitted (it is 3)"),
    "no tick": ({"tick_size": 0}, {}, "instrument.tick_size: Input should be greater than 0 (it is 0)"),
    "not a number": ({"tick_size": float("nan")}, {}, "instrument.tick_size: Input should be a finite number"),
    "zone": ({"timezone": "Mars/Base"}, {}, "instrument.timezone: an IANA time zone such as Europe/Berlin is wanted"),
    "venue": ({"venue": "a/b"}, {}, "instrument.venue: String should match pattern"),
    "window": ({"windows": [{"open": "9", "close": "25:00:00"}]}, {}, "instrument.windows.0.open: a time HH:MM:SS"),
    "role": ({}, {"columns": {"price": "p", "bid": "b"}}, "columns of trades: missing ['size'], unknown ['bid']"),
    "kind": ({}, {"kind": "bars"}, "files.0.kind: Input should be 'quotes', 'trades' or 'orders' (it is 'bars')"),
    "sides": ({}, {"sides": {"B": "buy"}}, "files.0: sides and the column side belong together"),
    "outside": ({}, {"path": "../{symbol}_{date}.csv"}, "files.0.path: a path inside of the data folder"),
    "deep": ({}, {"path": "**/{symbol}_{date}.csv"}, "files.0.path: a path inside of the data folder"),
    "placeholder": ({}, {"path": "{symbol}_{day}.csv"}, "files.0.path: the placeholders are {symbol} and {date}"),
    "no date": ({}, {"path": "{symbol}.csv"}, "files.0: name the session date once"),
    "two symbols": ({}, {"symbol": "SAP"}, "files.0: name the symbol once"),
    "no file": ({}, {"path": "{symbol}-{date}.csv"}, "files.0.path: no file is named {symbol}-{date}.csv"),
    "midnight": ({}, {"time": {"column": "t", "unit": "ms", "since": "midnight"}}, "files.0.time: numbers since"),
    "one column twice": ({}, {"columns": {"price": "time", "size": "size"}}, "column 'time' has more than one role"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MAPPINGS)
def test_reader_mapped_when_the_mapping_is_wrong_then_names_key_and_value(tmp_path, name):
    instrument, spec, said = BAD_MAPPINGS[name]
    data = trades(tmp_path, f"{TS},1.00,1")
    folder(data, [{**TRADES, **spec}], instrument={**INSTRUMENT, **instrument})
    message = refusal(data)
    assert message.startswith(f"{tmp_path / 'mapping.yaml'}: ") and said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds NoneType, the keys instrument and files are wanted"),
        ("files: [", "not readable as YAML"),
        ("\xff", "not readable as YAML"),
        ("files: []\nfiles: []", "key 'files' stands twice"),
        ("a: &x [1]\nb: *x", "YAML aliases"),
        ("a: !!python/object:os.system x", "not readable as YAML"),
        ("[" * 10_000, "nested more than 10 deep"),
        ("instrument: 0x" + "f" * 9_000, "instrument: Input should be a valid dictionary"),
    ],
)
def test_reader_mapped_when_the_mapping_is_no_yaml_then_names_the_file(tmp_path, text, said):
    (tmp_path / "mapping.yaml").write_bytes(text.encode("latin-1"))
    message = refusal(tmp_path)
    assert f"{tmp_path / 'mapping.yaml'}: " in message and said in message


def test_reader_mapped_when_there_is_no_mapping_then_says_what_is_wanted(tmp_path):
    assert f"{tmp_path / 'mapping.yaml'}: no such file" in refusal(tmp_path)


def test_reader_mapped_when_a_symbol_of_the_mapping_has_no_file_then_refuses_it(tmp_path):
    data = trades(tmp_path, f"{TS},1.00,1")
    folder(data, [TRADES], symbols={"SPA": {"tick_size": 0.02}})
    assert "mapping.yaml: symbols.SPA: no file holds it; there: ['SAP']" in refusal(data)


def test_reader_mapped_when_a_symbol_or_day_is_asked_for_then_only_it_is_planned(tmp_path):
    names = ("SAP_20240502.csv", "SAP_20240503.csv", "SIE_20240502.csv")
    data = folder(tmp_path, [TRADES], {name: f"time,price,size\n{TS},1.00,1\n" for name in names})
    assert [plan.inputs[0].name for plan in plans(data)] == sorted(names)
    assert [plan.partition.symbol for plan in plans(data, symbols=("sie",))] == ["SIE"]
    assert [plan.partition.date for plan in plans(data, date_from="2024-05-03")] == ["2024-05-03"]
    assert "symbol XYZ is not in" in refusal(data, symbols=("XYZ",))
