"""How far a documented set of own orders takes the order-by-order market from history.

The set: each minute of a session window an order at the best bid and one at the best ask, post-only, a tenth of the
median displayed best size, cancelled a minute later; half a minute later a market order of a quarter of the best queue,
buying and selling in turn. That is more than an agent would do, so that every counter has something to count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from training.evaluation.simulation.parts import Section, Table
from training.market.facts.sample import NS
from training.market.messages import pack_messages
from training.market.order_replay import Divergence, OrderReplay, ReplaySettings

if TYPE_CHECKING:
    from training.market.day import MarketDay

EVERY_NS = 60 * NS
RESTING_SHARE, TAKEN_SHARE = 0.1, 0.25

MEANINGS = {
    "taken": "of history's resting orders, taken by own orders",
    "made_by_trades": "of historical executions, got by own resting orders",
    "made_by_arrivals": "of historical orders that crossed own resting ones as they came",
    "arrivals_met": "of such orders that met lots which history had traded already",
    "rerouted": "of historical executions that met another order than then",
    "nothing_found": "of historical executions that found nobody",
    "left_over": "that rested on after history had executed them",
    "cancels_consumed": "that history cancelled and that were gone already",
    "cancels_surplus": "beyond history's that went with the cancel of their order",
    "replaces_consumed": "of replacements of orders that were gone already",
    "replaces_changed": "history's change by replacements less the change here",
    "dropped": "left over, for which no room was left",
    "book_difference": "by which the book differs from history's at the end",
    "book_lots": "resting in history at the end",
}


@dataclass(frozen=True)
class Disturbance:
    """One day's set of own orders and what it did."""

    date: str
    orders: int
    own_lots: int  # filled
    history_lots: int  # traded in history
    divergence: Divergence


def disturb(silver_dir: Path, days: "Sequence[MarketDay]") -> list[Disturbance]:
    """The set on each of `days`; none where the data are not order by order."""
    found: list[Disturbance] = []
    for day in days:
        if day.leaves is None:
            return []
        path = day.partition.folder(silver_dir) / "events.parquet"
        events = _events(path)
        messages = pack_messages(events, str(path), unknown="count")
        replay = OrderReplay(messages, ReplaySettings(order_latency_ns=day.instrument.latency_ns))
        orders = _work(replay, day)
        own = int(replay.fills["lots"].sum())
        found.append(Disturbance(day.partition.date, orders, own, day.volume_lots, replay.divergence()))
    return found


def _events(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not readable ({error}); name the silver that the features came from") from error


def _work(replay: OrderReplay, day: "MarketDay") -> int:
    shown = day.book.bid_sz[day.book.two_sided, 0]
    resting = max(1, round(RESTING_SHARE * float(np.median(shown))))
    open_orders: list[int] = []
    sent, side = 0, 1
    for opens, closes in day.windows:
        for now in range(opens + EVERY_NS, closes - EVERY_NS, EVERY_NS):
            if now < replay.now_ns:
                continue
            replay.advance(now)
            for order in open_orders:
                replay.cancel(now, order)
            bid, bid_lots, ask, ask_lots = replay.best()
            open_orders = []
            if bid_lots == 0 or ask_lots == 0:
                continue
            open_orders = [replay.limit(now, s, p, resting, post_only=True) for s, p in ((1, bid), (-1, ask))]
            half = now + EVERY_NS // 2
            replay.advance(half)
            queue = replay.best()[3 if side > 0 else 1]
            replay.market(half, side, max(1, round(TAKEN_SHARE * queue)))
            sent, side = sent + 3, -side
    replay.advance()
    return sent


def divergence_section(found: Sequence[Disturbance]) -> Section:
    """Counters of all days, in lots and as a share of what history traded."""
    traded = sum(item.history_lots for item in found)
    rows = [
        ("own orders sent", "", f"{sum(item.orders for item in found):,}", ""),
        ("own lots filled", "", f"{sum(item.own_lots for item in found):,}", _share(found, "own_lots", traded)),
    ]
    for item in fields(Divergence):
        total = sum(getattr(day.divergence, item.name) for day in found)
        share = "" if item.name in ("book_difference", "book_lots") else f"{100 * total / max(1, traded):.2f}%"
        rows.append((item.name.replace("_", " "), "lots " + MEANINGS[item.name], f"{total:,}", share))
    text = (
        f"{len(found)} day(s) replayed order by order with exact queues. Own orders: each minute one at each best "
        "price, a tenth of the median best size, cancelled a minute later; half a minute later a market order of a "
        "quarter of the best queue. Lots that own orders took stay taken, and what history did with them later is "
        "re-routed and counted."
    )
    head = (("counter", ""), ("what it counts", ""), ("lots", ""), ("of history's volume", ""))
    return Section("Divergence from history, order by order", text, tables=(Table(head, tuple(rows), text=(1,)),))


def _share(found: Sequence[Disturbance], name: str, traded: int) -> str:
    return f"{100 * sum(getattr(item, name) for item in found) / max(1, traded):.2f}%"
