"""Cancels and replaces must be backed by fills. Cancels pass all the same: it is the orders that stop."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "cancel_ratio"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a new order or a replace of a strategy with too many cancels for its fills."""
    strategy = at.strategy
    allowed = limits.free_cancels + limits.max_cancels_per_fill * strategy.fills
    if strategy.cancels > allowed:
        return Denied(
            control=NAME,
            value=strategy.cancels,
            limit=allowed,
            message=f"strategy {at.place[2]} cancelled {strategy.cancels} times for {strategy.fills} filled orders",
        )
    return None
