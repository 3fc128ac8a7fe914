"""One symbol's market as the venue sees it: orders in, and what happened out. Times in ns, prices in ticks, lots."""

from typing import NamedTuple, Protocol

from serving.contracts.orders import OrderType, TimeInForce
from serving.wire.feed import Status


class New(NamedTuple):
    """A new order. `number` is the venue's own, `trader` whoever must not trade with himself, `link` its parent."""

    number: int
    side: int  # 1 buys, -1 sells
    type: OrderType
    price_ticks: int | None
    lots: int
    tif: TimeInForce
    trader: int
    link: str


class Change(NamedTuple):
    """New price and new total lots, those filled included."""

    number: int
    price_ticks: int
    lots: int


class Withdraw(NamedTuple):
    """Cancel what is left."""

    number: int


Command = New | Change | Withdraw


class Row(NamedTuple):
    """The visible book after an event, as lots by price, and the trade of the event (0 lots: none)."""

    ts_ns: int
    bids: dict[int, int]
    asks: dict[int, int]
    trade: tuple[int, int, int] = (0, 0, 0)  # ticks, lots, side of the aggressor


class Turn(NamedTuple):
    """Trading in the symbol opened, halted, closed, or its book is unknown."""

    ts_ns: int
    status: Status


class Stands(NamedTuple):
    """A new order met the market: it rests or trades from here on."""

    ts_ns: int
    number: int


class Refused(NamedTuple):
    """A new order was not taken."""

    ts_ns: int
    number: int
    reason: str


class Traded(NamedTuple):
    """An execution."""

    ts_ns: int
    number: int
    price_ticks: int
    lots: int
    maker: bool


class Gone(NamedTuple):
    """What was left of an order is withdrawn; `asked`: by the cancel that came."""

    ts_ns: int
    number: int
    asked: bool
    reason: str = ""


class Changed(NamedTuple):
    """A change was taken."""

    ts_ns: int
    number: int
    price_ticks: int
    lots: int


class NotChanged(NamedTuple):
    """A change was not taken: the order stands, or is done, as it was."""

    ts_ns: int
    number: int
    reason: str


class NotGone(NamedTuple):
    """A cancel found nothing."""

    ts_ns: int
    number: int
    reason: str


Answer = Stands | Refused | Traded | Gone | Changed | NotChanged | NotGone
Happening = Row | Turn | Answer


class World(Protocol):
    """One symbol's market. The same calls give the same happenings."""

    depth: int
    opens_ns: int
    closes_ns: int
    windows: tuple[tuple[int, int], ...]  # in which it trades, ns; the first opens at `opens_ns`

    def send(self, now_ns: int, command: Command) -> None:
        """Take a message at `now_ns`; it meets the market when the world's latency is over."""

    def advance(self, until_ns: int) -> list[Happening]:
        """Let time pass up to `until_ns`, that moment included; what happened, in order."""
