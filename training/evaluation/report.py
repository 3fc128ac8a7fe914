"""The TCA report: verdicts first, then the table, the figures, what was set, and what the fill model cannot say."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import plots
from training.evaluation.oracle import distance_sentences
from training.evaluation.page import definitions, figure_html, page, section, table, verdict_list
from training.evaluation.plots import by_cost, label
from training.evaluation.protocol import DECLARED, comparison_table, findings_list, protocol_sections
from training.evaluation.tca import interval_text, sentences

FILL_MODEL_NOTES = (
    "An order meets the first market state after decision + latency; on snapshot data it meets the next snapshot.",
    "Touch is not fill: a resting order fills when trades go through its price or use up the queue displayed ahead of "
    "it; cancels ahead count only once the displayed size falls below the assumed queue.",
    "Lots once taken stay taken until the level's displayed size grows or the level disappears.",
    "Quantity beyond the visible book is filled at worsening extrapolated prices; the table states its share.",
    "The recorded market does not answer: other traders do not react to these orders, so lasting impact and adverse "
    "selection caused by the order itself are not in these figures.",
    "Hidden liquidity, queue priority by order id and venue outages are not modelled.",
)
"""What the replay can say of a cost, and what it cannot."""


@dataclass(frozen=True)
class Extras:
    """What the report shows beside the result; each is left out where it was not given."""

    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)  # steps, mean cost bps
    twap_passive_bps: float | None = None  # what TWAP passive costs on the parents of the curves
    skill: Sequence[Mapping[str, Any]] = ()  # one row a horizon (and fold) of the signal's out-of-fold skill
    examples: Sequence[Mapping[str, Any]] = ()  # see `plots.example_order`
    minute: NDArray[np.int64] | None = None  # (N,) minute of the venue's local day at which each parent arrived
    liquidity: NDArray[np.float64] | None = None  # (N,) displayed lots over the parent's when it arrived
    seeds: Sequence[int] = ()  # training seeds of the agents evaluated


def title_of(result: Mapping[str, Any]) -> str:
    """Title of the report; says SYNTHETIC exactly where any instrument is synthetic."""
    return "Transaction cost analysis" + (" – SYNTHETIC market" if result["synthetic"] else "")


def verdicts(result: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """The verdict sentences of a result, primary comparison first."""
    lines = sentences(result, {name: label(name) for name in result["policies"]}, seeds)
    return [*lines, *distance_sentences(result)]


def render(result: Mapping[str, Any], orders: Mapping[str, NDArray[np.void]], extras: Extras) -> str:
    """The report as one HTML document that works offline; `result` is the content of evaluation.json."""
    test_days = result["splits"]["test_days"]
    subtitle = (
        f"{', '.join(result['by_instrument'])} · test days {', '.join(test_days)} · "
        f"{result['n_parents']} parent orders, the same for every policy · "
        f"{result['n_clusters']} clusters ({result['clusters']})"
    )
    badge = "SYNTHETIC DATA" if result["synthetic"] else ""
    return page(
        title_of(result), subtitle, badge, [*_figures_first(result, orders, extras), *_background(result, extras)]
    )


def _figures_first(result: Mapping[str, Any], orders: Mapping[str, NDArray[np.void]], extras: Extras) -> list[str]:
    policies = result["policies"]
    parts = [section("Verdicts", verdict_list(verdicts(result, extras.seeds)))]
    if result.get("limits"):
        parts.append(section("What holds the agent back", findings_list(result["limits"])))
    parts += [
        section(
            "Cost table",
            _cost_table(policies),
            "Implementation shortfall against the arrival mid, fees included; lower is better, below zero is a gain."
            + _participation(result),
        ),
        section(
            "Mean cost",
            figure_html(plots.forest(policies), "forest"),
            f"95% intervals by resampling whole clusters ({result['clusters']}). Intervals of single policies overlap "
            "where paired differences are clear, since all met the same market: the verdicts rest on the differences.",
        ),
        section("Paired comparisons", comparison_table(result), DECLARED),
        section("Where the cost comes from", figure_html(plots.decomposition(policies), "decomposition")),
        section("Spread of outcomes", figure_html(plots.distributions(orders, policies), "distributions")),
        section(
            "Cost against risk",
            figure_html(plots.cost_against_risk(policies, result.get("frontier", ())), "risk"),
            "The dotted line joins Almgren–Chriss schedules of rising risk aversion, played like every other policy.",
        ),
    ]
    opponents = list(dict.fromkeys(result.get("opponents", {}).values()))
    chosen = [name for name in ("agent", "champion", "twap_market", *opponents) if name in orders]
    if extras.minute is not None:
        figure = plots.time_of_day(orders, extras.minute, chosen)
        parts.append(section("Cost by time of day", figure_html(figure, "time-of-day")))
    if extras.liquidity is not None:
        figure = plots.by_liquidity(orders, extras.liquidity, chosen)
        parts.append(section("Cost by liquidity", figure_html(figure, "liquidity")))
    for index, example in enumerate(extras.examples):
        title = "One order, worked" if index == 0 else "Another order, worked"
        figure = plots.example_order(example)
        parts.append(section(title, figure_html(figure, f"example-{index}"), str(example["caption"])))
    return parts


def _participation(result: Mapping[str, Any]) -> str:
    median = result.get("participation", {}).get("median")
    return "" if median is None else f" A parent is {100 * median:.2g}% (median) of what traded within its horizon."


def _background(result: Mapping[str, Any], extras: Extras) -> list[str]:
    parts = [
        *protocol_sections(result),
        section("By instrument", _group_table(result["by_instrument"]), "Mean cost in bps with its interval."),
        section("By side", _group_table(result["by_side"]), "Mean cost in bps with its interval."),
    ]
    if extras.curves:
        figure = plots.learning_curve(extras.curves, extras.twap_passive_bps)
        parts.append(section("Learning curve", figure_html(figure, "learning")))
    if extras.skill:
        parts.append(
            section(
                "Signal skill, out of fold", _skill_table(extras.skill), "Forecasts of days that the model never saw."
            )
        )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in FILL_MODEL_NOTES)
    parts.append(section("What this fill model can and cannot say", f"<ul>{notes}</ul>"))
    parts.append(section("Settings and data", definitions(settings_list(result))))
    return parts


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("mean_is_bps", "mean", "bps"),
    ("interval", "95% interval", "bps"),
    ("median", "median", "bps"),
    ("sd", "SD", "bps"),
    ("cvar95", "CVaR95", "bps"),
    ("win_rate", "beats TWAP", "% of orders"),
    ("share_of_reference", "of TWAP's cost", "%"),
    ("spread_bps", "spread", "bps"),
    ("impact_bps", "impact", "bps"),
    ("timing_bps", "timing", "bps"),
    ("fees_bps", "fees", "bps"),
    ("passive_share", "passive", "%"),
    ("completion", "completed", "%"),
    ("extrapolated_share", "beyond book", "%"),
    ("n", "orders", ""),
)
"""Field, title and unit of each column of the cost table."""
_SHARES = ("win_rate", "share_of_reference", "passive_share", "completion", "extrapolated_share")


def cell(row: Mapping[str, Any], name: str) -> str:
    """Text of one figure of a policy: two or three decimals by its unit, a dash where there is none."""
    if name == "interval":
        return interval_text(row["ci_low"], row["ci_high"])
    value = row[name]
    if value is None:
        return "–"
    if name == "n":
        return f"{value:d}"
    return f"{100.0 * value:.1f}" if name in _SHARES else f"{value:.3f}"


def _cost_table(policies: Mapping[str, Mapping[str, Any]]) -> str:
    names = by_cost(policies)
    rows = [[label(name), *(cell(policies[name], key) for key, _, _ in COLUMNS)] for name in names]
    strong = [index for index, name in enumerate(names) if name == "agent"]
    return table([("policy", ""), *((title, unit) for _, title, unit in COLUMNS)], rows, strong)


def _group_table(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    first = next(iter(groups.values()))
    head = [("policy", ""), *((key, f"{next(iter(rows.values()))['n']} orders") for key, rows in groups.items())]
    rows = []
    for name in by_cost(first):
        means = [
            f"{rows[name]['mean_is_bps']:.3f} {interval_text(rows[name]['ci_low'], rows[name]['ci_high'])}"
            for rows in groups.values()
        ]  # noqa: E501
        rows.append([label(name), *means])
    return table(head, rows)


def _skill_table(skill: Sequence[Mapping[str, Any]]) -> str:
    names = list(skill[0])
    rows = [[_plain(row.get(name)) for name in names] for row in skill]
    return table([(name.replace("_", " "), "") for name in names], rows)


def _plain(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)


def settings_list(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Terms and values of what the result rests on: splits, embargo, latency, parents, bundles, statistics, hashes."""
    items = []
    for group in (
        "splits",
        "opened_before",
        "latency",
        "parents",
        "participation",
        "calibration",
        "statistics",
        "bundles",
        "data",
    ):
        for key, value in result.get(group, {}).items():
            items.append((f"{group}: {key.replace('_', ' ')}", _setting(value)))
    return items


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_setting(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def tca_markdown(result: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """The cost table and the verdicts in markdown, for the README and the flow's artifact."""
    shown = [
        column for column in COLUMNS if column[0] not in ("median", "share_of_reference", "extrapolated_share", "n")
    ]
    head = ["policy", *(f"{title} ({unit})" if unit else title for _, title, unit in shown)]
    lines = [f"**{title_of(result)}**: {result['n_parents']} parent orders, {result['n_clusters']} clusters", ""]
    lines += ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * len(shown) + "|"]
    for name in by_cost(result["policies"]):
        cells = [label(name), *(cell(result["policies"][name], key) for key, _, _ in shown)]
        lines.append("| " + " | ".join(f"**{text}**" if name == "agent" else text for text in cells) + " |")
    return "\n".join([*lines, "", *(f"- {line}" for line in verdicts(result, seeds)), ""])
