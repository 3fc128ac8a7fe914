"""World reactive: a queue-reactive model fitted to the source, simulated as long, and held against it fact by fact."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from training.evaluation.simulation import figures
from training.evaluation.simulation.config import SimulationConfig
from training.evaluation.simulation.facts import facts_compared
from training.evaluation.simulation.parts import Findings, Section, Table, figure_of, interval_of
from training.evaluation.simulation.replay import data_section
from training.market.facts.measure import Session, measure
from training.market.facts.sample import NS
from training.market.facts.snapshots import as_snapshots, snapshot_interval_ns
from training.market.reactive.fit import fit_reactive
from training.market.reactive.rows import simulate_book

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.market.day import MarketDay
    from training.market.reactive.fit import ReactiveFit

LIMITS = (
    "Intensities depend on the queue that an event meets and on a common activity of the market (clusters, the U of "
    "the day), on nothing else: not on the last trades, nor on the other side. Memory of signs beyond what queues "
    "carry is not in the model, and with it goes most of the persistence of order flow.",
    "Given the activity the levels are independent; a queue that is new after a move is drawn apart from all else.",
    "The reference price moves by one tick at a time: jumps, news and gaps of several ticks do not happen.",
)
_LEVELS_SHOWN = 2
_KINDS = {"limit": "limit orders", "cancel": "cancels", "market": "market orders", "depletion": "depletions"}


def reactive_findings(days: "Sequence[MarketDay]", config: SimulationConfig, step: "Callable[[], None]") -> Findings:
    """Everything that the world reactive says of the days of one instrument."""
    fit = fit_reactive(days)
    step()
    simulated = simulate_like(fit, days, config.seed)
    step()
    source = measure([(day.book, day.windows) for day in days], config.seed, config.draws)
    step()
    other = measure(simulated, config.seed, config.draws)
    step()
    name = days[0].partition.instrument_id
    key = "".join(letter if letter.isalnum() else "-" for letter in name)
    seen = "The simulation is seen through snapshots, as the source is. " if days[0].instrument.snapshot_data else ""
    found = facts_compared(source, other, key, seen)
    found.files[f"reactive-{key}.json"] = fit.to_json()
    found.values["fit"] = _fit_values(fit)
    found.sections = [
        data_section(days),
        found.sections[0],
        _fit_section(fit),
        _rate_section(fit, key),
        *found.sections[1:],
        Section("What this world cannot say", points=LIMITS),
    ]
    return found


def _fit_values(fit: "ReactiveFit") -> dict[str, Any]:
    """The scalars of a fit."""
    values, kept = fit.to_dict(), ("method", "reference_ticks", "pooled_lengths", "closings", "ends_while_open",
                                   "trades_without_side", "theta_interval")  # fmt: skip
    parameters = ("closing", "follow", "traded_share", "unit_lots", "limit_lots", "market_lots", "activity_sd",
                  "activity_relaxation_s", "u_shape")  # fmt: skip
    return {**{name: values[name] for name in kept}, **{name: values["parameters"][name] for name in parameters}}


def _fit_section(fit: "ReactiveFit") -> Section:
    values = _fit_values(fit)
    rows = (
        ("unit of a queue", "lots", figure_of(values["unit_lots"])),
        ("mean limit order", "lots", figure_of(values["limit_lots"])),
        ("mean market order", "lots", figure_of(values["market_lots"])),
        ("ends of an open spread", "per second", figure_of(values["closing"])),
        ("theta, the price follows", "95% " + interval_of(*values["theta_interval"]), figure_of(values["follow"])),
        ("part of a depleted queue that trades", "", figure_of(values["traded_share"])),
        ("activity: standard deviation of its logarithm", "", figure_of(values["activity_sd"])),
        ("activity: relaxation time", "s", figure_of(values["activity_relaxation_s"])),
        ("activity: open and close over noon, less one", "", figure_of(values["u_shape"])),
        ("ends of a queue while the spread was open", "not in the model", f"{values['ends_while_open']:,}"),
        ("trades without a side", "left out", f"{values['trades_without_side']:,}"),
        ("lengths that share a neighbour's rate", "", f"{values['pooled_lengths']:,}"),
    )
    text = (
        f"Queue-reactive model (Huang, Lehalle and Rosenbaum 2015) by maximum likelihood on {len(fit.days)} day(s), "
        f"from {fit.method}."
    )
    head = (("parameter", ""), ("unit, note", ""), ("value", ""))
    return Section("The fitted model", text, tables=(Table(head, rows, text=(1,)),))


def _rate_section(fit: "ReactiveFit", key: str) -> Section:
    """Rates against the length of the queue at the best price, and of limit orders and cancels one level behind."""
    drawn = []
    for kind, title in _KINDS.items():
        figure = go.Figure()
        cells = fit.cells[(fit.cells["kind"] == kind) & (fit.cells["level"] < _LEVELS_SHOWN)]
        for level in np.unique(cells["level"]):
            mine = cells[cells["level"] == level]
            middle = np.maximum(0.5 * (mine["first"] + mine["last"]), 0.5)  # an empty queue has no place on this axis
            scale = middle if kind == "cancel" else np.ones(len(mine))  # cancels are counted per unit
            name = "best price" if level == 0 else f"{level} behind"
            figures.line(figure, middle, scale * mine["rate"], name, figures.SHADES[level], scale * mine["low"],
                         scale * mine["high"])  # fmt: skip
        several = len(np.unique(cells["level"])) > 1
        drawn.append(
            (f"{key}-{kind}", figures.finished(figure, "queue, units", f"{title} per second", True, legend=several))
        )
    text = (
        "Rates at activity 1 and a side, against the length of the queue that the event meets (an empty one stands at "
        "0.5), with 95% intervals."
    )
    return Section("Intensities", text, tuple(drawn))


def simulate_like(fit: "ReactiveFit", days: "Sequence[MarketDay]", seed: int) -> list[Session]:
    """A simulated session for each of `days`, as long as its windows together; the n-th from `seed` + n.

    Where the source was seen in snapshots, so is the simulation.
    """
    sessions: list[Session] = []
    for number, day in enumerate(days):
        seconds = sum(closes - opens for opens, closes in day.windows) // NS
        book = simulate_book(fit, day.instrument, seed + number, seconds)
        opens = int(book.ts_ns[0])
        if day.instrument.snapshot_data:
            book = as_snapshots(book, snapshot_interval_ns(day.book))
        sessions.append((book, ((opens, opens + seconds * NS),)))
    return sessions
