"""A venue that does not answer gets nothing more."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "unacknowledged"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny while the oldest unanswered message is older than the limit."""
    waiting = at.unanswered
    if now.mono_ns - waiting.floor_ns <= limits.max_unacknowledged_ns:
        return None
    sent_ns = waiting.oldest_ns()
    if sent_ns is None:
        return None
    age = now.mono_ns - sent_ns
    if age > limits.max_unacknowledged_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.max_unacknowledged_ns,
            message=f"venue {at.place[0]} left a message unanswered for {age} ns, "
            f"max_unacknowledged_ns {limits.max_unacknowledged_ns}",
        )
    return None
