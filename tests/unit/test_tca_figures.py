import json
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import InputError
from training.evaluation.statistics import HALF_HOUR_NS, ClusterBootstrap, NonFiniteError, UnpairedError, compare
from training.evaluation.tca import ORDER_DTYPE, DecompositionError, Family, analyse, check_orders, sentences

COSTS = {
    "agent": [1.0, -2.0, 0.5, 3.5],
    "champion": [2.0, -1.0, 1.5, 4.5],
    "twap_market": [1.0, 0.0, 3.0, 2.0],
}


def rows_of(costs: list[float], **columns: Any) -> np.ndarray:
    """Parents two to a half-hour, alternately bought and sold, whose cost is all spread but for 0.25 bps of fees."""
    rows = np.zeros(len(costs), ORDER_DTYPE)
    rows["instrument_id"], rows["date"] = "X:A", "2024-01-02"
    rows["start_ns"] = np.arange(len(costs)) // 2 * HALF_HOUR_NS
    rows["side"] = np.where(np.arange(len(costs)) % 2, -1, 1)
    rows["quantity_lots"] = 100
    rows["is_bps"] = costs
    rows["fees_bps"] = 0.25
    rows["spread_bps"] = rows["is_bps"] - 0.25
    rows["completion"] = 1.0
    for name, values in columns.items():
        rows[name] = values
    return rows


def analysed(orders: dict[str, np.ndarray], **settings: Any) -> dict[str, Any]:
    return analyse(orders, Family(**settings), np.random.default_rng(1), 999, 0.05)


def test_analysis_when_market_is_tiny_then_figures_are_the_hand_computed_ones() -> None:
    orders = {name: rows_of(costs) for name, costs in COSTS.items()}
    orders["agent"]["passive_share"] = [1.0, 0.5, 0.5, 0.0]
    found = analysed(orders)
    agent = found["policies"]["agent"]
    assert agent["mean_is_bps"] == 0.75 and agent["n"] == 4
    assert agent["median"] == 0.75  # halfway between 0.5 and 1
    assert agent["sd"] == pytest.approx(np.sqrt((0.25**2 + 2.75**2 + 0.25**2 + 2.75**2) / 3))
    assert agent["cvar95"] == 3.5  # a fifth of one order: the worst alone
    assert agent["win_rate"] == 0.625  # tie, win, win, loss against TWAP
    assert found["policies"]["twap_market"]["win_rate"] == 0.5
    assert agent["spread_bps"] == 0.5 and agent["fees_bps"] == 0.25 and agent["impact_bps"] == 0.0
    assert agent["passive_share"] == 0.5 and agent["completion"] == 1.0
    assert found["clusters"] == "half hour" and found["n_clusters"] == 2 and found["n_parents"] == 4
    assert found["by_side"]["buy"]["agent"]["mean_is_bps"] == 0.75
    assert found["by_side"]["sell"]["champion"]["mean_is_bps"] == 1.75
    assert found["by_instrument"]["X:A"]["twap_market"]["mean_is_bps"] == 1.5


def test_analysis_when_opponents_are_declared_then_one_primary_an_instrument_and_the_rest_secondary() -> None:
    orders = {name: rows_of(costs) for name, costs in COSTS.items()}
    found = analysed(orders, opponents={"X:A": "twap_market"})
    pairs = [(item["a"], item["b"], item["instrument"], item["primary"]) for item in found["comparisons"]]
    assert pairs == [
        ("agent", "twap_market", "X:A", True),  # one instrument: not made again over all of them
        ("agent", "champion", "all", False),
        ("champion", "twap_market", "all", False),
    ]
    assert found["comparisons"][1]["mean_diff_bps"] == -1.0
    for rows in orders.values():
        rows["instrument_id"][2:] = "X:B"
    both = analysed(orders, opponents={"X:A": "twap_market", "X:B": "champion"})
    primary = [(item["b"], item["instrument"], item["n"]) for item in both["comparisons"] if item["primary"]]
    assert primary == [("twap_market", "X:A", 2), ("champion", "X:B", 2)]
    pooled = [item["b"] for item in both["comparisons"] if item["a"] == "agent" and not item["primary"]]
    assert pooled == ["champion", "twap_market"]


def test_analysis_when_costs_of_seeds_are_given_then_the_primary_is_of_their_mean() -> None:
    orders = {name: rows_of(costs * 10) for name, costs in COSTS.items()}
    seed_costs = np.stack([orders["agent"]["is_bps"] + shift for shift in (0.0, 1.0, 2.0)])
    family = Family(opponents={"X:A": "champion"})
    found = analyse(orders, family, np.random.default_rng(1), 999, 0.05, seed_costs)
    first = found["comparisons"][0]
    assert first["primary"] and first["n_seeds"] == 3 and first["mean_diff_bps"] == pytest.approx(0.0)
    pooled = [item for item in found["comparisons"][1:] if item["b"] == "champion"]
    assert [item["n_seeds"] for item in pooled] == [1]  # the chosen policy itself, for its promotion


def test_analysis_when_further_comparisons_are_given_then_they_share_the_adjustment() -> None:
    orders = {name: rows_of(costs * 10) for name, costs in COSTS.items()}
    alone = analysed(orders)
    draw = ClusterBootstrap(np.arange(40) // 2, np.random.default_rng(0), 99)
    extra = compare(np.ones(40), np.zeros(40), draw, a="a", b="b")
    found = analyse(orders, Family(), np.random.default_rng(1), 999, 0.05, others=[extra] * 3)
    assert len(found["others"]) == 3 and len(found["comparisons"]) == len(alone["comparisons"])
    for with_them, without in zip(found["comparisons"], alone["comparisons"], strict=True):
        assert with_them["p_adjusted"] >= without["p_adjusted"]


def test_policy_when_reference_costs_something_then_its_share_of_that_is_given() -> None:
    found = analysed({name: rows_of(costs) for name, costs in COSTS.items()})
    assert found["policies"]["agent"]["share_of_reference"] == pytest.approx(0.75 / 1.5)
    assert found["policies"]["twap_market"]["share_of_reference"] == 1.0


def test_analysis_when_two_clusters_give_no_interval_then_bounds_are_null_and_nothing_is_claimed() -> None:
    found = analysed({name: rows_of(costs) for name, costs in COSTS.items()})
    assert found["policies"]["agent"]["ci_low"] is None and found["policies"]["agent"]["ci_high"] is None
    assert not any(item["established"] for item in found["comparisons"])
    assert not any(row["established"] for row in found["policies"].values())
    json.dumps(found, allow_nan=False)


def test_analysis_when_agent_is_plainly_cheaper_then_established_for_it_and_for_the_beaten() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(2.0, 1.0, 40)
    orders = {
        "agent": rows_of(list(base - 1.0)),
        "champion": rows_of(list(base + rng.normal(0.0, 0.2, 40))),
        "random": rows_of(list(base - 3.0 + rng.normal(0.0, 0.2, 40))),
        "twap_market": rows_of(list(base - 1.0 + rng.normal(0.0, 1.0, 40))),
    }
    found = analysed(orders)
    flags = {name: row["established"] for name, row in found["policies"].items()}
    assert flags == {"agent": True, "champion": True, "random": False, "twap_market": False}
    verdicts = {item["b"]: item["verdict"] for item in found["comparisons"] if item["a"] == "agent"}
    assert verdicts == {"champion": "lower cost", "random": "higher cost", "twap_market": "not established"}


def test_sentences_when_claim_is_unsupported_then_says_not_established_and_why() -> None:
    lines = sentences(analysed({name: rows_of(costs) for name, costs in COSTS.items()}), {"agent": "Agent"}, [0])
    assert lines[0].startswith("Not established: that Agent and champion differ")
    assert "2 clusters are too few" in lines[0]
    assert lines[-1] == "One training seed was evaluated: nothing is claimed about other seeds."
    (only,) = sentences(analysed({"agent": rows_of(COSTS["agent"])}), {}, list(range(5)))
    assert "say nothing of other days" in only


def plain_win() -> dict[str, Any]:
    """An agent that is plainly cheaper than its declared opponent."""
    base = np.random.default_rng(4).normal(2.0, 1.0, 40)
    noise = np.random.default_rng(5).normal(0.0, 0.2, 40)
    orders = {"agent": rows_of(list(base - 1.0)), "carry": rows_of(list(base + noise))}
    return analysed(orders, opponents={"X:A": "carry"})


@pytest.mark.parametrize(
    ("survival", "begins", "says"),
    [
        ({}, "Established: ", "is of this world and fill model alone"),
        ({"X:A": (True, "")}, "Established: ", "stands in every world"),
        (
            {"X:A": (False, "fill model optimistic")},
            "Established in the headline's market alone: ",
            "No ranking is claimed",
        ),
    ],
)
def test_sentences_when_primary_is_established_then_a_ranking_is_claimed_only_where_it_survives(
    survival: dict[str, Any], begins: str, says: str
) -> None:
    lines = sentences({**plain_win(), "survival": survival}, {}, [0])
    assert lines[0].startswith(begins) and "80% power from a true difference of" in lines[0]
    assert says in lines[1] and "X:A" in lines[1]


def test_sentences_when_a_day_was_opened_before_or_seeds_are_few_then_they_say_so() -> None:
    result = {**plain_win(), "opened_before": {"2024-01-02": 1, "2024-01-03": 0}}
    lines = sentences(result, {}, [1, 2, 3])
    assert "2024-01-02 was opened before, by one evaluation: no fresh test." in lines
    assert any(line.startswith("3 training seeds were evaluated, fewer than 5") for line in lines)


def test_analysis_when_seed_is_the_same_then_result_is_the_same() -> None:
    orders = {name: rows_of(costs * 8) for name, costs in COSTS.items()}
    assert analysed(orders) == analysed(orders)


def test_orders_when_parents_differ_then_unpaired_names_field_and_policies() -> None:
    other = rows_of(COSTS["champion"])
    other["quantity_lots"][2] = 101
    with pytest.raises(UnpairedError, match="parent 2: quantity_lots is 101 for champion and 100 for agent"):
        check_orders({"agent": rows_of(COSTS["agent"]), "champion": other})


def test_orders_when_one_policy_lacks_a_parent_then_unpaired() -> None:
    with pytest.raises(UnpairedError, match="champion has 3 parents and agent 4"):
        check_orders({"agent": rows_of(COSTS["agent"]), "champion": rows_of(COSTS["champion"][:3])})


@pytest.mark.parametrize("field", ["is_bps", "timing_bps", "passive_share"])
def test_orders_when_a_figure_is_nan_then_names_policy_field_and_parent(field: str) -> None:
    rows = rows_of(COSTS["agent"])
    rows[field][1] = np.nan
    with pytest.raises(NonFiniteError, match=f"agent: {field} of parent 1 is nan"):
        check_orders({"agent": rows})


def test_orders_when_parts_do_not_sum_to_the_cost_then_refused() -> None:
    with pytest.raises(DecompositionError, match=r"parent 3 sum to 3.600000 bps, its cost is 3.500000"):
        check_orders({"agent": rows_of(COSTS["agent"], impact_bps=[0.0, 0.0, 0.0, 0.1])})


def test_orders_when_there_are_none_then_says_what_to_do() -> None:
    with pytest.raises(InputError, match="take more test days"):
        check_orders({"agent": rows_of([])})
    with pytest.raises(InputError, match="no policy"):
        check_orders({})


def test_family_when_champion_is_absent_then_no_comparison_is_primary() -> None:
    orders = {name: rows_of(COSTS[name]) for name in ("agent", "twap_market")}
    found = analysed(orders)
    assert [item["primary"] for item in found["comparisons"]] == [False]
