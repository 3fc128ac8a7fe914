import numpy as np
import pytest

from feature_repo.errors import InputError
from training.evaluation.statistics import (
    HALF_HOUR_NS,
    ClusterBootstrap,
    NonFiniteError,
    UnpairedError,
    adjust_family,
    cluster_labels,
    compare,
    cvar,
    holm,
    win_rate,
)


def bootstrap(clusters: list[int] | np.ndarray, seed: int = 1, draws: int = 1999) -> ClusterBootstrap:
    return ClusterBootstrap(np.asarray(clusters), np.random.default_rng(seed), draws)


def test_holm_when_textbook_p_values_then_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_when_p_is_not_a_probability_then_refuses() -> None:
    with pytest.raises(NonFiniteError, match="within 0 to 1"):
        holm([0.1, float("nan")])


def test_interval_when_standard_error_is_known_then_mean_and_order_agree() -> None:
    found = bootstrap([0, 0, 1, 1, 2, 2, 3, 3] * 3 + [4, 5, 6]).interval(np.arange(27.0))
    assert found.mean == 13.0 and found.n == 27 and found.n_clusters == 7
    assert found.low < 13.0 < found.high
    assert found.high - 13.0 == pytest.approx(13.0 - found.low)


def test_interval_when_clusters_are_repeated_then_copies_add_no_certainty() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=30)
    once = bootstrap(np.arange(30)).interval(values)
    copied = bootstrap(np.repeat(np.arange(30), 10)).interval(np.repeat(values, 10))
    naive = bootstrap(np.arange(300)).interval(np.repeat(values, 10))
    assert copied.low == pytest.approx(once.low) and copied.high == pytest.approx(once.high)
    assert (naive.high - naive.low) < 0.5 * (copied.high - copied.low)


def test_interval_when_seed_is_the_same_then_bits_are_the_same() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap(np.arange(40) // 4).interval(values) == bootstrap(np.arange(40) // 4).interval(values)


def test_compare_when_a_is_plainly_cheaper_then_established_with_its_sign() -> None:
    rng = np.random.default_rng(5)
    b = rng.normal(3.0, 1.0, 120)
    draw = bootstrap(np.arange(120) // 10)
    found = compare(b - 1.0 + rng.normal(0, 0.2, 120), b, draw, a="agent", b="twap", primary=True)
    assert found.established and found.verdict == "lower cost" and found.ci_high < 0.0
    assert found.p_adjusted == found.p < 0.01
    mirrored = compare(b, b - 1.0, bootstrap(np.arange(120) // 10), a="agent", b="twap")
    assert mirrored.established and mirrored.verdict == "higher cost"


def test_compare_when_costs_are_identical_then_never_established() -> None:
    costs = np.random.default_rng(5).normal(size=60)
    found = compare(costs, costs.copy(), bootstrap(np.arange(60) // 3), a="a", b="b")
    assert not found.established and found.p == 1.0 and found.mean_diff_bps == 0.0
    assert found.verdict == "not established" and found.why_not


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_compare_when_clusters_are_too_few_then_not_established_and_says_why(groups: int) -> None:
    rng = np.random.default_rng(groups)
    a = -10.0 + rng.normal(0, 0.1, 60)
    found = compare(a, np.zeros(60), bootstrap(np.arange(60) % groups), a="a", b="b", primary=True)
    assert not found.established
    assert f"{groups} cluster" in found.why_not


def test_compare_when_difference_is_constant_then_no_more_certain_than_a_sign_test() -> None:
    few = compare(np.full(40, -1.0), np.zeros(40), bootstrap(np.arange(40) // 10), a="a", b="b")
    many = compare(np.full(40, -1.0), np.zeros(40), bootstrap(np.arange(40) // 4), a="a", b="b")
    assert few.p == 2.0**-3 and not few.established
    assert many.p == 2.0**-9 and many.established


def test_compare_when_counts_differ_then_unpaired() -> None:
    with pytest.raises(UnpairedError, match="agent has 3 parents and twap has 4"):
        compare(np.zeros(3), np.zeros(4), bootstrap([0, 1, 2]), a="agent", b="twap")


def test_compare_when_a_cost_is_nan_then_names_policy_and_parent() -> None:
    with pytest.raises(NonFiniteError, match="twap: cost of parent 2 is nan"):
        compare(np.zeros(4), np.array([0, 1, np.nan, 3.0]), bootstrap([0, 1, 2, 3]), a="agent", b="twap")


def test_bootstrap_when_clusters_are_missing_then_refuses() -> None:
    with pytest.raises(InputError, match="one label"):
        bootstrap([])
    with pytest.raises(InputError, match="one value a label"):
        bootstrap([0, 1]).interval(np.zeros(3))
    with pytest.raises(InputError, match="below 99"):
        bootstrap([0, 1], draws=10)


def test_family_when_primary_is_declared_then_it_stands_alone_and_others_pay() -> None:
    rng = np.random.default_rng(11)
    draw = bootstrap(np.arange(200) // 10)
    base = rng.normal(size=200)
    noise = [rng.normal(0, 0.5, 200) for _ in range(4)]
    items = [
        compare(base + shift + noise[i], base, draw, a="agent", b=f"p{i}", primary=i == 0)
        for i, shift in enumerate((-0.1, -0.1, 0.0, -2.0))
    ]
    judged = adjust_family(items)
    assert judged[0].p_adjusted == items[0].p
    assert [item.p_adjusted for item in judged[1:]] == holm([item.p for item in items[1:]])
    assert judged[3].established
    assert all(item.established == (item.p_adjusted <= 0.05) for item in judged)


def test_family_when_two_are_primary_then_refuses() -> None:
    draw = bootstrap([0, 1, 2])
    item = compare(np.zeros(3), np.ones(3), draw, a="a", b="b", primary=True)
    with pytest.raises(InputError, match="more than one"):
        adjust_family([item, item])


def test_cluster_labels_when_days_are_few_then_half_hours_else_days() -> None:
    start = np.arange(10, dtype=np.int64) * (HALF_HOUR_NS // 2)
    labels, kind = cluster_labels(start, ["2024-01-02"] * 10)
    assert kind == "half hour" and labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    labels, kind = cluster_labels(start, [f"2024-01-0{1 + i // 2}" for i in range(10)])
    assert kind == "day" and labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_cvar_when_tail_is_not_whole_then_weights_the_boundary() -> None:
    assert cvar(np.arange(1.0, 101.0)) == 98.0  # mean of 96..100
    assert cvar(np.array([1.0, 2.0, 10.0])) == 10.0  # 0.15 of a value: the worst alone
    assert cvar(np.arange(1.0, 31.0)) == pytest.approx((30.0 + 0.5 * 29.0) / 1.5)
    with pytest.raises(InputError):
        cvar(np.array([]))


def test_win_rate_when_tied_then_counts_half() -> None:
    assert win_rate(np.array([1.0, 2.0, 3.0, 0.0]), np.array([2.0, 2.0, 1.0, 1.0])) == pytest.approx(0.625)
    with pytest.raises(UnpairedError):
        win_rate(np.zeros(2), np.zeros(3))
