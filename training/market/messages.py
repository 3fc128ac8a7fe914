"""The day's orders as one array of 32-byte messages: what the order-by-order market reads, made from silver events."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind, schema_problem
from training.market.message_kernel import (
    COUNTS,
    ERROR,
    ERROR_ROW,
    ERROR_VALUE,
    MADE,
    MARGIN,
    MOST_LOTS,
    NEGATIVE_SIZE,
    NOT_BY_ORDER,
    PAGES_MADE,
    SLOTS_MADE,
    SPARE_PAGES,
    TOO_HEAVY,
    TOO_LARGE,
    UNKNOWN_ORDER,
    MessageKind,
    pack,
)

MESSAGE_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),
        ("price", np.int32),  # ticks
        ("size", np.int32),  # lots
        ("order", np.int32),  # node of the order in the market's queues, used again once the order is gone
        ("level", np.int32),  # node of its price level
        ("detail", np.int32),  # REPLACE: lots that the order had in history; EXECUTE and PRINT: lots the vendor told
        ("kind", np.uint8),  # MessageKind
        ("side", np.uint8),  # of the resting order: 0 bid, 1 ask; 2 none
        ("flags", np.uint8),  # MessageFlag
        ("aggressor", np.int8),  # of a trade, as the vendor says: 1, -1, or 0
    ]
)
"""One message, 32 bytes: all that the hot loop reads of an event lies in half a cache line."""

MAX_SPAN = 1 << 24
"""Most prices from the lowest to the highest that rests in a day; the searches' three layers of bits end there."""

_USED = ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id", "flags")


class MessageError(InputError):
    """Events that cannot become messages."""


class UnknownOrderError(MessageError):
    """An event names an order that does not rest."""


class NegativeSizeError(MessageError):
    """A size is below zero."""


class TimeOrderError(MessageError):
    """Time runs backwards."""


class EmptyDayError(MessageError):
    """A day without an event, or without an order."""


class RangeError(MessageError):
    """A price, a size or a range of prices that does not fit."""


class NotByOrderError(MessageError):
    """Best quotes or depth levels where orders are wanted."""


@dataclass(frozen=True)
class PackCounts:
    """Events that became messages in another way than one for one."""

    unknown_orders: int  # cancels, replaces and trades of orders that do not rest: no message, or a bare print
    oversized: int  # cancels and trades larger than what was left of their order: cut to that
    unwhole: int  # events left out because no snapshot had made the book whole
    quotes: int  # best quotes beside a whole book: they change nothing
    doubtful: int  # messages about orders at prices where the vendor's depth had denied lots of known orders
    paired: int  # cancels that a print of the same moment, price and side tells are executions (DBN writes them so)


@dataclass(frozen=True)
class Messages:
    """One day order by order; shared by every market that replays it, never written.

    `events (N,)` MESSAGE_DTYPE. Prices from `low` on, `span` of them, can rest. `pages (P,) int32` says which 64 prices
    of which side each page of levels holds: twice their place, bids counted from the top, plus the side. Nodes
    0 .. levels - 1 are levels, 64 a page, then come `slots` for orders.
    """

    events: NDArray[np.void]
    low: int
    span: int
    pages: NDArray[np.int32]
    slots: int
    counts: PackCounts

    @property
    def levels(self) -> int:
        """Nodes that stand for price levels, those for prices that only own orders reach among them."""
        return 64 * (len(self.pages) + SPARE_PAGES)

    @property
    def bytes_per_event(self) -> float:
        """Resident bytes of the day (messages and the index of its prices) over its messages."""
        return (self.events.nbytes + self.pages.nbytes) / max(len(self.events), 1)


def pack_messages(events: pa.Table, name: str = "events", unknown: str = "refuse") -> Messages:
    """Messages of one partition's silver events (EVENT_SCHEMA, in time order).

    The book that they give without any own order is that of `feature_repo.pipeline.books.build_book`, event by event.
    Depth beside orders (LOBSTER's opening and resynchronisations) becomes anonymous orders: lots that appear join the
    back as one, lots that go take the newest of them; where the depth leaves fewer lots than known orders have, known
    ones lose from the back, and what is said of them later is taken as far as it goes (`doubtful`).

    `unknown` is "refuse" or "count" (for data whose orders are not all seen to arrive).
    Raises, all of them InputError naming `name`, row and value: UnknownOrderError, NegativeSizeError, TimeOrderError,
    EmptyDayError, RangeError, NotByOrderError.
    """
    if unknown not in ("refuse", "count"):
        raise InputError(f"unknown is {unknown!r}, it must be 'refuse' or 'count'")
    if problem := schema_problem(events.schema):
        raise MessageError(f"{name}: not a table of events: {problem}")
    if not events.num_rows:
        raise EmptyDayError(f"{name}: empty day, no event; leave this day out")
    ts_ns, kind, side, price, size, order, flags = (_column(events, field) for field in _USED)
    _require_time_order(ts_ns, name)
    low, span = _window(kind, price, size, name)
    ids, dense = np.unique(order, return_inverse=True)
    pages = np.full((2, span // 64), -1, np.int32)
    out = np.empty(4 * len(ts_ns) + 16, MESSAGE_DTYPE)  # what is never written is never resident
    report = np.zeros(COUNTS, np.int64)
    columns = (ts_ns, kind, side, price, size, order, flags, dense.astype(np.int32))
    pack(columns, len(ids), low, span, unknown == "count", pages, out, report)
    _raise_problem(report, order, size, price, name)
    page_count, slots = int(report[PAGES_MADE]), int(report[SLOTS_MADE])
    side_of, place = np.nonzero(pages >= 0)
    kept = np.empty(page_count, np.int32)
    kept[pages[side_of, place]] = 2 * place + side_of
    made = out[: report[MADE]].copy()
    counts = PackCounts(*(int(value) for value in report[:MADE]))
    made["order"] += np.where(made["order"] >= 0, 64 * (page_count + SPARE_PAGES), 0).astype(np.int32)
    return _audited(made, low, span, kept, slots, counts)


def blank_day(low: int, high: int, ts_ns: int = 0) -> Messages:
    """A day without an order whose prices from `low` to `high` can hold own ones: an exchange for them alone."""
    if high < low:
        raise RangeError(f"prices from {low} to {high} ticks: the highest must not be below the lowest")
    span = _whole_pages(high - low + 1)
    if span > MAX_SPAN:
        raise RangeError(f"{span:,} prices from {low} to {high} ticks exceed {MAX_SPAN:,}")
    places = np.arange(span // 64, dtype=np.int32)
    pages = np.concatenate([2 * places, 2 * places + 1])
    events = np.zeros(1, MESSAGE_DTYPE)
    events["ts_ns"], events["kind"], events["order"], events["level"] = ts_ns, int(MessageKind.NOTE), -1, -1
    return _frozen(events, low, span, pages, 0, PackCounts(0, 0, 0, 0, 0, 0))


def _audited(
    events: NDArray[np.void],
    low: int,
    span: int,
    pages: NDArray[np.int32],
    slots: int,
    counts: PackCounts,
) -> Messages:
    """Note on every message how history stood to priority: who was first, and what crossed."""
    from training.market.replay_kernel import audit
    from training.market.replay_state import new_market

    draft = _frozen(events.view(), low, span, pages, slots, counts)
    found = np.zeros(len(events), np.uint8)
    audit(new_market(draft), draft.events, found)
    events.flags.writeable = True
    events["flags"] |= found
    return _frozen(events, low, span, pages, slots, counts)


def _frozen(
    events: NDArray[np.void],
    low: int,
    span: int,
    pages: NDArray[np.int32],
    slots: int,
    counts: PackCounts,
) -> Messages:
    events.flags.writeable = False
    pages.flags.writeable = False
    return Messages(events, low, span, pages, slots, counts)


def _column(events: pa.Table, field: str) -> NDArray:
    values = np.ascontiguousarray(np.asarray(events.column(field)), EVENT_SCHEMA.field(field).type.to_pandas_dtype())
    values = values.view()
    values.flags.writeable = False
    return values


def _require_time_order(ts_ns: NDArray[np.int64], name: str) -> None:
    behind = np.flatnonzero(ts_ns[1:] < ts_ns[:-1])
    if len(behind):
        row = int(behind[0]) + 1
        raise TimeOrderError(
            f"{name}: time runs backwards at row {row}, {ts_ns[row]} ns after {ts_ns[row - 1]} ns; sort the events"
        )


def _window(kind: NDArray[np.int8], price: NDArray[np.int64], size: NDArray[np.int64], name: str) -> tuple[int, int]:
    """Lowest price that can rest, and how many can: those of the day with a margin for own orders, in whole pages."""
    orders = (kind == int(Kind.ADD)) | (kind == int(Kind.REPLACE))
    if not orders.any():
        raise EmptyDayError(
            f"{name}: no order among {len(kind)} events; the order-by-order market wants order data, others replay rows"
        )
    rests = price[(orders | (kind == int(Kind.DEPTH))) & (size > 0)]
    if not len(rests):
        raise EmptyDayError(f"{name}: no order of the day has a lot")
    low, high = int(rests.min()) - MARGIN, int(rests.max()) + MARGIN
    limit = np.iinfo(np.int32).max
    if low < -limit or high > limit:
        raise RangeError(f"{name}: prices from {low + MARGIN} to {high - MARGIN} ticks exceed {limit - MARGIN}")
    span = _whole_pages(high - low + 1)
    if span > MAX_SPAN:
        raise RangeError(
            f"{name}: orders rest from {low + MARGIN} to {high - MARGIN} ticks, {span:,} prices exceed {MAX_SPAN:,}; "
            "an outlying price passed cleaning"
        )
    return low, span


def _whole_pages(prices: int) -> int:
    return -(-prices // 64) * 64


def _raise_problem(
    report: NDArray[np.int64], order: NDArray[np.int64], size: NDArray[np.int64], price: NDArray[np.int64], name: str
) -> None:
    """Raise what stopped the packing, if anything did."""
    code, row, value = (int(report[place]) for place in (ERROR, ERROR_ROW, ERROR_VALUE))
    where = f"{name}: row {row}"
    if code == UNKNOWN_ORDER:
        raise UnknownOrderError(
            f"{where}: order {int(order[row])} does not rest; clean the events, or take such rows as unknown='count'"
        )
    if code == NEGATIVE_SIZE:
        raise NegativeSizeError(f"{where}: a size of {value} lots is negative; clean the events first")
    if code == TOO_LARGE:
        raise RangeError(
            f"{where}: price {int(price[row])} ticks or size {int(size[row])} lots exceeds {MOST_LOTS} lots or int32"
        )
    if code == TOO_HEAVY:
        raise RangeError(f"{where}: {value} lots rest at one price, which exceeds {MOST_LOTS}")
    if code == NOT_BY_ORDER:
        raise NotByOrderError(
            f"{where}: {Kind(value).name} sets the book, orders are wanted; replay such data as book rows"
        )
