"""The compiled queue-reactive market: the next event of a book of aggregated queues, own lots among them.

Rates stand for a second at a time (`ladder`): each second and each move of the price sums them anew.
"""

import numpy as np

from training.market.queues import inlined, kernel
from training.market.reactive.draws import exponential, normal_pair, part, poisson, size, uniform
from training.market.reactive.ladder import (
    SLOT,
    fill_queue,
    forget_level,
    orders_among,
    own_after_cancel,
    own_at,
    price_at,
    refresh,
    retreat,
    sum_rates,
    take,
)
from training.market.reactive.state import KEPT_LEVELS, NS, REACH, RING

MOST_LOTS = 1 << 28  # at one price: beyond it nobody joins


@kernel
def turn_second(p, m):
    """A new second begins: activity and signal move, and with them every rate."""
    m.second_ns += NS
    more, other = normal_pair(m)
    m.activity = m.activity_keep * m.activity + np.sqrt(1.0 - m.activity_keep**2) * more
    m.signal = m.signal_keep * m.signal + np.sqrt(1.0 - m.signal_keep**2) * other
    _set_speed(p, m)
    sum_rates(p, m)


@inlined
def _set_speed(p, m):
    place = min(max(2.0 * (m.now_ns - m.open_ns) / m.length_ns - 1.0, -1.0), 1.0)
    shape = (1.0 + p.u_shape * place**2) / (1.0 + p.u_shape / 3.0)
    m.speed = np.exp(p.activity_sd * m.activity - 0.5 * p.activity_sd**2) * shape
    signal = min(max(m.signal, -1.0), 1.0)
    m.lean, m.tilt = m.strength * signal, m.most_tilt * signal


@kernel
def open_market(p, m, seed, start_ns, bid):
    """Start afresh at `start_ns` with a new book around the best bid `bid` (ticks) and the stream `seed` (uint64)."""
    m.rng = seed
    m.now_ns, m.second_ns = start_ns, start_ns + NS
    m.bid, m.ask, m.gap = bid, bid + 1, 0
    m.events = m.joined = m.left = m.traded = 0
    m.trade_px = m.trade_lots = m.trade_side = 0
    m.own_side = m.own_px = m.own_lots = m.own_ahead = m.own_back = m.own_behind = m.own_units = m.filled = 0
    for b in range(2):
        for slot in range(RING):
            m.lots[b, slot] = m.orders[b, slot] = m.units[b, slot] = 0
    m.activity, m.signal = normal_pair(m)
    _set_speed(p, m)
    for level in range(p.limit.shape[0]):
        for b in range(2):
            fill_queue(p, m, b, level, p.opening_least[level] + poisson(m, p.opening_more[level]))
    sum_rates(p, m)


@inlined
def _limit(p, m, b, level):
    price = price_at(m, b, level)
    slot = price & SLOT
    lots = size(m, m.limit_scale, p.limit_sizes, level)
    if m.lots[b, slot] + lots > MOST_LOTS or price < 1:
        return False
    m.lots[b, slot] += lots
    m.orders[b, slot] += 1
    m.joined += lots
    refresh(p, m, b, price)
    return True


@inlined
def _cancel(p, m, b, level):
    price = price_at(m, b, level)
    slot = price & SLOT
    others, own = np.int64(m.lots[b, slot]), own_at(m, b, price)
    if own > 0 and uniform(m) * m.units[b, slot] < m.own_units:
        return False  # it fell on an own order, which nobody else can cancel
    least = 1 if level == 0 and own == 0 else 0  # a best queue is not emptied by a cancel
    if p.by_orders == 1:
        if m.orders[b, slot] <= least:
            return False
        lots = part(m, others, m.orders[b, slot])
    else:
        lots = min(size(m, m.cancel_scale, p.cancel_sizes, level), others - least)
        if lots <= 0:
            return False
    if own > 0:
        own_after_cancel(m, b, price, lots, uniform(m))
    m.lots[b, slot] -= lots
    m.orders[b, slot] -= 1
    m.left += lots
    refresh(p, m, b, price)
    return True


@kernel
def _market(p, m, b):
    """A market order that leaves the best queue standing."""
    price = price_at(m, b, 0)
    standing = m.lots[b, price & SLOT] + own_at(m, b, price)
    lots = min(size(m, m.market_scale, p.market_sizes, 0), standing - 1)
    if lots < 1:
        return False
    take(p, m, b, price, lots)
    return True


@kernel
def _deplete(p, m, b):
    """A best queue is used up: part of it trades, the rest is cancelled, and the spread opens.

    The buyer or seller wants as many lots as others show. Own lots among them are met in their place in the queue,
    and what is left of those holds the price.
    """
    price = price_at(m, b, 0)
    slot = price & SLOT
    others, own = np.int64(m.lots[b, slot]), own_at(m, b, price)
    cancelled = others - min(others, max(1, np.int64(p.traded_share * others)))
    wanted = others
    if own > 0:
        wanted = max(others, size(m, m.market_scale, p.market_sizes, 0))
        share = cancelled / others if others > 0 else 0.0
        ahead, middle = np.int64(share * m.own_ahead + 0.5), np.int64(share * m.own_behind + 0.5)
        m.own_ahead, m.own_behind = m.own_ahead - ahead, m.own_behind - middle
        m.own_behind = min(m.own_behind, others - cancelled)
        m.own_ahead = min(m.own_ahead, m.own_behind if m.own_back > 0 else others - cancelled)
        if p.by_orders == 1 and cancelled > 0:
            m.orders[b, slot] -= min(m.orders[b, slot] - 1, orders_among(m, others, m.orders[b, slot], cancelled))
    m.lots[b, slot] -= cancelled
    m.left += cancelled
    if others + own > 0:
        take(p, m, b, price, wanted)
    if m.lots[b, slot] == 0 and own_at(m, b, price) == 0:
        retreat(p, m, b, 1)
    return True


@kernel
def _close_spread(p, m):
    """The spread narrows by a tick: the other side follows, or the used-up one comes back, with a new queue."""
    follows = uniform(m) < p.follow * (1.0 + m.lean * m.gap)
    b = 0 if (m.gap > 0) == follows else 1
    if b == 1:
        m.ask -= 1
    else:
        m.bid += 1
    if m.ask - m.bid == 1:
        m.gap = 0
    for side in range(2):
        for level in range(KEPT_LEVELS, REACH):
            forget_level(m, side, price_at(m, side, level))
    fill_queue(p, m, b, 0, p.refill_least + poisson(m, p.refill_more))
    sum_rates(p, m)
    return True


@inlined
def _level_among(p, m, b, rates, pick):
    """Level that `pick` falls on in the rates of one side and kind."""
    chosen = 0
    for level in range(p.limit.shape[0]):
        rate = rates[level, m.units[b, price_at(m, b, level) & SLOT]]
        if rate > 0.0:
            chosen = level
            if pick < rate:
                break
            pick -= rate
    return chosen


@inlined
def next_event(p, m, until_ns):
    """Play one event, or the clock up to `until_ns` where none comes before; True where something happened."""
    m.trade_lots = m.filled = 0
    while True:
        toward, away = 1.0 + m.tilt, 1.0 - m.tilt
        buy_limits, sell_limits = m.arrivals[0] * toward, m.arrivals[1] * away
        bids_left, asks_left = m.leaves[0] * away, m.leaves[1] * toward
        bids, asks = m.units[0, m.bid & SLOT], m.units[1, m.ask & SLOT]
        trades = p.market[bids] + p.market[asks]
        narrow = m.ask - m.bid == 1
        ends = p.depletion[bids] + p.depletion[asks] if narrow else 0.0
        total = m.speed * (buy_limits + sell_limits + bids_left + asks_left + trades + ends)
        if not narrow:
            total += p.closing
        at = m.now_ns + np.int64(exponential(m) / total * 1e9) + 1 if total > 0.0 else np.int64(1) << 62
        stop = min(until_ns, m.second_ns)
        if at > stop:  # rates may change there: draw again from there on (memoryless)
            m.now_ns = stop
            if stop == m.second_ns:
                turn_second(p, m)
            if stop == until_ns:
                return False
            continue
        m.now_ns = at
        pick = uniform(m) * total / m.speed
        if pick < buy_limits + sell_limits:
            b = 0 if pick < buy_limits else 1
            pick = pick / toward if b == 0 else (pick - buy_limits) / away
            done = _limit(p, m, b, _level_among(p, m, b, p.limit, pick))
        else:
            pick -= buy_limits + sell_limits
            if pick < bids_left + asks_left:
                b = 0 if pick < bids_left else 1
                pick = pick / away if b == 0 else (pick - bids_left) / toward
                done = _cancel(p, m, b, _level_among(p, m, b, p.cancel, pick))
            else:
                done = _rare_event(p, m, pick - bids_left - asks_left, trades, ends, bids, asks)
        if done:
            m.events += 1
            return True


@kernel
def _rare_event(p, m, pick, trades, ends, bids, asks):
    """A market order, the end of a best queue, or the end of an open spread."""
    if pick < trades:
        at_ask, at_bid = p.market[asks] * (1.0 + m.tilt), p.market[bids] * (1.0 - m.tilt)
        return _market(p, m, 1 if uniform(m) * (at_ask + at_bid) < at_ask else 0)
    if m.ask - m.bid > 1:
        return _close_spread(p, m)
    at_ask, at_bid = p.depletion[asks] * (1.0 + m.lean), p.depletion[bids] * (1.0 - m.lean)
    return _deplete(p, m, 1 if uniform(m) * (at_ask + at_bid) < at_ask else 0)


@kernel
def play(p, m, until_ns):
    """Play the market up to `until_ns`, whatever becomes of own orders; events so far."""
    while next_event(p, m, until_ns):
        pass
    return m.events
