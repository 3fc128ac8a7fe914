"""A price must lie near the market of a while ago: prices that walk away step by step pass every other collar."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now
from serving.gateway.money import BPS

NAME = "drift_collar"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a price (the reference, for a market order) too far from the reference one to two windows ago."""
    market = at.market
    price2 = 2 * order.price or market.bid + market.ask
    away = abs(price2 - market.older_mid2)
    if away * BPS > limits.drift_collar_bps * market.older_mid2:
        return Denied(
            control=NAME,
            value=away * BPS // market.older_mid2,
            limit=limits.drift_collar_bps,
            message=f"price is {away * BPS // market.older_mid2} bps away from the market of a while ago, "
            f"drift_collar_bps {limits.drift_collar_bps} (symbol {at.place[3]})",
        )
    return None
