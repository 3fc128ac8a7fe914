"""Reader of Databento DBN files: orders (mbo), depth (mbp-10), best quotes (mbp-1, tbbo) and trades.

A session date is a UTC day, as Databento splits its files (by receive time): a night session of futures lies on two of
them, and each file opens with a snapshot of the book. A file of several days gives a partition for each one that it
holds records of; there the orders that rest at midnight UTC, flagged CARRIED, open the book.

| mbo record | event |
| --- | --- |
| A | ADD; as top of book (F_TOB) a QUOTE |
| C | CANCEL of the lots; of an order that is not alive SUSPICIOUS, for cleaning to quarantine |
| M | fewer lots at the same price: CANCEL of the difference, the order keeps its place; else REPLACE; unknown: ADD |
| R, or the first record of a snapshot | CLEAR; a snapshot's events bear the time when it was made |
| T | TRADE of no order: 'trades do not affect the book', the C or M of each filled order that follows does |
| F | none, see T; but an M that leaves more than the fills did sends the order to the back (an iceberg's next part) |
| F_MAYBE_BAD_BOOK | CLEAR flagged GAP where it first appears: the channel lost messages |

`sequence` numbers a channel of many instruments, so a hole in it says nothing of one of them and is not judged.
mbp-10 gives CLEAR and LEVEL events for each record, mbp-1 and tbbo a QUOTE for each side that changed, and T a TRADE.

CME's futures rest from 16:00 to 17:00 in Chicago, while orders gather and may cross: the book is cleared at 16:00, what
comes in the hour is folded into the opening book, CLEAR and the standing orders as ADD flagged CARRIED at 17:00.

The tick size is the option `tick_size`, else known (common CME futures, US equities), else the greatest common divisor
of the prices among the first records. Sources: Databento, 'Market by order', 'Order tracking', 'MBO snapshots'.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks import databento_kernel as kernel
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.databento_files import SCHEMAS, DbnFile, held_days, read_metadata, rest_ns, tick_units
from feature_repo.ticks.databento_records import (
    Records,
    RecordStream,
    level_events,
    quote_events,
    trade_events,
)
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.order_table import FLAGS, OrderTable, to_events
from feature_repo.ticks.reader import IngestRequest, Option, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder
from feature_repo.ticks.standing import StandingBook
from feature_repo.ticks.streams import open_stream

_FILE = re.compile(r".+\.dbn(\.zst)?", re.IGNORECASE)
_OPTIONS = ("schema", "tick_size", "publisher", "currency")
_HINT = "the folder that holds *.dbn or *.dbn.zst"


class DatabentoReader:
    """DBN files of one venue's instruments."""

    name = "databento"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each symbol and UTC day; the symbol is the one that was asked of Databento."""
        folder = data_folder(request, _HINT)
        _require_options(request)
        found: dict[tuple[str, str], DbnFile] = {}
        for path in sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name)):
            file = read_metadata(path)
            if request.options.get("schema", file.schema) != file.schema:
                continue
            for key in file.instruments:
                twin = found.setdefault(key, file)
                if twin is not file:
                    raise InputError(
                        f"{path}: holds {key[0]} on {key[1]} as {file.schema}, and so does {twin.path} as "
                        f"{twin.schema}; set the option schema, or remove one of them"
                    )
        symbols = choose_symbols(request, {symbol for symbol, _ in found}, folder)
        days = choose_days(request, {day: day for symbol, day in found if symbol in symbols}, ", ".join(symbols))
        plans, files = [], {file.path: file for file in found.values()}
        for symbol in symbols:
            held = {path: held_days(file, symbol) for path, file in files.items()}
            own = [day for day in days if (symbol, day) in found and day in held[found[symbol, day].path]]
            units = tick_units(found[symbol, own[0]], symbol, own[0], request) if own else 0
            for day in own:
                file = found[symbol, day]
                options: dict[str, Option] = {"schema": file.schema, "tick_units": units}
                options |= {name: value for name, value in request.options.items() if name == "publisher"}
                venue = file.dataset.split(".")[0]
                plans.append(PartitionPlan(Partition(venue, symbol, day), (file.path,), options))
        if not plans:
            there = ", ".join(path.name for path in files)
            raise InputError(f"{folder}: no record of {', '.join(symbols)} on {', '.join(days)} in {there}")
        return plans

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """One contract or share a lot, the whole UTC day; prices in the option `currency` (USD)."""
        day, currency = (SessionWindow("00:00:00", "00:00:00"),), str(request.options.get("currency", "USD"))
        facts: dict[tuple[str, str], tuple[float, int]] = {}
        for plan in self.plan(request):
            levels = SCHEMAS[str(plan.options["schema"])]
            _, deepest = facts.get((plan.partition.venue, plan.partition.symbol), (0.0, 0))
            tick = int(plan.options["tick_units"]) / 1e9
            facts[plan.partition.venue, plan.partition.symbol] = (tick, max(levels, deepest))
        return [
            Instrument(venue, symbol, tick, 1.0, currency, "UTC", day, levels, False, 10_000_000)
            for (venue, symbol), (tick, levels) in sorted(facts.items())
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Events of one instrument and UTC day."""
        sequence = 0
        for events in _events(plan, count):
            if len(events):
                yield event_batch(events, sequence)
                sequence += len(events)
        if not sequence:
            raise InputError(
                f"{plan.inputs[0]}: empty session, no event of {plan.partition.symbol} on {plan.partition.date}; fetch "
                "the file again or leave this day out of --from/--to"
            )


def _events(plan: PartitionPlan, count: ReadCount) -> Iterator[EventColumns]:
    """Events of the plan's file, chunk by chunk."""
    (path,) = plan.inputs
    file, units = read_metadata(path), int(plan.options["tick_units"])
    symbol, day = plan.partition.symbol, plan.partition.date
    stream = RecordStream(path, file.layout, file.instruments[symbol, day], file.start)
    boundaries = list(rest_ns(file, symbol, day))
    continued = day != file.days[0]  # the snapshot stands at the file's start, not the day's
    if continued:
        boundaries.insert(0, _utc_ns(day))
    orders, best = _Orders(boundaries, continued, units, stream.counts), np.zeros(4, np.int64)
    with open_stream(path) as content:
        content.read(file.start)
        for records in stream.records(content):
            chosen = _choose(records, file, plan, count)
            if not len(chosen.raw):
                continue
            if file.schema == "mbo":
                yield from orders.events(_fold_before(chosen, _utc_ns(day), count, stream) if continued else chosen)
            elif file.schema == "mbp-10":
                yield level_events(chosen, units, stream.counts)
            elif file.schema == "trades":
                yield trade_events(chosen, units, stream.counts)
            else:
                quotes, best = quote_events(chosen, best, units, stream.counts)
                yield quotes
    stream.account(count)
    yield from orders.end()


class _Orders:
    """Drives the kernel over MBO records, from one end or start of a session to the next."""

    def __init__(self, boundaries: list[int], folding: bool, units_per_tick: int, counts: np.ndarray) -> None:
        """Sessions end and open, in turn, at `boundaries` (ns); `folding`: the first of them is an opening."""
        self._table, self._units, self._counts = OrderTable(), units_per_tick, counts
        self._boundaries, self._folding, self._seen = boundaries, folding, False
        self._held = np.empty((0, 8), np.int64)

    def events(self, found: Records) -> Iterator[EventColumns]:
        """Events of the next records; the last one of a chunk that ends within a snapshot waits for what follows."""
        raw, at, rows, self._seen = found.raw, 0, len(self._held), True
        self._table.reserve(len(raw))
        table, out = self._table, np.empty((3 * len(raw) + 1, 8), np.int64)
        out[:rows] = self._held
        columns = [found.ts_ns, found.recv_ns, raw["order_id"].astype(np.int64), found.price]
        columns += [raw["size"].astype(np.int64), *(raw[name].copy() for name in ("flags", "action", "side"))]
        while True:
            boundary_ns = self._boundaries[0] if self._boundaries else np.iinfo(np.int64).max
            state: tuple[Any, ...] = (table.keys, table.rows, table.state, out, self._counts)
            at, rows = kernel.apply_orders(at, rows, boundary_ns, self._folding, *columns, *state)
            if at == len(raw):
                break
            yield from self._whole(out[:rows])
            yield self._cross(self._boundaries.pop(0))
            rows = 0
        within = bool(rows and self._counts[kernel.IN_SNAPSHOT])
        self._held = out[rows - within : rows].copy()
        if rows > within:
            yield to_events(out[: rows - within], self._units)

    def end(self) -> Iterator[EventColumns]:
        """What waits, and the end of a session that no later record tells of: its book does not stand on after it."""
        yield from self._whole(self._held)
        if self._boundaries and self._seen and not self._folding:
            yield self._cross(self._boundaries.pop(0))

    def _whole(self, rows: np.ndarray) -> Iterator[EventColumns]:
        if len(rows):
            if self._counts[kernel.IN_SNAPSHOT]:
                rows[-1, FLAGS] |= int(Flag.LAST)
                self._counts[kernel.IN_SNAPSHOT] = 0
            yield to_events(rows, self._units)

    def _cross(self, boundary_ns: int) -> EventColumns:
        self._folding = not self._folding
        if self._folding:
            return EventColumns.build(np.array([boundary_ns]), int(Kind.CLEAR), int(Side.NONE), 0, 0, int(Flag.LAST))
        return self._table.opening(boundary_ns, self._units)


def _choose(found: Records, file: DbnFile, plan: PartitionPlan, count: ReadCount) -> Records:
    """The records of the plan's day and venue; raises InputError where two venues' books would be mixed."""
    name, kept = file.path.name, np.ones(len(found.raw), bool)
    if len(file.days) > 1:
        day_ns = _utc_ns(plan.partition.date)
        kept = found.recv_ns < day_ns + 86_400 * NS
        if file.schema != "mbo":  # of orders those that still rest are wanted
            kept &= found.recv_ns >= day_ns
        count.leave(name, int(np.count_nonzero(~kept)))
    publishers = np.unique(found.raw["publisher"][kept])
    if "publisher" in plan.options:
        own = found.raw["publisher"] == int(plan.options["publisher"])
        count.skip(name, "another publisher's record", int(np.count_nonzero(kept & ~own)))
        kept &= own
    elif len(publishers) > 1:
        raise InputError(
            f"{file.path}: records of publishers {', '.join(map(str, publishers))} for {plan.partition.symbol}, whose "
            "books are apart; set the option publisher to one of them"
        )
    if kept.all():
        return found
    return found.take(kept)


def _fold_before(found: Records, day_ns: int, count: ReadCount, stream: RecordStream) -> Records:
    """Records of earlier days end before this one, whatever their clocks; they are those days' own in the count."""
    earlier = found.recv_ns < day_ns
    rows = int(np.count_nonzero(earlier))
    count.leave(stream.path.name, rows)
    stream.counts[kernel.FOLDED] -= rows
    return replace(found, ts_ns=np.where(earlier, np.minimum(found.ts_ns, day_ns - 1), found.ts_ns))


def _require_options(request: IngestRequest) -> None:
    options = request.options
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise InputError(f"source databento has no option {sorted(unknown)[0]}; there: {', '.join(_OPTIONS)}")
    if options.get("schema", "mbo") not in SCHEMAS:
        raise InputError(f"option schema={options['schema']} is none of {', '.join(SCHEMAS)}")
    for name, low, high in (("tick_size", 1e-9, 1e6), ("publisher", 1, 65_535)):
        value = options.get(name, 1)
        if not isinstance(value, int | float) or not low <= value <= high or (name == "publisher" and value % 1):
            raise InputError(f"option {name}={value} is not a number from {low} to {high}")


def _utc_ns(day: str) -> int:
    return int(datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()) * NS
