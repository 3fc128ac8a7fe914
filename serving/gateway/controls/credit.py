"""Credit: the worst-case gross value that an account carries, and what it lost today."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "credit"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order beyond the credit. A reduce-only order uses none."""
    added = order.added
    if added <= 0 or order.reduce_only:
        return None
    leg = at.leg
    change = added * leg.book.mark * at.instrument.tick_value
    gross = (leg.long_value if order.sign > 0 else -leg.short_value) + change - leg.gross
    for node, most in limits.credit:
        used = node.gross + max(0, gross) + max(0, -node.profit)
        if used > most:
            return Denied(
                control=NAME,
                value=used,
                limit=most,
                message=f"credit used would be {used}, max_credit {most} ({node.scope} {node.name})",
            )
    return None
