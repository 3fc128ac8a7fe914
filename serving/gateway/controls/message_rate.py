"""Messages a second by scope, on the monotonic clock; cancels have capacity of their own and are never crowded out."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now, Window

NAME = "message_rate"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order or a replace that is one too many within a second. After a restart the second is full."""
    for node in at.nodes:
        window = node.messages
        if window is not None and window.used >= window.limit and window.is_full(now.mono_ns):
            return _denied(window, "max_messages_per_second")
    return None


def check_cancel(at: At, now: Now) -> Denied | None:
    """Deny a cancel only beyond the capacity kept for cancels."""
    for node in at.nodes:
        window = node.cancel_messages
        if window is not None and window.is_full(now.mono_ns):
            return _denied(window, "max_cancels_per_second")
    return None


def _denied(window: Window, limit: str) -> Denied:
    return Denied(
        control=NAME,
        value=window.limit + 1,
        limit=window.limit,
        message=f"more than {limit} {window.limit} ({window.scope} {window.name})",
    )
