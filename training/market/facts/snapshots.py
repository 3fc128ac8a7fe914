"""A book as a feed of snapshots would show it: a simulation is compared with what the source's feed lets be seen."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book

_SIDES = (-1, 1, 0)  # one trade row each, in this order, as the reader of snapshots writes them


def snapshot_interval_ns(book: Book) -> int:
    """Median time between two stamps of a book, ns; raises InputError where it has fewer than two."""
    steps = np.diff(np.unique(book.ts_ns))
    if not len(steps):
        raise InputError(f"{len(book)} book rows of one moment: the interval of its snapshots is not known")
    return int(np.median(steps))


def as_snapshots(book: Book, every_ns: int) -> Book:
    """The state of `book` each `every_ns` from its first row on, and what traded between two of them.

    As in a book from depth snapshots: for each side that traded a row with the sum of its lots at its last price, the
    book still that of the snapshot before, then a row with the book. All share the snapshot's time stamp.
    """
    first = int(book.ts_ns[0])
    count = (int(book.ts_ns[-1]) - first) // every_ns + 1
    stamps = first + every_ns * np.arange(count, dtype=np.int64)
    shown = np.searchsorted(book.ts_ns, stamps, side="right") - 1
    traded = np.flatnonzero(book.trade_sz > 0)
    seen = -(-(book.ts_ns[traded] - first) // every_ns)  # the first snapshot at or after the trade
    traded, seen = traded[seen < count], seen[seen < count]
    number, place, rows = [np.arange(count)], [np.full(count, len(_SIDES))], [shown]
    price, lots, sides = ([np.zeros(count, np.int64)] for _ in range(3))
    for order, side in enumerate(_SIDES):
        mine = book.trade_side[traded] == side
        at, last = _last_of_each(seen[mine])
        total = np.bincount(seen[mine], book.trade_sz[traded[mine]], minlength=count)[at].astype(np.int64)
        number.append(at)
        place.append(np.full(len(at), order))
        rows.append(shown[np.maximum(at - 1, 0)])
        price.append(book.trade_px[traded[mine][last]].astype(np.int64))
        lots.append(total)
        sides.append(np.full(len(at), side))
    sorting = np.lexsort((np.concatenate(place), np.concatenate(number)))
    row = np.concatenate(rows)[sorting]
    px, sz, aggressor = (np.concatenate(columns)[sorting] for columns in (price, lots, sides))
    return Book(
        stamps[np.concatenate(number)[sorting]],
        book.bid_px[row],
        book.bid_sz[row],
        book.ask_px[row],
        book.ask_sz[row],
        px.astype(np.int32),
        sz.astype(np.int32),
        aggressor.astype(np.int8),
    )


def _last_of_each(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values of a rising array, and the place of the last of each."""
    if not len(values):
        return values, np.zeros(0, np.int64)
    last = np.flatnonzero(np.append(np.diff(values) > 0, True))
    return values[last], last
