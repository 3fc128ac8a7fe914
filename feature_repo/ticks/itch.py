"""Reader of NASDAQ TotalView-ITCH 5.0 files: every order of every stock, in binary messages framed by their length.

`MMDDYYYY.NASDAQ_ITCH50[.gz]` as NASDAQ names them, or `*.itch`, `*.itch50` with the option `date`. One file holds all
stocks: it is read once for each symbol, so ask for the few that are wanted. Source: 'NASDAQ TotalView-ITCH 5.0'.

| message | events |
| --- | --- |
| A, F add | ADD |
| E executed | TRADE of the resting order at its price; the aggressor is the other side |
| C executed at a price | TRADE at that price; not printable: CANCEL, since the cross reports all its volume once (Q) |
| X, D cancel | CANCEL of the lots, of what is left |
| U replace | CANCEL of what is left, ADD under the new number |
| P hidden order, Q cross | TRADE flagged HIDDEN, aggressor unknown (the side in P is always B since July 2014) |
| B broken trade | TRADE of nothing flagged CANCELLED and HIDDEN: which one was broken is not looked up |
| H, h halt, pause, quotation only | HALT; a release gives nothing, the next event ends the halt |

An execution, cancel or replace of an order that is not alive keeps what the message says and is flagged SUSPICIOUS, for
cleaning to quarantine. Orders rest from 04:00 on, the session opens at 09:30: what comes before is folded into the
opening book, CLEAR and the standing orders as ADD flagged CARRIED, oldest first, all at 09:30:00.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import IO
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks import itch_kernel as kernel
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.order_table import OrderTable, to_events
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook
from feature_repo.ticks.streams import open_stream

VENUE, ZONE, DEPTH = "NASDAQ", "America/New_York", 10
OPENS, CLOSES = "09:30:00", "16:00:00"
UNITS_PER_TICK = 100  # prices x 10,000, tick 0.01 USD
CHUNK_BYTES = 4 << 20
_DATED = re.compile(r"(\d{2})(\d{2})(\d{4})\.NASDAQ_ITCH50(\.\w+)?", re.IGNORECASE)
_NAMED = re.compile(r".+\.itch(50)?(\.(gz|bz2|xz|zst|zip))?", re.IGNORECASE)
_SYMBOL = re.compile(rb"([!-.0-~]{1,8}) *")  # printable, and no slash: it names a folder
_HINT = "the folder that holds MMDDYYYY.NASDAQ_ITCH50[.gz]"
_EVERY_TIME = np.iinfo(np.int64).max
_NAMES = {
    **{"S": "system event", "R": "stock directory", "H": "trading action that halts nothing", "Y": "short sale rule"},
    **{"L": "market participant", "V": "circuit breaker levels", "W": "circuit breaker", "K": "IPO quotation period"},
    **{"J": "auction collar", "h": "operational release", "Q": "cross without shares", "I": "order imbalance"},
    **{"N": "retail interest", "O": "direct listing"},
}
_PROBLEMS = {
    kernel.BAD_LENGTH: "a message of type {kind!r} is {size} bytes long, {wanted} are wanted",
    kernel.BAD_TIME: "the time stamp of a message of type {kind!r} lies beyond its day",
    kernel.BAD_SIDE: "the side of a message of type {kind!r} is neither B nor S",
}


class ItchReader:
    """NASDAQ's own order feed, a stock at a time."""

    name = "itch"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each day and symbol asked for, or each symbol of the day's directory."""
        folder = data_folder(request, _HINT)
        _require_options(request)
        days: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if not (_DATED.fullmatch(path.name) or _NAMED.fullmatch(path.name)):
                continue
            day = _day(path, request)
            if days.setdefault(day, path) != path:
                raise InputError(f"{path}: holds the same day {day} as {days[day]}; remove one of them")
        if not days:
            raise InputError(f"{folder}: holds no file that source {request.source} reads; give {_HINT}")
        chosen = {day: (path, _directory(path)) for day, path in choose_days(request, days, "any symbol").items()}
        symbols = choose_symbols(request, {name for _, names in chosen.values() for name in names}, folder)
        options = {name: value for name, value in request.options.items() if name == "partial"}
        return [
            PartitionPlan(Partition(VENUE, symbol, day), (path,), options)
            for symbol in symbols
            for day, (path, names) in chosen.items()
            if symbol in names
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """US equities: 0.01 USD a tick, one share a lot, regular hours."""
        hours = (SessionWindow(OPENS, CLOSES),)
        return [
            Instrument(VENUE, symbol, 0.01, 1.0, "USD", ZONE, hours, DEPTH, False, 10_000_000)
            for symbol in sorted({plan.partition.symbol for plan in self.plan(request)})
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The opening book and all later events of one stock and day."""
        (path,) = plan.inputs
        scan = _Scan(path, _directory(path)[plan.partition.symbol], plan.partition.date)
        sequence = 0
        with open_stream(path) as stream:
            for events in scan.events(stream):
                yield event_batch(events, sequence)
                sequence += len(events)
        if not scan.counts[kernel.FINISHED] and str(plan.options.get("partial", 0)) == "0":
            raise InputError(
                f"{path}: ends after {scan.counts[kernel.MESSAGES]:,} messages without the last one (system event C): "
                "it is cut off; fetch the file again, or set the option partial=1 for an excerpt"
            )
        if not sequence:
            raise InputError(
                f"{path}: ends before the first message of {plan.partition.symbol} at or after {OPENS} New York; "
                "leave this symbol or day out"
            )
        scan.account(count)


class _Scan:
    """Drives the kernel over a stream, chunk by chunk, with what is left of one going before the next."""

    def __init__(self, path: Path, locate: int, day: str) -> None:
        self._path, self._locate, self._table = path, locate, OrderTable()
        self._midnight_ns, self._open_ns = (_local_ns(day, clock) for clock in ("00:00:00", OPENS))
        self._folding, self._offset = True, 0
        self.counts = np.zeros(5, np.int64)
        self._silent = np.zeros(256, np.int64)
        self._out = np.empty((CHUNK_BYTES // kernel.SHORTEST + 2, 8), np.int64)

    def events(self, stream: IO[bytes]) -> Iterator[EventColumns]:
        """Events of the stock; raises InputError with the byte offset of what is wrong."""
        rest, ended = b"", False
        while chunk := stream.read(CHUNK_BYTES - len(rest)):
            if ended:
                raise self._error(len(rest), "bytes follow the end of the session")
            data = rest + chunk
            at, status = 0, kernel.BOUNDARY
            while status == kernel.BOUNDARY:
                at, found, status = self._step(data, at)
                if len(found):
                    yield found
                if status == kernel.BOUNDARY:
                    yield from self._opened()
            if status in _PROBLEMS:
                raise self._error(at, self._describe(data, at, status))
            rest, ended = data[at:], status == kernel.ENDED
            self._offset += at
            if ended and len(rest) > 2:
                raise self._error(2, "bytes follow the end of the session")
        if rest and not ended:
            raise self._error(0, f"the file is cut off, {len(rest)} bytes are no whole message")
        self.counts[kernel.FINISHED] |= ended
        if self._folding and self.counts[kernel.FINISHED]:  # an excerpt may end before the open
            yield from self._opened()

    def account(self, count: ReadCount) -> None:
        """Say what became of every message."""
        name = self._path.name
        count.add(name, int(self.counts[kernel.MESSAGES]))
        count.leave(name, int(self.counts[kernel.OTHERS]))
        count.skip(name, "before the open, folded into the opening book", int(self.counts[kernel.FOLDED]))
        for kind in np.flatnonzero(self._silent).tolist():
            letter = chr(kind)
            known = letter in kernel.MESSAGE_BYTES
            reason = f"{letter}: {_NAMES.get(letter, 'no event')}" if known else f"unknown message type {letter!r}"
            count.skip(name, reason, int(self._silent[kind]))

    def _step(self, data: bytes, at: int) -> tuple[int, EventColumns, int]:
        self._table.reserve((len(data) - at) // kernel.SHORTEST)
        boundary_ns = self._open_ns if self._folding else _EVERY_TIME
        table = self._table
        at, rows, status = kernel.scan(
            *(np.frombuffer(data, np.uint8), at, self._locate, self._midnight_ns, boundary_ns, self._folding),
            *(kernel.LENGTHS, table.keys, table.rows, table.state, self._out, self.counts, self._silent),
        )
        return int(at), to_events(self._out[:rows], UNITS_PER_TICK), int(status)

    def _opened(self) -> Iterator[EventColumns]:
        """The book at the open, and that the stock does not trade where it is halted then."""
        self._folding = False
        yield self._table.opening(self._open_ns, UNITS_PER_TICK)
        if self.counts[kernel.HALTED]:
            yield EventColumns.build(np.array([self._open_ns]), int(Kind.HALT), int(Side.NONE), 0, 0)

    def _describe(self, data: bytes, at: int, status: int) -> str:
        kind, size = chr(data[at + 2]), int.from_bytes(data[at : at + 2], "big")
        return _PROBLEMS[status].format(kind=kind, size=size, wanted=kernel.MESSAGE_BYTES[kind])

    def _error(self, at: int, what: str) -> InputError:
        return InputError(f"{self._path}: byte {self._offset + at:,}: {what}; fetch the file again")


def _directory(path: Path) -> dict[str, int]:
    """Locate code of each symbol of a file; the directory stands before the first order."""
    stat = path.stat()
    return _read_directory(path.absolute(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_directory(path: Path, _size: int, _mtime_ns: int) -> dict[str, int]:
    locates: dict[str, int] = {}
    symbols: dict[int, str] = {}
    with open_stream(path) as stream:
        offset = 0
        while len(head := stream.read(2)) == 2 and (size := int.from_bytes(head, "big")):
            message = stream.read(size)
            if len(message) < size or message[:1] in (b"A", b"F"):
                break
            if message[:1] == b"R":
                symbol = _symbol(message, path, offset)
                locate = int.from_bytes(message[1:3], "big")
                if locates.setdefault(symbol, locate) != locate or symbols.setdefault(locate, symbol) != symbol:
                    raise InputError(
                        f"{path}: byte {offset:,}: the directory gives symbol {symbol} and locate code {locate} twice, "
                        "with different partners; fetch the file again"
                    )
            offset += 2 + size
    if not locates:
        raise InputError(
            f"{path}: no stock directory (R) before the first order, so this is no TotalView-ITCH 5.0 file framed by "
            "2-byte lengths, or it is cut off; fetch the file again"
        )
    return locates


def _symbol(message: bytes, path: Path, offset: int) -> str:
    match = _SYMBOL.fullmatch(message[11:19])
    if len(message) != kernel.MESSAGE_BYTES["R"] or match is None:
        raise InputError(
            f"{path}: byte {offset:,}: a stock directory message of {len(message)} bytes with symbol "
            f"{message[11:19]!r}, {kernel.MESSAGE_BYTES['R']} bytes and a padded name are wanted; fetch the file again"
        )
    return match.group(1).decode("ascii")


def _require_options(request: IngestRequest) -> None:
    unknown = set(request.options) - {"date", "partial"}
    if unknown:
        raise InputError(f"source itch has no option {sorted(unknown)[0]}; there: date (YYYY-MM-DD), partial (0 or 1)")
    if str(request.options.get("partial", 0)) not in ("0", "1"):
        raise InputError(f"option partial={request.options['partial']} is neither 0 nor 1")


def _day(path: Path, request: IngestRequest) -> str:
    """Session date of a file: in its name, or the option `date`."""
    match = _DATED.fullmatch(path.name)
    if match is not None:
        month, day, year = match.group(1, 2, 3)
        return iso_date(year + month + day, path)
    try:
        return date.fromisoformat(str(request.options["date"])).isoformat()
    except KeyError as error:
        raise InputError(f"{path}: no date in the file's name; set the option date=YYYY-MM-DD") from error
    except ValueError as error:
        raise InputError(f"option date={request.options['date']} is not a date YYYY-MM-DD (of {path})") from error


def _local_ns(day: str, clock: str) -> int:
    moment = datetime.combine(date.fromisoformat(day), time.fromisoformat(clock), ZoneInfo(ZONE))
    return int(moment.timestamp()) * NS
