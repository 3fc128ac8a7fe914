import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from training.evaluation.report import Extras, render, tca_markdown, verdicts
from training.evaluation.statistics import HALF_HOUR_NS
from training.evaluation.svg import forest_svg
from training.evaluation.tca import ORDER_DTYPE, Family, analyse

NAMES = ("agent", "untrained", "champion", "immediate", "twap_market")
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Checker(HTMLParser):
    """Collects text outside scripts and fails on a tag that is closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.sources += [found[key] or "" for key in ("src", "href") if key in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def orders_of(names: tuple[str, ...] = NAMES, count: int = 40, instrument: str = "X:A") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    found = {}
    for index, name in enumerate(names):
        rows = np.zeros(count, ORDER_DTYPE)
        rows["instrument_id"], rows["date"] = instrument, "2024-01-02"
        rows["start_ns"] = np.arange(count) // 2 * HALF_HOUR_NS
        rows["side"], rows["quantity_lots"] = np.where(np.arange(count) % 2, -1, 1), 100
        rows["spread_bps"] = rng.normal(index, 0.3, count)
        rows["timing_bps"] = rng.normal(0.0, 0.3, count)
        rows["is_bps"] = rows["spread_bps"] + rows["timing_bps"]
        found[name] = rows
    return found


def result_of(orders: dict[str, np.ndarray], synthetic: bool) -> dict[str, Any]:
    result = analyse(orders, Family(), np.random.default_rng(1), 499, 0.05)
    splits = {"train_days": ["2024-01-01"], "test_days": ["2024-01-02"], "embargo_held": True}
    known = {"fill_model": "conservative", "splits": splits, "latency": {"X:A": "1 ms"}}
    return {"synthetic": synthetic, **known, **result}


def everything() -> Extras:
    fills = {"seconds": [1.0, 4.0], "price": [10.0, 10.02], "lots": [3, 7], "passive": [True, False]}
    example = {
        "seconds": np.arange(5.0), "bid": np.full(5, 10.0), "ask": np.full(5, 10.01), "arrival": 10.005, "side": 1,
        "caption": "A buy of 10 lots <of X>", "fills": {"agent": fills, "twap_market": fills},
    }  # fmt: skip
    return Extras(
        curves={"seed 7": ([0.0, 1000.0], [2.0, 1.0])},
        skill=[{"horizon_s": 5, "days": "test days", "r2": 0.01, "verdict": "not established"}],
        examples=[example, example],
        minute=np.arange(40) * 10,
        liquidity=np.linspace(0.1, 9.0, 40),
        seeds=[7],
    )


@pytest.mark.parametrize("synthetic", [True, False])
def test_report_when_market_is_synthetic_then_title_says_so_and_only_then(synthetic: bool) -> None:
    orders = orders_of()
    result = result_of(orders, synthetic)
    page = render(result, orders, Extras(seeds=[0]))
    title = re.search(r"<title>(.*?)</title>", page)
    assert title is not None
    assert ("SYNTHETIC" in title.group(1)) is synthetic
    checker = Checker()
    checker.feed(page)
    assert ("SYNTHETIC" in " ".join(checker.text)) is synthetic
    assert ("SYNTHETIC" in tca_markdown(result, [0])) is synthetic


def test_report_when_all_is_given_then_page_is_well_formed_offline_and_has_every_section() -> None:
    orders = orders_of()
    page = render(result_of(orders, True), orders, everything())
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.sources == []  # nothing is fetched
    assert page.count("plotly.js v") >= 1 and "cdn.plot.ly/plotly" not in page.split("</head>")[1]
    assert len(checker.ids) == len(set(checker.ids)) == 9
    text = " ".join(checker.text)
    for heading in (
        "Verdicts", "Cost table", "Mean cost", "Paired comparisons", "Where the cost comes from", "Spread of outcomes",
        "Cost against risk", "Cost by time of day", "Cost by liquidity", "One order, worked",
        "Another order, worked", "By instrument", "By side", "Learning curve",
        "Signal skill, out of fold", "What this fill model can and cannot say", "Settings and data",
    ):  # fmt: skip
        assert heading in text
    assert "One training seed was evaluated" in text


def test_report_when_nothing_extra_is_given_then_those_sections_are_left_out() -> None:
    orders = orders_of()
    page = render(result_of(orders, False), orders, Extras())
    assert "Learning curve" not in page and "Signal skill" not in page and "One order, worked" not in page


def test_report_when_names_hold_markup_then_it_is_escaped() -> None:
    orders = orders_of(("agent", "<script>alert(1)</script>", "twap_market"), instrument="X:<b>")
    page = render(result_of(orders, False), orders, Extras())
    assert "<script>alert(1)" not in page and "X:<b>" not in page
    svg = forest_svg(result_of(orders, False)["policies"], "a < b", "c & d")
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_report_when_written_twice_then_bytes_are_the_same() -> None:
    orders = orders_of()
    first = render(result_of(orders, True), orders, everything())
    assert render(result_of(orders, True), orders, everything()) == first


def test_report_when_clusters_are_too_few_then_draws_points_without_intervals() -> None:
    orders = orders_of(count=2)
    result = result_of(orders, False)
    page = render(result, orders, Extras())
    assert "at least 2 are needed" in page
    assert all("Established" not in line[:11] for line in verdicts(result, [0]))
    svg = ElementTree.fromstring(forest_svg(result["policies"], "t", "s"))
    assert len([node for node in svg.iter() if node.tag.endswith("circle")]) == len(NAMES)


def test_markdown_when_rendered_then_one_row_a_policy_cheapest_first_agent_in_bold() -> None:
    orders = orders_of()
    result = result_of(orders, True)
    lines = [line for line in tca_markdown(result, [0]).splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(NAMES)
    assert lines[2].startswith("| **Agent** |")
    assert f"**{result['policies']['agent']['mean_is_bps']:.3f}**" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


def test_svg_when_drawn_then_points_stand_in_order_of_cost() -> None:
    result = result_of(orders_of(), True)
    svg = ElementTree.fromstring(forest_svg(result["policies"], "Mean cost – SYNTHETIC market", "40 orders"))
    places = [float(node.attrib["cx"]) for node in svg.iter() if node.tag.endswith("circle")]
    assert places == sorted(places) and len(places) == len(NAMES)
