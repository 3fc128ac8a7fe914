"""The day's visible book, one row for each change and each trade: built from clean events, kept as Parquet."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.book_kernel import HEAVIEST, replay
from feature_repo.ticks.schema import Kind

MAX_PRICE_LEVELS = 1 << 22
"""Widest price range of one day, in ticks; more means that an outlying price passed cleaning."""

_SIDES = ("bid_px", "bid_sz", "ask_px", "ask_sz")


@dataclass(frozen=True)
class Book:
    """Book states of one partition in time order; a row is the state after an event.

    `ts_ns (T,) int64`; `bid_px, bid_sz, ask_px, ask_sz (T, K) int32`, ticks and lots, level 0 best, 0 where there is no
    level; `trade_px, trade_sz (T,) int32` and `trade_side (T,) int8` (aggressor), all 0 where the row is no trade.
    Hidden executions are no rows: they met no visible queue.
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
    """Events that the reconstruction could not use as they were."""

    unknown_order: int  # cancels, replaces of an order that is not in the book
    hidden_trades: int
    oversized: int  # cancels and trades larger than what was left of their order


def build_book(events: pa.Table, depth: int, name: str = "events") -> tuple[Book, BookCounts]:
    """Replay clean events (EVENT_SCHEMA, sorted) into a book of `depth` levels a side.

    Raises InputError, naming `name`, where time runs backwards, a price range is absurd, or a value does not fit.
    """
    column = {field: events.column(field).to_numpy() for field in events.column_names}
    ts_ns, price, size = column["ts_event_ns"], column["price_ticks"], column["size"]
    if np.any(np.diff(ts_ns) < 0):
        row = int(np.flatnonzero(np.diff(ts_ns) < 0)[0]) + 1
        raise InputError(f"{name}: time runs backwards at row {row}; events must be cleaned and sorted first")
    priced = (column["kind"] != int(Kind.HALT)) & (column["kind"] != int(Kind.CLEAR))
    limit = np.iinfo(np.int32).max
    # not np.abs: the absolute value of the smallest int64 is itself, negative
    ends = [int(end) for values in (price[priced], size[priced]) if len(values) for end in (values.min(), values.max())]
    worst = max(ends, key=abs, default=0)
    if abs(worst) > limit:
        raise InputError(f"{name}: a price or size of {worst} exceeds {limit}; clean the events first")
    resting = np.isin(column["kind"], (int(Kind.ADD), int(Kind.REPLACE)))
    low, levels = 0, 1
    if resting.any():
        low, high = int(price[resting].min()), int(price[resting].max())
        levels = high - low + 1
        if levels > MAX_PRICE_LEVELS:
            raise InputError(
                f"{name}: orders rest from {low} to {high} ticks, {levels:,} levels exceed {MAX_PRICE_LEVELS:,}; "
                "an outlying price passed cleaning"
            )
    order, orders = _dense_orders(column["order_id"], resting)
    arrays = (column["kind"], column["side"], price, size, order, column["flags"])
    ts, book, trade, counts = replay(ts_ns, *arrays, orders, low, levels, depth)
    if counts[HEAVIEST] > limit:
        heaviest = f"{counts[HEAVIEST]} lots rest at one price"
        raise InputError(f"{name}: {heaviest}, which exceeds {limit}; clean the events first")
    bid_px, bid_sz, ask_px, ask_sz = (np.ascontiguousarray(book[:, i]) for i in range(4))
    trade_px, trade_sz = trade[:, 0].copy(), trade[:, 1].copy()
    built = Book(ts.copy(), bid_px, bid_sz, ask_px, ask_sz, trade_px, trade_sz, trade[:, 2].astype(np.int8))
    return built, BookCounts(*(int(count) for count in counts[:HEAVIEST]))


def _dense_orders(order_id: NDArray[np.int64], resting: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Order ids as numbers from 0 on, -1 for ids that never rested, and how many there are."""
    known = np.unique(order_id[resting])
    known = known[known != 0]
    if not len(known):
        return np.full(len(order_id), -1), 0
    at = np.minimum(np.searchsorted(known, order_id), len(known) - 1)
    return np.where(known[at] == order_id, at, -1), len(known)


def write_book(book: Book, path: Path) -> None:
    """Write a book as Parquet, a column a level; equal books give equal bytes."""
    columns: dict[str, NDArray] = {"ts_ns": book.ts_ns}
    for side in _SIDES:
        levels = getattr(book, side)
        columns |= {f"{side}_{k}": np.ascontiguousarray(levels[:, k]) for k in range(book.depth)}
    columns |= {"trade_px": book.trade_px, "trade_sz": book.trade_sz, "trade_side": book.trade_side}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=262_144)


def load_book(features_dir: Path, partition: Partition) -> Book:
    """Read the book of one partition; raises InputError where it is absent or not of this form."""
    path = partition.folder(features_dir) / "book.parquet"
    try:
        table = pq.read_table(path, partitioning=None)
        depth = sum(name.startswith("bid_px_") for name in table.column_names)
        bid_px, bid_sz, ask_px, ask_sz = (
            np.column_stack([table.column(f"{side}_{k}").to_numpy() for k in range(depth)]).astype(np.int32)
            for side in _SIDES
        )
        trade_px, trade_sz, trade_side = (table.column(f"trade_{what}").to_numpy() for what in ("px", "sz", "side"))
        return Book(table.column("ts_ns").to_numpy(), bid_px, bid_sz, ask_px, ask_sz, trade_px, trade_sz, trade_side)
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable book ({error}); run the features stage again") from error
