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
    CLEAR = 8  # the book is unknown from here on; also opens a depth snapshot


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
    SUB_TICK = 0x1000  # the vendor's price lies between two ticks; price_ticks is the nearest one
    NO_SIZE = 0x800  # the vendor gives no size (dealer quotes)


EVENT_SCHEMA = pa.schema(
    [
        pa.field("ts_event_ns", pa.int64(), nullable=False),  # exchange time, UTC nanoseconds since the epoch
        pa.field("ts_recv_ns", pa.int64(), nullable=False),  # receive time, UTC; equals ts_event_ns where not given
        pa.field("sequence", pa.int64(), nullable=False),  # row number within the partition as the vendor ordered it
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("side", pa.int8(), nullable=False),
        pa.field("price_ticks", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # lots
        pa.field("order_id", pa.int64(), nullable=False),  # 0 where the vendor gives none
        pa.field("flags", pa.int32(), nullable=False),
    ]
)
"""Columns of bronze and silver; venue, symbol and session date stand in the partition path."""
