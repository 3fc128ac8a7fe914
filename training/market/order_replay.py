"""Replay of a day order by order with own orders in its queues: exact positions, latencies, and what history lost.

An own message sent at t meets the market after every historical message stamped up to t + order latency; its sender
sees what happened at t only at t + feed latency. Lots that own orders took stay taken. docs/simulator.md tells what
happens to history then; `Divergence` counts it.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from training.market import replay_state as places
from training.market.impact import ImpactParameters
from training.market.message_kernel import MOST_LOTS
from training.market.messages import Messages
from training.market.own_impact import REACTING, shift_now
from training.market.queues import BEST, NONE
from training.market.replay_kernel import NEEDS_ROOM, play, record
from training.market.replay_state import (
    COMMAND_DTYPE,
    FILL_DTYPE,
    CommandFlag,
    CommandKind,
    OrderStatus,
    Reason,
    SelfTrade,
    new_market,
    with_room,
)

END = np.iinfo(np.int64).max
_BID, _ASK = 0, 1


@dataclass(frozen=True)
class ReplaySettings:
    """How own orders meet the market."""

    order_latency_ns: int = 10_000_000  # from a decision to the venue
    feed_latency_ns: int = 0  # from the venue to the eyes of the agent
    self_trade: SelfTrade = SelfTrade.CANCEL_RESTING
    hold_in_halt: bool = False  # limit orders wait for the end of a halt; else they are refused
    reach_levels: int = 1  # price levels beyond the historical price that re-routed executions may walk
    impact: ImpactParameters | None = None  # how prices move for own trades (`own_impact`); None: they do not

    def __post_init__(self) -> None:
        for name in ("order_latency_ns", "feed_latency_ns", "reach_levels"):
            value = getattr(self, name)
            if not 0 <= value <= 10**15:
                raise InputError(f"{name} is {value}, it must be from 0 to 10^15")


@dataclass(frozen=True)
class Divergence:
    """How far the market has left history, in lots; all 0 where no own order ever traded."""

    taken: int  # historical lots that own orders took
    made_by_trades: int  # lots of historical executions that own resting orders got
    made_by_arrivals: int  # lots of historical orders that crossed own resting ones when they came
    arrivals_met: int  # lots of such orders that met history's own left-over lots
    rerouted: int  # lots of historical executions that met another historical order than then
    nothing_found: int  # lots of historical executions that found nobody
    left_over: int  # lots that rested on after history had executed them, since others were met in their place
    cancels_consumed: int  # lots that history cancelled and that were gone already
    cancels_surplus: int  # lots beyond history's that went with the cancel of their order
    replaces_consumed: int  # lots of replacements of orders that were gone already: they never came
    replaces_changed: int  # history's change by replacements less the change here
    dropped: int  # left-over lots for which no room was left
    book_difference: int  # sum over prices of |historical lots here - lots in history|, now
    book_lots: int  # lots that rest in history now


class OrderReplay:
    """One day, one market, any number of own orders. The same calls give the same bytes."""

    def __init__(self, day: Messages, settings: ReplaySettings = ReplaySettings()) -> None:  # noqa: B008 - frozen
        """Start before the first message of `day`."""
        self.day, self.settings = day, settings
        self._market = new_market(day)
        state = self._market.state
        state[places.SELF_TRADE] = int(settings.self_trade)
        state[places.HOLD], state[places.REACH] = int(settings.hold_in_halt), settings.reach_levels
        if settings.impact is not None and not settings.impact.is_off:
            self._market.parameters[:] = settings.impact.row()
            state[places.REACTS] = 1
        self._now, self._asked = int(day.events["ts_ns"][0]), 0
        self._sent_ns = np.iinfo(np.int64).min

    # Own messages -----------------------------------------------------------------------------------------------

    def limit(
        self,
        now_ns: int,
        side: int,
        price: int,
        lots: int,
        *,
        post_only: bool = False,
        ioc: bool = False,
        trader: int = 0,
    ) -> int:
        """Send a limit order (`side` 1 buys, -1 sells; ticks, lots); gives its number."""
        flags = CommandFlag.POST_ONLY * post_only | CommandFlag.IOC * ioc
        return self._send_order(now_ns, CommandKind.LIMIT, side, price, lots, int(flags), trader)

    def market(self, now_ns: int, side: int, lots: int, *, trader: int = 0) -> int:
        """Send a market order; what meets nothing is cancelled. Gives its number."""
        return self._send_order(now_ns, CommandKind.MARKET, side, 0, lots, 0, trader)

    def cancel(self, now_ns: int, order: int) -> None:
        """Ask for the cancel of an own order; one that is done when the message arrives stays as it is."""
        self._require_order(order)
        self._send(now_ns, np.array([(0, order, 0, 0, CommandKind.CANCEL, 0, 0, 0)], COMMAND_DTYPE))

    def replace(self, now_ns: int, order: int, price: int, lots: int) -> None:
        """Ask for a new price and new lots, those filled included.

        The place is kept where the price stays and no lot is added. A post-only order that would take, a price beyond
        the window and a replace in a halt are refused: the order rests on as it was, its `reason` says why.
        """
        self._require_order(order)
        self._require_lots(lots)
        self._asked += lots
        self._send(now_ns, np.array([(0, order, price, lots, CommandKind.REPLACE, 0, 0, 0)], COMMAND_DTYPE))

    def schedule(self, commands: NDArray[np.void]) -> None:
        """Send many messages at once (COMMAND_DTYPE, by arrival, `arrive_ns` with the latency in it).

        New orders must be numbered on in the order of their messages. Raises InputError where they are not, where
        time runs backwards, or where sizes do not fit.
        """
        commands = np.ascontiguousarray(commands, COMMAND_DTYPE)
        if not len(commands):
            return
        new = commands[(commands["kind"] == CommandKind.LIMIT) | (commands["kind"] == CommandKind.MARKET)]
        first = int(self._market.state[places.ORDERS])
        if not np.array_equal(new["order"], np.arange(first, first + len(new))):
            raise InputError(f"new orders must be numbered from {first} on in the order of their messages")
        others = commands["order"][(commands["order"] < 0) | (commands["order"] >= first + len(new))]
        if len(others):
            raise InputError(f"order {int(others[0])} is unknown; {first + len(new)} orders are there")
        sized = commands[commands["kind"] != CommandKind.CANCEL]
        if len(sized) and sized["lots"].min() < 1:
            raise InputError(f"an order of {int(sized['lots'].min())} lots: at least 1 is wanted")
        self._require_room(int(sized["lots"].sum(dtype=np.int64)))
        if (np.diff(commands["arrive_ns"]) < 0).any() or commands["arrive_ns"][0] < max(self._sent_ns, self._now):
            raise InputError("messages arrive before earlier ones or in the past; sort them by arrive_ns")
        self._asked += int(sized["lots"].sum(dtype=np.int64))
        self._append(commands, len(new))

    # Time ---------------------------------------------------------------------------------------------------------

    def advance(self, until_ns: int = END) -> None:
        """Let the market run up to `until_ns`, that moment included; without it, to the end of the day."""
        if until_ns < self._now:
            raise InputError(f"time runs backwards: {until_ns} ns asked at {self._now} ns")
        while play(self._market, self.day.events, until_ns) == NEEDS_ROOM:
            self._market = with_room(self._market)
        last = max(self._now, int(self._market.state[places.NOW]))
        self._now = last if until_ns == END else until_ns

    def record(self, depth: int, until_ns: int = END) -> Book:
        """As `advance`, and give the visible book on the way: a row for each change and trade of history.

        Own orders are part of the book; their fills are rows without a trade. Without any, the rows are those of
        `feature_repo.pipeline.books.build_book` (`trade_side` as the vendor says it, 0 where he does not).
        """
        most = len(self.day.events) - int(self._market.state[places.AT]) + 2
        most += int(self._market.state[places.COMMANDS] - self._market.state[places.COMMAND_AT])
        levels = [np.empty((most, depth), np.int32) for _ in range(4)]
        trades = (np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int8))
        out: tuple[NDArray[Any], ...] = (np.empty(most, np.int64), *levels, *trades)
        last, rows = np.zeros((4, depth), np.int64), -1
        while rows < 0:
            self._market = with_room(self._market)
            rows = int(record(self._market, self.day.events, until_ns, out, -rows - 1, last))
        self._now = max(self._now, int(self._market.state[places.NOW]) if until_ns == END else until_ns)
        return Book(*(column[:rows] for column in out))

    # What is known ------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The moment up to which everything has happened."""
        return self._now

    @property
    def fills(self) -> NDArray[np.void]:
        """Own fills so far (FILL_DTYPE), in the order in which they happened."""
        return self._market.fills[: self._market.state[places.FILLS]].copy()

    def seen_fills(self, now_ns: int) -> NDArray[np.void]:
        """Own fills that their sender has heard of at `now_ns`, one feed latency after they happened."""
        fills = self.fills
        return fills[fills["ts_ns"] + self.settings.feed_latency_ns <= now_ns]

    def order(self, order: int) -> tuple[OrderStatus, Reason, int]:
        """Status, reason and filled lots of an own order, at the venue now."""
        self._require_order(order)
        mine = self._market.own[order]
        return OrderStatus(int(mine["status"])), Reason(int(mine["reason"])), int(mine["filled"])

    def lots_ahead(self, order: int) -> int:
        """Lots that stand before a resting own order at its price; -1 where it does not rest."""
        self._require_order(order)
        nodes, mine = self._market.nodes, self._market.own[order]
        own = int(self._market.state[places.OWN_BASE]) + order
        if mine["status"] != OrderStatus.RESTING or nodes[own]["lots"] == 0:
            return -1
        ahead, node = 0, int(nodes[own]["prev"])
        while node != mine["level"]:
            ahead += int(nodes[node]["lots"])
            node = int(nodes[node]["prev"])
        return ahead

    def shifts(self) -> tuple[int, int]:
        """Ticks by which own trades have moved the book now: for a buyer (0 or more) and for a seller (0 or less)."""
        if self._market.state[places.REACTS] != REACTING:
            return 0, 0
        market = self._market._replace(impact=self._market.impact.copy())  # who asks must not round the decay anew
        return int(shift_now(market, _BID, self._now)), int(shift_now(market, _ASK, self._now))

    def best(self) -> tuple[int, int, int, int]:
        """Bid price, bid lots, ask price, ask lots now, own orders among them; zeros where a side is empty.

        In the book's own prices: `shifts` says what impact adds for a buyer and a seller.
        """
        found = []
        for side in (_BID, _ASK):
            key = int(self._market.state[BEST + side])
            if key >= NONE:
                found += [0, 0]
                continue
            level = 64 * int(self._market.pages[side, key >> 6]) + (key & 63)
            price = self.day.low + (key if side == _ASK else self.day.span - 1 - key)
            found += [price, int(self._market.nodes[level]["lots"])]
        return found[0], found[1], found[2], found[3]

    def divergence(self) -> Divergence:
        """How far the market has left history; plays history alone up to the same message for the comparison."""
        state = self._market.state
        counters = state[places.TAKEN : places.GHOSTS_DROPPED + 1].tolist()
        alone = new_market(self.day)
        play(alone, self.day.events[: state[places.AT]], END)
        history = alone.nodes["lots"][: self.day.levels].astype(np.int64)
        here = self._market.nodes["lots"][: self.day.levels].astype(np.int64)
        own = self._market.own[: state[places.ORDERS]]
        first = int(state[places.OWN_BASE])
        resting = self._market.nodes["lots"][first : first + len(own)]
        np.subtract.at(here, own["level"][resting > 0], resting[resting > 0])
        found = dict(zip((field.name for field in fields(Divergence)), counters, strict=False))
        return Divergence(**found, book_difference=int(np.abs(here - history).sum()), book_lots=int(history.sum()))

    # Inside -------------------------------------------------------------------------------------------------------

    def _send_order(self, now_ns: int, kind: int, side: int, price: int, lots: int, flags: int, trader: int) -> int:
        if side not in (1, -1):
            raise InputError(f"side is {side}, it must be 1 (buy) or -1 (sell)")
        if flags == CommandFlag.POST_ONLY | CommandFlag.IOC:
            raise InputError("an order cannot be both post-only and immediate-or-cancel")
        if not 0 <= trader <= 127:
            raise InputError(f"trader {trader} must be from 0 to 127")
        self._require_lots(lots)
        number = int(self._market.state[places.ORDERS])
        side = _BID if side == 1 else _ASK
        self._send(now_ns, np.array([(0, number, price, lots, kind, side, flags, trader)], COMMAND_DTYPE), new=1)
        self._asked += lots
        return number

    def _send(self, now_ns: int, command: NDArray[np.void], new: int = 0) -> None:
        if now_ns < self._now - self.settings.order_latency_ns or now_ns < self._sent_ns:
            raise InputError(f"a message sent at {now_ns} ns would arrive in the past: the market is at {self._now} ns")
        command["arrive_ns"] = now_ns + self.settings.order_latency_ns
        if command["arrive_ns"][0] < self._now:
            raise InputError(f"a message sent at {now_ns} ns would arrive in the past: the market is at {self._now} ns")
        self._append(command, new)
        self._sent_ns = now_ns

    def _append(self, commands: NDArray[np.void], new: int) -> None:
        self._market = with_room(self._market, new, len(commands))
        state = self._market.state
        at = int(state[places.COMMANDS])
        self._market.commands[at : at + len(commands)] = commands
        state[places.COMMANDS] += len(commands)
        state[places.ORDERS] += new

    def _require_order(self, order: int) -> None:
        count = int(self._market.state[places.ORDERS])
        if not 0 <= order < count:
            raise InputError(f"order {order} is unknown; {count} orders have been sent")

    def _require_lots(self, lots: int) -> None:
        if lots < 1:
            raise InputError(f"an order of {lots} lots: at least 1 is wanted")
        self._require_room(lots)

    def _require_room(self, lots: int) -> None:
        if self._asked + lots > MOST_LOTS:
            raise InputError(f"{self._asked + lots} lots asked for in all exceed {MOST_LOTS}; use a smaller lot count")


__all__ = ["COMMAND_DTYPE", "FILL_DTYPE", "Divergence", "OrderReplay", "ReplaySettings"]
