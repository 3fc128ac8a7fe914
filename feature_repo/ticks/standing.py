"""The depth that stands at the end of a day, handed to the next one where a feed goes on without a new snapshot."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.schema import Flag, Kind, Side

STANDING_FILE = "standing_book.parquet"
_UPDATE_ID = b"shortfall.update_id"


@dataclass(frozen=True)
class StandingBook:
    """A whole depth book by price, sorted by side and price, and the number of the last update in it."""

    update_id: int
    side: NDArray[np.int8]
    price_ticks: NDArray[np.int64]
    size: NDArray[np.int64]  # lots, all positive

    def events(self, ts_event_ns: int, ts_recv_ns: int) -> EventColumns:
        """The book as a snapshot flagged CARRIED: CLEAR, then DEPTH events, the last one with LAST."""
        levels = len(self.size)
        kind = np.concatenate([[int(Kind.CLEAR)], np.full(levels, int(Kind.DEPTH))])
        flags = np.full(levels + 1, int(Flag.CARRIED))
        flags[1:][-1:] |= int(Flag.LAST)  # a book without a level stays unknown
        return EventColumns.build(
            np.full(levels + 1, ts_event_ns, np.int64),
            kind,
            np.concatenate([[int(Side.NONE)], self.side]),
            np.concatenate([[0], self.price_ticks]),
            np.concatenate([[0], self.size]),
            flags,
            self.update_id,
            np.full(levels + 1, ts_recv_ns, np.int64),
        )


class StandingTracker:
    """Follows the DEPTH events of a partition, batch by batch; holds no more than the levels of one book.

    A CLEAR opens a snapshot, whose LAST makes the book whole; a CLEAR flagged GAP opens none. DEPTH events outside a
    snapshot count only while the book is whole.
    """

    def __init__(self) -> None:
        """Start with nothing known: only a snapshot makes the book whole."""
        self._levels: dict[tuple[int, int], int] = {}
        self._whole, self._opened, self._update_id = False, False, 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch of events (EVENT_SCHEMA)."""
        kind, flags = batch.column("kind").to_numpy(), batch.column("flags").to_numpy()
        clears = np.flatnonzero(kind == int(Kind.CLEAR))
        start = 0
        if len(clears):  # nothing before the last one matters
            start = int(clears[-1])
            self._levels.clear()
            self._whole, self._opened = False, not flags[start] & int(Flag.GAP)
        depth = start + np.flatnonzero(kind[start:] == int(Kind.DEPTH))
        if not len(depth) or not (self._whole or self._opened):
            return
        side, price, size, ids = (
            batch.column(name).to_numpy()[depth] for name in ("side", "price_ticks", "size", "order_id")
        )
        for at in standing_rows(side, price).tolist():
            key = (int(side[at]), int(price[at]))
            if size[at] > 0:
                self._levels[key] = int(size[at])
            else:
                self._levels.pop(key, None)
        self._update_id = int(ids[-1])
        self._whole |= bool((flags[depth] & int(Flag.LAST)).any())
        self._opened &= not self._whole

    def standing(self) -> StandingBook | None:
        """The book after the last batch; None where no snapshot made it whole since the last CLEAR."""
        if not self._whole:
            return None
        keys = sorted(self._levels)
        return StandingBook(
            self._update_id,
            np.array([side for side, _ in keys], np.int8),
            np.array([price for _, price in keys], np.int64),
            np.array([self._levels[key] for key in keys], np.int64),
        )


def standing_rows(side: NDArray[np.int8], price_ticks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of updates that are the last ones of their side and price, sorted by price and side."""
    order = np.lexsort((side, price_ticks))  # stable: equal keys stay in their order
    changes = (np.diff(side[order]) != 0) | (np.diff(price_ticks[order]) != 0)
    last: NDArray[np.int64] = order[np.concatenate([changes, np.ones(min(len(order), 1), bool)])]
    return last


def write_standing(book: StandingBook, folder: Path) -> None:
    """Write the book into a partition's folder; equal books give equal bytes."""
    table = pa.table({"side": book.side, "price_ticks": book.price_ticks, "size": book.size})
    table = table.replace_schema_metadata({_UPDATE_ID: str(book.update_id).encode()})
    pq.write_table(table, folder / STANDING_FILE, compression="zstd")


def read_standing(folder: Path) -> StandingBook | None:
    """The book that a partition ended with; None where it ended with none. Raises InputError on an unreadable file."""
    path = folder / STANDING_FILE
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, partitioning=None)
        update_id = int((table.schema.metadata or {})[_UPDATE_ID])
        side, price, size = (table.column(name).to_numpy() for name in ("side", "price_ticks", "size"))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable standing book ({error}); run ingest again") from error
    return StandingBook(update_id, side, price, size)
