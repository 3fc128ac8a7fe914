"""Books at their edges: a clear that nothing follows, values at the limits of integers, a crossed open."""

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book
from feature_repo.pipeline.kernels import FEATURES, NS, compute_features
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Kind, Side

TWO_SIDES = [(NS, Kind.ADD, Side.BUY, 100, 5, 1, 0), (NS, Kind.ADD, Side.SELL, 102, 5, 2, 0)]
CLEAR = (2 * NS, Kind.CLEAR, 0, 0, 0, 0, 0)
MOST = np.iinfo(np.int32).max


def events(rows: list[tuple]) -> pa.Table:
    ts, kind, side, price, size, order, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return pa.Table.from_batches([event_batch(EventColumns.build(ts, kind, side, price, size, flags, order), 0)])


@pytest.mark.parametrize("later", [[], [(4 * NS, Kind.ADD, Side.BUY, 99, 1, 3, 0)]])
def test_book_when_cleared_then_is_empty_from_there_whatever_comes_later(later):
    book, _ = build_book(events([*TWO_SIDES, CLEAR, *later]), 2)
    assert book.ts_ns.tolist() == [NS, NS, 2 * NS] and not book.bid_sz[-1].any() and not book.ask_sz[-1].any()
    _, _, valid = compute_features(book, [(0, 3 * NS)])
    assert valid.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, Kind.ADD, 1, 100, MOST, 1, 0), (2, Kind.ADD, 1, 100, 1, 2, 0)], "T: 2147483648 lots rest at one price"),
        ([(1, Kind.ADD, 1, -(2**63), 1, 1, 0)], "T: a price or size of -9223372036854775808 exceeds"),
        ([(1, Kind.QUOTE, 1, 5, -(2**63), 0, 0)], "T: a price or size of -9223372036854775808 exceeds"),
    ],
)
def test_book_when_a_value_would_wrap_in_int32_then_names_it(rows, message):
    with pytest.raises(InputError, match=message):
        build_book(events(rows), 2, "T")


def test_features_when_the_book_is_crossed_at_the_open_then_its_mid_starts_no_return():
    crossed = [(0, Kind.QUOTE, Side.BUY, 130, 1, 0, 0), (0, Kind.QUOTE, Side.SELL, 90, 3, 0, 0)]
    whole = [(NS // 2, Kind.QUOTE, Side.BUY, 89, 1, 0, 0), (NS // 2, Kind.QUOTE, Side.SELL, 90, 1, 0, 0)]
    book, _ = build_book(events(crossed + whole), 1)
    _, features, valid = compute_features(book, [(0, NS)])
    assert valid.all() and features[0, FEATURES.index("return_10s")] == 0.0
