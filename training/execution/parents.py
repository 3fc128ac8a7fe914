"""Where parent orders come from: a fixed grid for evaluation, a seeded sampler for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.execution.config import NS, ExecutionConfig
from training.execution.streams import below, new_stream
from training.market.day import MarketDay
from training.market.orders import PARENT_DTYPE
from training.market.queues import kernel


@dataclass(frozen=True)
class ParentOrder:
    """One parent: `side` 1 buys and -1 sells `lots` on day index `day` from `start_ns` within `horizon_ns`."""

    day: int
    side: int
    lots: int
    start_ns: int
    horizon_ns: int

    def row(self) -> NDArray[np.void]:
        """This parent as a PARENT_DTYPE array of one row."""
        return np.array([(self.day, self.side, self.lots, self.start_ns, self.horizon_ns)], PARENT_DTYPE)


def parent_lots(day: MarketDay, config: ExecutionConfig) -> int:
    """Lots of a parent on `day`: `config.lots`, or `config.adv_fraction` of the mean volume of earlier days."""
    if config.lots is not None:
        return config.lots
    return max(1, round(config.adv_fraction * day.adv_lots))


def check_parents(days: Sequence[MarketDay], parents: NDArray[np.void], config: ExecutionConfig) -> None:
    """Refuse parents that a day cannot hold: InputError naming value, limit and day.

    A parent must be of a known side and positive, no larger than the day's volume, and start within a session window
    that has room for its horizon, the latency and the forced sweep; the book must have begun and must not end before.
    """
    unknown = (parents["day"] < 0) | (parents["day"] >= len(days))
    if unknown.any():
        raise InputError(f"parent on day index {parents['day'][unknown][0]}; there are {len(days)} days")
    known = {int(i): (days[i].volume_lots, first_start_ns(days[i])) for i in np.unique(parents["day"])}
    for parent in parents:
        day = days[int(parent["day"])]
        volume_lots, earliest = known[int(parent["day"])]
        where = f"{day.partition.instrument_id} {day.partition.date}"
        side, lots, start = int(parent["side"]), int(parent["lots"]), int(parent["start_ns"])
        if side not in (1, -1) or lots <= 0:
            raise InputError(f"parent side {side}, {lots} lots ({where}): side must be 1 or -1, lots positive")
        if lots > volume_lots:
            raise InputError(f"parent of {lots} lots exceeds the day's volume of {volume_lots} lots ({where})")
        end = start + int(parent["horizon_ns"]) + config.room_s * NS + _latency_ns(day, config)
        if not any(opens <= start and end <= closes for opens, closes in day.windows):
            closes = max((c for o, c in day.windows if o <= start), default=day.windows[0][1])
            raise InputError(
                f"parent from {start} ns with horizon {int(parent['horizon_ns']) / NS:g} s needs the market until "
                f"{end} ns, but its session window closes at {closes} ns ({where}): start earlier"
            )
        if start < earliest or end > int(day.book.ts_ns[-1]):
            raise InputError(
                f"parent from {start} to {end} ns lies outside the book of {where}, "
                f"{earliest} to {int(day.book.ts_ns[-1])} ns"
            )


def first_start_ns(day: MarketDay) -> int:
    """First time at which a two-sided book and a feature row are known."""
    both = (day.book.bid_sz[:, 0] > 0) & (day.book.ask_sz[:, 0] > 0)
    if not both.any():
        raise InputError(f"{day.partition.instrument_id} {day.partition.date}: no two-sided book all day")
    return max(int(day.book.ts_ns[int(np.argmax(both))]), int(day.feature_ns[0]))


def start_spans(day: MarketDay, config: ExecutionConfig) -> list[tuple[int, int, int]]:
    """`(open, first, last)` in ns for each session window with room: a parent may arrive from first to last."""
    spans = []
    earliest = first_start_ns(day)
    last_row = int(day.book.ts_ns[-1])
    for opens, closes in day.windows:
        first = max(opens + config.first_start_s * NS, earliest)
        last = min(closes, last_row) - config.horizon_ns - config.room_s * NS - _latency_ns(day, config)
        if first <= last:
            spans.append((opens, first, last))
    return spans


def parent_grid(days: Sequence[MarketDay], config: ExecutionConfig) -> NDArray[np.void]:
    """A buy and a sell every `start_every_s` from `first_start_s` of each window; PARENT_DTYPE, days in time order.

    Raises InputError where no day has room for one.
    """
    rows = []
    for index, day in enumerate(days):
        lots = parent_lots(day, config)
        for opens, first, last in start_spans(day, config):
            base, step = opens + config.first_start_s * NS, config.start_every_s * NS
            start = base + -(-(first - base) // step) * step
            for at in range(start, last + 1, step):
                rows += [(index, 1, lots, at, config.horizon_ns), (index, -1, lots, at, config.horizon_ns)]
    if not rows:
        raise InputError(f"no session window has room for a horizon of {config.horizon_s} s: shorten it")
    parents = np.array(rows, PARENT_DTYPE)
    check_parents(days, parents, config)
    return parents


class ParentTable(NamedTuple):
    """What `draw_parent` draws from; arrays are int64, K days with room among D, W spans a day."""

    days: NDArray[np.int64]  # (K,) indices of the days with room for a parent
    lots: NDArray[np.int64]  # (D,) size of a parent on each day
    first: NDArray[np.int64]  # (D, W) first arrival of each span, ns
    ends: NDArray[np.int64]  # (D, W) arrival seconds up to the end of each span, cumulative over the day
    horizon_ns: int


def parent_table(days: Sequence[MarketDay], config: ExecutionConfig) -> ParentTable:
    """The arrivals at which a parent fits, on every one of `days`; InputError where there is none."""
    spans = [start_spans(day, config) for day in days]
    usable = np.array([i for i, found in enumerate(spans) if found], np.int64)
    if not len(usable):
        raise InputError(f"no session window has room for a horizon of {config.horizon_s} s: shorten it")
    lots = np.array([parent_lots(day, config) for day in days], np.int64)
    width = max(len(found) for found in spans)
    first, seconds = np.zeros((len(days), width), np.int64), np.zeros((len(days), width), np.int64)
    for i, found in enumerate(spans):
        for j, (_, earliest, last) in enumerate(found):
            first[i, j], seconds[i, j] = earliest, (last - earliest) // NS + 1
    for i in usable:
        probe = ParentOrder(int(i), 1, int(lots[i]), int(first[i, 0]), config.horizon_ns)
        check_parents(days, probe.row(), config)
    return ParentTable(usable, lots, first, np.cumsum(seconds, axis=1), config.horizon_ns)


@kernel
def draw_parent(table, stream, parent):
    """Write a parent (PARENT_DTYPE) into `parent`: uniform over days, then over the day's arrival seconds, then sides.

    `stream (1,) uint64` moves on by three draws.
    """
    day = table.days[below(stream, len(table.days))]
    second = below(stream, table.ends[day, -1])
    span, before = 0, np.int64(0)
    while second >= table.ends[day, span]:
        before = table.ends[day, span]
        span += 1
    parent.day, parent.lots = day, table.lots[day]
    parent.start_ns = table.first[day, span] + (second - before) * NS
    parent.side = 2 * below(stream, 2) - 1
    parent.horizon_ns = table.horizon_ns


@kernel
def _draw_parents(table, stream, parents):
    for i in range(len(parents)):
        draw_parent(table, stream, parents[i])


def sample_parents(
    days: Sequence[MarketDay], config: ExecutionConfig, rng: np.random.Generator, count: int
) -> NDArray[np.void]:
    """`count` parents over `days`, PARENT_DTYPE, as environments draw them; `rng` in the same state gives the same."""
    parents = np.zeros(count, PARENT_DTYPE)
    _draw_parents(parent_table(days, config), new_stream(rng), parents)
    return parents


def _latency_ns(day: MarketDay, config: ExecutionConfig) -> int:
    return day.instrument.latency_ns if config.latency_ns is None else config.latency_ns
