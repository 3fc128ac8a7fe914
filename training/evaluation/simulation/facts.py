"""Sections of stylized facts: those of the source alone, or source and simulation side by side."""

from collections.abc import Sequence
from typing import Any

from training.evaluation.simulation import figures
from training.evaluation.simulation.parts import Findings, Section, Table, figure_of, interval_of
from training.market.facts.estimate import Estimate, Fact
from training.market.facts.measure import AGREE, DIFFER, UNKNOWN, Comparison, compare, facts_json

INTERVALS = (
    "Intervals are 95%, by resampling half hours: they tell what another sample of such half hours would give, not "
    "what another week or another regime would."
)


def facts_alone(facts: Sequence[Fact], prefix: str) -> Findings:
    """Table and figures of a source's facts; `prefix` makes the figures' names unique."""
    rows = tuple(
        (fact.title, item.label, item.unit, figure_of(item.value), interval_of(item.low, item.high))
        for fact in facts
        for item in fact.numbers
    )
    head = (("fact", ""), ("figure", ""), ("unit", ""), ("value", ""), ("95% interval", ""))
    sections = [Section("Stylized facts", INTERVALS, tables=(Table(head, rows, text=(1, 2)),))]
    sections += [_fact_section(fact, ((f"{prefix}-{fact.key}", figures.curves([("", fact.curve)])),)) for fact in facts]
    return Findings(sections, {"facts": facts_json(facts)})


def facts_compared(source: Sequence[Fact], simulated: Sequence[Fact], prefix: str, note: str = "") -> Findings:
    """The table of agreement, with a `note` before it, and the figures of both."""
    rows = compare(source, simulated)
    sections = [
        Section(
            "Source against simulation",
            f"{verdict_text(rows)} A figure differs where the two 95% intervals have no point in common. "
            f"{note}{INTERVALS}",
            tables=(_comparison_table(rows),),
        )
    ]
    for ours, theirs in zip(source, simulated, strict=True):
        figure = figures.curves([("source", ours.curve), ("simulation", theirs.curve)])
        sections.append(_fact_section(ours, ((f"{prefix}-{ours.key}", figure),)))
    return Findings(
        sections,
        {
            "facts": facts_json(source),
            "simulated_facts": facts_json(simulated),
            "comparison": [_comparison_json(row) for row in rows],
        },
    )


def verdict_text(rows: Sequence[Comparison]) -> str:
    """How many figures agree and differ, in a sentence."""
    count = {verdict: sum(row.verdict == verdict for row in rows) for verdict in (AGREE, DIFFER, UNKNOWN)}
    text = f"Of {len(rows)} figures {count[AGREE]} agree and {count[DIFFER]} differ"
    return text + (f"; {count[UNKNOWN]} are not defined on one side." if count[UNKNOWN] else ".")


def _comparison_table(rows: Sequence[Comparison]) -> Table:
    head = (("fact", ""), ("figure", ""), ("source", "95% interval"), ("simulation", "95% interval"), ("", "verdict"))
    cells = tuple(
        (
            row.fact,
            row.source.label + (f", {row.source.unit}" if row.source.unit else ""),
            _with_interval(row.source),
            _with_interval(row.simulated),
            {AGREE: "agree", DIFFER: "DIFFER", UNKNOWN: "not comparable"}[row.verdict],
        )
        for row in rows
    )
    return Table(head, cells, tuple(i for i, row in enumerate(rows) if row.verdict == DIFFER), (1,))


def _with_interval(item: Estimate) -> str:
    return f"{figure_of(item.value)} {interval_of(item.low, item.high)}" if item.known else "–"


def _fact_section(fact: Fact, drawn: tuple[tuple[str, Any], ...]) -> Section:
    return Section(fact.title, f"{fact.definition} Source: {fact.source}.", drawn)


def _comparison_json(row: Comparison) -> dict[str, Any]:
    return {"fact": row.fact, "figure": row.source.key, "verdict": row.verdict}
