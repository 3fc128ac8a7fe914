"""Which messages a venue has not answered yet, oldest first; after a restart all count as sent just then."""

from collections.abc import Iterable

from serving.contracts.orders import Cancelled, CancelRejected, Replaced, ReplaceRejected, Report
from serving.gateway.live import Live, Waiting
from serving.gateway.order_table import Order

KINDS = {"new": 0, "replace": 1, "cancel": 2}


class Unanswered:
    """Times by venue and by order number times four plus the kind of message (`Live.unanswered`)."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def assume(self, orders: Iterable[Order], mono_ns: int) -> None:
        """Take what is open after a restart as sent just now."""
        for order in orders:
            waiting = self._live.waiting(order.request.venue)
            if order.status == 1:
                waiting.add(order.id * 4, mono_ns)
            if order.new_lots:
                waiting.add(order.id * 4 + 1, mono_ns)
            if order.cancelling:
                waiting.add(order.id * 4 + 2, mono_ns)

    def sent_cancel(self, order: Order, mono_ns: int) -> None:
        """A cancel goes; a repeated one counts from the first."""
        waiting = self._live.waiting(order.request.venue)
        if waiting.get(order.id * 4 + 2) is None:
            waiting.add(order.id * 4 + 2, mono_ns)

    def cancel_sent_ns(self, order: Order) -> int | None:
        """When the unanswered cancel went, or None."""
        return self._of(order).get(order.id * 4 + 2)

    def sent_ns(self, order: Order, kind: str) -> int | None:
        """When an unanswered message of a kind (`KINDS`) was decided, or None."""
        return self._of(order).get(order.id * 4 + KINDS[kind])

    def may_have_left(self, order: Order) -> bool:
        """Whether the venue may know an order: it answered, or the order was handed on to be sent."""
        return order.status != 1 or self._of(order).get(order.id * 4) is not None

    def answered(self, order: Order, report: Report) -> None:
        """A report came, and is in the state."""
        if not order.is_open:
            self.forget_all(order)
            return
        waiting = self._of(order)
        if order.status != 1:
            waiting.discard(order.id * 4)
        if isinstance(report, Replaced | ReplaceRejected):
            waiting.discard(order.id * 4 + 1)
        elif isinstance(report, Cancelled | CancelRejected):
            waiting.discard(order.id * 4 + 2)

    def forget(self, order: Order, kind: str) -> None:
        """A message never went."""
        self._of(order).discard(order.id * 4 + KINDS[kind])

    def forget_all(self, order: Order) -> None:
        """Nothing is expected of an order any more."""
        waiting = self._of(order)
        for kind in KINDS.values():
            waiting.discard(order.id * 4 + kind)

    def _of(self, order: Order) -> Waiting:
        return self._live.waiting(order.request.venue)
