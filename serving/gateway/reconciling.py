"""Asking venues and drop copies how things stand, and bringing the book to it: at the start, after a kill, on request.

Answers come as messages while the market goes on: what was filled between a status and the comparison looks like a
break for a moment. So a comparison that finds breaks is made again, up to ROUNDS times, and the last one counts.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping

from serving.contracts.orders import Filled
from serving.gateway.drop_copy import DropCopy
from serving.gateway.engine import Gateway
from serving.gateway.fix_out import VenueSession, read_now
from serving.gateway.order_table import Order
from serving.gateway.recovery import OrderStatus, reconcile
from serving.wire.fix_reports import Answer
from serving.wire.fix_session import FixDownError
from serving.wire.messages import OrderState

log = logging.getLogger(__name__)
ROUNDS = 3


class _Round:
    """What the venues said in one round."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.open: dict[str, dict[int, OrderState]] = {}
        self.came: dict[str, int] = {}  # reports so far
        self.done: set[str] = set()  # venues that listed everything
        self.one: dict[tuple[str, int], OrderState] = {}
        self.stood: dict[int, tuple[int | None, ...]] = {}  # how an order stood when the venue was asked (`_stand`)
        self.changed = asyncio.Event()


class Reconciler:
    """In the deciding thread: `take` hears the answers, `run` asks and compares."""

    def __init__(
        self, gateway: Gateway, sessions: Mapping[str, VenueSession], drops: Mapping[str, DropCopy], limit_s: float,
        halts: Callable[[], int],
    ) -> None:  # fmt: skip
        """`halts` counts what asked for a halt: a book that was compared while something did is not reconciled."""
        self._gateway, self._sessions, self._drops, self._limit_s = gateway, sessions, drops, limit_s
        self._halts = halts
        self._round: _Round | None = None
        self._serial = itertools.count(1)
        self._turn = asyncio.Lock()

    def take(self, venue: str, answer: Answer, total: int | None) -> None:
        """An answer to a status request."""
        this = self._round
        if this is None or not answer.request.startswith(this.prefix):
            return
        if answer.request.endswith("-all"):
            listed = this.open.setdefault(venue, {})
            if answer.state is not None:
                listed[answer.order_id] = answer.state
            this.came[venue] = this.came.get(venue, 0) + (total != 0)
            if total is not None and this.came[venue] >= total:  # a venue that does not say how many never ends
                this.done.add(venue)
        elif answer.state is not None:
            this.one[venue, answer.order_id] = answer.state
        this.changed.set()

    async def run(self, positions: Mapping[tuple[str, str], int] | None = None) -> tuple[str, ...]:
        """Compare the book with the venues, the drop copies and, where given, the clearer; what does not agree."""
        async with self._turn:
            for number in range(1, ROUNDS + 1):
                breaks = await self._once(positions)
                if not breaks or self._gateway.broken:
                    return breaks
                log.warning("reconciliation, round %d of %d: %d breaks, the first one: %s",
                            number, ROUNDS, len(breaks), breaks[0])  # fmt: skip
        return breaks

    async def _once(self, positions: Mapping[tuple[str, str], int] | None) -> tuple[str, ...]:
        this, halts = _Round(f"R{time.time_ns()}-{next(self._serial)}"), self._halts()
        self._round = this
        try:
            deadline = asyncio.get_running_loop().time() + self._limit_s
            await self._ask_open(this, deadline)
            await self._ask_missing(this, deadline)
            drop = await self._drop_copy()
        finally:
            self._round = None
        fills: dict[tuple[str, int], list[Filled]] = {}
        for venue, fill in drop or ():
            fills.setdefault((venue, fill.order_id), []).append(fill)

        def ask(venue: str, order_id: int) -> OrderStatus | None:
            if venue not in this.done:
                raise TimeoutError(f"it did not list its open orders within {self._limit_s:g} s")
            state = this.open[venue].get(order_id) or this.one.get((venue, order_id))
            if state is None:
                raise TimeoutError(f"it did not say how the order stands within {self._limit_s:g} s")
            if state.venue_order_id == "NONE":
                return None
            return OrderStatus(
                order_id=order_id, is_open=state.is_open, price_ticks=state.price_ticks or 0, lots=state.lots,
                filled_lots=state.filled_lots, fills=tuple(fills.get((venue, order_id), ())),
                is_old=this.stood.get(order_id) != self._stand(self._gateway.state.orders[order_id]),
            )  # fmt: skip

        open_at_venue = {venue: set(this.open.get(venue, {})) for venue in this.done}
        for venue, session in self._sessions.items():
            session.strangers = this.open.get(venue, {})
        silent = tuple(
            f"venue {venue} did not list its open orders within {self._limit_s:g} s"
            for venue in sorted(self._sessions.keys() - this.done)
        )
        if self._halts() != halts:
            silent = (*silent, "something asked for a halt while the book was compared: see the log")
        breaks = reconcile(self._gateway, ask, open_at_venue, drop, read_now(), positions)
        if silent and not breaks:  # nothing differs, but what was compared may not be what the venue holds
            self._gateway.halt(silent[0], read_now())
            self._gateway.commit(read_now())
        return (*breaks, *silent)

    def _stand(self, order: Order) -> tuple[int | None, ...]:
        """What a replace changes, and which one is pending: other scopes trade on while a book is compared."""
        pending_ns = self._gateway.unanswered.sent_ns(order, "replace")
        return order.price_ticks, order.lots, order.new_price, order.new_lots, pending_ns

    async def _ask_open(self, this: _Round, deadline: float) -> None:
        for venue, session in self._sessions.items():
            this.open[venue] = {}
            this.stood |= {
                order.id: self._stand(order)
                for order in self._gateway.state.open_orders.values()
                if order.request.venue == venue
            }
            try:
                session.ask_open(f"{this.prefix}-all")
            except FixDownError as error:
                log.warning("venue %s cannot be asked: %s", venue, error)
        await self._wait(this, deadline, lambda: this.done >= self._sessions.keys())

    async def _ask_missing(self, this: _Round, deadline: float) -> None:
        missing: list[Order] = [
            order
            for order in self._gateway.state.open_orders.values()
            if order.request.venue in this.done and order.id not in this.open[order.request.venue]
        ]
        for order in missing:
            session = self._sessions[order.request.venue]
            this.stood[order.id] = self._stand(order)
            try:
                session.ask_one(order.id, order.request.symbol, order.request.side, f"{this.prefix}-{order.id}")
            except FixDownError as error:
                log.warning("venue %s cannot be asked: %s", session.name, error)
        wanted = {(order.request.venue, order.id) for order in missing}
        await self._wait(this, deadline, lambda: this.one.keys() >= wanted)

    async def _wait(self, this: _Round, deadline: float, done: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while not done():
            this.changed.clear()
            left_s = deadline - loop.time()
            if left_s <= 0:
                return
            try:
                await asyncio.wait_for(this.changed.wait(), left_s)
            except TimeoutError:
                return

    async def _drop_copy(self) -> list[tuple[str, Filled]] | None:
        """The day's executions from the second source; None where a venue has none that speaks."""
        if self._drops.keys() != self._sessions.keys():
            return None
        found: list[tuple[str, Filled]] = []
        for venue, drop in self._drops.items():
            if not await asyncio.to_thread(drop.is_caught_up, self._limit_s):
                log.warning("the drop copy of venue %s does not answer", venue)
                return None
            found += [(venue, fill) for fill in drop.fills()]
        return found
