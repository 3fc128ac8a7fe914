"""Reader of any CSV or Parquet files, by a `mapping.yaml` that says what their columns mean.

`--data FOLDER` holds `mapping.yaml` and the files that it names. All of this file, with every key (those marked
"optional" may be left out):

    instrument:                  # holds for every symbol, unless `symbols` says otherwise
      venue: XETR                # a folder name: letters, digits, . _ + -
      tick_size: 0.01            # currency per price tick
      lot_size: 1                # optional, 1: units per lot
      currency: EUR
      timezone: Europe/Berlin    # IANA name of the venue's local time
      windows:                   # trading windows of a session date, local time
        - {open: "09:00:00", close: "17:30:00"}
        # optional in a window: `days_before: 1` where it opens the evening before, on the weekday before or, with
        # `skips_weekends: false`, on the calendar day before
      depth: 1                   # optional, 1: visible levels a side
      latency_ms: 5              # optional, 10: from a decision to the venue
    symbols:                     # optional: what differs for one symbol
      SAP: {tick_size: 0.02}     # tick_size, lot_size, currency, depth
    files:                       # where two files share a time, the one listed first goes first
      # {symbol}, {date} (YYYY-MM-DD or YYYYMMDD) and *; several files of one day are read in the order of their names
      - path: trades/{symbol}_{date}_t.csv.gz
        kind: trades
        time: {column: time, unit: iso, timezone: Europe/Berlin}   # ISO 8601; no timezone: the text names its zone
        received: {column: recv, unit: ns}                         # optional; s, ms, us or ns since the epoch (UTC)
        columns: {price: px, size: qty, side: aggressor, order_id: order, condition: cond}   # optional: the last three
        price_unit: 0.0001       # optional, 1: currency per unit of the price columns
        size_unit: 1             # optional, 1: units (not lots) per unit of the size columns
        sides: {B: buy, S: sell, "*": none}     # with a side column; "*": all values that are not listed
        conditions: {"": [], T: [late], I: [odd_lot], X: [cancelled], D: [derived], H: [hidden], "?": [suspicious]}
        header: [time, recv, px, qty, aggressor, order, cond]   # optional, true: line 1 names the columns
        separator: ";"           # optional, ","
        quoted: true             # optional, false: whether fields may stand in double quotes
      - path: quotes_{date}.parquet
        kind: quotes
        symbol_column: ticker    # instead of {symbol}; or `symbol: SAP` where neither path nor column names it
        time: {column: ms, unit: ms, since: midnight, timezone: Europe/Berlin}   # of the session date
        columns: {bid: b, bid_size: bs, ask: a, ask_size: as}    # without sizes: size 1, flagged NO_SIZE
      - path: orders.parquet
        kind: orders
        symbol: SAP
        date_column: day         # instead of {date}: session date, YYYY-MM-DD or YYYYMMDD
        time: {column: ts, unit: us}
        columns: {action: type, order_id: id, side: bs, price: px, size: qty}   # optional: condition
        actions: {A: add, D: cancel, U: replace, E: trade, R: clear, H: halt, "*": skip}
        sides: {B: buy, S: sell}
        trade_side: resting      # optional, aggressor: whose side a trade's row names

Events keep the order of a file's rows; files of one day are merged in time, each in its own order even where its clock
runs back. `size` of a cancel is what leaves the book, of a replace what rests afterwards (schema.Kind). A price between
two ticks becomes the nearest, flagged SUB_TICK. Refused is a size that is no whole number of lots, and a value that is
empty, no number or not listed; but of a row that clears or halts only the time is read, of one that is skipped nothing.
A file of several symbols or days is read once for each, and the rows of the others are counted there. A local time
that the end of daylight saving makes ambiguous is refused: such files need their times in UTC.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.mapped_spec import MAPPING_FILE, NAME, FileSpec, Mapping, load_mapping
from feature_repo.ticks.mapped_table import Rows, table_rows
from feature_repo.ticks.merging import merge_in_time
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook
from feature_repo.ticks.two_sided import NO_BID, TwoSided

_HINT = f"the folder that holds {MAPPING_FILE} and the files that it names"
_SIDES = {"buy": int(Side.BUY), "sell": int(Side.SELL), "none": int(Side.NONE)}
_SKIP = 0
_ACTIONS = {
    **{name: int(Kind[name.upper()]) for name in ("add", "cancel", "replace", "trade", "clear", "halt")},
    "skip": _SKIP,
}


@dataclass(frozen=True)
class _Source:
    """Files of one spec that one partition is read from, in their order."""

    spec: FileSpec
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class MappedPlan(PartitionPlan):
    """A plan that also says what each file's columns mean."""

    sources: tuple[_Source, ...] = ()
    mapping: Mapping | None = None


class MappedReader:
    """Files of any layout that `mapping.yaml` can describe."""

    name = "mapped"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each symbol and session date that the files hold."""
        folder = data_folder(request, _HINT)
        mapping = load_mapping(folder / MAPPING_FILE)
        days = _days_by_symbol(folder, mapping)
        symbols = choose_symbols(request, days, folder)
        in_range = choose_days(request, {day: day for symbol in symbols for day in days[symbol]}, ", ".join(symbols))
        if request.symbols:  # a symbol that is asked for by name must have a day of its own
            for symbol in symbols:
                choose_days(request, days[symbol], symbol)
        digest = hashlib.sha256(mapping.model_dump_json().encode()).hexdigest()
        return [
            _plan(Partition(mapping.instrument.venue, symbol, day), days[symbol][day], mapping, digest)
            for symbol in symbols
            for day in in_range
            if day in days[symbol]
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """What the mapping says of each symbol."""
        plans = [plan for plan in self.plan(request) if isinstance(plan, MappedPlan)]
        mapping_of = {plan.partition.symbol: plan.mapping for plan in plans if plan.mapping is not None}
        return [mapping.instrument_of(symbol) for symbol, mapping in sorted(mapping_of.items())]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Events of all files of the partition, merged in time."""
        if not isinstance(plan, MappedPlan) or plan.mapping is None:
            raise InputError(
                f"{plan.partition.instrument_id}: not a plan of the mapped reader; let it plan the request"
            )
        sequence = 0
        for events in merge_in_time(
            [_source_events(source, plan.mapping, plan.partition, count) for source in plan.sources]
        ):
            yield event_batch(events, sequence)
            sequence += len(events)


def _plan(partition: Partition, files: dict[int, list[Path]], mapping: Mapping, digest: str) -> MappedPlan:
    """The plan of a partition; rows are accounted for by file name, so no two of its files may share one."""
    sources = tuple(_Source(mapping.files[index], tuple(files[index])) for index in sorted(files))
    inputs = tuple(dict.fromkeys(path for source in sources for path in source.paths))
    named: dict[str, Path] = {}
    for path in inputs:
        if named.setdefault(path.name, path) != path:
            raise InputError(f"{path}: has the name of {named[path.name]}, of the same day; rename one of them")
    # The options go into the partition's key: with another mapping it is read again.
    return MappedPlan(partition, inputs, {"mapping_sha256": digest}, None, sources, mapping)


def _days_by_symbol(folder: Path, mapping: Mapping) -> dict[str, dict[str, dict[int, list[Path]]]]:
    """Files by symbol, ISO date and index of their spec."""
    days: dict[str, dict[str, dict[int, list[Path]]]] = {}
    for index, spec in enumerate(mapping.files):
        matched = 0
        for path in _glob(folder, spec.glob):
            match = spec.match(path.relative_to(folder).as_posix())
            if match is None or not path.is_file():
                continue
            matched += 1
            for symbol, day in _contents(path, spec, match.groupdict()):
                if not NAME.fullmatch(symbol):
                    raise InputError(f"{path}: symbol {symbol[:70]!r}; letters, digits, . _ + - are wanted")
                days.setdefault(symbol, {}).setdefault(day, {}).setdefault(index, []).append(path)
        if not matched:
            raise InputError(f"{folder / MAPPING_FILE}: files.{index}.path: no file is named {spec.path}")
    for symbol in mapping.symbols:
        if symbol not in days:
            raise InputError(f"{folder / MAPPING_FILE}: symbols.{symbol}: no file holds it; there: {sorted(days)}")
    return days


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{folder / MAPPING_FILE}: path {pattern[:80]!r} cannot be looked for ({error})") from error


def _contents(path: Path, spec: FileSpec, named: dict[str, str]) -> set[tuple[str, str]]:
    """Symbols and ISO dates of a file's rows: from its name, or from one pass over the columns that tell them."""
    symbol, day = spec.symbol or named.get("symbol"), named.get("date")
    day = None if day is None else _session_date(day, path)
    columns = [name for name in (spec.symbol_column, spec.date_column) if name is not None]
    if not columns:
        return {(str(symbol), str(day))}
    found: set[tuple[str, str]] = set()
    for rows in table_rows(path, spec, columns):
        texts = [rows.texts(name) for name in columns]
        for pair in np.unique(np.stack([index for _, index in texts]), axis=1).T:
            values = dict(zip(columns, (known[at] for (known, _), at in zip(texts, pair, strict=True)), strict=True))
            own_day = day if spec.date_column is None else _session_date(values[spec.date_column], path)
            found.add((symbol if spec.symbol_column is None else values[spec.symbol_column], own_day))  # type: ignore[arg-type]
    if not found:
        raise InputError(f"{path}: empty session, no row; fetch the file again or take it out of the folder")
    return found


def _session_date(text: str, path: Path) -> str:
    digits = text.replace("-", "")
    if len(digits) != 8 or not digits.isascii() or not digits.isdigit():
        raise InputError(f"{path}: session date {text[:40]!r}, one as YYYY-MM-DD or YYYYMMDD is wanted")
    return iso_date(digits, path)


def _source_events(source: _Source, mapping: Mapping, partition: Partition, count: ReadCount) -> Iterator[EventColumns]:
    """Events of a source's files in turn; no batch is empty."""
    make = _Quotes(source.spec, mapping, partition) if source.spec.kind == "quotes" else _Orders(
        source.spec, mapping, partition
    )  # fmt: skip
    for path in source.paths:
        for rows in table_rows(path, source.spec):
            count.add(path.name, len(rows))
            kept = _of_partition(rows, source.spec, partition)
            count.leave(path.name, len(rows) - len(kept))
            events = make(kept, count) if len(kept) else None
            if events is not None and len(events):
                yield events


def _of_partition(rows: Rows, spec: FileSpec, partition: Partition) -> Rows:
    keep = np.ones(len(rows), bool)
    if spec.symbol_column is not None:
        texts, index = rows.texts(spec.symbol_column)
        keep &= np.array([text == partition.symbol for text in texts])[index]
    if spec.date_column is not None:
        texts, index = rows.texts(spec.date_column)
        keep &= np.array([_session_date(text, rows.path) == partition.date for text in texts])[index]
    return rows.where(keep)


class _Maker:
    """Makes events of the rows of one source."""

    def __init__(self, spec: FileSpec, mapping: Mapping, partition: Partition) -> None:
        self._spec, self._day = spec, partition.date
        self._ticks = mapping.ticks_per_unit(partition.symbol, spec)
        self._lots = mapping.lots_per_unit(partition.symbol, spec)

    def _times(self, rows: Rows) -> tuple[np.ndarray, np.ndarray | None]:
        received = self._spec.received
        return rows.times(self._spec.time, self._day), None if received is None else rows.times(received, self._day)

    def _price(self, rows: Rows, role: str) -> tuple[np.ndarray, np.ndarray]:
        ticks, between = rows.units(self._spec.columns[role], self._ticks)
        return ticks, np.where(between, int(Flag.SUB_TICK), 0)

    def _size(self, rows: Rows, role: str) -> np.ndarray:
        lots, between = rows.units(self._spec.columns[role], self._lots)
        if between.any():
            rows.refuse(
                int(np.argmax(between)), self._spec.columns[role], f"a multiple of {float(1 / self._lots):g} is wanted"
            )
        return lots


class _Quotes(_Maker):
    """Two QUOTE events a row."""

    _bid = NO_BID

    def __call__(self, rows: Rows, count: ReadCount) -> EventColumns:
        ts_ns, recv_ns = self._times(rows)
        (bid, bid_flags), (ask, ask_flags) = self._price(rows, "bid"), self._price(rows, "ask")
        if "bid_size" in self._spec.columns:
            quotes = TwoSided(
                ts_ns,
                bid,
                ask,
                self._size(rows, "bid_size"),
                self._size(rows, "ask_size"),
                bid_flags,
                ask_flags,
                recv_ns,
            )
        else:
            no_size = int(Flag.NO_SIZE)
            quotes = TwoSided(ts_ns, bid, ask, 1, 1, bid_flags | no_size, ask_flags | no_size, recv_ns)
        events = quotes.events(self._bid)
        self._bid = int(bid[-1])
        return events


class _Orders(_Maker):
    """One event a row: a trade, or what an action does to an order; a skipped row gives none."""

    def __call__(self, rows: Rows, count: ReadCount) -> EventColumns:
        spec, kind = self._spec, np.full(len(rows), int(Kind.TRADE))
        if spec.kind == "orders":
            kind = rows.codes(spec.columns["action"], {text: _ACTIONS[name] for text, name in spec.actions.items()})
            count.skip(rows.path.name, "an action that the mapping skips", int((kind == _SKIP).sum()))
            rows, kind = rows.where(kind != _SKIP), kind[kind != _SKIP]
        whole = (kind != int(Kind.CLEAR)) & (kind != int(Kind.HALT))
        ts_ns, recv_ns = self._times(rows) if len(rows) else (np.empty(0, np.int64), None)
        columns = {name: np.zeros(len(rows), np.int64) for name in ("side", "price", "size", "order_id", "flags")}
        told = rows.where(whole)
        if len(told):
            for name, values in self._told(told, kind[whole]).items():
                columns[name][whole] = values
        return EventColumns.build(
            *(ts_ns, kind, columns["side"], columns["price"], columns["size"], columns["flags"], columns["order_id"]),
            ts_recv_ns=recv_ns,
        )

    def _told(self, rows: Rows, kind: np.ndarray) -> dict[str, np.ndarray | int]:
        """Columns of the rows that say side, price and size."""
        roles, spec = self._spec.columns, self._spec
        price, flags = self._price(rows, "price")
        side: np.ndarray | int = 0
        if "side" in roles:
            side = rows.codes(roles["side"], {text: _SIDES[name] for text, name in spec.sides.items()})
            if spec.trade_side == "resting":
                side = np.where(kind == int(Kind.TRADE), -side, side)
        if "condition" in roles:
            meaning = {
                text: sum(int(Flag[name.upper()]) for name in set(names)) for text, names in spec.conditions.items()
            }
            flags = flags | rows.codes(roles["condition"], meaning)
        order_id = rows.integers(roles["order_id"]) if "order_id" in roles else 0
        return {"side": side, "price": price, "size": self._size(rows, "size"), "order_id": order_id, "flags": flags}
