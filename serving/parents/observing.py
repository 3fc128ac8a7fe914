"""What a policy sees of a parent, and what its action asks for: the kernels of `serving.contracts`, as training calls
them.
"""

import base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contracts.actions import CONTINUOUS_HIGH, CONTINUOUS_LOW, continuous_order, discrete_order
from serving.contracts.observation import (
    ACTION_NAMES,
    PRIVATE_NAMES,
    allowed_actions,
    build_observation,
    due_lots,
    private_state,
    scheduled_lots,
)
from serving.decide.protocol import Policy
from serving.parents.market import Row
from serving.parents.orders import Parent, Plan

MS = 1_000_000


class Resting(NamedTuple):
    """The order that rests, as the policy sees it; zeros without one."""

    price_ticks: int = 0
    lots: int = 0
    ahead: int = 0


class ActionError(ValueError):
    """An action that no policy may give here; it names the value and the limit."""


def plan_of(policy: Policy, horizon_ns: int) -> Plan:
    """How `policy` works a parent of this horizon: with its own slices where they divide it, else with nearly those."""
    made_for = policy.execution
    interval_ns = max(MS, round(float(made_for.get("decision_interval_s", 30)) * 1000) * MS)
    slices = max(1, horizon_ns // interval_ns)
    return Plan(
        version=policy.version,
        sha256=policy.sha256,
        continuous=policy.action_set == "continuous",
        stack=policy.stack,
        interval_ns=horizon_ns // slices,
        slices=slices,
        per_slice=int(made_for.get("decisions_per_slice", 1)),
        every_events=int(made_for.get("decision_every_events") or 0),
        ahead=int(made_for.get("ahead_slices", 1)),
        wait_keeps=bool(made_for.get("wait_keeps", False)),
        fill_model=str(made_for.get("fill_model", "conservative")),
        signal_window=policy.signal_window,
        feature_names=policy.feature_names,
        horizons_s=policy.horizons_s,
    )


def slice_at(parent: Parent, plan: Plan, now_ns: int) -> int:
    """Slice of the even schedule that a moment lies in, 0-based."""
    return (now_ns - parent.began_ns) // plan.interval_ns


def due_now(parent: Parent, plan: Plan, now_ns: int) -> int:
    """Lots that may be asked for."""
    at = slice_at(parent, plan, now_ns)
    return int(due_lots(parent.lots, parent.filled, at, plan.slices, plan.ahead))


def behind_now(parent: Parent, plan: Plan, now_ns: int) -> int:
    """Lots that the even schedule wants by the end of this slice and that are not filled; below 0 where it is ahead."""
    return int(scheduled_lots(parent.lots, slice_at(parent, plan, now_ns), plan.slices)) - parent.filled


def observe(
    parent: Parent,
    plan: Plan,
    row: Row,
    resting: Resting,
    now_ns: int,
    market: NDArray[np.float32],
    forecasts: NDArray[np.float32] | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observation `(D,)` and mask `(4,)` at the decision of `now_ns`. Raises InputError where a value is not finite."""
    own_px, own_sz, opp_px, opp_sz = row.best(parent.side)
    mask = np.zeros(len(ACTION_NAMES), np.float32)
    allowed_actions(mask, due_now(parent, plan, now_ns), own_px, own_sz, opp_px, opp_sz)
    private = np.zeros(len(PRIVATE_NAMES), np.float32)
    left = max(0, parent.end_ns - now_ns) / parent.horizon_ns
    private_state(
        private, parent.side, parent.lots, parent.filled, left, behind_now(parent, plan, now_ns), plan.slices,
        resting.price_ticks, resting.lots, resting.ahead, own_px, own_sz, opp_px, opp_sz, row.mid2,
        parent.arrival_mid2,
    )  # fmt: skip
    return build_observation(private, market, forecasts, parent.side), mask


def checked_action(
    plan: Plan, action: int | tuple[float, ...], mask: NDArray[np.float32] | tuple[int, ...]
) -> tuple[float, ...]:
    """The action as numbers. Raises ActionError for one of another set, beyond its bounds, or against its mask."""
    if plan.continuous:
        values = action if isinstance(action, tuple) else (action,)
        if len(values) != 2 or not all(CONTINUOUS_LOW <= value <= CONTINUOUS_HIGH for value in values):  # NaN fails too
            raise ActionError(f"action {values} is not two numbers from {CONTINUOUS_LOW:g} to {CONTINUOUS_HIGH:g}")
        return tuple(float(value) for value in values)
    if isinstance(action, bool) or not isinstance(action, int) or not 0 <= action < len(ACTION_NAMES):
        raise ActionError(f"action {action!r} is not a number from 0 to {len(ACTION_NAMES) - 1}")
    if not mask[action]:
        raise ActionError(f"action {ACTION_NAMES[action]} is masked")
    return (float(action),)


def target_of(
    parent: Parent, plan: Plan, action: tuple[float, ...], row: Row, resting: Resting, now_ns: int
) -> tuple[int, int, int]:
    """What an action asks for: price and lots that shall rest, and lots to take."""
    own_px, own_sz, opp_px, opp_sz = row.best(parent.side)
    due = due_now(parent, plan, now_ns)
    if plan.continuous:
        found = continuous_order(action[0], action[1], parent.side, due, own_px, own_sz, opp_px, opp_sz)
    else:
        found = discrete_order(
            int(action[0]), parent.side, due, own_px, own_sz, opp_px, opp_sz, resting.price_ticks, resting.lots,
            plan.wait_keeps,
        )  # fmt: skip
    return int(found[0]), int(found[1]), int(found[2])


def packed(observation: NDArray[np.float32]) -> str:
    """An observation as text, bit for bit."""
    return base64.b64encode(observation.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """The inverse of `packed`."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
