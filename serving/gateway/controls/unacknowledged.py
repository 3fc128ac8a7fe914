"""A venue that does not answer gets nothing more."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "unacknowledged"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny while the oldest unanswered message is older than the limit."""
    for sent_ns in at.unanswered.values():
        age = now.mono_ns - sent_ns
        if age > limits.max_unacknowledged_ns:
            return Denied(
                control=NAME,
                value=age,
                limit=limits.max_unacknowledged_ns,
                message=f"venue {at.place[0]} left a message unanswered for {age} ns, "
                f"max_unacknowledged_ns {limits.max_unacknowledged_ns}",
            )
        break  # the oldest comes first
    return None
