"""How many orders may be open at once: in flight ones count."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "open_orders"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order that is one too many in a scope."""
    if not order.is_new:
        return None
    for node in at.nodes:
        if node.open_orders >= node.max_open_orders:
            most = node.max_open_orders
            return Denied(
                control=NAME,
                value=node.open_orders + 1,
                limit=most,
                message=f"{node.open_orders} orders are open ({node.scope} {node.name}), max_open_orders {most}",
            )
    return None
