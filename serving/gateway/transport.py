"""What the gateway hands to a venue's session, and what it asks of one."""

from typing import Protocol

import msgspec

from serving.contracts.orders import ChildOrder


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A new order under the gateway's own number."""

    order_id: int
    order: ChildOrder


class ReplaceMessage(msgspec.Struct, frozen=True, gc=False):
    """A change of a working order; `lots` is the new total."""

    order_id: int
    request_id: int
    venue: str
    price_ticks: int
    lots: int


class CancelMessage(msgspec.Struct, frozen=True, gc=False):
    """A cancel of what is left of an order. `request_id` 0 for an order that the gateway does not know."""

    order_id: int
    request_id: int
    venue: str


VenueMessage = NewMessage | ReplaceMessage | CancelMessage


class Transport(Protocol):
    """A session with each venue. Reports come back through `Gateway.on_report`."""

    def send(self, message: VenueMessage) -> None:
        """Hand a message over. To raise means that nobody knows whether it went: the gateway halts."""

    def barrier(self) -> bool:
        """Whether every message handed over before is known to have reached its venue (FIX: TestRequest answered)."""
