"""Value and lots of the day, filled and open together."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "day_turnover"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order that would take a scope beyond its day."""
    lots, value = order.added, order.added_value
    if lots <= 0 and value <= 0:
        return None
    for node, most_value, most_lots in limits.day:
        if node.traded_value + node.open_value + value > most_value:
            return Denied(
                control=NAME,
                value=node.traded_value + node.open_value + value,
                limit=most_value,
                message=f"the day's value would be {node.traded_value + node.open_value + value}, max_day_value "
                f"{most_value} ({node.scope} {node.name})",
            )
        if node.traded_lots + node.open_lots + lots > most_lots:
            return Denied(
                control=NAME,
                value=node.traded_lots + node.open_lots + lots,
                limit=most_lots,
                message=f"the day's lots would be {node.traded_lots + node.open_lots + lots}, max_day_lots "
                f"{most_lots} ({node.scope} {node.name})",
            )
    return None
