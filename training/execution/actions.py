"""The four actions as messages to the venue, and the compiled step that every environment shares."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from serving.contracts.observation import (
    CROSS,
    IMPROVE,
    PLACE,
    PRIVATE_NAMES,
    WAIT,
    allowed_actions,
    directional_signs,
    due_lots,
    finish_observation,
    observation_bounds,
    private_state,
    scheduled_lots,
)
from training.execution.config import ExecutionConfig
from training.market.engine import advance_episode, complete_episode, cost_bps, submit
from training.market.fills import MID2, opposite_offset, own_offset

PRIVATE_SIZE = len(PRIVATE_NAMES)


class StepSettings(NamedTuple):
    """ExecutionConfig as the compiled step reads it."""

    interval_ns: int
    slices: int
    ahead_slices: int
    maker_fee_bps: float
    taker_fee_bps: float
    risk_aversion: float
    signs: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


def step_settings(config: ExecutionConfig) -> StepSettings:
    """Settings of the compiled step for `config`."""
    low, high = observation_bounds()
    return StepSettings(
        config.interval_ns,
        config.slices,
        config.ahead_slices,
        float(config.maker_fee_bps),
        float(config.taker_fee_bps),
        float(config.risk_aversion),
        directional_signs(),
        low,
        high,
    )


@njit(cache=True)
def best_prices(tape, state):
    """Own price, own size, opposite price, opposite size at the best in the state that the episode sees now."""
    book, depth = tape.rows[state.row], tape.depth
    own, opp = own_offset(state.side, depth), opposite_offset(state.side, depth)
    return np.int64(book[own]), np.int64(book[own + depth]), np.int64(book[opp]), np.int64(book[opp + depth])


@njit(cache=True)
def send_action(tape, state, action, due, now_ns):
    """Turn an allowed action into a message.

    WAIT cancels what rests. PLACE rests `due` lots at the own best price, IMPROVE one tick inside the spread. CROSS
    takes `due` lots at once from the visible book (IOC, no price limit) and leaves nothing resting.
    """
    own_px, _, _, _ = best_prices(tape, state)
    if action == WAIT:
        if state.rest_lots > 0 or state.pend_ns > 0:
            submit(tape, state, now_ns, 0, 0, 0, 0, 0)
    elif action == PLACE:
        submit(tape, state, now_ns, own_px, due, 0, 0, 0)
    elif action == IMPROVE:
        submit(tape, state, now_ns, own_px + state.side, due, 0, 0, 0)
    elif action == CROSS:
        submit(tape, state, now_ns, 0, 0, due, 0, 0)


@njit(cache=True)
def observe(tape, state, settings, out, mask):
    """Write observation `(D,)` and mask `(4,)` of the episode's present; returns a bad element's index or -1."""
    now_ns = state.start_ns + state.step * settings.interval_ns
    own_px, own_sz, opp_px, opp_sz = best_prices(tape, state)
    mid2 = np.int64(tape.rows[state.row, MID2])
    due = due_lots(state.lots, state.filled, state.step, settings.slices, settings.ahead_slices)
    if state.done == 1:
        due = 0
    allowed_actions(mask, due, own_px, own_sz, opp_px, opp_sz)
    behind = scheduled_lots(state.lots, state.step, settings.slices) - state.filled
    left = max(0, state.end_ns - now_ns) / (state.end_ns - state.start_ns)
    private_state(
        out, state.side, state.lots, state.filled, left, behind, settings.slices, state.rest_px, state.rest_lots,
        state.rest_ahead, own_px, own_sz, opp_px, opp_sz, mid2, state.arrival_mid2,
    )  # fmt: skip
    day = tape.days[state.day]
    at = day.feature_lo
    at += np.searchsorted(tape.feature_ns[day.feature_lo : day.feature_hi], now_ns, side="right") - 1
    if at < day.feature_lo:
        return PRIVATE_SIZE  # the first market feature is unknown: refused like NaN
    return finish_observation(
        out, PRIVATE_SIZE, tape.features[at], tape.forecasts[at], tape.missing[at], state.side,
        settings.signs, settings.low, settings.high,
    )  # fmt: skip


@njit(cache=True)
def step_episode(tape, state, action, settings, taken_px, taken_lots, episode, fills, fill_count):
    """Act, play one decision interval, complete by force at the horizon; returns the reward in bps.

    A masked action counts as WAIT and is counted. The reward is minus the change of the marked shortfall, less
    `risk_aversion` x (share still open x mid move of the step in bps)^2.
    """
    now_ns = state.start_ns + state.step * settings.interval_ns
    own_px, own_sz, opp_px, opp_sz = best_prices(tape, state)
    due = due_lots(state.lots, state.filled, state.step, settings.slices, settings.ahead_slices)
    possible = action == WAIT
    if action in (PLACE, IMPROVE):
        possible = due > 0 and own_sz > 0
        if action == IMPROVE:
            possible = possible and opp_sz > 0 and abs(opp_px - own_px) > 1
    elif action == CROSS:
        possible = due > 0 and opp_sz > 0
    if not possible:
        state.masked += 1
        action = WAIT
    open_share = (state.lots - state.filled) / state.lots
    send_action(tape, state, action, due, now_ns)
    state.step += 1
    advance_episode(tape, state, now_ns + settings.interval_ns, taken_px, taken_lots, episode, fills, fill_count)
    if state.filled == state.lots:
        state.done = 1
        state.rest_lots = state.pend_ns = 0
    elif state.step >= settings.slices:
        complete_episode(tape, state, state.end_ns, taken_px, taken_lots, episode, fills, fill_count)
    mid2 = np.int64(tape.rows[state.row, MID2])
    mark = cost_bps(state, mid2, settings.maker_fee_bps, settings.taker_fee_bps)
    move_bps = 1e4 * (mid2 - state.last_mid2) / state.arrival_mid2
    risk = (open_share * move_bps) ** 2
    reward = state.mark_bps - mark - settings.risk_aversion * risk
    state.penalty += risk
    state.mark_bps = mark
    state.last_mid2 = mid2
    return reward


@njit(cache=True)
def step_batch(tape, states, actions, settings, taken_px, taken_lots, fills, fill_count, rewards):
    """`step_episode` for every unfinished episode; finished ones keep their state and get reward 0."""
    for i in range(len(states)):
        rewards[i] = 0.0
        if states[i].done == 0:
            rewards[i] = step_episode(
                tape, states[i], actions[i], settings, taken_px[i], taken_lots[i], i, fills, fill_count
            )


@njit(cache=True)
def observe_batch(tape, states, settings, out, masks):
    """`observe` for every episode; returns (episode, element) of the first value that is not finite, else (-1, -1)."""
    for i in range(len(states)):
        bad = observe(tape, states[i], settings, out[i], masks[i])
        if bad >= 0:
            return i, bad
    return -1, -1
