"""Credit: the worst-case gross value that an account carries, and what it lost today."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "credit"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order beyond the credit. A reduce-only order uses none."""
    if order.added <= 0 or order.reduce_only:
        return None
    leg = at.leg
    gross = (leg.long_value if order.sign > 0 else -leg.short_value) + order.at_mark - leg.gross
    if gross < 0:
        gross = 0
    return _beyond(at.all, gross) or _beyond(at.account, gross)


def _beyond(node: Node, gross: int) -> Denied | None:
    profit = node.realised + node.unrealised
    used = node.gross + gross - (profit if profit < 0 else 0)
    if used > node.max_credit:
        return Denied(
            control=NAME,
            value=used,
            limit=node.max_credit,
            message=f"credit used would be {used}, max_credit {node.max_credit} ({node.scope} {node.name})",
        )
    return None
