"""What the gate sees of a book is the book that features are built from, whatever the batches it comes in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.book_scan import BINS, BookScan, bins_of
from feature_repo.pipeline.books import build_book
from feature_repo.pipeline.profiling import SAMPLE_FILE, dataset_of, profile_partition
from feature_repo.ticks.instruments import Instrument, SessionWindow
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

INSTRUMENT = Instrument("V", "S", 0.01, 1, "USD", "UTC", (SessionWindow("10:00:00", "11:00:00"),), 3, False, 1)
DATE = "2024-01-02"
WINDOWS = INSTRUMENT.session_ns(DATE)
BUY, SELL = int(Side.BUY), int(Side.SELL)


def events(rows: list[tuple]) -> pa.Table:
    """Events of `(kind, side, price, size, order_id, flags)`, ten milliseconds apart; a seventh entry is the time."""
    found = []
    for at, (kind, side, price, size, order_id, flags, *when) in enumerate(rows):
        ts = WINDOWS[0][0] + (when[0] if when else at) * 10_000_000
        found.append((ts, ts, at, int(kind), side, price, size, order_id, int(flags)))
    columns = zip(*found, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENT_SCHEMA, strict=True)]
    return pa.table(arrays, schema=EVENT_SCHEMA)


def scanned(table: pa.Table, batch_rows: int = 10_000) -> tuple[dict, dict]:
    scan = BookScan(WINDOWS, INSTRUMENT.depth)
    for start in range(0, table.num_rows, batch_rows):
        batch = table.slice(start, batch_rows)
        scan.add({name: batch[name].to_numpy() for name in EVENT_SCHEMA.names})
    return scan.close(), {name: counts.tolist() for name, counts in scan.histograms.items()}


def random_day(seed: int, count: int = 600) -> pa.Table:
    """Orders around one price, several in an instant, some of them crossing; a gap and a new snapshot in the middle."""
    rng = np.random.default_rng(seed)
    rows, live = [], []
    for at in range(count):
        when = at // 3
        if at == count // 2:
            rows.append((Kind.CLEAR, 0, 0, 4, 0, Flag.GAP, when))
            rows.append((Kind.CANCEL, BUY, 1, 1, live[0], 0, when + 1))
            rows.append((Kind.CLEAR, 0, 0, 0, 0, 0, when + 2))
            live = []
        side = BUY if rng.random() < 0.5 else SELL
        if not live or rng.random() < 0.55:
            live.append(at + 1)
            price = 1000 - side * int(rng.integers(-1, 9))
            rows.append((Kind.ADD, side, price, int(rng.integers(1, 50)), at + 1, Flag.LAST, when + 2))
        elif rng.random() < 0.3:
            rows.append((Kind.TRADE, 0, 1000, int(rng.integers(1, 9)), int(rng.choice(live)), 0, when + 2))
        else:
            rows.append((Kind.CANCEL, 0, 0, int(rng.integers(1, 60)), int(rng.choice(live)), Flag.LAST, when + 2))
    return events(rows).sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])


@pytest.mark.parametrize("seed", range(3))
def test_scan_when_a_day_comes_in_batches_then_it_sees_the_book_that_features_are_built_from(seed):
    day = random_day(seed)
    shares, histograms = scanned(day)
    for batch_rows in (1, 7, 250):
        assert scanned(day, batch_rows) == (shares, histograms)
    book, counts = build_book(day, INSTRUMENT.depth)
    over = np.append(book.ts_ns[1:] != book.ts_ns[:-1], True)
    bid, ask = book.bid_px[over, 0], book.ask_px[over, 0]
    known = (bid > 0) & (ask > 0)
    assert 0 < known.sum() < len(known) and np.any(ask[known] < bid[known])
    assert shares["book_known_share"] == known.mean()
    assert shares["positive_spread_share"] == np.mean(ask[known] > bid[known])
    assert shares["crossed_share"] == np.mean(ask[known] < bid[known])
    assert shares["holes"] == counts.gaps == 1
    kind = day["kind"].to_numpy()
    naming = np.isin(kind, [int(Kind.CANCEL), int(Kind.TRADE)]).sum()
    assert shares["unknown_order_share"] == counts.unknown_order / naming > 0
    assert shares["book_fault"] == ""
    spreads = np.bincount(bins_of((ask - bid)[known].astype(np.int64)), minlength=BINS)
    assert histograms["spread"] == spreads.tolist()


def snapshot(low: int) -> list[tuple]:
    return [
        (Kind.CLEAR, 0, 0, 0, 0, 0),
        (Kind.DEPTH, BUY, low, 5, 1, 0),
        (Kind.DEPTH, SELL, low + 2, 5, 1, Flag.LAST),
    ]


def test_scan_when_depth_has_a_hole_then_the_book_is_unknown_until_the_next_snapshot():
    updates = [(Kind.DEPTH, BUY, 100, size, size, Flag.LAST) for size in range(6, 10)]
    hole = [(Kind.CLEAR, 0, 0, 3, 0, Flag.GAP)]
    shares, _ = scanned(events([*snapshot(100), *updates, *hole, *updates, *snapshot(100), *updates]))
    assert shares["holes"] == 1
    assert shares["unwhole_share"] == 4 / 16
    assert shares["book_known_share"] == 10 / 13  # not after the hole, nor while the snapshots are read
    assert shares["positive_spread_share"] == 1.0 and shares["unknown_order_share"] is None


def test_scan_when_the_best_quotes_name_an_update_then_counts_those_that_the_book_equals():
    quotes = [(Kind.QUOTE, BUY, 100, 5, 1, 0), (Kind.QUOTE, SELL, 103, 5, 1, 0), (Kind.QUOTE, BUY, 90, 5, 7, 0)]
    shares, _ = scanned(events([*snapshot(100), *quotes]))
    assert shares["quote_agreement_share"] == 0.5  # the third names an update that the book is not at


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((Kind.ADD, BUY, 10, 2**40, 9, Flag.LAST), "exceeds"),
        ((Kind.ADD, BUY, 6_000_000, 1, 9, Flag.LAST), "orders rest from 100 to 6000000 ticks"),
    ],
)
def test_scan_when_the_book_cannot_be_built_then_says_why_as_the_build_does(row, fault):
    day = events([(Kind.ADD, BUY, 100, 1, 1, Flag.LAST), row, (Kind.ADD, SELL, 105, 1, 3, Flag.LAST)])
    shares, _ = scanned(day, 2)
    assert fault in shares["book_fault"]
    with pytest.raises(InputError, match=fault):
        build_book(day, INSTRUMENT.depth)


def test_bins_when_a_value_doubles_then_it_moves_four_bins():
    values = np.array([-3, 0, 1, 2, 3, 4, 8, 2**62], np.int64)
    found = bins_of(values)
    assert found[:7].tolist() == [0, 0, 1, 5, 7, 9, 13] and found[-1] == 1 + 4 * 62 < BINS


def test_profile_when_a_file_is_read_then_row_sample_and_histograms_are_of_it(tmp_path):
    day = random_day(5)
    path = tmp_path / "events.parquet"
    pq.write_table(day, path, row_group_size=70)
    found = profile_partition(path, INSTRUMENT, DATE, tmp_path, 100)
    row = found["row"]
    assert (row["dataset"], row["rows"], row["nulls"], row["backward_step_ns"]) == ("orders", day.num_rows, 0, 0)
    assert row["session_coverage"] == 1 / 60
    sample = pq.read_table(tmp_path / SAMPLE_FILE)
    assert sample.equals(day.take(list(range(0, day.num_rows, -(-day.num_rows // 100)))))
    assert sum(found["histograms"]["trade_size"]) == np.sum(day["kind"].to_numpy() == int(Kind.TRADE))
    (tmp_path / "torn").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="torn: not a readable event file"):
        profile_partition(tmp_path / "torn", INSTRUMENT, DATE, tmp_path, 100)


@pytest.mark.parametrize(
    ("kinds", "dataset"),
    [
        ({Kind.TRADE, Kind.QUOTE}, "quotes"),
        ({Kind.CLEAR, Kind.LEVEL, Kind.TRADE}, "snapshots"),
        ({Kind.DEPTH, Kind.QUOTE, Kind.TRADE}, "depth"),
        ({Kind.ADD, Kind.DEPTH}, "orders"),
        ({Kind.TRADE, Kind.HALT}, "trades"),
        (set(), "trades"),
    ],
)
def test_dataset_when_kinds_are_mixed_then_the_most_telling_one_counts(kinds, dataset):
    assert dataset_of({int(kind) for kind in kinds}) == dataset
