"""The compiled book equals a slow and obvious one, row by row, for every kind of vendor data."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book, load_book, write_book
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Flag, Kind, Side

DEPTH = 3


def events(rows: list[tuple]) -> pa.Table:
    """Rows are (ts, kind, side, price, size, order, flags)."""
    ts, kind, side, price, size, order, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    columns = EventColumns.build(ts, kind, side, price, size, flags, order)
    return pa.Table.from_batches([event_batch(columns, 0)])


def visible(orders: dict[int, list[int]]) -> tuple:
    """Best levels of {order: [side, price, size]} as (bids, asks), each a tuple of (price, size)."""
    sides = []
    for side, sign in ((1, -1), (-1, 1)):
        levels: dict[int, int] = {}
        for mine, price, size in orders.values():
            if mine == side and size > 0:
                levels[price] = levels.get(price, 0) + size
        sides.append(tuple(sorted(levels.items(), key=lambda item: sign * item[0])[:DEPTH]))
    return tuple(sides)


def slow_book(rows: list[tuple]) -> list[tuple]:
    """(ts, bids, asks, trade price, trade size) of every row that the book should have."""
    orders: dict[int, list[int]] = {}
    out: list[tuple] = []
    for ts, kind, side, price, size, order, _ in rows:
        if kind in (Kind.CANCEL, Kind.TRADE):
            if order in orders:
                orders[order][2] = max(0, orders[order][2] - size)
                if orders[order][2] == 0:
                    del orders[order]
        elif kind == Kind.ADD or order in orders:
            orders[order] = [side, price, size]
        if kind == Kind.TRADE:
            out.append((ts, *visible(orders), price, size))
        elif not out or visible(orders) != out[-1][1:3]:
            out.append((ts, *visible(orders), 0, 0))
    return out


def shown(book) -> list[tuple]:
    out = []
    for i in range(len(book)):
        bids = tuple((int(p), int(s)) for p, s in zip(book.bid_px[i], book.bid_sz[i], strict=True) if s)
        asks = tuple((int(p), int(s)) for p, s in zip(book.ask_px[i], book.ask_sz[i], strict=True) if s)
        out.append((int(book.ts_ns[i]), bids, asks, int(book.trade_px[i]), int(book.trade_sz[i])))
    return out


@st.composite
def order_streams(draw) -> list[tuple]:
    """Sane order-by-order streams: adds on their own side of 100, then cancels, replaces and trades of live orders."""
    rows: list[tuple] = []
    live: dict[int, list[int]] = {}
    for number in range(draw(st.integers(1, 60))):
        what = draw(st.sampled_from(["add", "add", "cancel", "trade", "replace"])) if live else "add"
        if what == "add":
            side = draw(st.sampled_from([1, -1]))
            price = 100 - side * draw(st.integers(1, 6))
            size = draw(st.integers(1, 9))
            live[number + 1] = [side, price, size]
            rows.append((number, Kind.ADD, side, price, size, number + 1, 0))
            continue
        order = draw(st.sampled_from(sorted(live)))
        side, price, size = live[order]
        if what == "replace":
            live[order] = [side, 100 - side * draw(st.integers(1, 6)), draw(st.integers(1, 9))]
            rows.append((number, Kind.REPLACE, side, live[order][1], live[order][2], order, 0))
            continue
        lots = draw(st.integers(1, size))
        kind = Kind.CANCEL if what == "cancel" else Kind.TRADE
        rows.append((number, kind, side if what == "cancel" else -side, price, lots, order, 0))
        live[order][2] -= lots
        if live[order][2] == 0:
            del live[order]
    return rows


@settings(max_examples=150, deadline=None)
@given(order_streams())
def test_book_when_built_from_orders_then_equals_the_slow_one(rows):
    book, counts = build_book(events(rows), DEPTH)
    assert shown(book) == slow_book(rows)
    assert counts.unknown_order == counts.oversized == counts.hidden_trades == 0


def test_book_when_orders_are_unknown_or_too_large_then_counts_and_goes_on():
    rows = [
        (1, Kind.ADD, 1, 99, 5, 1, 0),
        (2, Kind.CANCEL, 1, 99, 5, 77, 0),
        (3, Kind.CANCEL, 1, 99, 9, 1, 0),
        (4, Kind.TRADE, 1, 101, 2, 0, Flag.HIDDEN),
    ]
    book, counts = build_book(events(rows), DEPTH)
    assert shown(book) == [(1, ((99, 5),), (), 0, 0), (3, (), (), 0, 0)]
    assert (counts.unknown_order, counts.oversized, counts.hidden_trades) == (1, 1, 1)


def test_book_when_session_opens_with_clear_then_shows_nothing_until_the_last_order():
    rows = [
        (1, Kind.ADD, 1, 90, 5, 1, 0),
        (2, Kind.CLEAR, 0, 0, 0, 0, 0),
        (2, Kind.ADD, 1, 99, 4, 2, 0),
        (2, Kind.ADD, -1, 101, 6, 3, Flag.LAST),
        (3, Kind.CANCEL, 1, 99, 1, 2, 0),
    ]
    book, _ = build_book(events(rows), DEPTH)
    assert shown(book) == [
        (1, ((90, 5),), (), 0, 0),
        (2, ((99, 4),), ((101, 6),), 0, 0),
        (3, ((99, 3),), ((101, 6),), 0, 0),
    ]


def test_book_when_a_clear_is_not_followed_by_a_whole_book_then_is_empty_from_the_clear_on():
    rows = [
        (1, Kind.ADD, 1, 99, 5, 1, 0),
        (2, Kind.CLEAR, 0, 0, 0, 0, 0),
        (5, Kind.TRADE, 1, 101, 2, 0, 0),
    ]
    book, _ = build_book(events(rows), DEPTH)
    assert shown(book) == [(1, ((99, 5),), (), 0, 0), (2, (), (), 0, 0), (5, (), (), 101, 2)]


def test_book_when_built_from_snapshots_then_each_replaces_the_one_before():
    def snapshot(ts: int, bids: list, asks: list) -> list[tuple]:
        levels = [(Side.BUY, k, *level) for k, level in enumerate(bids)]
        levels += [(Side.SELL, k, *level) for k, level in enumerate(asks)]
        rows = [(ts, Kind.LEVEL, side, price, size, 0, k) for side, k, price, size in levels]
        rows[-1] = (*rows[-1][:6], rows[-1][6] | Flag.LAST)
        return [(ts, Kind.CLEAR, 0, 0, 0, 0, 0), *rows]

    rows = snapshot(1, [(99, 5), (98, 7)], [(100, 3)])
    rows += [(2, Kind.TRADE, 1, 100, 3, 0, 0)]
    rows += snapshot(2, [(99, 5)], [(101, 9), (102, 1), (103, 1), (104, 1)])
    book, _ = build_book(events(rows), DEPTH)
    assert shown(book) == [
        (1, ((99, 5), (98, 7)), ((100, 3),), 0, 0),
        (2, ((99, 5), (98, 7)), ((100, 3),), 100, 3),
        (2, ((99, 5),), ((101, 9), (102, 1), (103, 1)), 0, 0),
    ]


def test_book_when_built_from_one_sided_quotes_then_carries_each_side_and_infers_the_aggressor():
    rows = [
        (1, Kind.QUOTE, 1, 99, 5, 0, 0),
        (2, Kind.QUOTE, -1, 101, 6, 0, 0),
        (3, Kind.TRADE, 0, 101, 1, 0, 0),  # above the mid: bought
        (4, Kind.TRADE, 0, 99, 1, 0, 0),  # below: sold
        (5, Kind.TRADE, 0, 100, 1, 0, 0),  # at the mid, above the last price: bought (tick rule)
        (6, Kind.TRADE, 0, 100, 1, 0, 0),  # no change: as before
        (7, Kind.TRADE, -1, 101, 1, 0, 0),  # the vendor's word stands
        (8, Kind.QUOTE, 1, 0, 0, 0, 0),
    ]
    book, _ = build_book(events(rows), 1)
    assert book.trade_side.tolist() == [0, 0, 1, -1, 1, 1, -1, 0]
    assert book.bid_px[:, 0].tolist() == [99] * 7 + [0]
    assert book.ask_sz[:, 0].tolist() == [0] + [6] * 7
    assert book.two_sided.tolist() == [False] + [True] * 6 + [False]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(2, Kind.QUOTE, 1, 99, 5, 0, 0), (1, Kind.QUOTE, 1, 99, 5, 0, 0)], "time runs backwards at row 1"),
        ([(1, Kind.ADD, 1, 1, 5, 1, 0), (2, Kind.ADD, 1, 9_999_999, 5, 2, 0)], "9,999,999 levels exceed 4,194,304"),
        ([(1, Kind.QUOTE, 1, 2**40, 5, 0, 0)], "exceeds 2147483647"),
    ],
)
def test_book_when_events_are_absurd_then_names_value_and_limit(rows, message):
    with pytest.raises(InputError, match=message):
        build_book(events(rows), DEPTH, "T")


def test_book_when_written_twice_then_same_bytes_and_loads_back(tmp_path):
    from feature_repo.lake import Partition

    partition = Partition("T", "T", "2025-01-06")
    folder = partition.folder(tmp_path)
    folder.mkdir(parents=True)
    book, _ = build_book(events([(1, Kind.ADD, 1, 99, 5, 1, 0), (2, Kind.TRADE, -1, 99, 2, 1, 0)]), DEPTH)
    write_book(book, folder / "book.parquet")
    first = (folder / "book.parquet").read_bytes()
    again = load_book(tmp_path, partition)
    assert shown(again) == shown(book) and again.bid_px.dtype == np.int32
    write_book(again, folder / "book.parquet")
    assert (folder / "book.parquet").read_bytes() == first
    with pytest.raises(InputError, match="not a readable book"):
        load_book(tmp_path, Partition("T", "T", "2025-01-07"))
