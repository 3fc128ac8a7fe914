"""World replay: what the data are, their stylized facts, what the fill models make of them, divergence from history."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.simulation import figures, resting
from training.evaluation.simulation.config import SimulationConfig
from training.evaluation.simulation.divergence import disturb, divergence_section
from training.evaluation.simulation.facts import facts_alone
from training.evaluation.simulation.parts import Findings, Section, Table, figure_of, interval_of
from training.market.facts.estimate import BlockBootstrap
from training.market.facts.measure import measure
from training.market.facts.sample import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.market.day import MarketDay

LIMITS = (
    "The recorded market does not answer: nobody sees the own orders, so lasting impact is none and what others would "
    "have done is what they did. The world impact adds a price that answers, the world reactive a book that does.",
    "Where orders are not seen one by one the queue ahead is assumed, not known: conservative and optimistic bound it, "
    "expected lies between. A result that changes its sign between them is not established.",
    "Hidden liquidity does not fill resting orders; trades that met it are not part of the book.",
)


def replay_findings(
    days: "Sequence[MarketDay]", silver_dir: Path, config: SimulationConfig, step: "Callable[[], None]"
) -> Findings:
    """Everything that the world replay says of the days of one instrument."""
    name = days[0].partition.instrument_id
    key = "".join(letter if letter.isalnum() else "-" for letter in name)
    facts = measure([(day.book, day.windows) for day in days], config.seed, config.draws)
    step()
    found = facts_alone(facts, key)
    studies, section = _fill_section(days, config, key)
    step()
    disturbed = disturb(silver_dir, days)
    step()
    sections = [data_section(days), section]
    if disturbed:
        sections.append(divergence_section(disturbed))
    found.sections = [*sections, *found.sections, Section("What this world cannot say", points=LIMITS)]
    found.values["fill_models"] = {
        study.model: {
            "orders": study.orders,
            **{item.key: [item.value, item.low, item.high] for item in study.numbers},
            "made_lots": study.made_lots,
            "met_lots": study.met_lots,
        }
        for study in studies
    }
    found.values["divergence"] = [
        {"date": item.date, "own_lots": item.own_lots, "history_lots": item.history_lots, **vars(item.divergence)}
        for item in disturbed
    ]
    return found


def data_section(days: "Sequence[MarketDay]") -> Section:
    """What each day holds."""
    head = (("day", ""), ("book rows", ""), ("trade rows", ""), ("volume", "lots"), ("mid", "first, ticks"),
            ("mid", "last, ticks"), ("two-sided", "of rows"))  # fmt: skip
    rows = []
    for day in days:
        book = day.book
        good = np.flatnonzero(book.two_sided)
        first, last = (0.5 * (int(book.bid_px[i, 0]) + int(book.ask_px[i, 0])) for i in (good[0], good[-1]))
        trades = int((book.trade_sz > 0).sum())
        rows.append(
            (day.partition.date, f"{len(book):,}", f"{trades:,}", f"{day.volume_lots:,}",
             f"{first:,.1f}", f"{last:,.1f}", f"{100 * len(good) / len(book):.2f}%")
        )  # fmt: skip
    instrument = days[0].instrument
    meets = "the next snapshot" if instrument.snapshot_data else f"the book {instrument.latency_ns / 1e6:g} ms later"
    levels = "level" if instrument.depth == 1 else "levels"
    units = "unit" if instrument.lot_size == 1 else "units"
    text = (
        f"{instrument.instrument_id}: one tick is {instrument.tick_size:g} {instrument.currency} "
        f"({days[0].tick_bps():.2f} bps), one lot is {instrument.lot_size:g} {units}; {instrument.depth} {levels} a "
        f"side can be seen; an order meets {meets}."
    )
    return Section("The data", text, tables=(Table(head, tuple(rows)),))


def _fill_section(
    days: "Sequence[MarketDay]", config: SimulationConfig, key: str
) -> tuple[list[resting.FillStudy], Section]:
    import plotly.graph_objects as go

    samples = [prepare(day.book, day.windows) for day in days]
    orders = resting.resting_orders(days, samples)
    bootstrap = BlockBootstrap(orders.blocks, np.random.default_rng(config.seed), config.draws)
    studies = resting.study_fills(days, samples, orders, bootstrap)
    figure = go.Figure()
    for study, shade in zip(studies, figures.SHADES, strict=False):
        curve = study.filled
        figures.line(figure, curve.x, curve.y, study.model, shade, curve.low, curve.high)
    figure = figures.finished(figure, "wait, s", "share of lots filled", log_x=True)
    interval = ("", "95% interval")
    head = (("fill model", ""), ("orders", ""), ("filled", "in 10 s"), interval, ("filled", "in 60 s"), interval,
            ("worth", "ticks a lot"), interval, ("made", "lots"), ("met", "lots"))  # fmt: skip
    rows = tuple(
        (
            study.model,
            f"{study.orders:,}",
            *(text for item in study.numbers for text in (figure_of(item.value), interval_of(item.low, item.high))),
            f"{study.made_lots:,}",
            f"{study.met_lots:,}",
        )
        for study in studies
    )
    text = (
        f"Every {resting.EVERY_S} s an order of {orders.lots} lots at the best bid and one at the best ask (a tenth of "
        "the median best size), sent with the instrument's latency, left alone. The worth of a filled lot is the mid "
        f"{resting.MARK_S} s after the fill against its price, in the order's favour: half the spread where fills say "
        "nothing of the price, less where the market moves against what it fills. Made: lots of historical executions "
        "that own orders got in place of others; met: displayed lots that crossed own orders."
    )
    if "fifo" not in {study.model for study in studies}:
        text += " The model fifo needs data order by order, which these are not."
    return studies, Section(
        "Resting orders under each fill model", text, ((f"{key}-fills", figure),), (Table(head, rows),)
    )
