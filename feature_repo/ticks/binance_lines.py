"""Parses a Binance websocket dump, lines `<receive time> <JSON as received>`, into columns, some thousand at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.instruments import NS
from feature_repo.ticks.reader import ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.streams import open_stream

CHUNK_LINES = 4_096
CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 4 << 20
"""A snapshot of 1,000 levels a side has 45 kB; 5,000 levels is the most that Binance gives."""
DECIMALS = 8
"""Binance's finest step, of prices and sizes alike, is 1e-8."""
MAX_STEPS = 2**61
ODD_LOTS, ODD_SHARE = 16, 0.01
"""So many rows of a chunk, and this share of them, may have a size that is no multiple of the lot size."""
_BUY, _SELL, _NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
_EARLIEST_NS, _LATEST_NS = 10**18, 4 * 10**18  # 2001 to 2096: in microseconds 16 digits, in nanoseconds 19
_MILLISECOND_NS = 1_000_000
_DAY_NS = 86_400 * NS
_BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Grid:
    """Price tick and size step, in units of 1e-8."""

    tick: int
    lot: int


@dataclass(frozen=True)
class DepthMessage:
    """A depth diff, which holds the book's updates after number `before` up to `number`; or a snapshot at `number`."""

    snapshot: bool
    before: int
    number: int
    start: int  # its events in the chunk are those from `start` up to `stop`
    stop: int
    recv_ns: int
    exchange_ns: int  # 0: not given


@dataclass(frozen=True)
class Chunk:
    """Events of consecutive lines as received; `ts_event_ns` is the exchange's time, 0 where a message gives none.

    A snapshot is CLEAR and DEPTH events. The last event of a snapshot, a diff and a pair of QUOTE is flagged LAST.
    ODD_LOT marks a DEPTH or QUOTE whose size was rounded down to whole lots.
    """

    events: EventColumns
    depth: list[DepthMessage]


@dataclass
class _Rows:
    """What has been parsed of a chunk: in the first lists an entry a message, in the others one a row."""

    spot: bool
    at_line: int = 0
    received_ns: int = 0
    line: list[int] = field(default_factory=list)
    recv_ns: list[int] = field(default_factory=list)
    exchange_ns: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    price: list[str] = field(default_factory=list)
    size: list[str] = field(default_factory=list)
    depth: list[DepthMessage] = field(default_factory=list)

    def trade(self, data: dict[str, Any]) -> bool:
        """One TRADE; the buyer is maker (`m`), so the aggressor sold. Whatever is no MARKET trade sets no price."""
        if type(data["m"]) is not bool:
            raise ValueError(f"m is {data['m']!r:.40}, true or false is wanted")
        flags = 0 if data.get("X", "MARKET") == "MARKET" else int(Flag.DERIVED)
        self._message(_exchange_ns(data), Kind.TRADE, 0, 1, flags)
        self._rows(_SELL if data["m"] else _BUY, [data["p"]], [data["q"]])
        return True

    def quote(self, data: dict[str, Any]) -> bool:
        """Two QUOTE events, bid then ask."""
        self._message(_exchange_ns(data), Kind.QUOTE, _number(data, "u"), 2)
        self._rows(_BUY, [data["b"]], [data["B"]])
        self._rows(_SELL, [data["a"]], [data["A"]])
        return True

    def diff(self, data: dict[str, Any]) -> bool:
        """DEPTH events, bids then asks; False where the diff holds no level, which still moves the numbering on."""
        first, number = _number(data, "U"), _number(data, "u")
        if first > number:
            raise ValueError(f"U {first} is above u {number}")
        before = first - 1 if self.spot else _number(data, "pu")
        return self._depth(data, number, before, (data["b"], data["a"]), snapshot=False)

    def snapshot(self, data: dict[str, Any]) -> bool:
        """CLEAR and DEPTH events of a snapshot as the REST interface gives it."""
        number = _number(data, "lastUpdateId")
        return self._depth(data, number, number, (data["bids"], data["asks"]), snapshot=True)

    def _depth(
        self, data: dict[str, Any], number: int, before: int, levels: tuple[list[Any], list[Any]], snapshot: bool
    ) -> bool:
        exchange_ns, start = _exchange_ns(data), len(self.price)
        if snapshot:
            self._rows(_NONE, ["0"], ["0"])
        for side, pairs in zip((_BUY, _SELL), levels, strict=True):
            if type(pairs) is not list:
                raise ValueError(f"levels are {pairs!r:.40}, a list is wanted")
            self._rows(side, [price for price, _ in pairs], [size for _, size in pairs])
        stop = len(self.price)
        self.depth.append(DepthMessage(snapshot, before, number, start, stop, self.received_ns, exchange_ns))
        if stop > start:
            self._message(exchange_ns, Kind.DEPTH, number, stop - start)
        return stop > start

    def _message(self, exchange_ns: int, kind: Kind, number: int, count: int, flags: int = 0) -> None:
        self.line.append(self.at_line)
        self.recv_ns.append(self.received_ns)
        self.exchange_ns.append(exchange_ns)
        self.kind.append(kind)
        self.number.append(number)
        self.count.append(count)
        self.flags.append(flags)

    def _rows(self, side: int, price: list[str], size: list[str]) -> None:
        self.side += [side] * len(price)
        self.price += price
        self.size += size


_STREAMS: dict[str, Callable[[_Rows, dict[str, Any]], bool]] = {
    "trade": _Rows.trade,
    "bookTicker": _Rows.quote,
    "depth": _Rows.diff,
}
"""Streams that give events; `depth` comes as depth@0ms or depth@100ms (partial books are named depth5, 10, 20)."""


class LineParser:
    """Reads one file of one symbol; a line that is no message, or not of the form documented, raises InputError."""

    def __init__(self, path: Path, symbol: str, spot: bool, grid: Grid) -> None:
        """`symbol` as Binance writes it, in capitals: messages of others are skipped and counted."""
        self._path, self._symbol, self._spot, self._grid = path, symbol, spot, grid
        self._digits, self._line, self._unit_checked = 0, 0, False

    def chunks(self, count: ReadCount) -> Iterator[Chunk]:
        """The file's events, CHUNK_LINES lines at a time; every line is counted, those without an event by reason."""
        with open_stream(self._path) as stream:
            while (rows := self._read(stream, count)) is not None:
                yield self._columns(rows)

    def sample_decimals(self) -> tuple[int, int]:
        """Decimals, zeros at the end left out, that prices and sizes in the first CHUNK_LINES lines use.

        Of prices all count; of sizes all but the finest ODD_SHARE, which may be of orders from before a coarser step.
        """
        with open_stream(self._path) as stream:
            rows = self._read(stream, ReadCount()) or _Rows(self._spot)
        if not rows.price:
            raise InputError(
                f"{self._path}: no price in the first {CHUNK_LINES:,} lines to tell the tick size from; fetch the file "
                "again, or give options tick_size and lot_size"
            )
        places = []
        for what, texts in (("price", rows.price), ("size", rows.size)):
            self._units(rows, texts, what)  # refuses what is no decimal
            places.append(sorted(-int(Decimal(text).normalize().as_tuple().exponent) for text in texts))
        return max(places[0][-1], 0), max(places[1][-1 - int(ODD_SHARE * len(places[1]))], 0)

    def _read(self, stream: IO[bytes], count: ReadCount) -> _Rows | None:
        """Parse the lines of the next chunk; None at the end of the file."""
        rows, first, taken = _Rows(self._spot), self._line, 0
        while self._line - first < CHUNK_LINES and taken < CHUNK_BYTES:
            line = stream.readline(MAX_LINE_BYTES + 1)
            if not line:
                break
            self._line += 1
            taken += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise self._error(f"longer than {MAX_LINE_BYTES:,} bytes, no message is; fetch the file again")
            count.skip(self._path.name, *self._parse(line, rows))
        count.add(self._path.name, self._line - first)
        return rows if self._line > first else None

    def _parse(self, line: bytes, rows: _Rows) -> tuple[str, int]:
        """Add the message of one line; gives a reason and 1 where it gives no event, else 0."""
        head, _, body = line.partition(b" ")
        rows.at_line, rows.received_ns = self._line, self._receive_ns(head)
        try:
            message: dict[str, Any] = orjson.loads(body)
            if type(message) is not dict:
                raise ValueError("a JSON object is wanted")
            if "lastUpdateId" in message:
                rows.snapshot(message)
                return "", 0
            if "stream" not in message:  # such as the answer to a subscription
                return "no market message", 1
            what, data = message["stream"].split("@", 2)[1], message["data"]
            if what not in _STREAMS:
                return f"stream {what[:32]}", 1
            if data["s"] != self._symbol:
                return f"symbol {data['s'][:32]}", 1
            return "diff without a level", int(not _STREAMS[what](rows, data))
        except _BROKEN as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise self._error(f"{line[:80]!r} is no message of Binance ({reason}); fetch the file again") from error

    def _receive_ns(self, text: bytes) -> int:
        """Receive time in ns. The first line tells the unit (16 digits us, 19 digits ns), which then holds for all."""
        self._digits = self._digits or len(text)
        if self._digits not in (16, 19) or len(text) != self._digits or not text.isdigit():
            wanted = self._digits if self._line > 1 else "16 (microseconds) or 19 (nanoseconds)"
            raise self._error(f"starts with {text[:24]!r}, a receive time of {wanted} digits is wanted")
        moment = int(text) * (1_000 if self._digits == 16 else 1)
        if not _EARLIEST_NS <= moment < _LATEST_NS:
            raise self._error(f"receive time {int(text)} is not between the years 2001 and 2096")
        return moment

    def _columns(self, rows: _Rows) -> Chunk:
        counts = np.asarray(rows.count, np.int64)
        recv, exchange = np.asarray(rows.recv_ns, np.int64), np.asarray(rows.exchange_ns, np.int64)
        self._check_unit(rows, recv, exchange)
        price_units, size_units = self._units(rows, rows.price, "price"), self._units(rows, rows.size, "size")
        ticks = (price_units + self._grid.tick // 2) // self._grid.tick
        message_kind = np.asarray(rows.kind, np.int64)
        kind, flags = np.repeat(message_kind, counts), np.repeat(np.asarray(rows.flags, np.int64), counts)
        flags[price_units % self._grid.tick != 0] |= int(Flag.SUB_TICK)
        flags[self._odd_lots(rows, size_units, kind == int(Kind.TRADE))] |= int(Flag.ODD_LOT)
        flags[np.cumsum(counts)[message_kind != int(Kind.TRADE)] - 1] |= int(Flag.LAST)
        clears = np.asarray([item.start for item in rows.depth if item.snapshot], np.int64)
        kind[clears], flags[clears] = int(Kind.CLEAR), 0  # a snapshot without a level leaves the book unknown
        events = EventColumns.build(
            np.repeat(exchange, counts),
            kind,
            np.asarray(rows.side, np.int64),
            self._steps(rows, ticks, "price"),
            self._steps(rows, size_units // self._grid.lot, "size"),
            flags,
            np.repeat(np.asarray(rows.number, np.int64), counts),
            np.repeat(recv, counts),
        )
        return Chunk(events, rows.depth)

    def _odd_lots(self, rows: _Rows, units: np.ndarray, is_trade: np.ndarray) -> np.ndarray:
        """Rows whose size is no whole number of lots; raises InputError where that tells of a wrong lot size.

        Orders from before Binance made the step coarser still rest (15 of 32,024 sizes of the spot file): such a size
        is rounded down, since nobody can trade the rest of it. Trades, and more than a few such rows, are refused.
        """
        odd = np.flatnonzero(units % self._grid.lot != 0)
        refused = odd if len(odd) > ODD_LOTS + ODD_SHARE * len(units) else odd[is_trade[odd]]
        if len(refused):
            raise self._row_error(
                rows,
                int(refused[0]),
                f"size {rows.size[refused[0]]} is no multiple of the lot size "
                f"{Decimal(self._grid.lot).scaleb(-DECIMALS).normalize():f}; give option lot_size",
            )
        return odd

    def _check_unit(self, rows: _Rows, recv: np.ndarray, exchange: np.ndarray) -> None:
        """The unit was told by the number of digits: the exchange's first time must agree to a day."""
        given = np.flatnonzero(exchange)
        if self._unit_checked or not len(given):
            return
        self._unit_checked = True
        at = int(given[0])
        if abs(int(recv[at]) - int(exchange[at])) > _DAY_NS:
            raise InputError(
                f"{self._path}: line {rows.line[at]}: received at {recv[at]} ns but sent at {exchange[at]} ns, more "
                "than a day apart; the receive time must be UTC in us or ns since 1970"
            )

    def _units(self, rows: _Rows, texts: list[str], what: str) -> np.ndarray:
        """Decimal strings in units of 1e-8, exactly: int64, or Python integers where one does not fit."""
        if not texts:
            return np.empty(0, np.int64)
        values = _decimals(texts)
        if values is None:
            at = next(at for at, text in enumerate(texts) if _decimals([text]) is None)
            wanted = f"a decimal in quotes with at most {DECIMALS} decimals is wanted"
            raise self._row_error(rows, at, f"{what} is {texts[at]!r:.40}, {wanted}")
        words = np.frombuffer(values.buffers()[1], np.int64)[: 2 * len(texts)].reshape(-1, 2)
        low, high = words[:, 0], words[:, 1]
        if np.array_equal(high, low >> 63):
            return low
        return np.array([(upper << 64) + (lower & (2**64 - 1)) for lower, upper in words.tolist()], object)

    def _steps(self, rows: _Rows, values: np.ndarray, what: str) -> np.ndarray:
        """Ticks or lots as int64."""
        wrong = np.flatnonzero((values >= MAX_STEPS) | (values <= -MAX_STEPS))
        if len(wrong):
            raise self._row_error(rows, int(wrong[0]), f"{what} is {values[wrong[0]]} steps, the limit is {MAX_STEPS}")
        return values.astype(np.int64)

    def _row_error(self, rows: _Rows, row: int, text: str) -> InputError:
        message = int(np.searchsorted(np.cumsum(rows.count), row, side="right"))
        return InputError(f"{self._path}: line {rows.line[message]}: {text}")

    def _error(self, text: str) -> InputError:
        return InputError(f"{self._path}: line {self._line}: {text}")


def _decimals(texts: list[str]) -> pa.Array | None:
    """The texts as decimals of 8 places; None where one of them is none."""
    try:
        values = pa.array(texts, pa.string()).cast(pa.decimal128(38, DECIMALS))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return None if values.null_count else values


def _exchange_ns(data: dict[str, Any]) -> int:
    """Time of the transaction (T) where given, else of the message (E), in ns; 0 where there is neither."""
    milliseconds = data.get("T", data.get("E", 0))
    if type(milliseconds) is not int or not 0 <= milliseconds < _LATEST_NS // _MILLISECOND_NS:
        raise ValueError(f"time is {milliseconds!r:.40}, milliseconds since 1970 are wanted")
    return milliseconds * _MILLISECOND_NS


def _number(data: dict[str, Any], name: str) -> int:
    number = data[name]
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError(f"{name} is {number!r:.40}, a whole number from 0 is wanted")
    return number
