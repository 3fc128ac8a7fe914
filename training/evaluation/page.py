"""The HTML around the figures of the TCA report: one self-contained page that needs no network."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_CSS = """
:root { --ink: #1c2430; --muted: #5d6878; --line: #e4e8ee; --accent: #0b63c5; --good: #1f7a4d; --warn: #9a5b00; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 16px 64px; }
header h1 { margin: 8px 0 4px; font-size: 1.7rem; line-height: 1.25; }
header p { margin: 0; color: var(--muted); }
.badge { display: inline-block; padding: 2px 10px; border-radius: 4px; background: #fff1d6; color: var(--warn);
  border: 1px solid #f0d39b; font-weight: 700; letter-spacing: .06em; font-size: .85rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 18px; }
h2 { margin: 0 0 6px; font-size: 1.15rem; }
p.note { margin: 4px 0 10px; color: var(--muted); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--muted); vertical-align: bottom; padding: 6px 7px; }
th small { display: block; font-weight: 400; }
td { text-align: right; padding: 6px 7px; border-top: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.text, th.text { text-align: left; white-space: normal; }
tr.strong td { background: #eef5fd; font-weight: 600; }
ul.verdicts { list-style: none; margin: 8px 0 0; padding: 0; }
ul.verdicts li { padding: 7px 0 7px 30px; position: relative; border-top: 1px solid var(--line); }
ul.verdicts li:first-child { border-top: 0; }
ul.verdicts li::before { position: absolute; left: 4px; font-weight: 700; }
ul.verdicts li.yes::before { content: "\\2713"; color: var(--good); }
ul.verdicts li.no::before { content: "\\25CB"; color: var(--muted); }
ul.verdicts li.no { color: var(--muted); }
.plot { width: 100%; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 8px 0 0; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: .85em; }
@media (max-width: 640px) { main { padding: 12px 8px 40px; } section { padding: 14px 12px; }
  header h1 { font-size: 1.35rem; } dl { grid-template-columns: 1fr; } dt { margin-top: 6px; } }
"""


def page(title: str, subtitle: str, badge: str, sections: Sequence[str]) -> str:
    """The whole document, plotly's script inlined once; `badge` is left out where empty."""
    from plotly.offline import get_plotlyjs

    mark = f'<span class="badge">{html.escape(badge)}</span>' if badge else ""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_CSS}</style>",
            f"<script>{get_plotlyjs()}</script>",
            "</head><body><main>",
            f"<header>{mark}<h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>",
            *sections,
            "</main></body></html>",
            "",
        ]
    )


def section(title: str, body: str, note: str = "") -> str:
    """One card of the page; `body` is HTML, `title` and `note` are text."""
    said = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{said}{body}</section>"


def figure_html(figure: "Figure", name: str) -> str:
    """A plotly figure that fits its card; `name` makes its id, so that equal figures give equal bytes."""
    config = {"displayModeBar": False, "responsive": True}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{name}", config=config)
    return f'<div class="plot">{text}</div>'


def table(
    head: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], strong: Sequence[int] = (), text: Sequence[int] = ()
) -> str:
    """A table of text cells: `head` is (title, unit) per column, `strong` rows stand out, `text` columns are prose."""

    def cell(tag: str, column: int, inner: str) -> str:
        return f'<{tag} class="text">{inner}</{tag}>' if column in text else f"<{tag}>{inner}</{tag}>"

    titles = "".join(
        cell("th", i, html.escape(title) + (f"<small>{html.escape(unit)}</small>" if unit else ""))
        for i, (title, unit) in enumerate(head)
    )
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="strong"' if i in strong else ""
        lines.append(f"<tr{mark}>{''.join(cell('td', j, html.escape(value)) for j, value in enumerate(row))}</tr>")
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they are, both text."""
    return (
        "<dl>" + "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(what)}</dd>" for term, what in items) + "</dl>"
    )


def verdict_list(lines: Sequence[str]) -> str:
    """Verdict sentences, each marked as established or not by how it begins."""
    items = (
        f'<li class="{"yes" if line.startswith("Established") else "no"}">{html.escape(line)}</li>' for line in lines
    )
    return f'<ul class="verdicts">{"".join(items)}</ul>'
