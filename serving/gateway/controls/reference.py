"""There must be a price to measure an order against, and a fresh one, from the gateway's own feed."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "reference"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny without a bid and an ask, or with old ones."""
    market = at.market
    age = now.mono_ns - market.seen_ns
    if not market.bid or not market.ask:
        return Denied(control=NAME, message=f"no reference price of {at.place[3]} at {at.place[0]}")
    if age > limits.max_reference_age_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.max_reference_age_ns,
            message=f"reference price of {at.place[3]} is {age} ns old, "
            f"max_reference_age_ns {limits.max_reference_age_ns}",
        )
    return None
