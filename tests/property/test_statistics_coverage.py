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
