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
    """Apply the stock's message at byte `at` to the table and write its events; gives the number of the next one."""
    what, flags, side = 0, _LAST, np.int64(NO_SIDE)
    order, price, shares = np.int64(0), np.int64(0), np.int64(0)
    if kind == _A or kind == _F:
        what, side = _ADD, np.int64(SELL if data[at + 19] == _SELL_ORDER else BUY)
        order, shares, price = _number(data, at + 11, 8), _number(data, at + 20, 4), _number(data, at + 32, 4)
        if shares > 0:  # else nothing rests, and the event stays for cleaning to judge
            put(keys, rows, state, order, side, price, shares)
    elif kind == _E or kind == _C or kind == _X or kind == _D or kind == _U:
        what, flags, side, price, shares, order = _change(data, at, kind, keys, rows, state)
        if kind == _U:
            n = emit(out, n, ts, what, flags & ~_LAST, side, price, shares, order, ts)
            what, order = _ADD, _number(data, at + 19, 8)
            shares, price = _number(data, at + 27, 4), _number(data, at + 31, 4)
            if side != NO_SIDE and shares > 0:
                put(keys, rows, state, order, side, price, shares)
    elif kind == _P:  # its side is always B since July 2014 and says nothing
        what, flags = _TRADE, _LAST | _HIDDEN
        price, shares = _number(data, at + 32, 4), _number(data, at + 20, 4)
    elif kind == _Q:
        shares, price = _number(data, at + 11, 8), _number(data, at + 27, 4)
        if shares != 0:  # else a cross in which nothing was matched
            what, flags = _TRADE, _LAST | _HIDDEN
    elif kind == _B:
        what, flags = _TRADE, _LAST | _BROKEN
    elif kind == _H or kind == _h:
        counts[HALTED] = 1 if (data[at + 19] != _T if kind == _H else data[at + 20] == _H) else 0
        what = _HALT if counts[HALTED] else 0
    if what == 0:
        return n
    return emit(out, n, ts, what, flags, side, price, shares, order, ts)


@njit(cache=True)
def _change(data, at, kind, keys, rows, state):
    """What an order loses that is executed (E, C), cancelled in part (X) or whole (D), or replaced (U).

    Gives kind, flags, side, price, size and number of the event. Side and price of an order that is not alive are not
    known: the event is flagged SUSPICIOUS.
    """
    order = _number(data, at + 11, 8)
    shares = np.int64(0) if kind == _D or kind == _U else _number(data, at + 19, 4)
    what, flags, side, price = _CANCEL, _LAST | _DOUBT, np.int64(NO_SIDE), np.int64(0)
    slot = find(keys, rows, order)
    if slot >= 0:
        flags, side, price = _LAST, rows[slot, SIDE], rows[slot, PRICE]
        if kind == _D or kind == _U:
            shares = rows[slot, SIZE]
        take(keys, rows, state, slot, shares)
    # C that is not to be printed only cancels: a cross reports its volume as a whole.
    if kind == _E or (kind == _C and data[at + 31] != _NO):
        what, side = _TRADE, -side
        if kind == _C:
            price = _number(data, at + 32, 4)
    return what, flags, side, price, shares, order


@njit(cache=True)
def _number(data, at, count):
    """Big-endian integer of `count` bytes; one of 8 bytes beyond int64 keeps its bits."""
    value = np.int64(0)
    for i in range(at, at + count):
        value = (value << 8) | np.int64(data[i])
    return value
