"""The forest plot as a small hand-written SVG, for pages that run no script (the README)."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from training.evaluation.plots import INK, MUTED, by_cost, colour, label
from training.evaluation.tca import interval_text

WIDTH, ROW, TOP, LEFT, RIGHT = 860, 30, 64, 200, 215


def forest_svg(policies: Mapping[str, Mapping[str, Any]], title: str, subtitle: str) -> str:
    """Mean implementation shortfall of each policy with its interval, bps, cheapest on top; an SVG document."""
    names = by_cost(policies)
    low, high = _range(policies)
    height = TOP + ROW * len(names) + 52

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    bottom = TOP + ROW * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" font-size="13" fill="{INK}">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="600">{html.escape(title)}</text>',
        f'<text x="16" y="45" fill="{MUTED}" font-size="12">{html.escape(subtitle)}</text>',
    ]
    for tick in _ticks(low, high):
        dash = ' stroke-dasharray="3 3"' if tick == 0 else ""
        shade = MUTED if tick == 0 else "#e4e8ee"
        parts.append(f'<path d="M{x(tick):.1f} {TOP - 6}V{bottom}" stroke="{shade}"{dash}/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="{MUTED}">{tick:g}</text>')
    for index, name in enumerate(names):
        parts.extend(_row(policies[name], name, TOP + ROW * index + ROW / 2, x))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{bottom + 40}" text-anchor="middle" fill="{MUTED}">'
        "mean implementation shortfall, bps (left is cheaper)</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


def _row(row: Mapping[str, Any], name: str, y: float, x: Any) -> list[str]:
    weight = ' font-weight="600"' if name == "agent" else ""
    parts = [f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end"{weight}>{html.escape(label(name))}</text>']
    if row["ci_low"] is not None:
        line = f"M{x(row['ci_low']):.1f} {y:.1f}H{x(row['ci_high']):.1f}"
        parts.append(f'<path d="{line}" stroke="{colour(name)}" stroke-width="2.5" stroke-linecap="round"/>')
    parts.append(f'<circle cx="{x(row["mean_is_bps"]):.1f}" cy="{y:.1f}" r="5" fill="{colour(name)}"/>')
    figures = f"{row['mean_is_bps']:+.3f}  {interval_text(row['ci_low'], row['ci_high'])}"
    parts.append(f'<text x="{WIDTH - 16}" y="{y + 4:.1f}" text-anchor="end"{weight}>{figures}</text>')
    return parts


def _range(policies: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    values = [0.0]
    for row in policies.values():
        values += [row["mean_is_bps"]] + [row[key] for key in ("ci_low", "ci_high") if row[key] is not None]
    low, high = min(values), max(values)
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """About six round values within the range: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6.0
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * min((m for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough), default=10.0)
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    return [round(float(index * step), 10) for index in range(first, last + 1)]
