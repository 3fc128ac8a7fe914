"""Venue, account, strategy and symbol must be known, and belong together."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "identity"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny what no limits were written for. Runs first: nothing else is known of such a place."""
    if at.unknown:
        return Denied(control=NAME, message=at.unknown)
    return None
