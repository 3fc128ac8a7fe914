"""How replayed history reacts to an episode's own fills: a translation of the book, brought up to date every second.

An episode's parent has one side, so that its displacement never helps it: the book that it sees and meets is history's,
moved against it by `state.shift` ticks. Inside the engine prices are history's (rest_px and the ledger of taken lots
too); what is seen, sent, paid and recorded has the shift in it.

* The shift is the displacement of `impact`, rounded; it changes after an own order has taken, and at whole seconds,
  when decay and fills of resting orders come in.
* A resting order keeps its price. When the book moves under it, it stands behind all that is displayed there then.
* A child order that takes pays, beside walking the book, what the walk lacks to the concession c(q). A limit order that
  is marketable reaches no further than its limit less its concession.
* In the accounts the shift and the concession are impact; timing is history's move alone.
"""

import numpy as np

from training.market.impact import (
    NS,
    concession_ticks,
    decay_to,
    displacement,
    dither_of,
    push,
    shift_of,
    start_impact,
    whole_concession,
)
from training.market.impact_features import note_change
from training.market.queues import kernel
from training.market.resting import rejoin


@kernel
def begin_reaction(tape, state):
    """A parent has started: nothing is displaced yet. Without impact on the tape nothing will be."""
    state.shift = state.reacts = 0
    if len(tape.reaction.episodes) > 0:
        impact = tape.reaction.episodes[state.slot]
        u = dither_of(state.start_ns, state.day)
        start_impact(impact, tape.reaction.parameters[state.day], state.start_ns, state.arrival_mid2, u)
        state.reacts = impact.active


@kernel
def next_reaction_ns(tape, state, until_ns):
    """The next whole second, up to `until_ns`, at which the shift may change; `until_ns` + 1 where it cannot."""
    impact = tape.reaction.episodes[state.slot]
    still = state.rest_lots == 0 and state.passive_lots == impact.passive_seen and displacement(impact) == 0.0
    if still:
        impact.next_ns = max(impact.next_ns, (until_ns // NS + 1) * NS)
    return min(impact.next_ns, until_ns + 1)


@kernel
def settle(tape, state, now_ns):
    """Bring displacement and shift up to `now_ns`; rows stamped up to then have been played."""
    impact = tape.reaction.episodes[state.slot]
    decay_to(impact, now_ns)
    impact.next_ns = (now_ns // NS + 1) * NS
    rested = state.passive_lots - impact.passive_seen
    if rested > 0:
        impact.passive_seen = state.passive_lots
        push(impact, state.side * rested, now_ns, True)
    shift = shift_of(impact)
    if shift == state.shift:
        return
    row = tape.rows[state.row]
    note_change(impact, now_ns, state.shift, shift, row.bid_sz, row.ask_sz)
    impact.moved = 1
    state.rest_px -= shift - state.shift
    state.shift = shift
    if state.rest_lots > 0 and state.waits == 0:
        rejoin(tape, state, now_ns)


@kernel
def reach(tape, state, limit, lots):
    """The book price, 1 at least, up to which a marketable order of `lots` with own `limit` may walk."""
    price = limit - state.shift
    if state.reacts == 0:
        return price
    impact = tape.reaction.episodes[state.slot]
    return max(np.int64(1), price - state.side * whole_concession(impact, concession_ticks(impact, lots)))


@kernel
def charge(tape, state, ts_ns, lots, walk2, forced, fills, first, fill_count):
    """An own order has taken `lots`, walking the book for `walk2` (half ticks x lots): charge, displace, settle.

    Its recorded fills, from place `first` on, get the concession too.
    """
    if state.reacts == 0 or lots == 0:
        return
    impact = tape.reaction.episodes[state.slot]
    extra = whole_concession(impact, concession_ticks(impact, lots) - 0.5 * walk2 / lots)
    impact.children += 1
    state.impact2 += 2 * extra * lots
    if forced:
        state.forced_cost += state.side * extra * lots
    else:
        state.aggressive_cost += state.side * extra * lots
    if state.record == 1:
        for at in range(first, min(fill_count[0], len(fills))):
            fills[at].price_ticks += state.side * extra
    push(impact, state.side * lots, ts_ns, False)
    settle(tape, state, ts_ns)
