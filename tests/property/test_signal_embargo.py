"""No moment of the market is both in a training sample and in what its test (or validation) sees."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.lake import Partition
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from training.evaluation.splits import day_start_ns, embargo_ns, last_decision_ns, split_days
from training.signals.chunks import fit_and_validation, lay_out
from training.signals.dataset import SignalDay, consecutive_valid, mid_moves_bps, window_numbers
from training.signals.walkforward import plan_folds

DATES = ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07")
SYMBOLS = ("AAA", "BBB")

windows = st.integers(1, 4)
horizons = st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True).map(sorted)
lookbacks = st.integers(0, 90).map(lambda seconds: seconds * NS)


@st.composite
def instruments(draw: st.DrawFn, symbol: str) -> Instrument:
    """One that trades around the clock up to the next day's open, or by day, or in the night before as well."""
    kind = draw(st.sampled_from(["round the clock", "day", "night and day"]))
    spans = {
        "round the clock": (SessionWindow("00:00:00", "00:00:00"),),
        "day": (SessionWindow("09:30:00", "16:00:00"),),
        "night and day": (SessionWindow("09:00:00", "15:00:00"), SessionWindow("21:00:00", "02:30:00", days_before=1)),
    }[kind]
    zone = draw(st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]))
    return Instrument("SIM", symbol, 0.01, 1, "USD", zone, spans, 5, False, 0)


def signal_day(
    instrument: Instrument, date: str, horizons_s: list[int], window: int, rows: int, seed: int
) -> SignalDay:
    """The first and the last `rows` seconds of each session window of a day, on a random walk."""
    rng = np.random.default_rng(seed)
    spans = instrument.session_ns(date)
    parts = [np.r_[np.arange(rows) * NS + opens, closes - np.arange(rows)[::-1] * NS] for opens, closes in spans]
    ts_ns = np.unique(np.concatenate(parts))
    mids = 1_000.0 + rng.integers(-3, 4, len(ts_ns)).cumsum()
    valid = rng.random(len(ts_ns)) > 0.02
    return SignalDay(
        Partition("SIM", instrument.symbol, date),
        ts_ns,
        rng.normal(size=(len(ts_ns), 2)).astype(np.float32),
        mid_moves_bps(ts_ns, ts_ns, mids, spans, horizons_s),
        consecutive_valid(ts_ns, valid, window_numbers(ts_ns, spans), window),
    )


@settings(max_examples=60, deadline=None)
@given(
    first=instruments("AAA"),
    second=instruments("BBB"),
    horizons_s=horizons,
    window=windows,
    lookback=lookbacks,
    test_days=st.integers(1, 3),
    refit_days=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_no_training_sample_touches_what_the_forecast_days_see(
    first, second, horizons_s, window, lookback, test_days, refit_days, seed
):
    known = {item.instrument_id: item for item in (first, second)}
    days = [
        signal_day(item, date, horizons_s, window, 130, seed + number)
        for number, (date, item) in enumerate((date, item) for date in DATES for item in (first, second))
    ]
    partitions = [day.partition for day in days]
    embargo = embargo_ns(lookback, horizons_s[-1] * NS)

    for fold in plan_folds(split_days(partitions, test_days), 1, refit_days):
        limit = last_decision_ns(partitions, known, fold.forecast_days[0], embargo)
        rows = lay_out([day for day in days if day.partition.date in fold.train_days], limit)
        sees_from = day_start_ns(partitions, known, fold.forecast_days[0]) - lookback
        assert sees_from <= min(day.ts_ns[0] for day in days if day.partition.date in fold.forecast_days) - lookback
        for column, horizon in enumerate(horizons_s):
            counts = np.isfinite(rows.moves_bps[:, column])
            assert np.all(rows.ts_ns[counts] + horizon * NS <= sees_from)


@settings(max_examples=60, deadline=None)
@given(
    horizons_s=horizons,
    window=windows,
    lookback=lookbacks,
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**16),
    instrument=instruments("AAA"),
)
def test_no_fitted_sample_touches_what_the_validation_tail_sees(horizons_s, window, lookback, share, seed, instrument):
    day = signal_day(instrument, DATES[0], horizons_s, window, 150, seed)
    rows = lay_out([day], int(day.ts_ns[-1]))

    fit, validation = fit_and_validation(rows, share, embargo_ns(lookback, horizons_s[-1] * NS))

    assert validation.any() and not np.any(fit & validation)
    assert np.all(rows.usable[fit]) and np.all(rows.usable[validation])
    if fit.any():
        assert rows.ts_ns[fit].max() + horizons_s[-1] * NS + lookback <= rows.ts_ns[validation].min()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), horizons_s=horizons, cut=st.integers(0, 250), instrument=instruments("AAA"))
def test_labels_before_a_moment_ignore_the_book_after_it(seed, horizons_s, cut, instrument):
    spans = instrument.session_ns(DATES[0])
    rng = np.random.default_rng(seed)
    opens = spans[0][0]
    book_ts = opens + np.sort(rng.integers(0, 300 * NS, 200))
    mids = 1_000.0 + rng.normal(size=200)
    ts_ns = opens + np.arange(300, dtype=np.int64) * NS
    moment = opens + cut * NS
    other = np.where(book_ts > moment, mids * 1.5, mids)

    one = mid_moves_bps(ts_ns, book_ts, mids, spans, horizons_s)
    two = mid_moves_bps(ts_ns, book_ts, other, spans, horizons_s)

    for column, horizon in enumerate(horizons_s):
        ended = ts_ns + horizon * NS <= moment
        np.testing.assert_array_equal(one[ended, column], two[ended, column])
