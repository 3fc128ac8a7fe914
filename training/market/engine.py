"""The market engine: historical books play on, own orders join them, and every fill is booked in integers.

One compiled path serves the single environment, the vector environment and the evaluation. Time runs per episode:

* a message sent at t arrives at t + latency and meets the state after every row stamped up to then; on snapshot data
  it arrives with the first row stamped strictly after t (no state between two snapshots is known);
* a replacement at the same price keeps its queue place for as many lots as rested; lots beyond that are a further
  order that joins the back (orders added later share one place, the newest one's); at another price all join the back;
* lots filled while a message is in flight come off what it asks for, first off the part that crosses, so that a
  parent is never overfilled; a newer message replaces one that has not arrived;
* in a halt and while the book is unknown (neither side shows) nothing of ours fills and messages are refused; an order
  that rests stays, and joins the back again when an unknown book stands; nothing is played outside session windows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.tca import lost2
from training.market.fills import AGGRESSIVE, FORCED, sweep
from training.market.impact_features import build_reaction
from training.market.orders import EPISODE_DTYPE, FILL_DTYPE, PARENT_DTYPE, TAKEN_CAPACITY, checked_instructions
from training.market.queues import inlined, kernel
from training.market.reaction import begin_reaction, charge, next_reaction_ns, reach, settle
from training.market.resting import join, meet_leaf, meet_row, next_leaf, quiet_until
from training.market.tape import FIFO, Tape, best_prices, build_tape, halted, last_row, mid2_now

if TYPE_CHECKING:
    from training.market.day import MarketDay

_lost2 = inlined(lost2)


class ParentError(InputError):
    """A parent that the tape cannot play: an unknown day, no book at its arrival, a horizon past the close."""


@kernel
def start_episode(tape, state, parent, record):
    """Reset `state` to the arrival of `parent`; False where no two-sided book stood then or its session is too short.

    The session window must hold the parent's horizon and the latency of the sweep that completes it.
    """
    day = tape.days[parent.day]
    state.day, state.side, state.lots = parent.day, parent.side, parent.lots
    state.start_ns, state.end_ns = parent.start_ns, parent.start_ns + parent.horizon_ns
    state.row_lo, state.row_hi = day.row_lo, day.row_hi
    state.latency_ns, state.next_row_arrival = day.latency_ns, day.next_row_arrival
    state.close_ns = _close_ns(tape, day, parent.start_ns)
    state.filled = state.passive_lots = state.aggressive_lots = state.forced_lots = state.extrapolated_lots = 0
    state.passive_cost = state.aggressive_cost = state.forced_cost = 0
    state.spread2 = state.timing2 = state.impact2 = state.orders = state.refused = 0
    state.made_lots = state.met_lots = state.rerouted_lots = 0
    state.rest_px = state.rest_lots = state.rest_ahead = state.back_lots = state.back_ahead = 0
    state.rest_part = state.back_part = state.rest_ns = state.back_ns = state.rest_unseen = state.waits = 0
    state.rest_shown, state.leaf = -1, day.leaf_lo
    state.pend_ns = state.pend_forced = state.pend_filled = 0
    state.taken_count = state.step = state.masked = state.done = 0
    state.record = record
    state.mark_bps = state.penalty = 0.0
    state.arrival_mid2 = state.last_mid2 = state.shift = state.reacts = 0
    state.row = day.row_lo
    if tape.ts[day.row_lo] > parent.start_ns or state.end_ns + state.latency_ns >= state.close_ns:
        return False
    state.row = last_row(tape.ts, day.row_lo, day.row_hi, parent.start_ns)
    state.arrival_mid2 = state.last_mid2 = mid2_now(tape, state)
    begin_reaction(tape, state)
    return state.arrival_mid2 > 0


@kernel
def _close_ns(tape, day, ts_ns):
    """End of the session window that `ts_ns` lies in, 0 where it lies in none."""
    for i in range(day.window_lo, day.window_hi):
        if tape.windows[i, 0] <= ts_ns < tape.windows[i, 1]:
            return tape.windows[i, 1]
    return np.int64(0)


@kernel
def submit(tape, state, now_ns, rest_px, rest_lots, cross_lots, beyond, forced):
    """Send one message at `now_ns`; it is in flight until `pend_ns`."""
    if state.next_row_arrival == 1:
        following = last_row(tape.ts, state.row, state.row_hi, now_ns) + 1
        state.pend_ns = tape.ts[following] if following < state.row_hi else now_ns
    else:
        state.pend_ns = now_ns + state.latency_ns
    state.pend_rest_px, state.pend_rest_lots = rest_px, rest_lots
    state.pend_cross_lots, state.pend_beyond, state.pend_forced = cross_lots, beyond, forced
    state.pend_filled = 0
    if cross_lots > 0:
        state.orders += 1
    same = state.rest_lots == rest_lots and state.rest_px + state.shift == rest_px
    if rest_lots > 0 and not (cross_lots == 0 and same):
        state.orders += 1


@kernel
def arrive(tape, state, taken_px, taken_lots, episode, fills, fill_count):
    """Let the message in flight meet the book that stands at its arrival.

    In a halt or an unknown book it is refused and what rests stays as it was; a cancel and the forced sweep, which is
    a charge and no order, are carried out.
    """
    ts_ns, row = state.pend_ns, tape.rows[state.row]
    state.pend_ns = 0
    cross = max(0, state.pend_cross_lots - state.pend_filled)
    rest = max(0, state.pend_rest_lots - max(0, state.pend_filled - state.pend_cross_lots))
    cross = min(cross, state.lots - state.filled)
    price = state.pend_rest_px - state.shift
    if cross + rest > 0 and state.pend_forced == 0:
        unknown = row.bid_sz <= 0 and row.ask_sz <= 0
        if unknown or halted(tape, state, ts_ns):
            state.refused += 1
            return
    if cross > 0 or rest == 0 or price != state.rest_px:
        state.rest_lots = state.back_lots = 0
    if cross > 0:
        kind = FORCED if state.pend_forced == 1 else AGGRESSIVE
        _take(tape, state, ts_ns, cross, 0, state.pend_beyond, kind, taken_px, taken_lots, episode, fills, fill_count)
    rest = min(rest, state.lots - state.filled)
    if state.rest_lots == 0 and rest > 0:  # the part that is marketable takes; the rest joins the book
        limit = reach(tape, state, state.pend_rest_px, rest)
        rest -= _take(tape, state, ts_ns, rest, limit, 0, AGGRESSIVE, taken_px, taken_lots, episode, fills, fill_count)
    join(tape, state, ts_ns, state.pend_rest_px - state.shift, rest)


@kernel
def _take(tape, state, ts_ns, lots, limit, beyond, kind, taken_px, taken_lots, episode, fills, fill_count):
    """Sweep the book (`fills.sweep`) and let the market react; gives the lots taken."""
    first, shifted2 = fill_count[0], 2 * state.side * state.shift
    before2 = state.impact2
    taken = sweep(tape, state, ts_ns, lots, limit, beyond, kind, taken_px, taken_lots, episode, fills, fill_count)
    walk2 = state.impact2 - before2 - shifted2 * taken
    charge(tape, state, ts_ns, taken, walk2, kind == FORCED, fills, first, fill_count)
    return taken


@kernel
def advance_episode(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Play rows and arrivals stamped up to `until_ns`, none from the close of the session window on."""
    until_ns = min(until_ns, state.close_ns - 1)
    while 0 < state.pend_ns <= until_ns:
        _play_on(tape, state, state.pend_ns, taken_px, taken_lots, episode, fills, fill_count)
        arrive(tape, state, taken_px, taken_lots, episode, fills, fill_count)
    _play_on(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count)


@kernel
def _play_on(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Play up to `until_ns`; where the market reacts, in pieces between the moments at which the book may move."""
    while state.reacts == 1:
        at_ns = next_reaction_ns(tape, state, until_ns)
        if at_ns > until_ns:
            break
        _play(tape, state, at_ns, taken_px, taken_lots, episode, fills, fill_count)
        settle(tape, state, at_ns)
    _play(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count)


@kernel
def _play(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Go to the last row stamped up to `until_ns`, by way of those on which something can happen to us."""
    last = last_row(tape.ts, state.row, state.row_hi, until_ns)
    while state.rest_lots > 0 or (state.taken_count > 0 and state.filled < state.lots):
        met = tape.model == FIFO and state.rest_lots > 0 and next_leaf(tape, state, last, until_ns)
        stop = max(state.row, min(last, tape.leaves[state.leaf].row - 1)) if met else last
        row = quiet_until(tape, state, stop, taken_px, taken_lots)
        state.row = min(row, stop)
        if row <= stop:
            meet_row(tape, state, taken_px, taken_lots, episode, fills, fill_count)
        elif met:
            meet_leaf(tape, state, episode, fills, fill_count)
        else:
            return
    state.row = last


@kernel
def complete_episode(tape, state, now_ns, taken_px, taken_lots, episode, fills, fill_count):
    """Forced completion: at `now_ns` send a sweep of all that remains and play until it has arrived."""
    remaining = state.lots - state.filled
    if remaining > 0:
        submit(tape, state, now_ns, 0, 0, remaining, 1, 1)
        state.pend_ns = min(state.pend_ns, state.close_ns - 1)  # snapshots may pause until after the close
        advance_episode(tape, state, state.pend_ns, taken_px, taken_lots, episode, fills, fill_count)
    state.rest_lots = state.back_lots = state.pend_ns = 0
    state.done = 1


@kernel
def cost_bps(state, mid2, maker_fee_bps, taker_fee_bps):
    """Shortfall so far in bps of the parent's arrival value, what remains marked at `mid2`; fees included."""
    cost = state.passive_cost + state.aggressive_cost + state.forced_cost
    value2 = state.lots * state.arrival_mid2
    loss2 = _lost2(state.side, 2 * cost + (state.lots - state.filled) * mid2, state.lots, state.arrival_mid2)
    fees2 = 2 * (maker_fee_bps * state.passive_cost + taker_fee_bps * (state.aggressive_cost + state.forced_cost))
    return (1e4 * loss2 + fees2) / value2


@njit(cache=True)
def _start_batch(tape, states, indices, parents, record):
    for j in range(len(indices)):
        if not start_episode(tape, states[indices[j]], parents[j], record[j]):
            return j
    return -1


@njit(cache=True)
def _submit_batch(tape, states, now_ns, instructions):
    for i in range(len(states)):
        state = states[i]
        order = instructions[i]
        if state.done == 0 and order.send == 1:
            submit(tape, state, now_ns[i], order.rest_px, order.rest_lots, order.cross_lots, order.beyond, 0)


@njit(cache=True)
def _advance_batch(tape, states, until_ns, taken_px, taken_lots, fills, fill_count):
    for i in range(len(states)):
        state = states[i]
        if state.done == 0:
            advance_episode(tape, state, until_ns[i], taken_px[i], taken_lots[i], i, fills, fill_count)
            if state.filled == state.lots:
                state.done = 1


@njit(cache=True)
def _complete_batch(tape, states, taken_px, taken_lots, fills, fill_count):
    for i in range(len(states)):
        if states[i].done == 0:
            complete_episode(tape, states[i], states[i].end_ns, taken_px[i], taken_lots[i], i, fills, fill_count)


class Engine:
    """N episodes on a shared tape, stepped together. Environments and `run_policy` are built on it.

    `latency_ns` replaces every instrument's own latency rule; `fill_model` is one of FILL_MODELS; with `impact_scale`
    the market reacts to own fills by so many times its days' own impact (`reaction`), without it never.
    """

    def __init__(
        self,
        days: Sequence["MarketDay"],
        episodes: int,
        latency_ns: int | None = None,
        fill_model: str = "conservative",
        fill_capacity: int = 1,
        impact_scale: float | None = None,
    ) -> None:
        """Lay the days on a tape and make room for `episodes` and for `fill_capacity` recorded fills."""
        self.tape: Tape = build_tape(days, latency_ns, fill_model)
        if impact_scale is not None:
            self.tape = self.tape._replace(reaction=build_reaction(days, episodes, impact_scale))
        self.fill_model = fill_model
        self.states: NDArray[np.void] = np.zeros(episodes, EPISODE_DTYPE)
        self.states["done"], self.states["slot"] = 1, np.arange(episodes)
        self.taken_px = np.zeros((episodes, TAKEN_CAPACITY), np.int64)
        self.taken_lots = np.zeros((episodes, TAKEN_CAPACITY, 2), np.int64)  # taken, printed there since it changed
        self.fill_rows = np.zeros(fill_capacity, FILL_DTYPE)
        self.fill_count = np.zeros(1, np.int64)

    def start(
        self,
        parents: NDArray[np.void],
        indices: NDArray[np.int64] | None = None,
        record: NDArray[np.int64] | None = None,
    ) -> None:
        """Start `parents` (PARENT_DTYPE) in the episodes `indices` (all by default); `record` 1 keeps their fills.

        Raises ParentError where no two-sided book stood at a parent's arrival, its session window closes before its
        horizon is over, or a day index is unknown.
        """
        where = np.arange(len(self.states)) if indices is None else np.asarray(indices, np.int64)
        rows = np.ascontiguousarray(parents, dtype=PARENT_DTYPE)
        if len(rows) != len(where):
            raise ParentError(f"{len(rows)} parents for {len(where)} episodes: their numbers must agree")
        unknown = (rows["day"] < 0) | (rows["day"] >= len(self.tape.days))
        if unknown.any():
            raise ParentError(f"parent on day index {rows['day'][unknown][0]}; the tape holds {len(self.tape.days)}")
        flags = np.zeros(len(rows), np.int64) if record is None else np.asarray(record, np.int64)
        failed = _start_batch(self.tape, self.states, where, rows, flags)
        if failed >= 0:
            raise ParentError(self._refusal(rows[failed], self.states[where[failed]]))

    def _refusal(self, parent: NDArray[np.void], state: NDArray[np.void]) -> str:
        """Why an episode did not start, in words."""
        start, ends, closes = (int(value) for value in (parent["start_ns"], state["end_ns"], state["close_ns"]))
        ends += int(state["latency_ns"])
        if closes == 0:
            return f"parent from {start} ns lies in no session window (day {parent['day']}): start within one"
        if ends >= closes:
            return (
                f"parent from {start} ns needs the market until {ends} ns, its session window closes at {closes} ns "
                f"(day {parent['day']}): start earlier"
            )
        return f"no two-sided book stands at {start} ns (day {parent['day']}): start later"

    def submit(self, now_ns: NDArray[np.int64], instructions: NDArray[np.void]) -> None:
        """Send one message per unfinished episode (INSTRUCTION_DTYPE, `(N,)`), decided at `now_ns (N,) int64`."""
        _submit_batch(self.tape, self.states, now_ns, checked_instructions(instructions))

    def advance(self, until_ns: NDArray[np.int64]) -> None:
        """Play each unfinished episode up to `until_ns (N,) int64`; the filled ones are done."""
        _advance_batch(
            self.tape, self.states, until_ns, self.taken_px, self.taken_lots, self.fill_rows, self.fill_count
        )

    def complete(self) -> None:
        """Forced completion of every unfinished episode at its horizon."""
        _complete_batch(self.tape, self.states, self.taken_px, self.taken_lots, self.fill_rows, self.fill_count)

    def fills(self) -> NDArray[np.void]:
        """Fills of recorded episodes in time order within each; raises InputError where the buffer was too small."""
        count = int(self.fill_count[0])
        if count > len(self.fill_rows):
            raise InputError(f"{count} fills exceed the buffer of {len(self.fill_rows)}: record fewer parents")
        return self.fill_rows[:count].copy()

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Own price, own size, opposite price and size at the best, each `(N,) int64`; 0 where a side is empty."""
        own_px, own_sz, opp_px, opp_sz = _best(self.tape, self.states)
        return own_px, own_sz, opp_px, opp_sz


@njit(cache=True)
def _best(tape, states):
    found = np.zeros((4, len(states)), np.int64)
    for i in range(len(states)):
        found[0, i], found[1, i], found[2, i], found[3, i] = best_prices(tape, states[i])
    return found[0], found[1], found[2], found[3]
