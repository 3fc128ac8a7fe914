"""The trading day must be open, and the symbol must trade: halted, closed and unknown are all no."""

from serving.contracts.decisions import Denied
from serving.gateway.compiled import At, Effective, Intent
from serving.gateway.live import Now

NAME = "session"


def check(at: At, limits: Effective, order: Intent, now: Now) -> Denied | None:
    """Deny outside of the day's hours and of the session. The day's clock never goes back."""
    state = at.state
    if not state.day_open or not state.opens_ns <= now.utc_ns < state.closes_ns:
        return Denied(control=NAME, message=f"outside of the trading day ({state.date or 'none was started'})")
    if at.market.status != "open":
        return Denied(control=NAME, message=f"{at.place[3]} at {at.place[0]} is {at.market.status}, not open")
    return None
