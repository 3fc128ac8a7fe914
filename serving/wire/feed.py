"""The market-data feed: its messages and their encoding.

Each symbol has its own sequence. A snapshot carries the number that its state follows from; every update, status and
trade after it counts on by one, also across subscriptions, so that a follower sees what it missed: by the next message
or, where none comes, by the heartbeat, which says the last number of every symbol. From a gap on the symbol is unknown
until a snapshot that the follower asks for. A new `session` (the venue started again) makes everything unknown.

One `Update` is one change of the visible book with the trade that made it, if one did: the state after it is a row of
`feature_repo.pipeline.books`, so that features from the feed are those of the day's rows.

A snapshot, an update, a status and a heartbeat carry `sent_ns`, the publisher's UTC clock when it sent them: the
market's own time (`ts_ns`) may be another day's, and messages that come late one after the other, none missing, look
fresh by their arrival. 0 says that the publisher knows no such time; who needs one then has none.

In lockstep the publisher says `Until`: all that happened up to a moment has been sent. Each follower that paces the
venue answers `Watermark` when it is done with that moment, its orders included; then the venue goes on.
"""

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
VERSION = 2
"""Of these messages; since 2 they carry `sent_ns`. Another version's opening is refused."""
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

    version: int
    venue: str
    session: str  # another one: the venue started again
    lockstep: bool
    symbols: tuple[str, ...]


class Snapshot(_Message, frozen=True, kw_only=True, gc=False, tag="snapshot"):
    """A symbol as it is after message `sequence`: visible levels best first, status, volume of the day so far."""

    symbol: str
    sequence: int
    ts_ns: int
    sent_ns: int
    status: Status
    volume_lots: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class Update(_Message, frozen=True, kw_only=True, gc=False, tag="update"):
    """Levels that changed, and the trade of the same event (`trade_lots` 0: none; `trade_side` 1 a buyer took)."""

    symbol: str
    sequence: int
    ts_ns: int
    sent_ns: int
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
    sent_ns: int
    status: Status


class Beat(_Message, frozen=True, kw_only=True, gc=False, tag="beat"):
    """The feed lives; the last sequence of each symbol."""

    ts_ns: int
    sent_ns: int
    sequences: dict[str, int]


class Until(_Message, frozen=True, kw_only=True, gc=False, tag="until"):
    """All up to `ts_ns`, that moment included, has been sent; in lockstep the venue now waits for the watermark.

    `told` counts the reports about orders of each strategy so far: they go another way and may be slower than this
    message, and who paces the venue waits until it has heard as many.
    """

    ts_ns: int
    told: dict[str, int] = {}


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
        if message.version != VERSION:
            raise FeedError(f"version {message.version} of the feed, this end reads {VERSION}")
        _names(message.symbols)
        return
    _whole("ts_ns", message.ts_ns, 0, INT64_MAX)
    if not isinstance(message, Until):
        _whole("sent_ns", message.sent_ns, 0, INT64_MAX)
    if isinstance(message, Beat):
        _names(tuple(message.sequences))
        for last in message.sequences.values():
            _whole("sequence", last, 0, INT64_MAX)
    elif isinstance(message, Until):
        _names(tuple(message.told))
        for number in message.told.values():
            _whole("told", number, 0, INT64_MAX)
    else:
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
