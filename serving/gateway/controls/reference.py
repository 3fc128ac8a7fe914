"""There must be a price to measure an order against, and a fresh one, from the gateway's own feed.

Fresh is what arrived lately and was not long on its way: messages of a feed that lags, none missing, arrive all the
time. How long they take is known up to the offset that was measured of this machine's clock.
"""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import NOT_SET, At, Effective, Intent
from serving.gateway.live import UNKNOWN_LAG_NS, Now

NAME = "reference"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny without a bid and an ask, with old ones, or with such as were sent too long ago, or are yet to be."""
    market = at.market
    age = now.mono_ns - market.seen_ns
    if not market.bid or not market.ask:
        return Denied(control=NAME, message=f"no reference price of {at.place[3]} at {at.place[0]}")
    if age > limits.max_reference_age_ns:
        return Denied(
            control=NAME,
            value=age,
            limit=limits.max_reference_age_ns,
            message=f"reference price of {at.place[3]} is {age} ns old, "
            f"max_reference_age_ns {limits.max_reference_age_ns}",
        )
    lag = market.feed.lag_ns
    late = lag + abs(at.clock.offset_ns)
    if late > limits.max_feed_lag_ns or -lag > limits.max_clock_offset_ns:
        return _not_in_time(at, limits, lag, late)
    return None


def _not_in_time(at: At, limits: Effective, lag: int, late: int) -> Denied:
    venue = at.place[0]
    if lag == UNKNOWN_LAG_NS:
        return Denied(control=NAME, message=f"the feed of {venue} does not say when it sent its prices")
    if limits.max_feed_lag_ns == NOT_SET:
        return Denied(control=NAME, message="the limits in force are older than max_feed_lag_ns: propose it")
    if late > limits.max_feed_lag_ns:
        return Denied(
            control=NAME,
            value=late,
            limit=limits.max_feed_lag_ns,
            message=f"the feed of {venue} is {late} ns late, max_feed_lag_ns {limits.max_feed_lag_ns}",
        )
    return Denied(
        control=NAME,
        value=-lag,
        limit=limits.max_clock_offset_ns,
        message=f"the feed of {venue} sends from {-lag} ns ahead, max_clock_offset_ns {limits.max_clock_offset_ns}",
    )
