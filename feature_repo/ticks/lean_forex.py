"""Reader of QuantConnect Lean forex ticks: zipped CSV of a dealer's two-sided quotes, without sizes and without trades.

A row `ms since the file's midnight, bid, ask` gives two QUOTE events. A dealer says no size: they have size 1, so that
the book has both sides, and NO_SIZE, so that nobody takes it for depth. The side that moves away from the other goes
first, so that a move never crosses the book between the two events of a row.

A file's day is UTC for OANDA (QuantConnect/Lean issue 757) and UTC-5 the whole year for FXCM (Lean pull request 396).
The samples agree: their 30 s returns correlate by 0.98 with FXCM at UTC-5, and by at most 0.02 an hour or two aside.

The trading day of forex is 17:00 to 17:00 New York, named after the day on which it ends, so Monday opens on Sunday
evening whatever the dealer's clock and daylight saving say. A partition is one trading day, read from the files that it
touches; what a weekend leaves (FXCM quotes from two hours before the open) belongs to Monday, outside of its window. A
trading day is planned where the file of its own date is there; a row of another trading day is counted there.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import event_batch
from feature_repo.ticks.csv_numbers import Column, csv_batches
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook
from feature_repo.ticks.two_sided import NO_BID, TwoSided

ZONE, CLOSE = ZoneInfo("America/New_York"), time(17)
CLOCKS = {"FXCM": timezone(timedelta(hours=-5)), "OANDA": UTC}
"""Whose midnight a file's milliseconds count from, by venue."""
LATENCY_NS = 100_000_000
"""Order latency: a retail dealer's interface over the internet, not a co-located line; an assumption."""
_DECIMALS = 8
_MAX_MS = 25 * 3_600_000
_PRICE = {"low": 0, "high": 10**7 * 10**_DECIMALS, "decimals": _DECIMALS}
_COLUMNS = (Column("ms", high=_MAX_MS), Column("bid", **_PRICE), Column("ask", **_PRICE))
_HINT = "the lean folder that holds forex/oanda/tick or forex/fxcm/tick"


class LeanForexReader:
    """Lean forex: dealers' quotes by venue OANDA and FXCM."""

    name = "lean-forex"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each venue, symbol and trading day; `EURUSD` means every venue's, `OANDA:EURUSD` one's."""
        folder = data_folder(request, _HINT) / "forex"
        files = _files_by_instrument(folder)
        wanted = [item for name in request.symbols for item in _named(name, files)]
        chosen = choose_symbols(replace(request, symbols=tuple(wanted)), files, folder)
        sessions = {item: _sessions(files[item]) for item in chosen}
        in_range = choose_days(request, {day: day for item in chosen for day in sessions[item]}, ", ".join(chosen))
        if request.symbols:  # a symbol that is asked for by name must have a day of its own
            for item in chosen:
                choose_days(request, sessions[item], item)
        return [
            PartitionPlan(Partition(*_venue_and_symbol(item), day), sessions[item][day])
            for item in chosen
            for day in in_range
            if day in sessions[item]
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """Currency pairs: 0.00001 of the quoted currency a tick (0.001 JPY), one unit a lot, 24 hours a day."""
        hours = (SessionWindow("17:00:00", "17:00:00", days_before=1, skips_weekends=False),)
        planned = sorted({(plan.partition.venue, plan.partition.symbol) for plan in self.plan(request)})
        return [
            Instrument(
                *(venue, symbol, 10.0 ** -_tick_decimals(symbol), 1.0, symbol[-3:], ZONE.key, hours),
                depth=1,
                snapshot_data=False,
                latency_ns=LATENCY_NS,
            )
            for venue, symbol in planned
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Quotes of one trading day, from the files in turn."""
        day = date.fromisoformat(plan.partition.date)
        opens, closes = _close_ns(_weekday_before(day)), _close_ns(day)
        units = 10 ** (_DECIMALS - _tick_decimals(plan.partition.symbol))
        last_bid, sequence = NO_BID, 0
        for path in plan.inputs:
            midnight = datetime.combine(date.fromisoformat(_date_of(path)), time(), CLOCKS[plan.partition.venue])
            start_ns = int(midnight.timestamp()) * NS
            for batch in csv_batches(path, _COLUMNS):
                ts_ns = start_ns + batch.columns["ms"] * 1_000_000
                count.add(path.name, batch.rows)
                count.leave(path.name, int(((ts_ns < opens) | (ts_ns >= closes)).sum()))
                rows = np.flatnonzero((ts_ns >= opens) & (ts_ns < closes))
                if not len(rows):
                    continue
                bid, bid_flags = _nearest_ticks(batch.columns["bid"][rows], units)
                ask, ask_flags = _nearest_ticks(batch.columns["ask"][rows], units)
                quotes = TwoSided(ts_ns[rows], bid, ask, 1, 1, bid_flags, ask_flags)
                yield event_batch(quotes.events(last_bid), sequence)
                last_bid = int(bid[-1])
                sequence += 2 * len(rows)


def _nearest_ticks(price: np.ndarray, units_per_tick: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest tick of a price x 10^_DECIMALS (half a tick goes up), and the flags that say whether it lies between."""
    flags = int(Flag.NO_SIZE) | np.where(price % units_per_tick != 0, int(Flag.SUB_TICK), 0)
    return (price + units_per_tick // 2) // units_per_tick, flags


def _files_by_instrument(folder: Path) -> dict[str, dict[str, Path]]:
    """Files by ISO date of each `VENUE:SYMBOL`; raises InputError for a venue whose clock is not known."""
    files: dict[str, dict[str, Path]] = {}
    claimed: dict[str, Path] = {}
    for item in sorted(folder.glob("*/tick/*")):
        found = sorted(item.glob("*_quote.zip"))
        if not found:
            continue
        venue, symbol = item.parts[-3].upper(), item.name.upper()
        if venue not in CLOCKS:
            raise InputError(
                f"{item}: the time zone of venue {venue} is not known; remove the folder, or use the mapped reader; "
                f"known: {', '.join(CLOCKS)}"
            )
        if claimed.setdefault(f"{venue}:{symbol}", item) != item:
            raise InputError(f"{item}: holds the same symbol as {claimed[f'{venue}:{symbol}']}; remove one of them")
        files[f"{venue}:{symbol}"] = {_date_of(path): path for path in found}
    return files


def _named(name: str, known: dict[str, dict[str, Path]]) -> list[str]:
    """Instruments that `name` means; itself where there is none, so that the error names it."""
    return [item for item in known if name.upper() in (item, _venue_and_symbol(item)[1])] or [name]


def _venue_and_symbol(instrument_id: str) -> tuple[str, str]:
    venue, _, symbol = instrument_id.partition(":")
    return venue, symbol


def _sessions(files: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Files that each trading day touches, by its ISO date: from the last weekday's to its own."""
    found = {}
    for day in files:
        if date.fromisoformat(day).weekday() < 5:
            first = _weekday_before(date.fromisoformat(day)).isoformat()
            found[day] = tuple(files[other] for other in sorted(files) if first <= other <= day)
    return found


def _weekday_before(day: date) -> date:
    return day - timedelta(days=3 if day.weekday() == 0 else 1)


def _close_ns(day: date) -> int:
    return int(datetime.combine(day, CLOSE, ZONE).timestamp()) * NS


def _date_of(path: Path) -> str:
    return iso_date(path.name.split("_")[0], path)


def _tick_decimals(symbol: str) -> int:
    """Decimals of the smallest step that dealers quote: a tenth of a pip."""
    return 3 if symbol.endswith("JPY") else 5
