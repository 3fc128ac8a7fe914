"""The order-by-order market as a venue's world: own orders stand in the queues of a recorded or synthetic day."""

from collections import deque
from typing import NamedTuple

import numpy as np

from feature_repo.errors import InputError
from serving.wire.feed import Status
from training.market.message_kernel import MessageKind
from training.market.messages import Messages
from training.market.order_replay import OrderReplay, ReplaySettings
from training.market.replay_state import OrderStatus, Reason
from training.market.venue.world import (
    Answer,
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

_REASONS = {
    Reason.NONE: "",
    Reason.ASKED: "cancelled",
    Reason.WOULD_TAKE: "would take",
    Reason.REMAINDER: "nothing more to meet",
    Reason.SELF_TRADE: "would trade with itself",
    Reason.HALTED: "trading is halted",
    Reason.PRICE: "price outside the venue's window",
}
_TURNS: dict[int, Status] = {
    int(MessageKind.CLEAR): "unknown",
    int(MessageKind.WHOLE): "open",
    int(MessageKind.HALT): "halted",
    int(MessageKind.RESUME): "open",
}
_LIVE = (OrderStatus.SENT, OrderStatus.RESTING, OrderStatus.HELD)


class _Waiting(NamedTuple):
    arrive_ns: int
    command: Command


class _Own:
    """What the world has told of an order."""

    __slots__ = ("place", "filled", "lots", "told")

    def __init__(self, place: int, lots: int) -> None:
        self.place, self.lots = place, lots  # its number in the replay
        self.filled = 0
        self.told = False


class OrderWorld:
    """A day of `training.market.messages` in which own orders trade (`training.market.order_replay`)."""

    def __init__(
        self, day: Messages, windows: tuple[tuple[int, int], ...], depth: int, settings: ReplaySettings
    ) -> None:
        """`windows` are the session's, ns; outside them the symbol is closed whatever the day's events say."""
        self.depth, self.opens_ns, self.closes_ns = depth, windows[0][0], windows[-1][1]
        self.windows = windows
        self.replay = OrderReplay(day, settings)
        self._latency_ns = settings.order_latency_ns
        self._waiting: deque[_Waiting] = deque()
        self._own: dict[int, _Own] = {}
        self._numbers: list[int] = []  # the venue's number of each order of the replay
        self._live: set[int] = set()
        self._fills = 0
        self._sent_ns = -1
        self._problems: dict[int, str] = {}  # by identity of the waiting message, which lives until it is answered
        self._shown: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._turns = deque(_turns(day, windows))

    def send(self, now_ns: int, command: Command) -> None:
        """Take a message at `now_ns`."""
        now_ns = self._sent_ns = max(
            now_ns, self._sent_ns + 1
        )  # one message a moment: what came of it can be told apart
        self._waiting.append(_Waiting(now_ns + self._latency_ns, command))
        try:
            self._hand_over(now_ns, command)
        except InputError as error:  # the lots of a whole day's orders have their limit too
            self._problems[id(command)] = str(error)

    def _hand_over(self, now_ns: int, command: Command) -> None:
        if isinstance(command, New):
            if command.tif == "fok":
                return  # refused on arrival
            side, trader = command.side, command.trader
            if command.type == "market":
                place = self.replay.market(now_ns, side, command.lots, trader=trader)
            else:
                assert command.price_ticks is not None
                place = self.replay.limit(
                    now_ns, side, command.price_ticks, command.lots, ioc=command.tif == "ioc", trader=trader
                )
            self._own[command.number] = _Own(place, command.lots)
            self._numbers.append(command.number)
        elif command.number in self._own:
            place = self._own[command.number].place
            if isinstance(command, Change):
                self.replay.replace(now_ns, place, command.price_ticks, command.lots)
            else:
                self.replay.cancel(now_ns, place)

    def advance(self, until_ns: int) -> list[Happening]:
        """Let time pass up to `until_ns`; what happened, in order."""
        happened: list[Happening] = []
        while self._waiting and self._waiting[0].arrive_ns <= until_ns:
            arrive_ns, command = self._waiting.popleft()
            self._play(arrive_ns, command, happened)
        self._play(until_ns, None, happened)
        return happened

    def _play(self, until_ns: int, command: Command | None, happened: list[Happening]) -> None:
        """Play up to the moment at which `command` meets the market, that moment included."""
        found: list[Happening] = list(self._rows(until_ns))
        while self._turns and self._turns[0].ts_ns <= until_ns:
            found.append(self._turns.popleft())
        # what rests was met before it was changed, and what takes took after it was
        fills = self._new_fills()
        found += [fill for fill in fills if fill.maker]
        found.sort(key=lambda item: item.ts_ns)
        happened += found
        for fill in fills:
            self._own[fill.number].filled += fill.lots
        taken = [fill for fill in fills if not fill.maker]
        if command is not None:
            own = self._own.get(command.number)
            before = own.filled - sum(fill.lots for fill in taken) if own is not None else 0
            happened.append(self._result(until_ns, command, before))
        happened += taken
        self._sweep(until_ns, happened)

    def _rows(self, until_ns: int) -> list[Row]:
        book = self.replay.record(self.depth, until_ns)
        rows = []
        for i in range(len(book.ts_ns)):
            trade = (int(book.trade_px[i]), int(book.trade_sz[i]), int(book.trade_side[i]))
            sides = [
                {int(price): int(lots) for price, lots in zip(prices, sizes, strict=True) if lots > 0}
                for prices, sizes in ((book.bid_px[i], book.bid_sz[i]), (book.ask_px[i], book.ask_sz[i]))
            ]
            if (
                trade[1] or (sides[0], sides[1]) != self._shown
            ):  # a call's first row repeats the last one of the call before
                self._shown = (sides[0], sides[1])
                rows.append(Row(int(book.ts_ns[i]), sides[0], sides[1], trade if trade[1] else (0, 0, 0)))
        return rows

    def _new_fills(self) -> list[Traded]:
        fills = self.replay.fills[self._fills :]
        self._fills += len(fills)
        return [
            Traded(
                int(row["ts_ns"]), self._numbers[row["order"]], int(row["price"]), int(row["lots"]), bool(row["maker"])
            )
            for row in fills
        ]

    def _result(self, ts_ns: int, command: Command, filled: int) -> Answer:
        """What became of a message, now that it has met the market; its order had `filled` lots before."""
        number = command.number
        own = self._own.get(number)
        if (problem := self._problems.pop(id(command), None)) is not None:
            return Refused(ts_ns, number, problem) if isinstance(command, New) else NotChanged(ts_ns, number, problem)
        if own is None:
            if isinstance(command, New):
                return Refused(ts_ns, number, "fill-or-kill is not offered")
            make = NotChanged if isinstance(command, Change) else NotGone
            return make(ts_ns, number, "the order was refused")
        status, reason, _ = self.replay.order(own.place)
        if isinstance(command, New):
            if status == OrderStatus.REJECTED:
                return Refused(ts_ns, number, _REASONS[reason])
            self._live.add(number)
            return Stands(ts_ns, number)
        if number not in self._live or filled >= own.lots:
            make = NotChanged if isinstance(command, Change) else NotGone
            return make(ts_ns, number, "the order is done")
        if isinstance(command, Withdraw):
            if status == OrderStatus.CANCELLED and reason == Reason.ASKED:
                self._live.discard(number)
                return Gone(ts_ns, number, True)
            return NotGone(ts_ns, number, f"too late: {_REASONS[reason] or 'the order is filled'}")
        mine = self.replay._market.own[own.place]
        if (int(mine["price"]), int(mine["lots"])) == (command.price_ticks, command.lots):
            own.lots = command.lots
            return Changed(ts_ns, number, command.price_ticks, command.lots)
        if status == OrderStatus.CANCELLED and command.lots <= filled:
            self._live.discard(number)
            return Gone(ts_ns, number, True, f"replaced to {command.lots} lots of which {filled} are filled")
        return NotChanged(ts_ns, number, _REASONS[reason] or "too late")

    def _sweep(self, ts_ns: int, happened: list[Happening]) -> None:
        """Tell of orders that ended by themselves: filled, what an immediate order left, self-trade prevention."""
        for number in sorted(self._live):
            own = self._own[number]
            status, reason, _ = self.replay.order(own.place)
            if status in _LIVE:
                continue
            self._live.discard(number)
            if status != OrderStatus.FILLED:
                happened.append(Gone(ts_ns, number, False, _REASONS[reason]))


def _turns(day: Messages, windows: tuple[tuple[int, int], ...]) -> list[Turn]:
    """What the day says of trading, within the session's windows; between them the symbol is closed."""
    events = day.events
    said = events[np.isin(events["kind"], list(_TURNS))]
    moments: list[tuple[int, int, str]] = [(int(row["ts_ns"]), 1, _TURNS[int(row["kind"])]) for row in said]
    moments += [(opens, 2, "opens") for opens, _ in windows] + [(closes, 0, "closes") for _, closes in windows]
    turns: list[Turn] = []
    stands: Status = "unknown"
    inside, shown = False, ""
    moments.sort(key=lambda item: item[:2])  # stable: of what is said at one moment the last word counts
    for i, (ts_ns, _, what) in enumerate(moments):
        if what == "opens" or what == "closes":
            inside = what == "opens"
        else:
            stands = what  # type: ignore[assignment]
        now: Status = stands if inside else "closed"
        if now != shown and (i + 1 == len(moments) or moments[i + 1][0] > ts_ns):
            turns.append(Turn(ts_ns, now))
            shown = now
    return turns
