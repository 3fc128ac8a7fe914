"""One decision of one episode, compiled: what it observes, what its action does, what it earns."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contracts.actions import continuous_order, discrete_order
from serving.contracts.observation import (
    PRIVATE_NAMES,
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
from training.market.impact_features import displaced_features
from training.market.queues import inlined, kernel
from training.market.tape import best_prices, mid2_now

PRIVATE_SIZE = len(PRIVATE_NAMES)


class StepSettings(NamedTuple):
    """ExecutionConfig as the compiled step reads it."""

    interval_ns: int  # a slice of the schedule
    pause_ns: int  # between decisions on the time grid
    every_events: int  # 0: decisions on the time grid
    slices: int
    ahead_slices: int
    continuous: bool
    wait_keeps: bool
    maker_fee_bps: float
    taker_fee_bps: float
    risk_aversion: float
    limits: NDArray[np.float32]  # (3, D): directional signs, lowest and highest values of the observation


def step_settings(config: ExecutionConfig) -> StepSettings:
    """Settings of the compiled step for `config`."""
    return StepSettings(
        config.interval_ns,
        config.pause_ns,
        config.decision_every_events or 0,
        config.slices,
        config.ahead_slices,
        config.actions == "continuous",
        bool(config.wait_keeps),
        float(config.maker_fee_bps),
        float(config.taker_fee_bps),
        float(config.risk_aversion),
        np.stack([directional_signs(), *observation_bounds()]),
    )


@kernel
def begin_decisions(tape, state):
    """The first decision of a started episode is due at its arrival: find the feature row in force then."""
    day = tape.days[state.day]
    state.now_ns = state.start_ns
    before = np.searchsorted(tape.feature_ns[day.feature_lo : day.feature_hi], state.start_ns, side="right")
    state.feature = day.feature_lo + before - 1


@kernel
def follow_features(tape, state):
    """Move on to the feature row in force at the decision: from where it stands, in steps that double."""
    known, end = state.feature, tape.days[state.day].feature_hi
    stride = 1
    while known + stride < end and tape.feature_ns[known + stride] <= state.now_ns:
        known += stride
        stride *= 2
    while stride > 1:
        stride //= 2
        if known + stride < end and tape.feature_ns[known + stride] <= state.now_ns:
            known += stride
    state.feature = known


@kernel
def next_decision_ns(tape, state, settings):
    """When the following decision is due; the horizon's end where none is left.

    On the event grid that is the stamp of the `every_events`-th book row from here; rows of one stamp are one moment.
    """
    if settings.every_events == 0:
        return state.now_ns + settings.pause_ns
    at = state.row + settings.every_events
    return min(tape.ts[at], state.end_ns) if at < state.row_hi else state.end_ns


@kernel
def slice_now(state, settings):
    """Slice of the schedule that the decision lies in, 0-based; `slices` at the horizon's end."""
    return (state.now_ns - state.start_ns) // settings.interval_ns


@inlined
def observe_private(state, settings, own_px, own_sz, opp_px, opp_sz, mid2, out, mask):
    """Write the private elements and the mask `(4,)` from the best prices, their lots and twice the mid."""
    at = slice_now(state, settings)
    due = due_lots(state.lots, state.filled, at, settings.slices, settings.ahead_slices)
    if state.done == 1:
        due = 0
    allowed_actions(mask, due, own_px, own_sz, opp_px, opp_sz)
    behind = scheduled_lots(state.lots, at, settings.slices) - state.filled
    left = max(0, state.end_ns - state.now_ns) / (state.end_ns - state.start_ns)
    private_state(
        out, state.side, state.lots, state.filled, left, behind, settings.slices, state.rest_px + state.shift,
        state.rest_lots, state.rest_ahead, own_px, own_sz, opp_px, opp_sz, mid2, state.arrival_mid2,
    )  # fmt: skip


@kernel
def observe(tape, state, settings, out, mask):
    """Write observation `(D,)` and mask `(4,)` of the episode's present; returns a bad element's index or -1."""
    own_px, own_sz, opp_px, opp_sz = best_prices(tape, state)
    observe_private(state, settings, own_px, own_sz, opp_px, opp_sz, mid2_now(tape, state), out, mask)
    if state.feature < tape.days[state.day].feature_lo:
        return PRIVATE_SIZE  # the first market feature is unknown: refused like NaN
    row, limits = state.feature, settings.limits
    if state.reacts == 1 and tape.reaction.episodes[state.slot].moved == 1:  # the stored row belongs to another market
        displaced_features(tape, state)
        impact = tape.reaction.episodes[state.slot]
        return finish_observation(
            out, PRIVATE_SIZE, impact.features, impact.forecasts, np.float32(1.0), state.side,
            limits[0], limits[1], limits[2],
        )  # fmt: skip
    return finish_observation(
        out, PRIVATE_SIZE, tape.features[row], tape.forecasts[row], tape.missing[row], state.side,
        limits[0], limits[1], limits[2],
    )  # fmt: skip


@kernel
def send_action(tape, state, action, settings):
    """Send what `action` asks for; an impossible one is masked or clamped and counted.

    `action` is a row of float64: the number of a discrete action, or the values of a continuous one.
    """
    own_px, own_sz, opp_px, opp_sz = best_prices(tape, state)
    rest_px, rest_lots, cross_lots = message_of(state, action, settings, own_px, own_sz, opp_px, opp_sz)
    if rest_lots > 0 or cross_lots > 0 or state.rest_lots > 0 or state.pend_ns > 0:
        submit(tape, state, state.now_ns, rest_px, rest_lots, cross_lots, 0, 0)


@inlined
def message_of(state, action, settings, own_px, own_sz, opp_px, opp_sz):
    """Resting price and lots and the lots to cross that `action` asks for; what was masked or clamped is counted."""
    due = due_lots(state.lots, state.filled, slice_now(state, settings), settings.slices, settings.ahead_slices)
    side = state.side
    if settings.continuous:
        order = continuous_order(action[0], action[1], side, due, own_px, own_sz, opp_px, opp_sz)
    else:
        standing_px = state.rest_px + state.shift
        order = discrete_order(
            np.int64(action[0]), side, due, own_px, own_sz, opp_px, opp_sz, standing_px, state.rest_lots,
            settings.wait_keeps,
        )  # fmt: skip
    rest_px, rest_lots, cross_lots, changed = order
    state.masked += changed
    return rest_px, rest_lots, cross_lots


@kernel
def step_episode(tape, state, action, settings, taken_px, taken_lots, episode, fills, fill_count):
    """Act, play up to the next decision, complete by force at the horizon; returns the reward in bps.

    The reward is minus the change of the marked shortfall, less `risk_aversion` x (share still open x mid move of the
    step in bps)^2.
    """
    open_share = (state.lots - state.filled) / state.lots
    send_action(tape, state, action, settings)
    until_ns = next_decision_ns(tape, state, settings)
    advance_episode(tape, state, until_ns, taken_px, taken_lots, episode, fills, fill_count)
    state.step += 1
    state.now_ns = until_ns
    if state.filled == state.lots:
        state.done = 1
        state.rest_lots = state.pend_ns = 0
    elif until_ns >= state.end_ns:
        complete_episode(tape, state, state.end_ns, taken_px, taken_lots, episode, fills, fill_count)
    follow_features(tape, state)
    return earned(state, mid2_now(tape, state), open_share, settings)


@inlined
def earned(state, mid2, open_share, settings):
    """Reward of the step that ends now at twice the mid `mid2`; `open_share` was open when it began."""
    mark = cost_bps(state, mid2, settings.maker_fee_bps, settings.taker_fee_bps)
    move_bps = 1e4 * (mid2 - state.last_mid2) / state.arrival_mid2
    risk = (open_share * move_bps) ** 2
    reward = state.mark_bps - mark - settings.risk_aversion * risk
    state.penalty += risk
    state.mark_bps = mark
    state.last_mid2 = mid2
    return reward
