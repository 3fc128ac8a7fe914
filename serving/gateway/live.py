"""What the gateway sees now and may forget: prices, sessions, heartbeats, clock offset, message windows.

A restart forgets all of it and starts closed: no price, no heartbeat, every window full. Times are monotonic ns.
"""

from typing import Any, TypeVar

from serving.contracts.orders import LOTS_MAX, PRICE_TICKS_MAX, ContractError

SECOND_NS = 1_000_000_000
DRIFT_WINDOW_NS = 300 * SECOND_NS
"""The reference that prices over time are held against is one to two of these old."""
NEVER = -(2**62)
T = TypeVar("T")


class Now:
    """One reading of the clocks. `utc_ns` never goes back; `raw_utc_ns` is what the clock said."""

    __slots__ = ("mono_ns", "raw_utc_ns", "utc_ns")

    def __init__(self, mono_ns: int, utc_ns: int, raw_utc_ns: int | None = None) -> None:
        self.mono_ns, self.utc_ns = mono_ns, utc_ns
        self.raw_utc_ns = utc_ns if raw_utc_ns is None else raw_utc_ns


class Market:
    """A symbol at a venue as the gateway's own feed shows it. Prices in ticks; 0 where there is none."""

    __slots__ = ("ask", "bid", "newer_mid2", "older_mid2", "seen_ns", "status", "turned_ns", "volume_lots")

    def __init__(self) -> None:
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
    """The times of the last `limit` messages; full, with messages of its beginning, when it is new.

    A message counts from its decision, and again from the moment it leaves: a group that leaves late and at once must
    not let more reach the venue within a second.
    """

    __slots__ = ("limit", "next", "times", "unsent")

    def __init__(self, limit: int, mono_ns: int) -> None:
        self.limit, self.next, self.unsent = limit, 0, 0
        self.times = [mono_ns] * limit

    def is_full(self, mono_ns: int) -> bool:
        """`limit` messages went within the last second."""
        return not self.limit or mono_ns - self.times[self.next] < SECOND_NS

    def count(self, mono_ns: int) -> None:
        """Another message is decided."""
        if self.limit:
            self.times[self.next] = mono_ns
            self.next = self.next + 1 if self.next + 1 < self.limit else 0
            self.unsent += 1

    def leave(self, mono_ns: int) -> None:
        """What was decided leaves now."""
        for back in range(1, min(self.unsent, self.limit) + 1):
            self.times[self.next - back] = mono_ns
        self.unsent = 0


class Live:
    """Everything that a restart forgets."""

    def __init__(self, mono_ns: int) -> None:
        self.started_ns = mono_ns
        self.clock = ClockOffset()
        self.markets: dict[tuple[str, str], Market] = {}
        self.beats: dict[str, Beat] = {}
        self.windows: dict[tuple[str, str, str], Window] = {}
        self.recent: dict[tuple[str, str, str, str], dict[tuple[int, int, int], int]] = {}
        self.unanswered: dict[str, dict[int, int]] = {}
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
            market = self.markets[venue, symbol] = Market()
        return market

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
            window = self.windows[kind, scope, name] = Window(limit, mono_ns if window else self.started_ns)
        return window
