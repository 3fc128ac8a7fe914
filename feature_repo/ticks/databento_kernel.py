"""Compiled parts of the Databento reader: records out of a stream's bytes, and orders into events of the book."""

import numpy as np
from numba import njit

from feature_repo.ticks.order_table import (
    BUY,
    FILLED,
    FLAGS,
    NO_SIDE,
    PRICE,
    SELL,
    SIDE,
    SIZE,
    clear,
    emit,
    find,
    put,
    take,
)
from feature_repo.ticks.schema import Flag, Kind

HEADER_BYTES = 16
DONE, BAD_LENGTH = 0, 1
"""Why `gather` stops: the chunk is used up, or a record whose length is not that of its type."""
OTHERS, FILLS, FOLDED, IDLE, IN_SNAPSHOT, BAD_BOOK = range(6)
"""Places in the counts; IN_SNAPSHOT and BAD_BOOK are states (0 or 1) of the feed."""

F_LAST, F_TOB, F_SNAPSHOT, F_MAYBE_BAD_BOOK = 128, 64, 32, 4  # as databento_dbn has them, for numba
_ADD, _CANCEL, _REPLACE, _TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.REPLACE), int(Kind.TRADE)
_QUOTE, _CLEAR = int(Kind.QUOTE), int(Kind.CLEAR)
_LAST, _DOUBT, _GAP = int(Flag.LAST), int(Flag.SUSPICIOUS), int(Flag.GAP)
_A, _B, _C, _F, _M, _R, _T = (ord(letter) for letter in "ABCFMRT")


@njit(cache=True)
def gather(data, rtype, instrument, record_bytes, out, places, others, counts):
    """Copy the records of one type and instrument from `data (n,) uint8` into `out (m, record_bytes) uint8`.

    `places (m,) int64` are their first bytes; `others (256,)` counts records of other types, `counts[OTHERS]` those of
    other instruments. Gives the byte after the last whole record, the number of records, and why it stopped.
    """
    at, n, end = np.int64(0), 0, data.shape[0]
    while at + HEADER_BYTES <= end:
        size = np.int64(data[at]) * 4
        kind = data[at + 1]
        if size < HEADER_BYTES or (kind == rtype and size != record_bytes):
            return at, n, BAD_LENGTH
        if at + size > end:
            break
        if kind != rtype:
            others[kind] += 1
        else:
            number = np.int64(0)
            for i in range(4):
                number |= np.int64(data[at + 4 + i]) << (8 * i)
            if number != instrument:
                counts[OTHERS] += 1
            else:
                out[n] = data[at : at + size]
                places[n] = at
                n += 1
        at += size
    return at, n, DONE


@njit(cache=True)
def apply_orders(
    start, n, boundary_ns, folding, ts, recv, order, price, size, flags, action, side, keys, rows, state, out, counts
):
    """Turn MBO records from row `start` on into events in `out` from `n` on, up to the first one past the boundary.

    `ts, recv, order, price, size (n,) int64`, `flags, action, side (n,) uint8`, the order table, `out (3n + 1, 8)`.
    While `folding`, orders only change the table. A snapshot's last event is flagged LAST, which the vendor does not
    always do. Gives the row that comes next and the number of events.
    """
    for i in range(start, ts.shape[0]):
        if ts[i] >= boundary_ns:
            return i, n
        before, what = n, action[i]
        snapshot = 1 if flags[i] & F_SNAPSHOT else 0
        if counts[IN_SNAPSHOT] and not snapshot and n > 0:
            out[n - 1, FLAGS] |= _LAST
        doubtful = 1 if flags[i] & F_MAYBE_BAD_BOOK else 0
        if doubtful and not counts[BAD_BOOK]:  # the channel lost messages: the book is unknown until a snapshot
            n = emit(out, n, ts[i], _CLEAR, _GAP, NO_SIDE, 0, 0, 0, recv[i])
        counts[BAD_BOOK] = doubtful
        if what == _R or (snapshot and not counts[IN_SNAPSHOT]):
            clear(rows, state)
            n = emit(out, n, ts[i], _CLEAR, _LAST if flags[i] & F_LAST and what == _R else 0, NO_SIDE, 0, 0, 0, recv[i])
        counts[IN_SNAPSHOT] = 1 if snapshot and not flags[i] & F_LAST else 0
        where = BUY if side[i] == _B else (SELL if side[i] == _A else NO_SIDE)
        last = _LAST if flags[i] & F_LAST else 0
        if flags[i] & F_TOB and what != _T and what != _R:
            if what == _A:  # a price of 0: the side is empty
                lots = size[i] if price[i] != 0 else 0
                n = emit(out, n, ts[i], _QUOTE, last, where, price[i], lots, 0, recv[i])
        elif what == _T:
            n = emit(out, n, ts[i], _TRADE, last, where, price[i], size[i], 0, recv[i])
        elif what == _F:
            at = find(keys, rows, order[i])
            if at >= 0:
                rows[at, FILLED] += size[i]
        elif what == _A or what == _C or what == _M:
            n = _change(what, ts[i], recv[i], order[i], price[i], size[i], where, last, keys, rows, state, out, n)
        if folding:
            n = before
            counts[FOLDED] += 1
        elif n == before:
            counts[FILLS if what == _F else IDLE] += 1
    return ts.shape[0], n


@njit(cache=True)
def _change(what, ts, recv, order, price, size, side, last, keys, rows, state, out, n):
    """An order is added, cancelled in part or whole, or modified; gives the number of the next event."""
    at = find(keys, rows, order)
    if what == _C:
        if at < 0:
            return emit(out, n, ts, _CANCEL, last | _DOUBT, side, price, size, order, recv)
        n = emit(out, n, ts, _CANCEL, last, rows[at, SIDE], rows[at, PRICE], size, order, recv)
        rows[at, FILLED] = max(0, rows[at, FILLED] - size)
        take(keys, rows, state, at, size)
        return n
    if what == _M and at >= 0:
        # What the fills before it leave, or less, stays in its place; more, or another price, goes to the back. So does
        # an unchanged size: an iceberg shows its next part.
        stays = size < rows[at, SIZE] and size <= rows[at, SIZE] - rows[at, FILLED]
        if size <= 0 or (stays and price == rows[at, PRICE] and side == rows[at, SIDE]):
            n = emit(out, n, ts, _CANCEL, last, rows[at, SIDE], rows[at, PRICE], rows[at, SIZE] - size, order, recv)
            rows[at, FILLED] = 0
            take(keys, rows, state, at, rows[at, SIZE] - size)
            return n
    kind = _REPLACE if what == _M and at >= 0 else _ADD
    if side == NO_SIDE:  # it rests nowhere
        last |= _DOUBT
    elif size > 0:
        put(keys, rows, state, order, side, price, size)
    return emit(out, n, ts, kind, last, side, price, size, order, recv)
