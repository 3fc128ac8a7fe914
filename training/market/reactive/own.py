"""Own orders in the reactive market: they join its queues, leave them, and take from the other side.

One order rests at a time, at one price; lots added to it later stand behind whoever joined meanwhile. All of it counts
in the length of its queue, and what is taken is gone: the flow after it is that of the changed book.
"""

import numpy as np

from training.market.queues import kernel
from training.market.reactive.ladder import (
    SLOT,
    length,
    level_of,
    orders_among,
    own_at,
    price_at,
    refresh,
    retreat,
    sum_rates,
)
from training.market.reactive.state import KEPT_LEVELS, REACH


@kernel
def withdraw(p, m):
    """The resting order is cancelled; where it was the best price alone, that price gives way."""
    if m.own_lots == 0:
        return
    b, price = m.own_side, m.own_px
    m.own_lots = m.own_back = m.own_units = m.own_ahead = m.own_behind = 0
    if level_of(m, b, price) >= KEPT_LEVELS:
        return
    refresh(p, m, b, price)
    give_way(p, m, b)


@kernel
def give_way(p, m, b):
    """Where the best queue of a side is empty after our doing, the next one that holds lots is the best."""
    levels = 0
    while levels < REACH:
        price = price_at(m, b, levels)
        if m.lots[b, price & SLOT] + own_at(m, b, price) > 0:
            break
        levels += 1
    if levels > 0:
        retreat(p, m, b, levels if levels < REACH else 1)


@kernel
def rest(p, m, b, price, lots):
    """Let `lots` in all rest at `price` on side `b`, post-only.

    False, and nothing changes, where they would take or the price is out of reach.

    At the price of the order that rests now, fewer lots leave from its back and more join the back of the queue; an
    order at another price is withdrawn first.
    """
    if price < 1 or level_of(m, b, price) >= KEPT_LEVELS or level_of(m, 1 - b, price) >= 0:
        return False
    if m.own_lots > 0 and (m.own_side != b or m.own_px != price or lots == 0):
        withdraw(p, m)
    if lots == 0:
        return True
    others = np.int64(m.lots[b, price & SLOT]) if level_of(m, b, price) >= 0 else np.int64(0)
    if m.own_lots == 0:
        m.own_side, m.own_px, m.own_back = b, price, 0
        m.own_ahead = m.own_behind = others
    elif lots < m.own_lots:
        m.own_back = max(0, m.own_back - (m.own_lots - lots))
    elif lots > m.own_lots:
        m.own_back += lots - m.own_lots
        m.own_behind = others
    m.own_lots = lots
    m.own_units = np.int64(np.ceil(lots / p.unit_lots))
    if level_of(m, b, price) >= 0:
        refresh(p, m, b, price)
        return True
    if b == 1:
        m.ask = price
    else:
        m.bid = price
    if m.ask - m.bid == 1:
        m.gap = 0
    m.units[b, price & SLOT] = length(p, m, b, price)
    sum_rates(p, m)
    return True


@kernel
def take_level(p, m, b, lots, limit):
    """Take up to `lots` at the best price of side `b` that still holds any, no worse than `limit` (0: no limit).

    Returns price and lots, 0 lots where there is nothing more. Call it until enough is taken, then `give_way`.
    """
    for level in range(REACH):
        price = price_at(m, b, level)
        slot = price & SLOT
        standing = np.int64(m.lots[b, slot])
        if standing == 0:
            continue
        if limit > 0 and (price > limit if b == 1 else price < limit):
            break
        taken = min(lots, standing)
        if p.by_orders == 1:
            m.orders[b, slot] -= orders_among(m, standing, m.orders[b, slot], taken)
        m.lots[b, slot] -= taken
        m.traded += taken
        m.trade_px, m.trade_side = price, 1 if b == 1 else -1
        m.trade_lots += taken
        refresh(p, m, b, price)
        return price, taken
    return np.int64(0), np.int64(0)
