"""Restricted symbols, and the only ones that a strategy, an account or a venue may trade."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "symbol_lists"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a symbol that is restricted, or not among the allowed."""
    if at.symbol_denial:
        return Denied(control=NAME, message=at.symbol_denial)
    return None
