"""A venue that rejects order after order, or a strategy whose orders it rejects, stops until a person looked."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "venue_rejects"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny once the rejects in a row reach the limit."""
    for node in (at.venue, at.strategy):
        if node.rejects >= limits.max_venue_rejects:
            return Denied(
                control=NAME,
                value=node.rejects,
                limit=limits.max_venue_rejects,
                message=f"{node.rejects} rejects in a row at {node.scope} {node.name}, a person must enable it",
            )
    return None
