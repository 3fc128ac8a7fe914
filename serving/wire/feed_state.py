"""Both ends of the feed without a socket: the publisher numbers, the follower keeps books or knows that it does not."""

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from serving.contracts.orders import encode
from serving.wire.feed import (
    LEVELS_MAX,
    VERSION,
    Ask,
    Beat,
    FeedError,
    Level,
    Opening,
    Snapshot,
    Status,
    SymbolStatus,
    Until,
    Update,
    decode_down,
)


class Book:
    """A symbol's visible book, status and volume, as far as they are known."""

    __slots__ = ("asks", "bids", "sequence", "status", "ts_ns", "volume_lots")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}  # lots by price in ticks
        self.asks: dict[int, int] = {}
        self.status: Status = "unknown"
        self.sequence = 0
        self.ts_ns = 0
        self.volume_lots = 0

    def best(self) -> tuple[int, int, int, int]:
        """Bid price, bid lots, ask price, ask lots; zeros where a side is empty."""
        bid, ask = max(self.bids, default=0), min(self.asks, default=0)
        return bid, self.bids.get(bid, 0), ask, self.asks.get(ask, 0)

    def levels(self, depth: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """The first `depth` bids and asks, best first."""
        bids = tuple((price, self.bids[price]) for price in sorted(self.bids, reverse=True)[:depth])
        return bids, tuple((price, self.asks[price]) for price in sorted(self.asks)[:depth])

    def apply(self, update: Update) -> None:
        """Take the changes of an update."""
        for side, changes in ((self.bids, update.bids), (self.asks, update.asks)):
            for price, lots in changes:
                if lots:
                    side[price] = lots
                else:
                    side.pop(price, None)
        self.volume_lots += update.trade_lots
        self.sequence, self.ts_ns = update.sequence, update.ts_ns


class Publisher:
    """Numbers the feed and stamps it. What it returns is the encoded message for everybody who follows the symbol."""

    def __init__(
        self,
        venue: str,
        session: str,
        symbols: Iterable[str],
        lockstep: bool,
        utc_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`utc_ns` reads the clock on the wall, ns: when a message is sent, whatever day the market plays."""
        self.opening = Opening(version=VERSION, venue=venue, session=session, lockstep=lockstep, symbols=tuple(symbols))
        self._utc_ns = utc_ns
        self.books = {symbol: Book() for symbol in self.opening.symbols}

    def row(
        self,
        symbol: str,
        ts_ns: int,
        bids: Mapping[int, int],
        asks: Mapping[int, int],
        trade: tuple[int, int, int] = (0, 0, 0),
    ) -> bytes | None:
        """The visible book is now `bids` and `asks` (lots by price), after `trade` (ticks, lots, side).

        None where nothing changed and nothing traded.
        """
        book = self.books[symbol]
        changes = [_changes(book.bids, bids), _changes(book.asks, asks)]
        if not trade[1] and not changes[0] and not changes[1]:
            return None
        update = Update(
            symbol=symbol, sequence=book.sequence + 1, ts_ns=ts_ns, sent_ns=self._utc_ns(), bids=changes[0],
            asks=changes[1], trade_ticks=trade[0], trade_lots=trade[1], trade_side=trade[2],
        )  # fmt: skip
        book.apply(update)
        return encode(update)

    def status(self, symbol: str, ts_ns: int, status: Status) -> bytes | None:
        """The symbol's status is now this; None where it was before."""
        book = self.books[symbol]
        if book.status == status:
            return None
        book.status, book.sequence, book.ts_ns = status, book.sequence + 1, ts_ns
        return encode(
            SymbolStatus(symbol=symbol, sequence=book.sequence, ts_ns=ts_ns, sent_ns=self._utc_ns(), status=status)
        )

    def snapshot(self, symbol: str) -> bytes:
        """The symbol as it is. Raises FeedError for one that is not here."""
        book = self.books.get(symbol)
        if book is None:
            raise FeedError(f"symbol {symbol!r} is not on this feed")
        bids, asks = book.levels(LEVELS_MAX)
        return encode(
            Snapshot(
                symbol=symbol,
                sequence=book.sequence,
                ts_ns=book.ts_ns,
                sent_ns=self._utc_ns(),
                status=book.status,
                volume_lots=book.volume_lots,
                bids=bids,
                asks=asks,
            )  # fmt: skip
        )

    def beat(self, ts_ns: int) -> bytes:
        """The heartbeat."""
        sequences = {name: book.sequence for name, book in self.books.items()}
        return encode(Beat(ts_ns=ts_ns, sent_ns=self._utc_ns(), sequences=sequences))

    def until(self, ts_ns: int, told: Mapping[str, int] | None = None) -> bytes:
        """Everything up to `ts_ns` has been sent, and so many reports about orders of each strategy."""
        return encode(Until(ts_ns=ts_ns, told=dict(told or {})))


class Gap(msgspec.Struct, frozen=True):
    """The follower lost a symbol: what it knew of it is void until the next snapshot."""

    symbol: str
    reason: str


Event = Opening | Snapshot | Update | SymbolStatus | Beat | Until | Gap


class Follower:
    """Keeps the books of the symbols asked for, or knows that it does not know them.

    `take` gives what happened, in order; `asks` what to send to the publisher. A message that cannot be decoded loses
    every symbol, since nobody knows which one it was about.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = tuple(symbols)
        self.books: dict[str, Book] = {}  # of the symbols that are known now
        self.session = ""
        self.venue = ""
        self._wanted: set[str] = set()

    def connected(self) -> None:
        """A new connection: ask for everything again."""
        self._wanted = set(self.symbols)

    def disconnected(self, reason: str) -> list[Event]:
        """The line is down: nothing is known."""
        gaps: list[Event] = [Gap(symbol, reason) for symbol in self.books]
        self.books.clear()
        return gaps

    def asks(self) -> bytes | None:
        """What to send to the publisher now, or None. A symbol is asked for once until its snapshot or a new gap."""
        if not self._wanted:
            return None
        wanted, self._wanted = tuple(sorted(self._wanted)), set()
        return encode(Ask(symbols=wanted))

    def take(self, raw: bytes) -> list[Event]:
        """Take one message."""
        try:
            message = decode_down(raw)
        except FeedError as error:
            return self._lose_all(str(error))
        if isinstance(message, Update | SymbolStatus):
            return self._next(message)
        if isinstance(message, Snapshot):
            return self._stand(message)
        if isinstance(message, Beat):
            return [*self._compare(message), message]
        if isinstance(message, Opening):
            events: list[Event] = []
            if message.session != self.session and self.session:
                events = self._lose_all(f"the feed began again, session {message.session}")
            self.session, self.venue = message.session, message.venue
            return [*events, message]
        return [message]

    def _next(self, message: Update | SymbolStatus) -> list[Event]:
        book = self.books.get(message.symbol)
        if book is None:
            return []  # unknown until the snapshot that is on its way, which has this in it
        if message.sequence != book.sequence + 1:
            return self._lose(message.symbol, f"message {message.sequence} came after {book.sequence}")
        if message.ts_ns < book.ts_ns:
            return self._lose(message.symbol, f"time went back from {book.ts_ns} to {message.ts_ns} ns")
        if isinstance(message, Update):
            book.apply(message)
        else:
            book.status, book.sequence, book.ts_ns = message.status, message.sequence, message.ts_ns
        return [message]

    def _stand(self, message: Snapshot) -> list[Event]:
        if message.symbol not in self.symbols:
            return []
        book = Book()
        book.bids, book.asks, book.status = dict(message.bids), dict(message.asks), message.status
        book.sequence, book.ts_ns, book.volume_lots = message.sequence, message.ts_ns, message.volume_lots
        self.books[message.symbol] = book
        return [message]

    def _compare(self, message: Beat) -> list[Event]:
        events: list[Event] = []
        for symbol, book in list(self.books.items()):
            last = message.sequences.get(symbol)
            if last != book.sequence:
                events += self._lose(symbol, f"the feed is at {last}, this end at {book.sequence}")
        return events

    def _lose(self, symbol: str, reason: str) -> list[Event]:
        self.books.pop(symbol, None)
        self._wanted.add(symbol)
        return [Gap(symbol, reason)]

    def _lose_all(self, reason: str) -> list[Event]:
        self._wanted = set(self.symbols)
        return self.disconnected(reason)


def _changes(old: Mapping[int, int], new: Mapping[int, int]) -> tuple[Level, ...]:
    gone = [(price, 0) for price in old if price not in new]
    return tuple(gone + [(price, lots) for price, lots in new.items() if old.get(price) != lots])
