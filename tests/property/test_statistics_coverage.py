"""Does a nominal 95% interval hold the truth 95% of the time, and does a zero difference stay unclaimed?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.statistics import ClusterBootstrap, adjust_family, compare, holm

RUNS = 600


def clustered(rng: np.random.Generator, groups: int, skewed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values with a shared part in each cluster, and clusters of unequal sizes; the true mean is 0."""
    labels = np.repeat(np.arange(groups), rng.integers(4, 13, groups))
    shared = rng.exponential(size=groups) - 1.0 if skewed else rng.normal(size=groups)
    return shared[labels] + rng.normal(size=len(labels)), labels


@pytest.mark.parametrize(("groups", "skewed"), [(20, False), (20, True), (40, False), (6, False)])
def test_interval_when_data_are_clustered_then_coverage_is_nominal(groups: int, skewed: bool) -> None:
    rng = np.random.default_rng(groups + 100 * skewed)
    covered = 0
    for _ in range(RUNS):
        values, labels = clustered(rng, groups, skewed)
        found = ClusterBootstrap(labels, rng, 499).interval(values)
        covered += found.low <= 0.0 <= found.high
    assert 0.92 <= covered / RUNS <= 0.98


def test_family_when_nothing_differs_then_any_claim_is_rare() -> None:
    rng = np.random.default_rng(8)
    claims = 0
    for _ in range(400):
        base, labels = clustered(rng, 13, False)
        draw = ClusterBootstrap(labels, rng, 499)
        items = []
        for rival in range(5):
            shared = rng.normal(size=13)[labels]
            items.append(compare(base, base + shared + rng.normal(size=len(base)), draw, a="a", b=str(rival)))
        claims += any(item.established for item in adjust_family(items))
    # 5% allowed for the family; three binomial standard errors of 400 runs are 3.3%.
    assert claims / 400 <= 0.05 + 0.033


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_when_any_p_values_then_adjusted_are_no_smaller_and_keep_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted)[order]) >= 0.0)


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100.0))
@settings(max_examples=25, deadline=None)
def test_interval_when_values_are_shifted_and_scaled_then_it_follows(seed: int, shift: float, scale: float) -> None:
    values, labels = clustered(np.random.default_rng(seed), 12, False)
    plain = ClusterBootstrap(labels, np.random.default_rng(1), 199).interval(values)
    moved = ClusterBootstrap(labels, np.random.default_rng(1), 199).interval(values * scale + shift)
    tolerance = 1e-6 * (1.0 + abs(shift) + scale)
    assert abs(moved.low - (plain.low * scale + shift)) < tolerance
    assert abs(moved.high - (plain.high * scale + shift)) < tolerance
    assert plain.low <= plain.mean <= plain.high


def crossed(
    rng: np.random.Generator, seeds: int, groups: int, seed_sd: float, both_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values (S, N) of several seeds on the same clustered market; the true mean is 0."""
    market, labels = clustered(rng, groups, False)
    own = seed_sd * rng.normal(size=(seeds, 1)) + both_sd * rng.normal(size=(seeds, groups))[:, labels]
    return market + own + 0.3 * rng.normal(size=(seeds, len(labels))), labels


@pytest.mark.parametrize(
    ("seeds", "groups", "seed_sd", "both_sd"),
    [(5, 13, 0.0, 0.5), (5, 13, 0.5, 0.3), (5, 30, 2.0, 0.0), (10, 8, 0.5, 1.0)],
)
def test_interval_over_seeds_when_seeds_vary_then_coverage_is_at_least_nominal(
    seeds: int, groups: int, seed_sd: float, both_sd: float
) -> None:
    rng = np.random.default_rng(seeds + groups)
    covered = 0
    for _ in range(RUNS // 2):
        values, labels = crossed(rng, seeds, groups, seed_sd, both_sd)
        found = ClusterBootstrap(labels, rng, 499).interval_over_seeds(values)
        covered += found.low <= 0.0 <= found.high
    # Three binomial standard errors of 300 runs at 95% are 3.8%; what it is too wide is no fault.
    assert covered / (RUNS // 2) >= 0.95 - 0.038


def test_interval_over_seeds_when_seeds_are_ignored_then_it_would_be_far_too_narrow() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values, labels = crossed(rng, 5, 30, 2.0, 0.0)
        found = ClusterBootstrap(labels, rng, 499).interval(values.mean(axis=0))
        covered += found.low <= 0.0 <= found.high
    assert covered / 200 < 0.6


def oracle(rng: np.random.Generator, delta: float, groups: int = 13) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs of a policy that is `delta` better than another one, bps, on the same clustered market."""
    market, labels = clustered(rng, groups, False)
    noise = 0.5 * rng.normal(size=groups)[labels] + rng.normal(size=len(labels))
    return 3.0 * market - delta + noise, 3.0 * market, labels


def test_comparison_when_one_policy_is_truly_better_then_it_is_found_with_the_power_that_is_stated() -> None:
    rng = np.random.default_rng(21)
    stated = []
    for _ in range(100):
        better, other, labels = oracle(rng, 0.0)
        stated.append(compare(better, other, ClusterBootstrap(labels, rng, 499), a="a", b="b").detectable_bps)
    delta = float(np.median(stated))
    found = wrong = 0
    for _ in range(300):
        better, other, labels = oracle(rng, delta)
        item = compare(better, other, ClusterBootstrap(labels, rng, 499), a="a", b="b")
        found += item.verdict == "lower cost"
        wrong += item.verdict == "higher cost"
    assert wrong == 0
    assert abs(found / 300 - 0.8) <= 0.08  # three binomial standard errors of 300 runs are 6.9%


def test_comparison_when_policies_are_equally_good_then_claims_are_no_more_than_alpha() -> None:
    rng = np.random.default_rng(22)
    claims = 0
    for _ in range(RUNS):
        one, other, labels = oracle(rng, 0.0)
        claims += compare(one, other, ClusterBootstrap(labels, rng, 499), a="a", b="b").established
    assert claims / RUNS <= 0.05 + 0.027  # three binomial standard errors of 600 runs


def test_family_when_two_of_six_are_truly_better_then_they_are_found_and_others_hardly_ever() -> None:
    rng = np.random.default_rng(23)
    found = false = 0
    for _ in range(150):
        base, labels = clustered(rng, 13, False)
        draw = ClusterBootstrap(labels, rng, 499)
        items = []
        for rival in range(6):
            shift = 1.5 if rival < 2 else 0.0
            noise = 0.5 * rng.normal(size=13)[labels] + rng.normal(size=len(base))
            items.append(compare(base, base + shift + noise, draw, a="agent", b=str(rival)))
        judged = adjust_family(items)
        found += sum(item.verdict == "lower cost" for item in judged[:2])
        false += any(item.established for item in judged[2:])
    assert found / 300 > 0.9
    assert false / 150 <= 0.05 + 0.054  # three binomial standard errors of 150 runs
