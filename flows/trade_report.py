"""The TCA report of a traded day: every parent live, against the backtest of the same parents in the environment."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.trade_day import TradeDay
from flows.trade_live import Comparison

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PARTS = ("spread_bps", "impact_bps", "timing_bps", "fees_bps", "left_bps")
NS = 1_000_000_000


@dataclass(frozen=True)
class RunFacts:
    """What a run was, beside its parents."""

    pace: str
    seconds: float  # of the clock, from the first process's start to the last parent's end
    market_seconds: float  # of the day
    gateway_denials: int
    stopped: dict[str, int | None]  # exit code of each process
    killed: list[str]
    cpu_s: dict[str, float]  # of each process


def summarise(day: TradeDay, rows: Sequence[Comparison], run: RunFacts) -> dict[str, Any]:
    """The object that `shortfall trade --json` prints, without the report's place."""
    live = [row.live_is_bps for row in rows if row.live_is_bps is not None]
    weights = [row.live.lots for row in rows if row.live_is_bps is not None]
    env = [row.env_is_bps for row in rows]
    return {
        "source": day.source,
        "synthetic": day.synthetic,
        "date": day.date,
        "symbols": sorted(market.instrument.symbol for market in day.days),
        "policy": {"version": day.version, "kind": day.bundle.kind, "sha256": day.bundle.sha256},
        "pace": run.pace,
        "seconds": round(run.seconds, 1),
        "market_seconds": round(run.market_seconds, 1),
        "parents": {
            "asked": len(rows),
            "filled": sum(row.live.how == "filled" for row in rows),
            "fallback": sum(bool(row.live.fallback) for row in rows),
            "not_done": sum(not row.live.how for row in rows),
        },
        "fills": sum(len(row.live.fills) for row in rows),
        "denials": run.gateway_denials,
        "live_mean_is_bps": _mean(live),
        "live_weighted_is_bps": float(np.average(live, weights=weights)) if live else None,
        "backtest_mean_is_bps": _mean(env),
        "difference_bps": _mean([row.live_is_bps - row.env_is_bps for row in rows if row.live_is_bps is not None]),
        "parts_bps": {name: _mean([row.live.tca.get(name) or 0.0 for row in rows]) for name in PARTS},
        "same_parents": sum(row.is_same for row in rows),
        "decisions": sum(row.decisions for row in rows),
        "same_decisions": sum(row.same_decisions for row in rows),
        "processes": run.stopped,
        "killed": run.killed,
        "cpu_s": run.cpu_s,
        "stages": [
            {"name": item.stage, "id": item.id, "skipped": item.skipped, "seconds": round(item.seconds, 1)}
            for item in day.stages
        ],
    }


def sentences(found: dict[str, Any]) -> list[str]:
    """What the run showed, in words; claims nothing that the figures do not carry."""
    parents, lines = found["parents"], []
    lines.append(
        f"{parents['filled']} of {parents['asked']} parents were filled, {parents['fallback']} by the fallback; "
        f"{found['fills']:,} fills, {found['denials']} denials by the gateway."
    )
    if found["pace"] == "lockstep":
        lines.append(
            f"Live equals the backtest for {found['same_parents']} of {parents['asked']} parents, fill by fill; "
            f"{found['same_decisions']:,} of {found['decisions']:,} decisions are the same."
        )
    else:
        lines.append("Paced by the clock: decisions meet later books than the backtest's, and need not be the same.")
    if found["live_mean_is_bps"] is not None:
        lines.append(
            f"Mean implementation shortfall live {found['live_mean_is_bps']:+.3f} bps, backtest "
            f"{found['backtest_mean_is_bps']:+.3f} bps, difference {found['difference_bps']:+.3f} bps."
        )
    return lines


def write_report(folder: Path, day: TradeDay, rows: Sequence[Comparison], found: dict[str, Any]) -> Path:
    """Write `report.html` and `trade.json` into `folder`; gives the page."""
    from training.evaluation.page import definitions, figure_html, page, section, table

    mark = "SYNTHETIC" if day.synthetic else ""
    head, body = table_rows(rows)
    facts = [
        ("policy", f"{day.bundle.kind}, version {day.version}, sha256 {day.bundle.sha256}"),
        ("data", f"{day.source}, features {day.features.name}, session {day.date}"),
        ("market", f"depth replay, fill model {day.config.fill_model}, {found['pace']}"),
        ("parents", f"{day.config.lots or 'by volume'} lots within {day.config.horizon_s} s"),
        ("time", f"{found['market_seconds']:,.0f} s of the day in {found['seconds']:,.0f} s"),
        ("processes", ", ".join(f"{name} ended with {code}" for name, code in found["processes"].items())),
        ("CPU time", ", ".join(f"{name} {used:,.1f} s" for name, used in found["cpu_s"].items())),
    ]
    parts = [(name.removesuffix("_bps"), f"{found['parts_bps'][name]:+.3f}") for name in PARTS]
    sections = [
        section("What it showed", "".join(f"<p>{html.escape(line)}</p>" for line in sentences(found))),
        section(
            "Live against backtest",
            figure_html(_figure(rows), "live-backtest"),
            "Each mark is a parent: its implementation shortfall live and in the environment; equal on the line.",
        ),
        section(
            "Where the cost came from",
            table([("part", ""), ("mean", "bps")], parts),
            "Parts of the mean implementation shortfall of the live parents; they sum to it.",
        ),
        section("Parents", table(head, body, text=(0,)), "In order of their arrival; costs above zero are losses."),
        section("How it was made", definitions(facts)),
    ]
    title = f"Traded day {day.date}: {', '.join(found['symbols'])}"
    target = folder / "report.html"
    target.write_text(page(f"{mark} {title}".strip(), f"{day.source}, version {day.version}", mark, sections))
    (folder / "trade.json").write_text(json.dumps({**found, "rows": [_plain(row) for row in rows]}, indent=1) + "\n")
    return target


def table_rows(rows: Sequence[Comparison]) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Head and cells of the table of parents."""
    head = [("parent", ""), ("arrival", "UTC"), ("side", ""), ("lots", ""), ("ended", ""), ("live", "bps"),
            ("backtest", "bps"), ("gap", "bps"), ("passive", "%"), ("fills", ""), ("decisions", "same"),
            ("denials", "")]  # fmt: skip
    body = []
    for row in rows:
        live = row.live
        at = datetime.fromtimestamp(live.began_ns / NS, UTC).strftime("%H:%M:%S") if live.began_ns else "–"
        passive = live.tca.get("passive_share")
        gap = None if row.live_is_bps is None else row.live_is_bps - row.env_is_bps
        body.append(
            [
                f"{live.parent_id} {live.symbol}", at, "buy" if live.side > 0 else "sell", f"{live.lots:,}",
                (live.how or "not done") + (" (fallback)" if live.fallback else ""), _signed(row.live_is_bps),
                _signed(row.env_is_bps), _signed(gap), "–" if passive is None else f"{100 * passive:.0f}",
                f"{len(live.fills)}{'' if row.same_fills else ' *'}", f"{row.same_decisions}/{row.decisions}",
                str(live.denials),
            ]
        )  # fmt: skip
    return head, body


def _figure(rows: Sequence[Comparison]) -> "Figure":
    import plotly.graph_objects as go

    shown = [row for row in rows if row.live_is_bps is not None]
    figure = go.Figure()
    ends = [value for row in shown for value in (row.live_is_bps, row.env_is_bps) if value is not None] or [0.0, 1.0]
    figure.add_scatter(
        x=[min(ends), max(ends)], y=[min(ends), max(ends)], mode="lines", name="equal",
        line={"color": "#9aa5b4", "dash": "dot"},
    )  # fmt: skip
    for name, side, colour in (("buy", 1, "#0b63c5"), ("sell", -1, "#c2571a")):
        mine = [row for row in shown if row.live.side == side]
        figure.add_scatter(
            x=[row.env_is_bps for row in mine], y=[row.live_is_bps for row in mine], mode="markers", name=name,
            text=[row.live.parent_id for row in mine], marker={"color": colour, "size": 8, "opacity": 0.75},
            hovertemplate="%{text}: live %{y:.3f}, backtest %{x:.3f} bps<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="simple_white", height=420, margin={"l": 60, "r": 20, "t": 20, "b": 50},
        xaxis_title="backtest, bps", yaxis_title="live, bps",
    )  # fmt: skip
    return figure


def _plain(row: Comparison) -> dict[str, Any]:
    live = row.live
    return {
        "parent_id": live.parent_id, "symbol": live.symbol, "side": live.side, "lots": live.lots,
        "began_ns": live.began_ns, "how": live.how, "fallback": live.fallback, "filled": live.filled,
        "live_is_bps": row.live_is_bps, "backtest_is_bps": row.env_is_bps, "decisions": row.decisions,
        "same_decisions": row.same_decisions, "same_fills": row.same_fills, "denials": live.denials, "tca": live.tca,
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
