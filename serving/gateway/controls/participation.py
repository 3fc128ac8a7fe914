"""Own lots of the day, open ones included, against the volume of the market."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now
from serving.gateway.money import BPS

NAME = "participation"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order that makes us too much of the market. The floor lets a day begin."""
    added = order.added
    if added <= 0:
        return None
    own = at.symbol.traded_lots + at.symbol.open_lots + added
    most = limits.participation_floor_lots + at.market.volume_lots * limits.max_participation_bps // BPS
    if own > most:
        return Denied(
            control=NAME,
            value=own,
            limit=most,
            message=f"own volume {own} lots exceeds {most}: {limits.max_participation_bps} bps (max_participation_bps) "
            f"of the market's {at.market.volume_lots} (symbol {at.place[3]})",
        )
    return None
