"""What a venue says, taken into the book; the gateway halts where it cannot be true of the order that it names."""

import logging
from typing import TYPE_CHECKING

from serving.contracts.orders import Busted, Cancelled, Corrected, Report
from serving.gateway.fix_out import Came
from serving.gateway.live import Now
from serving.gateway.order_table import Order
from serving.wire.messages import OrderState

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)


def follow(service: "GatewayService", came: Came, now: Now) -> None:
    """Follow an answer that came from a session: a status, or a report of an order. In the deciding thread."""
    gateway, answer, report = service.gateway, came.answer, came.report
    assert answer is not None
    ids = service.sessions[came.venue].ids
    if ids.is_echo(answer):
        log.warning("venue %s answered replace %d of order %d again", came.venue, answer.request_id, answer.order_id)
        return
    ids.take(answer)
    if answer.is_status:
        service.reconciler.take(came.venue, answer, came.total)
        return
    if report is None:
        return
    order = gateway.state.orders.get(report.order_id)
    if order is not None and answer.state is not None:
        said, meant = (answer.state.symbol, answer.state.side), (order.request.symbol, order.request.side)
        if said != meant:
            service.halt(f"venue {came.venue} reports order {order.id} as {said}, it is {meant}")
            return
    was_open = order is not None and order.is_open
    gateway.on_report(came.venue, report, now)
    if order is not None and answer.state is not None:
        why = _distrust(came.venue, order, report, answer.state, was_open)
        if why:
            service.halt(why)
    if gateway.broken and order is not None:  # nothing is journalled any more: tell at once
        service.orders.tell(order, report)


def _distrust(venue: str, order: Order, report: Report, state: OrderState, was_open: bool) -> str:
    """Where a report's own totals say that more may trade, or has traded, than the book now counts: what they say."""
    if isinstance(report, Cancelled) and was_open and state.filled_lots > order.filled:
        return f"venue {venue} cancelled order {order.id} with {state.filled_lots} lots filled, {order.filled} here"
    if isinstance(report, Busted | Corrected) and not order.is_open and state.left_lots > 0:
        return f"venue {venue} holds {state.left_lots} lots of order {order.id} open again, it is done here"
    return ""
