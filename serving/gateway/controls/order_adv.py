"""The size of one order against the average daily volume."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now
from serving.gateway.money import BPS

NAME = "order_adv"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a size above the limit's part of the average day."""
    lots, most = order.total, at.leg.book.adv_lots * limits.max_order_adv_bps // BPS
    if lots > most:
        return Denied(
            control=NAME,
            value=lots,
            limit=most,
            message=f"quantity {lots} lots exceeds {limits.max_order_adv_bps} bps (max_order_adv_bps) of the average "
            f"daily volume {at.leg.book.adv_lots} (symbol {at.place[3]})",
        )
    return None
