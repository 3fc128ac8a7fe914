"""The worst-case position in a symbol: held, working and in flight, of the firm, the account and the strategy."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "position"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny an order whose side could end beyond a limit."""
    added = order.added
    if added <= 0:
        return None
    buys = order.sign > 0
    for exposure in at.leg.exposures:
        worst = exposure.position + exposure.buys if buys else exposure.sells - exposure.position
        if worst + added > exposure.max_lots:
            most = exposure.max_lots
            return Denied(
                control=NAME,
                value=worst + added,
                limit=most,
                message=f"worst-case position {worst + added} lots exceeds max_position_lots {most} "
                f"({exposure.scope}, symbol {at.place[3]})",
            )
    return None
