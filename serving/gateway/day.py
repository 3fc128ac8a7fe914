"""The trading day: two people let it start with a book, one may tighten it, its end rolls the journal to a new file.

Limits are measured against the book (volumes, tick values, locates, holdings), so that it takes whom limits take.
"""

import hashlib
from datetime import UTC, date, datetime
from typing import NamedTuple

import msgspec

from serving.gateway.approvals import approve, propose
from serving.gateway.engine import Gateway
from serving.gateway.events import DayEnded, DayStarted, DayTightened, Holding, Instrument, Locate
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.money import worth
from serving.gateway.people import person
from serving.gateway.state import State

DAY_NS = 24 * 3600 * SECOND_NS


class DayError(ValueError):
    """A day that cannot start or end; the message names the entry."""


class Book(NamedTuple):
    """A day as the operator states it: the arguments of `start_day`."""

    day: str
    opens_ns: int
    closes_ns: int
    instruments: tuple[Instrument, ...]
    holdings: tuple[Holding, ...] = ()
    locates: tuple[Locate, ...] = ()
    restricted: tuple[str, ...] = ()


class ProposedDay(NamedTuple):
    """A book that waits for two people."""

    change: str  # what they must approve
    differs: list[str]  # every way in which its holdings are not what the gateway held


def propose_day(gateway: Gateway, book: Book, by: str, now: Now) -> ProposedDay:
    """Let a book wait for two people. Durable on return. Raises PersonError; what `start_day` raises."""
    _check(gateway, book, now)
    document = msgspec.json.encode(book).decode()
    change = _change(gateway.state, document)
    propose(gateway, "day", change, document, by, now)
    gateway.commit(now)
    return ProposedDay(change, _differs(_positions(gateway.state), _held(book)))


def approve_day(gateway: Gateway, change: str, by: str, now: Now) -> list[str] | None:
    """Count a person; with the second the day starts, as `start_day` says; None before. Durable on return.

    Raises PersonError as `approvals.approve` does, also where a day was since or what is held is another by now; what
    `start_day` raises, and then nobody is counted.
    """

    def still(document: str) -> str:
        found = _change(gateway.state, document)
        if found == change:
            _check(gateway, _book(document), now)
        return found

    agreed = approve(gateway, "day", change, by, now, still)
    if agreed is None:
        gateway.commit(now)
        return None
    book = _book(agreed[0])
    return start_day(
        gateway, book.day, book.opens_ns, book.closes_ns, book.instruments, now, book.holdings, book.locates,
        book.restricted,
    )  # fmt: skip


def said_of_book(state: State, document: str) -> list[str]:
    """A proposed book in words: hours, every instrument, what differs from what is held, locates, lists."""
    book = _book(document)
    opens, closes = (datetime.fromtimestamp(ns / 1e9, UTC).isoformat() for ns in (book.opens_ns, book.closes_ns))
    known = {symbol: item.instrument for symbol, item in state.symbols.copy().items()}
    found = [f"{book.day}, {opens} to {closes}, {len(book.instruments)} instruments"]
    found += [_said_of(instrument, known.get(instrument.symbol)) for instrument in book.instruments]
    found += [f"holding {line}" for line in _differs(_positions(state), _held(book))]
    found += [f"locate of {item.lots} lots of {item.symbol} for {item.account}" for item in book.locates]
    restricted = {symbol for symbol, item in state.symbols.copy().items() if item.restricted}
    found += [f"{symbol} is restricted" for symbol in book.restricted]
    return found + [f"{symbol} is no longer restricted" for symbol in sorted(restricted - set(book.restricted))]


def tighten_day(gateway: Gateway, tighter: DayTightened, now: Now) -> None:
    """Let less through for the rest of the day, by one person's word. Durable on return.

    `utc_ns` of `tighter` is not looked at. Raises DayError where no day is open, a symbol is unknown, or an entry is
    not tighter than what holds; PersonError, JournalError.
    """
    clock, state = gateway.read_clock(now), gateway.state
    if not state.day_open:
        raise DayError("no day is open")
    lots_of = [(item.symbol, item.lots) for item in tighter.locates]
    for symbol in (*tighter.restricted, *tighter.needs_locate, *dict(lots_of), *dict(tighter.adv_lots)):
        if symbol not in state.symbols:
            raise DayError(f"symbol {symbol} is not among today's instruments")
    for symbol, lots in tighter.adv_lots:
        before = state.symbols[symbol].instrument.adv_lots
        if lots > before:
            raise DayError(f"adv_lots {lots} of {symbol} is more than {before}: a looser book waits for the next day")
    for item in tighter.locates:
        exposure = state.exposures.get(("account", item.account, item.symbol))
        before = 0 if exposure is None else exposure.located
        if item.lots > before:
            raise DayError(
                f"locate of {item.lots} lots of {item.symbol} for {item.account} is more than {before}: "
                "a looser book waits for the next day"
            )
    gateway.record(msgspec.structs.replace(tighter, utc_ns=clock.utc_ns, by=person(tighter.by)))
    gateway.commit(now)


def start_day(
    gateway: Gateway,
    day: str,
    opens_ns: int,
    closes_ns: int,
    instruments: tuple[Instrument, ...],
    now: Now,
    holdings: tuple[Holding, ...] = (),
    locates: tuple[Locate, ...] = (),
    restricted: tuple[str, ...] = (),
) -> list[str]:
    """Begin a day with a book that was agreed on (`approve_day`); durable on return.

    Returns every way in which the holdings differ from what the gateway held at the end of the day before: for a person
    to look at. Raises DayError where a day is open, the date is not later, the hours overlap the day before's or are
    over, or an entry is repeated, unknown or out of range; MoneyOverflowError; JournalError.
    """
    clock, state = gateway.read_clock(now), gateway.state
    _check(gateway, Book(day, opens_ns, closes_ns, instruments, holdings, locates, restricted), now)
    before = _positions(state)
    event = DayStarted(
        utc_ns=clock.utc_ns,
        date=day,
        opens_ns=opens_ns,
        closes_ns=closes_ns,
        instruments=instruments,
        holdings=holdings,
        locates=locates,
        restricted=restricted,
    )
    gateway.record(event)
    gateway.live.markets.clear()  # yesterday's prices and volumes are no reference for today
    gateway.live.recent.clear()
    gateway.commit(now)
    return _differs(before, _positions(state))


def end_day(gateway: Gateway, now: Now) -> str:
    """End the day and roll the journal; returns the new file's name. Durable on return.

    Raises DayError where no day or an order is still open, JournalError.
    """
    clock, state = gateway.read_clock(now), gateway.state
    if not state.day_open:
        raise DayError("no day is open")
    if state.open_orders:
        raise DayError(f"{len(state.open_orders)} orders are still open, the first one {min(state.open_orders)}")
    gateway.record(DayEnded(utc_ns=clock.utc_ns, date=state.date))
    gateway.commit(now)
    gateway.journal.roll(state, clock.utc_ns)
    return gateway.journal.name


def _check(gateway: Gateway, book: Book, now: Now) -> None:
    """Raise as `start_day` does where the book cannot start a day now."""
    clock, state = gateway.read_clock(now), gateway.state
    day, opens_ns, closes_ns = book.day, book.opens_ns, book.closes_ns
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise DayError(f"date {day!r} is not YYYY-MM-DD") from error
    if state.day_open:
        raise DayError(f"day {state.date} is still open: end it first")
    if day <= state.date:
        raise DayError(f"day {day} is not later than {state.date}: no day starts twice")
    if not state.closes_ns <= opens_ns < closes_ns <= opens_ns + DAY_NS or closes_ns <= clock.utc_ns:
        raise DayError(
            f"hours {opens_ns} to {closes_ns} must follow {state.closes_ns}, last a day at most and not be over"
        )
    _check_entries(book.instruments, book.holdings, book.locates, book.restricted)


Positions = dict[tuple[str, str, str], int]


def _positions(state: State) -> Positions:
    return {key: leg.position for key, leg in state.legs.copy().items() if leg.position}  # copied: views read it too


def _held(book: Book) -> Positions:
    return {(item.account, item.strategy, item.symbol): item.lots for item in book.holdings if item.lots}


def _differs(before: Positions, after: Positions) -> list[str]:
    return [
        f"{'/'.join(key)}: {before.get(key, 0)} lots at the end of the day before, {after.get(key, 0)} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, 0) != after.get(key, 0)
    ]


def _change(state: State, document: str) -> str:
    """sha256 (hex) that names one exact change: this book after that day, and in place of those positions."""
    before = msgspec.json.encode([state.date, sorted(_positions(state).items())]).decode()
    return hashlib.sha256(f"day\n{before}\n{document}".encode()).hexdigest()


def _book(document: str) -> Book:
    return msgspec.json.decode(document, type=Book)


def _said_of(instrument: Instrument, before: Instrument | None) -> str:
    """What of an instrument limits are measured against, and what it was the day before."""
    names = ("tick_value", "mark_ticks", "adv_lots", "min_lots", "lot_multiple", "price_multiple", "needs_locate")
    parts = []
    for name in names:
        value, old = getattr(instrument, name), getattr(before, name, None)
        parts.append(f"{name} {value}" if old in (None, value) else f"{name} {value} (was {old})")
    return f"{instrument.symbol}{'' if before else ' is new'}: {', '.join(parts)}"


def _check_entries(
    instruments: tuple[Instrument, ...],
    holdings: tuple[Holding, ...],
    locates: tuple[Locate, ...],
    restricted: tuple[str, ...],
) -> None:
    symbols = {instrument.symbol: instrument for instrument in instruments}
    if len(symbols) != len(instruments):
        raise DayError("an instrument stands twice")
    seen = set()
    for holding in holdings:
        key = (holding.account, holding.strategy, holding.symbol)
        if key in seen:
            raise DayError(f"holding {'/'.join(key)} stands twice")
        seen.add(key)
        if holding.symbol not in symbols:
            raise DayError(f"holding {'/'.join(key)}: {holding.symbol} is not among the instruments")
        instrument = symbols[holding.symbol]
        worth(instrument.mark_ticks, abs(holding.lots), instrument.tick_value)
    located = [(locate.account, locate.symbol) for locate in locates]
    if len(set(located)) != len(located):
        raise DayError("a locate stands twice")
    unknown = [symbol for symbol in (*(symbol for _, symbol in located), *restricted) if symbol not in symbols]
    if unknown:
        raise DayError(f"symbol {unknown[0]} is not among the instruments")
