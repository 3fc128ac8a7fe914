"""What the gate must know of a partition's book, built batch by batch by the kernel that builds it for features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.pipeline import book_ladder as ladder
from feature_repo.pipeline.book_kernel import replay, settle
from feature_repo.pipeline.books import MAX_PRICE_LEVELS, counts_of, fault
from feature_repo.ticks.schema import Flag, Kind

BINS = 256
HISTOGRAMS: tuple[str, ...] = ("size", "trade_size", "step", "price", "spread")
"""Distributions: lots quoted and traded, ns between instants, mid in ticks, spread in ticks."""

_REPLAYED = ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id", "flags")
_BOOK_SIZED = [int(kind) for kind in (Kind.QUOTE, Kind.ADD, Kind.DEPTH, Kind.LEVEL)]
_NAMING = [int(kind) for kind in (Kind.CANCEL, Kind.REPLACE)]
_MOVING = [int(kind) for kind in (Kind.ADD, Kind.CANCEL, Kind.REPLACE, Kind.DEPTH)]


def bins_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bin of each value `(n,)`: four to each doubling from 1 on, so that a change of scale moves the bin; 0 below 1."""
    positive = values > 0
    found = 1 + np.floor(4.0 * np.log2(np.where(positive, values, 1).astype(np.float64)) + 1e-9).astype(np.int64)
    return np.where(positive, np.minimum(found, BINS - 1), 0)


class BookScan:
    """Takes a partition's events in batches and counts; holds one batch and one book, never the day.

    An instant is all rows of the book with one time stamp: a book may cross between the events of one message, and is
    judged when the instant is over.
    """

    def __init__(self, windows_ns: list[tuple[int, int]], depth: int) -> None:
        """Start before the first event; `windows_ns` are the session windows, `depth` the levels a side."""
        self._windows = windows_ns
        self._state = ladder.new_state(depth)
        self._depth = depth
        self._fault = ""
        self._waiting = np.zeros(0, np.int64)  # time, bid, its lots, ask, its lots of the instant that is not over
        self._last_ns: int | None = None
        self._order_prices: tuple[int, int] | None = None
        self._counts = dict.fromkeys(("instants", "known", "positive", "crossed", "deep", "naming", "moving"), 0)
        self.histograms = {name: np.zeros(BINS, np.int64) for name in HISTOGRAMS}

    def add(self, batch: dict[str, NDArray[Any]]) -> None:
        """Take the next events in file order (columns of EVENT_SCHEMA)."""
        self._tally(batch)
        if self._fault:
            return
        columns = []
        for name in _REPLAYED:  # read-only like those of `build_book`: one type, compiled once
            values = batch[name].view()
            values.flags.writeable = False
            columns.append(values)
        most, taken, rows = len(columns[0]) + 1, 0, 0
        levels = [np.empty((most, self._depth), np.int32) for _ in range(4)]
        times = np.empty(most, np.int64)
        trades = [np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int8)]
        out: tuple[Any, ...] = (times, *levels, *trades)
        while True:
            arguments: tuple[Any, ...] = (*self._state, *columns, taken, out, rows)
            taken, rows = replay(*arguments)
            if taken == len(columns[0]) or self._state.memory[ladder.FAULT]:
                break
            self._state = ladder.with_room(self._state)
        self._fault = fault(self._state.memory)
        bid_px, bid_sz, ask_px, ask_sz = (side[:rows, 0].astype(np.int64) for side in levels)
        self._judge(np.stack([times[:rows], bid_px, bid_sz, ask_px, ask_sz], axis=1))

    def close(self) -> dict[str, Any]:
        """End of the file: shares and counts of the book, None where there is nothing to share."""
        if settle(self._state.memory, self._state.visible, np.iinfo(np.int64).max, int(Kind.HALT)):
            self._judge(np.array([[self._state.memory[ladder.ROW_TS], 0, 0, 0, 0]], np.int64))
        self._count(self._waiting.reshape(-1, 5))
        counts, seen = counts_of(self._state.memory), self._counts
        return {
            "book_fault": self._fault or self._order_range(),
            "book_known_share": _share(seen["known"], seen["instants"]),
            "positive_spread_share": _share(seen["positive"], seen["known"]),
            "crossed_share": _share(seen["crossed"], seen["known"]),
            "positive_depth_share": _share(seen["deep"], seen["known"]),
            "holes": counts.gaps,
            "unwhole_share": _share(counts.unwhole, seen["moving"]),
            "unknown_order_share": _share(counts.unknown_order, seen["naming"]),
            "quote_agreement_share": _share(counts.quotes_equal, counts.quotes_compared),
        }

    def _judge(self, rows: NDArray[np.int64]) -> None:
        """Count the instants that are over; the last one may go on in the next batch."""
        rows = np.concatenate([self._waiting.reshape(-1, 5), rows])
        if not len(rows):
            return
        last = np.append(rows[1:, 0] != rows[:-1, 0], True)
        instants = rows[last]
        self._count(instants[:-1])
        self._waiting = instants[-1]

    def _count(self, instants: NDArray[np.int64]) -> None:
        _, bid, bid_lots, ask, ask_lots = instants.T
        known = (bid > 0) & (ask > 0)
        bid, ask = bid[known], ask[known]
        self._counts["instants"] += len(instants)
        self._counts["known"] += len(bid)
        self._counts["positive"] += int((ask > bid).sum())
        self._counts["crossed"] += int((ask < bid).sum())
        self._counts["deep"] += int(((bid_lots > 0) & (ask_lots > 0))[known].sum())
        self._put("spread", ask - bid)
        self._put("price", (bid + ask) // 2)

    def _tally(self, batch: dict[str, NDArray[Any]]) -> None:
        """Sizes, steps, and events by what they ask of the book."""
        ts, kind, size, flags = (batch[name] for name in ("ts_event_ns", "kind", "size", "flags"))
        sized = (size > 0) & ((flags & int(Flag.NO_SIZE)) == 0)
        best = (kind != int(Kind.LEVEL)) | ((flags & int(Flag.LEVEL_MASK)) == 0)
        self._put("size", size[sized & best & np.isin(kind, _BOOK_SIZED)])
        traded = kind == int(Kind.TRADE)
        self._put("trade_size", size[sized & traded])
        named = traded & (batch["order_id"] != 0) & ((flags & int(Flag.HIDDEN)) == 0)
        self._counts["naming"] += int((named | np.isin(kind, _NAMING)).sum())
        self._counts["moving"] += int(np.isin(kind, _MOVING).sum())
        resting = batch["price_ticks"][np.isin(kind, [int(Kind.ADD), int(Kind.REPLACE)])]
        if len(resting):
            known = self._order_prices or (int(resting[0]), int(resting[0]))
            self._order_prices = min(known[0], int(resting.min())), max(known[1], int(resting.max()))
        whole = ts if self._last_ns is None else np.concatenate([[self._last_ns], ts])
        moments = whole[np.append(True, whole[1:] != whole[:-1])]
        for opens, closes in self._windows:  # a step over a break says nothing of the feed
            self._put("step", np.diff(moments[(moments >= opens) & (moments < closes)]))
        self._last_ns = int(ts[-1])

    def _order_range(self) -> str:
        low, high = self._order_prices or (0, 0)
        return f"orders rest from {low} to {high} ticks" if high - low >= MAX_PRICE_LEVELS else ""

    def _put(self, name: str, values: NDArray[np.int64]) -> None:
        self.histograms[name] += np.bincount(bins_of(values), minlength=BINS)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
