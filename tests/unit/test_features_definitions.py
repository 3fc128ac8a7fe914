"""Features by hand and against plain NumPy, their records, the microprice fit and the volume curve."""

from pathlib import Path

import numpy as np
import pytest
from feature_books import OPEN, by_name, random_book, tiny_book, window

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from feature_repo.pipeline.definitions import DEFINITIONS, SAME, SIGN
from feature_repo.pipeline.kernels import (
    FEATURE_UNITS,
    FEATURES,
    NS,
    SIGNAL_V1,
    FeatureState,
    Grid,
    compute_features,
)
from feature_repo.pipeline.microprice import MicropriceTable, default_table, fit_microprice
from feature_repo.pipeline.volume_curve import BUCKET_NS, DayVolume, VolumeCurve
from serving.contracts.observation import MARKET_NAMES, is_directional

REPO = Path(__file__).resolve().parents[2]


def of(rows: list[tuple], seconds: int, second: int, **given) -> dict[str, float]:
    """Features of a tiny book at the end of the given second (1: the first)."""
    return by_name(compute_features(tiny_book(rows), window(seconds), **given)[1], second - 1)


def test_definitions_are_whole_and_the_first_sixteen_never_change():
    assert len(set(FEATURES)) == len(FEATURES) == len(DEFINITIONS) == len(FEATURE_UNITS)
    assert SIGNAL_V1 == MARKET_NAMES == FEATURES[:16]
    assert SIGNAL_V1 == (
        "spread_ticks", "microprice_dev", "imbalance_l1", "imbalance_depth", "ofi_1s", "ofi_10s", "ofi_60s", "rv_10s",
        "rv_60s", "return_10s", "return_60s", "trade_flow_10s", "trade_flow_60s", "trade_volume_60s", "event_rate_10s",
        "time_of_day",
    )  # fmt: skip
    mirrors = {feature.name: feature.mirror for feature in DEFINITIONS}
    for feature in DEFINITIONS:
        assert feature.unit and feature.definition
        assert feature.mirror in (SAME, SIGN) or mirrors[feature.mirror] == feature.name
        if feature.name in SIGNAL_V1:
            assert is_directional(feature.name) == (feature.mirror == SIGN)


def test_definitions_when_documented_then_each_stands_in_the_page_with_its_unit():
    page = (REPO / "docs" / "features.md").read_text()
    for feature in DEFINITIONS:
        row = [line for line in page.splitlines() if line.startswith(f"| `{feature.name}`")]
        assert len(row) == 1 and f"| {feature.unit} |" in row[0], feature.name


def test_features_when_computed_by_hand_then_agree():
    rows = [
        (0.0, 100, 30, 101, 10, 0, 0),
        (0.5, 100, 20, 101, 10, 10, -1),  # bid queue shrinks by 10: flow -10
        (0.8, 101, 5, 102, 8, 0, 0),  # up a tick: +5 new bid, and the old ask of 10 is gone: +10
        (1.5, 101, 5, 102, 8, 4, 1),
    ]
    ts_ns, features, valid = compute_features(tiny_book(rows), window(3))
    assert ts_ns.tolist() == [OPEN + k * NS for k in (1, 2, 3)] and valid.tolist() == [1, 1, 1]
    first, second, third = (by_name(features, row) for row in range(3))
    assert first["spread_ticks"] == 1.0
    assert first["microprice_dev"] == pytest.approx((102 * 5 + 101 * 8) / 13 - 101.5, abs=1e-6)
    assert first["imbalance_l1"] == first["imbalance_depth"] == pytest.approx(-3 / 13, abs=1e-6)
    depth = ((20 + 10) / 2 + (5 + 8) / 2) / 2
    assert first["ofi_1s"] == first["ofi_l1_10s"] == pytest.approx((-10 + 15) / depth, abs=1e-6)
    assert first["return_10s"] == pytest.approx(1e4 * np.log(101.5 / 100.5), rel=1e-6)
    assert first["rv_10s"] == pytest.approx(abs(first["return_10s"]), rel=1e-6)
    assert first["trade_flow_10s"] == -1.0 and second["trade_flow_10s"] == pytest.approx(-6 / 14, abs=1e-6)
    assert second["trade_volume_60s"] == pytest.approx(np.log1p(14), rel=1e-6)
    assert second["ofi_1s"] == 0.0 and third["ofi_1s"] == 0.0
    assert third["event_rate_10s"] == pytest.approx(np.log1p(3 / 3), rel=1e-6)
    assert third["trade_rate_10s"] == pytest.approx(np.log1p(2 / 3), rel=1e-6)
    assert [row["time_of_day"] for row in (first, second, third)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_features_when_a_window_is_left_behind_then_old_seconds_drop_out_exactly():
    quote = (100, 10, 101, 10)
    rows = [(-1.0, *quote, 0, 0)] + [(s + 0.5, *quote, 1 + s % 2, 1 - 2 * (s % 2)) for s in range(120)]
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
    for name in ("trade_volume_60s", "trade_flow_10s", "return_60s", "rv_60s", "vpin", "hawkes_buy_10s", "jump_60s"):
        assert first[name] == 0.0
    assert by_name(features, 9)["vpin"] == 1.0 and by_name(features, 9)["hawkes_buy_10s"] > 0.0
    assert first["spread_ticks"] == 1.0 and first["time_of_day"] == pytest.approx(11 / 15)


def test_features_when_the_book_is_one_sided_then_price_features_are_zero_and_flagged():
    _, features, valid = compute_features(tiny_book([(0.2, 100, 10, 0, 0, 0, 0)]), window(2))
    assert valid.tolist() == [0, 0]
    values = by_name(features, 1)
    assert values.pop("time_of_day") == 1.0 and values.pop("event_rate_10s") > 0.0
    assert set(values.values()) == {0.0}


def test_window_features_equal_plain_numpy_on_a_random_day():
    book, seconds = random_book(6, 200), 200
    _, features, _ = compute_features(book, window(seconds))
    mids = (book.bid_px[:, 0] + book.ask_px[:, 0]) / 2.0
    edges = OPEN + np.arange(seconds + 1) * NS
    last = np.searchsorted(book.ts_ns, edges, side="right") - 1
    returns = 1e4 * np.diff(np.log(mids[last]))
    lots = book.trade_sz.astype(np.float64)
    signed = np.array([(lots * book.trade_side)[a + 1 : b + 1].sum() for a, b in zip(last, last[1:], strict=False)])
    volume = np.array([lots[a + 1 : b + 1].sum() for a, b in zip(last, last[1:], strict=False)])
    for second in (2, 30, 60, 61, 200):
        part = slice(max(0, second - 60), second)
        r, s, v = returns[part], signed[part], volume[part]
        bipower = np.pi / 2 * np.sum(np.abs(r[1:] * r[:-1]))
        wanted = {
            "rv_60s": np.sqrt(np.sum(r**2)),
            "return_60s": r.sum(),
            "bipower_60s": np.sqrt(bipower),
            "jump_60s": np.sqrt(max(np.sum(r**2) - bipower, 0.0)),
            "semivariance_up_60s": np.sqrt(np.sum(r[r > 0] ** 2)),
            "semivariance_down_60s": np.sqrt(np.sum(r[r < 0] ** 2)),
            "kyle_lambda_60s": np.polyfit(s, r, 1)[0] if np.ptp(s) > 0 else 0.0,
            "amihud_60s": np.mean(np.abs(r[v > 0]) / v[v > 0]) if v.any() else 0.0,
        }
        found = by_name(features, second - 1)
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_order_flow_imbalance_of_deeper_levels_when_computed_by_hand_then_agrees():
    bid_sz, ask_sz = np.array([[10, 20], [10, 26]], np.int32), np.array([[10, 20], [10, 15]], np.int32)
    bid_px, ask_px = np.array([[100, 99], [100, 99]], np.int32), np.array([[101, 103], [101, 102]], np.int32)
    none = np.zeros(2, np.int32)
    book = Book(np.array([OPEN, OPEN + NS // 2]), bid_px, bid_sz, ask_px, ask_sz, none, none, none.astype(np.int8))
    values = by_name(compute_features(book, window(1))[1], 0)
    depth = (10 + (26 + 15) / 2) / 2
    assert values["ofi_l1_10s"] == values["ofi_l3_10s"] == 0.0
    # The second bid grows by 6; a second ask of 15 appears a tick lower.
    assert values["ofi_l2_10s"] == pytest.approx((6 - 15) / depth, rel=1e-6)
    assert values["ofi_mean_1s"] == pytest.approx((6 - 15) / 2 / depth, rel=1e-6)
    assert values["depth_best"] == pytest.approx(np.log1p(20)) and values["depth_total"] == pytest.approx(np.log1p(61))
    demand = (np.log1p(10) / (0.5 / 100.5) + (np.log1p(36) / np.log1p(10) - 1) / (1 / 100)) / 2e4
    supply = (np.log1p(10) / (0.5 / 100.5) + (np.log1p(25) / np.log1p(10) - 1) / (1 / 101)) / 2e4
    assert values["book_slope"] == pytest.approx((demand + supply) / 2, rel=1e-5)
    assert values["book_slope_imbalance"] == pytest.approx((demand - supply) / (demand + supply), rel=1e-4)


def test_hawkes_intensity_when_computed_by_hand_then_decays_by_half_each_half_life():
    rows = [(0.0, 100, 9, 101, 9, 0, 0), (0.5, 100, 9, 101, 9, 3, 1), (1.5, 100, 9, 101, 9, 8, 1),
            (1.5, 100, 9, 101, 9, 1, -1), (1.75, 100, 9, 101, 9, 5, 0)]  # fmt: skip
    first, fourth = of(rows, 4, 1), of(rows, 4, 4)
    assert first["hawkes_buy_1s"] == pytest.approx(np.log(2) * 2**-0.5, rel=1e-6) and first["hawkes_sell_1s"] == 0.0
    assert fourth["hawkes_buy_1s"] == pytest.approx(np.log(2) * (2**-3.5 + 2**-2.5), rel=1e-6)
    assert fourth["hawkes_sell_10s"] == pytest.approx(np.log(2) / 10 * 2**-0.25, rel=1e-6)


def test_cancel_ratio_when_a_trade_explains_a_decrease_then_only_the_rest_is_cancelled():
    rows = [
        (0.0, 100, 50, 101, 40, 0, 0),
        (0.2, 100, 50, 101, 40, 10, -1),  # the trade first, the book's change with the next row
        (0.3, 100, 35, 101, 40, 0, 0),  # 15 less: 10 traded, 5 cancelled
        (0.5, 100, 45, 101, 40, 0, 0),  # 10 joined
        (0.7, 100, 45, 102, 60, 0, 0),  # the best ask of 40 is gone untraded
    ]
    assert of(rows, 1, 1)["cancel_ratio_10s"] == pytest.approx((5 + 40) / (15 + 10 + 40), rel=1e-6)
    assert of(rows[:1], 1, 1)["cancel_ratio_10s"] == 0.0


def test_vpin_when_a_usual_day_is_known_then_buckets_hold_a_fiftieth_of_it():
    earlier = VolumeCurve(np.ones(1), daily_lots=500.0, days=1)  # buckets of 10 lots
    quote = (100, 9, 101, 9)
    rows = [(0.0, *quote, 0, 0), (0.1, *quote, 6, 1), (0.2, *quote, 4, -1), (0.3, *quote, 25, -1), (0.4, *quote, 2, 0)]
    # Full buckets: 6 bought and 4 sold, 10 sold, 10 sold; 5 sold and 2 unknown wait in the next.
    assert of(rows, 1, 1, earlier=earlier)["vpin"] == pytest.approx((2 + 10 + 10) / 30, rel=1e-6)
    assert of([*rows, (0.5, *quote, 3, 1)], 1, 1, earlier=earlier)["vpin"] == pytest.approx((22 + 2) / 40, rel=1e-6)
    assert of(rows[:2], 1, 1, earlier=earlier)["vpin"] == 0.0  # no bucket is full yet


def test_vpin_when_no_earlier_day_is_known_then_buckets_grow_with_the_day_and_stay_within_bounds():
    _, features, _ = compute_features(random_book(3, 900), window(900))
    vpin = features[:, FEATURES.index("vpin")]
    assert vpin[0] == 0.0 and vpin[300:].min() > 0.0 and vpin.max() <= 1.0
    one_sided = [(0.0, 100, 9, 101, 9, 0, 0)] + [(s + 0.5, 100, 9, 101, 9, 7, 1) for s in range(60)]
    assert of(one_sided, 60, 60)["vpin"] == pytest.approx(1.0)


def test_volume_curve_when_earlier_days_are_known_then_tells_what_has_passed_and_what_is_left():
    half = BUCKET_NS // NS
    windows = [(OPEN, OPEN + BUCKET_NS), (OPEN + 3 * BUCKET_NS, OPEN + 4 * BUCKET_NS)]
    quote = (100, 9, 101, 9)
    day = tiny_book([(10.0, *quote, 30, 1), (2 * half, *quote, 99, 1), (3 * half + 5.0, *quote, 10, -1)])
    volume = DayVolume.from_book("2024-01-02", day, windows)
    assert volume.lots.tolist() == [30, 10]  # the trade in the break counts nowhere
    curve = VolumeCurve.from_days([volume], "2024-01-03")
    _, features, _ = compute_features(day, windows, curve)
    for second, passed in ((half // 2, 0.375), (half, 0.75), (half + half // 5, 0.8), (2 * half, 1.0)):
        values = by_name(features, second - 1)
        assert values["volume_curve"] == pytest.approx(passed, abs=1e-6) and values["volume_curve_known"] == 1.0
        assert values["remaining_volume"] == pytest.approx(np.log1p(40 * (1 - passed)), abs=1e-5)
    unknown = by_name(compute_features(day, windows)[1], 5)
    assert unknown["volume_curve"] == unknown["remaining_volume"] == unknown["volume_curve_known"] == 0.0


def test_volume_curve_when_days_differ_then_each_counts_alike_and_late_ones_are_refused():
    short = DayVolume("2024-01-02", np.array([3, 1], np.int64))
    long = DayVolume("2024-01-03", np.array([100, 0, 300], np.int64))
    empty = DayVolume("2024-01-04", np.zeros(3, np.int64))
    curve = VolumeCurve.from_days([long, empty, short], "2024-01-05")
    assert curve.days == 2 and curve.daily_lots == 202.0
    np.testing.assert_allclose(curve.share, [0.5, 0.125, 0.375])
    np.testing.assert_allclose(curve.cumulative(2 * BUCKET_NS), [0.0, 0.8, 1.0])  # a half day keeps its first buckets
    np.testing.assert_allclose(curve.cumulative(4 * BUCKET_NS), [0.0, 0.5, 0.625, 1.0, 1.0])
    assert VolumeCurve.from_days([empty], "2024-01-05") is None and VolumeCurve.from_days([], "2024-01-05") is None
    with pytest.raises(InputError, match="day 2024-01-03 is not earlier than 2024-01-03"):
        VolumeCurve.from_days([short, long], "2024-01-03")


def leaning_book(rows: int, seed: int) -> Book:
    """One tick wide; the mid moves up more often the more of the queue stands on the bid."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.95, rows)
    moved = rng.random(rows) < 0.2
    up = np.where(rng.random(rows) < share, 1, -1) * moved
    bid = 10_000 + np.concatenate([[0], np.cumsum(up[:-1])])
    qb = np.maximum(1, np.rint(1_000 * share)).astype(np.int32)
    none = np.zeros(rows, np.int32)
    sides = (bid.astype(np.int32), qb, (bid + 1).astype(np.int32), 1_000 - qb)
    times = OPEN + np.arange(rows, dtype=np.int64) * (NS // 10)
    return Book(times, *(side[:, None] for side in sides), none, none, none.astype(np.int8))


def test_microprice_when_fitted_then_finds_the_planted_lean_and_is_antisymmetric():
    table = fit_microprice([leaning_book(40_000, seed) for seed in (1, 2)], buckets=9, spreads=2).adjustment
    assert table.shape == (9, 2) and np.array_equal(table, -table[::-1])
    # A fifth of the rows move, up with the queue's share c; all later moves cancel: 0.2 (2c - 1) ticks are expected.
    centres = 0.05 + 0.9 * (np.arange(9) + 0.5) / 9
    np.testing.assert_allclose(table[:, 0], 0.2 * (2 * centres - 1), atol=0.02)
    assert np.all(np.diff(table[:, 0]) > 0.0) and not table[:, 1].any()  # a spread of two ticks was never seen


def test_microprice_when_a_table_is_given_then_the_kernel_reads_it_between_bucket_centres():
    table = MicropriceTable(np.array([[-2.0, -4.0], [0.0, 0.0], [2.0, 4.0]]))
    row = (0.5, 100, 1, 101, 1, 0, 0)
    assert of([row], 1, 1, microprice=table)["microprice_adj"] == 0.0
    heavy = (0.5, 100, 2, 101, 1, 0, 0)  # a share of 2/3 lies halfway between the centres of the last two buckets
    assert of([heavy], 1, 1, microprice=table)["microprice_adj"] == pytest.approx(1.0)
    wide = (0.5, 100, 99, 109, 1, 0, 0)  # wider than the table: its last column
    assert of([wide], 1, 1, microprice=table)["microprice_adj"] == pytest.approx(4.0)
    assert of([heavy], 1, 1)["microprice_adj"] == pytest.approx(of([heavy], 1, 1)["microprice_dev"], abs=1e-6)
    np.testing.assert_allclose(default_table(4, 2).adjustment[:, 1], [-0.75, -0.25, 0.25, 0.75])


def test_microprice_when_it_cannot_be_fitted_or_is_spoilt_then_says_why():
    with pytest.raises(InputError, match="no two rows with two-sided books"):
        fit_microprice([tiny_book([(0.0, 100, 1, 101, 1, 0, 0), (60.0, 100, 2, 101, 1, 0, 0)])])
    with pytest.raises(InputError, match=r"got \(1, 2\)"):
        MicropriceTable(np.zeros((1, 2)))
    with pytest.raises(InputError, match="not finite"):
        MicropriceTable(np.full((2, 2), np.nan))


def test_grid_when_bars_are_events_or_volume_then_each_ends_with_the_row_that_fills_it():
    quote = (100, 9, 101, 9)
    rows = [(-0.5, *quote, 5, 1)] + [(s + 0.5, *quote, lots, 1) for s, lots in enumerate((2, 0, 3, 9, 0, 1, 1))]
    stamps, features, _ = compute_features(tiny_book(rows), window(10), grid=Grid("event", 3))
    assert stamps.tolist() == [OPEN + 5 * NS // 2, OPEN + 11 * NS // 2]  # the row before the open is of no bar
    assert by_name(features, 1)["event_rate_10s"] == pytest.approx(np.log1p(6 / 5.5), rel=1e-6)
    stamps, features, _ = compute_features(tiny_book(rows), window(10), grid=Grid("volume", 5))
    assert stamps.tolist() == [OPEN + 5 * NS // 2, OPEN + 7 * NS // 2]
    assert by_name(features, 1)["trade_volume_60s"] == pytest.approx(np.log1p(14), rel=1e-6)


def test_grid_and_windows_when_they_make_no_sense_then_are_refused():
    with pytest.raises(InputError, match="grid 'tick' is unknown; there are: time, event, volume"):
        Grid("tick")
    with pytest.raises(InputError, match="grid step 0 is below 1"):
        Grid("event", 0)
    with pytest.raises(InputError, match="has no length"):
        compute_features(tiny_book([(0.0, 100, 1, 101, 1, 0, 0)]), [(OPEN, OPEN)])
    late_first = [(OPEN + 5 * NS, OPEN + 9 * NS), (OPEN, OPEN + 4 * NS)]
    with pytest.raises(InputError, match="starts before"):
        compute_features(tiny_book([(0.0, 100, 1, 101, 1, 0, 0)]), late_first)


def test_live_state_when_rows_or_bars_come_out_of_order_then_refuses_and_goes_on():
    levels = np.array([[100], [5], [101], [6]], np.int32)
    state = FeatureState([*window(5), (OPEN + 9 * NS, OPEN + 12 * NS)], depth=1)
    with pytest.raises(InputError, match="a bar cannot end"):
        state.close_bar(OPEN + NS)
    state.on_row(OPEN, levels, 0, 0)
    with pytest.raises(InputError, match="call open_window first"):
        state.on_row(OPEN + 1, levels, 0, 0)
    state.open_window()
    state.on_row(OPEN + NS // 2, levels, 3, 1)
    with pytest.raises(InputError, match="give rows in order"):
        state.on_row(OPEN + NS // 4, levels, 0, 0)
    with pytest.raises(InputError, match=r"shape \(4, 2\), wanted \(4, 1\)"):
        state.on_row(OPEN + NS, np.zeros((4, 2), np.int32), 0, 0)
    for moment in (OPEN + NS // 4, OPEN + 6 * NS):  # before the last row, after the close
        with pytest.raises(InputError, match="a bar cannot end"):
            state.close_bar(moment)
    vector, valid = state.close_bar(OPEN + NS)
    assert valid and vector[FEATURES.index("trade_volume_60s")] == np.float32(np.log1p(3))
    with pytest.raises(InputError, match="give rows in order"):
        state.on_row(OPEN + NS, levels, 0, 0)  # it belongs to a bar that has been closed
    state.open_window()
    with pytest.raises(InputError, match="no further session window"):
        state.open_window()
