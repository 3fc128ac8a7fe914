"""The depth replay as a venue's world: the rows of a day, and own orders under the fill rules of training.

Each parent order (`New.link`) on each side is an episode of `training.market.engine`, as in the environments: one
message in flight, one price at which it rests, and the market to itself. All that is sent at one moment makes one
message, so that a parent that works its orders as the environment does gets the environment's fills. What comes while a
message is in flight waits for its arrival. Own orders are not in the visible book.
"""

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from serving.wire.feed import Status
from training.market.engine import Engine, ParentError
from training.market.fills import PASSIVE
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE
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

if TYPE_CHECKING:
    from training.market.day import MarketDay

LANES = 64
"""Parents that the world remembers; beyond them the one that was quiet for longest is forgotten."""
NO_END = 1 << 40
"""Lots of an episode: its parent is not known here."""
_FILLS = 4096


class _Lane:
    """One parent on one side: what rests, and the message in flight."""

    def __init__(self, episode: int, side: int) -> None:
        self.episode, self.side = episode, side
        self.waiting: deque[tuple[int, list[Command]]] = deque()
        self.flight: list[Command] = []
        self.crosses: list[New] = []
        self.arrive_ns = 0  # 0: nothing in flight
        self.cross_lots = 0
        self.limit = 0  # of what crosses, 0: none
        self.rest: int | None = None  # the order that rests
        self.touched_ns = 0

    @property
    def is_idle(self) -> bool:
        return self.rest is None and not self.arrive_ns and not self.waiting


class _Own:
    __slots__ = ("filled", "lane", "lots", "open", "price_ticks")

    def __init__(self, lane: _Lane, order: New) -> None:
        self.lane, self.lots, self.price_ticks = lane, order.lots, order.price_ticks or 0
        self.filled, self.open = 0, False


class DepthWorld:
    """One day of `training.market.day.MarketDay` under a fill model of training."""

    def __init__(self, day: "MarketDay", latency_ns: int | None = None, fill_model: str = "conservative") -> None:
        self.depth = day.book.bid_px.shape[1]
        self.opens_ns, self.closes_ns = day.windows[0][0], day.windows[-1][1]
        self.windows = day.windows
        self._day = day
        self._engine = Engine([day], LANES, latency_ns, fill_model, fill_capacity=_FILLS)
        self._row = 0
        self._turns = deque(_turns(day))
        self._lanes: dict[tuple[int, str, int], _Lane] = {}
        self._own: dict[int, _Own] = {}
        self._batch: list[tuple[_Lane, Command]] = []
        self._batch_ns = 0
        self._unknown: list[tuple[int, Command, str]] = []  # refused without the engine: time, message, reason

    def send(self, now_ns: int, command: Command) -> None:
        """Take a message at `now_ns`."""
        if isinstance(command, New):
            problem = "fill-or-kill is not offered" if command.tif == "fok" else ""
            lane = None if problem else self._lane(now_ns, command)
            if lane is None:
                self._unknown.append((now_ns, command, problem or "no two-sided book stands, or the session is over"))
                return
            self._own[command.number] = _Own(lane, command)
        elif command.number in self._own:
            lane = self._own[command.number].lane
        else:
            self._unknown.append((now_ns, command, "the order was refused"))
            return
        lane.touched_ns = now_ns
        if not lane.waiting or lane.waiting[-1][0] != now_ns:
            lane.waiting.append((now_ns, []))
        lane.waiting[-1][1].append(command)

    def advance(self, until_ns: int) -> list[Happening]:
        """Let time pass up to `until_ns`; what happened, in order."""
        happened: list[Happening] = [_no(ts_ns, command, reason) for ts_ns, command, reason in self._unknown]
        self._unknown = []
        while True:
            for lane in self._lanes.values():
                if not lane.arrive_ns and lane.waiting:
                    self._dispatch(lane)
            due = [lane for lane in self._lanes.values() if 0 < lane.arrive_ns <= until_ns]
            if not due:
                break
            arrive_ns = min(lane.arrive_ns for lane in due)
            arrived = [lane for lane in due if lane.arrive_ns == arrive_ns]
            for lane in arrived:
                self._hold_to_limit(lane)
            self._play(arrive_ns, arrived, happened)
        self._play(until_ns, [], happened)
        return happened

    # A message on its way ------------------------------------------------------------------------------------------

    def _dispatch(self, lane: _Lane) -> None:
        """Make one instruction of all that was sent at one moment, and send it."""
        now_ns, lane.flight = lane.waiting.popleft()
        lane.crosses, lane.cross_lots, lane.limit = [], 0, 0
        rest = self._own[lane.rest] if lane.rest is not None else None
        price, lots = (rest.price_ticks, rest.lots - rest.filled) if rest is not None else (0, 0)
        for command in lane.flight:
            if isinstance(command, New):
                if command.type == "market" or command.tif == "ioc":
                    if not lane.crosses:
                        lane.crosses, lane.cross_lots, lane.limit = [command], command.lots, command.price_ticks or 0
                elif lots == 0:
                    price, lots = command.price_ticks or 0, command.lots
            elif command.number == lane.rest and rest is not None:
                if isinstance(command, Withdraw):
                    price = lots = 0
                elif lots and command.lots > rest.filled:
                    price, lots = command.price_ticks, command.lots - rest.filled
        engine, state = self._engine, self._engine.states[lane.episode]
        orders = np.zeros(LANES, INSTRUCTION_DTYPE)
        orders[lane.episode] = (1, price, lots, lane.cross_lots, 0)
        moments = np.full(LANES, max(now_ns, int(self._now(lane))), np.int64)
        engine.submit(moments, orders)
        lane.arrive_ns = int(state["pend_ns"])

    def _now(self, lane: _Lane) -> int:
        return int(self._day.book.ts_ns[self._engine.states[lane.episode]["row"]])

    def _hold_to_limit(self, lane: _Lane) -> None:
        """An immediate limit order takes no more than the book holds within its price when it arrives."""
        if not lane.limit:
            return
        engine, book = self._engine, self._day.book
        row = int(np.searchsorted(book.ts_ns, lane.arrive_ns, side="right")) - 1
        prices, sizes = (book.ask_px, book.ask_sz) if lane.side > 0 else (book.bid_px, book.bid_sz)
        count = int(engine.states[lane.episode]["taken_count"])
        taken = dict(
            zip(
                engine.taken_px[lane.episode, :count].tolist(),
                engine.taken_lots[lane.episode, :count, 0].tolist(),
                strict=True,
            )  # fmt: skip
        )
        within = sum(
            max(0, size - taken.get(price, 0))
            for price, size in zip(prices[row].tolist(), sizes[row].tolist(), strict=True)
            if size > 0 and lane.side * (price - lane.limit) <= 0
        )
        state = engine.states[lane.episode]
        state["pend_cross_lots"] = min(int(state["pend_cross_lots"]), within)
        lane.cross_lots = int(state["pend_cross_lots"])

    # Time ------------------------------------------------------------------------------------------------------------

    def _play(self, until_ns: int, arrived: list[_Lane], happened: list[Happening]) -> None:
        engine = self._engine
        before = {lane.episode: int(engine.states[lane.episode]["refused"]) for lane in arrived}
        engine.fill_count[0] = 0
        engine.advance(np.full(LANES, until_ns, np.int64))
        fills: dict[int, list[np.void]] = {}
        for fill in engine.fills():
            fills.setdefault(int(fill["episode"]), []).append(fill)
        found: list[Happening] = list(self._rows(until_ns))
        while self._turns and self._turns[0].ts_ns <= until_ns:
            found.append(self._turns.popleft())
        for lane in self._lanes.values():
            for fill in fills.get(lane.episode, []):
                if int(fill["kind"]) == PASSIVE and lane.rest is not None:
                    found.append(self._fill(lane.rest, fill, maker=True))
        found.sort(key=lambda item: item.ts_ns)
        happened += found
        for lane in arrived:
            taken = [fill for fill in fills.get(lane.episode, []) if int(fill["kind"]) != PASSIVE]
            refused = int(engine.states[lane.episode]["refused"]) > before[lane.episode]
            self._arrive(lane, taken, refused, happened)
        for lane in self._lanes.values():
            self._end_rest(lane, until_ns, happened)

    def _fill(self, number: int, fill: np.void, maker: bool, lots: int | None = None) -> Traded:
        amount = int(fill["lots"]) if lots is None else lots
        self._own[number].filled += amount
        return Traded(int(fill["ts_ns"]), number, int(fill["price_ticks"]), amount, maker)

    def _rows(self, until_ns: int) -> list[Row]:
        book, rows = self._day.book, []
        end = int(np.searchsorted(book.ts_ns, until_ns, side="right"))
        for i in range(self._row, end):
            sides = [
                {int(price): int(lots) for price, lots in zip(prices, sizes, strict=True) if lots > 0}
                for prices, sizes in ((book.bid_px[i], book.bid_sz[i]), (book.ask_px[i], book.ask_sz[i]))
            ]
            trade = (int(book.trade_px[i]), int(book.trade_sz[i]), int(book.trade_side[i]))
            rows.append(Row(int(book.ts_ns[i]), sides[0], sides[1], trade if trade[1] else (0, 0, 0)))
        self._row = max(self._row, end)
        return rows

    def _arrive(self, lane: _Lane, taken: list[np.void], refused: bool, happened: list[Happening]) -> None:
        """Say what became of each order of the message that has just met the market."""
        ts_ns, lane.arrive_ns = lane.arrive_ns, 0
        commands, lane.flight = lane.flight, []
        for command in commands:
            happened.append(self._result(lane, ts_ns, command, refused))
        crossing = [item.number for item in lane.crosses if self._own[item.number].open]
        left = lane.cross_lots
        for fill in taken:
            lots = int(fill["lots"])
            share = min(lots, left) if crossing else 0
            if share:
                happened.append(self._fill(crossing[0], fill, maker=False, lots=share))
                left -= share
            if lots > share and lane.rest is not None:
                happened.append(self._fill(lane.rest, fill, maker=False, lots=lots - share))
        for number in crossing:
            own = self._own[number]
            own.open = False
            if own.filled < own.lots:
                happened.append(Gone(ts_ns, number, False, "nothing more to meet"))

    def _result(self, lane: _Lane, ts_ns: int, command: Command, refused: bool) -> Happening:
        own = self._own[command.number]
        if isinstance(command, New):
            crosses = command.type == "market" or command.tif == "ioc"
            if refused:
                return Refused(ts_ns, command.number, "trading is halted or the book unknown")
            if (crosses and command is not lane.crosses[0]) or (not crosses and lane.rest is not None):
                return Refused(ts_ns, command.number, "one order of a kind for each parent and side at a time")
            own.open = True
            if not crosses:
                lane.rest = command.number
            return Stands(ts_ns, command.number)
        if not own.open or (own.filled >= own.lots and isinstance(command, Withdraw)):
            return _no(ts_ns, command, "the order is done")
        if refused:
            return _no(ts_ns, command, "trading is halted or the book unknown")
        if isinstance(command, Change) and command.lots > own.filled:
            own.price_ticks, own.lots = command.price_ticks, command.lots
            return Changed(ts_ns, command.number, command.price_ticks, command.lots)
        own.open, lane.rest = False, None
        return Gone(ts_ns, command.number, True)

    def _end_rest(self, lane: _Lane, ts_ns: int, happened: list[Happening]) -> None:
        """Close the order that rested where nothing of it rests any more."""
        resting = int(self._engine.states[lane.episode]["rest_lots"])
        if lane.rest is None or lane.arrive_ns or resting > 0:  # what is on its way may still enlarge a filled order
            return
        own = self._own[lane.rest]
        if own.filled < own.lots:  # lots that filled while this order was on its way came off it: see `engine`
            happened.append(Gone(ts_ns, lane.rest, False, "filled by the order before it"))
        own.open, lane.rest = False, None

    def _lane(self, now_ns: int, order: New) -> _Lane | None:
        """The lane of an order's parent and side, a new one where there is none; None where no episode can start."""
        key = (order.trader, order.link, order.side)
        lane = self._lanes.get(key)
        if lane is not None:
            return lane
        used = {item.episode for item in self._lanes.values()}
        episode = next((number for number in range(LANES) if number not in used), None)
        if episode is None:
            idle = [name for name, item in self._lanes.items() if item.is_idle]
            if not idle:
                return None
            episode = self._lanes.pop(min(idle, key=lambda name: self._lanes[name].touched_ns)).episode
        parent = np.zeros(1, PARENT_DTYPE)
        parent[0] = (0, order.side, NO_END, now_ns, 1)
        try:
            self._engine.start(parent, np.array([episode]), np.array([1]))
        except ParentError:
            self._engine.states[episode]["done"] = 1
            return None
        lane = self._lanes[key] = _Lane(episode, order.side)
        return lane


def _no(ts_ns: int, command: Command, reason: str) -> Happening:
    make = Refused if isinstance(command, New) else NotChanged if isinstance(command, Change) else NotGone
    return make(ts_ns, command.number, reason)


def _turns(day: "MarketDay") -> list[Turn]:
    """Opens and closes of the session's windows, halts, and stretches in which the book shows nothing."""
    book = day.book
    empty = (book.bid_sz[:, 0] <= 0) & (book.ask_sz[:, 0] <= 0)
    edges = np.flatnonzero(np.diff(empty.astype(np.int8), prepend=np.int8(-1)))
    moments = [(int(book.ts_ns[i]), 1, "dark" if empty[i] else "lit") for i in edges]
    moments += [(int(start), 2, "halt") for start, _ in day.halts] + [(int(end), 1, "resume") for _, end in day.halts]
    moments += [(opens, 3, "opens") for opens, _ in day.windows] + [(closes, 0, "closes") for _, closes in day.windows]
    inside = halted = False
    dark, shown = True, ""
    turns: list[Turn] = []
    moments.sort()
    for i, (ts_ns, _, what) in enumerate(moments):
        inside = what == "opens" or (inside and what != "closes")
        halted = what == "halt" or (halted and what != "resume")
        dark = what == "dark" or (dark and what != "lit")
        now: Status = "closed" if not inside else "halted" if halted else "unknown" if dark else "open"
        if now != shown and (i + 1 == len(moments) or moments[i + 1][0] > ts_ns):
            turns.append(Turn(ts_ns, now))
            shown = now
    return turns
