"""A strategy that has run its number of orders stops until a person enables it again (RTS 6, Article 15(3))."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "repeated"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order beyond the number since the last enabling."""
    if order.is_new and at.strategy.applied >= limits.max_repeated_orders:
        return Denied(
            control=NAME,
            value=at.strategy.applied + 1,
            limit=limits.max_repeated_orders,
            message=f"strategy {at.place[2]} sent {at.strategy.applied} orders since it was last enabled, "
            f"max_repeated_orders {limits.max_repeated_orders}: a person must enable it",
        )
    return None
