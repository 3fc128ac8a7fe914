"""The same order twice within a moment is taken for an error. After a restart every order might be the second."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now, alike

NAME = "duplicate"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order equal to one that was sent within the window, whatever its key."""
    recent = at.recent
    if not order.is_new or now.mono_ns - recent.last_ns >= limits.duplicate_window_ns:
        return None
    sent_ns = recent.sent.get(alike(order.sign, order.price, order.lots), at.started_ns)
    age = now.mono_ns - sent_ns
    if age < limits.duplicate_window_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.duplicate_window_ns,
            message=f"an equal order may have gone {age} ns ago, duplicate_window_ns {limits.duplicate_window_ns}",
        )
    return None
