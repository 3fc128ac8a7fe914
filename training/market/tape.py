"""The days that episodes play on, laid end to end in a few arrays so that one compiled call reaches all of them.

A row of the book is cut in two: what most rows are asked for (trade, mid, both best prices) lies in 32 bytes, the
deeper levels stand apart and are read where an own order or a sweep reaches them. An episode looks only at rows while
something of its own is in the market.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.leaves import LEAF_DTYPE
from training.market.impact_features import Reaction, no_reaction
from training.market.messages import EmptyDayError, NegativeSizeError, RangeError, TimeOrderError
from training.market.orders import FILL_MODELS
from training.market.queues import inlined, kernel

if TYPE_CHECKING:
    from training.market.day import MarketDay

EXPECTED, OPTIMISTIC, FIFO = (FILL_MODELS.index(name) for name in ("expected", "optimistic", "fifo"))

ROW_DTYPE = np.dtype(
    [
        ("trade_px", np.int32),  # ticks; 0 where the row is no trade
        ("trade_sz", np.int32),  # lots
        ("trade_side", np.int32),  # aggressor
        ("mid2", np.int32),  # twice the mid, carried over one-sided states; 0 before the first two-sided one
        ("bid_px", np.int32),  # best prices and their lots, 0 where a side is empty
        ("bid_sz", np.int32),
        ("ask_px", np.int32),
        ("ask_sz", np.int32),
    ]
)

DAY_DTYPE = np.dtype(
    [
        ("row_lo", np.int64),  # first book row of the day on the tape
        ("row_hi", np.int64),  # one past the last
        ("feature_lo", np.int64),
        ("feature_hi", np.int64),
        ("latency_ns", np.int64),
        ("next_row_arrival", np.int64),  # 1: an order meets the next row's time stamp (snapshot data)
        ("leaf_lo", np.int64),  # what left its queues, for the fill model fifo
        ("leaf_hi", np.int64),
        ("window_lo", np.int64),  # its session windows
        ("window_hi", np.int64),
        ("halt_lo", np.int64),  # its halts
        ("halt_hi", np.int64),
    ]
)


MOST_PRICE = 1 << 30
"""Ticks: twice a mid fits an int32."""


class CrossedSnapshotError(InputError):
    """A snapshot's best bid stands above its best ask."""


class NoQueuesError(InputError):
    """The fill model fifo on a day that is not known order by order."""


class Tape(NamedTuple):
    """All days end to end; shared by every episode, never written.

    `ts (T,) int64`; `rows (T,)` ROW_DTYPE; `deep (T, 4 (K - 1)) int32`: bid prices, bid lots, ask prices, ask lots of
    the levels behind the best, 0 where there is none; `feature_ns (M,) int64`, `features (M, F)`, `forecasts (M, H)`,
    `missing (M,)` float32; `days` DAY_DTYPE, one row per day; `windows (W, 2)`, `halts (H, 2)` int64 ns, from and to
    (exclusive); `leaves (L,)` LEAF_DTYPE, their `row` counted on the tape, empty unless `model` is FIFO; `reaction` is
    the impact of own trades, the one part that episodes write.
    """

    ts: NDArray[np.int64]
    rows: NDArray[np.void]
    deep: NDArray[np.int32]
    depth: int
    feature_ns: NDArray[np.int64]
    features: NDArray[np.float32]
    forecasts: NDArray[np.float32]
    missing: NDArray[np.float32]
    days: NDArray[np.void]
    windows: NDArray[np.int64]
    halts: NDArray[np.int64]
    leaves: NDArray[np.void]
    model: int
    reaction: Reaction

    @property
    def bytes_per_row(self) -> float:
        """Resident bytes of book and queues over the rows of the book."""
        return float(self.ts.nbytes + self.rows.nbytes + self.deep.nbytes + self.leaves.nbytes) / max(1, len(self.ts))


def build_tape(days: Sequence["MarketDay"], latency_ns: int | None = None, fill_model: str = "conservative") -> Tape:
    """Lay `days` end to end; `latency_ns` replaces every instrument's own rule, that of snapshots too.

    Raises, each an InputError naming the day: EmptyDayError, TimeOrderError, NegativeSizeError, RangeError,
    CrossedSnapshotError (of snapshots; quotes that cross for a moment are taken as the vendor told them),
    NoQueuesError.
    """
    if fill_model not in FILL_MODELS:
        raise InputError(f"fill model {fill_model!r} is not one of {', '.join(FILL_MODELS)}")
    if not days:
        raise InputError("the market engine needs at least one day, got none")
    for day in days:
        _require_sound(day)
    depth = max(day.book.bid_px.shape[1] for day in days)
    info = np.zeros(len(days), DAY_DTYPE)
    leaves = [_leaves(day, fill_model) for day in days]
    for name, lengths in (
        ("row", [len(day.book.ts_ns) for day in days]),
        ("feature", [len(day.feature_ns) for day in days]),
        ("leaf", [len(found) for found in leaves]),
        ("window", [len(day.windows) for day in days]),
        ("halt", [len(day.halts) for day in days]),
    ):
        ends = np.cumsum(lengths)
        info[f"{name}_lo"], info[f"{name}_hi"] = ends - lengths, ends
    for i, day in enumerate(days):
        info[i]["latency_ns"] = day.instrument.latency_ns if latency_ns is None else latency_ns
        info[i]["next_row_arrival"] = int(day.instrument.snapshot_data and latency_ns is None)
        leaves[i]["row"] += info[i]["row_lo"]
    return Tape(
        np.concatenate([day.book.ts_ns for day in days]).astype(np.int64),
        np.concatenate([_rows(day) for day in days]),
        np.concatenate([_deep(day, depth) for day in days]),
        depth,
        np.concatenate([day.feature_ns for day in days]).astype(np.int64),
        np.ascontiguousarray(np.concatenate([day.features for day in days]), dtype=np.float32),
        np.ascontiguousarray(np.concatenate([day.forecasts for day in days]), dtype=np.float32),
        np.concatenate([day.forecast_missing for day in days]).astype(np.float32),
        info,
        np.concatenate([np.array(day.windows, np.int64).reshape(-1, 2) for day in days]),
        np.concatenate([day.halts.reshape(-1, 2) for day in days]),
        np.concatenate(leaves),
        FILL_MODELS.index(fill_model),
        no_reaction(),
    )


def _require_sound(day: "MarketDay") -> None:
    """Refuse a book that no market had."""
    book, name = day.book, f"{day.partition.instrument_id} {day.partition.date}"
    if not len(book.ts_ns):
        raise EmptyDayError(f"{name}: empty day, no row of a book; leave this day out")
    behind = np.flatnonzero(book.ts_ns[1:] < book.ts_ns[:-1])
    if len(behind):
        row = int(behind[0]) + 1
        raise TimeOrderError(f"{name}: time runs backwards at book row {row}; build features again")
    for what in ("bid_sz", "ask_sz", "trade_sz"):
        lowest = int(getattr(book, what).min())
        if lowest < 0:
            raise NegativeSizeError(f"{name}: {what} of {lowest} lots is negative; build features again")
    highest = max(int(book.bid_px.max()), int(book.ask_px.max()))
    if highest >= MOST_PRICE:
        raise RangeError(f"{name}: a price of {highest} ticks exceeds {MOST_PRICE - 1}; take a larger tick")
    if day.instrument.snapshot_data:
        crossed = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0) & (book.bid_px[:, 0] > book.ask_px[:, 0])
        if crossed.any():
            row = int(np.argmax(crossed))
            raise CrossedSnapshotError(
                f"{name}: crossed snapshot at row {row}, bid {book.bid_px[row, 0]} above ask {book.ask_px[row, 0]} "
                f"ticks ({int(crossed.sum())} in all); clean the events first"
            )


def _leaves(day: "MarketDay", fill_model: str) -> NDArray[np.void]:
    if fill_model != "fifo":
        return np.zeros(0, LEAF_DTYPE)
    if day.leaves is None:
        raise NoQueuesError(
            f"{day.partition.instrument_id} {day.partition.date}: fill model fifo needs data order by order; "
            "take expected, conservative or optimistic"
        )
    return day.leaves.astype(LEAF_DTYPE, copy=True)


def _rows(day: "MarketDay") -> NDArray[np.void]:
    book = day.book
    rows = np.zeros(len(book.ts_ns), ROW_DTYPE)
    rows["trade_px"], rows["trade_sz"], rows["trade_side"] = book.trade_px, book.trade_sz, book.trade_side
    for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"):
        rows[name] = getattr(book, name)[:, 0]
    rows["mid2"] = carried_mid2(rows["bid_px"], rows["bid_sz"], rows["ask_px"], rows["ask_sz"])
    return rows


def _deep(day: "MarketDay", depth: int) -> NDArray[np.int32]:
    book, behind = day.book, depth - 1
    deep = np.zeros((len(book.ts_ns), 4 * behind), np.int32)
    for block, levels in enumerate((book.bid_px, book.bid_sz, book.ask_px, book.ask_sz)):
        deep[:, block * behind : block * behind + levels.shape[1] - 1] = levels[:, 1:]
    return deep


def carried_mid2(
    bid_px: NDArray[np.int32], bid_sz: NDArray[np.int32], ask_px: NDArray[np.int32], ask_sz: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Twice the mid in ticks, `(T,) int64`, the last known one where a side is empty; 0 before the first."""
    two_sided = (bid_sz > 0) & (ask_sz > 0)
    last = np.maximum.accumulate(np.where(two_sided, np.arange(len(bid_px)), -1))
    mid2 = bid_px.astype(np.int64) + ask_px.astype(np.int64)
    return np.where(last >= 0, mid2[np.maximum(last, 0)], 0)


# What compiled code asks of a tape ------------------------------------------------------------------------------------


@inlined
def best_prices(tape, state):
    """Own price, own size, opposite price, opposite size at the best in the state that the episode sees now."""
    row = tape.rows[state.row]
    bid_px = np.int64(row.bid_px) + (state.shift if row.bid_sz > 0 else 0)
    ask_px = np.int64(row.ask_px) + (state.shift if row.ask_sz > 0 else 0)
    if state.side > 0:
        return bid_px, np.int64(row.bid_sz), ask_px, np.int64(row.ask_sz)
    return ask_px, np.int64(row.ask_sz), bid_px, np.int64(row.bid_sz)


@inlined
def mid2_now(tape, state):
    """Twice the mid in ticks in the state that the episode sees now; the last known one where a side is empty."""
    return np.int64(tape.rows[state.row].mid2) + 2 * state.shift


@inlined
def level(tape, row, side, k):
    """Price and lots of level `k` of the bids (`side` 1) or the asks (-1)."""
    if k == 0:
        best = tape.rows[row]
        if side > 0:
            return np.int64(best.bid_px), np.int64(best.bid_sz)
        return np.int64(best.ask_px), np.int64(best.ask_sz)
    behind = tape.depth - 1
    at = k - 1 if side > 0 else 2 * behind + k - 1
    return np.int64(tape.deep[row, at]), np.int64(tape.deep[row, at + behind])


@inlined
def level_size(tape, row, side, price):
    """Lots at `price` of the bids (`side` 1) or asks (-1); 0 where none show, -1 where it lies beyond what shows."""
    for k in range(tape.depth):
        px, size = level(tape, row, side, k)
        if size <= 0:
            break
        away = side * (price - px)
        if away == 0:
            return size
        if away > 0:
            return np.int64(0)
    return np.int64(-1)


@kernel
def largest_level(tape, row, side):
    """Largest displayed size of a side, 0 where the side is empty: the queue assumed at a price that is not visible."""
    largest = np.int64(0)
    for k in range(tape.depth):
        largest = max(largest, level(tape, row, side, k)[1])
    return largest


@kernel
def mean_level(tape, row, side):
    """Mean displayed lots per visible level, at least 1: the size of every level assumed beyond the visible ones."""
    total, count = np.int64(0), np.int64(0)
    for k in range(tape.depth):
        size = level(tape, row, side, k)[1]
        if size > 0:
            total += size
            count += 1
    return max(np.int64(1), total // count) if count > 0 else np.int64(1)


@inlined
def last_row(ts, row, end, stop_ns):
    """Last row before `end` stamped at or before `stop_ns`, `row` at least: searched from `row` on, for it is near."""
    step = 1
    low = row
    while low + step < end and ts[low + step] <= stop_ns:
        low += step
        step *= 2
    high = min(end, low + step)  # the row sought lies in [low, high)
    while high - low > 1:
        middle = (low + high) >> 1
        if ts[middle] <= stop_ns:
            low = middle
        else:
            high = middle
    return low


@inlined
def halted(tape, state, ts_ns):
    """Whether trading stood still at `ts_ns`."""
    day = tape.days[state.day]
    for i in range(day.halt_lo, day.halt_hi):  # noqa: SIM110 - compiled code has no generators
        if tape.halts[i, 0] <= ts_ns < tape.halts[i, 1]:
            return True
    return False
