"""The day's visible book, one row for each change and each trade: built from clean events, kept as Parquet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline import book_ladder as ladder
from feature_repo.pipeline.book_kernel import replay, settle, write_row
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind

MAX_PRICE_LEVELS = 1 << 22
"""Widest price range of one day's orders, in ticks; more means that an outlying price passed cleaning."""

REPLAYED_COLUMNS = ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id", "flags")
_SIDES = ("bid_px", "bid_sz", "ask_px", "ask_sz")


@dataclass(frozen=True)
class Book:
    """Book states of one partition in time order; a row is the state after an event.

    `ts_ns (T,) int64`; `bid_px, bid_sz, ask_px, ask_sz (T, K) int32`, ticks and lots, level 0 best, 0 where there is no
    level; `trade_px, trade_sz (T,) int32` and `trade_side (T,) int8` (aggressor), all 0 where the row is no trade.
    Hidden executions are no rows: they met no visible queue. A vendor's depth message gives one row, at its LAST event;
    while the book is unknown (from a CLEAR to the end of a snapshot) there is no level.
    """

    ts_ns: NDArray[np.int64]
    bid_px: NDArray[np.int32]
    bid_sz: NDArray[np.int32]
    ask_px: NDArray[np.int32]
    ask_sz: NDArray[np.int32]
    trade_px: NDArray[np.int32]
    trade_sz: NDArray[np.int32]
    trade_side: NDArray[np.int8]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ts_ns)

    @property
    def depth(self) -> int:
        """Visible levels a side, K."""
        return int(self.bid_px.shape[1])

    @property
    def two_sided(self) -> NDArray[np.bool_]:
        """`(T,) bool`: both best prices are there and do not cross or lock."""
        return (self.bid_sz[:, 0] > 0) & (self.ask_sz[:, 0] > 0) & (self.ask_px[:, 0] > self.bid_px[:, 0])


@dataclass(frozen=True)
class BookCounts:
    """Events that the reconstruction could not use as they were, and what it could compare with the vendor's word."""

    unknown_order: int  # cancels, replaces and trades that name an order which is not in the book
    hidden_trades: int
    oversized: int  # cancels and trades larger than what was left of their order, or of the lots at its price
    gaps: int  # holes in the vendor's numbering: the book is unknown until the next snapshot
    unwhole: int  # depth and order events left out because no snapshot had made the book whole
    quotes_compared: int  # best quotes that name the very update which the whole book stands at
    quotes_equal: int  # those among them with the price and the size of the book's best
    far_levels: int  # depth events beyond the prices that the ladder holds


def build_book(events: pa.Table, depth: int, name: str = "events") -> tuple[Book, BookCounts]:
    """Replay clean events (EVENT_SCHEMA, sorted) into a book of `depth` levels a side.

    Raises InputError, naming `name`, where time runs backwards, a price range is absurd, or a value does not fit.
    """
    builder = BookBuilder(depth, name)
    book = builder.add(events, last=True)
    return book, builder.counts


class BookBuilder:
    """The same, for events that come in several tables: the rows of the parts are those of the whole."""

    def __init__(self, depth: int, name: str = "events") -> None:
        """Start before the first event; `name` stands in the errors."""
        self._state, self._name = ladder.new_state(depth), name
        self._taken, self._last_ns = 0, np.iinfo(np.int64).min
        self._order_prices: list[int] = []  # lowest and highest so far

    def add(self, events: pa.Table | pa.RecordBatch, last: bool = False) -> Book:
        """Rows that the next events (EVENT_SCHEMA) give; `last` says that none follow. Raises as `build_book`."""
        ts_ns, *columns = (_read_only(events.column(field)) for field in REPLAYED_COLUMNS)
        self._require_order(ts_ns)
        self._require_order_prices(columns[0], columns[2])
        most, depth = len(ts_ns) + 2, self._state.visible.shape[2]  # pages that no row touches are never made
        levels = (np.empty((most, depth), np.int32) for _ in _SIDES)
        trades = (np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int8))
        out: tuple[NDArray, ...] = (np.empty(most, np.int64), *levels, *trades)
        taken = rows = 0
        while True:
            arguments: tuple[Any, ...] = (*self._state, ts_ns, *columns, taken, out, rows)
            taken, rows = replay(*arguments)
            if taken == len(ts_ns) or self._state.memory[ladder.FAULT]:
                break
            self._state = ladder.with_room(self._state)
        memory, visible = self._state.memory, self._state.visible
        if problem := fault(memory):
            raise InputError(f"{self._name}: {problem}, at row {self._taken + taken}; clean the events first")
        self._taken += taken
        if last and settle(memory, visible, np.iinfo(np.int64).max, int(Kind.HALT)):  # the day ends with a CLEAR
            write_row(memory, visible, out, rows)
            rows += 1
        return Book(*(column[:rows] for column in out))

    def end(self) -> Book:
        """The row, if any, that the end of the events gives."""
        return self.add(EVENT_SCHEMA.empty_table(), last=True)

    @property
    def counts(self) -> BookCounts:
        """Of all events so far."""
        return counts_of(self._state.memory)

    def _require_order(self, ts_ns: NDArray[np.int64]) -> None:
        """Refuse events that are not in time order."""
        if not len(ts_ns):
            return
        behind = np.flatnonzero(ts_ns[1:] < ts_ns[:-1]) + 1
        if ts_ns[0] < self._last_ns or len(behind):
            row = self._taken + (0 if ts_ns[0] < self._last_ns else int(behind[0]))
            raise InputError(f"{self._name}: time runs backwards at row {row}; events must be cleaned and sorted first")
        self._last_ns = int(ts_ns[-1])

    def _require_order_prices(self, kind: NDArray[np.int8], price: NDArray[np.int64]) -> None:
        """Refuse orders that rest over an absurd range of prices: one of them passed cleaning by mistake."""
        resting = price[(kind == int(Kind.ADD)) | (kind == int(Kind.REPLACE))]
        if not len(resting):
            return
        ends = [*self._order_prices, int(resting.min()), int(resting.max())]
        low, high = self._order_prices = [min(ends), max(ends)]
        if max(abs(low), abs(high)) <= ladder.MOST and high - low >= MAX_PRICE_LEVELS:
            raise InputError(
                f"{self._name}: orders rest from {low} to {high} ticks, {high - low + 1:,} levels exceed "
                f"{MAX_PRICE_LEVELS:,}; an outlying price passed cleaning"
            )


def _read_only(column: pa.ChunkedArray | pa.Array) -> NDArray:
    """A column as an array that is read-only whether Arrow had to copy or not: one type, compiled once."""
    values = np.asarray(column).view()
    values.flags.writeable = False
    return values


def fault(memory: NDArray[np.int64]) -> str:
    """What stopped the reconstruction, in words; empty where nothing did. `memory` is that of a `State`."""
    code, value = int(memory[ladder.FAULT]), int(memory[ladder.FAULT_VALUE])
    if code == ladder.FAR_NEEDED:
        low = int(memory[ladder.LOW])
        held = f"{low} to {low + ladder.WINDOW - 1} ticks, which the ladder holds around the first price"
        return f"the visible book needs a price ({value}) beyond {held}"
    return {
        0: "",
        ladder.NEGATIVE_SIZE: f"a size of {value} lots is negative",
        ladder.TOO_LARGE: f"a price or size of {value} exceeds {ladder.MOST}",
        ladder.TOO_HEAVY: f"{value} lots rest at one price, which exceeds {ladder.MOST}",
    }[code]


def counts_of(memory: NDArray[np.int64]) -> BookCounts:
    """The counts in the memory of a `State`."""
    return BookCounts(*(int(count) for count in memory[: ladder.COUNTS]))


def empty_book(depth: int) -> Book:
    """A book of no rows."""
    return BookBuilder(depth).end()


def book_table(book: Book) -> pa.Table:
    """A book as a table, a column a level: `ts_ns`, `bid_px_0` .. `ask_sz_K-1`, and the trade."""
    columns: dict[str, NDArray] = {"ts_ns": book.ts_ns}
    for side in _SIDES:
        levels = getattr(book, side)
        columns |= {f"{side}_{k}": np.ascontiguousarray(levels[:, k]) for k in range(book.depth)}
    return pa.table({**columns, "trade_px": book.trade_px, "trade_sz": book.trade_sz, "trade_side": book.trade_side})


def book_of(table: pa.Table) -> Book:
    """The book in a table of the form of `book_table`."""
    depth = sum(name.startswith("bid_px_") for name in table.column_names)
    bid_px, bid_sz, ask_px, ask_sz = (
        np.column_stack([table.column(f"{side}_{k}").to_numpy() for k in range(depth)]).astype(np.int32, copy=False)
        for side in _SIDES
    )
    trade_px, trade_sz, trade_side = (table.column(f"trade_{what}").to_numpy() for what in ("px", "sz", "side"))
    return Book(table.column("ts_ns").to_numpy(), bid_px, bid_sz, ask_px, ask_sz, trade_px, trade_sz, trade_side)


def write_book(book: Book, path: Path) -> None:
    """Write a book as Parquet; equal books give equal bytes."""
    pq.write_table(book_table(book), path, compression="zstd", row_group_size=262_144)


def load_book(features_dir: Path, partition: Partition) -> Book:
    """Read the book of one partition; raises InputError where it is absent or not of this form."""
    path = partition.folder(features_dir) / "book.parquet"
    try:
        return book_of(pq.read_table(path, partitioning=None))
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable book ({error}); run the features stage again") from error
