"""What the gateway sees now and may forget: prices, sessions, heartbeats, clock offset, message windows.

A restart forgets all of it and starts closed: no price, no heartbeat, every window full. Times are monotonic ns.
"""

from typing import Any, TypeVar

from serving.contracts.orders import LOTS_MAX, PRICE_TICKS_MAX, ContractError

SECOND_NS = 1_000_000_000
DRIFT_WINDOW_NS = 300 * SECOND_NS
"""The reference that prices over time are held against is one to two of these old."""
NEVER = -(2**62)
PART = 4_096
"""Unanswered messages of a part at most."""
UNKNOWN_LAG_NS = 2**63
"""Of a feed that has not said when it sent: beyond every limit."""
T = TypeVar("T")


class Now:
    """One reading of the clocks. `utc_ns` never goes back; `raw_utc_ns` is what the clock said."""

    __slots__ = ("mono_ns", "raw_utc_ns", "utc_ns")

    def __init__(self, mono_ns: int, utc_ns: int, raw_utc_ns: int | None = None) -> None:
        self.mono_ns, self.utc_ns = mono_ns, utc_ns
        self.raw_utc_ns = utc_ns if raw_utc_ns is None else raw_utc_ns


class Feed:
    """How late a venue's feed is: its messages come in order, so the latest one says it of all its prices."""

    __slots__ = ("lag_ns",)

    def __init__(self) -> None:
        self.lag_ns = UNKNOWN_LAG_NS  # UTC from sending to arrival; negative where the clocks differ


class Market:
    """A symbol at a venue as the gateway's own feed shows it. Prices in ticks; 0 where there is none."""

    __slots__ = ("ask", "bid", "feed", "newer_mid2", "older_mid2", "seen_ns", "status", "turned_ns", "volume_lots")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.bid = self.ask = 0
        self.seen_ns = NEVER
        self.status = "unknown"  # only "open" lets orders pass
        self.volume_lots = 0  # traded in the market today
        self.older_mid2 = self.newer_mid2 = 0  # twice the mid, one to two and zero to one windows ago
        self.turned_ns = NEVER

    def quote(self, bid: int, ask: int, mono_ns: int) -> None:
        """Take a new best bid and ask.

        Raises ContractError where one is no price; a crossed pair leaves no reference.
        """
        for name, price in (("bid", bid), ("ask", ask)):
            if type(price) is not int or not 1 <= price <= PRICE_TICKS_MAX:
                self.lose()
                raise ContractError(f"{name} {price!r} is not a price from 1 to {PRICE_TICKS_MAX} ticks")
        if bid > ask:
            self.lose()
            return
        self.bid, self.ask, self.seen_ns = bid, ask, mono_ns
        mid2 = bid + ask
        if not self.older_mid2:
            self.older_mid2 = self.newer_mid2 = mid2
            self.turned_ns = mono_ns
        elif mono_ns - self.turned_ns >= DRIFT_WINDOW_NS:
            self.older_mid2, self.newer_mid2, self.turned_ns = self.newer_mid2, mid2, mono_ns

    def confirm(self, mono_ns: int) -> None:
        """The feed says that nothing happened since: what is known is seen now. What is lost stays lost."""
        if self.bid:
            self.quote(self.bid, self.ask, mono_ns)

    def lose(self) -> None:
        """There is no reference any more: a gap in the feed, a crossed book."""
        self.bid = self.ask = 0
        self.seen_ns = NEVER

    def traded(self, volume_lots: int) -> None:
        """Take the market's volume of the day so far; it never falls."""
        if type(volume_lots) is not int or not 0 <= volume_lots <= LOTS_MAX:
            raise ContractError(f"volume {volume_lots!r} is not an integer from 0 to {LOTS_MAX} lots")
        self.volume_lots = max(self.volume_lots, volume_lots)


class Beat:
    """A strategy's line to the gateway."""

    __slots__ = ("connected", "seen_ns")

    def __init__(self) -> None:
        self.connected = False
        self.seen_ns = NEVER


class ClockOffset:
    """How far the clock is from UTC, as last measured."""

    __slots__ = ("measured_ns", "offset_ns")

    def __init__(self) -> None:
        self.offset_ns = 0
        self.measured_ns = NEVER


class Window:
    """The messages of the last second, against `limit`; full, with messages of its beginning, when it is new.

    A message counts from its decision, and again from the moment it leaves: a group that leaves late and at once must
    not let more reach the venue within a second. Kept as runs of equal times; `used` counts old ones too until it
    would deny. The older runs stand flat in one list, two integers each: 1,000 symbols have one, and tuples spread
    over memory that a decision must wait for.
    """

    __slots__ = ("first", "last", "last_ns", "leaving", "limit", "name", "older", "scope", "unsent", "used")

    def __init__(self, limit: int, scope: str, name: str, mono_ns: int, leaving: "list[Window]") -> None:
        self.limit, self.scope, self.name = limit, scope, name
        self.older: list[int] = []  # time, messages, time, messages, ...: oldest first
        self.first = 0  # where those begin in it that still count
        self.last_ns, self.last = mono_ns, limit  # the latest run
        self.used = limit  # messages of all runs
        self.unsent = 0  # the latest messages, decided and not gone yet
        self.leaving = leaving  # where those stand that have any

    def is_full(self, mono_ns: int) -> bool:
        """`limit` messages went within the last second."""
        if self.used < self.limit:
            return False
        self._forget(mono_ns)
        if self.last_ns <= mono_ns - SECOND_NS:
            self.used = self.last = 0
        return self.used >= self.limit

    def count(self, mono_ns: int) -> None:
        """Another message is decided."""
        self.used += 1
        if not self.unsent:
            self.leaving.append(self)
        self.unsent += 1
        if mono_ns == self.last_ns:
            self.last += 1
        else:
            self._begin(mono_ns, 1)

    def leave(self, mono_ns: int) -> None:
        """What was decided leaves now."""
        left, older = self.unsent, self.older
        while left >= self.last and len(older) > self.first:
            left -= self.last
            self.used -= self.last
            self.last = older.pop()
            self.last_ns = older.pop()
        gone = min(left, self.last)  # fewer than were decided where they are older than a second
        self.last -= gone
        self.used += self.unsent - gone
        self._begin(mono_ns, self.unsent)
        self.unsent = 0

    def _begin(self, mono_ns: int, messages: int) -> None:
        if self.last:
            self.older.append(self.last_ns)
            self.older.append(self.last)
        self.last_ns, self.last = mono_ns, messages
        self._forget(mono_ns)

    def _forget(self, mono_ns: int) -> None:
        before_ns, older, first = mono_ns - SECOND_NS, self.older, self.first
        if first == len(older) or older[first] > before_ns:
            return
        while first < len(older) and older[first] <= before_ns:
            self.used -= older[first + 1]
            first += 2
        if first * 2 >= len(older):  # a list gives up its beginning only by moving the rest
            del older[:first]
            first = 0
        self.first = first


class Waiting:
    """Messages that a venue has not answered: by order number times four plus the kind of message, oldest first.

    In parts of PART at most, for what a large dictionary costs while it grows (`tables`). A single part may be empty.
    """

    __slots__ = ("floor_ns", "parts")

    def __init__(self) -> None:
        self.parts: list[dict[int, int]] = [{}]
        self.floor_ns = NEVER  # none of them is older than this

    def __len__(self) -> int:
        return sum([len(part) for part in self.parts])

    def add(self, key: int, mono_ns: int) -> None:
        """A message goes."""
        part = self.parts[-1]
        if not part and len(self.parts) == 1:
            self.floor_ns = mono_ns
        elif len(part) >= PART:
            part = {}
            self.parts.append(part)
        part[key] = mono_ns

    def get(self, key: int) -> int | None:
        """When a message went, or None where it is answered or never went."""
        for part in self.parts:
            sent_ns = part.get(key)
            if sent_ns is not None:
                return sent_ns
        return None

    def discard(self, key: int) -> None:
        """A message is answered, or never went."""
        for part in self.parts:
            if part.pop(key, None) is not None and not part and len(self.parts) > 1:
                self.parts = [part for part in self.parts if part]
                return

    def oldest_ns(self) -> int | None:
        """When the oldest went, or None."""
        for sent_ns in self.parts[0].values():
            self.floor_ns = sent_ns
            return sent_ns
        return None


class Recent:
    """The new orders of a place: when one of a side, a price and a size went last."""

    __slots__ = ("last_ns", "sent")

    def __init__(self, started_ns: int) -> None:
        self.last_ns = started_ns  # after a restart every order might be the second
        self.sent: dict[int, int] = {}  # by `alike`


def alike(sign: int, price_ticks: int, lots: int) -> int:
    """One number for a side, a price and a size: the same for equal orders and no others, prices being below 2**40."""
    return (lots << 41) + (price_ticks << 1) + (1 if sign > 0 else 0)


class Live:
    """Everything that a restart forgets."""

    def __init__(self, mono_ns: int) -> None:
        self.started_ns = mono_ns
        self.clock = ClockOffset()
        self.feeds: dict[str, Feed] = {}
        self.markets: dict[tuple[str, str], Market] = {}
        self.beats: dict[str, Beat] = {}
        self.windows: dict[tuple[str, str, str], Window] = {}
        self.leaving: list[Window] = []  # windows with messages that are decided and not gone yet
        self.recent: dict[tuple[str, str, str, str], Recent] = {}
        self.unanswered: dict[str, Waiting] = {}
        self._interned: dict[tuple[int, ...], Any] = {}

    def interned(self, value: T, key: tuple[int, ...]) -> T:
        """One object for equal limits: few stay in the processor's cache where one a place would not."""
        if len(self._interned) > 100_000:
            self._interned.clear()
        return self._interned.setdefault(key, value)

    def market(self, venue: str, symbol: str) -> Market:
        """What the feed says; nothing yet where it never spoke."""
        market = self.markets.get((venue, symbol))
        if market is None:
            market = self.markets[venue, symbol] = Market(self.feed(venue))
        return market

    def feed(self, venue: str) -> Feed:
        """The venue's feed; of unknown lag until it says when it sent."""
        feed = self.feeds.get(venue)
        if feed is None:
            feed = self.feeds[venue] = Feed()
        return feed

    def beat(self, strategy: str) -> Beat:
        """The strategy's line; down where it never came up."""
        beat = self.beats.get(strategy)
        if beat is None:
            beat = self.beats[strategy] = Beat()
        return beat

    def window(self, kind: str, scope: str, name: str, limit: int, mono_ns: int) -> Window:
        """A scope's window; a new, full one where its limit changed."""
        window = self.windows.get((kind, scope, name))
        if window is None or window.limit != limit:
            window = self.windows[kind, scope, name] = Window(
                limit, scope, name, mono_ns if window else self.started_ns, self.leaving
            )
        return window

    def waiting(self, venue: str) -> Waiting:
        """What a venue has not answered."""
        waiting = self.unanswered.get(venue)
        if waiting is None:
            waiting = self.unanswered[venue] = Waiting()
        return waiting

    def recent_at(self, place: tuple[str, str, str, str]) -> Recent:
        """The new orders of a place."""
        recent = self.recent.get(place)
        if recent is None:
            recent = self.recent[place] = Recent(self.started_ns)
        return recent
