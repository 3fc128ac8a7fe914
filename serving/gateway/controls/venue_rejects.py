"""A venue that rejects order after order, or a strategy whose orders it rejects, stops until a person looked."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "venue_rejects"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny once the rejects in a row reach the limit."""
    most = limits.max_venue_rejects
    if at.venue.rejects >= most:
        return _denied(at.venue, most)
    if at.strategy.rejects >= most:
        return _denied(at.strategy, most)
    return None


def _denied(node: Node, most: int) -> Denied:
    return Denied(
        control=NAME,
        value=node.rejects,
        limit=most,
        message=f"{node.rejects} rejects in a row at {node.scope} {node.name}, a person must enable it",
    )
