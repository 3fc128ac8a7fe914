"""All controls in the order in which they run: `run` is the whole truth, and `CONTROLS` the same by name.

Nothing can switch one off or step over it: `clear` may answer first, and only that all of them would let an order
pass. `run` spells the calls out, as a loop would cost a third more.
"""

import hashlib
from pathlib import Path
from types import ModuleType

from serving.contracts.decisions import Denied
from serving.gateway.clear import COMPARED, COVERED, is_clear
from serving.gateway.compiled import At, Intent
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

CONTROLS: tuple[ModuleType, ...] = (
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
"""Every control in its order, as modules that are asked for their `check`."""


def digest(folder: Path) -> str:
    """sha256 (hex) over the files of all controls in a folder; "" where one cannot be read."""
    found = hashlib.sha256()
    try:
        for control in CONTROLS:
            found.update((folder / f"{control.NAME}.py").read_bytes())
    except OSError:
        return ""
    return found.hexdigest()


CLEAR_MAY_ANSWER = digest(Path(__file__).parent) == COMPARED and {control.NAME for control in CONTROLS} == set(COVERED)
"""Whether `clear` was compared with the controls as they are: where not, every control is asked about every order."""


def run(at: At, order: Intent, now: Now) -> Denied | None:
    """The first denial, or None where every control lets the order pass. A control that raises denies."""
    try:
        if CLEAR_MAY_ANSWER and is_clear(at, order, now):
            return None
        limits = at.limits
        return (
            identity.check(at, limits, order, now)
            or standing.check(at, limits, order, now)
            or kill_switch.check(at, limits, order, now)
            or session.check(at, limits, order, now)
            or clock.check(at, limits, order, now)
            or request_age.check(at, limits, order, now)
            or heartbeat.check(at, limits, order, now)
            or symbol_lists.check(at, limits, order, now)
            or false_fills.check(at, limits, order, now)
            or venue_rejects.check(at, limits, order, now)
            or unacknowledged.check(at, limits, order, now)
            or replace_pending.check(at, limits, order, now)
            or increments.check(at, limits, order, now)
            or duplicate.check(at, limits, order, now)
            or message_rate.check(at, limits, order, now)
            or repeated.check(at, limits, order, now)
            or cancel_ratio.check(at, limits, order, now)
            or reference.check(at, limits, order, now)
            or order_lots.check(at, limits, order, now)
            or order_adv.check(at, limits, order, now)
            or collar.check(at, limits, order, now)
            or drift_collar.check(at, limits, order, now)
            or order_value.check(at, limits, order, now)
            or open_orders.check(at, limits, order, now)
            or reduce_only.check(at, limits, order, now)
            or position.check(at, limits, order, now)
            or gross_net.check(at, limits, order, now)
            or day_turnover.check(at, limits, order, now)
            or credit.check(at, limits, order, now)
            or loss.check(at, limits, order, now)
            or participation.check(at, limits, order, now)
            or locate.check(at, limits, order, now)
            or self_match.check(at, limits, order, now)
        )
    except Exception:
        return _slowly(at, order, now)


def _slowly(at: At, order: Intent, now: Now) -> Denied:
    """What `run` denies where a control raises: controls change nothing, so that they may be asked again by name."""
    name = ""
    try:
        for control in CONTROLS:
            name = control.NAME
            denied: Denied | None = control.check(at, at.limits, order, now)
            if denied is not None:
                return denied
    except Exception as error:
        return Denied(control=name or "registry", message=f"the control failed: {type(error).__name__}: {error}")
    return Denied(control="registry", message="a control failed, and did not when it was asked again")
