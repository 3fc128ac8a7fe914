import json
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import InputError
from training.evaluation.statistics import HALF_HOUR_NS, NonFiniteError, UnpairedError
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


def test_analysis_when_agent_and_champion_are_there_then_one_primary_and_the_rest_secondary() -> None:
    found = analysed({name: rows_of(costs) for name, costs in COSTS.items()})
    pairs = [(item["a"], item["b"], item["primary"]) for item in found["comparisons"]]
    expected = [("agent", "champion", True), ("agent", "twap_market", False), ("champion", "twap_market", False)]
    assert pairs == expected
    assert found["comparisons"][0]["mean_diff_bps"] == -1.0


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
    (only,) = sentences(analysed({"agent": rows_of(COSTS["agent"])}), {}, [0, 1])
    assert "say nothing of other days" in only


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
