"""The generated sections of docs/results.md."""

import pytest

from feature_repo.errors import InputError
from flows.full_runs import PAGE, RUNS, run
from flows.results_tables import marked, replace_section, section
from flows.settings import load_profile

POLICY = {
    "mean_is_bps": 0.5, "ci_low": 0.4, "ci_high": 0.6, "sd": 2.0, "cvar95": 5.0, "share_of_reference": 0.5,
    "win_rate": 0.75, "passive_share": 0.9, "completion": 0.999,
}  # fmt: skip
PRIMARY = {
    "a": "agent", "b": "carry", "primary": True, "instrument": "X:A", "n_seeds": 5, "mean_diff_bps": -0.15,
    "ci_low": -0.4, "ci_high": 0.1, "p": 0.2, "verdict": "not established", "detectable_bps": 0.3,
}  # fmt: skip


def evaluation(synthetic=False, **changed):
    policies = {
        "agent": POLICY,
        "carry": {**POLICY, "mean_is_bps": 0.65},
        "twap_market": {**POLICY, "mean_is_bps": 1.0, "sd": 3.0},
        "vwap_market": {**POLICY, "mean_is_bps": 1.0, "sd": 3.0},
    }
    market = {"opponent": "carry", "agent_mean_bps": 0.5, "opponent_mean_bps": 0.6, "mean_diff_bps": -0.1}
    return {
        "synthetic": synthetic,
        "policies": policies,
        "by_instrument": {"X:A": policies},
        "comparisons": [PRIMARY, {**PRIMARY, "primary": False}],
        "survival": {"X:A": (None, "")},
        "splits": {"train_days": ["d1", "d2"], "validation_days": ["d2"], "test_days": ["d3"]},
        "parents": {"lots": 200, "horizon_s": 600, "decision_interval_s": 60, "start_every_s": 60},
        "latency": {"X:A": "10 ms"},
        "data": {"X:A d3": "c0ffee" * 8},
        "bundles": {"agent": {"sha256": "abcdef" * 10}},
        "opened_before": {"d3": 1},
        "clusters": "half hour", "n_clusters": 7, "n_parents": 90,
        "seeds": [{"seed": 7, "mean_is_bps": 0.5, "sha256": "abcdef" * 10}],
        "sensitivities": [
            {"name": "fill model optimistic", "decides": True, "available": True, "by_instrument": {
                "X:A": {**market, "ci_low": None, "ci_high": None, "verdict": "not established"}}},
            {"name": "reactive world", "decides": True, "available": False, "why_not": "no day before",
             "by_instrument": {}},
        ],
        "strata": [],
        "distance_closed": {},
        **changed,
    }  # fmt: skip


CURVES = {
    "chosen_seed": 7,
    "config": {"algorithm": "ppo", "env_steps": 1000, "execution": {"decisions_per_slice": 4, "ahead_slices": 2}},
    "seeds": [{"seed": 7, "best_validation_bps": 0.3, "validation_of_others_bps": {"imitated": 0.4}}],
}
SKILL = {"10": {"r2": 0.05, "established": True}, "60": {"r2": 0.001, "established": False}}


def row_of(text, begins):
    return next(line for line in text.splitlines() if line.startswith(f"| {begins}"))


def test_section_states_the_mean_of_the_seeds_and_whether_the_target_is_met():
    text = section("shfl nightly", 0.10, evaluation(), CURVES, SKILL)
    assert row_of(text, "X:A: agent") == "| X:A: agent, mean of 5 seeds | 0.500 bps | summit: below 0 | missed |"
    assert row_of(text, "minus carry").endswith("| -0.150 [-0.400, +0.100], p 0.2000 | -0.10 or less | met |")
    assert "not established" in row_of(text, "is it established?")
    assert "missed" in row_of(section("c", 0.2, evaluation(), CURVES, SKILL), "minus carry")
    assert "SYNTHETIC" not in text and "R2 0.0010 at 60 s (not established)" in text
    assert "| 7 (chosen) | 0.400 | 0.300 | 0.500 | `abcdefabcdefabcd` |" in text
    assert "not played: no day before" in row_of(text, "reactive world")
    assert "{'d3': 1}" in text and "c0ffee" in text


def test_section_of_a_synthetic_market_says_so_and_measures_its_own_targets():
    closed = {"rule_bps": 0.2, "share": 0.6, "share_low": 0.3, "share_high": 0.9, "half": False}
    distance = {"X:A": {**closed, "distance_bps": 0.45, "distance_low": 0.1}}
    text = section("c", None, evaluation(True, distance_closed=distance), CURVES, SKILL)
    assert "SYNTHETIC" in text
    assert row_of(text, "minus carry").endswith("| below 0, established | missed |")
    assert row_of(text, "share of TWAP").endswith("| 0.50 | 0.53 or less | met |")
    assert row_of(text, "SD, chosen").endswith("| below both | met |")
    assert "0.60 [+0.300, +0.900]" in row_of(text, "the rule that sees") and "missed" in row_of(text, "the rule that")
    none = {"X:A": {**distance["X:A"], "distance_low": None}}
    assert "no distance" in section("c", None, evaluation(True, distance_closed=none), CURVES, SKILL)
    unplanted = section("c", None, evaluation(True, distance_closed=distance), CURVES, SKILL, planted=False)
    assert row_of(unplanted, "minus carry").endswith("| no gain, for nothing is planted | met |")
    assert "the rule that sees" not in unplanted


def test_section_is_put_between_its_markers_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    begins, ends = marked("rb")
    page.write_text(f"before\n{begins}\nold\n{ends}\nafter\n")
    replace_section(page, "rb", "new")
    replace_section(page, "rb", "newer")
    assert page.read_text() == f"before\n{begins}\n\nnewer\n\n{ends}\nafter\n"
    with pytest.raises(InputError, match="aig"):
        replace_section(page, "aig", "new")


def test_every_full_run_has_a_profile_with_five_seeds_and_a_place_on_the_page():
    for item in RUNS:
        profile = load_profile(item.profile)
        assert profile["extends"] == "full" and "seeds" not in profile["agent"]
        assert all(PAGE.read_text().count(line) == 1 for line in marked(item.name))


def test_full_runs_whose_data_are_not_there_are_left_out_and_an_unknown_one_is_refused(tmp_path, capfd):
    page = tmp_path / "page.md"
    page.write_text("untouched")
    run(tmp_path, tmp_path / "lakes", ["rb", "bac"], page)
    assert capfd.readouterr().err.count("left out") == 2 and page.read_text() == "untouched"
    with pytest.raises(InputError, match="'gold' is none of rb"):
        run(tmp_path, tmp_path / "lakes", ["gold"], page)
