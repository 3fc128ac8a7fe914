"""One order's life: in flight, working, perhaps being replaced or cancelled, done; and what it reserves meanwhile."""

from enum import IntEnum

import msgspec

from serving.contracts.orders import ChildOrder
from serving.gateway.books import Leg, Node, OwnBook, Plain

ANY_PRICE = 2**62
"""Stands for a market order's price among our own orders: it meets every order of the other side."""


class Status(IntEnum):
    """Where an order stands; a pending replace or cancel is told by `new_lots` and `cancelling` beside it."""

    IN_FLIGHT = 1  # sent, or about to be: counts in full
    WORKING = 2  # the venue acknowledged it
    DONE = 3  # filled, cancelled or expired; a late fill may still come
    REJECTED = 4  # the venue refused it: no fill may come
    UNSENT = 5  # it never reached the venue: no fill may come


class Execution(msgspec.Struct, gc=False):
    """A fill that the venue reported; `standing` turns false with a bust."""

    order_id: int
    price_ticks: int
    lots: int
    fee: int
    standing: bool = True


class Order(Plain):
    """An accepted order. `filled` is net of busts: busted lots of an open order may trade again and stay reserved."""

    FIELDS = (
        "status", "price_ticks", "lots", "unit_value", "filled", "open_lots", "open_value",
        "new_price", "new_lots", "new_unit", "cancelling", "first_fill",
    )  # fmt: skip
    __slots__ = ("id", "leg", "nodes", "own", "request", "sign", *FIELDS)

    def __init__(
        self, order_id: int, request: ChildOrder, nodes: tuple[Node, ...], leg: Leg, own: OwnBook, unit_value: int
    ) -> None:
        self.id, self.request, self.nodes, self.leg, self.own = order_id, request, nodes, leg, own
        self.sign = 1 if request.side == "buy" else -1
        self.status = 1
        self.price_ticks = request.price_ticks or 0  # 0 for a market order
        self.lots = request.lots
        self.unit_value = unit_value  # minor units reserved a lot
        self.filled = self.open_lots = self.open_value = 0
        self.new_price = self.new_lots = self.new_unit = 0  # a replace that the venue has not answered
        self.cancelling = False
        self.first_fill = False

    @property
    def is_open(self) -> bool:
        """The venue may still hold it."""
        return self.status <= 2

    @property
    def stage(self) -> str:
        """The state by the names that people use."""
        if self.status == Status.IN_FLIGHT:
            return "pending new"
        if self.status == Status.WORKING:
            return "pending cancel" if self.cancelling else "pending replace" if self.new_lots else "working"
        return Status(self.status).name.lower()

    def enter(self) -> None:
        """Reserve in full and stand among our own orders."""
        sign, lots = self.sign, self.lots
        self.own.add(sign, self.price_ticks or sign * ANY_PRICE)
        self.open_lots = lots
        self.open_value = value = lots * self.unit_value
        for node in self.nodes:
            node.open_orders += 1
            node.applied += 1
            node.open_lots += lots
            node.open_value += value
        self.leg.reserve(sign, lots, self.request.reduce_only)

    def leave(self, status: Status) -> None:
        """Be done: release what is reserved."""
        self.drop_replace()
        self.own.remove(self.sign, self.price_ticks or self.sign * ANY_PRICE)
        self.status, self.cancelling = int(status), False
        for node in self.nodes:
            node.open_orders -= 1
        self.settle()

    def begin_replace(self, price_ticks: int, lots: int, unit_value: int) -> None:
        """Reserve the larger of what stands and what is asked for, at the dearer price, until the venue answers."""
        self.new_price, self.new_lots, self.new_unit = price_ticks, lots, unit_value
        self.own.add(self.sign, price_ticks)
        self.settle()

    def drop_replace(self) -> None:
        """Forget a pending replace."""
        if self.new_lots:
            self.own.remove(self.sign, self.new_price)
            self.new_price = self.new_lots = self.new_unit = 0

    def stand_at(self, price_ticks: int, lots: int, unit_value: int) -> None:
        """The venue says that the order has this price and total size now."""
        self.drop_replace()
        self.own.remove(self.sign, self.price_ticks or self.sign * ANY_PRICE)
        self.own.add(self.sign, price_ticks)
        self.price_ticks, self.lots, self.unit_value = price_ticks, lots, unit_value
        self.settle()

    def settle(self) -> None:
        """Bring the reservation to what may still trade."""
        lots = value = 0
        if self.status <= 2:
            lots, unit = self.lots - self.filled, self.unit_value
            if self.new_lots:
                lots, unit = max(lots, self.new_lots - self.filled), max(unit, self.new_unit)
            if lots < 0:
                lots = 0
            value = lots * unit
        d_lots, d_value = lots - self.open_lots, value - self.open_value
        self.open_lots, self.open_value = lots, value
        for node in self.nodes:
            node.open_lots += d_lots
            node.open_value += d_value
        if d_lots:
            self.leg.reserve(self.sign, d_lots, self.request.reduce_only)
