"""All that the gateway knows and must not forget: the sum of its events, and nothing that is not in one.

`State.apply` is the only way to change it, live and in replay alike; what an event does is in `order_events` and
`control_events`. What may be lost in a crash (reference prices, message windows, heartbeats) is in `live`, not here.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from serving.contracts.decisions import Allowed
from serving.contracts.orders import ChildOrder
from serving.gateway.books import Exposure, Leg, Node, OwnBook, SymbolBook
from serving.gateway.dump import Dump, Posture, Proposal, encode_dump
from serving.gateway.events import Accepted, Event
from serving.gateway.keys import Answers, Keys
from serving.gateway.limits import Limits
from serving.gateway.order_events import EFFECTS as OF_ORDERS
from serving.gateway.order_events import accept_new, accepted
from serving.gateway.order_table import Execution, Order
from serving.gateway.tables import Orders

Key = tuple[str, str, str]
ScopeName = tuple[str, str]
Place = tuple[str, str, str, str]
"""(venue, account, strategy, symbol)"""


class Sums:
    """What the orders of one place count in: nodes (all, venue, account, strategy, symbol), leg, own book, answers."""

    __slots__ = ("answers", "leg", "nodes", "own")

    nodes: tuple[Node, ...]  # all, venue, account, strategy, symbol
    leg: Leg
    own: OwnBook
    answers: Answers  # of the strategy for the account, by key


_SCALARS = ("epoch", "next_id", "utc_ns", "date", "opens_ns", "closes_ns", "day_open", "halted", "reconciled")


class State:
    """The gateway's memory. Attributes are read anywhere and changed by `apply` alone."""

    def __init__(self) -> None:
        self.epoch = 0
        self.next_id = 1  # of orders and requests, never used twice
        self.utc_ns = 0  # the latest time seen: a clock that goes back is not believed
        self.date = ""
        self.opens_ns = self.closes_ns = 0
        self.day_open = False
        self.halted = "not armed yet"  # why no new order passes; empty when armed
        self.reconciled = False
        self.limits: Limits | None = None
        self.revision = 0  # grows when compiled limits are out of date; not part of the state proper
        self.all = Node("all", "")
        self.nodes: dict[ScopeName, Node] = {("all", ""): self.all}
        self.symbols: dict[str, SymbolBook] = {}
        self.exposures: dict[tuple[str, str, str], Exposure] = {}
        self.legs: dict[Key, Leg] = {}
        self.own: dict[ScopeName, OwnBook] = {}
        self._sums: dict[Place, Sums] = {}
        self.last: Allowed | None = None  # what the latest Accepted stands for; not part of the state proper
        self.orders = Orders()
        self.open_orders = Orders()
        self.keys = Keys()
        self.executions: dict[ScopeName, Execution] = {}
        self.postures: dict[ScopeName, Posture] = {}
        self.proposals: dict[str, Proposal] = {}
        self.liquidations: dict[ScopeName, dict[str, int]] = {}
        self.access = ""  # sha256 over who may command and send orders, as last journalled

    def apply(self, event: Event) -> None:
        """Change the state by one event. Raises where an event cannot follow the ones before: the caller halts."""
        if event.utc_ns > self.utc_ns:
            self.utc_ns = event.utc_ns
        if type(event) is Accepted:  # most are
            accepted(self, event)
        else:
            _EFFECTS[type(event)](self, event)

    def apply_new(self, event: Accepted, request: ChildOrder, sums: Sums) -> Allowed:
        """`apply` for an accepted new order, by whoever holds the sums of its place already; gives its answer."""
        if event.utc_ns > self.utc_ns:
            self.utc_ns = event.utc_ns
        return accept_new(self, request, event.order_id, event.unit_value, sums)

    def node(self, scope: str, name: str) -> Node:
        """The sums of a scope; empty ones where nothing happened yet."""
        node = self.nodes.get((scope, name))
        if node is None:
            node = self.nodes[scope, name] = Node(scope, name)
        return node

    def exposure(self, scope: str, name: str, symbol: str) -> Exposure:
        """A scope's position in a symbol; empty where nothing happened yet."""
        exposure = self.exposures.get((scope, name, symbol))
        if exposure is None:
            exposure = self.exposures[scope, name, symbol] = Exposure(scope)
        return exposure

    def leg(self, account: str, strategy: str, symbol: str) -> Leg:
        """A strategy's position in a symbol for an account. Raises KeyError where the day knows no such symbol."""
        leg = self.legs.get((account, strategy, symbol))
        if leg is None:
            nodes = (
                self.all,
                self.node("account", account),
                self.node("strategy", strategy),
                self.node("symbol", symbol),
            )
            exposures = (
                self.exposure("all", "", symbol),
                self.exposure("account", account, symbol),
                self.exposure("strategy", strategy, symbol),
            )
            leg = self.legs[account, strategy, symbol] = Leg(self.symbols[symbol], nodes, exposures)
        return leg

    def own_book(self, venue: str, symbol: str) -> OwnBook:
        """Our own open orders at a venue in a symbol."""
        own = self.own.get((venue, symbol))
        if own is None:
            own = self.own[venue, symbol] = OwnBook()
        return own

    def order_of(self, account: str, strategy: str, key: str) -> Order | None:
        """The order that a ChildOrder's key stands for, or None."""
        entry = self.keys.of(account, strategy).get(key)
        if entry is None or type(entry[0]) is not ChildOrder:
            return None
        return self.orders.get(getattr(entry[1], "order_id", 0))

    def new_order(self, order_id: int, request: ChildOrder, unit_value: int) -> Order:
        """An order tied to the sums that it counts in; nothing is reserved yet."""
        sums = self.sums_of(request)
        return Order(order_id, request, sums.nodes, sums.leg, sums.own, unit_value)

    def sums_of(self, request: ChildOrder) -> Sums:
        """What an order counts in."""
        return self.sums((request.venue, request.account, request.strategy, request.symbol))

    def sums(self, place: Place) -> Sums:
        """What the orders of a place count in. Raises KeyError where the day knows no such symbol."""
        sums = self._sums.get(place)
        if sums is None:
            venue, account, strategy, symbol = place
            leg = self.leg(account, strategy, symbol)
            every, of_account, of_strategy, of_symbol = leg.nodes
            nodes = (every, self.node("venue", venue), of_account, of_strategy, of_symbol)
            sums = self._sums[place] = Sums()
            sums.nodes, sums.leg, sums.own = nodes, leg, self.own_book(venue, symbol)
            sums.answers = self.keys.of(account, strategy)
        return sums

    def forget_sums(self) -> None:
        """The books were replaced: what was looked up in the old ones counts no more."""
        self._sums.clear()

    def dump(self) -> Dump:
        """The state as plain values; what never moved from zero is left out, whoever looked at it."""
        return Dump(
            scalars=[getattr(self, name) for name in _SCALARS],
            limits=self.limits.canonical() if self.limits else "",
            nodes=sorted((*key, values) for key, node in self.nodes.items() if any(values := node.dump())),
            symbols=[(book.instrument, book.dump(), book.restricted) for _, book in sorted(self.symbols.items())],
            exposures=sorted((*key, values) for key, item in self.exposures.items() if any(values := item.dump())),
            legs=sorted((*key, values) for key, leg in self.legs.items() if any(values := leg.dump())),
            orders=[(n, self.orders[n].request, self.orders[n].dump()) for n in sorted(self.orders)],
            own=sorted(
                (*key, dict(sorted(own.bids.items())), dict(sorted(own.asks.items())))
                for key, own in self.own.items()
                if own.bids or own.asks
            ),
            keys=self.keys.given,
            executions=[(*key, execution) for key, execution in self.executions.items()],
            postures=[(*key, posture) for key, posture in sorted(self.postures.items())],
            proposals=sorted(self.proposals.items()),
            liquidations=[(*key, dict(sorted(people.items()))) for key, people in sorted(self.liquidations.items())],
            access=self.access,
        )

    def load(self, dump: Dump) -> None:
        """Become the state that `dump` was taken of; self must be new."""
        for name, value in zip(_SCALARS, dump.scalars, strict=True):
            setattr(self, name, value)
        self.limits = Limits.recall(dump.limits) if dump.limits else None
        for scope, name, values in dump.nodes:
            self.node(scope, name).load(values)
        for instrument, values, restricted in dump.symbols:
            book = self.symbols[instrument.symbol] = SymbolBook(instrument)
            book.load(values)
            book.restricted = restricted
        for scope, name, symbol, values in dump.exposures:
            self.exposure(scope, name, symbol).load(values)
        for account, strategy, symbol, values in dump.legs:
            self.leg(account, strategy, symbol).load(values)
        for order_id, request, values in dump.orders:
            order = self.new_order(order_id, request, 0)
            order.load(values)
            self.orders.add(order)
            if order.is_open:
                self.open_orders.add(order)
        for venue, symbol, bids, asks in dump.own:
            own = self.own_book(venue, symbol)
            own.bids, own.asks = bids, asks
            own.find_best()
        for request_, decision in dump.keys:
            self.keys.add(self.keys.of(request_.account, request_.strategy), request_, decision)
        self.executions = {(venue, exec_id): execution for venue, exec_id, execution in dump.executions}
        self.postures = {(scope, name): posture for scope, name, posture in dump.postures}
        self.proposals = dict(dump.proposals)
        self.liquidations = {(scope, name): people for scope, name, people in dump.liquidations}
        self.access = dump.access
        self.revision += 1

    def encoded(self) -> bytes:
        """The state as JSON; equal states give equal bytes."""
        return encode_dump(self.dump())

    def hash(self) -> str:
        """sha256 (hex) of `encoded`."""
        return hashlib.sha256(self.encoded()).hexdigest()


def _effects() -> dict[type, Callable[[State, Any], None]]:
    from serving.gateway.control_events import EFFECTS as OF_CONTROL

    return {**OF_ORDERS, **OF_CONTROL}


_EFFECTS = _effects()
