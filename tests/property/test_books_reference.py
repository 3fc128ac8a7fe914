"""The compiled book equals a slow and obvious one, row by row, for every kind of vendor data."""

import itertools

import numpy as np
import pytest
from book_streams import DEPTH, depth_streams, events, order_streams
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.pipeline.books import BookBuilder, build_book, load_book, write_book
from feature_repo.ticks.schema import Flag, Kind, Side


class SlowBook:
    """The book by its definition: dictionaries, and a new search for the best levels after every event."""

    def __init__(self) -> None:
        self.orders: dict[int, list[int]] = {}  # id: side, price, lots
        self.lots: dict[tuple[int, int], int] = {}  # all that rests by side and price
        self.known: dict[tuple[int, int], int] = {}  # of it, what may be of known orders
        self.state, self.cleared = "none", None  # none, opening, whole, hole; time of a clear that is still to show
        self.waiting: dict[int, tuple[int, int, int]] = {}  # by side: update, price and lots of a quote ahead of it
        self.now: tuple = ((), ())
        self.update, self.complete = 0, True
        self.pending = False
        self.rows: list[tuple] = []
        self.counts = dict.fromkeys(("unknown", "oversized", "gaps", "unwhole", "compared", "equal"), 0)

    def levels(self) -> tuple:
        sides = []
        for side, sign in ((1, -1), (-1, 1)):
            held = {price: lots for (mine, price), lots in self.lots.items() if mine == side and lots > 0}
            sides.append(tuple(sorted(held.items(), key=lambda item: sign * item[0])[:DEPTH]))
        return tuple(sides)

    def leave(self, side: int, price: int, size: int) -> None:
        self.lots[side, price] = max(0, self.lots[side, price] - size)

    def take(self, side: int, price: int, size: int, order: int) -> bool:
        """Lots leave a known order, else what DEPTH set beyond the known orders; False where neither is there."""
        if order in self.orders:
            mine, at, left = self.orders[order]
            self.counts["oversized"] += size > left
            self.leave(mine, at, min(size, left))
            self.known[mine, at] = max(0, self.known[mine, at] - min(size, left))
            self.orders[order][2] -= min(size, left)
            if self.orders[order][2] == 0:
                del self.orders[order]
            return True
        loose = self.lots.get((side, price), 0) - self.known.get((side, price), 0)
        if side == 0 or price <= 0 or loose <= 0:
            self.counts["unknown"] += 1
            return False
        self.counts["oversized"] += size > loose
        self.leave(side, price, min(size, loose))
        return True

    def row(self, ts: int, price: int = 0, size: int = 0) -> None:
        if size or not self.rows or self.now != self.rows[-1][1:3]:
            self.rows.append((ts, *self.now, price, size))

    def settle(self) -> None:
        if self.cleared is not None:
            self.now = ((), ())
            self.rows.append((self.cleared, (), (), 0, 0))
            self.cleared = None

    def apply(self, ts: int, kind: int, side: int, price: int, size: int, order: int, flags: int) -> None:
        if self.pending and self.cleared is not None and (ts > self.cleared or kind in (Kind.TRADE, Kind.QUOTE)):
            self.settle()
        if kind == Kind.CLEAR:
            self.orders, self.lots, self.known, self.update, self.complete, self.waiting = {}, {}, {}, 0, True, {}
            self.state, self.cleared, self.pending = "opening", ts, True
            if flags & Flag.GAP:
                self.state = "hole"
                self.counts["gaps"] += 1
        elif kind == Kind.QUOTE:
            self.quote(ts, side, price, size, order)
        elif kind == Kind.TRADE:
            moved = order != 0 and self.state != "hole" and self.take(-side, price, size, order)
            if moved and not self.pending:
                self.now = self.levels()
            self.row(ts, price, size)
        elif kind == Kind.DEPTH:
            if self.state not in ("opening", "whole"):
                self.counts["unwhole"] += 1
                return
            self.lots[side, price] = size
            self.known[side, price] = min(size, self.known.get((side, price), 0))
            self.update, self.complete = order, bool(flags & Flag.LAST)
            if self.complete:
                for ahead, (update, at, lots) in list(self.waiting.items()):
                    if update == order:
                        self.compare(ahead, at, lots)
                        del self.waiting[ahead]
                self.whole(ts)
        elif self.state == "hole":
            self.counts["unwhole"] += 1
        elif self.change(kind, side, price, size, order):
            if flags & Flag.LAST or not self.pending and self.state == "none":
                self.state = "whole"
            if flags & Flag.LAST or not self.pending:
                self.whole(ts, self.state)

    def whole(self, ts: int, state: str = "whole") -> None:
        self.state, self.pending, self.cleared = state, False, None
        self.now = self.levels()
        self.row(ts)

    def change(self, kind: int, side: int, price: int, size: int, order: int) -> bool:
        if kind == Kind.CANCEL:
            return self.take(side, price, size, order)
        if kind == Kind.REPLACE and order not in self.orders:
            self.counts["unknown"] += 1
            return False
        if order in self.orders:
            self.take(0, 0, self.orders[order][2], order)
        self.orders[order] = [side, price, size]
        self.lots[side, price] = self.lots.get((side, price), 0) + size
        self.known[side, price] = self.known.get((side, price), 0) + size
        return True

    def quote(self, ts: int, side: int, price: int, size: int, update: int) -> None:
        if self.state == "whole":
            if update and update == self.update and self.complete:
                self.compare(side, price, size)
                self.waiting.pop(side, None)
            else:
                self.waiting[side] = (update or -1, price, size)
            return
        sides = list(self.now)
        place = 0 if side == 1 else 1
        sides[place] = ((price, size), *sides[place][1:])
        self.now, self.pending = tuple(sides), False
        self.row(ts)

    def compare(self, side: int, price: int, size: int) -> None:
        self.counts["compared"] += 1
        self.counts["equal"] += self.levels()[0 if side == 1 else 1][:1] == ((price, size),)


def slow_book(rows: list[tuple]) -> SlowBook:
    """The book after all `rows`."""
    book = SlowBook()
    for row in rows:
        book.apply(*(int(value) for value in row))
    book.settle()
    return book


def shown(book) -> list[tuple]:
    out = []
    for i in range(len(book)):
        bids = tuple((int(p), int(s)) for p, s in zip(book.bid_px[i], book.bid_sz[i], strict=True) if s)
        asks = tuple((int(p), int(s)) for p, s in zip(book.ask_px[i], book.ask_sz[i], strict=True) if s)
        out.append((int(book.ts_ns[i]), bids, asks, int(book.trade_px[i]), int(book.trade_sz[i])))
    return out


@settings(max_examples=150, deadline=None)
@given(order_streams())
def test_book_when_built_from_orders_then_equals_the_slow_one(rows):
    book, counts = build_book(events(rows), DEPTH)
    assert shown(book) == slow_book(rows).rows
    assert counts.unknown_order == counts.oversized == counts.hidden_trades == 0


@settings(max_examples=150, deadline=None)
@given(depth_streams())
def test_book_when_built_from_depth_and_orders_then_equals_the_slow_one(rows):
    book, counts = build_book(events(rows), DEPTH)
    slow = slow_book(rows)
    assert shown(book) == slow.rows
    found = (counts.unknown_order, counts.oversized, counts.gaps, counts.unwhole)
    assert (*found, counts.quotes_compared, counts.quotes_equal) == tuple(slow.counts.values())
    assert counts.far_levels == 0


@settings(max_examples=60, deadline=None)
@given(depth_streams(), st.lists(st.integers(0, 200), max_size=4))
def test_book_when_events_come_in_several_tables_then_equals_that_of_one(rows, cuts):
    table, builder, found = events(rows), BookBuilder(DEPTH), []
    edges = sorted({0, *(min(cut, len(rows)) for cut in cuts), len(rows)})
    for start, stop in itertools.pairwise(edges):
        found += shown(builder.add(table.slice(start, stop - start)))
    found += shown(builder.end())
    whole, counts = build_book(table, DEPTH)
    assert found == shown(whole) and builder.counts == counts


def test_book_when_a_later_table_goes_back_in_time_then_names_the_row_of_the_whole():
    builder = BookBuilder(DEPTH, "T")
    builder.add(events([(1, Kind.QUOTE, 1, 99, 5, 0, 0), (2, Kind.QUOTE, 1, 98, 5, 0, 0)]))
    with pytest.raises(InputError, match="T: time runs backwards at row 2;"):
        builder.add(events([(1, Kind.QUOTE, 1, 99, 5, 0, 0)]))


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
