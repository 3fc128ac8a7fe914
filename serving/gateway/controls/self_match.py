"""Our own orders must not trade with one another, whichever strategy or account sent them."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now
from serving.gateway.order_table import ANY_PRICE

NAME = "self_match"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a price that meets one of our own open orders of the other side at the venue; so may a market order."""
    price = order.price
    if order.sign > 0:
        if at.own.best_ask <= (price or ANY_PRICE):
            return _denied(at, price)
    elif at.own.best_bid >= (price or -ANY_PRICE):
        return _denied(at, price)
    return None


def _denied(at: At, price: int) -> Denied:
    return Denied(
        control=NAME,
        value=price or None,
        message=f"price {price or 'any'} meets our own open order in {at.place[3]} at {at.place[0]}",
    )
