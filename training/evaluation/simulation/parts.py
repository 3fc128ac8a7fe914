"""What a report is put together from: sections of text, figures and tables, and their HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation import page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Table:
    """A table of text cells: `head` is (title, unit) per column; `text` columns are prose; `strong` rows stand out."""

    head: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()
    text: tuple[int, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One card of the report; `figures` are (name, figure), each name once in a report, in place of its id."""

    title: str
    text: str = ""
    figures: "tuple[tuple[str, Figure], ...]" = ()
    tables: tuple[Table, ...] = ()
    points: tuple[str, ...] = ()  # a list of sentences at the end


@dataclass
class Findings:
    """What one world says of one instrument: sections for people, `values` (JSON) for programs."""

    sections: list[Section] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # left beside the report: name and content


def section_html(section: Section) -> str:
    """The card of a section."""
    parts = [page.figure_html(figure, name) for name, figure in section.figures]
    for table in section.tables:
        if table.caption:
            parts.append(f'<p class="note">{html.escape(table.caption)}</p>')
        parts.append(page.table(table.head, table.rows, table.strong, table.text))
    if section.points:
        parts.append("<ul>" + "".join(f"<li>{html.escape(point)}</li>" for point in section.points) + "</ul>")
    return page.section(section.title, "".join(parts), section.text)


def figure_of(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, a dash where it is not defined."""
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")


def interval_of(low: float, high: float, digits: int = 3) -> str:
    """An interval; a dash where it is not defined, words where too few half hours give none."""
    if np.isnan(low) or np.isnan(high):
        return "–"
    if np.isinf(low) or np.isinf(high):
        return "too few half hours"
    return f"[{figure_of(low, digits)}, {figure_of(high, digits)}]"


def json_numbers(values: Sequence[float]) -> list[float | None]:
    """Numbers as JSON has them: null where one is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]
