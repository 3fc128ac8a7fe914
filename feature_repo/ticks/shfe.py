"""Reader of Shanghai Futures Exchange depth: Parquet of five-level snapshots every 500 ms.

`timestamp` is when the snapshot was received, Shanghai time without a zone, so it serves as event and receive time.
A snapshot gives `CLEAR`, its `LEVEL` events and, before them, the trades since the snapshot before: `volume` and
`amount` are the day's running totals, and from their differences follow the number of lots and the average price. Where
that average lies between two ticks the lots are split over the two so that the amount is conserved. A trade at or above
the earlier best ask was bought, at or below the earlier best bid sold, between them nobody knows.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook

VENUE, ZONE, LEVELS, TONS_PER_LOT = "SHFE", "Asia/Shanghai", 5, 10
BATCH_ROWS = 8_192
_SIDES = (("bid", Side.BUY), ("ask", Side.SELL))
_NUMBERS = ["volume", "amount"] + [
    f"{side}{what}{k}" for side, _ in _SIDES for what in ("", "Size") for k in range(1, LEVELS + 1)
]
_FILE_NAME = re.compile(r"[A-Za-z]+\d*_\d{8}\.parquet")
_HINT = "the folder that holds rb_YYYYMMDD.parquet"
_MAX_NS = 2**62
_ABSENT = 1e15
"""Exchange front ends write the largest double where a level or price is absent."""


class ShfeReader:
    """SHFE rebar futures, night session included."""

    name = "shfe"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each file; the symbol is the contract in the file, `rb` means any of rb."""
        folder = data_folder(request, _HINT)
        files = sorted(path for path in folder.glob("*.parquet") if _FILE_NAME.fullmatch(path.name))
        products = {_product(path) for path in files}
        for name in request.symbols:
            if products and not any(_names(name, product) for product in products):
                raise InputError(f"symbol {name} is not in {folder}; there: {', '.join(sorted(products))}")
        by_day: dict[str, list[Path]] = {}
        for path in files:
            if not request.symbols or any(_names(name, _product(path)) for name in request.symbols):
                by_day.setdefault(iso_date(path.stem[-8:], path), []).append(path)
        if not by_day:
            raise InputError(f"{folder}: holds no file that source {request.source} reads; give {_HINT}")
        days: dict[str, dict[str, Path]] = {}
        for day, paths in choose_days(request, by_day, f"{', '.join(request.symbols) or 'any symbol'}").items():
            for path in paths:  # only the files in range are opened
                twin = days.setdefault(_contract(path), {}).setdefault(day, path)
                if twin != path:
                    raise InputError(f"{path}: holds the same contract and day as {twin}; remove one of them")
        wanted = tuple(contract for name in request.symbols for contract in _contracts(name, days))
        return [
            PartitionPlan(Partition(VENUE, symbol, day), (path,))
            for symbol in choose_symbols(replace(request, symbols=wanted), days, folder)
            for day, path in days[symbol].items()
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """Rebar: 1 CNY a tick, 10 t a lot; the night session opens the evening before the trading day."""
        windows = (
            SessionWindow("21:00:00", "23:00:00", days_before=1),
            SessionWindow("09:00:00", "10:15:00"),
            SessionWindow("10:30:00", "11:30:00"),
            SessionWindow("13:30:00", "15:00:00"),
        )
        return [
            Instrument(VENUE, symbol, 1.0, float(TONS_PER_LOT), "CNY", ZONE, windows, LEVELS, True, 0)
            for symbol in sorted({plan.partition.symbol for plan in self.plan(request)})
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Trades and snapshots of one trading day."""
        (path,) = plan.inputs
        before, sequence, row = _Last(), 0, 0
        for batch in _parquet_batches(path):
            numbers = {name: _floats(batch, name) for name in _NUMBERS}
            ts_ns = _utc_ns(batch, path, row)
            _require_totals(numbers, path, row)
            events, before = _events(ts_ns, numbers, before)
            count.add(path.name, batch.num_rows)
            row += batch.num_rows
            yield event_batch(events, sequence)
            sequence += len(events)


@dataclass(frozen=True)
class _Last:
    """What the snapshot before said: running totals and best prices (0 where there was none)."""

    volume: float = 0.0
    amount: float = 0.0
    bid: float = 0.0
    ask: float = 0.0


def _events(ts_ns: np.ndarray, numbers: dict[str, np.ndarray], before: _Last) -> tuple[EventColumns, _Last]:
    """A fixed grid of slots a row (two trades, clear, ten levels), of which the empty ones are then left out."""
    rows, slots = len(ts_ns), 3 + 2 * LEVELS
    kind = np.full((rows, slots), int(Kind.LEVEL), np.int8)
    side, flags = np.zeros((rows, slots), np.int8), np.zeros((rows, slots), np.int32)
    price, size = np.zeros((rows, slots), np.int64), np.zeros((rows, slots), np.int64)
    present = np.zeros((rows, slots), bool)

    kind[:, :2], kind[:, 2], present[:, 2] = int(Kind.TRADE), int(Kind.CLEAR), True
    price[:, :2], size[:, :2], side[:, :2] = _trades(numbers, before)
    present[:, :2] = size[:, :2] != 0
    for offset, (name, which) in enumerate(_SIDES):
        for k in range(LEVELS):
            slot = 3 + 2 * k + offset
            quoted = numbers[f"{name}{k + 1}"]
            price[:, slot] = _whole(quoted)
            size[:, slot] = _whole(numbers[f"{name}Size{k + 1}"])
            side[:, slot] = int(which)
            flags[:, slot] = k | np.where(_off_tick(quoted), int(Flag.SUB_TICK), 0)
    # A level without price and size is not there; one with only the one of them is wrong, and cleaning says so.
    present[:, 3:] = (price[:, 3:] != 0) | (size[:, 3:] != 0)
    last = slots - 1 - np.argmax(present[:, ::-1], axis=1)
    flags[np.arange(rows), last] |= int(Flag.LAST)

    events = EventColumns.build(
        np.repeat(ts_ns, slots).reshape(rows, slots)[present],
        kind[present],
        side[present],
        price[present],
        size[present],
        flags[present],
    )
    return events, _Last(*(float(numbers[name][-1]) for name in ("volume", "amount", "bid1", "ask1")))


def _trades(numbers: dict[str, np.ndarray], before: _Last) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Price, size and side `(rows, 2)` of the trades before each snapshot; size 0 where there was none.

    A running total that falls gives a trade of negative size, which cleaning quarantines: nothing is dropped here.
    """
    lots = _whole(np.diff(numbers["volume"], prepend=before.volume))
    amount = np.diff(numbers["amount"], prepend=before.amount)
    average = np.divide(amount, lots * TONS_PER_LOT, out=np.zeros(len(lots)), where=lots != 0)
    lower = np.floor(average + 1e-9)
    upper_lots = np.rint((average - lower) * lots)
    size = np.stack([lots - upper_lots, upper_lots], axis=1).astype(np.int64)
    price = np.stack([lower, lower + 1], axis=1).astype(np.int64)
    bid, ask = (
        _whole(np.concatenate([[first], numbers[name][:-1]]))[:, None]
        for name, first in (("bid1", before.bid), ("ask1", before.ask))
    )
    side = np.where((ask > 0) & (price >= ask), int(Side.BUY), np.where((bid > 0) & (price <= bid), int(Side.SELL), 0))
    return price, size, side.astype(np.int8)


def _whole(values: np.ndarray) -> np.ndarray:
    """Nearest whole number; 0 where the exchange gives none (NaN or its largest double)."""
    return np.rint(np.where(np.isfinite(values) & (np.abs(values) < _ABSENT), values, 0.0)).astype(np.int64)


def _off_tick(values: np.ndarray) -> np.ndarray:
    """Whether a price that is there lies between two ticks (of 1 CNY)."""
    there = np.isfinite(values) & (np.abs(values) < _ABSENT)
    return there & (np.abs(values - _whole(values)) > 1e-6)


def _floats(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def _require_totals(numbers: dict[str, np.ndarray], path: Path, first_row: int) -> None:
    """Refuse a file whose running totals are not numbers: every later trade would be wrong."""
    for name in ("volume", "amount"):
        bad = np.flatnonzero(~(numbers[name] >= 0) | (numbers[name] >= _ABSENT))
        if len(bad):
            value = numbers[name][bad[0]]
            raise InputError(
                f"{path}: row {first_row + int(bad[0]) + 1}: {name} is {value}, "
                f"a number from 0 up to {_ABSENT:g} is wanted"
            )


def _utc_ns(batch: pa.RecordBatch, path: Path, first_row: int) -> np.ndarray:
    column = batch.column("timestamp")
    if column.null_count:
        empty = first_row + column.is_null().index(True).as_py() + 1
        raise InputError(f"{path}: row {empty}: timestamp is empty")
    try:
        local = column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: a timestamp in rows from {first_row + 1} is beyond nanoseconds ({error})") from error
    beyond = np.flatnonzero(np.abs(local) >= _MAX_NS)
    if len(beyond):
        row = first_row + int(beyond[0]) + 1
        raise InputError(f"{path}: row {row}: timestamp is {column[int(beyond[0])]}, one from 1823 to 2116 is wanted")
    # China has kept one offset from UTC since 1991.
    offset = ZoneInfo(ZONE).utcoffset(datetime(2000, 1, 1))  # noqa: DTZ001
    return local - int(offset.total_seconds()) * NS  # type: ignore[union-attr]


def _product(path: Path) -> str:
    """What stands before the date in a file's name: `rb`, or a contract such as `rb2510`."""
    return path.stem[:-9]


def _names(asked: str, there: str) -> bool:
    """Whether `asked`, a product or a contract, may be in a file or contract `there`; case does not matter."""
    asked, there = asked.lower(), there.lower()
    letters = [re.sub(r"\d+$", "", text) for text in (asked, there)]
    return letters[0] == letters[1] and (asked == there or asked == letters[0] or there == letters[1])


def _contracts(asked: str, there: Iterable[str]) -> list[str]:
    """Contracts that `asked` means; itself where there is none, so that the error names it."""
    return [contract for contract in there if _names(asked, contract)] or [asked]


def _contract(path: Path) -> str:
    """The one contract of a file."""
    names: set[str] = set()
    for batch in _parquet_batches(path, ["instrumentID"]):
        names.update(str(value) for value in batch.column(0).unique().to_pylist())
    if not names:
        raise InputError(f"{path}: empty session, no row; fetch the file again or leave this day out of --from/--to")
    if len(names) > 1:
        raise InputError(f"{path}: holds {len(names)} contracts ({', '.join(sorted(names)[:5])}), one is wanted")
    name = names.pop()
    if not re.fullmatch(r"[A-Za-z]+\d+", name):
        raise InputError(f"{path}: instrumentID is {name[:40]!r}, a contract such as rb2510 is wanted")
    return name


def _parquet_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a snapshot file; raises InputError where it is no Parquet or lacks a column."""
    wanted = columns or ["timestamp", *_NUMBERS]
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: no column {missing[0]!r}; there: {', '.join(file.schema_arrow.names)}")
        for name in set(wanted) - {"timestamp", "instrumentID"}:
            kind = file.schema_arrow.field(name).type
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
                raise InputError(f"{path}: column {name!r} holds {kind}, numbers are wanted")
        if "timestamp" in wanted and not pa.types.is_timestamp(file.schema_arrow.field("timestamp").type):
            kind = file.schema_arrow.field("timestamp").type
            raise InputError(f"{path}: column 'timestamp' holds {kind}, a timestamp is wanted")
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            batch.validate(full=True)  # Arrow takes text from the file as it is, and fails where it is used
            yield batch
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); fetch the file again") from error
