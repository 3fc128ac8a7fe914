"""The clock must be close to UTC, must have been measured lately, and must not have jumped back."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "clock"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny where times cannot be trusted."""
    clock = at.clock
    age = now.mono_ns - clock.measured_ns
    if age > limits.max_clock_age_ns:
        return Denied(
            control=NAME, value=age, limit=limits.max_clock_age_ns, message="the clock's offset was not measured lately"
        )
    offset = abs(clock.offset_ns)
    if offset > limits.max_clock_offset_ns:
        return Denied(
            control=NAME,
            value=offset,
            limit=limits.max_clock_offset_ns,
            message=f"the clock is {clock.offset_ns} ns off, beyond max_clock_offset_ns {limits.max_clock_offset_ns}",
        )
    back = now.utc_ns - now.raw_utc_ns
    if back > limits.max_clock_offset_ns:
        return Denied(
            control=NAME,
            value=back,
            limit=limits.max_clock_offset_ns,
            message=f"the clock jumped back by {back} ns, beyond max_clock_offset_ns {limits.max_clock_offset_ns}",
        )
    return None
