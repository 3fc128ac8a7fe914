"""How own orders take lots, and the memory of what they took: sweeps, the ledger, and what a fill is booked as.

Own lots taken from a displayed level stay taken until the level's displayed size grows or the level disappears: the
ledger holds (price, lots taken) and keeps `taken = min(taken, displayed)` at every row, so that what can be had is
`displayed - taken`. A level that leaves the visible depth keeps its entry, and so does every level while the book is
unknown: what nobody sees has not been replaced. The rule is the one that DESIGN asks for; hftbacktest's default, by
contrast, refills at once.

A historical trade at such a price that is larger than what we left there could not have been: its excess is counted as
re-routed lots. Whom it would have met instead is not played: the level behind is not charged for it.
"""

import numpy as np

from serving.contracts import tca
from training.market.orders import TAKEN_CAPACITY
from training.market.queues import inlined, kernel
from training.market.tape import level, level_size, mean_level

PASSIVE, AGGRESSIVE, FORCED = 1, 2, 3

# costs and charges are those of serving's accounts, compiled here
_fill_parts, _last_before_beyond, _next_beyond = (
    inlined(formula) for formula in (tca.fill_parts, tca.last_before_beyond, tca.next_beyond)
)


@inlined
def taken_at(state, taken_px, taken_lots, price):
    """Own lots that are still missing from the displayed size at `price`."""
    for j in range(state.taken_count):
        if taken_px[j] == price:
            return taken_lots[j, 0]
    return np.int64(0)


@kernel
def remember_taken(state, taken_px, taken_lots, price, lots):
    """Add `lots` at `price` to the ledger; a full ledger forgets the entry farthest from this price."""
    for j in range(state.taken_count):
        if taken_px[j] == price:
            taken_lots[j, 0] += lots
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
    taken_lots[slot, 0], taken_lots[slot, 1] = lots, 0


@inlined
def age_taken(tape, state, taken_px, taken_lots):
    """Let the ledger follow the displayed book: a level that shrank or went takes the memory of our lots with it.

    First the row's trade is held against what we had left of the level before it; prints add up until the displayed
    size answers them (`taken_lots[:, 1]`), since feeds print a sweep in pieces.
    """
    row, opposite = state.row, -state.side
    if level(tape, row, opposite, 0)[1] <= 0:  # the side shows nothing: every level disappeared
        state.taken_count = 0
        return
    now = tape.rows[row]
    j = np.int64(0)
    while j < state.taken_count:
        shown = level_size(tape, row, opposite, taken_px[j])
        before = level_size(tape, row - 1, opposite, taken_px[j])
        if now.trade_sz > 0 and now.trade_px == taken_px[j] and before >= 0:
            left, printed = before - taken_lots[j, 0], taken_lots[j, 1]
            missed = min(taken_lots[j, 0], max(np.int64(0), printed + now.trade_sz - left))
            state.rerouted_lots += missed - min(taken_lots[j, 0], max(np.int64(0), printed - left))
            taken_lots[j, 1] = printed + now.trade_sz
        if shown != before:
            taken_lots[j, 1] = 0
        if shown >= 0 and taken_lots[j, 0] > shown:
            taken_lots[j, 0] = shown
        if taken_lots[j, 0] == 0:
            state.taken_count -= 1
            taken_px[j] = taken_px[state.taken_count]
            taken_lots[j, 0] = taken_lots[state.taken_count, 0]
            taken_lots[j, 1] = taken_lots[state.taken_count, 1]
        else:
            j += 1


@kernel
def record_fill(state, ts_ns, price, lots, kind, best, mid2, episode, fills, fill_count):
    """Book `lots` at the book's `price` into the episode's accounts; `best` is its opposite best for a taken fill.

    What is paid has the shift of the book in it, which is impact (`reaction`).
    """
    side, shift = state.side, state.shift
    state.filled += lots
    timing2, spread2, impact2 = _fill_parts(side, state.arrival_mid2, price, lots, mid2, best, kind == PASSIVE)
    state.timing2 += timing2
    state.spread2 += spread2
    state.impact2 += impact2 + side * 2 * shift * lots
    price += shift
    if kind == PASSIVE:
        state.passive_lots += lots
        state.passive_cost += price * lots
    else:
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


@kernel
def sweep(tape, state, ts_ns, lots, limit, beyond, kind, taken_px, taken_lots, episode, fills, fill_count):
    """Take up to `lots` from the opposite side, best first, no worse than `limit` (0: no limit). Returns lots taken.

    With `beyond`, what the visible book lacks comes from levels one tick apart behind the deepest visible one, each
    with the mean visible level size; those lots are counted as extrapolated. Where the side shows nothing, the first
    such level is the first price beyond the last known mid. A price never falls below one tick.
    """
    row, side = state.row, state.side
    mid2 = np.int64(tape.rows[row].mid2)
    price, size = level(tape, row, -side, 0)
    best = price if size > 0 else np.int64(0)
    price = best
    left = lots
    for k in range(tape.depth):
        px, size = level(tape, row, -side, k)
        if left == 0 or size <= 0:
            break
        price = px
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
        price = _last_before_beyond(mid2, side)
        best = _next_beyond(price, side)
    size = mean_level(tape, row, -side)
    while left > 0:
        price = _next_beyond(price, side)
        free = left if price == 1 else size - taken_at(state, taken_px, taken_lots, price)
        take = min(left, free)
        if take > 0:
            record_fill(state, ts_ns, price, take, kind, best, mid2, episode, fills, fill_count)
            if kind != FORCED:
                remember_taken(state, taken_px, taken_lots, price, take)
            state.extrapolated_lots += take
            left -= take
    return lots
