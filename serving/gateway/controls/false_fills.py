"""A venue that overfills, fills outside of the limit or reports what was never sent stops until a person looked."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "false_fills"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny while the breaker that `order_events` opened is open."""
    if at.venue.tripped:
        return Denied(control=NAME, message=f"venue {at.place[0]} is stopped: {at.venue.tripped}")
    return None
