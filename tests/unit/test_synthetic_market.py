"""Statistical properties of the synthetic market, on fixed seeds; each interval stands beside its assertion."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from feature_repo.lake import Partition
from feature_repo.pipeline.books import Book, build_book
from feature_repo.ticks.batches import event_batch
from feature_repo.ticks.predictability import HORIZONS_S, synthetic_samples, walk_forward
from feature_repo.ticks.queue_reactive import NS, activity_path
from feature_repo.ticks.reactive_tables import MarketParameters
from feature_repo.ticks.synthetic import DEFAULT_STRENGTH, SyntheticOptions, business_days, clean_events, latent_signal

DAYS = 6


@cache
def day(index: int, strength: float = DEFAULT_STRENGTH) -> tuple[Book, NDArray[np.float64], NDArray[np.float64]]:
    """Book, mid in ticks at each whole second from the open on, and the latent signal of those seconds."""
    options = {"strength": strength, "days": DAYS}
    partition = Partition("SYN", "SYN1", business_days(DAYS)[index].isoformat())
    events = clean_events(SyntheticOptions.parse(options), partition)
    book, counts = build_book(pa.Table.from_batches([event_batch(events, 0)]), 5)
    assert (counts.unknown_order, counts.oversized) == (0, 0)
    ts_ns, signal = latent_signal(options, partition)
    rows = np.searchsorted(book.ts_ns, ts_ns, side="right") - 1
    return book, (book.bid_px[rows, 0] + book.ask_px[rows, 0]) / 2.0, signal


def t_value(strength: float, horizon_s: int) -> float:
    """Of the slope of the coming move on the signal, over all days, each horizon once (no overlap)."""
    moves, signals = [], []
    for index in range(DAYS):
        _, mid, signal = day(index, strength)
        at = np.arange(0, len(mid) - horizon_s, horizon_s)
        moves.append(mid[at + horizon_s] - mid[at])
        signals.append(signal[at])
    x, y = np.concatenate(signals), np.concatenate(moves)
    slope = (x @ y) / (x @ x)
    return float(slope / np.sqrt(np.mean((y - slope * x) ** 2) / (x @ x)))


@pytest.mark.parametrize("horizon_s", [10, 30])
def test_market_when_signal_is_planted_then_it_forecasts_the_mid(horizon_s: int) -> None:
    assert t_value(DEFAULT_STRENGTH, horizon_s) > 6.0


@pytest.mark.parametrize("horizon_s", [10, 30, 60])
def test_market_when_strength_is_0_then_the_signal_forecasts_nothing(horizon_s: int) -> None:
    assert abs(t_value(0.0, horizon_s)) < 3.0  # 99.7% interval of no relation


def test_market_when_strength_is_0_then_neither_signal_nor_book_has_skill() -> None:
    latent, visible = synthetic_samples({"strength": 0.0, "days": DAYS})
    for skill in walk_forward(latent) + walk_forward(visible):
        assert skill.low < 0.0005, skill  # the 95% interval reaches no skill


def test_market_at_default_strength_when_forecast_from_the_book_then_skill_stays_below_real_depth() -> None:
    shfe = dict(zip(HORIZONS_S, (0.0986, 0.0305, 0.0099), strict=True))  # docs/synthetic.md
    latent, visible = synthetic_samples({"days": DAYS})
    for horizon, oracle, seen in zip(HORIZONS_S, walk_forward(latent), walk_forward(visible), strict=True):
        assert seen.r2 <= shfe[horizon], horizon
        assert seen.r2 < oracle.r2
    assert walk_forward(visible)[0].low > 0.01  # and there is something to learn at 10 s


def test_market_at_strength_0_then_the_mid_is_a_martingale() -> None:
    steps = [np.diff(day(index, 0.0)[1][::10]) for index in range(DAYS)]
    moves = np.concatenate(steps)
    assert abs(moves.mean()) < 3.0 * moves.std() / np.sqrt(len(moves))  # 99.7% interval of no drift
    ratios = []
    for step in steps:
        long = step[: len(step) // 6 * 6].reshape(-1, 6).sum(axis=1)
        ratios.append(np.mean(long**2) / (6 * np.mean(step**2)))
    # variance of minutes over six times that of 10 s: about 0.06 sd a day, 0.025 over six days
    assert abs(np.mean(ratios) - 1.0) < 0.1


def test_market_spread_depth_and_levels_are_those_that_the_docs_state() -> None:
    book, _, _ = day(0)
    assert book.two_sided.all()
    at = np.searchsorted(book.ts_ns, book.ts_ns[0] + np.arange(1, 23_400) * NS, side="right") - 1
    spread = book.ask_px[at, 0] - book.bid_px[at, 0]
    assert 0.85 < np.mean(spread == 1) < 0.97
    assert np.mean(spread <= 2) > 0.999
    assert np.mean(book.bid_sz[at] > 0) > 0.999 and np.mean(book.ask_sz[at] > 0) > 0.999  # five levels
    assert 40 < np.median(book.bid_sz[at, 0]) < 90
    assert 2_500 < book.trade_sz.sum() / 39 < 8_000  # lots in ten minutes


def test_market_volume_is_u_shaped_over_the_day() -> None:
    parameters = MarketParameters()
    seconds = 23_400
    mean = np.mean([activity_path(7, number, seconds, parameters) for number in range(200)], axis=0)
    first, noon, last = mean[:1800].mean(), mean[10_800:12_600].mean(), mean[-1800:].mean()
    assert abs(mean.mean() - 1.0) < 0.05
    assert 1.4 < first / noon < 2.2 and 1.4 < last / noon < 2.2
    lots = np.zeros(13)
    for index in range(DAYS):
        book, _, _ = day(index)
        bucket = np.minimum((book.ts_ns - book.ts_ns[0]) // (1800 * NS), 12)
        lots += np.bincount(bucket, book.trade_sz, 13)
    assert min(lots[0], lots[-1]) > 1.2 * lots[5:8].mean()


def test_market_volume_is_clustered() -> None:
    lags = []
    for index in range(DAYS):
        book, _, _ = day(index)
        minute = np.minimum((book.ts_ns - book.ts_ns[0]) // (60 * NS), 389)
        lots = np.bincount(minute, book.trade_sz, 390)
        place = np.linspace(-1.0, 1.0, 390)
        rest = lots / (1.0 + MarketParameters().u_shape * place**2)  # the U taken out: what is left is clustering
        lags.append(np.corrcoef(rest[:-1], rest[1:])[0, 1])
    # of independent minutes: 0 with sd 0.05 a day, 0.02 over six days
    assert np.mean(lags) > 0.1
