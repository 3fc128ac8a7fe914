"""A reduce-only order may close a position and never turn it; every open order of its side counts before it."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "reduce_only"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a reduce-only order beyond the position, and any order that would let an open reduce-only one turn it."""
    leg = at.leg
    if order.sign > 0:
        left = -leg.position - leg.buys - order.added
        guarded = order.reduce_only or leg.reducing_buys
    else:
        left = leg.position - leg.sells - order.added
        guarded = order.reduce_only or leg.reducing_sells
    if guarded and order.added > 0 and left < 0:
        return Denied(
            control=NAME,
            value=order.added,
            limit=max(0, left + order.added),
            message=f"{order.added} lots exceed the {max(0, left + order.added)} that can still be reduced "
            f"(position {leg.position}, symbol {at.place[3]})",
        )
    return None
