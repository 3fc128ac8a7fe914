"""The one event schema that every reader yields and every later stage reads."""

from enum import IntEnum, IntFlag

import pyarrow as pa


class Kind(IntEnum):
    """What an event does to the book (stored as int8)."""

    ADD = 1  # a new order rests: order_id, side, price_ticks, size
    CANCEL = 2  # `size` lots of order_id leave the book (partial or whole)
    REPLACE = 3  # order_id now rests at price_ticks with size, at the back of the queue
    TRADE = 4  # an execution; side is the aggressor's; order_id the resting order where the vendor gives it, else 0
    QUOTE = 5  # one side of the best quote is now price_ticks x size; the other side is unchanged
    LEVEL = 6  # one level of a depth snapshot; the level's index is in the low byte of flags
    HALT = 7  # trading stops until the next event of another kind
    CLEAR = 8  # the book is unknown from here on; also opens a snapshot (LEVEL or DEPTH events up to the one with LAST)
    DEPTH = 9  # in all `size` lots now rest at price_ticks of `side` (0: none); other prices are unchanged


class Side(IntEnum):
    """Side of an order or aggressor (stored as int8); NONE where the vendor does not say."""

    BUY = 1
    NONE = 0
    SELL = -1


class Flag(IntFlag):
    """Bits of `flags` (int32). The low byte holds the level index of a LEVEL event."""

    LEVEL_MASK = 0xFF
    LAST = 0x100  # last event of a snapshot or of a vendor's message: the book is whole after it
    HIDDEN = 0x200  # the execution met hidden liquidity: no visible queue shrinks
    SUSPICIOUS = 0x400  # the vendor itself marked the row as doubtful
    NO_SIZE = 0x800  # the vendor gives no size (dealer quotes)
    SUB_TICK = 0x1000  # the vendor's price lies between two ticks; price_ticks is the nearest one
    GAP = 0x2000  # on a CLEAR: the vendor's numbering says that updates are missing here; `size` is how many, 0 unknown
    CARRIED = 0x4000  # in no file of this day: the book that stood at the end of the day before, handed on
    RESYNC = 0x8000  # a DEPTH set from the vendor's own book where its messages do not determine the book
    LATE = 0x10000  # trade reported late or out of sequence
    ODD_LOT = 0x20000  # trade of less than a round lot; DEPTH or QUOTE whose size was rounded down to whole lots
    CANCELLED = 0x40000  # trade that was cancelled or broken later
    DERIVED = 0x80000  # trade priced by another market or time: derivatively priced, average price, prior reference


EVENT_SCHEMA = pa.schema(
    [
        pa.field("ts_event_ns", pa.int64(), nullable=False),  # exchange time, UTC nanoseconds since the epoch
        pa.field("ts_recv_ns", pa.int64(), nullable=False),  # receive time, UTC; equals ts_event_ns where not given
        pa.field("sequence", pa.int64(), nullable=False),  # row number within the partition as the vendor ordered it
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("side", pa.int8(), nullable=False),
        pa.field("price_ticks", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # lots
        # of QUOTE and DEPTH: the number of the vendor's book update; 0 where the vendor gives none
        pa.field("order_id", pa.int64(), nullable=False),
        pa.field("flags", pa.int32(), nullable=False),
    ]
)
"""Columns of bronze and silver; venue, symbol and session date stand in the partition path."""


def schema_problem(schema: pa.Schema) -> str:
    """What is wrong with the columns of a file of events, in words; empty where they are EVENT_SCHEMA's.

    Whether a column may hold nulls is not compared: Spark writes every column as nullable.
    """
    wanted = {field.name: field.type for field in EVENT_SCHEMA}
    found = {field.name: field.type for field in schema}
    if list(found.items()) == list(wanted.items()):
        return ""
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    wrong = [f"{name} is {found[name]}, not {kind}" for name, kind in wanted.items() if found.get(name, kind) != kind]
    parts = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown) + wrong
    return "; ".join(parts) or f"columns in the wrong order: {schema.names}"
