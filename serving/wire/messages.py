"""What a client asks of a venue and where an order stands: plain values, with FIX or in one process."""

from typing import NamedTuple

from serving.contracts.orders import OrderType, Side, TimeInForce

OPEN_STATUSES = ("new", "partially_filled", "replaced", "pending_cancel", "pending_new", "pending_replace")


class NewOrder(NamedTuple):
    """NewOrderSingle."""

    cl_ord_id: str
    account: str
    symbol: str
    side: Side
    type: OrderType
    price_ticks: int | None
    lots: int
    tif: TimeInForce
    trader: str = ""
    algorithm: str = ""
    strategy: str = ""
    link: str = ""  # ClOrdLinkID: the parent order
    target_strategy: str | None = None  # of a parent order: how it shall be worked
    effective_ns: int | None = None
    expire_ns: int | None = None


class ReplaceOrder(NamedTuple):
    """OrderCancelReplaceRequest; `lots` is the new total, filled lots included."""

    cl_ord_id: str
    orig_cl_ord_id: str
    symbol: str
    side: Side
    price_ticks: int
    lots: int
    strategy: str = ""  # "" for one that the sender's own risk controls ask for


class CancelOrder(NamedTuple):
    """OrderCancelRequest."""

    cl_ord_id: str
    orig_cl_ord_id: str
    symbol: str
    side: Side
    strategy: str = ""


class StatusOrder(NamedTuple):
    """OrderStatusRequest."""

    cl_ord_id: str
    symbol: str
    side: Side
    request_id: str = ""


class MassStatus(NamedTuple):
    """OrderMassStatusRequest for every open order of the session."""

    request_id: str


Inbound = NewOrder | ReplaceOrder | CancelOrder | StatusOrder | MassStatus


class OrderState(NamedTuple):
    """Where an order stands, as any execution report says."""

    cl_ord_id: str
    venue_order_id: str
    symbol: str
    side: Side
    status: str  # one of ORD_STATUSES' names
    price_ticks: int | None
    lots: int
    filled_lots: int
    left_lots: int

    @property
    def is_open(self) -> bool:
        """The venue may still trade it."""
        return self.status in OPEN_STATUSES
