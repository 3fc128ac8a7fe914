"""Size and price must be ones that the instrument has."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "increments"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a size below the minimum or off the lot, a price off the tick, and a replace of a market order."""
    book = at.leg.book
    lots, price = order.total, order.price
    if lots < book.min_lots:
        return Denied(
            control=NAME,
            value=lots,
            limit=book.min_lots,
            message=f"quantity {lots} lots is below the minimum {book.min_lots} (symbol {at.place[3]})",
        )
    if lots % book.lot_multiple:
        return Denied(
            control=NAME,
            value=lots,
            limit=book.lot_multiple,
            message=f"quantity {lots} lots is no multiple of {book.lot_multiple} (symbol {at.place[3]})",
        )
    if price % book.price_multiple:
        return Denied(
            control=NAME,
            value=price,
            limit=book.price_multiple,
            message=f"price {price} ticks is no multiple of {book.price_multiple} (symbol {at.place[3]})",
        )
    target = order.target
    if target is not None and not target.price_ticks:
        return Denied(control=NAME, message=f"order {target.id} is a market order: it can be cancelled, not replaced")
    if order.lots <= 0:
        return Denied(
            control=NAME,
            value=lots,
            limit=lots - order.lots,
            message=f"replace to {lots} lots leaves nothing of an order of which {lots - order.lots} are filled",
        )
    return None
