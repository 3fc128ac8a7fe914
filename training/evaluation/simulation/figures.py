"""The figures of the simulator's report: each takes values already computed and returns one plotly Figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.plots import MUTED, styled
from training.market.facts.estimate import Curve

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SOURCE, SIMULATED = "#0b63c5", "#c2540a"
SHADES = ("#0b63c5", "#c2540a", "#3b8f5a", "#8a5bb5", "#55616f", "#b08900")
_HEIGHT = 330


def line(
    figure: "Figure",
    x: NDArray[Any],
    y: NDArray[Any],
    name: str,
    shade: str,
    low: NDArray[Any] | None = None,
    high: NDArray[Any] | None = None,
    dash: str = "solid",
    markers: bool = True,
) -> None:
    """Add a line with its band, where one is given and finite."""
    if low is not None and high is not None and np.isfinite(low).any() and np.isfinite(high).any():
        known = np.isfinite(low) & np.isfinite(high)
        figure.add_scatter(
            x=np.concatenate([x[known], x[known][::-1]]),
            y=_rounded(np.concatenate([high[known], low[known][::-1]])),
            mode="lines",
            fill="toself",
            fillcolor=_faint(shade),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=x,
        y=_rounded(y),
        mode="lines+markers" if markers else "lines",
        name=name,
        line={"color": shade, "width": 2, "dash": dash},
        marker={"size": 5},
        hovertemplate=f"{name}: %{{x:.4g}}, %{{y:.4g}}<extra></extra>",
    )


def finished(
    figure: "Figure", x_title: str, y_title: str, log_x: bool = False, log_y: bool = False, legend: bool = True
) -> "Figure":
    """Titles, scales, and the legend on top."""
    figure = styled(figure, x_title, y_title, _HEIGHT)
    if log_x:
        figure.update_xaxes(type="log", dtick=1)
    if log_y:
        figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    return figure.update_layout(showlegend=legend, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})


def curves(named: Sequence[tuple[str, Curve]]) -> "Figure":
    """Curves of one fact over each other, the source's first."""
    import plotly.graph_objects as go

    figure, first = go.Figure(), named[0][1]
    for (name, curve), shade in zip(named, SHADES, strict=False):
        low, high = curve.low, curve.high
        if curve.log_y:  # a bound below zero has no place on this axis
            low = np.where(low > 0, low, np.maximum(curve.y * 0.1, 1e-12))
        line(figure, curve.x, curve.y, name, shade, low, high)
    if not first.log_y and any((curve.y < 0).any() for _, curve in named):
        figure.add_hline(y=0.0, line={"color": MUTED, "width": 1, "dash": "dot"})
    return finished(figure, first.x_title, first.y_title, first.log_x, first.log_y, legend=len(named) > 1)


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Six significant digits: enough to see, and small to store."""
    values = np.asarray(values, np.float64)
    usable = np.isfinite(values) & (values != 0)
    scale = 10.0 ** (5 - np.floor(np.log10(np.abs(np.where(usable, values, 1.0)))))
    return np.where(usable, np.round(np.where(usable, values, 0.0) * scale) / scale, values)


def _faint(shade: str) -> str:
    red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
