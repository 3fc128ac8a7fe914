"""Reader of Bitstamp's order-by-order recordings (BTCUSD): one CSV of what became of each order, any number of days.

`id, timestamp, exchange.timestamp, price, volume, action, direction`: receive time in ms, the time at which the order
was *placed* in whole seconds (so no event time: a deletion repeats it), USD, what is left of the order in 1e-8 BTC,
created / changed / deleted, bid / ask. Event time is the receive time. There is no snapshot: the book is what has been
seen since the file begins, and of orders from before it only their end is seen.

* created: ADD. deleted with something left: CANCEL of that. changed with another price or with more left: REPLACE
  (market orders follow the price that way). changed, of an order not seen before: ADD of what is left.
* Less left than before at the same price, or deleted with nothing left, is an execution. Its two orders stand in two
  rows that follow one another: of opposite sides, received within 100 ms, prices crossing, and the same volume within
  1e-7 BTC (Bitstamp rounds through dollars), or of one of them unknown since the file does not create the order. The
  order with the lower id rested: it gives TRADE at its price; the other one is the aggressor and gives CANCEL of what
  it bought or sold, since it was created in the book: until it is matched, 0.12 s in the median and 0.58 s at the most,
  the book is crossed. Of the sample's 569 pairs 479 are of equal volume, 65 differ by 1e-8 or 2e-8 BTC, and of 25 the
  resting order is unknown.
* An execution whose other side is not told that way (7 in the sample) gives CANCEL: who rested nobody says.
* A row of an order that was deleted up to 10 s before came too late (Bitstamp's messages overtake each other by up to
  13 ms): it gives no event and is counted, so that no order stays for ever.

Sizes are in lots of 1e-5 BTC: a book's int32 then holds 21,474 BTC at one price. What is *left* of an order is rounded
up, and events are its differences: a resting order never vanishes, and all of its events together leave nothing. An
execution that moves no lot gives no event and is counted.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.csv_numbers import Column, CsvBatch, csv_batches
from feature_repo.ticks.instruments import Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder
from feature_repo.ticks.standing import StandingBook

VENUE, SYMBOL = "BITSTAMP", "BTCUSD"
UNITS_PER_LOT = 1_000  # volumes in 1e-8 BTC, lots of 1e-5 BTC
DEPTH = 10
PAIR_MS, PAIR_UNITS = 100, 10
LATE_MS = 10_000
DAY_MS = 86_400_000
MAX_BACK_MS = 3_600_000
"""Receive times overtake each other by milliseconds; by an hour, the file is damaged or several are mixed."""
_ACTIONS = CREATED, CHANGED, DELETED = "created", "changed", "deleted"
_COLUMNS = (
    Column("id", 1, 2**62),
    Column("timestamp", 1_000_000_000_000, 4_102_444_800_000),  # 2001 to 2100
    Column("exchange.timestamp", 0, 4_102_444_800_000),
    Column("price", 0, 10**12, decimals=2),
    Column("volume"),
    Column("action", words=_ACTIONS),
    Column("direction", words=("bid", "ask")),
)
_FILE = re.compile(r"orders\.csv(\.\w+)?")
_HINT = "the folder that holds orders.csv or orders.csv.xz"
_LATE = "of an order that was deleted just before"
_SAME = "nothing changed"
_UNSEEN = "end of an order from before the file, its size not told"
_SMALL = "executed less than a lot"


class BitstampReader:
    """Bitstamp BTCUSD, order by order."""

    name = "bitstamp"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each UTC day that the file reaches."""
        folder = data_folder(request, _HINT)
        files = sorted(path for path in folder.iterdir() if path.is_file() and _FILE.fullmatch(path.name))
        if len(files) > 1:
            raise InputError(f"{files[1]}: holds the same instrument as {files[0]}; remove one of them")
        choose_symbols(request, {SYMBOL} if files else set(), folder)
        found = dict.fromkeys((day for _, day in _by_day(files[0])), SYMBOL)
        if not found:
            raise InputError(f"{files[0]}: empty session, no row; fetch the file again")
        days = choose_days(request, found, SYMBOL)
        return [PartitionPlan(Partition(VENUE, SYMBOL, day), (files[0],)) for day in days]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """BTCUSD: 0.01 USD a tick, 1e-5 BTC a lot, day and night; orders took about 100 ms to show in 2015."""
        windows = (SessionWindow("00:00:00", "00:00:00"),)
        return [Instrument(VENUE, SYMBOL, 0.01, 1e-5, "USD", "UTC", windows, DEPTH, False, 100_000_000)]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Orders of one day; those that rest from the file's days before open it (CLEAR, ADD flagged CARRIED)."""
        (path,) = plan.inputs
        orders, sequence, earlier = _Orders(path.name), 0, False
        for batch, day in _by_day(path):
            if day > plan.partition.date:
                break
            if day < plan.partition.date:
                orders.take(batch, ReadCount())
                orders.finished(last=True)
                earlier = True
                continue
            made = []
            if earlier:
                made, earlier = [orders.standing(int(batch.columns["timestamp"][0]))], False
            orders.take(batch, count)
            count.add(path.name, batch.rows)
            for events in [*made, orders.finished()]:
                yield event_batch(events, sequence)
                sequence += len(events)
        yield event_batch(orders.finished(last=True), sequence)


class _Resting(NamedTuple):
    """An order as it was last seen."""

    price_ticks: int
    volume: int  # 1e-8 BTC
    side: int


class _Event(NamedTuple):
    ts_ms: int
    kind: Kind
    side: int
    price_ticks: int
    lots: int
    order: int


class _Fill(NamedTuple):
    """An execution of one order, told by one row; the order was not seen before where `before` is None."""

    ts_ms: int
    order: int
    side: int
    price_ticks: int
    before: int | None  # volume before and after, 1e-8 BTC
    after: int

    def meets(self, other: "_Fill") -> bool:
        """Whether the two are the two sides of one execution."""
        if self.side == other.side or abs(self.ts_ms - other.ts_ms) > PAIR_MS:
            return False
        bid, ask = (self, other) if self.side == int(Side.BUY) else (other, self)
        if bid.price_ticks < ask.price_ticks or bid.before is None and ask.before is None:
            return False
        if bid.before is None or ask.before is None:
            return True
        return abs((bid.before - bid.after) - (ask.before - ask.after)) <= PAIR_UNITS


class _Orders:
    """Follows the orders that live, and makes events of rows; of deleted orders it remembers the last ten seconds'."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._live: dict[int, _Resting] = {}
        self._gone: dict[int, int] = {}  # receive time in ms of the deletion by id, oldest first
        self._events: list[_Event] = []
        self._held: _Fill | None = None  # the last row, where it is an execution whose other side may be the next one
        self._count = ReadCount()

    def take(self, batch: CsvBatch, count: ReadCount) -> None:
        """Work rows in; those that give no event are counted in `count`."""
        self._count = count
        names = ("id", "timestamp", "price", "volume", "action", "direction")
        for order, ts_ms, price, volume, action, direction in zip(
            *(batch.columns[name].tolist() for name in names), strict=True
        ):
            side = int(Side.BUY) if direction == 0 else int(Side.SELL)
            made = self._row(order, ts_ms, price, volume, _ACTIONS[action], side)
            held, self._held = self._held, None
            if held is not None and isinstance(made, _Fill) and held.meets(made):
                resting = min(held, made, key=lambda fill: fill.order)
                for fill, other in ((held, made), (made, held)):
                    self._settle(fill, other if fill is resting else None)
                continue
            if held is not None:
                self._settle(held, None)
            if isinstance(made, _Fill):
                self._held = made
            elif made is not None:
                self._events.append(made)

    def finished(self, last: bool = False) -> EventColumns:
        """Events since the last call, without the row whose other side may follow; with it where it is the `last`."""
        if last and self._held is not None:
            self._settle(self._held, None)
            self._held = None
        events, self._events = self._events, []
        if not events:
            return EventColumns.concatenate([])
        ts_ms, kind, side, price, lots, order = (np.array(column, np.int64) for column in zip(*events, strict=True))
        return EventColumns.build(ts_ms * 1_000_000, kind, side, price, lots, 0, order)

    def standing(self, ts_ms: int) -> EventColumns:
        """The orders that live as a snapshot flagged CARRIED: CLEAR, then ADD in the order of their ids."""
        orders = sorted(self._live.items())
        columns = np.array([(item.side, item.price_ticks, _lots(item.volume), order) for order, item in orders])
        side, price, lots, ids = columns.reshape(-1, 4).T
        flags = np.full(len(orders) + 1, int(Flag.CARRIED))
        flags[-1] |= int(Flag.LAST)
        kind = np.concatenate([[int(Kind.CLEAR)], np.full(len(orders), int(Kind.ADD))])
        parts = (np.concatenate([[0], part]).astype(np.int64) for part in (side, price, lots, ids))
        side, price, lots, ids = parts
        ts_ns = np.full(len(kind), ts_ms * 1_000_000, np.int64)
        return EventColumns.build(ts_ns, kind, side, price, lots, flags, ids)

    def _row(self, order: int, ts_ms: int, price: int, volume: int, action: str, side: int) -> _Event | _Fill | None:
        """What one row says: an event, an execution, or nothing (counted)."""
        if ts_ms - self._gone.get(order, -LATE_MS - 1) <= LATE_MS:
            self._nothing(_LATE)
            return None
        known = self._live.get(order)
        if action == DELETED:
            self._forget(order, ts_ms)
            if volume == 0:
                return _Fill(ts_ms, order, side, price, known.volume if known else None, 0)
            if known is None:
                return _Event(ts_ms, Kind.CANCEL, side, price, _lots(volume), order)
            return _Event(ts_ms, Kind.CANCEL, known.side, known.price_ticks, _lots(known.volume), order)
        if volume > 0:
            self._live[order] = _Resting(price, volume, side)
        else:
            self._live.pop(order, None)
        if action == CHANGED and (known is None or (known.price_ticks == price and volume < known.volume)):
            return _Fill(ts_ms, order, side, price, known.volume if known else None, volume)
        if known == _Resting(price, volume, side):
            self._nothing(_SAME)
            return None
        return _Event(ts_ms, Kind.REPLACE if known else Kind.ADD, side, price, _lots(volume), order)

    def _settle(self, fill: _Fill, aggressor: _Fill | None) -> None:
        """Events of an execution: TRADE of a resting order where its aggressor is known, else CANCEL."""
        ts_ms, order, side, price, before, after = fill
        lots = 0 if before is None else _lots(before) - _lots(after)
        if before is None and aggressor is not None and aggressor.before is not None:
            traded = aggressor.before - aggressor.after
            lots = _lots(after + traded) - _lots(after)
            if after > 0:
                self._events.append(_Event(ts_ms, Kind.ADD, side, price, _lots(after + traded), order))
        elif before is None and after > 0:
            self._events.append(_Event(ts_ms, Kind.ADD, side, price, _lots(after), order))
            return
        if lots == 0:
            self._nothing(_UNSEEN if before is None else _SMALL)
        elif aggressor is None:
            self._events.append(_Event(ts_ms, Kind.CANCEL, side, price, lots, order))
        else:
            self._events.append(_Event(ts_ms, Kind.TRADE, aggressor.side, price, lots, order))

    def _forget(self, order: int, ts_ms: int) -> None:
        self._live.pop(order, None)
        self._gone.pop(order, None)
        self._gone[order] = ts_ms
        while (oldest := next(iter(self._gone))) != order and ts_ms - self._gone[oldest] > LATE_MS:
            del self._gone[oldest]

    def _nothing(self, reason: str) -> None:
        self._count.skip(self._file, reason, 1)


def _lots(volume: int) -> int:
    return -(-volume // UNITS_PER_LOT)


def _by_day(path: Path) -> Iterator[tuple[CsvBatch, str]]:
    """Rows of the file in stretches of one UTC day; a row that was overtaken at midnight stays with the later day.

    Raises InputError where time runs back by more than MAX_BACK_MS.
    """
    latest = 0
    for batch in csv_batches(path, _COLUMNS, header=True):
        ts_ms = batch.columns["timestamp"]
        reached = np.maximum.accumulate(np.maximum(ts_ms, latest))
        back = np.flatnonzero(reached - ts_ms > MAX_BACK_MS)
        if len(back):
            at = int(back[0])
            raise InputError(
                f"{path}: row {batch.first_row + at + 1}: timestamp {ts_ms[at]} ms is {reached[at] - ts_ms[at]} ms "
                f"before an earlier row's, {MAX_BACK_MS} ms are the limit; the file is damaged or several are mixed"
            )
        latest = reached[-1]
        days = reached // DAY_MS
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), batch.rows]
        for start, stop in pairwise(edges):
            day = datetime.fromtimestamp(int(days[start]) * DAY_MS // 1000, UTC).date().isoformat()
            yield batch.slice(start, stop), day
