"""Silver events written by hand, for tests of the order-by-order market."""

import numpy as np
import pyarrow as pa

from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Kind


def table(*rows):
    """Events (ts, kind, side, price, size, order, flags), the last two 0 where left out."""
    filled = np.array([(*row, 0, 0)[:7] if len(row) == 5 else (*row, 0)[:7] for row in rows], np.int64).reshape(-1, 7)
    ts, kind, side, price, size, order, flags = filled.T
    return pa.Table.from_batches([event_batch(EventColumns.build(ts, kind, side, price, size, flags, order), 0)])


def add(ts, side, price, size, order, flags=0):
    return ts, int(Kind.ADD), side, price, size, order, flags
