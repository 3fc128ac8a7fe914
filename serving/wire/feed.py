"""The market-data feed: its messages, the publisher's end and the follower's, without a socket.

Each symbol has its own sequence. A snapshot carries the number that its state follows from; every update, status and
trade after it counts on by one, also across subscriptions, so that a follower sees what it missed: by the next message
or, where none comes, by the heartbeat, which says the last number of every symbol. From a gap on the symbol is unknown
until a snapshot that the follower asks for. A new `session` (the venue started again) makes everything unknown.

One `Update` is one change of the visible book with the trade that made it, if one did: the state after it is a row of
`feature_repo.pipeline.books`, so that features from the feed are those of the day's rows.

In lockstep the publisher says `Until`: all that happened up to a moment has been sent. Each follower that paces the
venue answers `Watermark` when it is done with that moment, its orders included; then the venue goes on.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import msgspec

from serving.contracts.orders import (
    INT64_MAX,
    LOTS_MAX,
    PRICE_TICKS_MAX,
    TEXT_MAX,
    ContractError,
    decode_exactly,
    encode,
)

_T = TypeVar("_T")
LEVELS_MAX = 100
SYMBOLS_MAX = 10_000
MESSAGE_MAX = 1 << 20
"""Bytes of one message."""
Status = Literal["open", "halted", "auction", "closed", "unknown"]
STATUSES: tuple[Status, ...] = ("open", "halted", "auction", "closed", "unknown")
Level = tuple[int, int]
"""Price in ticks, lots; 0 lots: the level is gone."""


class FeedError(ValueError):
    """Bytes that are no message of the feed, or a message that cannot be true; it names the value and the limit."""


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", gc=False):
    pass


class Opening(_Message, frozen=True, kw_only=True, gc=False, tag="opening"):
    """The first message of a connection."""

    venue: str
    session: str  # another one: the venue started again
    lockstep: bool
    symbols: tuple[str, ...]


class Snapshot(_Message, frozen=True, kw_only=True, gc=False, tag="snapshot"):
    """A symbol as it is after message `sequence`: visible levels best first, status, volume of the day so far."""

    symbol: str
    sequence: int
    ts_ns: int
    status: Status
    volume_lots: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class Update(_Message, frozen=True, kw_only=True, gc=False, tag="update"):
    """Levels that changed, and the trade of the same event (`trade_lots` 0: none; `trade_side` 1 a buyer took)."""

    symbol: str
    sequence: int
    ts_ns: int
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    trade_ticks: int = 0
    trade_lots: int = 0
    trade_side: int = 0


class SymbolStatus(_Message, frozen=True, kw_only=True, gc=False, tag="status"):
    """Trading in a symbol opened, halted or closed; unknown: the venue itself does not know its book."""

    symbol: str
    sequence: int
    ts_ns: int
    status: Status


class Beat(_Message, frozen=True, kw_only=True, gc=False, tag="beat"):
    """The feed lives; the last sequence of each symbol."""

    ts_ns: int
    sequences: dict[str, int]


class Until(_Message, frozen=True, kw_only=True, gc=False, tag="until"):
    """All up to `ts_ns`, that moment included, has been sent; in lockstep the venue now waits for the watermark."""

    ts_ns: int


class Ask(_Message, frozen=True, kw_only=True, gc=False, tag="ask"):
    """To the publisher: send snapshots of these symbols, and what follows on them from here on."""

    symbols: tuple[str, ...]


class Watermark(_Message, frozen=True, kw_only=True, gc=False, tag="watermark"):
    """To the publisher: done with everything up to `ts_ns`.

    `sent` counts the orders, replaces and cancels of each strategy so far that were allowed: they go another way and
    may be slower than this message, and the venue waits until it has received as many.
    """

    ts_ns: int
    sent: dict[str, int] = {}


Down = Opening | Snapshot | Update | SymbolStatus | Beat | Until
Up = Ask | Watermark
_DOWN: "msgspec.json.Decoder[Down]" = msgspec.json.Decoder(Down)
_UP: "msgspec.json.Decoder[Up]" = msgspec.json.Decoder(Up)


def encode_feed(message: Down | Up) -> bytes:
    """The one encoding of a message."""
    return encode(message)


def decode_down(raw: bytes) -> Down:
    """A publisher's message. Raises FeedError."""
    message = _decode(_DOWN, raw)
    _check(message)
    return message


def decode_up(raw: bytes) -> Up:
    """A follower's message. Raises FeedError."""
    message = _decode(_UP, raw)
    if isinstance(message, Ask):
        _names(message.symbols)
    else:
        _whole("ts_ns", message.ts_ns, 0, INT64_MAX)
        _names(tuple(message.sent))
        for number in message.sent.values():
            _whole("sent", number, 0, INT64_MAX)
    return message


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
    """Numbers the feed. What it returns is the encoded message for everybody who follows the symbol."""

    def __init__(self, venue: str, session: str, symbols: Iterable[str], lockstep: bool) -> None:
        self.opening = Opening(venue=venue, session=session, lockstep=lockstep, symbols=tuple(symbols))
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
            symbol=symbol, sequence=book.sequence + 1, ts_ns=ts_ns, bids=changes[0], asks=changes[1],
            trade_ticks=trade[0], trade_lots=trade[1], trade_side=trade[2],
        )  # fmt: skip
        book.apply(update)
        return encode(update)

    def status(self, symbol: str, ts_ns: int, status: Status) -> bytes | None:
        """The symbol's status is now this; None where it was before."""
        book = self.books[symbol]
        if book.status == status:
            return None
        book.status, book.sequence, book.ts_ns = status, book.sequence + 1, ts_ns
        return encode(SymbolStatus(symbol=symbol, sequence=book.sequence, ts_ns=ts_ns, status=status))

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
                status=book.status,
                volume_lots=book.volume_lots,
                bids=bids,
                asks=asks,
            )  # fmt: skip
        )

    def beat(self, ts_ns: int) -> bytes:
        """The heartbeat."""
        return encode(Beat(ts_ns=ts_ns, sequences={name: book.sequence for name, book in self.books.items()}))

    def until(self, ts_ns: int) -> bytes:
        """Everything up to `ts_ns` has been sent."""
        return encode(Until(ts_ns=ts_ns))


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


def _decode(decoder: "msgspec.json.Decoder[_T]", raw: bytes) -> _T:
    if len(raw) > MESSAGE_MAX:
        raise FeedError(f"a message of {len(raw)} bytes exceeds {MESSAGE_MAX}")
    try:
        return decode_exactly(decoder, raw)
    except ContractError as error:
        raise FeedError(str(error)) from error


def _check(message: Down) -> None:
    """Raise FeedError where a value lies outside what the feed may say."""
    if isinstance(message, Opening):
        _names(message.symbols)
        return
    _whole("ts_ns", message.ts_ns, 0, INT64_MAX)
    if isinstance(message, Beat):
        _names(tuple(message.sequences))
        for last in message.sequences.values():
            _whole("sequence", last, 0, INT64_MAX)
    elif not isinstance(message, Until):
        _names((message.symbol,))
        _whole("sequence", message.sequence, 0, INT64_MAX)
        if not isinstance(message, SymbolStatus):
            _levels(message.bids, least=int(isinstance(message, Snapshot)))
            _levels(message.asks, least=int(isinstance(message, Snapshot)))
        if isinstance(message, Snapshot):
            _whole("volume_lots", message.volume_lots, 0, INT64_MAX)
        elif isinstance(message, Update):
            _whole("trade_lots", message.trade_lots, 0, LOTS_MAX)
            _whole("trade_ticks", message.trade_ticks, int(message.trade_lots > 0), PRICE_TICKS_MAX)
            _whole("trade_side", message.trade_side, -1, 1)


def _levels(levels: tuple[Level, ...], least: int) -> None:
    if len(levels) > 2 * LEVELS_MAX or len({price for price, _ in levels}) != len(levels):
        raise FeedError(f"{len(levels)} levels, not up to {2 * LEVELS_MAX} different ones")
    for price, lots in levels:
        _whole("price", price, 1, PRICE_TICKS_MAX)
        _whole("lots", lots, least, LOTS_MAX)


def _names(names: tuple[str, ...]) -> None:
    if len(names) > SYMBOLS_MAX:
        raise FeedError(f"{len(names)} symbols exceed {SYMBOLS_MAX}")
    for name in names:
        if not 0 < len(name) <= TEXT_MAX:
            raise FeedError(f"symbol {name!r} is not 1 to {TEXT_MAX} characters long")


def _whole(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise FeedError(f"{field} {value} is not from {low} to {high}")
