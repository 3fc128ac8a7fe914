"""The days that episodes play on, laid end to end in a few arrays so that one compiled call reaches all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.market.fills import HEAD, MID2, TRADE_PX, TRADE_SIDE, TRADE_SZ

if TYPE_CHECKING:
    from training.market.day import MarketDay

DAY_DTYPE = np.dtype(
    [
        ("row_lo", np.int64),  # first book row of the day on the tape
        ("row_hi", np.int64),  # one past the last
        ("feature_lo", np.int64),
        ("feature_hi", np.int64),
        ("latency_ns", np.int64),
        ("next_row_arrival", np.int64),  # 1: an order meets the next row's time stamp (snapshot data)
    ]
)


class Tape(NamedTuple):
    """All days end to end; shared by every episode, never written.

    `ts (T,) int64`; `rows (T, 4 + 4 K) int32` as `fills` describes them, with twice the mid carried forward over
    one-sided states (0 before the first two-sided one); `feature_ns (M,) int64`, `features (M, F)`, `forecasts (M, H)`,
    `missing (M,)` float32; `days` DAY_DTYPE, one row per day.
    """

    ts: NDArray[np.int64]
    rows: NDArray[np.int32]
    depth: int
    feature_ns: NDArray[np.int64]
    features: NDArray[np.float32]
    forecasts: NDArray[np.float32]
    missing: NDArray[np.float32]
    days: NDArray[np.void]


def build_tape(days: Sequence["MarketDay"], latency_ns: int | None = None) -> Tape:
    """Lay `days` end to end; `latency_ns` replaces every instrument's own rule, that of snapshots too."""
    depth = max(day.book.bid_px.shape[1] for day in days)
    info = np.zeros(len(days), DAY_DTYPE)
    row, feature = 0, 0
    for i, day in enumerate(days):
        info[i]["row_lo"], info[i]["feature_lo"] = row, feature
        row += len(day.book.ts_ns)
        feature += len(day.feature_ns)
        info[i]["row_hi"], info[i]["feature_hi"] = row, feature
        info[i]["latency_ns"] = day.instrument.latency_ns if latency_ns is None else latency_ns
        info[i]["next_row_arrival"] = int(day.instrument.snapshot_data and latency_ns is None)
    return Tape(
        np.concatenate([day.book.ts_ns for day in days]).astype(np.int64),
        np.concatenate([_rows(day, depth) for day in days]),
        depth,
        np.concatenate([day.feature_ns for day in days]).astype(np.int64),
        np.ascontiguousarray(np.concatenate([day.features for day in days]), dtype=np.float32),
        np.ascontiguousarray(np.concatenate([day.forecasts for day in days]), dtype=np.float32),
        np.concatenate([day.forecast_missing for day in days]).astype(np.float32),
        info,
    )


def _rows(day: "MarketDay", depth: int) -> NDArray[np.int32]:
    book = day.book
    rows = np.zeros((len(book.ts_ns), HEAD + 4 * depth), np.int32)
    rows[:, TRADE_PX], rows[:, TRADE_SZ], rows[:, TRADE_SIDE] = book.trade_px, book.trade_sz, book.trade_side
    rows[:, MID2] = carried_mid2(book.bid_px[:, 0], book.bid_sz[:, 0], book.ask_px[:, 0], book.ask_sz[:, 0])
    for block, levels in enumerate((book.bid_px, book.bid_sz, book.ask_px, book.ask_sz)):
        start = HEAD + block * depth
        rows[:, start : start + levels.shape[1]] = levels
    return rows


def carried_mid2(
    bid_px: NDArray[np.int32], bid_sz: NDArray[np.int32], ask_px: NDArray[np.int32], ask_sz: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Twice the mid in ticks, `(T,) int64`, the last known one where a side is empty; 0 before the first."""
    two_sided = (bid_sz > 0) & (ask_sz > 0)
    last = np.maximum.accumulate(np.where(two_sided, np.arange(len(bid_px)), -1))
    mid2 = bid_px.astype(np.int64) + ask_px.astype(np.int64)
    return np.where(last >= 0, mid2[np.maximum(last, 0)], 0)
