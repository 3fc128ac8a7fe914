import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_files import OPEN_MS, lean_day, shfe_columns, shfe_file

from feature_repo.lake import list_partitions
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

times = st.integers(OPEN_MS - 3, OPEN_MS + 20)
prices = st.integers(1, 10**7)
sizes = st.integers(0, 10**6)
doubt = st.integers(0, 1)
quote_rows = st.lists(st.tuples(times, prices, sizes, st.booleans(), doubt), min_size=1, max_size=40)
trade_rows = st.lists(st.tuples(times, prices, sizes, doubt), min_size=1, max_size=40)


def bronze(source, data, root):
    out = root / "out"
    out.mkdir()
    summary = ingest(IngestRequest(source, data), out)
    (partition,) = list_partitions(out, "events.parquet")
    return summary, pq.read_table(partition.folder(out) / "events.parquet", partitioning=None).to_pydict()


@settings(max_examples=60, deadline=None)
@given(quote_rows, trade_rows)
def test_reader_when_any_lean_rows_are_read_then_each_is_one_event_in_its_file_s_order(quotes, trades):
    quote_lines = [
        f"{ms},{price},{size},0,0,P,1,{bad}" if bid else f"{ms},0,0,{price},{size},P,1,{bad}"
        for ms, price, size, bid, bad in quotes
    ]
    trade_lines = [f"{ms},{price},{size},P,0,{bad}" for ms, price, size, bad in trades]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        summary, events = bronze("lean", lean_day(root / "lean", quotes=quote_lines, trades=trade_lines), root)
    assert summary["vendor_rows"] == summary["rows"] == len(quotes) + len(trades)
    assert [item["vendor_rows"] for item in summary["inputs"]] == [len(quotes), len(trades)]
    assert events["sequence"] == list(range(len(quotes) + len(trades)))
    midnight = 1_381_118_400_000_000_000
    rows = list(
        zip(*(events[key] for key in ("kind", "ts_event_ns", "price_ticks", "size", "side", "flags")), strict=True)
    )
    got_quotes = [row[1:] for row in rows if row[0] == Kind.QUOTE]
    got_trades = [row[1:] for row in rows if row[0] == Kind.TRADE]
    doubtful = int(Flag.SUSPICIOUS)
    assert [(ts, size, side, flags & doubtful) for ts, _, size, side, flags in got_quotes] == [
        (midnight + ms * 10**6, size, Side.BUY if bid else Side.SELL, doubtful * bad)
        for ms, _, size, bid, bad in quotes
    ]
    assert [(ts, size, flags & doubtful) for ts, _, size, _, flags in got_trades] == [
        (midnight + ms * 10**6, size, doubtful * bad) for ms, _, size, bad in trades
    ]
    for got, sent in ((got_quotes, quotes), (got_trades, trades)):
        for (_, ticks, _, _, flags), row in zip(got, sent, strict=True):
            assert abs(ticks * 100 - row[1]) <= 50
            assert bool(flags & Flag.SUB_TICK) == (row[1] % 100 != 0)


@settings(max_examples=60, deadline=None)
@given(quote_rows, trade_rows)
def test_reader_when_both_lean_files_are_in_time_order_then_so_is_the_merge_and_trades_open_a_tie(quotes, trades):
    quotes, trades = sorted(quotes, key=lambda row: row[0]), sorted(trades, key=lambda row: row[0])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = lean_day(
            root / "lean",
            quotes=[f"{ms},{price},{size},0,0,P,1,0" for ms, price, size, _, _ in quotes],
            trades=[f"{ms},{price},{size},P,0,0" for ms, price, size, _ in trades],
        )
        _, events = bronze("lean", data, root)
    keys = list(zip(events["ts_event_ns"], [kind != Kind.TRADE for kind in events["kind"]], strict=True))
    assert keys == sorted(keys)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(2990, 3010), st.integers(1, 500)), max_size=4), min_size=1, max_size=30))
def test_reader_when_any_shfe_fills_are_summed_then_trades_conserve_lots_and_amount(steps):
    lots = [sum(size for _, size in step) for step in steps]
    amounts = [sum(10 * price * size for price, size in step) for step in steps]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shfe_file(root / "shfe", shfe_columns(np.cumsum(lots), np.cumsum(np.array(amounts, float))))
        summary, events = bronze("shfe", root / "shfe", root)
    kind, ts = np.array(events["kind"]), np.array(events["ts_event_ns"])
    price, size = np.array(events["price_ticks"]), np.array(events["size"])
    assert summary["vendor_rows"] == len(steps) == np.sum(kind == Kind.CLEAR)
    assert np.sum(kind == Kind.LEVEL) == 10 * len(steps)
    assert summary["rows"] == len(kind)
    assert np.all(np.diff(ts) >= 0)
    for i, moment in enumerate(np.unique(ts)):
        here = (ts == moment) & (kind == Kind.TRADE)
        assert size[here].sum() == lots[i]
        assert (10 * price[here] * size[here]).sum() == amounts[i]
        assert np.ptp(price[here]) <= 1 if here.any() else lots[i] == 0


int64 = st.integers(-(2**62), 2**62)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(int64, st.sampled_from(list(Kind)), st.sampled_from(list(Side)), int64, int64, int64)))
def test_reader_when_columns_become_a_batch_then_every_value_comes_back(rows):
    ts, kind, side, price, size, order = (np.array(column) for column in zip(*rows, strict=True)) if rows else (
        np.empty(0, np.int64) for _ in range(6)
    )  # fmt: skip
    batch = event_batch(EventColumns.build(ts, kind, side, price, size, order_id=order), 5)
    assert batch.schema == EVENT_SCHEMA
    table = pa.Table.from_batches([batch]).to_pydict()
    names = ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id")
    assert list(zip(*(table[name] for name in names), strict=True)) == [tuple(map(int, row)) for row in rows]
    assert table["sequence"] == list(range(5, 5 + len(rows)))
