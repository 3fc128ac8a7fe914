"""Worst-case gross and net value, over all strategies and in each scope. Gross never nets one leg with another."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "gross_net"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order that adds to a sum beyond its limit."""
    if order.added <= 0:
        return None
    leg, change = at.leg, order.at_mark
    if order.sign > 0:
        gross = leg.long_value + change - leg.gross
        for node in leg.nodes:
            if gross > 0 and node.gross + gross > node.max_gross_value:
                return _denied(node, "gross", node.gross + gross, node.max_gross_value)
            if node.long_value + change > node.max_net_value:
                return _denied(node, "net", node.long_value + change, node.max_net_value)
    else:
        gross = change - leg.short_value - leg.gross
        for node in leg.nodes:
            if gross > 0 and node.gross + gross > node.max_gross_value:
                return _denied(node, "gross", node.gross + gross, node.max_gross_value)
            if change - node.short_value > node.max_net_value:
                return _denied(node, "net", change - node.short_value, node.max_net_value)
    return None


def _denied(node: Node, what: str, value: int, most: int) -> Denied:
    return Denied(
        control=NAME,
        value=value,
        limit=most,
        message=f"worst-case {what} {value} exceeds max_{what}_value {most} ({node.scope} {node.name})",
    )
