"""The orders that are alive, by number, in NumPy arrays that the compiled readers of order-by-order feeds share.

Open addressing with linear probing; a removed order's slot is closed by moving later ones back, so that the table needs
no larger arrays than twice what is alive. Prices stand in the vendor's units.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.schema import Flag, Kind, Side

PRICE, SIZE, SIDE, ARRIVAL, FILLED = range(5)
"""Columns of a table's rows; ARRIVAL is 0 in a free slot and else grows with the time priority lost last."""
LIVE, ARRIVALS = 0, 1
"""Places in a table's state: orders alive, arrival numbers given."""
TS, KIND, FLAGS, SIDE_OUT, PRICE_OUT, SIZE_OUT, ORDER, RECV = range(8)
"""Columns of the events that a kernel writes, `(n, 8) int64`, prices in the vendor's units."""
_FEWEST = 1 << 10


class OrderTable:
    """`keys (slots,) int64`, `rows (slots, 5) int64` and `state (2,) int64`, as the kernels take them."""

    def __init__(self) -> None:
        """Start without an order."""
        self.keys = np.zeros(_FEWEST, np.int64)
        self.rows = np.zeros((_FEWEST, 5), np.int64)
        self.state = np.zeros(2, np.int64)

    def reserve(self, more: int) -> None:
        """Make room for `more` new orders, or give back what has become far too much."""
        slots = max(_FEWEST, 1 << (2 * (int(self.state[LIVE]) + more)).bit_length())
        if len(self.keys) < slots or len(self.keys) > 4 * slots:
            keys, rows = np.zeros(slots, np.int64), np.zeros((slots, 5), np.int64)
            _move(self.keys, self.rows, keys, rows)
            self.keys, self.rows = keys, rows

    def opening(self, ts_ns: int, units_per_tick: int) -> EventColumns:
        """The orders alive as a snapshot at `ts_ns`: CLEAR, then ADD events flagged CARRIED, oldest first."""
        slots = np.flatnonzero(self.rows[:, ARRIVAL] != 0)
        slots = slots[np.argsort(self.rows[slots, ARRIVAL])]
        out = np.zeros((len(slots) + 1, 8), np.int64)
        out[:, TS] = out[:, RECV] = ts_ns
        out[0, KIND], out[1:, KIND], out[:, FLAGS] = int(Kind.CLEAR), int(Kind.ADD), int(Flag.CARRIED)
        out[-1, FLAGS] |= int(Flag.LAST)
        out[1:, SIDE_OUT], out[1:, PRICE_OUT] = self.rows[slots, SIDE], self.rows[slots, PRICE]
        out[1:, SIZE_OUT], out[1:, ORDER] = self.rows[slots, SIZE], self.keys[slots]
        return to_events(out, units_per_tick)


def to_events(out: NDArray[np.int64], units_per_tick: int) -> EventColumns:
    """A kernel's events with prices in ticks: the nearest one (half a tick goes up), flagged SUB_TICK where between."""
    columns = out.T.copy()  # the kernel writes on into `out`, and a column of one row would be a view of it
    price = columns[PRICE_OUT]
    off_tick = price % units_per_tick != 0
    flags = columns[FLAGS] | np.where(off_tick, int(Flag.SUB_TICK), 0)
    # not (price + half) // units: a price near the largest int64 would wrap
    ticks = price // units_per_tick + (price % units_per_tick >= (units_per_tick + 1) // 2)
    return EventColumns.build(
        columns[TS],
        columns[KIND],
        columns[SIDE_OUT],
        ticks,
        columns[SIZE_OUT],
        flags,
        columns[ORDER],
        columns[RECV],
    )


@njit(cache=True)
def emit(out, n, ts, kind, flags, side, price, size, order, recv):
    """Write event number `n`; gives the next number."""
    out[n, TS], out[n, KIND], out[n, FLAGS], out[n, SIDE_OUT] = ts, kind, flags, side
    out[n, PRICE_OUT], out[n, SIZE_OUT], out[n, ORDER], out[n, RECV] = price, size, order, recv
    return n + 1


@njit(cache=True)
def find(keys, rows, key):
    """Slot of an order, -1 where it is not alive."""
    mask = keys.shape[0] - 1
    at = _home(key, mask)
    while rows[at, ARRIVAL] != 0:
        if keys[at] == key:
            return at
        at = (at + 1) & mask
    return -1


@njit(cache=True)
def put(keys, rows, state, key, side, price, size):
    """An order rests from now on, or again, behind all others at its price; there must be room."""
    mask = keys.shape[0] - 1
    at = _home(key, mask)
    while rows[at, ARRIVAL] != 0 and keys[at] != key:
        at = (at + 1) & mask
    if rows[at, ARRIVAL] == 0:
        state[LIVE] += 1
        keys[at] = key
    state[ARRIVALS] += 1
    rows[at, PRICE], rows[at, SIZE], rows[at, SIDE] = price, size, side
    rows[at, ARRIVAL], rows[at, FILLED] = state[ARRIVALS], 0


@njit(cache=True)
def take(keys, rows, state, at, size):
    """`size` lots leave the order in slot `at`, which ends with its last lot."""
    rows[at, SIZE] -= size
    if rows[at, SIZE] > 0:
        return
    mask = keys.shape[0] - 1
    state[LIVE] -= 1
    rows[at, ARRIVAL] = 0
    following = (at + 1) & mask
    while rows[following, ARRIVAL] != 0:
        home = _home(keys[following], mask)
        if ((following - home) & mask) >= ((following - at) & mask):  # the free slot lies on its way
            keys[at], rows[at] = keys[following], rows[following]
            rows[following, ARRIVAL] = 0
            at = following
        following = (following + 1) & mask


@njit(cache=True)
def clear(rows, state):
    """No order is alive."""
    rows[:, ARRIVAL] = 0
    state[LIVE] = 0


@njit(cache=True)
def _home(key, mask):
    """Slot where the search for an order begins: Fibonacci hashing (Knuth, vol. 3, sec. 6.4)."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask


@njit(cache=True)
def _move(keys, rows, new_keys, new_rows):
    """Copy all orders into empty arrays of another length."""
    mask = new_keys.shape[0] - 1
    for old in range(keys.shape[0]):
        if rows[old, ARRIVAL] != 0:
            at = _home(keys[old], mask)
            while new_rows[at, ARRIVAL] != 0:
                at = (at + 1) & mask
            new_keys[at], new_rows[at] = keys[old], rows[old]


BUY, SELL, NO_SIDE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
