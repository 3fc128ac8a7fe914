"""The book fed one event at a time gives the batch's rows bit for bit: random streams, real days, and its refusals."""

from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from book_streams import DEPTH, depth_streams, events, order_streams
from hypothesis import given, settings

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book, BookCounts, build_book
from feature_repo.pipeline.live_book import BookRow, LiveBook
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import Flag, Kind

COLUMNS = ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id", "flags")


def replay_live(table: pa.Table, depth: int) -> tuple[list[BookRow], BookCounts]:
    """All rows of a live book that sees the events one after another."""
    book, rows = LiveBook(depth), []
    for event in zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True):
        if book.on_event(*event):
            rows += book.rows()
    if book.end():
        rows += book.rows()
    return rows, book.counts


def assert_equal(rows: list[BookRow], book: Book) -> None:
    """Every column of every row, bit for bit."""
    assert len(rows) == len(book)
    if not rows:
        return
    for name, column in zip(BookRow._fields, zip(*rows, strict=True), strict=True):
        expected = getattr(book, name)
        assert np.array_equal(np.array(column, expected.dtype), expected), name


@settings(max_examples=80, deadline=None)
@given(depth_streams())
def test_live_book_when_fed_depth_and_orders_then_gives_the_rows_of_the_batch(rows):
    live, counts = replay_live(events(rows), DEPTH)
    book, expected = build_book(events(rows), DEPTH)
    assert_equal(live, book)
    assert counts == expected


@settings(max_examples=40, deadline=None)
@given(order_streams())
def test_live_book_when_fed_orders_then_gives_the_rows_of_the_batch(rows):
    live, _ = replay_live(events(rows), DEPTH)
    assert_equal(live, build_book(events(rows), DEPTH)[0])


def test_live_book_when_orders_come_and_go_by_the_thousand_then_grows_like_the_batch(tmp_path):
    ingest(IngestRequest("synthetic", options={"days": 1, "hours": 0.2, "dirt": 0.0}), tmp_path)
    table = pq.read_table(next(tmp_path.rglob("events.parquet")), partitioning=None)
    live, counts = replay_live(table, 5)
    book, expected = build_book(table, 5)
    assert len(book) > 5_000
    assert_equal(live, book)
    assert counts == expected and not any(astuple(counts))


@pytest.mark.parametrize(
    ("source", "folder", "symbols", "day", "depth"),
    [("lean", "lean", ("AIG",), "2013-10-07", 1), ("shfe", "shfe", (), "2025-06-05", 5)],
)
def test_live_book_when_fed_a_real_day_then_gives_the_rows_of_the_batch(
    source, folder, symbols, day, depth, real_data, tmp_path
):
    ingest(IngestRequest(source, real_data / folder, symbols, day, day), tmp_path)
    table = pq.read_table(next(tmp_path.rglob("events.parquet")), partitioning=None)
    table = table.slice(table.num_rows // 2, 100_000)
    live, counts = replay_live(table, depth)
    book, expected = build_book(table, depth)
    assert_equal(live, book)
    assert counts == expected and len(book) > 10_000


def test_live_book_when_a_clear_goes_unanswered_then_gives_the_empty_row_and_the_trade_at_once():
    book = LiveBook(1)
    assert book.on_event(1, Kind.ADD, 1, 99, 5, 1) and book.row().bid_px.tolist() == [99]
    assert not book.on_event(2, Kind.CLEAR, 0, 0, 0)
    assert book.on_event(5, Kind.TRADE, 1, 101, 2)
    empty, trade = book.rows()
    assert (empty.ts_ns, empty.bid_px.tolist(), empty.trade_sz) == (2, [0], 0)
    assert (trade.ts_ns, trade.trade_px, trade.trade_sz, trade.trade_side) == (5, 101, 2, 1)
    assert not book.on_event(6, Kind.CLEAR, 0, 0, 0, 0, Flag.GAP) and book.end() and book.rows()[0].ts_ns == 6
    assert not book.end()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ((1, Kind.ADD, 1, 99, 5, 2), "time runs backwards: event at 1 ns after one at 2 ns"),
        ((3, Kind.ADD, 1, 99, -5, 2), "event at 3 ns: a size of -5 lots is negative"),
        ((3, Kind.QUOTE, 1, 2**40, 5, 0), "event at 3 ns: a price or size of 1099511627776 exceeds 2147483647"),
        ((3, Kind.ADD, 1, 99, 2**31 - 1, 2), "event at 3 ns: 2147483652 lots rest at one price"),
        ((3, Kind.ADD, 1, 99_000_000, 5, 2), "event at 3 ns: the visible book needs a price"),
    ],
)
def test_live_book_when_an_event_cannot_be_held_then_names_it(event, message):
    book = LiveBook(1)
    book.on_event(2, Kind.ADD, 1, 99, 5, 1)
    with pytest.raises(InputError, match=message):
        book.on_event(*event)
