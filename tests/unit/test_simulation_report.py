"""The simulator's report: each world's sections, what differs is marked, SYNTHETIC is said, equal runs are equal."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import InputError
from training.evaluation.simulation import figures
from training.evaluation.simulation.config import SimulationConfig
from training.evaluation.simulation.facts import facts_compared, verdict_text
from training.evaluation.simulation.parts import Section, Table, figure_of, interval_of, section_html
from training.market.facts.estimate import Curve, Estimate, Fact
from training.market.facts.measure import compare


def fact(value: float, low: float, high: float, key: str = "spread_mean") -> Fact:
    x = np.array([1.0, 2.0])
    curve = Curve(x, x * value, x * low, x * high, "spread", "share")
    return Fact(
        "spread", "Spread", "Ask less bid.", "Somebody 1995", (Estimate(key, "mean", "ticks", value, low, high),), curve
    )


def test_comparison_when_intervals_do_not_meet_then_the_row_stands_out_and_is_counted():
    source, simulated = [fact(1.0, 0.9, 1.1), fact(2.0, 1.9, 2.1)], [fact(1.05, 1.0, 1.2), fact(3.0, 2.9, 3.1)]
    found = facts_compared(source, simulated, "x")
    table = found.sections[0].tables[0]
    assert table.strong == (1,) and [row[-1] for row in table.rows] == ["agree", "DIFFER"]
    assert "1 agree and 1 differ" in found.sections[0].text
    assert [row["verdict"] for row in found.values["comparison"]] == ["agree", "differ"]


def test_comparison_when_a_value_is_missing_on_one_side_then_is_said_and_not_hidden():
    rows = compare([fact(1.0, 0.9, 1.1)], [fact(np.nan, np.nan, np.nan)])
    assert verdict_text(rows) == "Of 1 figures 0 agree and 0 differ; 1 are not defined on one side."


def test_figures_when_written_out_then_have_their_digits_and_say_where_there_is_no_interval():
    assert [figure_of(x) for x in (0.8, 5.0, 123.4, 12345.6, np.nan)] == ["0.800", "5.00", "123", "12,346", "–"]
    assert figure_of(-0.0385) == "-0.0385" and figure_of(0.0) == "0.00"
    assert interval_of(-np.inf, np.inf) == "too few half hours" and interval_of(np.nan, np.nan) == "–"
    assert interval_of(0.5, 1.5) == "[0.500, 1.50]"


def test_section_when_it_holds_markup_in_its_texts_then_escapes_it():
    section = Section(
        "a < b", "x & y", tables=(Table((("h", ""),), (("<script>",),), caption="<i>"),), points=("1 < 2",)
    )
    text = section_html(section)
    assert "<script>" not in text and "&lt;script&gt;" in text and "a &lt; b" in text and "1 &lt; 2" in text


def test_curves_when_a_band_is_not_known_then_only_the_line_is_drawn():
    curve = fact(1.0, 0.9, 1.1).curve
    bare = replace(curve, low=np.full(2, np.nan), high=np.full(2, np.nan))
    assert len(figures.curves([("", curve)]).data) == 2 and len(figures.curves([("", bare)]).data) == 1
    logged = figures.curves([("a", replace(curve, log_y=True, low=np.array([-1.0, 0.5])))])
    assert min(logged.data[0].y) > 0


def test_configuration_when_the_world_is_unknown_then_names_those_that_are():
    with pytest.raises(InputError, match="'moon' is not one of replay, impact, reactive"):
        SimulationConfig("moon")
    with pytest.raises(InputError, match="draws 5"):
        SimulationConfig(draws=5)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Silver and features folders of two short synthetic days, built without Spark."""
    from market_folders import synthetic_folders

    return synthetic_folders(tmp_path_factory.mktemp("market"), days=2, hours=1.0)


def examine(market, world: str, out) -> tuple[dict[str, Any], str, list[tuple[int, int, str]]]:
    from training.evaluation.simulation.stage import simulate

    out.mkdir()
    steps: list[tuple[int, int, str]] = []
    silver, features = market
    found = simulate(features, silver, out, SimulationConfig(world, draws=199), lambda *step: steps.append(step))
    return found, (out / "report.html").read_text(), steps


def test_replay_when_examined_then_reports_facts_fill_models_and_divergence_of_the_synthetic_market(market, tmp_path):
    found, html, steps = examine(market, "replay", tmp_path / "a")
    assert steps == [(1, 3, "parts"), (2, 3, "parts"), (3, 3, "parts")]
    assert "SYNTHETIC" in html.split("</title>")[0] and "SYNTHETIC DATA" in html
    for title in ("Stylized facts", "Resting orders under each fill model", "Divergence from history", "cannot say"):
        assert title in html
    assert "http-equiv" not in html and '<script src="' not in html and "<link" not in html  # works without a network
    item = found["instruments"]["SYN:SYN1"]
    assert set(item["fill_models"]) == {"conservative", "expected", "optimistic", "fifo"}
    shares = {model: row[f"{model}_60s"][0] for model, row in item["fill_models"].items()}
    assert 0.05 < shares["conservative"] <= shares["expected"] <= shares["optimistic"] < 1.0
    assert shares["conservative"] <= shares["fifo"] <= shares["optimistic"]
    for day in item["divergence"]:
        assert day["taken"] > 0 and day["made_by_trades"] > 0 and day["dropped"] == 0
    written = json.loads((tmp_path / "a" / "simulation.json").read_text())
    assert written["instruments"] == found["instruments"]


def test_replay_when_examined_twice_then_leaves_the_same_bytes(market, tmp_path):
    for name in ("a", "b"):
        examine(market, "replay", tmp_path / name)
    for file in ("report.html", "simulation.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_impact_when_examined_then_costs_grow_with_size_and_scale_and_off_is_nothing(market, tmp_path):
    found, html, _ = examine(market, "impact", tmp_path / "a")
    item = found["instruments"]["SYN:SYN1"]
    assert {"permanent_bps", "temporary", "start_bps"} <= set(item["impact"]["intervals"])
    costs = item["parent_costs_bps"]
    for row in costs.values():
        assert row["off"] == 0.0
        assert row["-50%"] == pytest.approx(0.5 * row["nominal"]) and row["+50%"] == pytest.approx(1.5 * row["nominal"])
    nominal = [costs[share]["nominal"] for share in sorted(costs, key=float)]
    assert nominal == sorted(nominal) and nominal[0] > 0
    played = {(row["share"], row["scale"]): row for row in item["played_costs"]}
    for share in (0.01, 0.05):  # children of the smallest parents are a lot or none: their cost is rounding
        assert played[share, "off"]["impact_bps"] == 0.0
        assert played[share, "nominal"]["impact_bps"] == pytest.approx(costs[f"{share:g}"]["nominal"], rel=0.25)
        assert played[share, "-50%"]["mean_is_bps"] < played[share, "nominal"]["mean_is_bps"]
    assert "Calibrated impact" in html and "Propagator" in html and "What a parent costs" in html
    assert (tmp_path / "a" / "impact-SYN-SYN1.json").is_file()


def test_reactive_when_examined_then_every_fact_stands_beside_its_simulation(market, tmp_path):
    found, html, steps = examine(market, "reactive", tmp_path / "a")
    assert steps[-1] == (4, 4, "parts")
    item = found["instruments"]["SYN:SYN1"]
    assert set(item["facts"]) == set(item["simulated_facts"])
    assert len(item["comparison"]) == sum(len(numbers) for numbers in item["facts"].values())
    verdicts = [row["verdict"] for row in item["comparison"]]
    assert html.count("DIFFER</td>") == verdicts.count("differ")
    assert "Source against simulation" in html and "Intensities" in html
    assert json.loads((tmp_path / "a" / "reactive-SYN-SYN1.json").read_text())["cells"]


def test_stage_when_there_is_no_day_then_refuses(tmp_path):
    from training.evaluation.simulation.stage import simulate

    with pytest.raises(InputError, match="no day with features"):
        simulate(tmp_path, tmp_path, tmp_path, SimulationConfig(), lambda *_: None)
