"""Features by hand, live equal to batch bit for bit, no look into the future, mirror images for buy and sell."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.pipeline.books import Book
from feature_repo.pipeline.kernels import FEATURES, NS, FeatureState, compute_features
from serving.contracts.observation import is_directional

OPEN = 1_000_000 * NS


def random_book(seed: int, seconds: int, depth: int = 3) -> Book:
    rng = np.random.default_rng(seed)
    rows = seconds * 3
    ts_ns = np.sort(OPEN - 2 * NS + rng.integers(0, (seconds + 4) * NS, rows))
    bid = 1000 + np.cumsum(rng.integers(-1, 2, rows))
    ask = bid + rng.integers(1, 4, rows)
    levels = np.arange(depth)
    sizes = rng.integers(1, 90, (2, rows, depth))
    traded = rng.random(rows) < 0.3
    return Book(
        ts_ns,
        (bid[:, None] - levels).astype(np.int32),
        sizes[0].astype(np.int32),
        (ask[:, None] + levels).astype(np.int32),
        sizes[1].astype(np.int32),
        np.where(traded, bid, 0).astype(np.int32),
        np.where(traded, rng.integers(1, 20, rows), 0).astype(np.int32),
        np.where(traded, rng.choice([-1, 0, 1], rows), 0).astype(np.int8),
    )


def window(seconds: int) -> list[tuple[int, int]]:
    return [(OPEN, OPEN + seconds * NS)]


def by_name(features: np.ndarray, row: int) -> dict[str, float]:
    return dict(zip(FEATURES, features[row].tolist(), strict=True))


def tiny_book(rows: list[tuple]) -> Book:
    """Rows are (seconds after the open, bid, bid size, ask, ask size, traded lots, aggressor)."""
    ts, bid, qb, ask, qa, lots, side = (np.array(column) for column in zip(*rows, strict=True))
    column = {name: values[:, None].astype(np.int32) for name, values in zip("abcd", (bid, qb, ask, qa), strict=True)}
    return Book(
        (OPEN + ts * NS).astype(np.int64),
        *column.values(),
        np.where(lots > 0, bid, 0).astype(np.int32),
        lots.astype(np.int32),
        side.astype(np.int8),
    )


def test_features_when_computed_by_hand_then_agree():
    book = tiny_book(
        [
            (0.0, 100, 30, 101, 10, 0, 0),
            (0.5, 100, 20, 101, 10, 10, -1),  # bid queue shrinks by 10: flow -10
            (0.8, 101, 5, 102, 8, 0, 0),  # up a tick: +5 new bid, and the old ask of 10 is gone: +10
            (1.5, 101, 5, 102, 8, 4, 1),
        ]
    )
    ts_ns, features, valid = compute_features(book, window(3))
    assert ts_ns.tolist() == [OPEN + k * NS for k in (1, 2, 3)] and valid.tolist() == [1, 1, 1]
    first, second, third = (by_name(features, row) for row in range(3))
    assert first["spread_ticks"] == 1.0
    assert first["microprice_dev"] == pytest.approx((102 * 5 + 101 * 8) / 13 - 101.5, abs=1e-6)
    assert first["imbalance_l1"] == first["imbalance_depth"] == pytest.approx(-3 / 13, abs=1e-6)
    depth = ((20 + 10) / 2 + (5 + 8) / 2) / 2
    assert first["ofi_1s"] == pytest.approx((-10 + 15) / depth, abs=1e-6)
    assert first["return_10s"] == pytest.approx(1e4 * np.log(101.5 / 100.5), rel=1e-6)
    assert first["rv_10s"] == pytest.approx(abs(first["return_10s"]), rel=1e-6)
    assert first["trade_flow_10s"] == -1.0 and second["trade_flow_10s"] == pytest.approx(-6 / 14, abs=1e-6)
    assert second["trade_volume_60s"] == pytest.approx(np.log1p(14), rel=1e-6)
    assert second["ofi_1s"] == 0.0 and third["ofi_1s"] == 0.0
    assert third["event_rate_10s"] == pytest.approx(np.log1p(3 / 3), rel=1e-6)
    assert [row["time_of_day"] for row in (first, second, third)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_features_when_a_window_is_left_behind_then_old_seconds_drop_out_exactly():
    rows = [(-1.0, 100, 10, 101, 10, 0, 0)] + [
        (s + 0.5, 100, 10, 101, 10, 1 + s % 2, 1 - 2 * (s % 2)) for s in range(120)
    ]
    _, features, _ = compute_features(tiny_book(rows), window(121))
    volume = np.array([1 + s % 2 for s in range(120)] + [0])
    for second in (5, 60, 61, 100, 121):
        recent = volume[max(0, second - 60) : second]
        assert by_name(features, second - 1)["trade_volume_60s"] == np.float32(np.log1p(recent.sum()))


def test_features_when_a_new_window_opens_then_flows_start_afresh_and_the_book_stays():
    book = tiny_book([(0.0, 100, 10, 101, 10, 0, 0), (5.5, 100, 10, 101, 10, 50, 1), (6.5, 105, 10, 106, 10, 0, 0)])
    later = (OPEN + 20 * NS, OPEN + 25 * NS)
    _, features, valid = compute_features(book, [(OPEN, OPEN + 10 * NS), later])
    first = by_name(features, 10)
    assert len(features) == 15 and valid.all()
    assert first["trade_volume_60s"] == first["trade_flow_10s"] == first["return_60s"] == first["rv_60s"] == 0.0
    assert first["spread_ticks"] == 1.0 and first["time_of_day"] == pytest.approx(11 / 15)


def test_features_when_the_book_is_one_sided_then_price_features_are_zero_and_flagged():
    _, features, valid = compute_features(tiny_book([(0.2, 100, 10, 0, 0, 0, 0)]), window(2))
    assert valid.tolist() == [0, 0] and np.isfinite(features).all()
    assert by_name(features, 0)["spread_ticks"] == by_name(features, 0)["imbalance_l1"] == 0.0


@pytest.mark.parametrize("seed", [1, 2])
def test_features_when_fed_live_row_by_row_then_equal_the_batch_bit_for_bit(seed):
    seconds = 300
    book = random_book(seed, seconds)
    grid, batch, valid = compute_features(book, window(seconds))
    live, row = FeatureState(), 0

    def feed(until: int) -> None:
        nonlocal row
        while row < len(book) and book.ts_ns[row] <= until:
            sides = (book.bid_px[row], book.bid_sz[row], book.ask_px[row], book.ask_sz[row])
            live.on_row(*sides, int(book.trade_sz[row]), int(book.trade_side[row]))
            row += 1

    feed(OPEN)
    live.open_window()
    for at, now in enumerate(grid):
        feed(int(now))
        values, whole = live.close_second((now - OPEN) / (seconds * NS))
        assert values.tobytes() == batch[at].tobytes() and whole == bool(valid[at])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 119))
def test_features_when_the_future_is_changed_then_the_past_is_bit_identical(seed, second):
    book = random_book(seed, 120)
    now = OPEN + second * NS
    _, whole, _ = compute_features(book, window(120))
    keep = book.ts_ns <= now
    cut = Book(*(getattr(book, item.name)[keep] for item in fields(Book)))
    spoilt = replace(
        book,
        bid_px=np.where(keep[:, None], book.bid_px, 1).astype(np.int32),
        trade_sz=np.where(keep, book.trade_sz, 9_999).astype(np.int32),
    )
    for other in (cut, spoilt):
        _, features, _ = compute_features(other, window(120))
        assert features[:second].tobytes() == whole[:second].tobytes()


def test_features_when_the_market_is_mirrored_then_exactly_the_directional_ones_change_sign():
    book = random_book(5, 200)
    center = 4000
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
    _, one, _ = compute_features(book, window(200))
    _, other, _ = compute_features(mirrored, window(200))
    for column, name in enumerate(FEATURES):
        if name.startswith(("return", "rv")):
            continue  # log returns of mirrored prices differ in size: the base is another
        sign = -1.0 if is_directional(name) else 1.0
        np.testing.assert_allclose(other[:, column], sign * one[:, column], atol=1e-5, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_features_when_sizes_and_prices_are_extreme_then_stay_finite(seed):
    rng = np.random.default_rng(seed)
    book = random_book(seed, 30)
    huge = np.iinfo(np.int32).max
    book = replace(book, bid_sz=rng.choice([0, 1, huge], book.bid_sz.shape).astype(np.int32))
    _, features, _ = compute_features(book, window(30))
    assert features.dtype == np.float32 and np.isfinite(features).all()
