"""A latched kill of any scope stops everything, but a reduce-only order that two people ordered."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "kill_switch"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny under a kill; each killed scope must let a liquidation through for it to pass."""
    for node in at.nodes:
        if node.killed and not (node.liquidating and order.reduce_only):
            return Denied(control=NAME, message=f"{node.scope} {node.name}".strip() + " is killed")
    return None
