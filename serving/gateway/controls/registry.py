"""All controls in the order in which they run. The tuple is the whole truth.

Nothing can switch one off or step over it.
"""

from collections.abc import Callable

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.controls import (
    cancel_ratio,
    clock,
    collar,
    credit,
    day_turnover,
    drift_collar,
    duplicate,
    false_fills,
    gross_net,
    heartbeat,
    identity,
    increments,
    kill_switch,
    locate,
    loss,
    message_rate,
    open_orders,
    order_adv,
    order_lots,
    order_value,
    participation,
    position,
    reduce_only,
    reference,
    repeated,
    replace_pending,
    request_age,
    self_match,
    session,
    standing,
    symbol_lists,
    unacknowledged,
    venue_rejects,
)
from serving.gateway.live import Now

Control = Callable[[At, Effective, Intent, Now], Denied | None]

_MODULES = (
    identity,
    standing,
    kill_switch,
    session,
    clock,
    request_age,
    heartbeat,
    symbol_lists,
    false_fills,
    venue_rejects,
    unacknowledged,
    replace_pending,
    increments,
    duplicate,
    message_rate,
    repeated,
    cancel_ratio,
    reference,
    order_lots,
    order_adv,
    collar,
    drift_collar,
    order_value,
    open_orders,
    reduce_only,
    position,
    gross_net,
    day_turnover,
    credit,
    loss,
    participation,
    locate,
    self_match,
)

CONTROLS: tuple[tuple[str, Control], ...] = tuple((module.NAME, module.check) for module in _MODULES)


def run(at: At, order: Intent, now: Now) -> Denied | None:
    """The first denial, or None where every control lets the order pass. A control that raises denies."""
    name = ""
    try:
        limits = at.limits
        for name, check in CONTROLS:  # noqa: B007  # told where a control fails
            denied = check(at, limits, order, now)
            if denied is not None:
                return denied
    except Exception as error:
        return Denied(control=name or "registry", message=f"the control failed: {type(error).__name__}: {error}")
    return None
