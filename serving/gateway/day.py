"""Start and end of the trading day: positions, locates and lists in; the journal rolls to a new file behind it."""

from datetime import date

from serving.gateway.engine import Gateway
from serving.gateway.events import DayEnded, DayStarted, Holding, Instrument, Locate
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.money import worth

DAY_NS = 24 * 3600 * SECOND_NS


class DayError(ValueError):
    """A day that cannot start or end; the message names the entry."""


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
    """Begin a day with the operator's book; durable on return.

    Returns every way in which the holdings differ from what the gateway held at the end of the day before: for a person
    to look at. Raises DayError where a day is open, the date is not later, the hours overlap the day before's or are
    over, or an entry is repeated, unknown or out of range; MoneyOverflowError; JournalError.
    """
    clock, state = gateway.read_clock(now), gateway.state
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
    _check_entries(instruments, holdings, locates, restricted)
    before = {key: leg.position for key, leg in state.legs.items() if leg.position}
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
    after = {key: leg.position for key, leg in state.legs.items() if leg.position}
    return [
        f"{'/'.join(key)}: {before.get(key, 0)} lots at the end of the day before, {after.get(key, 0)} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, 0) != after.get(key, 0)
    ]


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
