"""The gateway must be armed: it starts halted, and halts when anything fails."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "standing"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny while halted, with the reason."""
    if at.state.halted:
        return Denied(control=NAME, message=f"the gateway is halted: {at.state.halted}")
    return None
