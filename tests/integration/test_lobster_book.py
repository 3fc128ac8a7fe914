"""The book that is rebuilt from LOBSTER's messages equals LOBSTER's own book file, row by row."""

import gzip

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.pipeline.books import build_book
from feature_repo.ticks.lobster import LobsterReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind

EXECUTE = 4  # the message type of an execution against a displayed order


def rebuilt(folder, symbol):
    """Events of one symbol's day, the book built from them, and what could not be used."""
    reader = LobsterReader()
    request = IngestRequest("lobster", folder, (symbol,), options={"date": "2012-06-21"})
    (plan,), (item,) = reader.plan(request), reader.instruments(request)
    events = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
    return (events, *build_book(events, item.depth, symbol))


def numbers(path):
    """Lines of a CSV, plain or gzip, as a list of lists of text."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [line.split(",") for line in content.decode().split()]


def vendor_levels(path):
    """`(T, 4, K)` bid price, bid size, ask price, ask size in ticks and shares, 0 where there is no level."""
    lines = numbers(path)
    rows = np.array(lines, np.int64).reshape(len(lines), -1, 4)
    levels = np.stack([rows[..., 2] // 100, rows[..., 3], rows[..., 0] // 100, rows[..., 1]], axis=1)
    levels[:, :2] *= (levels[:, 1] > 0)[:, None]
    levels[:, 2:] *= (levels[:, 3] > 0)[:, None]
    return levels


@pytest.mark.parametrize(
    ("symbol", "stem", "suffix", "messages"),
    [
        ("AMZN", "AMZN_2012-06-21_34200000_57600000_{}_1", ".csv.gz", 57_515),
        ("AAPL", "AAPL_L10_excerpt_{}", ".csv", 999),
    ],
)
def test_lobster_when_book_is_rebuilt_then_it_equals_the_vendor_s_after_every_message(
    real_data, symbol, stem, suffix, messages
):
    folder = real_data / "lobster"
    expected = vendor_levels(folder / (stem.format("orderbook") + suffix))
    lines = numbers(folder / (stem.format("message") + suffix))
    traded = np.array([int(line[1]) == EXECUTE for line in lines])
    assert len(lines) == len(expected) == messages
    events, book, counts = rebuilt(folder, symbol)
    rows = np.stack([book.bid_px, book.bid_sz, book.ask_px, book.ask_sz], axis=1)

    # The book writes one row for the opening, then one for each message that changes it or trades: so each message
    # has its row, the last one written, and no row shows a state that the vendor's file does not.
    first = not np.array_equal(rows[0], expected[0])
    changed = np.concatenate([[first], (np.diff(expected, axis=0) != 0).any(axis=(1, 2))])
    after = np.cumsum(changed | traded)
    assert len(rows) == after[-1] + 1
    np.testing.assert_array_equal(rows[after], expected)

    assert np.sum(book.trade_sz > 0) == traded.sum()
    assert book.trade_sz[book.trade_sz > 0].tolist() == np.array(lines)[traded, 3].astype(int).tolist()
    kind, flags = events["kind"].to_numpy(), events["flags"].to_numpy()
    assert counts.hidden_trades == np.sum((kind == Kind.TRADE) & (flags & Flag.HIDDEN != 0))
    assert counts.oversized == counts.unwhole == counts.gaps == 0
