"""The value of one order, at its price or the reference, whichever is more; a market order at the collar's end."""

from serving.contracts.decisions import Denied
from serving.contracts.orders import INT64_MAX
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "order_value"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a value above the limit, or beyond int64."""
    if order.value > limits.max_order_value:
        return Denied(
            control=NAME,
            value=min(order.value, INT64_MAX),
            limit=limits.max_order_value,
            message=f"value {order.value} exceeds max_order_value {limits.max_order_value} (symbol {at.place[3]})",
        )
    return None
