"""Worst-case gross and net value, over all strategies and in each scope. Gross never nets one leg with another."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "gross_net"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order that adds to a sum beyond its limit."""
    leg, added = at.leg, order.added
    if added <= 0:
        return None
    change = added * leg.book.mark * at.instrument.tick_value
    gross = (leg.long_value if order.sign > 0 else -leg.short_value) + change - leg.gross
    for node, most_gross, most_net in limits.held:
        if gross > 0 and node.gross + gross > most_gross:
            return Denied(
                control=NAME,
                value=node.gross + gross,
                limit=most_gross,
                message=f"worst-case gross {node.gross + gross} exceeds max_gross_value {most_gross} "
                f"({node.scope} {node.name})",
            )
        net = node.long_value + change if order.sign > 0 else change - node.short_value
        if net > most_net:
            return Denied(
                control=NAME,
                value=net,
                limit=most_net,
                message=f"worst-case net {net} exceeds max_net_value {most_net} ({node.scope} {node.name})",
            )
    return None
