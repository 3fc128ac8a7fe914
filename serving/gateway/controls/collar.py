"""A limit price must lie near the present market, on either side of it."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now
from serving.gateway.money import BPS

NAME = "collar"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a price more than the collar above the ask or below the bid. A market order has none.

    Its value is bounded.
    """
    price = order.price
    if not price:
        return None
    market = at.market
    beyond, reference = price - market.ask, market.ask
    if beyond < 0:
        beyond, reference = market.bid - price, market.bid
    if beyond * BPS > limits.collar_bps * reference:
        return Denied(
            control=NAME,
            value=price,
            limit=limits.collar_bps,
            message=f"price {price} ticks is {beyond * BPS // reference} bps outside of the market "
            f"{market.bid} to {market.ask}, collar_bps {limits.collar_bps} (symbol {at.place[3]})",
        )
    return None
