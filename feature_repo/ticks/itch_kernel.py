"""Compiled scan of NASDAQ TotalView-ITCH 5.0 messages: one stock's order book events out of a chunk of the feed.

Layouts: 'NASDAQ TotalView-ITCH 5.0', section 4. All integers are big-endian, a price is a whole number of 0.0001 USD,
a time stamp is 48 bits of nanoseconds since midnight in New York. Each message follows its length of two bytes.
"""

import numpy as np
from numba import njit

from feature_repo.ticks.order_table import BUY, NO_SIDE, PRICE, SELL, SIDE, SIZE, emit, find, put, take
from feature_repo.ticks.schema import Flag, Kind

MESSAGE_BYTES = {
    **{"S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40},
    **{"E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48},
}
"""Length of each type of message; the types of later versions are not known."""
LENGTHS = np.zeros(256, np.int64)
for _type, _length in MESSAGE_BYTES.items():
    LENGTHS[ord(_type)] = _length
SHORTEST = 19
"""Of a message that gives an event: no more than one for each of so many bytes (D; U gives two in 35)."""

DONE, BOUNDARY, BAD_LENGTH, BAD_TIME, BAD_SIDE, ENDED = range(6)
"""Why a scan stops: the chunk is used up, the first message at or after the boundary, or what is wrong."""
MESSAGES, OTHERS, FOLDED, FINISHED, HALTED = range(5)
"""Places in the counts; FINISHED and HALTED are states (0 or 1) of the feed and the stock."""
LONGEST_DAY_NS = 25 * 3_600_000_000_000

_ADD, _CANCEL, _TRADE, _HALT = int(Kind.ADD), int(Kind.CANCEL), int(Kind.TRADE), int(Kind.HALT)
_LAST, _HIDDEN = int(Flag.LAST), int(Flag.HIDDEN)
_BROKEN, _DOUBT = int(Flag.CANCELLED | Flag.HIDDEN), int(Flag.SUSPICIOUS)
_A, _B, _C, _D, _E, _F, _H = (ord(letter) for letter in "ABCDEFH")
_P, _Q, _S, _T, _U, _X, _h = (ord(letter) for letter in "PQSTUXh")
_NO, _SELL_ORDER = ord("N"), ord("S")


@njit(cache=True)
def scan(data, at, locate, midnight_ns, boundary_ns, folding, lengths, keys, rows, state, out, counts, silent):
    """Read messages of `data (n,) uint8` from byte `at` on, as far as they are whole.

    Events of the stock with `locate` go into `out`; while `folding` its orders only change the table. `counts (5,)`
    and `silent (256,)` (messages that gave no event, by type) are added to. Gives the byte that comes next, the number
    of events, and why the scan stopped; at an error the byte is that of the message's length.
    """
    end, n = data.shape[0], 0
    while at + 2 <= end:
        size = (np.int64(data[at]) << 8) | np.int64(data[at + 1])
        if size == 0:
            return at, n, ENDED
        if at + 2 + size > end:
            break
        kind = data[at + 2]
        if lengths[kind] != 0 and lengths[kind] != size:
            return at, n, BAD_LENGTH
        if lengths[kind] == 0:
            counts[MESSAGES] += 1
            silent[kind] += 1
        else:
            stock = (np.int64(data[at + 3]) << 8) | np.int64(data[at + 4])
            if stock != locate and stock != 0:
                counts[MESSAGES] += 1
                counts[OTHERS] += 1
            else:
                ts = _number(data, at + 7, 6)
                if ts > LONGEST_DAY_NS:
                    return at, n, BAD_TIME
                ts += midnight_ns
                if stock == locate and ts >= boundary_ns:
                    return at, n, BOUNDARY
                if (kind == _A or kind == _F or kind == _P) and data[at + 21] != _B and data[at + 21] != _SELL_ORDER:
                    return at, n, BAD_SIDE
                counts[MESSAGES] += 1
                before = n
                if stock == locate:
                    n = _apply(data, at + 2, kind, ts, keys, rows, state, out, n, counts)
                elif kind == _S and data[at + 13] == _C:
                    counts[FINISHED] = 1
                if n == before:
                    silent[kind] += 1
                elif folding:
                    n = before
                    counts[FOLDED] += 1
        at += 2 + size
    return at, n, DONE


@njit(cache=True)
def _apply(data, at, kind, ts, keys, rows, state, out, n, counts):
    """Apply the stock's message at byte `at` to the table and write its events; gives the number of the next one.

    Of an order that is not alive the side and price are not known: such an event is flagged SUSPICIOUS.
    """
    if kind == _A or kind == _F:
        side = SELL if data[at + 19] == _SELL_ORDER else BUY
        order, shares, price = _number(data, at + 11, 8), _number(data, at + 20, 4), _number(data, at + 32, 4)
        put(keys, rows, state, order, side, price, shares)
        if shares <= 0:  # nothing rests; the event stays for cleaning to judge
            take(keys, rows, state, find(keys, rows, order), shares)
        return emit(out, n, ts, _ADD, _LAST, side, price, shares, order, ts)
    if kind == _E or kind == _C or kind == _X or kind == _D or kind == _U:
        return _change(data, at, kind, ts, keys, rows, state, out, n)
    if kind == _P:  # its side is always B since July 2014 and says nothing
        price, shares = _number(data, at + 32, 4), _number(data, at + 20, 4)
        return emit(out, n, ts, _TRADE, _LAST | _HIDDEN, NO_SIDE, price, shares, 0, ts)
    if kind == _Q:
        shares, price = _number(data, at + 11, 8), _number(data, at + 27, 4)
        if shares == 0:  # a cross in which nothing was matched
            return n
        return emit(out, n, ts, _TRADE, _LAST | _HIDDEN, NO_SIDE, price, shares, 0, ts)
    if kind == _B:
        return emit(out, n, ts, _TRADE, _LAST | _BROKEN, NO_SIDE, 0, 0, 0, ts)
    if kind == _H or kind == _h:
        halted = data[at + 19] != _T if kind == _H else data[at + 20] == _H
        counts[HALTED] = 1 if halted else 0
        if halted:
            return emit(out, n, ts, _HALT, _LAST, NO_SIDE, 0, 0, 0, ts)
    return n


@njit(cache=True)
def _change(data, at, kind, ts, keys, rows, state, out, n):
    """What becomes of an order that rests: executed (E, C), cancelled in part (X) or whole (D), replaced (U)."""
    order = _number(data, at + 11, 8)
    slot = find(keys, rows, order)
    doubt = _LAST | (_DOUBT if slot < 0 else 0)
    side = rows[slot, SIDE] if slot >= 0 else NO_SIDE
    price = rows[slot, PRICE] if slot >= 0 else np.int64(0)
    rest = rows[slot, SIZE] if slot >= 0 else np.int64(0)
    shares = rest if kind == _D or kind == _U else _number(data, at + 19, 4)
    if slot >= 0:
        take(keys, rows, state, slot, shares)
    if kind == _E:
        return emit(out, n, ts, _TRADE, doubt, -side, price, shares, order, ts)
    if kind == _C and data[at + 31] != _NO:
        return emit(out, n, ts, _TRADE, doubt, -side, _number(data, at + 32, 4), shares, order, ts)
    if kind != _U:  # X, D, and C that is not to be printed: a cross reports its volume as a whole
        return emit(out, n, ts, _CANCEL, doubt, side, price, shares, order, ts)
    n = emit(out, n, ts, _CANCEL, doubt & ~_LAST, side, price, rest, order, ts)
    order, shares, price = _number(data, at + 19, 8), _number(data, at + 27, 4), _number(data, at + 31, 4)
    if slot >= 0 and shares > 0:
        put(keys, rows, state, order, side, price, shares)
    return emit(out, n, ts, _ADD, doubt, side, price, shares, order, ts)


@njit(cache=True)
def _number(data, at, count):
    """Big-endian integer of `count` bytes; one of 8 bytes beyond int64 keeps its bits."""
    value = np.int64(0)
    for i in range(at, at + count):
        value = (value << 8) | np.int64(data[i])
    return value
