"""How often each kind of event met a queue of each length, and for how long: all that maximum likelihood needs.

The rates of a Markov jump process are estimated by N / T, events over the time that the state which they meet stood
(Huang, Lehalle and Rosenbaum 2015, section 2.3; Andersen, Borgan, Gill and Keiding 1993). Time is counted on clocks: a
second in which the market is twice as busy counts twice, and where the planted signal is known, so does its tilt. An
event's *moment* is all that is stamped within `burst_ns` of one another: what used up a queue, or made a new one, is
one event.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

MOST_UNITS = 256  # queues longer than that share the last cell
LIMIT, CANCEL, MARKET = 0, 1, 2
"""Rows of the recorded sizes."""
FOLLOWS, RETURNS, WIDE, MOMENTS, TRADED, DEPLETED, UNMATCHED = 0, 1, 2, 3, 4, 5, 6
"""Places in `totals`: closings where the other side followed, where the used-up one came back; ends of a best queue
while the spread was open, which the model has not; moments; traded lots and all lots of used-up queues; trades without
side."""


class FlowCounts(NamedTuple):
    """Counts and exposures of one day or of several, both sides together; seconds on the clock of the activity."""

    limit: NDArray[np.int64]  # (L, U)
    cancel: NDArray[np.int64]  # (L, U)
    limit_s: NDArray[np.float64]  # (L, U)
    cancel_s: NDArray[np.float64]  # (L, U); of level 0 also for market orders
    market: NDArray[np.int64]  # (U,)
    depletion: NDArray[np.int64]  # (U,)
    narrow_s: NDArray[np.float64]  # (U,) of best queues while the spread is one tick
    open_s: NDArray[np.float64]  # (2,) spread of more than a tick, plain seconds; weight of the closings
    totals: NDArray[np.int64]  # (7,)
    minutes: NDArray[np.int64]  # (M,) events in each minute from the first row on


class Sizes(NamedTuple):
    """Sizes in lots as they were met: `lots (3, C)` by kind, `refill (C,)`, `revealed (C,)`; `filled (5,)` of each."""

    lots: NDArray[np.int64]
    levels: NDArray[np.int8]  # (3, C) where they were met
    refill: NDArray[np.int64]
    revealed: NDArray[np.int64]
    filled: NDArray[np.int64]


def empty_counts(levels: int, minutes: int) -> FlowCounts:
    """Nothing counted yet."""
    cells = (levels, MOST_UNITS + 1)
    return FlowCounts(
        np.zeros(cells, np.int64), np.zeros(cells, np.int64), np.zeros(cells), np.zeros(cells),
        np.zeros(cells[1], np.int64), np.zeros(cells[1], np.int64), np.zeros(cells[1]), np.zeros(2),
        np.zeros(7, np.int64),
        np.zeros(minutes, np.int64),
    )  # fmt: skip


def empty_sizes(room: int) -> Sizes:
    """Room for `room` sizes of each kind; more are counted but not kept."""
    rows = [np.zeros(room, np.int64) for _ in range(2)]
    lots, levels = np.zeros((3, room), np.int64), np.zeros((3, room), np.int8)
    return Sizes(lots, levels, rows[0], rows[1], np.zeros(5, np.int64))


@njit(cache=True)
def keep(sizes, kind, level, lots):
    """Keep a size: LIMIT, CANCEL, MARKET, 3 for orders or units of a new best queue, 4 for lots of a revealed one."""
    at = sizes.filled[kind]
    if at < sizes.refill.shape[0]:
        if kind < 3:
            sizes.lots[kind, at], sizes.levels[kind, at] = lots, level
        elif kind == 3:
            sizes.refill[at] = lots
        else:
            sizes.revealed[at] = lots
        sizes.filled[kind] += 1


UP, DOWN, LEAN_UP, LEAN_DOWN = 0, 1, 2, 3
"""Rows of the clocks: integrals of a (1 + t s), a (1 - t s), a (1 + k s) and a (1 - k s) at whole seconds."""


def make_clocks(
    seconds: int,
    activity: NDArray[np.float64] | None = None,
    signal: NDArray[np.float64] | None = None,
    strength: float = 0.0,
    tilt: float = 0.0,
) -> NDArray[np.float64]:
    """Clocks `(4, seconds + 1)` from the activity a and the signal s, one value a second; 1 and 0 where not given."""
    a = np.ones(seconds) if activity is None else activity[:seconds]
    s = np.zeros(seconds) if signal is None else signal[:seconds]
    weights = np.array([a * (1 + tilt * s), a * (1 - tilt * s), a * (1 + strength * s), a * (1 - strength * s)])
    return np.concatenate([np.zeros((4, 1)), np.cumsum(weights, axis=1)], axis=1)


@njit(cache=True)
def elapsed(clocks, start_ns, since_ns, until_ns, busy):
    """Write what each clock ran between two times into `busy (4,)`."""
    most = clocks.shape[1] - 1.000001
    first = min(max((since_ns - start_ns) / 1e9, 0.0), most)
    last = min(max((until_ns - start_ns) / 1e9, 0.0), most)
    i, j = np.int64(first), np.int64(last)
    for c in range(4):
        low = clocks[c, i] + (first - i) * (clocks[c, i + 1] - clocks[c, i])
        busy[c] = clocks[c, j] + (last - j) * (clocks[c, j + 1] - clocks[c, j]) - low


@njit(cache=True)
def lean_at(clocks, start_ns, ts_ns):
    """Lean k s of the price in the second of `ts_ns`."""
    i = np.int64(min(max((ts_ns - start_ns) / 1e9, 0.0), clocks.shape[1] - 1.000001))
    up, down = clocks[LEAN_UP, i + 1] - clocks[LEAN_UP, i], clocks[LEAN_DOWN, i + 1] - clocks[LEAN_DOWN, i]
    return (up - down) / (up + down) if up + down > 0.0 else 0.0


@njit(cache=True)
def expose(counts, units, known, spread, busy, seconds):
    """A state stood: `units (2, L)` by side and level, `known (2,)` levels whose length is known, `busy (4,)` time."""
    for b in range(2):
        toward, away = (UP, DOWN) if b == 0 else (DOWN, UP)
        for level in range(min(known[b], counts.limit_s.shape[0])):
            counts.limit_s[level, units[b, level]] += busy[toward]
            counts.cancel_s[level, units[b, level]] += busy[away]
        if spread == 1:
            counts.narrow_s[units[b, 0]] += busy[LEAN_UP if b == 1 else LEAN_DOWN]
    if spread > 1:
        counts.open_s[0] += seconds


@njit(cache=True)
def count_end(counts, units, spread):
    """A best queue of `units` is gone."""
    if spread == 1:
        counts.depletion[units] += 1
    else:
        counts.totals[WIDE] += 1


@njit(cache=True)
def count_closing(counts, b, gap, lean):
    """The best price of side `b` improved; `gap` says which side was used up last (0: not known)."""
    if gap != 0:
        counts.open_s[1] += 1.0 + lean * gap
        counts.totals[FOLLOWS if (gap > 0) == (b == 0) else RETURNS] += 1


def add_counts(parts: Sequence[FlowCounts]) -> FlowCounts:
    """Counts of several days in one; `minutes` are laid end to end."""
    sums = {name: np.sum([getattr(part, name) for part in parts], axis=0) for name in FlowCounts._fields[:-1]}
    return FlowCounts(**sums, minutes=np.concatenate([part.minutes for part in parts]))


def add_sizes(parts: Sequence[Sizes]) -> Sizes:
    """Sizes of several days in one."""
    filled = np.sum([part.filled for part in parts], axis=0)
    room = max(int(filled[:3].max()), 1)
    lots, levels = np.zeros((3, room), np.int64), np.zeros((3, room), np.int8)
    for kind in range(3):
        lots[kind, : filled[kind]] = np.concatenate([part.lots[kind, : part.filled[kind]] for part in parts])
        levels[kind, : filled[kind]] = np.concatenate([part.levels[kind, : part.filled[kind]] for part in parts])
    refill = np.concatenate([part.refill[: part.filled[3]] for part in parts])
    revealed = np.concatenate([part.revealed[: part.filled[4]] for part in parts])
    return Sizes(lots, levels, refill, revealed, filled)
