"""An exchange with price-time priority, compiled: incoming orders meet queues in which own and historical ones stand.

`match` is the one place where lots change hands out of turn with history; `command` carries out an own message. All is
integers: prices are keys of `queues`, sizes lots. Where two own orders of one trader would meet, the setting
SELF_TRADE decides (`replay_state.SelfTrade`).
"""

import numpy as np

from training.market.own_impact import concede, displace, shift_now
from training.market.queues import (
    ANONYMOUS_BIT,
    BEST,
    NONE,
    SPAN,
    first_from,
    join,
    kernel,
    leave,
    lessen,
)
from training.market.replay_state import (
    ARRIVALS_MET,
    FILLS,
    GHOST_BASE,
    GHOSTS_DROPPED,
    GHOSTS_FREE,
    HALTED,
    HOLD,
    LOW,
    MADE_BY_ARRIVALS,
    MADE_BY_TRADES,
    MOST_PAGES,
    ORDERS,
    OWN_BASE,
    PAGES,
    REROUTED,
    SELF_TRADE,
    STOPPED,
    TAKEN,
    UNKNOWN,
    CommandFlag,
    CommandKind,
    OrderStatus,
    Reason,
    SelfTrade,
)

LIMIT, MARKET = int(CommandKind.LIMIT), int(CommandKind.MARKET)
CANCEL, REPLACE = int(CommandKind.CANCEL), int(CommandKind.REPLACE)
POST_ONLY, IOC = int(CommandFlag.POST_ONLY), int(CommandFlag.IOC)
SENT, RESTING, FILLED = int(OrderStatus.SENT), int(OrderStatus.RESTING), int(OrderStatus.FILLED)
CANCELLED, REJECTED, HELD = int(OrderStatus.CANCELLED), int(OrderStatus.REJECTED), int(OrderStatus.HELD)
ASKED, WOULD_TAKE, REMAINDER = int(Reason.ASKED), int(Reason.WOULD_TAKE), int(Reason.REMAINDER)
SELF_TRADED, IN_HALT, BAD_PRICE = int(Reason.SELF_TRADE), int(Reason.HALTED), int(Reason.PRICE)
_ALLOW, _CANCEL_RESTING = int(SelfTrade.ALLOW), int(SelfTrade.CANCEL_RESTING)
TRADE, ARRIVAL = -1, -2
"""Who takes where it is no own order: an execution or an arrival of history."""


@kernel
def level_of(market, side, key):
    """Level of a key, its page made where it has none; -1 where no page is left."""
    pages, keys, state = market.pages, market.keys, market.state
    group = key >> 6
    if pages[side, group] < 0:
        if state[PAGES] == state[MOST_PAGES]:
            return np.int64(-1)
        pages[side, group] = state[PAGES]
        state[PAGES] += 1
        first = 64 * np.int64(pages[side, group])
        for slot in range(64):
            keys[first + slot] = 2 * ((group << 6) + slot) + side
    return 64 * np.int64(pages[side, group]) + (key & 63)


@kernel
def price_of(market, side, key):
    """Price in ticks of a key."""
    return market.state[LOW] + (key if side == 1 else market.state[SPAN] - 1 - key)


@kernel
def fill(market, ts_ns, order, price, lots, maker, history):
    """Book lots to an own order; what it takes at one price and moment is one fill."""
    own, fills, state = market.own, market.fills, market.state
    own[order].filled += lots
    if history == 1:
        displace(market, ts_ns, own[order].side, lots, maker)
    at = state[FILLS]
    if maker == 0 and at > 0:
        last = fills[at - 1]
        same = last.order == order and last.price == price and last.ts_ns == ts_ns
        if same and last.maker == 0 and last.history == history:
            last.lots += lots
            return
    fills[at].ts_ns, fills[at].order, fills[at].price, fills[at].lots = ts_ns, order, price, lots
    fills[at].maker, fills[at].side, fills[at].history = maker, own[order].side, history
    state[FILLS] = at + 1


@kernel
def remove(market, level, side, key, node, lots):
    """Take lots off a node wherever it stands; a ghost that is empty is free again."""
    state = market.state
    lessen(market.nodes, market.bits, state, level, side, key, node, lots)
    if market.nodes[node].lots == 0 and state[GHOST_BASE] <= node < state[OWN_BASE]:
        market.ghosts[state[GHOSTS_FREE]] = node
        state[GHOSTS_FREE] += 1


@kernel
def evict(market, node):
    """History wants the slot of an order that outlived it here: the order moves to a ghost node, in its place."""
    nodes, state = market.nodes, market.state
    level = np.int64(nodes[node].home) & (ANONYMOUS_BIT - 1)
    if state[GHOSTS_FREE] == 0:
        state[GHOSTS_DROPPED] += nodes[node].lots
        where = np.int64(market.keys[level])
        leave(nodes, market.bits, state, level, where & 1, where >> 1, node)
        return
    state[GHOSTS_FREE] -= 1
    ghost = np.int64(market.ghosts[state[GHOSTS_FREE]])
    before, after = nodes[node].prev, nodes[node].next
    nodes[ghost].prev, nodes[ghost].next = before, after
    nodes[ghost].lots, nodes[ghost].home = nodes[node].lots, nodes[node].home
    nodes[before].next = ghost
    nodes[after].prev = ghost
    nodes[node].lots = 0


@kernel
def match(market, taker, resting, limit, lots, named, ts_ns):
    """Let `lots` meet the `resting` side in price-time order, no further than key `limit`; gives the lots left.

    `taker` is an own order, TRADE (of the order in node `named`, or of none) or ARRIVAL. With an own order STOPPED
    tells whether self-trade prevention ended it.
    """
    nodes, own, state = market.nodes, market.own, market.state
    while lots > 0:
        key = state[BEST + resting]
        if key > limit:
            break
        level = level_of(market, resting, key)
        node = np.int64(nodes[level].next)
        take = min(lots, np.int64(nodes[node].lots))
        maker = node - state[OWN_BASE]
        if maker >= 0 and taker >= 0 and state[SELF_TRADE] != _ALLOW and own[maker].trader == own[taker].trader:
            if state[SELF_TRADE] != _CANCEL_RESTING:
                state[STOPPED] = 1
                break
            leave(nodes, market.bits, state, level, resting, key, node)
            own[maker].status, own[maker].reason = CANCELLED, SELF_TRADED
            continue
        lots -= take
        remove(market, level, resting, key, node, take)
        price = price_of(market, resting, key)
        if maker >= 0:
            price += own[maker].shift
            fill(market, ts_ns, maker, price, take, 1, np.int64(taker < 0))
            if own[maker].filled == own[maker].lots:
                own[maker].status = FILLED
        if taker >= 0:
            if maker < 0:
                price += own[taker].shift
                state[TAKEN] += take
            fill(market, ts_ns, taker, price, take, 0, np.int64(maker < 0))
        elif maker >= 0:
            state[MADE_BY_ARRIVALS if taker == ARRIVAL else MADE_BY_TRADES] += take
        elif taker == ARRIVAL:
            state[ARRIVALS_MET] += take
        elif node != named:
            state[REROUTED] += take
    return lots


@kernel
def place(market, order, ts_ns, again):
    """An own limit order meets the market: it takes, rests, or ends. `again`: it rested before a CLEAR."""
    own, state = market.own, market.state
    side, flags = np.int64(own[order].side), own[order].flags
    key = _key(state, side, np.int64(own[order].price) - own[order].shift)
    level = level_of(market, side, key) if 0 <= key < state[SPAN] else np.int64(-1)
    if level < 0:
        own[order].status, own[order].reason = REJECTED, BAD_PRICE
        return
    limit = state[SPAN] - 1 - key
    if flags & POST_ONLY and not again and state[BEST + 1 - side] <= limit:
        own[order].status, own[order].reason = REJECTED, WOULD_TAKE
        return
    own[order].level, own[order].key = level, key
    state[STOPPED], first = 0, state[FILLS]
    left = match(market, order, 1 - side, limit, np.int64(own[order].lots) - own[order].filled, np.int64(-1), ts_ns)
    concede(market, order, first, True)
    own[order].status = RESTING
    if state[STOPPED]:
        own[order].status, own[order].reason = CANCELLED, SELF_TRADED
    elif left == 0:
        own[order].status = FILLED
    elif flags & IOC:
        own[order].status, own[order].reason = CANCELLED, REMAINDER
    else:
        join(market.nodes, market.bits, state, level, side, key, state[OWN_BASE] + order, left, level)


@kernel
def _key(state, side, price):
    return price - state[LOW] if side == 1 else state[LOW] + state[SPAN] - 1 - price


@kernel
def command(market, at):
    """Carry out own message number `at`."""
    own, state, sent = market.own, market.state, market.commands[at]
    order, kind, ts_ns = np.int64(sent.order), sent.kind, sent.arrive_ns
    mine = own[order]
    halted = state[HALTED] or state[UNKNOWN]
    if kind == CANCEL:
        if mine.status == RESTING or mine.status == HELD:
            _withdraw(market, order)
            mine.status, mine.reason = CANCELLED, ASKED
        return
    if kind == REPLACE:
        _replace(market, order, np.int64(sent.price), np.int64(sent.lots), halted, ts_ns)
        return
    mine.trader, mine.side, mine.flags = sent.trader, sent.side, sent.flags
    mine.price, mine.lots, mine.filled = sent.price, sent.lots, 0
    mine.shift = shift_now(market, np.int64(sent.side), ts_ns)
    if halted and (kind == MARKET or not state[HOLD]):
        mine.status, mine.reason = REJECTED, IN_HALT
    elif halted:
        mine.status = HELD
    elif kind == LIMIT:
        place(market, order, ts_ns, False)
    else:
        state[STOPPED], first = 0, state[FILLS]
        left = match(market, order, 1 - np.int64(sent.side), state[SPAN], np.int64(sent.lots), np.int64(-1), ts_ns)
        concede(market, order, first, False)
        mine.status = FILLED if left == 0 else CANCELLED
        if left > 0:
            mine.reason = SELF_TRADED if state[STOPPED] else REMAINDER


@kernel
def _withdraw(market, order):
    """Take an own order off its queue, if it stands in one."""
    node, mine = market.state[OWN_BASE] + order, market.own[order]
    if market.nodes[node].lots > 0:
        leave(market.nodes, market.bits, market.state, np.int64(mine.level), np.int64(mine.side), np.int64(mine.key),
              node)  # fmt: skip


@kernel
def _replace(market, order, price, lots, halted, ts_ns):
    """New price and total lots: at the same price and with no more lots the place is kept, else all join the back."""
    mine, state = market.own[order], market.state
    if mine.status == HELD:
        mine.price, mine.lots = price, lots
        return
    if mine.status != RESTING:
        return
    if halted:
        mine.reason = IN_HALT
        return
    left = lots - mine.filled
    if left <= 0:
        _withdraw(market, order)
        mine.status, mine.reason = CANCELLED, ASKED
        return
    side, node = np.int64(mine.side), state[OWN_BASE] + order
    have = np.int64(market.nodes[node].lots)
    if price == mine.price and left <= have:
        if left < have:
            lessen(market.nodes, market.bits, state, np.int64(mine.level), side, np.int64(mine.key), node, have - left)
        mine.lots = lots
        return
    shift = shift_now(market, side, ts_ns)
    key = _key(state, side, price - shift)
    if key < 0 or key >= state[SPAN] or level_of(market, side, key) < 0:
        mine.reason = BAD_PRICE
        return
    if mine.flags & POST_ONLY and state[BEST + 1 - side] <= state[SPAN] - 1 - key:
        mine.reason = WOULD_TAKE
        return
    _withdraw(market, order)
    mine.price, mine.lots, mine.shift = price, lots, shift
    place(market, order, ts_ns, False)


@kernel
def place_waiting(market, ts_ns, resting):
    """After a halt or a CLEAR: own orders that waited go in, first come first served; `resting`: those that rested."""
    own, state = market.own, market.state
    for order in range(state[ORDERS]):
        if (own[order].status == HELD and not state[HALTED] and not state[UNKNOWN]) or (
            resting and own[order].status == RESTING
        ):
            place(market, np.int64(order), ts_ns, own[order].status == RESTING)


@kernel
def clear(market):
    """Forget every historical order; own ones keep their lots and wait until the book is whole again."""
    nodes, bits, state = market.nodes, market.bits, market.state
    for side in range(2):
        key = state[BEST + side]
        while key < NONE:
            level = level_of(market, side, key)
            node = np.int64(nodes[level].next)
            while node != level:
                nodes[node].lots = 0
                node = np.int64(nodes[node].next)
            nodes[level].prev = nodes[level].next = level
            nodes[level].lots = 0
            key = first_from(bits, state, side, key + 1)
        state[BEST + side] = NONE
    bits[:] = 0
    state[GHOSTS_FREE] = len(market.ghosts)
    for place_ in range(len(market.ghosts)):
        market.ghosts[place_] = state[GHOST_BASE] + place_
