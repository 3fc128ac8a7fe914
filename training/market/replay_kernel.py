"""The compiled replay: a day's messages drive the queues, own messages meet them at their time.

`play` is the loop that training and benchmarks run, `audit` and `record` step through the same `_step`. A message's
usual case stands here and takes a few loads and stores; whatever needs the whole market is a call.

What history could not know is settled by priority: an execution takes from the first of the best level, whoever that
is (own orders, or lots that history had traded already); an arrival that crosses only lots which history did not have
trades with them; cancels take what is still there. An execution that was out of turn in history itself (the vendor's
data, an auction, a broken feed) stays with its order, after own orders that stood before it.
"""

import numpy as np

from training.market.matching import ARRIVAL, TRADE, clear, command, evict, fill, match, place_waiting, price_of, remove
from training.market.message_kernel import MessageFlag, MessageKind
from training.market.queues import (
    ANONYMOUS_BIT,
    BEST,
    NONE,
    SPAN,
    first_from,
    inlined,
    join,
    kernel,
    leave,
    lessen,
)
from training.market.replay_state import (
    AT,
    COMMAND_AT,
    COMMANDS,
    CUT_CONSUMED,
    CUT_SURPLUS,
    FILLS,
    HALTED,
    LEFT_OVER,
    MADE_BY_TRADES,
    NOTHING_FOUND,
    NOW,
    ORDERS,
    OWN_BASE,
    REACH,
    REPLACE_CHANGED,
    REPLACE_CONSUMED,
    UNKNOWN,
    OrderStatus,
)

ADD, CUT, EXECUTE, REPLACE, PRINT, SHRINK = (int(MessageKind(k)) for k in range(6))
CLEAR, WHOLE, HALT, RESUME, NOTE = (int(MessageKind(k)) for k in range(6, 11))
FINAL, FRONT, CROSSING = int(MessageFlag.FINAL), int(MessageFlag.FRONT), int(MessageFlag.CROSSING)
LOOSE, SHOWN, ANONYMOUS = int(MessageFlag.LOOSE), int(MessageFlag.SHOWN), int(MessageFlag.ANONYMOUS)
HIDDEN = int(MessageFlag.HIDDEN)
FILLED = int(OrderStatus.FILLED)
DONE, NEEDS_ROOM = 0, 1
"""What `play` answers."""


@kernel
def play(market, events, until_ns):
    """Everything up to `until_ns`, that moment included: historical messages first, then own ones that arrive with it.

    Gives DONE, or NEEDS_ROOM where fills could overflow: grow them and call again.
    """
    nodes, bits, state, keys = market.nodes, market.bits, market.state, market.keys
    room = len(market.fills) - len(keys) - 4 * len(market.own) - 2
    while True:
        at = state[COMMAND_AT]
        due = at < state[COMMANDS] and market.commands[at].arrive_ns <= until_ns
        stop_ns = market.commands[at].arrive_ns if due else until_ns
        while _run(nodes, bits, state, keys, events, stop_ns):
            if state[FILLS] > room:
                return NEEDS_ROOM
            _seldom(market, events, state[AT])
            state[AT] += 1
        if state[AT] > 0 and events[state[AT] - 1].ts_ns > state[NOW]:
            state[NOW] = events[state[AT] - 1].ts_ns
        if not due:
            return DONE
        if state[FILLS] > room:
            return NEEDS_ROOM
        state[NOW] = stop_ns
        command(market, at)
        state[COMMAND_AT] = at + 1


@kernel
def _run(nodes, bits, state, keys, events, stop_ns):
    """Messages up to `stop_ns`; True where it stopped at one whose usual case does not hold."""
    i, count = state[AT], len(events)
    while i < count and events[i].ts_ns <= stop_ns:
        if not _usual(nodes, bits, state, keys, events, i):
            state[AT] = i
            return True
        i += 1
    state[AT] = i
    return False


@kernel
def _step(market, events, i):
    """One message of any kind."""
    if not _usual(market.nodes, market.bits, market.state, market.keys, events, i):
        _seldom(market, events, i)


@inlined
def _usual(nodes, bits, state, keys, events, i):
    """Carry out a message in its usual case; False where that does not hold, and nothing was done."""
    event = events[i]
    kind, flags = event.kind, event.flags
    order, level, side = np.uint32(event.order), np.uint32(event.level), np.int64(event.side)
    size = np.int64(event.size)
    if kind == ADD and not flags & ANONYMOUS and nodes[order].lots == 0:
        key = np.int64(keys[level]) >> 1
        if flags & CROSSING or state[BEST + 1 - side] + key >= state[SPAN]:
            join(nodes, bits, state, level, side, key, order, size, level)
            return True
    elif kind == CUT and not flags & LOOSE:
        have = np.int64(nodes[order].lots)
        if have > size and not flags & FINAL:
            nodes[order].lots = have - size
            nodes[level].lots -= size
            return True
        if have == size:
            leave(nodes, bits, state, level, side, np.int64(keys[level]) >> 1, order)
            return True
    elif kind == EXECUTE:
        key = np.int64(keys[level]) >> 1
        have = np.int64(nodes[order].lots)
        if nodes[level].next == order and state[BEST + side] == key and have >= size and not flags & LOOSE:
            if have == size:
                leave(nodes, bits, state, level, side, key, order)
                return True
            if not flags & FINAL:
                nodes[order].lots = have - size
                nodes[level].lots -= size
                return True
    elif kind == REPLACE:
        key, have = np.int64(keys[level]) >> 1, np.int64(nodes[order].lots)
        if have == event.detail and (flags & CROSSING or state[BEST + 1 - side] + key >= state[SPAN]):
            old = np.uint32(nodes[order].home)
            where = np.int64(keys[old])
            leave(nodes, bits, state, old, where & 1, where >> 1, order)
            join(nodes, bits, state, level, side, key, order, size, level)
            return True
    elif kind == PRINT:
        return True
    return False


@kernel
def _seldom(market, events, i):
    """A message whose usual case does not hold, or that is rare."""
    state, event = market.state, events[i]
    ts_ns, kind, flags = event.ts_ns, event.kind, np.int64(event.flags)
    order, level, side = np.int64(event.order), np.int64(event.level), np.int64(event.side)
    size = np.int64(event.size)
    if kind == ADD or kind == REPLACE:
        _arrive(market, ts_ns, kind, flags, order, level, side, size, np.int64(event.detail))
    elif kind == CUT:
        _cut(market, flags, order, level, side, size)
    elif kind == EXECUTE:
        _execute(market, ts_ns, flags, order, level, side, size)
    elif kind == SHRINK:
        state[CUT_CONSUMED] += _shrink(market, level, side, size)
    elif kind == CLEAR:
        clear(market)
        state[UNKNOWN] = 1
    elif kind == WHOLE:
        state[UNKNOWN] = 0
        place_waiting(market, ts_ns, True)
    elif kind == HALT:
        state[HALTED] = 1
    elif kind == RESUME:
        state[HALTED] = 0
        place_waiting(market, ts_ns, False)


@kernel
def _arrive(market, ts_ns, kind, flags, order, level, side, size, was):
    """A historical order joins a level, or moves there; lots that history did not have may meet it."""
    nodes, bits, state, keys = market.nodes, market.bits, market.state, market.keys
    have = np.int64(nodes[order].lots)
    if kind == ADD and have > 0:
        evict(market, order)
    elif kind == REPLACE:
        if have == 0:  # its owner has been filled: there is nothing left to move
            state[REPLACE_CONSUMED] += size
            state[REPLACE_CHANGED] += was - size
            return
        old = np.int64(nodes[order].home) & (ANONYMOUS_BIT - 1)
        where = np.int64(keys[old])
        leave(nodes, bits, state, old, where & 1, where >> 1, order)
        kept = max(np.int64(0), size - (was - have))
        state[REPLACE_CHANGED] += was - size - (have - kept)
        size = kept
    key = np.int64(keys[level]) >> 1
    limit = state[SPAN] - 1 - key
    if not flags & CROSSING and state[BEST + 1 - side] <= limit:
        size = match(market, ARRIVAL, 1 - side, limit, size, np.int64(-1), ts_ns)
    if size > 0:
        home = level | ANONYMOUS_BIT if flags & ANONYMOUS else level
        join(nodes, bits, state, level, side, key, order, size, home)


@kernel
def _cut(market, flags, order, level, side, size):
    """A cancel finds another number of lots than history had, or concerns an order whose lots were denied."""
    state, key = market.state, np.int64(market.keys[level]) >> 1
    have = np.int64(market.nodes[order].lots)
    take = min(have, size)
    if flags & FINAL and not flags & LOOSE:
        take = have
    if take > 0:
        remove(market, level, side, key, order, take)
    if flags & LOOSE:
        state[CUT_CONSUMED] += _shrink(market, level, side, size - take)
    elif take > size:
        state[CUT_SURPLUS] += take - size
    else:
        state[CUT_CONSUMED] += size - take


@kernel
def _shrink(market, level, side, size):
    """Lots of known historical orders leave a level from the back; gives those that were not there."""
    nodes, state, key = market.nodes, market.state, np.int64(market.keys[level]) >> 1
    node = np.int64(nodes[level].prev)
    while size > 0 and node != level:
        before = np.int64(nodes[node].prev)
        if node < state[OWN_BASE] and not nodes[node].home & ANONYMOUS_BIT:
            take = min(size, np.int64(nodes[node].lots))
            remove(market, level, side, key, node, take)
            size -= take
        node = before
    return size


@kernel
def _execute(market, ts_ns, flags, order, level, side, size):
    """An execution whose order is not first here: priority decides who is met, history only how many lots come."""
    nodes, bits, state = market.nodes, market.bits, market.state
    key, left = np.int64(market.keys[level]) >> 1, size
    if not flags & FRONT and (flags & LOOSE or nodes[order].lots > 0):
        left = _own_before(market, ts_ns, order, level, side, key, left)
        take = min(left, np.int64(nodes[order].lots))
        if take > 0:
            lessen(nodes, bits, state, level, side, key, order, take)
            left -= take
        if flags & LOOSE:
            left = _shrink(market, level, side, left)
    left = match(market, TRADE, side, key, left, order, ts_ns)
    for _ in range(state[REACH]):
        if left == 0 or state[BEST + side] >= NONE:
            break
        left = match(market, TRADE, side, state[BEST + side], left, np.int64(-1), ts_ns)
    state[NOTHING_FOUND] += left
    if flags & FINAL and not flags & LOOSE:
        state[LEFT_OVER] += nodes[order].lots


@kernel
def _own_before(market, ts_ns, order, level, side, key, left):
    """Own orders that stand before `order` are filled first; gives the lots that are left for it."""
    nodes, own, state = market.nodes, market.own, market.state
    at = state[BEST + side]
    while state[ORDERS] > 0 and left > 0 and at <= key:
        here = 64 * np.int64(market.pages[side, at >> 6]) + (at & 63)
        node = np.int64(nodes[here].next)
        while left > 0 and node != here and node != order:
            after = np.int64(nodes[node].next)
            mine = node - state[OWN_BASE]
            if mine >= 0:
                take = min(left, np.int64(nodes[node].lots))
                remove(market, here, side, at, node, take)
                fill(market, ts_ns, mine, price_of(market, side, at) + own[mine].shift, take, 1, np.int64(1))
                state[MADE_BY_TRADES] += take
                left -= take
                if own[mine].filled == own[mine].lots:
                    own[mine].status = FILLED
            node = after
        at = first_from(market.bits, state, side, at + 1)
    return left


@kernel
def audit(market, events, flags):
    """Play a day without own orders and note FRONT and CROSSING of each message in `flags`."""
    nodes, state = market.nodes, market.state
    for i in range(len(events)):
        kind, side, level = events[i].kind, np.int64(events[i].side), np.int64(events[i].level)
        if kind == ADD or kind == REPLACE:
            key = np.int64(market.keys[level]) >> 1
            if state[BEST + 1 - side] + key < state[SPAN]:
                flags[i] |= CROSSING
        elif kind == EXECUTE and not events[i].flags & LOOSE:
            key = np.int64(market.keys[level]) >> 1
            if nodes[level].next == events[i].order and state[BEST + side] == key:
                flags[i] |= FRONT
        if (kind == ADD or kind == REPLACE) and flags[i] & CROSSING:
            _arrive(market, events[i].ts_ns, kind, np.int64(events[i].flags) | CROSSING, np.int64(events[i].order),
                    level, side, np.int64(events[i].size), np.int64(events[i].detail))  # fmt: skip
        else:
            _step(market, events, i)


@kernel
def record(market, events, until_ns, out, rows, last):
    """Step to `until_ns` and write a row of the visible book at each change and trade, as `books.Book` has them.

    `out` are the columns of a Book with room; `last (4, K)` is the visible book so far. Own messages are carried out at
    their time, and what they change is a row too. Gives the rows so far, negative where fills need room.
    """
    state = market.state
    room = len(market.fills) - len(market.keys) - 4 * len(market.own) - 2
    traded = aggressor = np.int64(0)
    while True:
        i, at = state[AT], state[COMMAND_AT]
        if state[FILLS] > room or rows + 1 >= len(out[0]):
            return -rows - 1
        due = at < state[COMMANDS] and market.commands[at].arrive_ns <= until_ns
        if due and (i == len(events) or events[i].ts_ns > market.commands[at].arrive_ns):
            state[NOW] = market.commands[at].arrive_ns
            command(market, at)
            state[COMMAND_AT] = at + 1
            rows = _row(market, state[NOW], out, rows, last, False, 0, 0, 0)
            continue
        if i == len(events) or events[i].ts_ns > until_ns:
            return rows
        event = events[i]
        _step(market, events, i)
        state[AT], state[NOW] = i + 1, event.ts_ns
        trade = (event.kind == EXECUTE or event.kind == PRINT) and not event.flags & HIDDEN
        if trade:
            traded += event.detail
            aggressor = np.int64(event.aggressor)
        if event.flags & SHOWN or trade and (event.kind == PRINT or state[UNKNOWN] == 1):
            price = np.int64(event.price) if traded else np.int64(0)
            aggressor = aggressor if traded else np.int64(0)
            rows = _row(market, event.ts_ns, out, rows, last, event.flags & SHOWN == 0, price, traded, aggressor)
            traded = np.int64(0)


@kernel
def _row(market, ts_ns, out, rows, last, stale, price, traded, aggressor):
    """Write a row where the visible book changed or there was a trade; `stale`: the visible book does not follow."""
    state = market.state
    changed = rows == 0
    for side in range(2):
        key = state[BEST + side]
        for k in range(0 if stale else last.shape[1]):
            shown, lots = np.int64(0), np.int64(0)
            if key < NONE:
                shown = price_of(market, side, key)
                lots = np.int64(market.nodes[64 * np.int64(market.pages[side, key >> 6]) + (key & 63)].lots)
                key = first_from(market.bits, state, side, key + 1)
            changed |= last[2 * side, k] != shown or last[2 * side + 1, k] != lots
            last[2 * side, k], last[2 * side + 1, k] = shown, lots
    if not changed and not traded:
        return rows
    ts, bid_px, bid_sz, ask_px, ask_sz, trade_px, trade_sz, trade_side = out
    ts[rows] = ts_ns
    for k in range(last.shape[1]):
        bid_px[rows, k], bid_sz[rows, k], ask_px[rows, k], ask_sz[rows, k] = (
            last[0, k],
            last[1, k],
            last[2, k],
            last[3, k],
        )
    trade_px[rows], trade_sz[rows], trade_side[rows] = price, traded, aggressor
    return rows + 1
