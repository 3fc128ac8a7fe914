"""Reader of QuantConnect Lean equity ticks: zipped CSV of single-sided best-quote updates and of trades.

Quotes: `ms since midnight New York, bid price, bid size, ask price, ask size, exchange, condition, suspicious`, trades:
`ms, price, size, exchange, condition, suspicious`; prices x 10,000. A quote row updates the side whose price is not
zero, whatever exchange set it. Trades and quotes come in two files without a common order: of equal milliseconds the
trade is put first, so that it is seen against the quote that it met and the queue shrinks after it. The data agree:
where AIG's best prices change in the millisecond of a trade, 93 to 94% of the trades are at a best price of before and
83 to 87% at one of after (BAC: 95 to 96% at both), and the queue hit shrinks about four times as often as it grows.

Exchange D is FINRA's trade reporting facility: the print was made off exchange (39% of BAC's shares), met no displayed
queue, and is flagged HIDDEN. No lit venue prints between ticks either (Regulation NMS rule 612, from 1 USD up), so a
sub-penny trade keeps the nearest tick and is flagged SUB_TICK and HIDDEN.

A trade's condition is a hexadecimal mask of AlgoSeek's trade conditions, named by Lean's `TradeConditionFlags`
(QuantConnect.Data.Auxiliary); those that do not set the market's price become LATE, ODD_LOT or DERIVED. A print of the
official open or close repeats an auction's price, and one for cash, next-day or seller's delivery is priced for another
day, so both are DERIVED. No bit marks a cancelled trade. The tape has no odd lots before December 2013.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import IO
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook
from feature_repo.ticks.streams import open_stream

VENUE, ZONE = "US", "America/New_York"
PRICE_UNITS_PER_TICK = 100  # prices x 10,000, tick 0.01 USD
OFF_EXCHANGE = "D"
CONDITIONS = {
    0x0002: Flag.DERIVED,  # cash: delivery on the same day
    0x0004: Flag.DERIVED,  # next-day delivery
    0x0008: Flag.DERIVED,  # seller's option: delivery within 2 to 60 days
    0x0200: Flag.DERIVED,  # derivatively priced
    0x0800: Flag.LATE,  # sold last: in sequence, but reported late
    0x4000: Flag.LATE,  # out of sequence
    0x0004_0000: Flag.DERIVED,  # contingent on an option trade
    0x0010_0000: Flag.DERIVED,  # average price
    0x0040_0000: Flag.DERIVED,  # price variation: significantly away from the market
    0x0100_0000: Flag.DERIVED,  # official close
    0x0200_0000: Flag.DERIVED,  # prior reference price
    0x0400_0000: Flag.DERIVED,  # official open
    0x8000_0000: Flag.ODD_LOT,
}
QUOTE_COLUMNS = ("ms", "bid", "bid_size", "ask", "ask_size", "exchange", "condition", "suspicious")
TRADE_COLUMNS = ("ms", "price", "size", "exchange", "condition", "suspicious")
MAX_MS = 25 * 3_600_000
"""Longest day in milliseconds: a row outside the session is for cleaning to judge, one outside the day is no tick."""
MAX_NUMBER = 2**53
_TYPES = {"exchange": pa.string(), "condition": pa.dictionary(pa.int32(), pa.string())}
_CONDITION = re.compile(r"[0-9a-fA-F]{0,8}")
_LINE_BYTES = 1 << 16
"""A longer line is no tick; it is not read further."""
_HINT = "the lean folder that holds equity/usa/tick"


class LeanReader:
    """Lean equities: symbols that have both quotes and trades."""

    name = "lean"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each symbol and day with a quote and a trade file."""
        folder = data_folder(request, _HINT) / "equity" / "usa" / "tick"
        days = _days_by_symbol(folder)
        usable = {symbol for symbol, found in days.items() if found}
        for symbol in request.symbols:
            if symbol.upper() in days and symbol.upper() not in usable:
                raise InputError(
                    f"symbol {symbol} in {folder} has no day with both a quote and a trade file, so no book; "
                    f"usable: {', '.join(sorted(usable)) or 'none'}"
                )
        symbols = choose_symbols(request, usable, folder)
        in_range = choose_days(request, {day: day for symbol in symbols for day in days[symbol]}, ", ".join(symbols))
        if request.symbols:  # a symbol that is asked for by name must have a day of its own
            for symbol in symbols:
                choose_days(request, days[symbol], symbol)
        return [
            PartitionPlan(Partition(VENUE, symbol, day), days[symbol][day])
            for symbol in symbols
            for day in in_range
            if day in days[symbol]
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """US equities: 0.01 USD a tick, one share a lot, regular hours."""
        hours = (SessionWindow("09:30:00", "16:00:00"),)
        return [
            Instrument(VENUE, symbol, 0.01, 1.0, "USD", ZONE, hours, 1, False, 10_000_000)
            for symbol in sorted({plan.partition.symbol for plan in self.plan(request)})
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Quotes and trades of one day, merged in time."""
        quotes, trades = plan.inputs
        midnight = datetime.combine(date.fromisoformat(plan.partition.date), time(), ZoneInfo(ZONE))
        start_ns = int(midnight.timestamp()) * NS
        waiting = EventColumns.concatenate(
            [_trade_events(batch, start_ns, trades) for batch in _csv_batches(trades, TRADE_COLUMNS, count)]
        )
        keys = np.maximum.accumulate(waiting.ts_event_ns)
        latest, merged, sequence = np.int64(np.iinfo(np.int64).min), 0, 0
        for batch in _csv_batches(quotes, QUOTE_COLUMNS, count):
            events = _quote_events(batch, start_ns)
            if not len(events):
                continue
            # Each file keeps its own order even where its clock runs back: cleaning judges disorder, not the merge.
            reached = np.maximum.accumulate(np.maximum(events.ts_event_ns, latest))
            latest = reached[-1]
            due = merged + int(np.searchsorted(keys[merged:], latest, side="right"))
            where = np.searchsorted(reached, keys[merged:due], side="left")
            events = events.insert(where, waiting.slice(merged, due))
            merged = due
            yield event_batch(events, sequence)
            sequence += len(events)
        if merged < len(waiting):
            yield event_batch(waiting.slice(merged, len(waiting)), sequence)


def _days_by_symbol(folder: Path) -> dict[str, dict[str, tuple[Path, Path]]]:
    """Days with both files, by symbol; raises InputError where two folders claim one symbol."""
    folders: dict[str, Path] = {}
    for item in sorted(folder.glob("*")):
        if item.is_dir() and folders.setdefault(item.name.upper(), item) != item:
            raise InputError(f"{item}: holds the same symbol as {folders[item.name.upper()]}; remove one of them")
    return {symbol: _days_of(item) for symbol, item in folders.items()}


def _days_of(folder: Path) -> dict[str, tuple[Path, Path]]:
    found = {}
    for quotes in sorted(folder.glob("*_quote.zip")):
        trades = quotes.with_name(quotes.name.replace("_quote", "_trade"))
        if trades.is_file():
            found[iso_date(quotes.name.split("_")[0], quotes)] = (quotes, trades)
    return found


def _quote_events(batch: pa.RecordBatch, start_ns: int) -> EventColumns:
    """One QUOTE a side that the row sets; a row that sets none stays as one without a side, for cleaning to judge."""
    ms, bid, ask, suspicious = (_ints(batch, name) for name in ("ms", "bid", "ask", "suspicious"))
    ts_ns = start_ns + ms * 1_000_000
    flags = np.where(suspicious != 0, int(Flag.SUSPICIOUS), 0)
    has_bid, has_ask = bid != 0, ask != 0
    neither = ~has_bid & ~has_ask
    rows = np.concatenate([np.flatnonzero(has_bid), np.flatnonzero(has_ask), np.flatnonzero(neither)])
    side = np.repeat([int(Side.BUY), int(Side.SELL), int(Side.NONE)], [has_bid.sum(), has_ask.sum(), neither.sum()])
    order = np.argsort(rows, kind="stable")
    rows, side = rows[order], side[order]
    price = np.where(side == int(Side.BUY), bid[rows], np.where(side == int(Side.SELL), ask[rows], 0))
    bid_size, ask_size = _ints(batch, "bid_size"), _ints(batch, "ask_size")
    size = np.where(side == int(Side.BUY), bid_size[rows], np.where(side == int(Side.SELL), ask_size[rows], 0))
    ticks, off_tick = _to_ticks(price)
    return EventColumns.build(
        ts_ns[rows], Kind.QUOTE, side, ticks, size, flags[rows] | np.where(off_tick, int(Flag.SUB_TICK), 0)
    )


def _trade_events(batch: pa.RecordBatch, start_ns: int, path: Path) -> EventColumns:
    ms, price, size, suspicious = (_ints(batch, name) for name in ("ms", "price", "size", "suspicious"))
    ticks, off_tick = _to_ticks(price)
    flags = np.where(suspicious != 0, int(Flag.SUSPICIOUS), 0)
    flags = flags | np.where(off_tick, int(Flag.SUB_TICK | Flag.HIDDEN), 0)
    reported = pc.equal(batch.column("exchange"), OFF_EXCHANGE).to_numpy(zero_copy_only=False)
    flags = flags | np.where(reported, int(Flag.HIDDEN), 0) | _condition_flags(batch.column("condition"), path)
    return EventColumns.build(start_ns + ms * 1_000_000, Kind.TRADE, int(Side.NONE), ticks, size, flags)


def _condition_flags(conditions: pa.DictionaryArray, path: Path) -> np.ndarray:
    """`(n,) int64` flags; only the distinct conditions of a batch, some dozens, are looked at one by one."""
    known = []
    for text in conditions.dictionary.to_pylist():
        if not _CONDITION.fullmatch(text):
            raise InputError(_describe_bad_line(path, TRADE_COLUMNS) or f"{path}: a condition is {text[:40]!r}")
        mask = int(text or "0", 16)
        known.append(sum({int(flag) for bit, flag in CONDITIONS.items() if mask & bit}))
    return np.array(known, np.int64)[conditions.indices.to_numpy()]


def _to_ticks(price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest tick of a price x 10,000 (half a tick goes up), and whether it lies between ticks."""
    return (price + PRICE_UNITS_PER_TICK // 2) // PRICE_UNITS_PER_TICK, price % PRICE_UNITS_PER_TICK != 0


def _ints(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).to_numpy(zero_copy_only=False)


def _csv_batches(path: Path, columns: tuple[str, ...], count: ReadCount) -> Iterator[pa.RecordBatch]:
    """Batches of a file's CSV: its numbers as int64, its exchange as text, a trade's condition by dictionary."""
    types = {name: _TYPES.get(name, pa.int64()) for name in columns if (name, columns) != ("condition", QUOTE_COLUMNS)}
    try:
        with open_stream(path) as stream:
            reader = csv.open_csv(
                stream,
                read_options=csv.ReadOptions(column_names=list(columns), block_size=8 << 20, use_threads=False),
                convert_options=csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
                ),
                parse_options=csv.ParseOptions(quote_char=False, newlines_in_values=False),
            )
            for batch in reader:
                _require_limits(batch, path, columns)
                count.add(path.name, batch.num_rows)
                yield batch
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise InputError(_describe_bad_line(path, columns) or f"{path}: not readable as CSV ({error})") from error


def _require_limits(batch: pa.RecordBatch, path: Path, columns: tuple[str, ...]) -> None:
    """Refuse a number so large that nanoseconds or ticks made of it would wrap around."""
    for name in (name for name in batch.schema.names if name not in _TYPES):
        values, limit = _ints(batch, name), _limit(name)
        if len(values) and (values.min() < -limit or values.max() > limit):
            raise InputError(_describe_bad_line(path, columns) or f"{path}: a {name} is beyond {limit}")


def _describe_bad_line(path: Path, columns: tuple[str, ...]) -> str | None:
    """The first line that does not have the columns, found only once the fast parser has refused the file."""
    with open_stream(path) as stream:
        return next(_bad_lines(stream, path, columns), None)


def _bad_lines(stream: IO[bytes], path: Path, columns: tuple[str, ...]) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: stream.readline(_LINE_BYTES), b""), start=1):
        text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        if not text:
            continue  # the fast parser skips empty lines too
        fields = text.split(",")
        if len(fields) != len(columns):
            yield f"{path}: line {number}: {len(fields)} columns, {len(columns)} wanted: {','.join(fields)[:80]!r}"
        for name, value in zip(columns, fields, strict=False):
            if name == "condition" and columns == TRADE_COLUMNS and not _CONDITION.fullmatch(value):
                yield f"{path}: line {number}: condition is {value[:40]!r}, at most 8 hexadecimal digits are wanted"
            if name not in _TYPES and not _is_number(value, _limit(name)):
                limit = _limit(name)
                yield f"{path}: line {number}: {name} is {value[:40]!r}, a whole number of at most {limit} is wanted"
        try:
            line.decode()
        except UnicodeDecodeError:
            yield f"{path}: line {number}: not text in UTF-8: {text[:80]!r}"


def _limit(name: str) -> int:
    return MAX_MS if name == "ms" else MAX_NUMBER


def _is_number(text: str, limit: int) -> bool:
    return bool(re.fullmatch(r"-?\d{1,19}", text, re.ASCII)) and -limit <= int(text) <= limit
