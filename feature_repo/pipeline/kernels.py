"""Features of a day in one go and one row at a time: both run the compiled kernels of `feature_kernel`.

A book row updates a small state; the end of a bar turns the state into the feature vector. The batch function and
`FeatureState` call the same two compiled functions, so their values agree bit for bit. `definitions` says what each
feature is. Windows are the last 1, 10 or 60 bars of the present session window, fewer after its open; the book itself
persists over breaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline import feature_kernel as kernel
from feature_repo.pipeline.books import Book
from feature_repo.pipeline.definitions import DEFINITIONS, FEATURE_UNITS, FEATURES, SIGNAL_V1, Feature
from feature_repo.pipeline.microprice import MicropriceTable, default_table
from feature_repo.pipeline.volume_curve import BUCKET_NS, VolumeCurve

__all__ = [
    "DEFINITIONS", "FEATURES", "FEATURE_UNITS", "FEATURE_WINDOW_NS", "NS", "SIGNAL_V1", "WINDOW_BARS",
    "Feature", "FeatureState", "Grid", "compute_features",
]  # fmt: skip

NS = kernel.NS
WINDOW_BARS = kernel.WINDOW_BARS
FEATURE_WINDOW_NS = WINDOW_BARS * NS
"""Longest look-back of SIGNAL_V1 on the time grid. Hawkes intensities and VPIN fade more slowly, but all flows are
forgotten at a session window's open: no feature but the volume curve knows anything of the day before."""

NEVER_NS = int(np.iinfo(np.int64).max)
_KINDS = {"time": kernel.TIME_GRID, "event": kernel.EVENT_GRID, "volume": kernel.VOLUME_GRID}


@dataclass(frozen=True)
class Grid:
    """When a bar ends and a feature vector is due; windows of features count bars.

    | kind | a bar ends | stamp |
    | --- | --- | --- |
    | time | every `step` seconds after a session window's open | that second |
    | event | with every `step`-th book row, trades included | the row's; bars of equal stamps follow one another |
    | volume | with the row that brings the bar's traded lots to `step` or more | the row's |

    No bar spans a session break: what is unfinished at a window's close is dropped. Raises InputError where the kind is
    unknown or `step` is below 1.
    """

    kind: Literal["time", "event", "volume"] = "time"
    step: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"grid {self.kind!r} is unknown; there are: {', '.join(_KINDS)}")
        if self.step < 1:
            raise InputError(f"grid step {self.step} is below 1")


class _Prepared:
    """What the kernels need beside the book rows: state, ring, microprice table and volume curve of one day."""

    def __init__(
        self,
        windows: Sequence[tuple[int, int]],
        depth: int,
        earlier: VolumeCurve | None,
        grid: Grid,
        microprice: MicropriceTable | None,
    ) -> None:
        before = 0
        for opens, closes in windows:
            if closes <= opens or opens < before:
                raise InputError(
                    f"session window {opens} to {closes} ns has no length, or starts before {before} ns, the end of "
                    "the one before it; mend the instrument's windows"
                )
            before = closes
        if depth < 1:
            raise InputError(f"a book of {depth} levels has no best price")
        trading_ns = sum(closes - opens for opens, closes in windows)
        self.state = np.zeros(kernel.BOOK + 4 * depth)
        self.state[kernel.GRID], self.state[kernel.STEP] = _KINDS[grid.kind], grid.step
        self.state[kernel.TRADING] = trading_ns
        if earlier is not None:
            self.state[kernel.USUAL_LOTS], self.state[kernel.USUAL_BUCKETS] = earlier.daily_lots, trading_ns / BUCKET_NS
            self.state[kernel.VPIN_NEXT] = max(1.0, np.ceil(earlier.daily_lots / kernel.BUCKETS_A_DAY))
        self.ring = np.zeros((kernel.BARS_AND_SUMS, kernel.COLUMNS))
        self.table = np.ascontiguousarray((microprice or default_table()).adjustment)
        self.curve = np.zeros(2) if earlier is None else earlier.cumulative(trading_ns)


def compute_features(
    book: Book,
    windows: Sequence[tuple[int, int]],
    earlier: VolumeCurve | None = None,
    grid: Grid = Grid(),
    microprice: MicropriceTable | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int8]]:
    """Features of a day at the end of each bar of `grid`; on the default one, of every whole second after an open.

    `windows` are the session windows `(open_ns, close_ns)` in time order, int64 UTC; `earlier` is the volume curve and
    `microprice` the table of earlier days, None where there are none. Gives `ts_ns (N,) int64`, features `(N, F)
    float32` in the order of FEATURES, and `book_valid (N,) int8`. A row at t has seen book rows up to t only. Raises
    InputError where a window has no length.
    """
    made = _Prepared(windows, book.depth, earlier, grid, microprice)
    opens = np.array([start for start, _ in windows], np.int64)
    closes = np.array([end for _, end in windows], np.int64)
    bars = _most_bars(book, opens, closes, grid)
    stamps, features = np.zeros(bars, np.int64), np.zeros((bars, len(FEATURES)), np.float32)
    valid = np.zeros(bars, np.int8)
    rows = (book.ts_ns, book.bid_px, book.bid_sz, book.ask_px, book.ask_sz, book.trade_sz, book.trade_side)
    run = kernel.run_time_grid if grid.kind == "time" else kernel.run_row_grid
    done = run(made.state, made.ring, made.table, made.curve, rows, opens, closes, stamps, features, valid)
    return stamps[:done], features[:done], valid[:done]


def _most_bars(book: Book, opens: NDArray[np.int64], closes: NDArray[np.int64], grid: Grid) -> int:
    """Bars that the day can have at most."""
    if grid.kind == "time":
        return int(((closes - opens) // (grid.step * NS)).sum())
    if grid.kind == "event":
        return len(book) // grid.step
    return min(len(book), int(book.trade_sz.astype(np.int64).sum()) // grid.step)


class FeatureState:
    """The same features one book row at a time, for serving.

    Call `open_window` when a session window opens, after all rows stamped up to and including the open; `on_row` for
    each row; `close_bar` when a bar ends: on the time grid at its second, after all rows up to and including it, on the
    other grids at the row's stamp where `on_row` says so.
    """

    def __init__(
        self,
        windows: Sequence[tuple[int, int]],
        depth: int,
        earlier: VolumeCurve | None = None,
        grid: Grid = Grid(),
        microprice: MicropriceTable | None = None,
    ) -> None:
        """Start before the day's first row; arguments as of `compute_features`, for books of `depth` levels a side."""
        made = _Prepared(windows, depth, earlier, grid, microprice)
        self._state, self._ring, self._table, self._curve = made.state, made.ring, made.table, made.curve
        self._windows, self._opened, self._shape = tuple(windows), 0, (4, depth)
        self._on_the_second = grid.kind == "time"  # a bar's end is its own: rows stamped with it come before
        self._earliest_ns, self._next_open_ns = 0, self._windows[0][0] if self._windows else NEVER_NS

    def on_row(self, ts_ns: int, levels: NDArray[np.int32], trade_sz: int, trade_side: int) -> bool:
        """Take a book row; True where it fills a bar of the event or volume grid.

        `levels (4, K) int32` in C order: bid prices, bid sizes, ask prices, ask sizes; the trade's lots and aggressor
        are 0 where the row is no trade. Raises InputError where the row lies before the last one, in a bar that has
        ended, after the open of a window that `open_window` has not been called for, or has another number of levels.
        """
        if not self._earliest_ns <= ts_ns <= self._next_open_ns:
            limits = f"{self._earliest_ns}, from where on rows are due, and the next open at {self._next_open_ns}"
            raise InputError(f"row at {ts_ns} ns is not between {limits}; call open_window first, give rows in order")
        if levels.shape != self._shape:
            raise InputError(f"row at {ts_ns} ns has levels of shape {levels.shape}, wanted {self._shape}")
        self._earliest_ns = ts_ns
        return kernel.update_levels(self._state, levels, ts_ns, trade_sz, trade_side)

    def open_window(self) -> None:
        """The next session window opens; raises InputError where the day has no further one."""
        if self._opened == len(self._windows):
            raise InputError("the day has no further session window; start a new FeatureState for a new day")
        opens, closes = self._windows[self._opened]
        kernel.open_window(self._state, self._ring, opens, closes)
        self._earliest_ns = opens + 1
        self._opened += 1
        more = self._opened < len(self._windows)
        self._next_open_ns = self._windows[self._opened][0] if more else NEVER_NS

    def close_bar(self, now_ns: int) -> tuple[NDArray[np.float32], bool]:
        """A bar ends at `now_ns`: its features `(F,) float32` and whether the book has two sides.

        Raises InputError where that is outside the open window, or before the last row: it would look ahead.
        """
        opens, closes = self._windows[self._opened - 1] if self._opened else (NEVER_NS, NEVER_NS)
        if not max(opens + 1, self._earliest_ns) <= now_ns <= closes:
            rows = f"rows are due from {self._earliest_ns} on"
            raise InputError(f"a bar cannot end at {now_ns} ns: the open window is {opens} to {closes}, {rows}")
        self._earliest_ns = now_ns + 1 if self._on_the_second else now_ns
        out = np.empty(len(FEATURES), np.float32)
        valid = kernel.close_bar(self._state, self._ring, self._table, self._curve, now_ns, out)
        return out, valid
