"""One replace at a time: with two in flight nobody knows which of them the venue will follow."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "replace_pending"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a replace of an order that has one unanswered, or that is being cancelled."""
    target = order.target
    if target is not None and (target.new_lots or target.cancelling or target.status == 1):
        return Denied(control=NAME, message=f"order {target.id} is {target.stage}: wait for the venue's answer")
    return None
