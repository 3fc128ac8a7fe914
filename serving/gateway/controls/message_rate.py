"""Messages a second by scope, on the monotonic clock; cancels have capacity of their own and are never crowded out."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import SECOND_NS, Now

NAME = "message_rate"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order or a replace that is one too many within a second. After a restart the second is full."""
    mono_ns = now.mono_ns
    for scope, window in limits.message_windows:
        if not window.limit or mono_ns - window.times[window.next] < SECOND_NS:
            return Denied(
                control=NAME,
                value=window.limit + 1,
                limit=window.limit,
                message=f"more than max_messages_per_second {window.limit} ({scope})",
            )
    return None


def check_cancel(limits: Effective, now: Now) -> Denied | None:
    """Deny a cancel only beyond the capacity kept for cancels."""
    for scope, window in limits.cancel_windows:
        if window.is_full(now.mono_ns):
            return Denied(
                control=NAME,
                value=window.limit + 1,
                limit=window.limit,
                message=f"more than max_cancels_per_second {window.limit} ({scope})",
            )
    return None
