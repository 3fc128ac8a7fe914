"""Maximum-likelihood estimation of the queue-reactive model from days of a market, with intervals for every rate.

A rate is N / T, its 95% interval the N of a Poisson law (exact below 30 events) over T, which for many events is the
Fisher information's lambda (1 +- 1.96 / sqrt N). Neighbouring lengths of a queue are pooled until a cell holds
`LEAST_EVENTS`: within it one rate holds for limit orders, market orders and depletions, one rate per unit for cancels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.reactive_tables import MarketParameters, QueueReactiveParameters
from training.market.reactive.activity import Activity, fit_activity, minute_clocks
from training.market.reactive.book_counts import BURST_NS, EACH_ROW, SAME_STAMP, count_book
from training.market.reactive.cells import CELL_DTYPE, pooled_cells, rate_table, table_length
from training.market.reactive.counts import (
    CANCEL,
    DEPLETED,
    FOLLOWS,
    LIMIT,
    MARKET,
    RETURNS,
    TRADED,
    UNMATCHED,
    WIDE,
    FlowCounts,
    Sizes,
    add_counts,
    add_sizes,
)
from training.market.reactive.order_counts import count_order_events

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book
    from training.market.day import MarketDay

LEVELS = 5
QUANTILES = 1024
LEAST_EVENTS = 25
"""Events that a cell should hold: a relative standard error of a fifth."""


@dataclass(frozen=True)
class ReactiveFit:
    """An estimated market: `parameters` for the simulator, `cells` (CELL_DTYPE) with what each rate stands on."""

    parameters: QueueReactiveParameters
    cells: NDArray[np.void]
    counts: FlowCounts
    activity: Activity
    reference_ticks: int  # median best bid
    days: tuple[str, ...]
    method: str  # what was counted and what that means

    @property
    def pooled(self) -> int:
        """Lengths that were observed but share their cell's rate with a neighbour."""
        return int((self.cells["last"] - self.cells["first"]).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: parameters, cells, exposures and counts."""
        totals = self.counts.totals
        closings = int(totals[FOLLOWS] + totals[RETURNS])
        rows = [
            {name: (str(cell[name]) if name == "kind" else cell[name].item()) for name in CELL_DTYPE.names or ()}
            for cell in self.cells
        ]
        return {
            "method": self.method,
            "days": list(self.days),
            "reference_ticks": self.reference_ticks,
            "cells": rows,
            "pooled_lengths": self.pooled,
            "closings": closings,
            "open_spread_s": float(self.counts.open_s[0]),
            "theta_interval": list(share_interval(int(totals[FOLLOWS]), closings)),
            "ends_while_open": int(totals[WIDE]),
            "trades_without_side": int(totals[UNMATCHED]),
            "parameters": {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in self.parameters._asdict().items()
            },
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text; equal fits give equal bytes."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """95% interval of a share by the score method (Wilson 1927); 0 and 1 where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z2, share = 1.959964**2, hits / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.959964 * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return float(middle - half), float(middle + half)


def fit_reactive(days: Sequence["MarketDay"], levels: int = LEVELS) -> ReactiveFit:
    """Estimate the model from the book rows of `days` of one instrument; queues count units of the mean order size.

    Snapshot data give one event at most for each price between two snapshots: rates are lower bounds. Best quotes give
    one level; what stands behind a used-up queue is then drawn from what was revealed there. Raises InputError for no
    day, more than one instrument, or days in which the spread never closes.
    """
    if not days:
        raise InputError("an estimate needs at least one day, got none")
    names = {day.partition.instrument_id for day in days}
    if len(names) > 1:
        raise InputError(f"days of {', '.join(sorted(names))}: one market is estimated from one instrument")
    instrument = days[0].instrument
    if instrument.snapshot_data:
        burst_ns, how = SAME_STAMP, "depth snapshots: differences between two of them, so that rates are lower bounds"
    elif instrument.depth == 1 and not instrument.synthetic:
        burst_ns, how = EACH_ROW, "best quotes: one level, every row an event"
    else:
        burst_ns, how = BURST_NS, "book rows"
    pieces = [piece for day in days for piece in _sessions(day)]
    if not pieces:
        raise InputError(f"{len(days)} days hold no book rows within their session windows; nothing to estimate")
    unit = mean_order_lots([book for book, _ in pieces], levels, burst_ns)
    first = [count_book(book, levels, unit, burst_ns)[0] for book, _ in pieces]
    clocks = [minute_clocks(counts.minutes) for counts in first]
    places = [_places(day, book, len(counts.minutes)) for (book, day), counts in zip(pieces, first, strict=True)]
    found = [count_book(book, levels, unit, burst_ns, clock) for (book, _), clock in zip(pieces, clocks, strict=True)]
    activity = fit_activity([counts.minutes for counts in first], places)
    bids = np.concatenate([book.bid_px[book.two_sided, 0] for book, _ in pieces])
    dates = tuple(day.partition.date for day in days)
    return _fit(found, activity, unit, False, int(np.median(bids)), dates, how)


def fit_orders(
    days: Sequence[EventColumns],
    levels: int = LEVELS,
    clocks: Sequence[NDArray[np.float64]] | None = None,
    activity: Activity | None = None,
) -> ReactiveFit:
    """Estimate the model from order-by-order events of `days`; queues count orders, sizes are geometric.

    `clocks` (`make_clocks`) tell activity and signal where they are known, as in the synthetic market; without them the
    activity is estimated by the minute. Raises as `fit_reactive` and `count_order_events`.
    """
    if not days:
        raise InputError("an estimate needs at least one day, got none")
    if clocks is None:
        first = [count_order_events(events, levels)[0] for events in days]
        clocks = [minute_clocks(counts.minutes) for counts in first]
        places = [np.linspace(-1.0, 1.0, len(counts.minutes)) for counts in first]
        activity = activity or fit_activity([counts.minutes for counts in first], places)
    found = [count_order_events(events, levels, clock) for events, clock in zip(days, clocks, strict=True)]
    prices = np.concatenate([events.price_ticks[events.price_ticks > 0] for events in days])
    names = tuple(str(number) for number in range(len(days)))
    unit = float(np.mean(np.concatenate([sizes.lots[LIMIT, : sizes.filled[LIMIT]] for _, sizes in found])))
    default = activity or Activity(0.0, 60.0, 0.0)
    return _fit(found, default, unit, True, int(np.median(prices)), names, "single orders")


def mean_order_lots(books: Sequence["Book"], levels: int, burst_ns: int) -> float:
    """Mean size of what joins a queue, lots, at least 1: the unit that queues are measured in."""
    found = [count_book(book, levels, 1.0, burst_ns)[1] for book in books]
    joined = np.concatenate([sizes.lots[LIMIT, : sizes.filled[LIMIT]] for sizes in found])
    if not len(joined):
        raise InputError(f"in {sum(len(book) for book in books)} book rows no queue ever grew; nothing to estimate")
    return max(1.0, float(joined.mean()))


def _sessions(day: "MarketDay") -> list[tuple["Book", "MarketDay"]]:
    """The day's book within each session window that has two rows or more."""
    pieces = []
    for opens, closes in day.windows:
        low, high = np.searchsorted(day.book.ts_ns, [opens, closes])
        if high - low >= 2:
            columns = {item.name: getattr(day.book, item.name)[low:high] for item in fields(day.book)}
            pieces.append((replace(day.book, **columns), day))
    return pieces


def _places(day: "MarketDay", book: "Book", minutes: int) -> NDArray[np.float64]:
    """Place in the day of each minute from the first row on: -1 at the first open to 1 at the last close."""
    opens, closes = day.windows[0][0], day.windows[-1][1]
    middles = int(book.ts_ns[0]) + (np.arange(minutes) + 0.5) * 6e10
    return np.clip(2.0 * (middles - opens) / (closes - opens) - 1.0, -1.0, 1.0)


def _fit(
    found: Sequence[tuple[FlowCounts, Sizes]],
    activity: Activity,
    unit: float,
    by_orders: bool,
    reference: int,
    days: tuple[str, ...],
    method: str,
) -> ReactiveFit:
    counts, sizes = add_counts([item for item, _ in found]), add_sizes([item for _, item in found])
    closings = int(counts.totals[FOLLOWS] + counts.totals[RETURNS])
    if closings == 0:
        raise InputError(f"the spread never closed in {len(days)} days: there is no move of the price to estimate")
    levels, length = counts.limit.shape[0], table_length(counts)
    cells = pooled_cells(counts, LEAST_EVENTS)
    mean_units = (counts.limit_s * np.arange(counts.limit_s.shape[1])).sum(axis=1) / counts.limit_s.sum(axis=1)
    refill = sizes.refill[: sizes.filled[3]]
    refill_units = float(refill.mean()) if len(refill) else 1.0
    kinds = {"limit": LIMIT, "cancel": CANCEL, "market": MARKET}
    lots = {name: sizes.lots[row, : sizes.filled[row]] for name, row in kinds.items()}
    published = MarketParameters()
    tables = {name: np.zeros((1 if name == "market" else levels, 0), np.int32) for name in kinds}
    if not by_orders:
        tables = {name: size_table(sizes, row, len(tables[name])) for name, row in kinds.items()}
    parameters = QueueReactiveParameters(
        limit=np.array([rate_table(cells, "limit", level, length) for level in range(levels)]),
        cancel=np.array([rate_table(cells, "cancel", level, length) for level in range(levels)]),
        market=rate_table(cells, "market", 0, length),
        depletion=rate_table(cells, "depletion", 0, length),
        closing=closings / float(counts.open_s[0]) if counts.open_s[0] > 0 else 1e3,
        follow=min(1.0, float(counts.totals[FOLLOWS] / counts.open_s[1])),
        traded_share=float(counts.totals[TRADED] / max(1, counts.totals[DEPLETED])),
        by_orders=int(by_orders),
        unit_lots=unit,
        limit_lots=_mean(lots["limit"]),
        cancel_lots=_mean(lots["cancel"]),
        market_lots=_mean(lots["market"]),
        limit_sizes=tables["limit"],
        cancel_sizes=tables["cancel"],
        market_sizes=tables["market"],
        refill_least=1,
        refill_more=max(0.0, refill_units - 1.0),
        opening_least=np.ones(levels, np.int64),
        opening_more=np.maximum(0.0, mean_units - 1.0),
        enters=1,
        revealed=quantiles(sizes.revealed[: sizes.filled[4]]) if levels == 1 else np.zeros(0, np.int32),
        signal_relaxation_s=published.signal_relaxation_s,
        flow_tilt=published.flow_tilt,
        max_flow_tilt=published.max_flow_tilt,
        activity_sd=activity.sd,
        activity_relaxation_s=activity.relaxation_s,
        u_shape=activity.u_shape,
    )
    return ReactiveFit(parameters, cells, counts, activity, reference, days, method)


def size_table(sizes: Sizes, kind: int, levels: int) -> NDArray[np.int32]:
    """Quantiles of the sizes of a kind by level, `(levels, QUANTILES)`; a level without any has those of all."""
    lots, where = sizes.lots[kind, : sizes.filled[kind]], sizes.levels[kind, : sizes.filled[kind]]
    rows = [quantiles(lots[where == level]) for level in range(levels)]
    return np.array([row if len(row) else quantiles(lots) for row in rows], np.int32)


def quantiles(values: NDArray[np.int64]) -> NDArray[np.int32]:
    """QUANTILES equally probable sizes of `values`; empty where there are none."""
    if not len(values):
        return np.zeros(0, np.int32)
    at = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.maximum(1, np.quantile(values, at, method="inverted_cdf")).astype(np.int32)


def _mean(values: NDArray[np.int64]) -> float:
    return max(1.0, float(values.mean())) if len(values) else 1.0
