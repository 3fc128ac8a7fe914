"""Daily loss, realised and marked, and drawdown from the day's best. Reduce-only orders pass: they end the loss."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "loss"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny while a scope lost too much."""
    if order.reduce_only:
        return None
    for node in at.leg.nodes:
        realised = node.realised
        if -realised > node.max_realised_loss:
            return _denied(node, "realised loss", -realised, "max_realised_loss", node.max_realised_loss)
        profit = realised + node.unrealised
        if -profit > node.max_loss:
            return _denied(node, "loss", -profit, "max_loss", node.max_loss)
        if node.peak - profit > node.max_drawdown:
            return _denied(node, "drawdown", node.peak - profit, "max_drawdown", node.max_drawdown)
    return None


def _denied(node: Node, what: str, value: int, limit: str, most: int) -> Denied:
    return Denied(
        control=NAME,
        value=value,
        limit=most,
        message=f"{what} {value} exceeds {limit} {most} ({node.scope} {node.name})",
    )
