"""Positions and what they are worth, held and worst case, kept up to date by differences and never summed again.

A *leg* is one strategy's position in one symbol for one account: the unit that everything adds up from. A *node* is a
scope with limits (all, a venue, an account, a strategy, a symbol) and sums over its legs and orders. An *exposure* is a
position in one symbol summed over legs: the firm's, an account's, a strategy's. Worst case means that every open buy
fills and no sell does, or the other way round; gross sums each leg's worse side, so that strategies never net each
other out.
"""

from typing import ClassVar

from serving.contracts.orders import INT64_MAX
from serving.gateway.events import Instrument
from serving.gateway.live import Window
from serving.gateway.money import checked

NO_BID, NO_ASK = -(2**63), 2**63
"""The best own prices where there is no order: no price meets them."""

SUM_LIMITS = (
    "max_open_orders", "max_day_value", "max_day_lots", "max_gross_value", "max_net_value", "max_credit",
    "max_realised_loss", "max_loss", "max_drawdown",
)  # fmt: skip
"""Limits on what adds up in a scope, bound to its node."""


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
    __slots__ = ("scope", "name", "revision", "messages", "cancel_messages", *SUM_LIMITS, *FIELDS)

    def __init__(self, scope: str, name: str) -> None:
        self.scope, self.name = scope, name
        self.unlimit()
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

    def unlimit(self) -> None:
        """Forget the limits that `compiled` bound to this scope; they are no part of its state."""
        self.revision = -1  # of the limits bound here; none yet
        self.max_open_orders = self.max_day_value = self.max_day_lots = INT64_MAX
        self.max_gross_value = self.max_net_value = self.max_credit = INT64_MAX
        self.max_realised_loss = self.max_loss = self.max_drawdown = INT64_MAX
        self.messages: Window | None = None
        self.cancel_messages: Window | None = None

    @property
    def profit(self) -> int:
        """Today's profit, realised and marked."""
        return self.realised + self.unrealised

    def raise_peak(self) -> None:
        """Remember the day's best profit."""
        profit = self.realised + self.unrealised
        if profit > self.peak:
            self.peak = profit

    def start_day(self) -> None:
        """Begin the day's counters; kills and breakers stay, and so do counts that only a person resets."""
        killed, liquidating, tripped = self.killed, self.liquidating, self.tripped
        applied, rejects = self.applied, self.rejects
        self.__init__(self.scope, self.name)  # type: ignore[misc]
        self.killed, self.liquidating, self.tripped = killed, liquidating, tripped
        self.applied, self.rejects = applied, rejects


class Exposure(Plain):
    """A position in one symbol over several legs; buys and sells are open lots."""

    FIELDS = ("position", "buys", "sells", "located", "sold_short")
    __slots__ = ("scope", "max_lots", *FIELDS)

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.max_lots = INT64_MAX  # bound by `compiled`; no part of the state
        self.position = self.buys = self.sells = 0
        self.located = self.sold_short = 0  # lots; only an account's exposure uses these


class SymbolBook(Plain):
    """An instrument, its mark and the legs that hold it."""

    FIELDS = ("mark",)
    __slots__ = (
        "_instrument", "adv_lots", "legs", "lot_multiple", "min_lots", "needs_locate", "price_multiple", "restricted",
        "tick_value", *FIELDS,
    )  # fmt: skip

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.mark = instrument.mark_ticks
        self.legs: list[Leg] = []
        self.restricted = False

    @property
    def instrument(self) -> Instrument:
        """The instrument. Its numbers stand here too: every order asks for them, and of a Struct that costs."""
        return self._instrument

    @instrument.setter
    def instrument(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.tick_value, self.adv_lots = instrument.tick_value, instrument.adv_lots
        self.min_lots, self.lot_multiple = instrument.min_lots, instrument.lot_multiple
        self.price_multiple, self.needs_locate = instrument.price_multiple, instrument.needs_locate


class Leg(Plain):
    """One strategy's position in one symbol for one account.

    `cost` is what the open position was bought for (negative when short), by average cost rounded down: realised plus
    marked profit is exact whatever the rounding, since a minor unit that leaves one enters the other.
    """

    FIELDS = (
        "position", "buys", "sells", "reducing_buys", "reducing_sells", "cost", "realised", "unrealised",
        "gross", "long_value", "short_value",
    )  # fmt: skip
    __slots__ = (
        "account_exposure", "book", "exposures", "firm_exposure", "nodes", "of_account", "of_all", "of_strategy",
        "of_symbol", "strategy_exposure", *FIELDS,
    )  # fmt: skip

    def __init__(self, book: SymbolBook, nodes: tuple[Node, ...], exposures: tuple[Exposure, ...]) -> None:
        self.book, self.nodes, self.exposures = book, nodes, exposures
        self.of_all, self.of_account, self.of_strategy, self.of_symbol = nodes
        self.firm_exposure, self.account_exposure, self.strategy_exposure = exposures
        self.position = self.buys = self.sells = 0
        self.reducing_buys = self.reducing_sells = 0  # the part of buys and sells that is reduce-only
        self.cost = self.realised = self.unrealised = 0
        self.gross = self.long_value = self.short_value = 0
        book.legs.append(self)

    def reserve(self, sign: int, lots: int, reduce_only: bool) -> None:
        """Change the open lots of a side by `lots`."""
        unit = self.book.mark * self.book.tick_value
        if sign > 0:
            self.buys += lots
            if reduce_only:
                self.reducing_buys += lots
            self.firm_exposure.buys += lots
            self.account_exposure.buys += lots
            self.strategy_exposure.buys += lots
            self.long_value = highest = (self.position + self.buys) * unit
            lowest = self.short_value
        else:
            self.sells += lots
            if reduce_only:
                self.reducing_sells += lots
            self.firm_exposure.sells += lots
            self.account_exposure.sells += lots
            self.strategy_exposure.sells += lots
            self.short_value = lowest = (self.position - self.sells) * unit
            highest = self.long_value
        gross = highest if highest > -lowest else -lowest
        change, self.gross = gross - self.gross, gross
        added = lots * unit
        of_all, of_account, of_strategy, of_symbol = self.of_all, self.of_account, self.of_strategy, self.of_symbol
        if sign > 0:
            of_all.long_value += added
            of_account.long_value += added
            of_strategy.long_value += added
            of_symbol.long_value += added
        else:
            of_all.short_value -= added
            of_account.short_value -= added
            of_strategy.short_value -= added
            of_symbol.short_value -= added
        if change:
            of_all.gross += change
            of_account.gross += change
            of_strategy.gross += change
            of_symbol.gross += change

    def revalue(self) -> None:
        """Bring the worst-case values of the leg and its nodes to the present mark."""
        unit = self.book.mark * self.book.tick_value
        highest = (self.position + self.buys) * unit
        lowest = (self.position - self.sells) * unit
        gross = highest if highest > -lowest else -lowest
        change = gross - self.gross
        if change:
            self.gross = gross
            for node in self.nodes:
                node.gross += change
        change = highest - self.long_value
        if change:
            self.long_value = highest
            for node in self.nodes:
                node.long_value += change
        change = lowest - self.short_value
        if change:
            self.short_value = lowest
            for node in self.nodes:
                node.short_value += change

    def trade(self, sign: int, price_ticks: int, lots: int, fee: int) -> None:
        """Count an execution. Raises MoneyOverflowError, nothing changed, where an amount leaves int64."""
        unit = self.book.tick_value
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
        for node in self.nodes:
            node.raise_peak()

    def mark(self) -> None:
        """Bring marked profit and worst-case values to the present mark; peaks follow once every leg is marked."""
        unrealised = self.position * self.book.mark * self.book.tick_value - self.cost
        change, self.unrealised = unrealised - self.unrealised, unrealised
        for node in self.nodes:
            node.unrealised += change
        self.revalue()


class OwnBook:
    """Our own open orders at one venue in one symbol, by price: what an order of the other side must not meet."""

    __slots__ = ("asks", "best_ask", "best_bid", "bids")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}  # price in ticks: how many orders
        self.asks: dict[int, int] = {}
        self.best_bid, self.best_ask = NO_BID, NO_ASK

    def add(self, sign: int, price_ticks: int) -> None:
        """Another order may trade at this price."""
        if sign > 0:
            self.bids[price_ticks] = self.bids.get(price_ticks, 0) + 1
            if price_ticks > self.best_bid:
                self.best_bid = price_ticks
        else:
            self.asks[price_ticks] = self.asks.get(price_ticks, 0) + 1
            if price_ticks < self.best_ask:
                self.best_ask = price_ticks

    def remove(self, sign: int, price_ticks: int) -> None:
        """One order fewer at this price. Raises KeyError where there is none."""
        side = self.bids if sign > 0 else self.asks
        left = side[price_ticks] - 1
        if left:
            side[price_ticks] = left
            return
        del side[price_ticks]
        self.find_best()

    def find_best(self) -> None:
        """Look the best prices up again."""
        self.best_bid = max(self.bids, default=NO_BID)
        self.best_ask = min(self.asks, default=NO_ASK)
