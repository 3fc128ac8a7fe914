"""Data folders of the mapped reader made for tests: a mapping, and the files that it names."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.ticks.mapped import MappedReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA

INSTRUMENT = {
    "venue": "XETR",
    "tick_size": 0.01,
    "currency": "EUR",
    "timezone": "Europe/Berlin",
    "windows": [{"open": "09:00:00", "close": "17:30:00"}],
}
TRADES = {
    "path": "{symbol}_{date}.csv",
    "kind": "trades",
    "time": {"column": "time", "unit": "ns"},
    "columns": {"price": "price", "size": "size"},
}
QUOTES = {
    "path": "{symbol}_{date}_q.csv",
    "kind": "quotes",
    "time": {"column": "time", "unit": "ns"},
    "columns": {"bid": "bid", "bid_size": "bid_size", "ask": "ask", "ask_size": "ask_size"},
}
ORDERS = {
    "path": "{symbol}_{date}_o.csv",
    "kind": "orders",
    "time": {"column": "time", "unit": "ns"},
    "columns": {"action": "type", "order_id": "id", "side": "side", "price": "price", "size": "size"},
    "actions": {"A": "add", "D": "cancel", "U": "replace", "E": "trade", "R": "clear", "H": "halt", "*": "skip"},
    "sides": {"B": "buy", "S": "sell"},
}
FILE = "SAP_2024-05-02.csv"
BERLIN = {"timezone": "Europe/Berlin"}
TS = 1_714_636_800_123_456_789  # 2024-05-02 08:00:00.123456789 UTC


def folder(tmp_path, files, content=(), **mapping):
    """A data folder: its mapping of `files`, and each file of `content` (text, or a table written as Parquet)."""
    whole = {"instrument": INSTRUMENT, "files": list(files), **mapping}
    (tmp_path / "mapping.yaml").write_text(json.dumps(whole))
    for name, data in dict(content).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, pa.Table):
            pq.write_table(data, path)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(data.encode()))
        else:
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return tmp_path


def plans(data, **options):
    return MappedReader().plan(IngestRequest("mapped", data, **options))


def read(data, **options):
    (plan,) = plans(data, **options)
    count = ReadCount()
    return pa.Table.from_batches(list(MappedReader().read(plan, count)), EVENT_SCHEMA).to_pydict(), count


def refusal(data, **options):
    with pytest.raises(InputError) as caught:
        read(data, **options)
    return str(caught.value)


def trades(tmp_path, *lines, header="time,price,size", name=FILE, **changes):
    return folder(tmp_path, [{**TRADES, **changes}], {name: "\n".join([header, *lines]) + "\n"})
