"""Impact of own orders in the order-by-order market: their prices are translated, history's messages stay as they are.

Own trades displace the price as `impact` says. A trader on both sides must not gain by that, so that the displacement
is held against each side alone: a buyer's prices are the book's plus max(D, 0), a seller's the book's plus min(D, 0),
rounded as there; no fill is better than the book's, and no round trip earns. An order takes its translation when it
arrives (or is replaced): it stands in history's queue at its price less that, and is filled at its own price. All is
O(1) for each own message and fill. What a child order takes pays the concession too, as far as its limit lets it.
"""

import numpy as np

from training.market.impact import (
    concession_ticks,
    decay_to,
    displacement,
    dither_of,
    push,
    shift_of,
    start_impact,
    whole_concession,
)
from training.market.queues import BEST, NONE, SPAN, kernel
from training.market.replay_state import FILLS, LOW, REACTS

OFF, WAITING, REACTING = 0, 1, 2  # values of REACTS


@kernel
def shift_now(market, side, ts_ns):
    """Ticks by which an own order of `side` (0 bid, 1 ask) that arrives at `ts_ns` sees the book displaced."""
    state = market.state
    if state[REACTS] == OFF:
        return np.int64(0)
    impact = market.impact[0]
    if state[REACTS] == WAITING:
        if state[BEST] >= NONE or state[BEST + 1] >= NONE:
            return np.int64(0)
        mid2 = 2 * state[LOW] + state[SPAN] - 1 - state[BEST] + state[BEST + 1]
        start_impact(impact, market.parameters[0], ts_ns, mid2, dither_of(ts_ns, 0))
        state[REACTS] = REACTING if impact.active == 1 else OFF
    decay_to(impact, ts_ns)
    if (displacement(impact) > 0.0) != (side == 0):
        return np.int64(0)
    return shift_of(impact)


@kernel
def displace(market, ts_ns, side, lots, maker):
    """An own order of `side` got `lots` of history's, resting (`maker` 1) or taking."""
    if market.state[REACTS] == REACTING:
        push(market.impact[0], lots if side == 0 else -lots, ts_ns, maker == 1)


@kernel
def concede(market, order, first, limited):
    """Charge what an own order took, in its fills from place `first` on; `limited`: no further than its price."""
    state, fills = market.state, market.fills
    if state[REACTS] != REACTING:
        return
    lots, walk, start, worst = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for at in range(first, state[FILLS]):
        if fills[at].order == order and fills[at].maker == 0 and fills[at].history == 1:
            if lots == 0:
                start = np.int64(fills[at].price)
            worst = np.int64(fills[at].price)
            lots += fills[at].lots
            walk += abs(worst - start) * fills[at].lots
    if lots == 0:
        return
    impact, mine = market.impact[0], market.own[order]
    extra = whole_concession(impact, concession_ticks(impact, lots) - walk / lots)
    impact.children += 1
    if limited:
        extra = min(extra, abs(mine.price - worst))
    for at in range(first, state[FILLS]):
        if fills[at].order == order and fills[at].maker == 0 and fills[at].history == 1:
            fills[at].price += extra if mine.side == 0 else -extra
