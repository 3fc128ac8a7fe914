"""Counts how often a book of DEPTH updates or of orders stands crossed or locked; such rows are told of, never taken.

When bids and asks of a replayed book overlap, one of the many updates that made it is wrong, and nobody says which: to
quarantine the last one would leave the wrong one standing. So the accounting's notes tell how often and how long.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.pipeline.rule_kernels import ADD, BUY, CANCEL, CLEAR, DEPTH, LAST, REPLACE, SELL, TRADE, Events

NOTE_STRETCHES, NOTE_TIME = "book_crossed_stretches", "book_crossed_ns"


def crossed_stretches(rule: NDArray[np.int16], events: Events, grace_ns: int) -> dict[str, int]:
    """Stretches longer than `grace_ns` in which the kept rows' best bid is at or above the best ask, and their time.

    The book is looked at after rows flagged LAST, after every row where none is. Empty where nothing is crossed.
    """
    kept = rule <= 0
    placed = kept & ((events.kind == DEPTH) | (events.kind == ADD) | (events.kind == REPLACE))
    if not placed.any():
        return {}
    levels, orders = np.unique(events.price[placed]), np.unique(events.order_id[placed])
    level, order = _places(levels, events.price), _places(orders, events.order_id)
    messages = bool((events.flags[placed] & LAST).any())
    count, time_ns = _replay(kept, events, level, order, len(levels), len(orders), messages, grace_ns)
    return {NOTE_STRETCHES: int(count), NOTE_TIME: int(time_ns)} if count else {}


def _places(known: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each value among the sorted `known`, -1 where it is not there."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, at, -1)


@njit(cache=True, nogil=True)
def _add(lots, best, side, at, change):
    """Change the lots at a level and keep the best levels right; bids are best at the highest place, asks lowest."""
    held = lots[side]
    held[at] = max(0, held[at] + change)
    if side == 0:
        if held[at] > 0:
            best[0] = max(best[0], at)
        while best[0] >= 0 and held[best[0]] == 0:
            best[0] -= 1
    else:
        if held[at] > 0:
            best[1] = min(best[1], at)
        while best[1] < len(held) and held[best[1]] == 0:
            best[1] += 1


@njit(cache=True, nogil=True)
def _replay(kept, events, level, order, levels, orders, messages, grace_ns):
    ts, _, _, kind, side, _, size, order_id, flags = events
    lots = np.zeros((2, levels), np.int64)
    best = np.array([-1, levels])
    at_level = np.full(orders, -1, np.int64)
    at_side, left = np.zeros(orders, np.int64), np.zeros(orders, np.int64)
    count, total, since = 0, 0, np.int64(-1)
    for i in range(len(kept)):
        if not kept[i]:
            continue
        k, o = kind[i], order[i]
        if k == CLEAR:
            lots[:] = 0
            best[0], best[1] = -1, levels
            at_level[:] = -1
        elif k == DEPTH and side[i] != 0:
            s = 0 if side[i] == BUY else 1
            _add(lots, best, s, level[i], size[i] - lots[s, level[i]])
        elif (k == ADD or k == REPLACE) and o >= 0:
            s = at_side[o]
            if at_level[o] >= 0:
                _add(lots, best, s, at_level[o], -left[o])
            if side[i] == BUY or side[i] == SELL:
                s = 0 if side[i] == BUY else 1
            at_level[o], at_side[o], left[o] = level[i], s, size[i]
            _add(lots, best, s, level[i], size[i])
        elif (k == CANCEL or k == TRADE) and order_id[i] != 0:
            if o >= 0 and at_level[o] >= 0:
                gone = min(size[i], left[o])
                left[o] -= gone
                _add(lots, best, at_side[o], at_level[o], -gone)
                if left[o] == 0:
                    at_level[o] = -1
            elif level[i] >= 0 and side[i] != 0:  # of an order from before: its lots are among those at its price
                resting = side[i] if k == CANCEL else -side[i]
                _add(lots, best, 0 if resting == BUY else 1, level[i], -size[i])
        if messages and flags[i] & LAST == 0:
            continue
        crossed = best[0] >= 0 and best[1] < levels and best[0] >= best[1]
        if crossed and since < 0:
            since = ts[i]
        elif not crossed and since >= 0:
            if ts[i] - since > grace_ns:
                count += 1
                total += ts[i] - since
            since = np.int64(-1)
    if since >= 0:
        count += 1
        total += max(np.int64(0), ts[-1] - since)
    return count, total
