"""What must not leave although it was decided, and what must not stand although it was sent."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from serving.gateway.live import Now
from serving.gateway.order_table import Order
from serving.gateway.state import State
from serving.gateway.transport import CancelMessage, VenueMessage

if TYPE_CHECKING:
    from serving.gateway.engine import Gateway


def why_not(gateway: "Gateway", message: VenueMessage, decided_ns: int, clock: Now) -> str | None:
    """Why a message must not leave, or None. Cancels leave while there is anything open."""
    order = gateway.state.orders.get(message.order_id)
    if isinstance(message, CancelMessage):
        return f"the order is {order.stage}" if order is not None and not order.is_open else None
    if order is None:
        return "the order is not in the table"
    if not order.is_open or order.cancelling:
        return f"the order is {order.stage}"
    if gateway.broken or gateway.state.halted:
        return gateway.broken or f"the gateway is halted: {gateway.state.halted}"
    request = order.request
    for node in order.nodes:
        if node.killed and not (node.liquidating and request.reduce_only):
            return f"{node.scope} {node.name}".strip() + " is killed"
    at = gateway.at((request.venue, request.account, request.strategy, request.symbol))
    if at.unknown:
        return at.unknown
    age = clock.mono_ns - decided_ns
    if age > at.limits.max_send_age_ns:
        return f"decided {age} ns ago, max_send_age_ns {at.limits.max_send_age_ns}"
    return None


def must_go(state: State, order: Order) -> Iterator[tuple[Order, str]]:
    """Open orders that must be cancelled after a report of `order`, and why."""
    leg = order.leg
    if leg.reducing_sells and leg.position < leg.sells:
        for other in _reducing(state, order, -1):
            yield other, "a reduce-only sale could turn the position"
    if leg.reducing_buys and -leg.position < leg.buys:
        for other in _reducing(state, order, 1):
            yield other, "a reduce-only purchase could turn the position"
    venue = order.request.venue
    tripped = state.node("venue", venue).tripped
    if tripped:
        for other in state.open_orders.values():
            if other.request.venue == venue:
                yield other, f"venue {venue} is stopped: {tripped}"


def _reducing(state: State, order: Order, sign: int) -> Iterator[Order]:
    for other in state.open_orders.values():
        if other.leg is order.leg and other.sign == sign and other.request.reduce_only:
            yield other
