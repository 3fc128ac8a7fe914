from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from market_fixtures import NS, make_book, make_day, open_ns, random_rows

from feature_repo.errors import InputError
from training.market.impact import ImpactParameters
from training.market.impact_calibration import (
    CalibrationSettings,
    ImpactCalibration,
    calibrate_impact,
    fit_weights,
    kernel_basis,
    solve_propagator,
    with_earlier_impact,
    with_impact,
)
from training.market.impact_response import clock_sums, event_sums, meta_trades, pair_sums
from training.market.impact_temporary import size_edges

SETTINGS = CalibrationSettings(lags=240, event_lags=20, resamples=100, cut_quantile=1.0)
T0 = open_ns()
PRICE = 1_000_000  # ticks: one is a hundredth of a basis point, so that rounding hides nothing


def propagator_day(rng, parameters, date):
    """Two hours of trades that a known kernel turns into prices; persistent signs, geometric sizes, noise of others.

    The book has 100 lots at each price; the ask stands one tick above the bid.
    """
    opens = open_ns(date)
    times = np.sort(rng.choice(7200 * 1000, 14_000, replace=False)) * 1_000_000 + 500_000
    keep = rng.random(len(times)) < 0.85
    turns = np.where(keep, 1, rng.choice([-1, 1], len(times)))
    side = np.cumprod(turns)
    lots = rng.geometric(0.2, len(times))
    seconds = np.arange(1, 7201) * NS
    stamps = np.concatenate([times, seconds])
    order = np.argsort(stamps, kind="stable")
    kept, fading, last = 0.0, np.zeros(len(parameters.decay_s)), 0
    noise = np.cumsum(rng.normal(0, 0.3, 7202))  # bps a second
    rates, rows = 1 / np.array(parameters.decay_s), len(stamps)
    book = make_book([], 5)
    for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"):
        setattr(book, name, np.zeros((rows, 5), np.int32))
    book.ts_ns = opens + stamps[order]
    book.trade_px, book.trade_sz = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    book.trade_side = np.zeros(rows, np.int8)
    steps = np.arange(5)
    for row, i in enumerate(order):
        fading *= np.exp(-(stamps[i] - last) / NS * rates)
        last = stamps[i]
        if i < len(times):
            share = side[i] * lots[i] / parameters.adv_lots
            kept += share * parameters.permanent_bps
            fading += share * np.array(parameters.transient_bps)
            book.trade_px[row], book.trade_sz[row], book.trade_side[row] = PRICE, lots[i], side[i]
        bid = round(PRICE * (1 + 1e-4 * (kept + fading.sum() + noise[stamps[i] // NS])))
        book.bid_px[row], book.ask_px[row] = bid - steps, bid + 1 + steps
    book.bid_sz[:] = book.ask_sz[:] = 100
    day = make_day(random_rows(np.random.default_rng(1), 4), depth=5, date=date)
    return replace(day, book=book, adv_lots=parameters.adv_lots)


@pytest.fixture(scope="module")
def calibrated():
    truth = ImpactParameters(900.0, (0.0, 1500.0, 700.0), (1.0, 6.0, 36.0), 0.0, 100.0, 70_000.0)
    rng = np.random.default_rng(3)
    days = [propagator_day(rng, truth, f"2024-01-{day:02d}") for day in (2, 3, 4)]
    settings = replace(SETTINGS, decay_s=truth.decay_s)
    return truth, days, settings, calibrate_impact(days, 5, settings)


def test_calibration_recovers_a_known_propagator(calibrated):
    truth, days, _, found = calibrated
    scale = found.parameters.adv_lots / truth.adv_lots
    assert found.parameters.adv_lots == np.mean([day.volume_lots for day in days])
    for seconds in (0.0, 2.0, 10.0, 40.0, 200.0):
        wanted = scale * truth.kernel_bps(seconds)
        assert found.parameters.kernel_bps(seconds) == pytest.approx(wanted, rel=0.1), seconds
    for name, value in (("permanent_bps", 900.0), ("transient_bps_1", 1500.0), ("transient_bps_2", 700.0)):
        low, high = found.intervals[name]
        margin = 0.25 * (high - low)  # twelve half hours only: a little room beyond 95%
        assert low - margin <= scale * value <= high + margin, name
        assert high - low < 0.5 * scale * value


def test_kernel_without_a_form_follows_the_known_one_within_its_band(calibrated):
    truth, _, settings, found = calibrated
    weights = np.array([truth.permanent_bps, *truth.transient_bps]) * found.parameters.adv_lots / truth.adv_lots
    wanted = np.cumsum(kernel_basis(settings) @ weights)
    low, high = found.kernel_interval
    room = 0.25 * (high - low)  # twelve half hours only
    assert ((wanted >= low - room) & (wanted <= high + room)).mean() > 0.9
    assert found.explained > 0.5


def test_response_is_above_the_kernel_where_signs_persist(calibrated):
    _, _, _, found = calibrated
    assert found.sign_correlation[0] == 1 and found.sign_correlation[1] == pytest.approx(0.85, abs=0.02)
    assert (found.response_bps[2:] > found.event_kernel_bps[2:]).all()
    assert (np.diff(found.response_interval, axis=0) > 0)[:, 1:].all()


def test_temporary_part_is_the_root_through_the_cost_of_sweeping_the_book(calibrated):
    _, _, _, found = calibrated
    assert found.temporary_from == "visible book"
    lots = found.sweep_lots
    walk = [np.mean(np.minimum(np.arange(int(q)) // 100, 4)) * 0.01 for q in lots]
    np.testing.assert_allclose(found.sweep_bps, walk, rtol=1e-3, atol=1e-6)
    root = found.parameters.volatility_bps * np.sqrt(lots / found.parameters.adv_lots)
    assert found.parameters.temporary == pytest.approx((walk * root).sum() / (root**2).sum(), rel=1e-3)


def test_same_days_and_seed_give_the_same_bytes_and_survive_json(calibrated):
    _, days, settings, found = calibrated
    again = calibrate_impact(days, 5, settings)
    assert again.to_json() == found.to_json()
    back = ImpactCalibration.from_json(found.to_json())
    assert back.parameters == found.parameters and back.intervals == found.intervals
    np.testing.assert_array_equal(back.kernel_bps, found.kernel_bps)
    assert calibrate_impact(days, 6, settings).parameters == found.parameters
    assert calibrate_impact(days, 6, settings).intervals != found.intervals


def test_days_carry_the_parameters_of_their_instrument(calibrated):
    _, days, _, found = calibrated
    assert [day.impact for day in with_impact(days, found)] == [found.parameters] * 3
    other = replace(days[0], partition=replace(days[0].partition, symbol="U"))
    with pytest.raises(InputError, match="does not belong to"):
        with_impact([other], found)
    with pytest.raises(InputError, match="one instrument at a time"):
        calibrate_impact([*days, other], 0, SETTINGS)


def test_day_carries_the_impact_of_earlier_days_alone(calibrated):
    _, days, _, _ = calibrated
    found = with_earlier_impact(days[2], days[:2])
    settings = CalibrationSettings(resamples=2)
    assert found.impact == calibrate_impact(days[:2], 9, settings).parameters
    assert with_earlier_impact(days[0], []).impact == calibrate_impact(days[:1], 9, settings).parameters
    with pytest.raises(InputError, match="2024-01-03 is not earlier"):
        with_earlier_impact(days[1], days[1:])


def test_prints_of_one_stamp_and_side_are_one_trade_and_unnamed_ones_are_told_by_the_mid():
    quotes = ([(100, 9)], [(102, 9)])
    rows = [
        (T0, *quotes, None),
        (T0 + 1, *quotes, (102, 5, 1)),
        (T0 + 1, *quotes, (103, 15, 1)),
        (T0 + 1, *quotes, (100, 2, -1)),
        (T0 + 2, *quotes, (102, 3, 0)),
        (T0 + 3, *quotes, (101, 4, 0)),
    ]
    trades = meta_trades(make_book(rows))
    assert trades.lots.tolist() == [20, 2, 3] and trades.side.tolist() == [1, -1, 1]
    assert trades.mean_px[0] == pytest.approx(102.75) and trades.best_before.tolist() == [102, 100, 102]
    assert trades.mid_before.tolist() == [101, 101, 101] and trades.unsigned == 1


def test_best_quotes_alone_give_the_temporary_part_from_what_meta_trades_paid():
    rng = np.random.default_rng(8)
    rows = []
    for k in range(7000):
        bid = 10_000 + k % 7
        rows.append((T0 + k * NS, [(bid, 50)], [(bid + 1, 50)], None))
        lots, side = int(rng.integers(1, 200)), int(rng.choice([-1, 1]))
        best, stamp = (bid + 1 if side > 0 else bid), T0 + k * NS + 1
        rows.append((stamp, [(bid, 50)], [(bid + 1, 50)], (best, lots, side)))
        if lots > 100:
            rows.append((stamp, [(bid, 50)], [(bid + 1, 50)], (best + 2 * side, lots, side)))
    found = calibrate_impact([make_day(rows, depth=1)], 0, SETTINGS)
    assert found.temporary_from == "meta trades" and found.trades == 7000
    large = found.sweep_lots > 200
    np.testing.assert_allclose(found.sweep_bps[large], 1.0, rtol=0.01)  # half the lots two ticks further
    np.testing.assert_allclose(found.sweep_bps[found.sweep_lots < 80], 0.0)


@pytest.mark.parametrize(
    ("lots", "sizes", "edges"),
    [
        ([5] * 20, 2, [4, 5]),  # one size alone
        ([1] * 11 + [2] * 9, 2, [0, 1, 2]),
        ([3] * 9 + [4] * 9, 2, [2, 3.5, 4]),  # a quantile between two sizes
        ([3] * 8 + [4] + [9] * 3, 3, [2, 3, 9]),  # and with nothing between it and the edge before: 3, 3.33
    ],
)
def test_bins_of_sizes_hold_every_trade_and_none_is_empty(lots, sizes, edges):
    np.testing.assert_allclose(size_edges(np.array(lots, float), sizes), edges)


@pytest.mark.parametrize("lags", [1, 30])
def test_sums_of_pairs_do_not_cross_windows_or_blocks_start(lags):
    flow, moves = np.array([1.0, 0.0, -2.0, 3.0]), np.array([0.5, 1.0, 0.0, -1.0])
    sums = pair_sums(flow, moves, np.array([0, 0, 1, 1]), lags)
    assert sums.flow[:, 0].tolist() == [1, 13] and sums.move[:, 0].tolist() == [0.5, -3]
    assert sums.count.tolist() == [2, 2] and sums.square.tolist() == [1.25, 1.0]
    if lags > 3:
        assert sums.flow[0, :5].tolist() == [1, 0, -2, 3, 0] and sums.move[1, :3].tolist() == [-3, 2, 0]


def test_propagator_of_flow_without_memory_is_the_response_itself():
    rng = np.random.default_rng(0)
    flow = rng.choice([-1.0, 1.0], 200_000)
    kernel = np.array([1.0, -0.3, -0.2, 0.0])
    moves = np.convolve(flow, kernel)[: len(flow)] + rng.normal(0, 0.1, len(flow))
    sums = pair_sums(flow, moves, np.zeros(len(flow), np.int64), 4)
    np.testing.assert_allclose(solve_propagator(sums.flow[0], sums.move[0]), kernel, atol=0.01)


def test_weights_are_never_negative_even_where_the_response_grows():
    settings = replace(SETTINGS, lags=50)
    flow = np.zeros(50)
    flow[0] = 1.0
    growing = np.full(50, 0.1)
    weights = fit_weights(kernel_basis(settings), flow, growing)
    assert (weights >= 0).all() and weights[0] > 0 and (weights[1:] == 0).all()


def test_calibration_when_trades_are_too_few_then_names_how_many_and_where():
    day = make_day([(T0 + k * NS, [(100, 5)], [(101, 5)], (101, 1, 1)) for k in range(50)])
    with pytest.raises(InputError, match=r"TEST.*at least 1000 signed trades, 1 day\(s\) hold 50"):
        calibrate_impact([day], 0)
    with pytest.raises(InputError, match="at least one day, got none"):
        calibrate_impact([], 0)


def test_calibration_when_the_mid_stands_still_then_says_so():
    day = make_day([(T0 + k * NS, [(100, 5)], [(101, 5)], (101, 1, 1)) for k in range(7000)])
    with pytest.raises(InputError, match="never moves"):
        calibrate_impact([day], 0)


@pytest.mark.parametrize(
    "change", [{"decay_s": ()}, {"decay_s": (0.0,)}, {"lags": 1}, {"resamples": 0}, {"cut_quantile": 0.0}]
)
def test_settings_without_meaning_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        CalibrationSettings(**change)


def test_sums_of_a_day_without_trades_in_its_windows_are_empty():
    day = make_day([(T0 + k * NS, [(100, 5)], [(101, 5)], None) for k in range(10)])
    trades = meta_trades(day.book)
    assert len(trades) == 0 and isinstance(day.book, SimpleNamespace)
    assert len(event_sums(day, trades, 5, 1800 * NS).count) == 0
    assert clock_sums(day, trades, NS, 5, 1800 * NS).flow.sum() == 0
