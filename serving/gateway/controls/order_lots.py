"""The size of one order, in lots."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "order_lots"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a total size above the limit, filled lots of a replaced order included."""
    lots = order.total
    if lots > limits.max_order_lots:
        return Denied(
            control=NAME,
            value=lots,
            limit=limits.max_order_lots,
            message=f"quantity {lots} lots exceeds max_order_lots {limits.max_order_lots} (symbol {at.place[3]})",
        )
    return None
