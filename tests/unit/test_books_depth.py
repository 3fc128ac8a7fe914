"""Books by depth: whole from a snapshot on, unknown in a gap, compared with best quotes, prices far from the touch."""

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book, build_book
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Flag, Kind, Side

BUY, SELL, LAST = Side.BUY, Side.SELL, Flag.LAST


def events(rows: list[tuple]) -> pa.Table:
    """Rows are (ts, kind, side, price, size, order, flags)."""
    ts, kind, side, price, size, order, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return pa.Table.from_batches([event_batch(EventColumns.build(ts, kind, side, price, size, flags, order), 0)])


def snapshot(ts: int, update: int, *levels: tuple[int, int, int]) -> list[tuple]:
    """CLEAR, then DEPTH events of (side, price, size), the last one with LAST."""
    rows = [(ts, Kind.DEPTH, *level, update, 0) for level in levels]
    rows[-1] = (*rows[-1][:6], LAST)
    return [(ts, Kind.CLEAR, 0, 0, 0, 0, 0), *rows]


def best(book: Book) -> list[tuple[int, int, int, int]]:
    columns = (book.bid_px, book.bid_sz, book.ask_px, book.ask_sz)
    return [tuple(int(column[i, 0]) for column in columns) for i in range(len(book))]


OPEN = snapshot(1, 7, (BUY, 99, 5), (BUY, 98, 4), (SELL, 101, 6))


def test_book_when_depth_comes_before_a_snapshot_then_only_quotes_show():
    early = [(0, Kind.DEPTH, BUY, 97, 3, 1, LAST), (0, Kind.QUOTE, BUY, 96, 2, 1, 0)]
    book, counts = build_book(events([*early, *OPEN]), 2)
    assert best(book) == [(96, 2, 0, 0), (99, 5, 101, 6)] and book.bid_px[1].tolist() == [99, 98]
    assert (counts.unwhole, counts.quotes_compared) == (1, 0)


def test_book_when_a_message_has_several_levels_then_gives_one_row_at_its_end():
    message = [
        (2, Kind.DEPTH, BUY, 99, 0, 8, 0),
        (2, Kind.DEPTH, BUY, 100, 1, 8, 0),
        (2, Kind.DEPTH, SELL, 101, 9, 8, LAST),
    ]
    book, _ = build_book(events([*OPEN, *message, (3, Kind.TRADE, BUY, 101, 4, 0, 0)]), 2)
    assert best(book) == [(99, 5, 101, 6), (100, 1, 101, 9), (100, 1, 101, 9)]  # the trade moves no depth book
    assert book.bid_px[1].tolist() == [100, 98] and book.trade_sz.tolist() == [0, 0, 4]


def test_book_when_updates_are_missing_then_is_unknown_until_the_next_snapshot():
    gap = [
        (2, Kind.CLEAR, 0, 0, 12, 0, Flag.GAP),
        (3, Kind.DEPTH, BUY, 99, 1, 20, LAST),
        (4, Kind.ADD, BUY, 95, 1, 1, LAST),
    ]
    book, counts = build_book(events([*OPEN, *gap, *snapshot(9, 30, (BUY, 98, 1), (SELL, 99, 1))]), 1)
    assert book.ts_ns.tolist() == [1, 2, 9] and best(book) == [(99, 5, 101, 6), (0, 0, 0, 0), (98, 1, 99, 1)]
    assert (counts.gaps, counts.unwhole) == (1, 2)


def test_book_when_quotes_stand_beside_a_whole_ladder_then_compares_those_of_the_same_update():
    rows = [
        *OPEN,
        (2, Kind.QUOTE, BUY, 99, 5, 7, 0),  # equal
        (2, Kind.QUOTE, SELL, 101, 5, 7, 0),  # another size
        (2, Kind.QUOTE, SELL, 101, 1, 7, Flag.NO_SIZE),  # the vendor gives no size
        (2, Kind.QUOTE, BUY, 90, 5, 0, 0),  # no number
        (2, Kind.QUOTE, SELL, 102, 5, 8, 0),  # ahead of the ladder, and wrong
        (3, Kind.DEPTH, BUY, 99, 4, 8, 0),
        (3, Kind.QUOTE, BUY, 99, 3, 8, 0),  # inside the message: compared at its end
        (3, Kind.DEPTH, BUY, 99, 3, 8, LAST),
        (4, Kind.QUOTE, BUY, 99, 1, 9, 0),  # of an update that never comes
        (4, Kind.DEPTH, BUY, 99, 2, 10, LAST),
    ]
    book, counts = build_book(events(rows), 1)
    assert (counts.quotes_compared, counts.quotes_equal) == (5, 3)
    assert best(book) == [(99, 5, 101, 6), (99, 3, 101, 6), (99, 2, 101, 6)]


def test_book_when_depth_says_less_than_the_orders_then_shows_depth_and_never_falls_below_none():
    rows = [
        (1, Kind.ADD, BUY, 99, 5, 1, 0),
        (1, Kind.ADD, BUY, 99, 3, 2, 0),
        (2, Kind.DEPTH, BUY, 99, 4, 0, LAST | Flag.RESYNC),
        (3, Kind.CANCEL, BUY, 99, 3, 2, 0),
        (4, Kind.CANCEL, BUY, 99, 5, 1, 0),
        (5, Kind.ADD, BUY, 99, 2, 3, 0),
    ]
    book, counts = build_book(events(rows), 1)
    assert book.bid_sz[:, 0].tolist() == [5, 8, 4, 1, 0, 2]
    assert counts.unknown_order == counts.oversized == 0


def test_book_when_lots_belong_to_no_known_order_then_cancels_and_trades_take_them():
    rows = [
        *OPEN,
        (2, Kind.CANCEL, BUY, 99, 2, 50, 0),
        (3, Kind.TRADE, BUY, 101, 1, 51, 0),
        (4, Kind.CANCEL, BUY, 99, 9, 52, 0),  # more than is there
        (5, Kind.CANCEL, BUY, 99, 1, 53, 0),  # nothing is there
        (6, Kind.TRADE, SELL, 97, 1, 54, 0),
    ]
    book, counts = build_book(events(rows), 1)
    assert best(book) == [(99, 5, 101, 6), (99, 3, 101, 6), (99, 3, 101, 5), (98, 4, 101, 5), (98, 4, 101, 5)]
    assert (counts.unknown_order, counts.oversized) == (2, 1)


def test_book_when_prices_lie_millions_of_ticks_apart_then_shows_them_all():
    wide = snapshot(1, 1, (BUY, 2_000_000, 5), (BUY, 700_000, 1), (SELL, 2_000_001, 2), (SELL, 5_000_000, 3))
    book, counts = build_book(events([*wide, (2, Kind.DEPTH, BUY, 2_000_000, 0, 2, LAST)]), 2)
    assert best(book) == [(2_000_000, 5, 2_000_001, 2), (700_000, 1, 2_000_001, 2)]
    assert book.ask_px[1].tolist() == [2_000_001, 5_000_000] and counts.far_levels == 0


def test_book_when_a_price_is_beyond_the_ladder_then_counts_it_and_refuses_only_where_it_would_show():
    far = (SELL, 900_000_000, 3)
    rows = snapshot(1, 1, (BUY, 100, 5), (SELL, 101, 2), (SELL, 102, 2), far)
    book, counts = build_book(events(rows), 2)
    assert counts.far_levels == 1 and book.ask_px[0].tolist() == [101, 102]
    with pytest.raises(InputError, match="T: the visible book needs a price .* beyond -8388508 to 8388707 ticks"):
        build_book(events(rows), 3, "T")
    with pytest.raises(InputError, match=r"needs a price \(900000000\) beyond"):
        build_book(events([*OPEN, (2, Kind.DEPTH, BUY, 900_000_000, 1, 8, LAST)]), 1, "T")


def test_book_when_orders_and_pages_are_many_then_grows_and_stays_right():
    rng = np.random.default_rng(5)
    prices = rng.permutation(np.arange(1, 3001) * 128)  # each on a page of its own
    rows = [(i, Kind.ADD, BUY, int(price), 1 + i % 7, i + 1, 0) for i, price in enumerate(prices)]
    book, _ = build_book(events(rows), 3)
    size_of = {price: size for _, _, _, price, size, _, _ in rows}
    for i in (0, 1, 700, 2_999):
        top = sorted((int(price) for price in prices[: i + 1]), reverse=True)[:3]
        row = np.searchsorted(book.ts_ns, i, "right") - 1  # a deeper order gives no row
        assert [price for price in book.bid_px[row].tolist() if price] == top
        assert book.bid_sz[row, : len(top)].tolist() == [size_of[price] for price in top]
    gone = [(4_000, Kind.CANCEL, BUY, 0, 9, int(i) + 1, 0) for i in rng.permutation(3_000)]
    book, counts = build_book(events([*rows, *gone]), 3)
    assert not book.bid_sz[-1].any() and counts.unknown_order == 0 and counts.oversized == 3_000


def test_book_when_a_resting_size_is_negative_then_names_it():
    with pytest.raises(InputError, match="T: a size of -3 lots is negative, at row 4"):
        build_book(events([*OPEN, (2, Kind.DEPTH, BUY, 99, -3, 8, LAST)]), 1, "T")
