"""A day against its trailing days: a change of scale is far, odd days are ignored, a lasting change is learned."""

from datetime import date, timedelta

import numpy as np
import pytest
from scipy import stats

from feature_repo.pipeline.book_scan import BINS, HISTOGRAMS, bins_of
from feature_repo.pipeline.drift import COLUMNS, DISTANCES, History, distance, median_value
from feature_repo.pipeline.gates import Trailing, load_gates

TRAILING = Trailing(days=5, min_days=2, max_age_days=30, min_observations=200)
LIMIT = load_gates().expectations["size_distance"].max


def counts(values) -> np.ndarray:
    return np.bincount(bins_of(np.asarray(values, np.int64)), minlength=BINS)


def sizes(seed: int, scale: float = 1.0, count: int = 5_000) -> np.ndarray:
    """Lots as of a quote feed: log-normal, whole."""
    return np.maximum(1, (scale * 300 * np.random.default_rng(seed).lognormal(0, 1, count)).astype(np.int64))


def day(seed: int, scale: float = 1.0, count: int = 5_000) -> dict[str, list[int]]:
    return {name: counts(sizes(seed, scale, count)).tolist() for name in HISTOGRAMS}


def iso(number: int) -> str:
    return (date(2024, 1, 1) + timedelta(days=number)).isoformat()


def test_distance_when_days_are_alike_or_not_then_it_is_kolmogorov_and_smirnovs():
    ours = distance(counts(sizes(1)), [counts(sizes(2, 1.7))])
    exact = stats.ks_2samp(sizes(1), sizes(2, 1.7)).statistic
    assert exact - 0.05 < ours <= exact + 1e-12  # bins can only hide distance
    assert distance(counts(sizes(1)), [counts(sizes(2))]) < 0.03
    assert distance(counts(sizes(1, 100)), [counts(sizes(2))]) > 0.9


@pytest.mark.parametrize(("scale", "passes"), [(1.5, True), (0.6, True), (5, False), (0.2, False), (100, False)])
def test_limit_when_the_scale_changes_then_busy_days_pass_and_other_units_do_not(scale, passes):
    earlier = [counts(sizes(seed)) for seed in range(5)]
    assert (distance(counts(sizes(9, scale)), earlier) <= LIMIT) == passes


def test_distance_when_a_minority_of_days_is_odd_then_the_reference_does_not_follow():
    plain = [counts(sizes(seed)) for seed in range(3)]
    odd = [counts(sizes(seed, 100)) for seed in (7, 8)]
    assert distance(counts(sizes(9)), [*plain, *odd]) < 0.05
    assert distance(counts(sizes(9, 100)), [*plain, *odd]) > 0.9


def test_history_when_a_change_lasts_then_it_is_far_for_half_the_days_and_then_usual():
    history = History(TRAILING)
    for number in range(5):
        history.compare(iso(number), 1000, day(number))
    found = [history.compare(iso(number), 10_000, day(number, 100)) for number in range(5, 10)]
    far = [row["size_distance"] > LIMIT for row in found]
    assert far == [True, True, True, False, False]
    assert [row["rows_to_trailing_median"] for row in found] == [10, 10, 10, 1, 1]


def test_history_when_there_is_too_little_then_it_does_not_compare():
    history = History(TRAILING)
    for number in range(2):
        assert set(history.compare(iso(number), 1000, day(number)).values()) == {None}
    few = history.compare(iso(2), 900, day(3, count=150))
    assert few["rows_to_trailing_median"] == 0.9 and few["price_to_trailing_median"] == pytest.approx(1, abs=0.2)
    assert {few[column] for column in DISTANCES} == {None}
    assert set(history.compare(iso(3), 0, {}).values()) == {None} == set(history.compare(iso(3), None, {}).values())
    assert set(history.compare(iso(3), 1000, day(4))) == set(COLUMNS)
    # two days later than the oldest that counts: nothing is left to compare with
    assert set(history.compare(iso(3 + 31), 1000, day(5)).values()) == {None}


def test_median_when_values_are_binned_then_it_is_within_a_bin():
    for scale in (1, 10, 1e6):
        values = sizes(3, scale)
        assert median_value(counts(values)) == pytest.approx(np.median(values), rel=0.1)
    assert median_value(counts([])) is None and median_value(counts([0, 0, -3])) == 0.0
