"""How own orders meet the book: sweeps that remember what was taken, and the conservative queue of resting orders.

A book row is one int32 vector of length 4 + 4 K (see `tape`): trade price, trade size, trade aggressor, twice the mid;
then bid prices, bid sizes, ask prices, ask sizes, K each, best first, 0 where there is no level.

Own lots taken from a displayed level stay taken until the level's displayed size grows or the level disappears: the
ledger holds (price, lots taken) and keeps `taken = min(taken, displayed)` at every row, so that what can be had is
`displayed - taken`. The rule is the one that DESIGN asks for; hftbacktest's default, by contrast, refills at once.
"""

import numpy as np
from numba import njit

from training.market.orders import TAKEN_CAPACITY

HEAD = 4  # columns before the levels
TRADE_PX, TRADE_SZ, TRADE_SIDE, MID2 = 0, 1, 2, 3
PASSIVE, AGGRESSIVE, FORCED = 1, 2, 3


@njit(cache=True)
def own_offset(side, depth):
    """Column of the first price on the parent's own side (bids for a buy)."""
    return HEAD if side > 0 else HEAD + 2 * depth


@njit(cache=True)
def opposite_offset(side, depth):
    """Column of the first price on the side that the parent would take from (asks for a buy)."""
    return HEAD + 2 * depth if side > 0 else HEAD


@njit(cache=True)
def level_size(book, offset, depth, price, outward):
    """Displayed lots at `price`; 0 where the visible range shows none, -1 where the price lies beyond what is visible.

    `outward` is the sign of the direction in which the side's prices get worse (-1 bids, 1 asks).
    """
    for k in range(depth):
        size = book[offset + depth + k]
        if size <= 0:
            break
        away = outward * (book[offset + k] - price)
        if away == 0:
            return size
        if away > 0:
            return 0
    return -1


@njit(cache=True)
def largest_level(book, offset, depth):
    """Largest displayed size of a side, 0 where the side is empty: the queue assumed at a price that is not visible."""
    largest = 0
    for k in range(depth):
        largest = max(largest, book[offset + depth + k])
    return largest


@njit(cache=True)
def mean_level(book, offset, depth):
    """Mean displayed lots per visible level, at least 1: the size of every level assumed beyond the visible ones."""
    total, count = 0, 0
    for k in range(depth):
        if book[offset + depth + k] > 0:
            total += book[offset + depth + k]
            count += 1
    return max(1, total // count) if count > 0 else 1


@njit(cache=True)
def taken_at(state, taken_px, taken_lots, price):
    """Own lots that are still missing from the displayed size at `price`."""
    for j in range(state.taken_count):
        if taken_px[j] == price:
            return taken_lots[j]
    return 0


@njit(cache=True)
def remember_taken(state, taken_px, taken_lots, price, lots):
    """Add `lots` at `price` to the ledger; a full ledger forgets the entry farthest from this price."""
    for j in range(state.taken_count):
        if taken_px[j] == price:
            taken_lots[j] += lots
            return
    slot = state.taken_count
    if slot == TAKEN_CAPACITY:
        slot = 0
        for j in range(1, TAKEN_CAPACITY):
            if abs(taken_px[j] - price) > abs(taken_px[slot] - price):
                slot = j
    else:
        state.taken_count += 1
    taken_px[slot] = price
    taken_lots[slot] = lots


@njit(cache=True)
def age_taken(state, book, depth, taken_px, taken_lots):
    """Let the ledger follow the displayed book: a level that shrank or went takes the memory of our lots with it."""
    side = state.side
    offset = opposite_offset(side, depth)
    if book[offset + depth] <= 0:  # the side shows nothing: every level disappeared
        state.taken_count = 0
        return
    j = 0
    while j < state.taken_count:
        shown = level_size(book, offset, depth, taken_px[j], side)
        if shown >= 0 and taken_lots[j] > shown:
            taken_lots[j] = shown
        if taken_lots[j] == 0:
            state.taken_count -= 1
            taken_px[j] = taken_px[state.taken_count]
            taken_lots[j] = taken_lots[state.taken_count]
        else:
            j += 1


@njit(cache=True)
def record_fill(state, ts_ns, price, lots, kind, best, mid2, episode, fills, fill_count):
    """Book `lots` at `price` into the episode's accounts; `best` is the opposite best price for a taken fill."""
    side = state.side
    state.filled += lots
    state.timing2 += side * (mid2 - state.arrival_mid2) * lots
    if kind == PASSIVE:
        state.passive_lots += lots
        state.passive_cost += price * lots
        state.spread2 += side * (2 * price - mid2) * lots
    else:
        state.spread2 += side * (2 * best - mid2) * lots
        state.impact2 += side * 2 * (price - best) * lots
        if kind == AGGRESSIVE:
            state.aggressive_lots += lots
            state.aggressive_cost += price * lots
        else:
            state.forced_lots += lots
            state.forced_cost += price * lots
    if state.record == 1:
        at = fill_count[0]
        if at < fills.shape[0]:
            fills[at].episode = episode
            fills[at].ts_ns = ts_ns
            fills[at].price_ticks = price
            fills[at].lots = lots
            fills[at].kind = kind
        fill_count[0] += 1


@njit(cache=True)
def sweep(state, book, depth, ts_ns, lots, limit, beyond, kind, taken_px, taken_lots, episode, fills, fill_count):
    """Take up to `lots` from the opposite side, best first, no worse than `limit` (0: no limit). Returns lots taken.

    With `beyond`, what the visible book lacks comes from levels one tick apart behind the deepest visible one, each
    with the mean visible level size; those lots are counted as extrapolated. Where the side shows nothing, the first
    such level is the first price beyond the last known mid. A price never falls below one tick.
    """
    side = state.side
    offset = opposite_offset(side, depth)
    mid2 = np.int64(book[MID2])
    best = np.int64(book[offset]) if book[offset + depth] > 0 else np.int64(0)
    price = best
    left = lots
    for k in range(depth):
        size = book[offset + depth + k]
        if left == 0 or size <= 0:
            break
        price = np.int64(book[offset + k])
        if limit > 0 and side * (price - limit) > 0:
            return lots - left
        take = min(left, size - taken_at(state, taken_px, taken_lots, price))
        if take > 0:
            record_fill(state, ts_ns, price, take, kind, best, mid2, episode, fills, fill_count)
            remember_taken(state, taken_px, taken_lots, price, take)
            left -= take
    if left == 0 or beyond == 0:
        return lots - left
    if best == 0:
        price = mid2 // 2 if side > 0 else (mid2 + 1) // 2
        best = max(np.int64(1), price + side)
    size = mean_level(book, offset, depth)
    while left > 0:
        price = max(np.int64(1), price + side)
        free = left if price == 1 else size - taken_at(state, taken_px, taken_lots, price)
        take = min(left, free)
        if take > 0:
            record_fill(state, ts_ns, price, take, kind, best, mid2, episode, fills, fill_count)
            if kind != FORCED:
                remember_taken(state, taken_px, taken_lots, price, take)
            state.extrapolated_lots += take
            left -= take
    return lots


@njit(cache=True)
def fill_passively(state, lots, ts_ns, mid2, episode, fills, fill_count):
    """Book `lots` at our own resting price, front of the queue first."""
    from_back = max(0, lots - (state.rest_lots - state.back_lots))
    state.rest_lots -= lots
    state.back_lots -= from_back
    if state.rest_lots == state.back_lots and state.back_lots > 0:  # what was added later is now the front
        state.rest_ahead, state.back_lots = state.back_ahead, 0
    record_fill(state, ts_ns, state.rest_px, lots, PASSIVE, 0, mid2, episode, fills, fill_count)
    if state.pend_ns > 0:
        state.pend_filled += lots


@njit(cache=True)
def trade_reaches(state, volume):
    """Let `volume` traded at our price eat into the queue; returns the own lots that it reaches.

    The queue is: rest_ahead lots of others, our front, more of others up to back_ahead in all, our back.
    """
    front = state.rest_lots - state.back_lots
    reached = min(front, max(0, volume - state.rest_ahead))
    state.rest_ahead = max(0, state.rest_ahead - volume)
    if state.back_lots > 0:
        behind = volume - reached
        passed = min(state.back_ahead, behind)
        state.back_ahead -= passed
        if reached == front:
            reached += min(state.back_lots, behind - passed)
    return reached


@njit(cache=True)
def fill_resting(state, book, depth, ts_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Let one book row meet the resting lots under the conservative queue.

    * a trade through our price fills up to its volume; a trade at our price first uses up the queue ahead;
      trades by our own side do not count, trades of unknown side do;
    * the queue ahead is never more than what is displayed at our price (cancels ahead of us count only then);
    * displayed opposite lots at or through our price, less those already taken, fill us at our own price.
    """
    side = state.side
    price = state.rest_px
    mid2 = np.int64(book[MID2])
    volume = np.int64(book[TRADE_SZ])
    if volume > 0 and book[TRADE_SIDE] != side:
        beyond = side * (price - book[TRADE_PX])
        lots = np.int64(0)
        if beyond == 0:
            lots = trade_reaches(state, volume)
        elif beyond > 0:
            state.rest_ahead = state.back_ahead = 0
            lots = min(state.rest_lots, volume)
        if lots > 0:
            fill_passively(state, lots, ts_ns, mid2, episode, fills, fill_count)
    shown = level_size(book, own_offset(side, depth), depth, price, -side)
    if shown >= 0:
        state.rest_ahead = min(state.rest_ahead, shown)
        state.back_ahead = min(state.back_ahead, shown)
    offset = opposite_offset(side, depth)
    for k in range(depth):
        size = book[offset + depth + k]
        level_px = np.int64(book[offset + k])
        if state.rest_lots == 0 or size <= 0 or side * (level_px - price) > 0:
            break
        lots = min(state.rest_lots, size - taken_at(state, taken_px, taken_lots, level_px))
        if lots > 0:
            remember_taken(state, taken_px, taken_lots, level_px, lots)
            fill_passively(state, lots, ts_ns, mid2, episode, fills, fill_count)
