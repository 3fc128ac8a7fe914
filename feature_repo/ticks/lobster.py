"""Reader of LOBSTER: NASDAQ messages and the vendor's own book of N levels after each (CSV pairs, plain or compressed).

Message: `seconds after midnight New York (to the nanosecond), type, order id, size, price x 10,000, direction of the
resting order`; types 1 add, 2 partial cancel, 3 delete, 4 execution, 5 hidden execution, 6 cross, 7 halt (its price, -1
halt, 0 quoting resumes, 1 trading resumes, stands in `price_ticks` of the HALT). Book row: `ask price, ask size, bid
price, bid size` of each level, the state after the message; a level that is absent has price +-9999999999 and size 0.

The first row with its message taken back opens the book (CLEAR, DEPTH); then each message is one event, and where the
vendor's row is not what the row before and the message give, DEPTH events flagged RESYNC take it over
(`feature_repo.ticks.lobster_levels`), so that the book equals the vendor's after every message. The last event of a
message is flagged LAST.

A name without a date (`AAPL_L10_excerpt_message.csv`) is read only with the option `date`: nothing in such a file tells
the day. Where other files do have dates, it is left out and named in the manifest's options (`left_out`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date, datetime, time
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks import lobster_levels as kernel
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.csv_numbers import Column, CsvBatch, csv_batches
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook

VENUE, ZONE = "NASDAQ", "America/New_York"
PRICE_UNITS_PER_TICK = 100  # prices x 10,000, tick 0.01 USD
NO_LEVEL = 9_999_999_999
_MESSAGE = (
    Column("seconds", 0, 25 * 3600 * NS, decimals=9),
    Column("type", 1, 7),
    Column("order id", 0, 2**62),
    Column("size", -(2**53), 2**53),
    Column("price", -NO_LEVEL, NO_LEVEL),
    Column("direction", -1, 1),
)
_SYMBOL, _WHAT = r"(?P<symbol>[A-Za-z0-9.\-]+)", "(?P<what>message|orderbook)"
_ENDING = r"(?P<ending>\.csv(\.\w+)?)"
_DATED = re.compile(rf"{_SYMBOL}_(?P<date>\d{{4}}-\d{{2}}-\d{{2}})_\d+_\d+_{_WHAT}_(?P<levels>\d+){_ENDING}")
_UNDATED = re.compile(rf"{_SYMBOL}_L(?P<levels>\d+)_[A-Za-z0-9]+_{_WHAT}{_ENDING}")
_MAX_LEVELS = 1_000
_HINT = "the folder that holds SYMBOL_YYYY-MM-DD_START_END_message_LEVELS.csv and its orderbook file"


@dataclass(frozen=True)
class LevelAgreement:
    """How a file's rows stand to its messages; `rows` = 1 (the opening) + determined + exhausted + inconsistent."""

    rows: int
    determined: int  # fixed by the row before and the message
    equal: int  # of the determined, those that are what the message makes of the row before
    exhausted: int  # a full side lost a level: the next one comes from beyond the file
    inconsistent: int  # the row before cannot take the message
    resynchronised: int  # rows of any kind that are not what the message makes of the row before


class LobsterReader:
    """LOBSTER message and book files."""

    name = "lobster"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each pair of files; those without a date take the option `date`."""
        chosen, left_out = _choose(request)
        options = {"left_out": f"{', '.join(left_out)}: no date in the name and no option date"} if left_out else {}
        return [
            PartitionPlan(Partition(VENUE, pair.symbol, day), (pair.messages, pair.book), options)
            for day, pair in chosen
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """NASDAQ stocks: 0.01 USD a tick, one share a lot; as deep as the symbol's shallowest file."""
        hours = (SessionWindow("09:30:00", "16:00:00"),)
        depth: dict[str, int] = {}
        for _, pair in _choose(request)[0]:
            depth[pair.symbol] = min(pair.levels, depth.get(pair.symbol, pair.levels))
        return [
            Instrument(VENUE, symbol, 0.01, 1.0, "USD", ZONE, hours, levels, False, 10_000_000)
            for symbol, levels in sorted(depth.items())
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Messages of one day, with what resynchronises the book."""
        messages, book = plan.inputs
        midnight = datetime.combine(date.fromisoformat(plan.partition.date), time(), ZoneInfo(ZONE))
        start_ns = int(midnight.timestamp()) * NS
        replay, sequence, taken_over = _Replay(_levels_of(book)), 0, 0
        for batch in _paired(messages, book, replay.levels):
            for events in replay.events(batch, start_ns):
                yield event_batch(events, sequence)
                sequence += len(events)
            count.add(messages.name, len(batch.ts_ns))
            count.add(book.name, len(batch.ts_ns))
            resynchronised = int(replay.counts[kernel.RESYNCHRONISED])
            agreeing = len(batch.ts_ns) - (resynchronised - taken_over)
            count.skip(book.name, "the book is what the messages make of it", agreeing)
            taken_over = resynchronised


def level_agreement(message_file: Path, book_file: Path) -> LevelAgreement:
    """Count the rows of a pair of files that the row before and the message determine, and those that agree.

    Raises InputError as `LobsterReader.read` does.
    """
    replay = _Replay(_levels_of(book_file))
    for batch in _paired(message_file, book_file, replay.levels):
        for _ in replay.events(batch, 0):
            pass
    return LevelAgreement(*replay.counts.tolist())


class _Batch(NamedTuple):
    """As many rows of both files: times in ns since midnight, then what the kernel takes."""

    ts_ns: NDArray[np.int64]
    messages: NDArray[np.int64]  # (n, 5)
    flags: NDArray[np.int64]
    book: NDArray[np.int64]  # (n, 2, N, 2)


class _Replay:
    """Turns batches into events and counts how rows and messages agree; holds one book row."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.counts = np.zeros(len(fields(LevelAgreement)), np.int64)
        self._opened = False
        self._before = np.zeros((2, levels, 2), np.int64)
        self._events = np.zeros((kernel.event_space(levels), 7), np.int64)

    def events(self, batch: _Batch, start_ns: int) -> Iterator[EventColumns]:
        """Events of one batch, the opening book before those of the first one; `start_ns` is local midnight, UTC."""
        row = 0
        ts_ns = start_ns + batch.ts_ns
        if not self._opened:
            self._opened = True
            self._before = kernel.taken_back(batch.messages[0], batch.book[0])
            yield _opening(int(ts_ns[0]), self._before)
            first = np.zeros_like(self.counts)  # nothing determines the first row: it is none of the kinds
            row, made = self._compare(_Batch(*(column[:1] for column in batch)), 0, first)
            self.counts[kernel.ROWS] += 1
            self.counts[kernel.RESYNCHRONISED] += first[kernel.RESYNCHRONISED]
            yield self._made(made, ts_ns)
        while row < len(ts_ns):
            row, made = self._compare(batch, row, self.counts)
            yield self._made(made, ts_ns)

    def _compare(self, batch: _Batch, row: int, counts: NDArray[np.int64]) -> tuple[int, int]:
        return kernel.compare_levels(batch.messages, batch.flags, batch.book, row, self._before, self._events, counts)

    def _made(self, made: int, ts_ns: NDArray[np.int64]) -> EventColumns:
        kind, side, ticks, lots, order, flags, row = self._events[:made].T
        return EventColumns.build(ts_ns[row], kind, side, ticks, lots, flags, order)


def _opening(ts_ns: int, book: NDArray[np.int64]) -> EventColumns:
    """The book as a snapshot: CLEAR, then DEPTH of each level, the last one flagged LAST."""
    side, level = np.nonzero(book[:, :, kernel.SIZE])
    kind = np.concatenate([[int(Kind.CLEAR)], np.full(len(side), int(Kind.DEPTH))])
    sides = np.concatenate([[int(Side.NONE)], np.where(side == kernel.ASK, int(Side.SELL), int(Side.BUY))])
    price, size = (np.concatenate([[0], book[side, level, what]]) for what in (kernel.PRICE, kernel.SIZE))
    flags = np.zeros(len(kind), np.int64)
    flags[-1] = int(Flag.LAST)
    return EventColumns.build(np.full(len(kind), ts_ns), kind, sides, price, size, flags)


def _paired(messages: Path, book: Path, levels: int) -> Iterator[_Batch]:
    """Rows of both files side by side; raises InputError where one ends before the other."""
    columns = [
        Column(f"{side} {what} {level + 1}", *((-NO_LEVEL, NO_LEVEL) if what == "price" else (0, 2**53)))
        for level in range(levels)
        for side in ("ask", "bid")
        for what in ("price", "size")
    ]
    left, right = csv_batches(messages, _MESSAGE), csv_batches(book, columns)
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        rows = min(one.rows, other.rows)
        yield _batch(one.slice(0, rows), other.slice(0, rows), messages, book)
        one = one.slice(rows) if rows < one.rows else next(left, None)
        other = other.slice(rows) if rows < other.rows else next(right, None)
    for shorter, longer, more in ((book, messages, one), (messages, book, other)):
        if more is not None:
            raise InputError(
                f"{shorter}: ends after row {more.first_row}, {longer.name} does not; a book row for each message is "
                "wanted; fetch both files again"
            )


def _batch(messages: CsvBatch, book: CsvBatch, message_file: Path, book_file: Path) -> _Batch:
    ts_ns, kind, order, size, price, direction = messages.columns.values()
    halt, shown = kind == kernel.HALT, kind < kernel.EXECUTE_HIDDEN
    off_tick = ~halt & (price % PRICE_UNITS_PER_TICK != 0)
    _require(~(off_tick & shown), message_file, messages, "price", price, "a multiple of 100 (0.01 USD) is wanted")
    _require(direction != 0, message_file, messages, "direction", direction, "1 or -1 is wanted")
    ticks = np.where(halt, price, (price + PRICE_UNITS_PER_TICK // 2) // PRICE_UNITS_PER_TICK)
    columns = np.stack([kind, order, size, ticks, direction], axis=1)
    return _Batch(ts_ns, columns, np.where(off_tick, int(Flag.SUB_TICK), 0), _book_levels(book, book_file))


def _book_levels(batch: CsvBatch, path: Path) -> NDArray[np.int64]:
    """Levels `(n, 2, N, 2)` of book rows; raises InputError where a row is no book."""
    flat = np.stack(list(batch.columns.values()), axis=1).reshape(batch.rows, -1, 2, 2)
    levels = np.ascontiguousarray(flat.transpose(0, 2, 1, 3))
    price, size = levels[..., kernel.PRICE], levels[..., kernel.SIZE]
    absent = size == 0
    whole = absent | (price % PRICE_UNITS_PER_TICK == 0) & (price > 0) & (price < NO_LEVEL)
    _require(whole.all(axis=(1, 2)), path, batch, "a level's price", None, "a multiple of 100 above 0 is wanted")
    away = np.diff(price, axis=2) * np.array([1, -1])[:, None] > 0
    ordered = absent[..., 1:] | away & ~absent[..., :-1]
    _require(ordered.all(axis=(1, 2)), path, batch, "the order of levels", None, "best first without a hole is wanted")
    levels[..., kernel.PRICE] //= PRICE_UNITS_PER_TICK
    levels[absent] = 0
    return levels


def _require(
    good: NDArray[np.bool_], path: Path, batch: CsvBatch, what: str, values: NDArray[np.int64] | None, wanted: str
) -> None:
    """Refuse a file for the first of a batch's rows that is not `good`."""
    if good.all():
        return
    at = int(np.argmin(good))
    row = [int(column[at]) for column in batch.columns.values()]
    found = row[:8] if values is None else int(values[at])
    raise InputError(f"{path}: row {batch.first_row + at + 1}: {what} is {found}, {wanted}; fetch the file again")


class _Pair(NamedTuple):
    symbol: str
    day: str | None  # ISO; None where the name does not tell
    levels: int
    messages: Path
    book: Path


def _choose(request: IngestRequest) -> tuple[list[tuple[str, _Pair]], list[str]]:
    """Pairs that the request asks for with their days, by symbol and day, and the files left out for want of a date."""
    unknown = sorted(set(request.options) - {"date"})
    if unknown:
        raise InputError(f"lobster option {unknown[0]!r} is unknown; options: date")
    folder = data_folder(request, _HINT)
    given = request.options.get("date")
    pairs = _pairs(folder)
    symbols = choose_symbols(request, {pair.symbol for pair in pairs}, folder)
    days: dict[str, dict[str, _Pair]] = {}
    left_out = []
    for pair in (pair for pair in pairs if pair.symbol in symbols):
        day = pair.day or (None if given is None else _option_date(str(given)))
        if day is None:
            left_out.append(pair.messages.name)
            continue
        twin = days.setdefault(pair.symbol, {}).setdefault(day, pair)
        if twin is not pair:
            raise InputError(f"{pair.messages}: holds the same symbol and day as {twin.messages}; remove one of them")
    undated = [symbol for symbol in symbols if symbol not in days]
    if undated and (request.symbols or not days):
        raise InputError(f"{folder}: {left_out[0]} has no date in its name; give its day as option date=YYYY-MM-DD")
    in_range = choose_days(request, {day: day for found in days.values() for day in found}, ", ".join(sorted(days)))
    if request.symbols:  # a symbol that is asked for by name must have a day of its own
        for symbol in symbols:
            choose_days(request, days[symbol], symbol)
    chosen = [(day, days[symbol][day]) for symbol in sorted(days) for day in in_range if day in days[symbol]]
    return chosen, left_out


def _pairs(folder: Path) -> list[_Pair]:
    """Message files with their book files; raises InputError where one of the two is missing."""
    found = []
    for path in sorted(item for item in folder.iterdir() if item.is_file()):
        match = _match(path)
        if match is None:
            continue
        here, there = ("message", "orderbook") if match["what"] == "message" else ("orderbook", "message")
        stem = path.name[: match.start("what")] + there + path.name[match.end("what") : match.start("ending")]
        partners = sorted(item for item in folder.glob("*") if re.fullmatch(re.escape(stem) + _ENDING, item.name))
        if len(partners) != 1:
            raise InputError(f"{path}: {len(partners)} {there} files go with this {here} file, one is wanted")
        if here == "message":
            day = match.groupdict().get("date")
            if day is not None:
                day = iso_date(day.replace("-", ""), path)
            found.append(_Pair(match["symbol"], day, _levels_of(path), path, partners[0]))
    return found


def _match(path: Path) -> re.Match[str] | None:
    return _DATED.fullmatch(path.name) or _UNDATED.fullmatch(path.name)


def _levels_of(path: Path) -> int:
    """Levels a side that a file's name tells; raises InputError where it tells none."""
    match = _match(path)
    levels = int(match["levels"]) if match else 0
    if not 1 <= levels <= _MAX_LEVELS:
        raise InputError(f"{path}: the name tells {levels} levels, 1 to {_MAX_LEVELS} are wanted; {_HINT}")
    return levels


def _option_date(text: str) -> str:
    digits = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", text)
    return iso_date("".join(digits.groups()) if digits else text, Path("option date"))
