"""The compiled queue-reactive market: the next event of a book of aggregated queues, own lots among them.

A queue is its lots and, where the tables count orders, their number: with geometric sizes the pair is a Markov process
by itself, since given both every composition of the lots into orders is alike. Rates are kept as sums by side and kind
and changed by the difference that an event makes; each second and each move of the price sums them anew.
"""

import numpy as np

from training.market.queues import inlined, kernel
from training.market.reactive.draws import exponential, normal_pair, part, poisson, size, uniform
from training.market.reactive.state import KEPT_LEVELS, NS, REACH, RING

SLOT = RING - 1
MOST_LOTS = 1 << 28  # at one price: beyond it nobody joins


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
def forget_level(m, b, price):
    """Others' orders at a price far behind the best are cancelled."""
    slot = price & SLOT
    m.left += m.lots[b, slot]
    m.lots[b, slot] = m.orders[b, slot] = m.units[b, slot] = 0
    if own_at(m, b, price) > 0:
        m.own_ahead = m.own_behind = 0


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
