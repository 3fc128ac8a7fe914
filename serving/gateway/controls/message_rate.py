"""Messages a second by scope, on the monotonic clock; cancels have capacity of their own and are never crowded out."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import SECOND_NS, Now

NAME = "message_rate"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order or a replace that is one too many within a second. After a restart the second is full."""
    mono_ns = now.mono_ns
    for node, window in at.windows:
        if not window.limit or mono_ns - window.times[window.next] < SECOND_NS:
            return _denied(node, "max_messages_per_second", window.limit)
    return None


def check_cancel(at: At, now: Now) -> Denied | None:
    """Deny a cancel only beyond the capacity kept for cancels."""
    for node in at.nodes:
        window = node.cancel_messages
        if window is not None and window.is_full(now.mono_ns):
            return _denied(node, "max_cancels_per_second", window.limit)
    return None


def _denied(node: Node, limit: str, most: int) -> Denied:
    return Denied(
        control=NAME,
        value=most + 1,
        limit=most,
        message=f"more than {limit} {most} ({node.scope} {node.name})",
    )
