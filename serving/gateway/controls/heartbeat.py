"""A strategy must be connected and must have said lately that it is alive."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "heartbeat"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny for a strategy that is gone or silent; its orders are cancelled elsewhere (`watch`)."""
    beat = at.beat
    if not beat.connected:
        return Denied(control=NAME, message=f"strategy {at.place[2]} is not connected")
    age = now.mono_ns - beat.seen_ns
    if age > limits.max_heartbeat_age_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.max_heartbeat_age_ns,
            message=f"no heartbeat of strategy {at.place[2]} for {age} ns, "
            f"max_heartbeat_age_ns {limits.max_heartbeat_age_ns}",
        )
    return None
