"""Records of a DBN stream as NumPy columns, and those that tell prices, not orders, as events.

A record is fixed in size by its type: a header of 16 bytes, whose first byte is the length in words of 4 bytes, then
its fields, little-endian. Layouts: Databento, 'DBN encoding'; they are the same in versions 1 to 3 for the schemas read
here. Prices are whole numbers of 1e-9; the largest int64 means that there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import databento_dbn as dbn
import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks import databento_kernel as kernel
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.order_table import RECV, TS, to_events
from feature_repo.ticks.reader import ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side

CHUNK_BYTES = 2 << 20
_HEADER = [("length", "u1"), ("rtype", "u1"), ("publisher", "<u2"), ("instrument", "<u4"), ("ts_event", "<u8")]
_TAIL = [("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4")]
_ORDER = [("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("flags", "u1"), ("channel", "u1")]
_TRADE = [("price", "<i8"), ("size", "<u4"), ("action", "u1"), ("side", "u1"), ("flags", "u1"), ("depth", "u1")]
_LEVEL = [
    (f"{side}_{what}", kind) for what, kind in (("px", "<i8"), ("sz", "<u4"), ("ct", "<u4")) for side in ("bid", "ask")
]
_SCHEMAS = {"mbo": (0xA0, 0), "trades": (0, 0), "mbp-1": (1, 1), "tbbo": (1, 1), "mbp-10": (10, 10)}  # type, levels
_ACTIONS = np.zeros(256, bool)
_ACTIONS[[ord(letter) for letter in "ACFMNRT"]] = True
_SIDES = {ord("B"): Side.BUY, ord("A"): Side.SELL, ord("N"): Side.NONE}
_SIDE = np.full(256, 9, np.int8)
_SIDE[list(_SIDES)] = [int(side) for side in _SIDES.values()]
_TYPES = {
    **{0x12: "status", 0x13: "instrument definition", 0x14: "imbalance", 0x15: "error", 0x16: "symbol mapping"},
    **{0x17: "system", 0x18: "statistics"},
}
_LARGEST_NS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Layout:
    """How the records of a schema look."""

    rtype: int
    levels: int
    fields: np.dtype

    @classmethod
    def of(cls, schema: str, ts_out: bool) -> "Layout":
        """Layout of mbo, mbp-1, tbbo, mbp-10 or trades; `ts_out` says that each record ends with its sending time."""
        rtype, levels = _SCHEMAS[schema]
        body = [*_ORDER, ("action", "u1"), ("side", "u1")] if schema == "mbo" else _TRADE
        depth = [("levels", _LEVEL, (levels,))] if levels else []
        sent = [("ts_out", "<u8")] if ts_out else []
        return cls(rtype, levels, np.dtype([*_HEADER, *body, *_TAIL, *depth, *sent]))


@dataclass(frozen=True)
class Records:
    """Some records of one instrument in the order of the file; columns `(n,)`."""

    raw: np.ndarray  # of Layout.fields
    ts_ns: NDArray[np.int64]  # of the exchange; of a snapshot, when it was made
    recv_ns: NDArray[np.int64]
    price: NDArray[np.int64]  # 1e-9; 0 where there is none
    side: NDArray[np.int8]

    def take(self, kept: NDArray[np.bool_]) -> "Records":
        """The records where `kept (n,)` says so."""
        return Records(self.raw[kept], self.ts_ns[kept], self.recv_ns[kept], self.price[kept], self.side[kept])


class RecordStream:
    """Reads the records of one instrument, chunk by chunk, and counts the others."""

    def __init__(self, path: Path, layout: Layout, instrument: int, start: int) -> None:
        """`start` is the first byte after the metadata."""
        self.path, self._layout, self._instrument, self._offset = path, layout, instrument, start
        self._others, self.counts = np.zeros(256, np.int64), np.zeros(6, np.int64)
        self._read = 0

    def records(self, stream: IO[bytes]) -> Iterator[Records]:
        """Records of the instrument; raises InputError with the byte offset of what is wrong."""
        size, rest = self._layout.fields.itemsize, b""
        out = np.empty((CHUNK_BYTES // size + 1, size), np.uint8)
        places = np.empty(len(out), np.int64)
        while chunk := stream.read(CHUNK_BYTES - len(rest)):
            data = np.frombuffer(rest + chunk, np.uint8)
            at, found, status = kernel.gather(
                data, self._layout.rtype, self._instrument, size, out, places, self._others, self.counts
            )
            if status == kernel.BAD_LENGTH:
                raise self._error(int(at), self._misfit(data[at:]))
            if found:
                yield self._columns(out[:found].copy().view(self._layout.fields)[:, 0], places[:found])
            self._read += int(found)
            rest = data[at:].tobytes()
            self._offset += int(at)
        if rest:
            raise self._error(0, f"the file is cut off, {len(rest)} bytes are no whole record")

    def account(self, count: ReadCount) -> None:
        """Count all records, and those that are no events of the instrument by reason."""
        name, others = self.path.name, int(self.counts[kernel.OTHERS])
        count.add(name, self._read + others + int(self._others.sum()))
        count.leave(name, others)
        for rtype in np.flatnonzero(self._others).tolist():
            count.skip(name, f"record type {rtype:#04x}: {_TYPES.get(rtype, 'not read')}", int(self._others[rtype]))
        count.skip(name, "fill (F): the cancel or modify that follows takes the lots", int(self.counts[kernel.FILLS]))
        count.skip(name, "before the open, folded into the opening book", int(self.counts[kernel.FOLDED]))
        count.skip(name, "changes nothing that is shown", int(self.counts[kernel.IDLE]))

    def _columns(self, raw: np.ndarray, places: NDArray[np.int64]) -> Records:
        event, recv, flags = raw["ts_event"], raw["ts_recv"], raw["flags"]
        snapshot = (flags & dbn.F_SNAPSHOT) != 0
        recv = np.where((recv == dbn.UNDEF_TIMESTAMP) | ((flags & dbn.F_BAD_TS_RECV != 0) & ~snapshot), event, recv)
        event = np.where((event == dbn.UNDEF_TIMESTAMP) | snapshot, recv, event)
        late = np.maximum(event, recv) > _LARGEST_NS
        side = _SIDE[raw["side"]]
        for wrong, what in (
            (late, "its time lies beyond the year 2262"),
            (~_ACTIONS[raw["action"]], "its action is none of A, C, F, M, N, R, T"),
            (side == 9, "its side is none of A, B, N"),
            (flags & dbn.F_MBP != 0, "it is a price level, not an order (F_MBP), and no order book comes of it"),
        ):
            if wrong.any():
                raise self._error(int(places[int(np.argmax(wrong))]), f"a record that can not be used: {what}")
        price = np.where(raw["price"] == dbn.UNDEF_PRICE, 0, raw["price"])
        return Records(raw, event.astype(np.int64), recv.astype(np.int64), price, side)

    def _misfit(self, data: NDArray[np.uint8]) -> str:
        own, size = self._layout.rtype, self._layout.fields.itemsize
        wanted = f"type {own} has {size}, others at least {kernel.HEADER_BYTES}"
        return f"a record of type {data[1]} is {int(data[0]) * 4} bytes long, {wanted}"

    def _error(self, at: int, what: str) -> InputError:
        return InputError(f"{self.path}: byte {self._offset + at:,} of its content: {what}; fetch the file again")


def level_events(found: Records, units_per_tick: int, counts: NDArray[np.int64]) -> EventColumns:
    """A trade, or CLEAR and the levels, the last one with LAST, for each record of mbp-10."""
    raw, rows = found.raw, len(found.raw)
    levels = raw["levels"].shape[1]
    slots = 2 + 2 * levels
    out, present = _grid(found, slots)
    trade, nothing = raw["action"] == ord("T"), np.isin(raw["action"], [ord("F"), ord("N")])
    _trades(out[:, 0], found)
    out[:, 1, 1], out[:, 2:, 1] = int(Kind.CLEAR), int(Kind.LEVEL)
    for k in range(levels):
        for offset, (name, side) in enumerate((("bid", Side.BUY), ("ask", Side.SELL))):
            slot, price, size = 2 + 2 * k + offset, raw["levels"][f"{name}_px"][:, k], raw["levels"][f"{name}_sz"][:, k]
            there = (price != dbn.UNDEF_PRICE) & ~trade & ~nothing
            out[:, slot, 2] = k
            out[:, slot, 3], out[:, slot, 4], out[:, slot, 5] = int(side), np.where(there, price, 0), size
            present[:, slot] = there
    present[:, 0], present[:, 1] = trade, ~trade & ~nothing
    counts[kernel.IDLE] += int(np.count_nonzero(nothing))
    last = slots - 1 - np.argmax(present[:, ::-1], axis=1)
    out[np.arange(rows), last, 2] |= int(Flag.LAST)
    return to_events(_doubted(out, found)[present], units_per_tick)


def quote_events(
    found: Records, before: NDArray[np.int64], units_per_tick: int, counts: NDArray[np.int64]
) -> tuple[EventColumns, NDArray[np.int64]]:
    """The sides of the best quote that changed, then the trade, for each record of mbp-1 or tbbo.

    `before (4,)` are prices and sizes of bid and ask so far (1e-9, lots), as they are given back for the next records.
    """
    level = found.raw["levels"][:, 0]
    out, present = _grid(found, 3)
    now = np.stack([level[name].astype(np.int64) for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")], axis=1)
    empty = now == dbn.UNDEF_PRICE
    now[empty[:, 0], :2], now[empty[:, 2], 2:] = 0, 0
    earlier = np.vstack([before, now[:-1]])
    for slot, side in ((0, Side.BUY), (1, Side.SELL)):
        half = slice(2 * slot, 2 * slot + 2)
        out[:, slot, 1], out[:, slot, 3], out[:, slot, 4:6] = int(Kind.QUOTE), int(side), now[:, half]
        present[:, slot] = (now[:, half] != earlier[:, half]).any(axis=1)
    _trades(out[:, 2], found)
    present[:, 2] = found.raw["action"] == ord("T")
    counts[kernel.IDLE] += int(np.count_nonzero(~present.any(axis=1)))
    last = 2 - np.argmax(present[:, ::-1], axis=1)
    whole = (found.raw["flags"] & dbn.F_LAST) != 0
    out[np.arange(len(out)), last, 2] |= np.where(whole, int(Flag.LAST), 0)
    return to_events(_doubted(out, found)[present], units_per_tick), now[-1]


def trade_events(found: Records, units_per_tick: int, counts: NDArray[np.int64]) -> EventColumns:
    """A trade for each record of trades."""
    out, present = _grid(found, 1)
    _trades(out[:, 0], found)
    out[:, 0, 2] = int(Flag.LAST)
    present[:, 0] = found.raw["action"] == ord("T")
    counts[kernel.IDLE] += int(np.count_nonzero(~present))
    return to_events(_doubted(out, found)[present], units_per_tick)


def _grid(found: Records, slots: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Room for `slots` events a record, times filled in, and which of them there are."""
    out = np.zeros((len(found.raw), slots, 8), np.int64)
    out[:, :, TS], out[:, :, RECV] = found.ts_ns[:, None], found.recv_ns[:, None]
    return out, np.zeros((len(found.raw), slots), bool)


def _trades(out: NDArray[np.int64], found: Records) -> None:
    out[:, 1], out[:, 3], out[:, 4], out[:, 5] = int(Kind.TRADE), found.side, found.price, found.raw["size"]


def _doubted(out: NDArray[np.int64], found: Records) -> NDArray[np.int64]:
    """Events of records that Databento marks as from after a gap in its channel are SUSPICIOUS."""
    out[:, :, 2] |= np.where(found.raw["flags"] & dbn.F_MAYBE_BAD_BOOK != 0, int(Flag.SUSPICIOUS), 0)[:, None]
    return out
