"""Features live equal to batch bit for bit on every grid, no look into the future, mirror images for buy and sell."""

from dataclasses import fields, replace

import numpy as np
import pytest
from feature_books import OPEN, random_book, real_book, replayed, window
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.pipeline.books import Book
from feature_repo.pipeline.definitions import DEFINITIONS, SAME, SIGN
from feature_repo.pipeline.kernels import FEATURES, NS, Grid, compute_features
from feature_repo.pipeline.microprice import fit_microprice
from feature_repo.pipeline.volume_curve import DayVolume, VolumeCurve

GRIDS = (Grid(), Grid("time", 7), Grid("event", 1), Grid("event", 25), Grid("volume", 40))


def usual(seconds: int) -> VolumeCurve:
    days = [DayVolume.from_book(f"2024-01-0{day}", random_book(day, seconds), window(seconds)) for day in (1, 2)]
    curve = VolumeCurve.from_days(days, "2024-01-03")
    assert curve is not None
    return curve


def rows_of(book: Book, keep: np.ndarray) -> Book:
    return Book(*(getattr(book, item.name)[keep] for item in fields(Book)))


def assert_same(one, other) -> None:
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[2], other[2])
    assert one[1].tobytes() == other[1].tobytes()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("seed", "depth"), [(1, 3), (2, 10), (3, 1)])
def test_features_when_fed_live_row_by_row_then_equal_the_batch_bit_for_bit(grid, seed, depth):
    book = random_book(seed, 900, depth)
    windows = [(OPEN, OPEN + 400 * NS), (OPEN + 500 * NS, OPEN + 900 * NS)]
    given = (usual(900), grid, fit_microprice([random_book(9, 900)]))
    batch = compute_features(book, windows, *given)
    assert len(batch[0]) >= 40 and batch[1].dtype == np.float32
    assert_same(batch, replayed(book, windows, *given))


@pytest.mark.parametrize(
    ("source", "symbol", "day", "hour"),
    [("shfe", "rb2510", "2025-06-06", None), ("lean", "AIG", "2013-10-07", 1)],
)
def test_features_when_a_real_day_is_replayed_then_equal_the_batch_bit_for_bit(real_data, source, symbol, day, hour):
    book, windows = real_book(source, real_data / source, symbol, day)
    if hour is not None:
        windows = [(windows[0][0], windows[0][0] + hour * 3600 * NS)]
        book = rows_of(book, book.ts_ns <= windows[0][1])
    for grid in (Grid(), Grid("event", 50), Grid("volume", 2_000)):
        batch = compute_features(book, windows, grid=grid)
        assert len(batch[0]) > 300 and np.isfinite(batch[1]).all()
        assert_same(batch, replayed(book, windows, grid=grid))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 119), st.sampled_from(GRIDS))
def test_features_when_the_future_is_changed_then_the_past_is_bit_identical(seed, second, grid):
    book = random_book(seed, 120)
    now = OPEN + second * NS
    whole = compute_features(book, window(120), grid=grid)
    past = whole[0] <= now
    keep = book.ts_ns <= now
    spoilt = replace(
        book,
        bid_px=np.where(keep[:, None], book.bid_px, 1).astype(np.int32),
        ask_sz=np.where(keep[:, None], book.ask_sz, 77_777).astype(np.int32),
        trade_sz=np.where(keep, book.trade_sz, 9_999).astype(np.int32),
        trade_side=np.where(keep, book.trade_side, 1).astype(np.int8),
    )
    for other in (rows_of(book, keep), spoilt):
        found = compute_features(other, window(120), grid=grid)
        early = found[0] <= now
        assert_same([part[past] for part in whole], [part[early] for part in found])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(GRIDS))
def test_features_at_a_moment_equal_those_of_the_rows_up_to_it_alone(seed, grid):
    book = random_book(seed, 40)
    stamps, features, _ = compute_features(book, window(40), grid=grid)
    for bar in range(0, len(stamps), 5):
        known = rows_of(book, book.ts_ns <= stamps[bar])
        assert compute_features(known, window(40), grid=grid)[1][bar].tobytes() == features[bar].tobytes()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features_when_a_break_lies_between_windows_then_no_bar_spans_it(grid):
    book = random_book(4, 300)
    spans = [(OPEN, OPEN + 100 * NS), (OPEN + 200 * NS, OPEN + 300 * NS)]
    stamps, features, _ = compute_features(book, spans, grid=grid)
    assert np.all(((stamps > spans[0][0]) & (stamps <= spans[0][1])) | (stamps > spans[1][0])) and len(stamps) > 20
    # Whatever happened in the first window and the break, the second window's flows are those of itself alone.
    alone = replace(book, trade_sz=np.where(book.ts_ns > spans[1][0], book.trade_sz, 0).astype(np.int32))
    afresh = compute_features(alone, spans, grid=grid)
    flows = [FEATURES.index(name) for name in FEATURES if name.startswith(("trade_", "hawkes", "kyle", "amihud"))]
    later, others = stamps > spans[1][0], afresh[0] > spans[1][0]
    assert np.array_equal(features[later][:, flows], afresh[1][others][:, flows])


def test_features_when_the_market_is_mirrored_then_each_looks_as_its_definition_says():
    book = random_book(5, 200, price=1_000_000)
    center = 2_000_000
    mirrored = Book(
        book.ts_ns,
        (center - book.ask_px).astype(np.int32),
        book.ask_sz,
        (center - book.bid_px).astype(np.int32),
        book.bid_sz,
        book.trade_px,
        book.trade_sz,
        (-book.trade_side).astype(np.int8),
    )
    given = (usual(200), Grid(), fit_microprice([random_book(9, 900)]))
    _, one, _ = compute_features(book, window(200), *given)
    _, other, _ = compute_features(mirrored, window(200), *given)
    for column, feature in enumerate(DEFINITIONS):
        partner = column if feature.mirror in (SAME, SIGN) else FEATURES.index(feature.mirror)
        sign = -1.0 if feature.mirror == SIGN else 1.0
        np.testing.assert_allclose(other[:, partner], sign * one[:, column], rtol=1e-3, atol=1e-6, err_msg=feature.name)
        assert np.ptp(one[:, column]) > 0.0 or feature.name in ("ofi_l4_10s", "ofi_l5_10s", "volume_curve_known")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(GRIDS))
def test_features_when_sizes_and_prices_are_extreme_then_stay_finite(seed, grid):
    rng = np.random.default_rng(seed)
    book = random_book(seed, 30)
    huge, shape, rows = np.iinfo(np.int32).max, book.bid_sz.shape, len(book)
    book = replace(
        book,
        bid_px=rng.choice([-huge, -1, 0, 1, huge - 1], shape).astype(np.int32),
        bid_sz=rng.choice([0, 1, huge], shape).astype(np.int32),
        ask_px=rng.choice([-1, 0, 2, huge], shape).astype(np.int32),
        ask_sz=rng.choice([0, 1, huge], shape).astype(np.int32),
        trade_sz=rng.choice([0, 1, huge], rows).astype(np.int32),
        trade_side=rng.choice([-1, 0, 1], rows).astype(np.int8),
    )
    _, features, _ = compute_features(book, window(30), grid=grid)
    assert features.dtype == np.float32 and np.isfinite(features).all()
