"""The venue without a wire: clients, their orders and what they are told, over one world a symbol.

    venue = Venue(worlds)
    venue.submit("GATE", NewOrder(...)); venue.advance(until_ns) -> [Told(client, ...), Shown(symbol, row), ...]

Time is the venue's own and moves in `advance` alone: two runs with the same calls give the same answers. A message is
logged before anything else is done with it. What is wrong with it is answered at once; what is right meets the market
one latency later, and is answered then.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.wire.messages import CancelOrder, Inbound, MassStatus, NewOrder, OrderState, ReplaceOrder, StatusOrder
from training.market.venue.received import ReceivedLog
from training.market.venue.world import (
    Answer,
    Change,
    Changed,
    Gone,
    Happening,
    New,
    NotChanged,
    NotGone,
    Refused,
    Row,
    Stands,
    Traded,
    Turn,
    Withdraw,
    World,
)

TRADERS_MAX = 127
LOTS_MAX = 10**8
PRICE_MAX = 10**9
SETTLED_NS = 15 * 10**9
"""After a window's close: what was on its way is done with, and nothing happens until the next one opens."""


class Execution(NamedTuple):
    """An execution report: what happened, and where the order stands after it."""

    client: str
    what: str  # new, trade, cancelled, expired, replaced, rejected, status
    state: OrderState
    exec_id: str
    ts_ns: int
    orig: str | None = None  # the ClOrdID that a cancel or replace named
    last: tuple[int, int] | None = None  # ticks, lots of a trade
    maker: bool = False
    text: str | None = None
    request: str = ""  # of a status request
    mass: bool = False
    reports: int | None = None  # reports that answer a mass status request


class CancelReject(NamedTuple):
    """A cancel or replace that was not taken."""

    client: str
    cl_ord_id: str
    orig: str
    venue_order_id: str  # NONE: the order is unknown
    status: str
    to: str  # cancel or replace
    reason: str
    ts_ns: int


class NothingOpen(NamedTuple):
    """The answer to a mass status request where nothing is open."""

    client: str
    request: str
    exec_id: str
    ts_ns: int


class Shown(NamedTuple):
    """What everybody may see of a symbol."""

    symbol: str
    what: Row | Turn


Told = Execution | CancelReject | NothingOpen
Output = Told | Shown


class _Order:
    __slots__ = (
        "client", "cl_ord_id", "number", "order", "status", "price_ticks", "lots", "filled", "asked", "ids",
    )  # fmt: skip

    def __init__(self, client: str, number: int, order: NewOrder) -> None:
        self.client, self.number, self.order = client, number, order
        self.cl_ord_id = order.cl_ord_id  # the one last accepted
        self.status = "pending_new"
        self.price_ticks, self.lots, self.filled = order.price_ticks, order.lots, 0
        self.asked: list[ReplaceOrder | CancelOrder] = []  # on their way to the market, in order
        self.ids = {order.cl_ord_id}

    @property
    def is_open(self) -> bool:
        return self.status in ("pending_new", "new", "partially_filled")

    def state(self, cl_ord_id: str | None = None) -> OrderState:
        left = self.lots - self.filled if self.is_open else 0
        return OrderState(
            cl_ord_id or self.cl_ord_id, f"V{self.number}", self.order.symbol, self.order.side, self.status,
            self.price_ticks, self.lots, self.filled, max(left, 0),
        )  # fmt: skip


class Venue:
    """Matches nothing itself: the worlds do. Not for several threads."""

    def __init__(
        self, worlds: Mapping[str, World], log: ReceivedLog | None = None, start_ns: int | None = None
    ) -> None:
        """Begin at `start_ns`, by default when the first symbol opens."""
        self.worlds = dict(worlds)
        self.now_ns = min(world.opens_ns for world in worlds.values()) if start_ns is None else start_ns
        self.closes_ns = max(world.closes_ns for world in worlds.values())
        self.received: dict[str, int] = {}  # orders, replaces and cancels of each strategy so far
        self.told: dict[str, int] = {}  # reports about orders of each strategy so far, answers to questions left out
        self.status: dict[str, str] = dict.fromkeys(worlds, "unknown")
        self._log = log
        self._orders: list[_Order] = []
        self._by_id: dict[tuple[str, str], _Order] = {}
        self._traders: dict[str, int] = {}
        self._executions = 0
        self._out: list[Output] = []

    def take(self, client: str, message: Inbound) -> None:
        """Take any message of a client at the venue's present moment."""
        self.note(client, type(message).__name__, message._asdict())
        if isinstance(message, NewOrder):
            _count(self.received, message.strategy)
            self._submit(client, message)
        elif isinstance(message, ReplaceOrder):
            _count(self.received, message.strategy)
            self._replace(client, message)
        elif isinstance(message, CancelOrder):
            _count(self.received, message.strategy)
            self._cancel(client, message)
        elif isinstance(message, StatusOrder):
            self._answer_status(client, message)
        else:
            self._answer_mass(client, message)

    submit = replace = cancel = take

    def note(self, client: str, what: str, body: dict[str, Any]) -> None:
        """Log what came, before anything is done with it."""
        if self._log is not None:
            self._log.write(time.time_ns(), self.now_ns, client, what, body)

    def advance(self, until_ns: int) -> list[Output]:
        """Let time pass up to `until_ns`, that moment included; all that is to be told since the last call, in order.

        Raises ValueError where time would go back.
        """
        if until_ns < self.now_ns:
            raise ValueError(f"time cannot go back from {self.now_ns} to {until_ns} ns")
        happened: list[tuple[int, str, Happening]] = []
        for symbol, world in self.worlds.items():
            happened += [(item.ts_ns, symbol, item) for item in world.advance(until_ns)]
        happened.sort(key=lambda item: item[0])  # stable: a symbol's own order stays
        for ts_ns, symbol, item in happened:
            self.now_ns = max(self.now_ns, ts_ns)
            if isinstance(item, Row | Turn):
                if isinstance(item, Turn):
                    self.status[symbol] = item.status
                self._out.append(Shown(symbol, item))
            else:
                self._tell(item)
        self.now_ns = until_ns
        if until_ns >= self.closes_ns:
            self._expire()
        return self.drain()

    def next_stop(self, step_ns: int) -> int:
        """The moment after a step; where every symbol has been closed for SETTLED_NS, the next open."""
        now_ns = self.now_ns
        windows = [window for world in self.worlds.values() for window in world.windows]
        if any(opens <= now_ns <= closes + SETTLED_NS for opens, closes in windows):
            return min(now_ns + step_ns, self.closes_ns)
        return min((opens for opens, _ in windows if opens > now_ns), default=self.closes_ns)

    def drain(self) -> list[Output]:
        """What is to be told and was not yet."""
        out, self._out = self._out, []
        return out

    def open_orders(self, client: str | None = None) -> list[OrderState]:
        """Where the open orders stand, of one client or of all."""
        return [order.state() for order in self._orders if order.is_open and client in (None, order.client)]

    def _submit(self, client: str, order: NewOrder) -> None:
        known = self._by_id.get((client, order.cl_ord_id))
        if known is not None:  # a rejection would be taken for one of the order that works under this id
            text = f"ClOrdID {order.cl_ord_id} was used before: nothing was done"
            self._out.append(
                Execution(client, "status", known.state(order.cl_ord_id), self._exec_id(), self.now_ns, text=text)
            )
            return
        record = _Order(client, len(self._orders) + 1, order)
        refusal = _beyond(order.price_ticks, order.lots)
        if order.symbol not in self.worlds:
            refusal = f"symbol {order.symbol} is not traded here"
        elif self.now_ns >= self.worlds[order.symbol].closes_ns:
            refusal = "the day is over"
        trader = self._traders.setdefault(order.account, len(self._traders))
        if refusal is None and trader > TRADERS_MAX:
            refusal = f"more than {TRADERS_MAX + 1} accounts"
        self._orders.append(record)
        if refusal is not None:
            record.status = "rejected"
            self._execute(record, "rejected", self.now_ns, text=refusal)
            return
        self._by_id[client, order.cl_ord_id] = record
        sign = 1 if order.side == "buy" else -1
        new = New(record.number, sign, order.type, order.price_ticks, order.lots, order.tif, trader, order.link)
        self._send(record, new)

    def _replace(self, client: str, message: ReplaceOrder) -> None:
        record = self._found(client, message, "replace")
        if record is None:
            return
        if record.order.type != "limit":
            self._reject(record, message, "replace", "a market order cannot be replaced", self.now_ns)
        elif (message.symbol, message.side) != (record.order.symbol, record.order.side):
            self._reject(record, message, "replace", "symbol and side of an order never change", self.now_ns)
        elif (beyond := _beyond(message.price_ticks, message.lots)) is not None:
            self._reject(record, message, "replace", beyond, self.now_ns)
        else:
            self._ask(record, message, Change(record.number, message.price_ticks, message.lots))

    def _cancel(self, client: str, message: CancelOrder) -> None:
        record = self._found(client, message, "cancel")
        if record is not None:
            self._ask(record, message, Withdraw(record.number))

    def _ask(self, record: _Order, message: ReplaceOrder | CancelOrder, command: Change | Withdraw) -> None:
        record.asked.append(message)
        record.ids.add(message.cl_ord_id)
        self._by_id[record.client, message.cl_ord_id] = record
        self._send(record, command)

    def _send(self, record: _Order, command: New | Change | Withdraw) -> None:
        self.worlds[record.order.symbol].send(self.now_ns, command)

    def _found(self, client: str, message: ReplaceOrder | CancelOrder, to: str) -> _Order | None:
        record = self._by_id.get((client, message.orig_cl_ord_id))
        if record is None:
            reason = f"order {message.orig_cl_ord_id} is unknown"
            _count(self.told, message.strategy)
            self._out.append(
                CancelReject(
                    client, message.cl_ord_id, message.orig_cl_ord_id, "NONE", "rejected", to, reason, self.now_ns
                )
            )
            return None
        if (client, message.cl_ord_id) in self._by_id:
            self._reject(record, message, to, f"ClOrdID {message.cl_ord_id} was used before", self.now_ns)
            return None
        if not record.is_open:
            self._reject(record, message, to, f"the order is {record.status.replace('_', ' ')}", self.now_ns)
            return None
        return record

    def _tell(self, item: Answer) -> None:
        """Tell the client what became of an order."""
        record = self._orders[item.number - 1]
        if isinstance(item, Stands):
            record.status = "new"
            self._execute(record, "new", item.ts_ns)
        elif isinstance(item, Refused):
            record.status = "rejected"
            self._execute(record, "rejected", item.ts_ns, text=item.reason)
        elif isinstance(item, Traded):
            record.filled += item.lots
            record.status = "filled" if record.filled >= record.lots else "partially_filled"
            self._execute(record, "trade", item.ts_ns, last=(item.price_ticks, item.lots), maker=item.maker)
        elif isinstance(item, Gone):
            record.status = "cancelled"
            asked = record.asked.pop(0) if item.asked and record.asked else None
            orig = None if asked is None else asked.orig_cl_ord_id
            own = None if asked is None else asked.cl_ord_id
            self._execute(record, "cancelled", item.ts_ns, own=own, orig=orig, text=item.reason or None)
        elif isinstance(item, Changed):
            asked = record.asked.pop(0)
            record.price_ticks, record.lots = item.price_ticks, item.lots
            record.cl_ord_id = asked.cl_ord_id
            record.status = "partially_filled" if record.filled else "new"
            if record.filled >= record.lots:
                record.status = "filled"
            self._execute(record, "replaced", item.ts_ns, orig=asked.orig_cl_ord_id)
        else:
            asked = record.asked.pop(0)
            self._reject(
                record, asked, "replace" if isinstance(item, NotChanged) else "cancel", item.reason, item.ts_ns
            )

    def _execute(
        self, record: _Order, what: str, ts_ns: int, *, own: str | None = None, orig: str | None = None,
        last: tuple[int, int] | None = None, maker: bool = False, text: str | None = None,
    ) -> None:  # fmt: skip
        _count(self.told, record.order.strategy)
        self._out.append(
            Execution(record.client, what, record.state(own), self._exec_id(), ts_ns, orig, last, maker, text)
        )

    def _reject(self, record: _Order, message: ReplaceOrder | CancelOrder, to: str, reason: str, ts_ns: int) -> None:
        _count(self.told, record.order.strategy)
        self._out.append(
            CancelReject(
                record.client,
                message.cl_ord_id,
                message.orig_cl_ord_id,
                f"V{record.number}",
                record.status,
                to,
                reason,
                ts_ns,
            )  # fmt: skip
        )

    def _answer_status(self, client: str, message: StatusOrder) -> None:
        record = self._by_id.get((client, message.cl_ord_id))
        if record is None:
            unknown = OrderState(message.cl_ord_id, "NONE", message.symbol, message.side, "rejected", None, 0, 0, 0)
            self._out.append(
                Execution(
                    client,
                    "status",
                    unknown,
                    self._exec_id(),
                    self.now_ns,
                    text="the order is unknown",
                    request=message.request_id,
                )  # fmt: skip
            )
            return
        state = record.state(message.cl_ord_id)
        self._out.append(Execution(client, "status", state, self._exec_id(), self.now_ns, request=message.request_id))

    def _answer_mass(self, client: str, message: MassStatus) -> None:
        states = self.open_orders(client)
        if not states:
            self._out.append(NothingOpen(client, message.request_id, self._exec_id(), self.now_ns))
        for state in states:
            self._out.append(
                Execution(
                    client,
                    "status",
                    state,
                    self._exec_id(),
                    self.now_ns,
                    request=message.request_id,
                    mass=True,
                    reports=len(states),
                )  # fmt: skip
            )

    def _expire(self) -> None:
        for record in self._orders:
            if record.is_open:
                record.status = "expired"
                self._execute(record, "expired", self.now_ns, text="the day is over")

    def _exec_id(self) -> str:
        self._executions += 1
        return f"X{self._executions}"


def _count(counts: dict[str, int], strategy: str) -> None:
    if strategy:
        counts[strategy] = counts.get(strategy, 0) + 1


def _beyond(price_ticks: int | None, lots: int) -> str | None:
    """Why a price or a size is more than any of the worlds can count, or None."""
    if lots > LOTS_MAX:
        return f"{lots} lots exceed {LOTS_MAX}"
    if (price_ticks or 0) > PRICE_MAX:
        return f"price of {price_ticks} ticks exceeds {PRICE_MAX}"
    return None


__all__ = ["CancelReject", "Execution", "NotGone", "NothingOpen", "Output", "Shown", "Told", "Venue"]
