import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

TS = 1_714_636_800_123_456_789
MAPPING = {
    "instrument": {
        "venue": "XETR",
        "tick_size": 0.01,
        "currency": "EUR",
        "timezone": "Europe/Berlin",
        "windows": [{"open": "09:00:00", "close": "17:30:00"}],
    },
    "files": [
        {
            "path": "{symbol}_{date}_t.csv.*",
            "kind": "trades",
            "time": {"column": "time", "unit": "iso", "timezone": "Europe/Berlin"},
            "columns": {"price": "price", "size": "size", "side": "side", "condition": "cond"},
            "sides": {"B": "buy", "S": "sell"},
            "conditions": {"": [], "Z": ["late"]},
        },
        {
            "path": "quotes.parquet",
            "kind": "quotes",
            "symbol_column": "ticker",
            "date_column": "day",
            "time": {"column": "time", "unit": "ns"},
            "columns": {"bid": "bid", "bid_size": "bid_size", "ask": "ask", "ask_size": "ask_size"},
        },
    ],
}


def parquet(rows=40):
    table = {
        "time": [TS + row for row in range(rows)],
        "bid": [10.0 + row / 100 for row in range(rows)],
        "bid_size": list(range(1, rows + 1)),
        "ask": [10.01 + row / 100 for row in range(rows)],
        "ask_size": [7] * rows,
        "ticker": ["SAP"] * rows,
        "day": ["2024-05-02"] * rows,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


def files(suffix):
    lines = [
        f"2024-05-02T10:00:{row:02}.{row:03},{10 + row / 100:.2f},{row + 1},{'BS'[row % 2]},{'Z' * (row % 3 == 0)}"
        for row in range(50)
    ]
    return {
        "mapping.yaml": yaml.safe_dump(MAPPING, sort_keys=False).encode(),
        f"SAP_20240502_t.csv.{suffix}": "\n".join(["time,price,size,side,cond", *lines, ""]).encode(),
        "quotes.parquet": parquet(),
    }


@pytest.mark.parametrize(("suffix", "container"), [("gz", "gzip"), ("zst", "zstd")])
@FUZZ
@given(data=st.data())
def test_reader_mapped_when_a_file_is_damaged_then_it_is_read_whole_or_refused_by_name(
    tmp_path, suffix, container, data
):
    content = files(suffix)
    # A damaged mapping may say other things of a file than that holds: the answer names the file.
    check_reader_survives("mapped", content, container=container, tmp=tmp_path, data=data, may_blame=content)
