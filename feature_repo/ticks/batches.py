"""Events as NumPy columns while a reader works on them, and their way into an Arrow batch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from feature_repo.ticks.schema import EVENT_SCHEMA


@dataclass(frozen=True)
class EventColumns:
    """Columns of equal length n, without sequence numbers; int64 unless said otherwise."""

    ts_event_ns: np.ndarray
    ts_recv_ns: np.ndarray
    kind: np.ndarray  # int8
    side: np.ndarray  # int8
    price_ticks: np.ndarray
    size: np.ndarray
    order_id: np.ndarray
    flags: np.ndarray  # int32

    def __len__(self) -> int:
        """Number of events."""
        return len(self.ts_event_ns)

    @classmethod
    def build(
        cls,
        ts_event_ns: np.ndarray,
        kind: np.ndarray | int,
        side: np.ndarray | int,
        price_ticks: np.ndarray | int,
        size: np.ndarray | int,
        flags: np.ndarray | int = 0,
        order_id: np.ndarray | int = 0,
        ts_recv_ns: np.ndarray | None = None,
    ) -> "EventColumns":
        """Columns from arrays and constants; the receive time is the event time where none is given."""

        def column(values: np.ndarray | int, dtype: type) -> np.ndarray:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(values), ts_event_ns.shape), dtype=dtype)

        recv = ts_event_ns if ts_recv_ns is None else ts_recv_ns
        return cls(
            column(ts_event_ns, np.int64),
            column(recv, np.int64),
            column(kind, np.int8),
            column(side, np.int8),
            column(price_ticks, np.int64),
            column(size, np.int64),
            column(order_id, np.int64),
            column(flags, np.int32),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["EventColumns"]) -> "EventColumns":
        """All parts in their order; no parts give no events."""
        if not parts:
            return cls.build(np.empty(0, np.int64), 0, 0, 0, 0)
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def slice(self, start: int, stop: int) -> "EventColumns":
        """Events from `start` up to `stop`."""
        return EventColumns(*(getattr(self, item.name)[start:stop] for item in fields(self)))

    def take(self, rows: np.ndarray) -> "EventColumns":
        """Events at `rows`, in that order."""
        return EventColumns(*(getattr(self, item.name)[rows] for item in fields(self)))

    def insert(self, where: np.ndarray, others: "EventColumns") -> "EventColumns":
        """`others[i]` goes before event `where[i]` of these, in order."""
        return EventColumns(
            *(np.insert(getattr(self, item.name), where, getattr(others, item.name)) for item in fields(self))
        )


def event_batch(events: EventColumns, first_sequence: int) -> pa.RecordBatch:
    """Arrow batch in EVENT_SCHEMA; the events are numbered on from `first_sequence`."""
    sequence = np.arange(first_sequence, first_sequence + len(events), dtype=np.int64)
    columns = {item.name: getattr(events, item.name) for item in fields(events)} | {"sequence": sequence}
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)
