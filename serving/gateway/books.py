"""Positions and what they are worth, held and worst case, kept up to date by differences and never summed again.

A *leg* is one strategy's position in one symbol for one account: the unit that everything adds up from. A *node* is a
scope with limits (all, a venue, an account, a strategy, a symbol) and sums over its legs and orders. An *exposure* is a
position in one symbol summed over legs: the firm's, an account's, a strategy's. Worst case means that every open buy
fills and no sell does, or the other way round; gross sums each leg's worse side, so that strategies never net each
other out.
"""

from typing import ClassVar

from serving.gateway.events import Instrument
from serving.gateway.money import checked


class Plain:
    """Something whose whole state is the integers, flags and strings that FIELDS names."""

    __slots__ = ()
    FIELDS: ClassVar[tuple[str, ...]] = ()

    def dump(self) -> list[int | str | None]:
        """The fields in order."""
        return [getattr(self, field) for field in self.FIELDS]

    def load(self, values: list[int | str | None]) -> None:
        """Set the fields to what `dump` gave."""
        for field, value in zip(self.FIELDS, values, strict=True):
            setattr(self, field, value)


class Node(Plain):
    """A scope's running sums. Money in minor units, sizes in lots."""

    FIELDS = (
        "killed", "liquidating", "tripped", "open_orders", "open_lots", "open_value", "traded_lots", "traded_value",
        "gross", "long_value", "short_value", "realised", "unrealised", "peak", "applied", "cancels", "fills",
        "rejects",
    )  # fmt: skip
    __slots__ = ("scope", "name", *FIELDS)

    def __init__(self, scope: str, name: str) -> None:
        self.scope, self.name = scope, name
        self.killed = False
        self.liquidating = False  # two people let reduce-only orders through the kill
        self.tripped = ""  # why a breaker is open until a person resets it
        self.open_orders = self.open_lots = self.open_value = 0  # in flight and working
        self.traded_lots = self.traded_value = 0  # filled today
        self.gross = self.long_value = self.short_value = 0  # worst case, at marks
        self.realised = self.unrealised = self.peak = 0  # today's profit, and the best it ever was today
        self.applied = 0  # new orders since a person last enabled the strategy
        self.cancels = self.fills = 0  # cancels and replaces sent, orders' first fills
        self.rejects = 0  # in a row

    @property
    def profit(self) -> int:
        """Today's profit, realised and marked."""
        return self.realised + self.unrealised

    def start_day(self) -> None:
        """Begin the day's counters; kills and breakers stay."""
        killed, liquidating, tripped = self.killed, self.liquidating, self.tripped
        self.__init__(self.scope, self.name)  # type: ignore[misc]
        self.killed, self.liquidating, self.tripped = killed, liquidating, tripped


class Exposure(Plain):
    """A position in one symbol over several legs; buys and sells are open lots."""

    FIELDS = ("position", "buys", "sells", "located", "sold_short")
    __slots__ = ("scope", *FIELDS)

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.position = self.buys = self.sells = 0
        self.located = self.sold_short = 0  # lots; only an account's exposure uses these


class SymbolBook(Plain):
    """An instrument, its mark and the legs that hold it."""

    FIELDS = ("mark",)
    __slots__ = ("instrument", "legs", "restricted", *FIELDS)

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.mark = instrument.mark_ticks
        self.legs: list[Leg] = []
        self.restricted = False


class Leg(Plain):
    """One strategy's position in one symbol for one account.

    `cost` is what the open position was bought for (negative when short), by average cost rounded down: realised plus
    marked profit is exact whatever the rounding, since a minor unit that leaves one enters the other.
    """

    FIELDS = (
        "position", "buys", "sells", "reducing_buys", "reducing_sells", "cost", "realised", "unrealised",
        "gross", "long_value", "short_value",
    )  # fmt: skip
    __slots__ = ("book", "nodes", "exposures", "account_exposure", *FIELDS)

    def __init__(self, book: SymbolBook, nodes: tuple[Node, ...], exposures: tuple[Exposure, ...]) -> None:
        self.book, self.nodes, self.exposures = book, nodes, exposures
        self.account_exposure = exposures[1]
        self.position = self.buys = self.sells = 0
        self.reducing_buys = self.reducing_sells = 0  # the part of buys and sells that is reduce-only
        self.cost = self.realised = self.unrealised = 0
        self.gross = self.long_value = self.short_value = 0
        book.legs.append(self)

    def reserve(self, sign: int, lots: int, reduce_only: bool) -> None:
        """Change the open lots of a side by `lots`."""
        if sign > 0:
            self.buys += lots
            if reduce_only:
                self.reducing_buys += lots
            for exposure in self.exposures:
                exposure.buys += lots
        else:
            self.sells += lots
            if reduce_only:
                self.reducing_sells += lots
            for exposure in self.exposures:
                exposure.sells += lots
        self.revalue()

    def revalue(self) -> None:
        """Bring the worst-case values of the leg and its nodes to the present mark."""
        unit = self.book.mark * self.book.instrument.tick_value
        highest = (self.position + self.buys) * unit
        lowest = (self.position - self.sells) * unit
        gross = highest if highest > -lowest else -lowest
        d_gross, d_long, d_short = gross - self.gross, highest - self.long_value, lowest - self.short_value
        self.gross, self.long_value, self.short_value = gross, highest, lowest
        for node in self.nodes:
            node.gross += d_gross
            node.long_value += d_long
            node.short_value += d_short

    def trade(self, sign: int, price_ticks: int, lots: int, fee: int) -> None:
        """Count an execution. Raises MoneyOverflowError, nothing changed, where an amount leaves int64."""
        unit = self.book.instrument.tick_value
        signed, amount = sign * lots, checked(sign * lots * price_ticks * unit)
        cost, realised, held = self.cost, -fee, self.position
        closing = min(lots, abs(held)) if held * sign < 0 else 0
        if closing:
            released = cost * closing // abs(held)
            cost -= released
            realised -= sign * closing * price_ticks * unit + released
        cost += sign * (lots - closing) * price_ticks * unit
        (
            checked(cost),
            checked(self.realised + realised),
            checked((held + signed) * self.book.mark * unit),
            checked(amount),
        )
        account = self.account_exposure
        if sign < 0 and account.position - lots < 0:
            account.sold_short += min(lots, lots - account.position)
        self.position, self.cost = held + signed, cost
        self.realised += realised
        for exposure in self.exposures:
            exposure.position += signed
        for node in self.nodes:
            node.realised += realised
        self.mark()

    def mark(self) -> None:
        """Bring marked profit and worst-case values to the present mark, and the peaks with them."""
        unrealised = self.position * self.book.mark * self.book.instrument.tick_value - self.cost
        change, self.unrealised = unrealised - self.unrealised, unrealised
        for node in self.nodes:
            node.unrealised += change
            profit = node.realised + node.unrealised
            if profit > node.peak:
                node.peak = profit
        self.revalue()


class OwnBook:
    """Our own open orders at one venue in one symbol, by price: what an order of the other side must not meet."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}  # price in ticks: how many orders
        self.asks: dict[int, int] = {}

    def add(self, sign: int, price_ticks: int) -> None:
        """Another order may trade at this price."""
        side = self.bids if sign > 0 else self.asks
        side[price_ticks] = side.get(price_ticks, 0) + 1

    def remove(self, sign: int, price_ticks: int) -> None:
        """One order fewer at this price."""
        side = self.bids if sign > 0 else self.asks
        left = side[price_ticks] - 1
        if left:
            side[price_ticks] = left
        else:
            del side[price_ticks]
