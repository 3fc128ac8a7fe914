"""An own resting order and the queue that it stands in, under each fill model.

The order joins behind all lots displayed at its price. Then, whatever the model:

* a trade at our price first uses up the queue ahead; a trade through our price fills up to its volume; trades by our
  own side do not count, trades of unknown side do; touch is not fill;
* displayed opposite lots at or through our price, less those already taken, fill us at our own price;
* hidden executions are no rows: they neither fill us nor move us up.

The models differ in what else shortens the queue ahead, V lots of the Q displayed at our price. Let the displayed size
fall by more than was traded there and not yet taken off it; the excess c was cancelled:

* conservative: cancels come from behind us, V <- min(V, Q);
* expected: V <- V - c p(V / Q) with p(x) = x^n / (x^n + (1 - x)^n), the share of cancels that come from ahead
  (Rigtorp, Estimating order queue position, 2013; hftbacktest's PowerProbQueueModel). With n = QUEUE_POWER = 1 every
  lot of the queue is as likely to be cancelled as any other. V is kept in 2^-16 lots; a part of a lot ahead of us (of
  2^-8 at least, less is dust of rounding) counts as a lot when volume reaches for us;
* optimistic: cancels come from ahead of us as long as there are any, V <- max(0, V - c);
* fifo: nothing is estimated. Each lot that left its queue says when it had joined it: lots of orders that joined up to
  our arrival were ahead, later ones behind, and an execution behind us was ours (`meet_leaf`). Trades that name no
  resting order do not fill; nor do orders that cross history's own book, whose executions follow.

An own order never meets another of its episode: an episode is one parent of one side, with one order resting, and
episodes do not see each other. So there is no self-trade to prevent; `order_replay` has several orders, and prevents.
"""

import numpy as np

from feature_repo.pipeline.leaves import CLEAR, EXECUTE, WHOLE
from training.market.fills import PASSIVE, age_taken, record_fill, remember_taken, taken_at
from training.market.queues import inlined, kernel
from training.market.tape import EXPECTED, FIFO, OPTIMISTIC, halted, largest_level, level, level_size

QUEUE_POWER = 1
PART, DUST = 1 << 16, 1 << 8
"""Units of a lot in which the expected queue ahead is kept, and how many of them are no lot yet."""


@kernel
def join(tape, state, ts_ns, price, lots):
    """Let `lots` in all rest at `price`: fewer than now leave from the back, more join the back of the queue."""
    shown = level_size(tape, state.row, state.side, price)
    ahead = shown if shown >= 0 else largest_level(tape, state.row, state.side)
    if state.rest_lots == 0:
        state.rest_px, state.rest_ahead, state.rest_part, state.rest_ns = price, ahead, 0, ts_ns
        state.rest_shown, state.rest_unseen, state.waits = shown, 0, 0
        if tape.model == FIFO and lots > 0:
            state.leaf = _first_leaf(tape, tape.days[state.day].leaf_lo, tape.days[state.day].leaf_hi, ts_ns)
    elif lots < state.rest_lots:
        state.back_lots = max(0, state.back_lots - (state.rest_lots - lots))
    elif lots > state.rest_lots:
        state.back_lots += lots - state.rest_lots
        state.back_ahead, state.back_part, state.back_ns = ahead, 0, ts_ns
    state.rest_lots = lots


@kernel
def _first_leaf(tape, low, high, ts_ns):
    """First leaf from `low` on that is stamped after `ts_ns`."""
    while low < high:
        middle = (low + high) >> 1
        if tape.leaves[middle].ts_ns <= ts_ns:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def fill_passively(state, lots, ts_ns, mid2, episode, fills, fill_count):
    """Book `lots` at our own resting price, front of the queue first."""
    from_back = max(0, lots - (state.rest_lots - state.back_lots))
    state.rest_lots -= lots
    state.back_lots -= from_back
    if state.rest_lots == state.back_lots and state.back_lots > 0:  # what was added later is now the front
        state.rest_ahead, state.rest_part, state.rest_ns = state.back_ahead, state.back_part, state.back_ns
        state.back_lots = 0
    record_fill(state, ts_ns, state.rest_px, lots, PASSIVE, 0, mid2, episode, fills, fill_count)
    if state.pend_ns > 0:
        state.pend_filled += lots


@inlined
def trade_reaches(state, volume):
    """Let `volume` traded at our price eat into the queue; returns the own lots that it reaches.

    The queue is: rest_ahead lots of others, our front, more of others up to back_ahead in all, our back.
    """
    front = state.rest_lots - state.back_lots
    reached = min(front, max(0, volume - state.rest_ahead))
    state.rest_ahead = max(0, state.rest_ahead - volume)
    if state.rest_ahead == 0:
        state.rest_part = 0
    if state.back_lots > 0:
        behind = volume - reached
        passed = min(state.back_ahead, behind)
        state.back_ahead -= passed
        if state.back_ahead == 0:
            state.back_part = 0
        if reached == front:
            reached += min(state.back_lots, behind - passed)
    return reached


@kernel
def _less_cancels(model, ahead, part, queue, cancelled):
    """Queue ahead (lots rounded up, and what they exceed it by in 2^-16) after `cancelled` lots of `queue` left."""
    if model == OPTIMISTIC:
        return max(np.int64(0), ahead - cancelled), np.int64(0)
    exact = min(ahead * PART - part, queue * PART)
    share, rest = exact // queue, exact % queue  # the share that is ahead, of 2^16, and what its division left
    if QUEUE_POWER > 1:
        front, back = share**QUEUE_POWER, (PART - share) ** QUEUE_POWER
        share, rest = front * PART // max(np.int64(1), front + back), np.int64(0)
    exact = max(np.int64(0), exact - cancelled * share - (cancelled * rest + queue // 2) // queue)
    whole = (exact + PART - DUST) // PART
    return whole, whole * PART - exact


@kernel
def follow_queue(state, model, shown):
    """Let the queue ahead follow the displayed size at our price (-1: not visible)."""
    before, state.rest_shown = state.rest_shown, shown
    if shown < 0:
        return
    if (model == EXPECTED or model == OPTIMISTIC) and before >= 0 and shown != before:
        cancelled = before - shown - state.rest_unseen
        queue = before - state.rest_unseen
        # A feed may print a sweep at once and take its lots off one by one; what joins answers all prints before it.
        state.rest_unseen = max(0, state.rest_unseen - (before - shown)) if shown < before else 0
        if cancelled > 0:
            state.rest_ahead, state.rest_part = _less_cancels(
                model, state.rest_ahead, state.rest_part, queue, cancelled
            )
            if state.back_lots > 0:
                state.back_ahead, state.back_part = _less_cancels(
                    model, state.back_ahead, state.back_part, queue, cancelled
                )
    if shown < state.rest_ahead:
        state.rest_ahead, state.rest_part = shown, 0
    if shown < state.back_ahead:
        state.back_ahead, state.back_part = shown, 0


@kernel
def rejoin(tape, state, ts_ns):
    """The book is known again: the order stands behind all that is displayed now."""
    shown = level_size(tape, state.row, state.side, state.rest_px)
    state.rest_ahead = shown if shown >= 0 else largest_level(tape, state.row, state.side)
    state.rest_part = state.back_lots = state.back_ahead = state.rest_unseen = state.waits = 0
    state.rest_ns, state.rest_shown = ts_ns, shown


@inlined
def meet_row(tape, state, taken_px, taken_lots, episode, fills, fill_count):
    """Let the row that the episode stands at meet what we took and what of ours rests."""
    row = tape.rows[state.row]
    ts_ns = tape.ts[state.row]
    if row.bid_sz <= 0 and row.ask_sz <= 0:  # nothing is known
        state.waits = 1 if tape.model != FIFO and state.rest_lots > 0 else state.waits
        return
    if state.taken_count > 0:
        age_taken(tape, state, taken_px, taken_lots)
    if state.rest_lots == 0:
        return
    own_sz = row.bid_sz if state.side > 0 else row.ask_sz
    traded = row.trade_sz > 0 and tape.model != FIFO
    if state.waits == 1:
        if tape.model == FIFO or own_sz <= 0:
            return
        rejoin(tape, state, ts_ns)
        traded = False
    still = halted(tape, state, ts_ns)
    if traded and not still:
        _meet_trade(tape, state, row, ts_ns, episode, fills, fill_count)
    follow_queue(state, tape.model, level_size(tape, state.row, state.side, state.rest_px))
    if not still and not (tape.model == FIFO and row.bid_sz > 0 and row.ask_sz > 0 and row.bid_px >= row.ask_px):
        _meet_opposite(tape, state, row, ts_ns, taken_px, taken_lots, episode, fills, fill_count)


@inlined
def _meet_trade(tape, state, row, ts_ns, episode, fills, fill_count):
    """A trade of the row at or through our price."""
    side, volume = state.side, np.int64(row.trade_sz)
    if row.trade_side == side:
        return
    beyond = side * (state.rest_px - row.trade_px)
    lots = np.int64(0)
    if beyond == 0:
        state.rest_unseen += volume
        lots = trade_reaches(state, volume)
    elif beyond > 0:
        state.rest_ahead = state.rest_part = state.back_ahead = state.back_part = 0
        lots = min(state.rest_lots, volume)
    if lots > 0:
        state.made_lots += lots
        fill_passively(state, lots, ts_ns, np.int64(row.mid2), episode, fills, fill_count)


@inlined
def _meet_opposite(tape, state, row, ts_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Opposite lots displayed at or through our price."""
    for k in range(tape.depth):
        px, size = level(tape, state.row, -state.side, k)
        if state.rest_lots == 0 or size <= 0 or state.side * (px - state.rest_px) > 0:
            return
        lots = min(state.rest_lots, size - taken_at(state, taken_px, taken_lots, px))
        if lots > 0:
            remember_taken(state, taken_px, taken_lots, px, lots)
            state.met_lots += lots
            fill_passively(state, lots, ts_ns, np.int64(row.mid2), episode, fills, fill_count)


@inlined
def next_leaf(tape, state, last, stop_ns):
    """Go to the next leaf that concerns our order, no later than `stop_ns`; False where there is none."""
    end = tape.days[state.day].leaf_hi
    while state.leaf < end:
        leaf = tape.leaves[state.leaf]
        if leaf.ts_ns > stop_ns or leaf.row > last + 1:
            return False
        if leaf.kind >= CLEAR:
            return True
        if leaf.side == state.side:
            reach = state.side * (state.rest_px - leaf.price)
            if reach == 0 or (reach > 0 and leaf.kind == EXECUTE):
                return True
        state.leaf += 1
    return False


@kernel
def meet_leaf(tape, state, episode, fills, fill_count):
    """Lots left a queue: those before us bring us forward, an execution of those behind us was ours.

    Orders that joined up to our arrival are ahead of us, as `OrderReplay` has it: history first, then own messages.
    """
    leaf = tape.leaves[state.leaf]
    state.leaf += 1
    if leaf.kind == CLEAR:
        state.waits = 1
    elif leaf.kind == WHOLE:
        rejoin(tape, state, leaf.ts_ns)
    if leaf.kind >= CLEAR or state.waits == 1:
        return
    left = np.int64(leaf.lots)
    at_our_price = leaf.price == state.rest_px
    front = state.rest_lots - state.back_lots
    reached = np.int64(0)
    if at_our_price and leaf.join_ns <= state.rest_ns:
        state.rest_ahead = max(0, state.rest_ahead - left)
        state.back_ahead = max(0, state.back_ahead - left)
    elif leaf.kind == EXECUTE:
        state.rest_ahead = 0
        reached = min(front, left)
        left -= reached
        if not at_our_price or leaf.join_ns > state.back_ns:
            reached += min(state.back_lots, left)
        else:
            state.back_ahead = max(0, state.back_ahead - left)
    elif state.back_lots > 0 and leaf.join_ns <= state.back_ns:
        state.back_ahead = max(0, state.back_ahead - left)
    if reached > 0:
        row = leaf.row if leaf.row < state.row_hi and tape.ts[leaf.row] == leaf.ts_ns else state.row
        state.made_lots += reached
        fill_passively(state, reached, leaf.ts_ns, np.int64(tape.rows[row].mid2), episode, fills, fill_count)


@inlined
def quiet_until(tape, state, stop, taken_px, taken_lots):
    """First row after the present one, up to `stop`, that can fill us or concerns what we took; `stop` + 1: none.

    On the way the queue ahead follows the displayed size. This loop is what a step costs: it reads 32 bytes a row, and
    the deeper levels where our order stands there.
    """
    side, price, model, taken = state.side, state.rest_px, tape.model, state.taken_count
    resting = state.rest_lots > 0
    if state.waits == 1:
        return state.row + 1
    for j in range(taken):
        if taken_lots[j, 1] > 0:  # prints that the displayed size has not answered yet
            return state.row + 1
    exact = model == EXPECTED or model == OPTIMISTIC
    deepest = max(state.rest_ahead, state.back_ahead)
    guess = np.int64(1)
    for at in range(state.row + 1, stop + 1):
        row = tape.rows[at]
        if side > 0:
            own_px, own_sz, opp_px, opp_sz = row.bid_px, row.bid_sz, row.ask_px, row.ask_sz
        else:
            own_px, own_sz, opp_px, opp_sz = row.ask_px, row.ask_sz, row.bid_px, row.bid_sz
        if opp_sz <= 0 and (own_sz <= 0 or taken > 0):
            return at
        if row.trade_sz > 0 and resting and model != FIFO and side * (price - row.trade_px) >= 0:
            return at
        for j in range(taken):
            size = np.int64(opp_sz) if opp_px == taken_px[j] else level_size(tape, at, -side, taken_px[j])
            if 0 <= size < taken_lots[j, 0] or (row.trade_sz > 0 and row.trade_px == taken_px[j]):
                return at
        if not resting:
            continue
        if opp_sz > 0 and side * (opp_px - price) <= 0:
            return at
        shown = np.int64(-1)
        if own_sz > 0 and side * (price - own_px) >= 0:
            shown = np.int64(own_sz) if price == own_px else np.int64(0)
        elif own_sz > 0 and tape.depth > 1:
            guess, shown = _deep_size(tape, at, side, price, guess)
        if (exact and shown != state.rest_shown) or (not exact and 0 <= shown < deepest):
            follow_queue(state, model, shown)
            deepest = max(state.rest_ahead, state.back_ahead)
    return stop + 1


@inlined
def _deep_size(tape, row, side, price, guess):
    """Level where `price` stands behind the best, and its lots as `level_size`; most often it is where it was."""
    px, size = level(tape, row, side, guess)
    if px == price and size > 0:
        return guess, size
    for k in range(1, tape.depth):
        px, size = level(tape, row, side, k)
        if size <= 0:
            break
        if side * (price - px) >= 0:
            return np.int64(k), size if px == price else np.int64(0)
    return np.int64(1), np.int64(-1)
