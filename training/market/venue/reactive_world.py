"""The reactive market as a venue's world: the flow of others answers the queues that own orders change.

The market holds one own resting order (`training.market.reactive.own`): a second one, of whichever parent, is refused
while one rests. Orders that take have no such limit. The path depends on the moments at which time was stopped, since
the flow is drawn anew from each: equal calls give equal markets, and another pace another one of the same law.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from feature_repo.ticks.reactive_tables import QueueReactiveParameters
from training.market.queues import kernel
from training.market.reactive.kernel import next_event, open_market
from training.market.reactive.own import give_way, rest, take_level, withdraw
from training.market.reactive.rows import show
from training.market.reactive.state import NS, market_seed, new_markets, prepare
from training.market.venue.world import (
    Change,
    Changed,
    Command,
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
)

WARMUP_NS = 10 * NS
"""Before the open, for the queues to forget how they began."""


@kernel
def _next(p, markets, levels, until_ns):
    """Play one event up to `until_ns`: whether one came, and whether it is seen."""
    market = markets[0]
    if not next_event(p, market, until_ns):
        return False, False
    changed = show(market, levels)
    return True, changed or market.trade_lots > 0


@kernel
def _open(p, markets, levels, seed, start_ns, bid):
    open_market(p, markets[0], seed, start_ns, bid)
    show(markets[0], levels)


@kernel
def _withdraw(p, markets):
    withdraw(p, markets[0])


@kernel
def _rest(p, markets, b, price, lots):
    return rest(p, markets[0], b, price, lots)


@kernel
def _begin(markets):
    markets[0].trade_lots = 0


@kernel
def _take(p, markets, b, lots, limit):
    return take_level(p, markets[0], b, lots, limit)


@kernel
def _end(p, markets, levels, b):
    if b >= 0:
        give_way(p, markets[0], b)
    return show(markets[0], levels)


class _Own:
    __slots__ = ("filled", "lots", "open", "price_ticks", "side")

    def __init__(self, order: New) -> None:
        self.side, self.lots, self.price_ticks = order.side, order.lots, order.price_ticks or 0
        self.filled, self.open = 0, False


class ReactiveWorld:
    """One session of a reactive market of `parameters`, known by its seed and number."""

    def __init__(
        self,
        parameters: QueueReactiveParameters,
        windows: tuple[tuple[int, int], ...],
        depth: int,
        latency_ns: int,
        opening_bid: int,
        seed: int,
        number: int,
        strength: float = 0.0,
    ) -> None:
        """Raises InputError where the strength of the planted signal lies outside 0 to 1."""
        self.depth = min(depth, parameters.limit.shape[0])
        self.opens_ns, self.closes_ns = windows[0][0], windows[-1][1]
        self.windows = windows
        self._p, self._latency_ns = parameters, latency_ns
        self._markets = new_markets(1)
        prepare(self._markets, parameters, strength, self.opens_ns, self.closes_ns - self.opens_ns)
        self._levels: NDArray[np.int32] = np.zeros((4, self.depth), np.int32)
        start_ns = self.opens_ns - WARMUP_NS
        _open(parameters, self._markets, self._levels, market_seed(seed, number), start_ns, np.int64(opening_bid))
        while _next(parameters, self._markets, self._levels, self.opens_ns)[0]:
            pass
        self._waiting: deque[tuple[int, Command]] = deque()
        self._own: dict[int, _Own] = {}
        self._resting: int | None = None
        self._first = True
        edges: list[Turn] = []
        for opens, closes in windows:
            edges += [Turn(opens, "open"), Turn(closes, "closed")]
        self._turns = deque(edges)

    def send(self, now_ns: int, command: Command) -> None:
        """Take a message at `now_ns`."""
        if isinstance(command, New):
            self._own[command.number] = _Own(command)
        self._waiting.append((now_ns + self._latency_ns, command))

    def advance(self, until_ns: int) -> list[Happening]:
        """Let time pass up to `until_ns`; what happened, in order."""
        happened: list[Happening] = []
        while self._waiting and self._waiting[0][0] <= until_ns:
            arrive_ns, command = self._waiting.popleft()
            self._play(arrive_ns, happened)
            self._arrive(arrive_ns, command, happened)
        self._play(until_ns, happened)
        return happened

    def _play(self, until_ns: int, happened: list[Happening]) -> None:
        market = self._markets[0]
        while True:
            came, seen = _next(self._p, self._markets, self._levels, np.int64(min(until_ns, self.closes_ns)))
            ts_ns = int(market["now_ns"])
            while self._turns and self._turns[0].ts_ns <= (ts_ns if came else until_ns):
                happened.append(self._turns.popleft())
            if self._first and until_ns >= self.opens_ns:
                self._first = False
                happened.append(self._row(self.opens_ns if not came else ts_ns))
            elif seen:
                happened.append(self._row(ts_ns))
            if not came:
                return
            lots = int(market["filled"])
            if lots and self._resting is not None:
                own = self._own[self._resting]
                own.filled += lots
                happened.append(Traded(ts_ns, self._resting, own.price_ticks, lots, True))
                if own.filled >= own.lots:
                    own.open, self._resting = False, None

    def _row(self, ts_ns: int) -> Row:
        market, levels = self._markets[0], self._levels.tolist()
        bids = {price: lots for price, lots in zip(levels[0], levels[1], strict=True) if lots > 0}
        asks = {price: lots for price, lots in zip(levels[2], levels[3], strict=True) if lots > 0}
        lots = int(market["trade_lots"])
        return Row(ts_ns, bids, asks, (int(market["trade_px"]), lots, int(market["trade_side"])) if lots else (0, 0, 0))

    def _arrive(self, ts_ns: int, command: Command, happened: list[Happening]) -> None:
        """Let a message meet the market."""
        _begin(self._markets)
        if isinstance(command, New):
            self._take_order(ts_ns, command, happened)
        else:
            own = self._own[command.number]
            if not own.open:
                make = NotChanged if isinstance(command, Change) else NotGone
                happened.append(make(ts_ns, command.number, "the order is done"))
            elif isinstance(command, Withdraw) or command.lots <= own.filled:
                _withdraw(self._p, self._markets)
                own.open, self._resting = False, None
                happened.append(Gone(ts_ns, command.number, True))
            else:
                self._change(ts_ns, command, own, happened)
        _begin(self._markets)

    def _change(self, ts_ns: int, command: Change, own: _Own, happened: list[Happening]) -> None:
        if command.price_ticks != own.price_ticks:
            _withdraw(self._p, self._markets)
        own.price_ticks, own.lots = command.price_ticks, command.lots
        happened.append(Changed(ts_ns, command.number, command.price_ticks, command.lots))
        self._place(ts_ns, command.number, own, happened)

    def _take_order(self, ts_ns: int, order: New, happened: list[Happening]) -> None:
        own, number = self._own[order.number], order.number
        if order.tif == "fok":
            happened.append(Refused(ts_ns, number, "fill-or-kill is not offered"))
        elif ts_ns >= self.closes_ns:
            happened.append(Refused(ts_ns, number, "the day is over"))
        elif order.type == "limit" and order.tif == "day" and self._resting is not None:
            happened.append(Refused(ts_ns, number, "the reactive market holds one own resting order at a time"))
        else:
            own.open = True
            happened.append(Stands(ts_ns, number))
            if order.type == "limit" and order.tif == "day":
                self._place(ts_ns, number, own, happened)
                return
            self._sweep(ts_ns, number, own, happened)
            if own.filled < own.lots:
                happened.append(Gone(ts_ns, number, False, "nothing more to meet"))
            own.open = False

    def _place(self, ts_ns: int, number: int, own: _Own, happened: list[Happening]) -> None:
        """Take what is within the price, and let the rest of it rest."""
        self._sweep(ts_ns, number, own, happened)
        left = own.lots - own.filled
        if left == 0:
            own.open, self._resting = False, None
        elif _rest(self._p, self._markets, 0 if own.side > 0 else 1, np.int64(own.price_ticks), np.int64(left)):
            self._resting = number
        else:
            _withdraw(self._p, self._markets)
            own.open, self._resting = False, None
            happened.append(Gone(ts_ns, number, False, "too far from the best price for its queue to be known"))
        if _end(self._p, self._markets, self._levels, -1):
            self._show_quietly(ts_ns, happened)

    def _show_quietly(self, ts_ns: int, happened: list[Happening]) -> None:
        _begin(self._markets)
        happened.append(self._row(ts_ns))

    def _sweep(self, ts_ns: int, number: int, own: _Own, happened: list[Happening]) -> None:
        """Take from the other side, best first, no worse than the price."""
        b = 1 if own.side > 0 else 0
        took = 0
        while (left := own.lots - own.filled) > 0:
            price, lots = _take(self._p, self._markets, b, np.int64(left), np.int64(own.price_ticks))
            if lots == 0:
                break
            own.filled += int(lots)
            took += int(lots)
            happened.append(Traded(ts_ns, number, int(price), int(lots), False))
        if took:
            _end(self._p, self._markets, self._levels, b)
            happened.append(self._row(ts_ns))
