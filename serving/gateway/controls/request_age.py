"""A request must be fresh: an old one is a queue let loose, or a key of a day that is forgotten."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "request_age"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny what was sent too long ago, before today's opening, or comes from the future."""
    sent_ns, opens_ns = order.request.sent_ns, at.state.opens_ns
    age = abs(now.utc_ns - sent_ns)
    if age > limits.max_request_age_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.max_request_age_ns,
            message=f"sent {age} ns away from now, beyond max_request_age_ns {limits.max_request_age_ns}",
        )
    if sent_ns < opens_ns:  # where one day follows the other at once its key may have been yesterday's
        return Denied(
            control=NAME, value=sent_ns, limit=opens_ns, message=f"sent {opens_ns - sent_ns} ns before today's opening"
        )
    return None
