"""The queues of one reactive market: prices, lengths and the rates they give, and what joining and leaving do to them.

A queue is its lots and, where the tables count orders, their number: with geometric sizes the pair is a Markov process
by itself, since given both every composition of the lots into orders is alike. Rates are kept as sums by side and kind
and changed by the difference that an event makes.
"""

import numpy as np

from training.market.queues import inlined, kernel
from training.market.reactive.draws import poisson, size, uniform
from training.market.reactive.state import KEPT_LEVELS, RING

SLOT = RING - 1


@inlined
def price_at(m, b, level):
    """Price of a level counted from the best of side `b` (0 bids, 1 asks)."""
    return m.ask + level if b == 1 else m.bid - level


@inlined
def level_of(m, b, price):
    """Level of a price of side `b`; negative where it is better than the best."""
    return price - m.ask if b == 1 else m.bid - price


@inlined
def own_at(m, b, price):
    """Own lots at a price of side `b`."""
    return m.own_lots if m.own_lots > 0 and m.own_side == b and m.own_px == price else np.int64(0)


@inlined
def length(p, m, b, price):
    """Length of a queue as the tables count it; own lots count as orders of `unit_lots`."""
    slot = price & SLOT
    units = m.orders[b, slot] if p.by_orders == 1 else np.int64(np.ceil(m.lots[b, slot] / p.unit_lots))
    if own_at(m, b, price) > 0:
        units += m.own_units
    return min(units, p.limit.shape[1] - 1)


@inlined
def refresh(p, m, b, price):
    """After a queue changed: its length, and the sums of the rates."""
    slot = price & SLOT
    units, was = length(p, m, b, price), m.units[b, slot]
    m.units[b, slot] = units
    level = level_of(m, b, price)
    if 0 <= level < p.limit.shape[0]:
        m.arrivals[b] += p.limit[level, units] - p.limit[level, was]
        m.leaves[b] += p.cancel[level, units] - p.cancel[level, was]


@kernel
def sum_rates(p, m):
    """Sum the rates of limit orders and cancels anew: levels change places when the price moves."""
    if m.own_lots > 0 and level_of(m, m.own_side, m.own_px) < KEPT_LEVELS:  # it may have been out of reach before
        m.units[m.own_side, m.own_px & SLOT] = length(p, m, m.own_side, m.own_px)
    for b in range(2):
        arrive, leave = 0.0, 0.0
        for level in range(p.limit.shape[0]):
            units = m.units[b, price_at(m, b, level) & SLOT]
            arrive += p.limit[level, units]
            leave += p.cancel[level, units]
        m.arrivals[b], m.leaves[b] = arrive, leave


@kernel
def fill_queue(p, m, b, level, count):
    """`count` new orders join a level."""
    price = price_at(m, b, level)
    slot, lots = price & SLOT, np.int64(0)
    for _ in range(count):
        lots += size(m, m.limit_scale, p.limit_sizes, level)
    m.lots[b, slot] += lots
    m.orders[b, slot] += count
    m.joined += lots
    refresh(p, m, b, price)


@kernel
def own_after_cancel(m, b, price, lots, pick):
    """`lots` of others leave our price around the lot at `pick` in [0, 1) of all others'; call it before they leave."""
    if own_at(m, b, price) == 0:
        return
    others = m.lots[b, price & SLOT]
    place = np.int64(pick * others)
    if place < m.own_ahead:
        gone = min(lots, m.own_ahead)
        m.own_ahead -= gone
        m.own_behind -= gone
    elif place < m.own_behind:
        m.own_behind -= min(lots, m.own_behind - m.own_ahead)
    m.own_behind = min(max(m.own_behind, 0), others - lots)
    m.own_ahead = min(m.own_ahead, others - lots)


@kernel
def take(p, m, b, price, lots):
    """A market order of others takes up to `lots` from the front of a queue, own ones among them; lots taken."""
    slot = price & SLOT
    others = np.int64(m.lots[b, slot])
    from_others, own = min(lots, others), np.int64(0)
    if own_at(m, b, price) > 0:
        front = m.own_lots - m.own_back
        ahead = min(lots, m.own_ahead)
        first = min(lots - ahead, front)
        middle = min(lots - ahead - first, m.own_behind - m.own_ahead if m.own_back > 0 else 0)
        second = min(lots - ahead - first - middle, m.own_back)
        own = first + second
        from_others = ahead + middle + min(lots - ahead - first - middle - second, others - ahead - middle)
        m.own_ahead -= ahead
        m.own_behind -= ahead + middle
        _shrink_own(p, m, own)
    if p.by_orders == 1 and from_others > 0:
        m.orders[b, slot] -= orders_among(m, others, m.orders[b, slot], from_others)
    m.lots[b, slot] -= from_others
    m.traded += from_others
    m.trade_px, m.trade_lots, m.trade_side = price, from_others + own, 1 if b == 1 else -1
    m.filled = own
    refresh(p, m, b, price)
    return from_others + own


@inlined
def _shrink_own(p, m, lots):
    """Own lots were filled, front first; what was added later moves up when the front is gone."""
    front = m.own_lots - m.own_back
    m.own_lots -= lots
    if lots >= front:
        m.own_back = 0
        m.own_ahead = m.own_behind
    m.own_units = np.int64(np.ceil(m.own_lots / p.unit_lots))


@kernel
def orders_among(m, lots, orders, taken):
    """Orders that the first `taken` of a queue's lots make up whole."""
    if taken >= lots:
        return orders
    cuts, places, whole = orders - 1, lots - 1, 0
    for _ in range(taken):
        if cuts == 0:
            break
        if uniform(m) * places < cuts:
            cuts -= 1
            whole += 1
        places -= 1
    return whole


@kernel
def retreat(p, m, b, levels):
    """The best price of a side gives way by `levels` ticks; prices that come within reach may get queues (`enters`).

    Where deeper levels are unknown, the queue that stands at the new best price is drawn from those revealed.
    """
    m.orders[b, price_at(m, b, 0) & SLOT] = 0
    m.gap = 1 if b == 1 else -1
    if b == 1:
        m.ask += levels
    else:
        m.bid = max(m.bid - levels, 1)
    slot = price_at(m, b, 0) & SLOT
    if p.revealed.shape[0] > 0 and m.lots[b, slot] == 0:
        lots = np.int64(p.revealed[np.int64(uniform(m) * p.revealed.shape[0])])
        m.lots[b, slot] = lots
        m.joined += lots
        refresh(p, m, b, price_at(m, b, 0))
    if p.enters == 1:
        deepest = p.limit.shape[0]
        for level in range(max(1, deepest - levels), deepest):
            if m.lots[b, price_at(m, b, level) & SLOT] == 0:
                fill_queue(p, m, b, level, p.opening_least[level] + poisson(m, p.opening_more[level]))
    sum_rates(p, m)


@inlined
def forget_level(m, b, price):
    """Others' orders at a price far behind the best are cancelled."""
    slot = price & SLOT
    m.left += m.lots[b, slot]
    m.lots[b, slot] = m.orders[b, slot] = m.units[b, slot] = 0
    if own_at(m, b, price) > 0:
        m.own_ahead = m.own_behind = 0
