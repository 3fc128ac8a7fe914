"""A short sale needs shares located for the account; what was sold short today has used them up."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "locate"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny a sale that could go short beyond the locates."""
    if order.sign > 0 or order.added <= 0 or not at.leg.book.needs_locate:
        return None
    account = at.leg.account_exposure
    held = account.position if account.position > 0 else 0
    beyond = account.sells + order.added - held
    short = account.sold_short + beyond
    if beyond > 0 and short > account.located:
        return Denied(
            control=NAME,
            value=short,
            limit=account.located,
            message=f"{short} lots sold short, {account.located} located (account {at.place[1]}, symbol {at.place[3]})",
        )
    return None
