"""One symbol as the feed tells it: the book's rows, the features of training from the same kernel, and what is known.

Rows are those of `feature_repo.pipeline.books`, so that `FeatureState` gives bit for bit what training computed for the
day. After a gap, or a start within the session, features that look back over it are not to be trusted: for
`WINDOW_BARS` bars there are none.
"""

from bisect import bisect_right
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.kernels import FEATURES, NS, SIGNAL_V1, WINDOW_BARS, FeatureState
from feature_repo.ticks.instruments import Instrument
from serving.wire.feed import Snapshot, Status, SymbolStatus, Update
from serving.wire.feed_state import Book

HISTORY_NS = 120 * NS
"""Rows older than this are forgotten: longer than any report is late."""
HISTORY_ROWS = 50_000
VECTORS_KEPT = 512
_V1 = np.array([FEATURES.index(name) for name in SIGNAL_V1])


class Row(NamedTuple):
    """The visible book after an event; `levels (4, K) int32`: bid prices, bid lots, ask prices, ask lots."""

    ts_ns: int
    levels: NDArray[np.int32]
    trade_ticks: int
    trade_lots: int
    trade_side: int
    mid2: int  # twice the mid, the last known one where a side is empty; 0 before the first

    def best(self, side: int) -> tuple[int, int, int, int]:
        """Own price, own lots, opposite price, opposite lots of somebody who buys (1) or sells (-1)."""
        bid, ask = (int(self.levels[0, 0]), int(self.levels[1, 0])), (int(self.levels[2, 0]), int(self.levels[3, 0]))
        return (*bid, *ask) if side > 0 else (*ask, *bid)

    def opposite(self, side: int) -> list[tuple[int, int]]:
        """The levels that somebody of this side can take: price and lots, best first."""
        prices, lots = (self.levels[2], self.levels[3]) if side > 0 else (self.levels[0], self.levels[1])
        return [(int(price), int(size)) for price, size in zip(prices, lots, strict=True) if size > 0]


class Vector(NamedTuple):
    """Features at the end of a bar."""

    ts_ns: int
    values: NDArray[np.float32]  # (F,) all features
    valid: bool  # the book had two sides that neither crossed nor locked


class Features(NamedTuple):
    """What a decision may see: the last valid features at or before it."""

    ts_ns: int
    market: NDArray[np.float32]  # (16,) SIGNAL_V1


def session_of(instrument: Instrument, ts_ns: int) -> tuple[str, list[tuple[int, int]]]:
    """The session date that a moment belongs to, and its windows: the first that is not over. Raises InputError."""
    day = datetime.fromtimestamp(ts_ns // NS, UTC).date()
    evenings = any(window.days_before for window in instrument.windows)
    for offset in range(-1, 8):
        found = day + timedelta(days=offset)
        if evenings and found.weekday() >= 5:
            continue  # what opens on the evening before belongs to the next weekday
        windows = instrument.session_ns(found.isoformat())
        if windows and windows[-1][1] > ts_ns:
            return found.isoformat(), windows
    raise InputError(f"{instrument.instrument_id}: no session within a week of {ts_ns} ns")


class SymbolMarket:
    """Follows one symbol. Feed it in order; `advance` says that all up to a moment has been told."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.book: Book | None = None  # None: unknown
        self.status: Status = "unknown"
        self.date = ""
        self.now_ns = 0
        self.rows: deque[Row] = deque()
        self.first = 0  # number of rows[0], counted from the first row ever
        self.gaps = 0
        self.is_late = False  # the feed lags: the book is one of some time ago, and nobody acts on it
        self.unknown_since_ns = 0
        self._windows: list[tuple[int, int]] = []
        self._features: FeatureState | None = None
        self._due: deque[tuple[int, bool]] = deque()  # moments at which a window opens (True) or a bar ends
        self._next_window = 0
        self._floor_ns = 0  # rows are due from here on: what came later than its bar counts at the next moment
        self._known_ns = 0  # unbroken knowledge since
        self._vectors: deque[Vector] = deque(maxlen=VECTORS_KEPT)
        self._statuses: list[tuple[int, Status]] = []

    @property
    def is_known(self) -> bool:
        """The book is known now, unless a gap is."""
        return self.book is not None

    @property
    def last(self) -> Row | None:
        """The present book; None where it is not known, or was told too late to be the present one."""
        return self.rows[-1] if self.rows and self.book is not None and not self.is_late else None

    @property
    def row_count(self) -> int:
        """Rows so far."""
        return self.first + len(self.rows)

    def window_of(self, ts_ns: int) -> tuple[int, int] | None:
        """The session window that a moment lies in."""
        return next(((opens, closes) for opens, closes in self._windows if opens <= ts_ns < closes), None)

    def snapshot(self, message: Snapshot) -> None:
        """The symbol as a whole: what came before it may have been missed."""
        book = Book()
        book.bids, book.asks, book.volume_lots = dict(message.bids), dict(message.asks), message.volume_lots
        known = self.book is not None
        self.book = book
        self._turn(message.ts_ns, message.status)
        if not known:
            self._known_ns = max(message.ts_ns, self.now_ns)
        if message.ts_ns > 0 or message.bids or message.asks:
            self._row(message.ts_ns, 0, 0, 0)

    def update(self, message: Update) -> None:
        """The next change of the book."""
        if self.book is None:
            return
        self.book.apply(message)
        self._row(message.ts_ns, message.trade_ticks, message.trade_lots, message.trade_side)

    def turn(self, message: SymbolStatus) -> None:
        """Trading opened, halted or closed."""
        self._turn(message.ts_ns, message.status)

    def lose(self) -> None:
        """A gap: nothing is known until the next snapshot."""
        if self.book is not None:
            self.gaps += 1
            self.unknown_since_ns = self.now_ns
        self.book = None
        self.status = "unknown"

    def advance(self, now_ns: int) -> None:
        """All that happened up to `now_ns` has been told: bars that have ended are closed."""
        self.now_ns = max(self.now_ns, now_ns)
        self._close_bars(now_ns, through=True)

    def row_at(self, ts_ns: int) -> Row | None:
        """The last row stamped at or before a moment; None where it is not remembered."""
        at = self.place_at(ts_ns)
        return None if at < self.first else self.rows[at - self.first]

    def place_at(self, ts_ns: int) -> int:
        """Number of the last row stamped at or before a moment; one less than `first` where none is."""
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            if self.rows[middle].ts_ns <= ts_ns:
                low = middle + 1
            else:
                high = middle
        return self.first + low - 1

    def halted_at(self, ts_ns: int) -> bool:
        """Whether trading stood still."""
        at = bisect_right(self._statuses, (ts_ns, "~")) - 1
        return at >= 0 and self._statuses[at][1] in ("halted", "auction")

    def features_at(self, ts_ns: int) -> Features | None:
        """The last valid features at or before a moment; None where there are none that may be trusted."""
        for vector in reversed(self._vectors):
            if vector.ts_ns <= ts_ns:
                if not self._trusted(vector.ts_ns):
                    return None
                if vector.valid:
                    return Features(vector.ts_ns, vector.values[_V1])
        return None

    def feature_rows(self, ts_ns: int, names: tuple[str, ...], count: int) -> NDArray[np.float32] | None:
        """The last `count` rows `(count, len(names)) float32` up to the valid row in force at `ts_ns`.

        None unless they are valid, a second apart, of one session window and to be trusted: as training asks it.
        """
        found = [vector for vector in self._vectors if vector.ts_ns <= ts_ns]
        while found and not found[-1].valid:
            found.pop()
        found = found[-count:]
        if len(found) < count or not all(vector.valid for vector in found):
            return None
        steps = {b.ts_ns - a.ts_ns for a, b in zip(found, found[1:], strict=False)}
        window = next(((o, c) for o, c in self._windows if o <= found[-1].ts_ns <= c), None)
        if steps - {NS} or window is None or found[0].ts_ns < window[0] or not self._trusted(found[0].ts_ns):
            return None
        columns = [FEATURES.index(name) for name in names]
        return np.stack([vector.values[columns] for vector in found]).astype(np.float32)

    def _trusted(self, ts_ns: int) -> bool:
        """Whether nothing was missed that the features of a moment look back to."""
        if self.book is None:
            return False
        opens = next((opens for opens, closes in self._windows if opens <= ts_ns <= closes), None)
        if opens is not None and self._known_ns <= opens:
            return True
        return ts_ns - self._known_ns >= WINDOW_BARS * NS

    def _turn(self, ts_ns: int, status: Status) -> None:
        self.status = status
        if not self._statuses or self._statuses[-1][1] != status:
            self._statuses.append((max(ts_ns, self._statuses[-1][0] if self._statuses else 0), status))
            del self._statuses[:-256]

    def _row(self, ts_ns: int, trade_ticks: int, trade_lots: int, trade_side: int) -> None:
        assert self.book is not None
        self._roll(ts_ns)
        self._close_bars(ts_ns, through=False)
        ts_ns = max(ts_ns, self._floor_ns)
        self.now_ns = max(self.now_ns, ts_ns)
        depth = self.instrument.depth
        levels = np.zeros((4, depth), np.int32)
        for place, side in zip((0, 2), self.book.levels(depth), strict=True):
            for k, (price, lots) in enumerate(side):
                levels[place, k], levels[place + 1, k] = price, lots
        mid2 = self.rows[-1].mid2 if self.rows else 0
        if levels[1, 0] > 0 and levels[3, 0] > 0:
            mid2 = int(levels[0, 0]) + int(levels[2, 0])
        self.rows.append(Row(ts_ns, levels, trade_ticks, trade_lots, trade_side, mid2))
        while len(self.rows) > HISTORY_ROWS or (len(self.rows) > 1 and self.rows[1].ts_ns < ts_ns - HISTORY_NS):
            self.rows.popleft()
            self.first += 1
        if self._features is not None:
            self._features.on_row(ts_ns, levels, trade_lots, trade_side)

    def _roll(self, ts_ns: int) -> None:
        """Begin a new day where the present one is over."""
        if self._windows and ts_ns <= self._windows[-1][1]:
            return
        day, windows = session_of(self.instrument, ts_ns)
        if day == self.date:
            return
        self.date, self._windows, self._next_window = day, windows, 0
        self._features = FeatureState(windows, self.instrument.depth)
        self._vectors.clear()
        self._due = deque([(windows[0][0], True)])
        self._floor_ns = 0
        for _, closes in windows:  # windows that are over: nothing of them is known
            if closes < ts_ns:
                self._skip_to(closes)

    def _skip_to(self, ts_ns: int) -> None:
        self._close_bars(ts_ns, through=True)

    def _close_bars(self, ts_ns: int, *, through: bool) -> None:
        """Close what ends before `ts_ns`, or with `through` at it: its rows have all come."""
        features = self._features
        while features is not None and self._due:
            moment, opening = self._due[0]
            if moment > ts_ns or (moment == ts_ns and not through):
                return
            self._due.popleft()
            opens, closes = self._windows[self._next_window if opening else self._next_window - 1]
            if opening:
                features.open_window()
                self._next_window += 1
            else:
                values, valid = features.close_bar(moment)
                self._vectors.append(Vector(moment, values, bool(valid) and bool(np.isfinite(values[_V1]).all())))
            self._floor_ns = moment + 1
            if moment + NS <= closes:
                self._due.append((moment + NS, False))
            elif self._next_window < len(self._windows):
                self._due.append((self._windows[self._next_window][0], True))
