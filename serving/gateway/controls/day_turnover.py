"""Value and lots of the day, filled and open together."""

from serving.contracts.decisions import Denied
from serving.gateway.books import Node
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "day_turnover"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order that would take a scope beyond its day."""
    lots, value = order.added, order.added_value
    if value <= 0:  # more lots are never worth less
        return None
    for node in at.nodes:
        if node.traded_value + node.open_value + value > node.max_day_value:
            return _denied(node, "value", node.traded_value + node.open_value + value, node.max_day_value)
        if lots > 0 and node.traded_lots + node.open_lots + lots > node.max_day_lots:
            return _denied(node, "lots", node.traded_lots + node.open_lots + lots, node.max_day_lots)
    return None


def _denied(node: Node, what: str, value: int, most: int) -> Denied:
    return Denied(
        control=NAME,
        value=value,
        limit=most,
        message=f"the day's {what} would be {value}, max_day_{what} {most} ({node.scope} {node.name})",
    )
