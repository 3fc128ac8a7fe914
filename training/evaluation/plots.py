"""The figures of the TCA report: each function takes figures already computed and returns one plotly Figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LABELS = {
    "agent": "Agent",
    "untrained": "Agent, untrained",
    "champion": "Champion",
    "immediate": "Immediate",
    "random": "Random",
    "twap_market": "TWAP, market orders",
    "twap_passive": "TWAP, passive then cross",
    "imbalance_rule": "Imbalance rule",
    "vwap_market": "VWAP, market orders",
    "almgren_chriss": "Almgren–Chriss",
    "ac_matched": "Almgren–Chriss, same exposure",
    "pov": "Participation of volume",
    "submit_and_leave": "Submit and leave",
    "carry": "Carry",
    "planted_signal": "Sees the planted signal (no baseline)",
}
"""What the report calls a policy; others keep their own name."""

INK, MUTED, GRID = "#1c2430", "#5d6878", "#e4e8ee"
_COLOURS = {"agent": "#0b63c5", "champion": "#c2540a", "untrained": "#7fb0e6", "twap_market": "#55616f"}
_OTHER = "#a3adba"
_PART_COLOURS = {"spread_bps": "#3f7fbf", "impact_bps": "#e08a3c", "timing_bps": "#8a9bb0", "fees_bps": "#c0566b"}
_PART_LABELS = {"spread_bps": "spread", "impact_bps": "impact", "timing_bps": "timing", "fees_bps": "fees"}


def label(name: str) -> str:
    """What the report calls policy `name`."""
    return LABELS.get(name, name)


def colour(name: str) -> str:
    """Colour of policy `name`: the agent and its rivals stand out, the other baselines are grey."""
    return _COLOURS.get(name, _OTHER)


def by_cost(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Policy names from the lowest mean cost to the highest."""
    return sorted(policies, key=lambda name: (policies[name]["mean_is_bps"], name))


def forest(policies: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Mean cost of each policy with its interval, cheapest on top."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = by_cost(policies)[::-1]
    for name in names:
        row = policies[name]
        bounded = row["ci_low"] is not None
        figure.add_scatter(
            x=[row["mean_is_bps"]],
            y=[label(name)],
            mode="markers",
            marker={"size": 10, "color": colour(name)},
            error_x={
                "type": "data",
                "array": [row["ci_high"] - row["mean_is_bps"] if bounded else 0.0],
                "arrayminus": [row["mean_is_bps"] - row["ci_low"] if bounded else 0.0],
                "thickness": 2,
                "width": 5,
            },
            hovertemplate="%{y}: %{x:.3f} bps<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0.0, line={"color": MUTED, "width": 1, "dash": "dot"})
    return styled(figure, "mean implementation shortfall, bps (left is cheaper)", None, 120 + 30 * len(names))


def distributions(orders: Mapping[str, NDArray[np.void]], policies: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Box of the costs of each policy: quartiles, whiskers to 1.5 IQR, the mean dashed."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = by_cost(policies)[::-1]
    for name in names:
        figure.add_box(
            x=np.round(orders[name]["is_bps"], 4),
            name=label(name),
            marker={"color": colour(name), "size": 3},
            line={"width": 1.5},
            boxmean=True,
            showlegend=False,
        )
    return styled(figure, "implementation shortfall of a parent order, bps", None, 120 + 34 * len(names))


def cost_against_risk(
    policies: Mapping[str, Mapping[str, Any]], frontier: Sequence[Mapping[str, float]] = ()
) -> "Figure":
    """Mean cost against its standard deviation, lower left is better on both; `frontier`: Almgren-Chriss schedules."""
    import plotly.graph_objects as go

    figure = go.Figure()
    if frontier:
        points = sorted(frontier, key=lambda point: point["risk_aversion"])
        figure.add_scatter(
            x=[point["sd"] for point in points],
            y=[point["mean_is_bps"] for point in points],
            mode="lines+markers",
            name="efficient frontier (Almgren–Chriss)",
            line={"color": "#8a5bb5", "width": 1.5, "dash": "dot"},
            marker={"size": 5},
            customdata=[point["risk_aversion"] for point in points],
            hovertemplate="risk aversion %{customdata:g}: SD %{x:.2f} bps, mean %{y:.3f} bps<extra></extra>",
        )
    for name in by_cost(policies):
        row = policies[name]
        figure.add_scatter(
            x=[row["sd"]],
            y=[row["mean_is_bps"]],
            mode="markers",
            name=label(name),
            marker={"size": 13, "color": colour(name), "symbol": _symbol(name), "line": {"width": 1, "color": "white"}},
            hovertemplate=f"{label(name)}: SD %{{x:.2f}} bps, mean %{{y:.3f}} bps<extra></extra>",
        )
    figure = styled(figure, "standard deviation of the cost, bps", "mean cost, bps", 500)
    return figure.update_layout(legend={"orientation": "h", "y": -0.26, "font": {"size": 11}})


def _symbol(name: str) -> str:
    shapes = {"agent": "star", "champion": "diamond", "untrained": "star-open", "immediate": "square", "random": "x"}
    rest = {
        "twap_market": "circle",
        "twap_passive": "circle-open",
        "vwap_market": "triangle-up",
        "almgren_chriss": "triangle-down",
        "ac_matched": "triangle-down-open",
        "pov": "triangle-left",
        "submit_and_leave": "hexagon-open",
        "imbalance_rule": "cross",
        "carry": "hexagon",
    }
    return {**shapes, **rest}.get(name, "circle")


def decomposition(policies: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Spread, impact, timing and fees stacked to the mean cost, cheapest policy on top."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = by_cost(policies)[::-1]
    for field, part in _PART_LABELS.items():
        figure.add_bar(
            x=[policies[name][field] for name in names],
            y=[label(name) for name in names],
            orientation="h",
            name=part,
            marker={"color": _PART_COLOURS[field]},
            hovertemplate=f"%{{y}}: {part} %{{x:.3f}} bps<extra></extra>",
        )
    figure.add_scatter(
        x=[policies[name]["mean_is_bps"] for name in names],
        y=[label(name) for name in names],
        mode="markers",
        name="sum: mean cost",
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 2.5, "color": INK}},
        hovertemplate="%{y}: %{x:.3f} bps<extra></extra>",
    )
    figure = styled(figure, "bps of the arrival value", None, 170 + 30 * len(names))
    return figure.update_layout(barmode="relative", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})


def time_of_day(orders: Mapping[str, NDArray[np.void]], minute: NDArray[np.int64], names: Sequence[str]) -> "Figure":
    """Mean cost of `names` by half-hour of the venue's day; `minute` (N,) is the local minute of each arrival."""
    slots, index = np.unique(minute // 30, return_inverse=True)
    ticks = [f"{slot // 2:02d}:{slot % 2 * 30:02d}" for slot in slots]
    return _by_bin(orders, index, ticks, names, "arrival of the parent, half-hour of the venue's local time")


def by_liquidity(orders: Mapping[str, NDArray[np.void]], shown: NDArray[np.float64], names: Sequence[str]) -> "Figure":
    """Mean cost of `names` by quintile of `shown` (N,): lots at the best prices over the parent's, at its arrival."""
    edges = np.unique(np.quantile(shown, np.linspace(0.0, 1.0, 6)))
    index = np.clip(np.searchsorted(edges, shown, side="right") - 1, 0, max(len(edges) - 2, 0))
    _, index = np.unique(index, return_inverse=True)
    bins = [shown[index == k] for k in range(int(index.max()) + 1)]
    ticks = [f"{values.min():.2g} to {values.max():.2g}" for values in bins]
    return _by_bin(
        orders, index, ticks, names, "displayed lots at the best prices over the parent's lots, at its arrival"
    )


def _by_bin(
    orders: Mapping[str, NDArray[np.void]],
    index: NDArray[np.int64],
    ticks: Sequence[str],
    names: Sequence[str],
    title: str,
) -> "Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    counts = np.bincount(index)
    for name in names:
        means = np.bincount(index, weights=orders[name]["is_bps"]) / counts
        figure.add_scatter(
            x=list(ticks),
            y=means,
            mode="lines+markers",
            name=label(name),
            line={"color": colour(name), "width": 2.5 if name == "agent" else 1.5},
            customdata=counts,
            hovertemplate=f"{label(name)} %{{x}}: %{{y:.3f}} bps, %{{customdata}} parents<extra></extra>",
        )
    figure.add_hline(y=0.0, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure = styled(figure, title, "mean cost, bps", 380)
    return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, xaxis={"type": "category"})


def example_order(example: Mapping[str, Any]) -> "Figure":
    """Best bid and ask while one parent was worked, with the fills of each policy.

    `example`: `seconds` (T,) since arrival, `bid` and `ask` (T,) prices, `arrival`, `side`, and `fills`: policy name to
    `seconds`, `price`, `lots` and `passive` (F,).
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for side, shade in (("ask", "#b9c3d0"), ("bid", "#b9c3d0")):
        figure.add_scatter(
            x=example["seconds"],
            y=example[side],
            mode="lines",
            name=f"best {side}",
            line={"shape": "hv", "color": shade, "width": 1.2, "dash": "solid" if side == "ask" else "dot"},
            hoverinfo="skip",
        )
    figure.add_hline(y=example["arrival"], line={"color": MUTED, "dash": "dash", "width": 1})
    for name, fills in example["fills"].items():
        passive = np.asarray(fills["passive"], dtype=bool)
        for chosen, symbol, how in ((passive, "circle", "resting"), (~passive, "x", "crossing")):
            if not chosen.any():
                continue
            lots = np.asarray(fills["lots"], dtype=float)[chosen]
            figure.add_scatter(
                x=np.asarray(fills["seconds"])[chosen],
                y=np.asarray(fills["price"])[chosen],
                mode="markers",
                name=f"{label(name)}, {how}",
                marker={"symbol": symbol, "size": 6 + 8 * np.sqrt(lots / lots.max()), "color": colour(name)},
                customdata=lots,
                hovertemplate=f"{label(name)} {how}: %{{customdata}} lots at %{{y}}, %{{x:.1f}} s<extra></extra>",
            )
    figure = styled(figure, "seconds since the parent arrived", "price", 430)
    return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})


def learning_curve(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], twap_passive_bps: float | None = None
) -> "Figure":
    """Each series (steps, mean cost) of the training, one a seed; a star where it is first below TWAP passive."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shades = ["#0b63c5", "#c2540a", "#3b8f5a", "#8a5bb5", "#a3adba"]
    for index, (name, (steps, values)) in enumerate(series.items()):
        line = {"color": shades[index % len(shades)], "width": 2}
        figure.add_scatter(x=list(steps), y=list(values), mode="lines+markers", name=name, line=line)
        below = [i for i, value in enumerate(values) if twap_passive_bps is not None and value < twap_passive_bps]
        if below:
            star = {"symbol": "star", "size": 14, "color": line["color"]}
            figure.add_scatter(
                x=[steps[below[0]]], y=[values[below[0]]], mode="markers", marker=star, showlegend=False,
                name=f"{name}: first below TWAP passive",
            )  # fmt: skip
    if twap_passive_bps is not None:
        figure.add_hline(
            y=twap_passive_bps, line={"color": MUTED, "dash": "dot"}, annotation_text="TWAP passive",
            annotation_position="top right",
        )  # fmt: skip
    figure = styled(figure, "environment steps", "mean cost on the validation days, bps", 380)
    return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})


def styled(figure: "Figure", x_title: str, y_title: str | None, height: int) -> "Figure":
    """`figure` in the report's style, with titles for its axes (x only where y is None) and `height` pixels."""
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 16, "t": 20, "b": 50},
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        xaxis_title=x_title,
        yaxis_title=y_title,
        hoverlabel={"bgcolor": "white"},
    )
    return figure.update_xaxes(**axis).update_yaxes(**axis)
