"""How an instrument's volume usually spreads over its trading day, learned from earlier days only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book

BUCKET_NS = 300_000_000_000
"""Resolution of a curve: five minutes of trading time, breaks between session windows left out."""


@dataclass(frozen=True)
class DayVolume:
    """What one day traded: `lots (B,) int64` in each bucket of trading time; the last bucket may be a short one."""

    date: str
    lots: NDArray[np.int64]

    @classmethod
    def from_book(cls, date: str, book: Book, windows: Sequence[tuple[int, int]]) -> "DayVolume":
        """Count the trades of a book within the session windows `(open_ns, close_ns)`, closes included."""
        opens = np.array([start for start, _ in windows], np.int64)
        closes = np.array([end for _, end in windows], np.int64)
        before = np.concatenate([[0], np.cumsum(closes - opens)])  # trading time passed at each open
        traded = np.flatnonzero(book.trade_sz > 0)
        ts_ns = book.ts_ns[traded]
        where = np.searchsorted(opens, ts_ns, side="right") - 1
        inside = (where >= 0) & (ts_ns <= closes[np.maximum(where, 0)])
        where, ts_ns, traded = where[inside], ts_ns[inside], traded[inside]
        buckets = buckets_of(int(before[-1]))
        at = np.minimum((before[where] + ts_ns - opens[where]) // BUCKET_NS, buckets - 1)
        lots = np.zeros(buckets, np.int64)
        np.add.at(lots, at, book.trade_sz[traded].astype(np.int64))
        return cls(date, lots)


@dataclass(frozen=True)
class VolumeCurve:
    """The usual day: mean share of the volume in each bucket, `share (B,) float64` of sum 1, and mean daily volume."""

    share: NDArray[np.float64]
    daily_lots: float
    days: int  # earlier days behind it

    @classmethod
    def from_days(cls, days: Sequence[DayVolume], before: str) -> "VolumeCurve | None":
        """Curve for the session date `before` (ISO) from days earlier than it; None where none of them traded.

        Each day counts alike, whatever it traded; a day of another length (half day) counts by its place from the open.
        Raises InputError where a day is not earlier: its volume must not be known yet.
        """
        late = sorted(day.date for day in days if day.date >= before)
        if late:
            raise InputError(f"day {late[0]} is not earlier than {before}: its volume must not be known on that day")
        traded = [day for day in sorted(days, key=lambda day: day.date) if day.lots.sum() > 0]
        if not traded:
            return None
        buckets = max(len(day.lots) for day in traded)
        share = np.zeros(buckets)
        for day in traded:
            share[: len(day.lots)] += day.lots / day.lots.sum()
        daily = float(np.mean([int(day.lots.sum()) for day in traded]))
        return cls(share / len(traded), daily, len(traded))

    def cumulative(self, trading_ns: int) -> NDArray[np.float64]:
        """Share passed at the edges of the buckets of a day of `trading_ns`, `(B + 1,) float64` from 0 to 1.

        A shorter day than the usual one keeps its first buckets, scaled to sum 1; in a longer one nothing follows.
        """
        buckets = buckets_of(trading_ns)
        share = np.zeros(buckets)
        count = min(buckets, len(self.share))
        share[:count] = self.share[:count]
        total = share.sum()
        share = share / total if total > 0.0 else np.full(buckets, 1.0 / buckets)
        return np.minimum(np.concatenate([[0.0], np.cumsum(share)]), 1.0)


def buckets_of(trading_ns: int) -> int:
    """Buckets of a day with this much trading time: a short last one counts."""
    return max(1, -(-trading_ns // BUCKET_NS))
