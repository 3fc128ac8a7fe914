"""What left its queue and when it had joined: from this an order that was not there learns where it would stand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition

LEAVES_FILE = "leaves.parquet"

EXECUTE, CANCEL, CLEAR, WHOLE, HALT, RESUME = range(6)
"""Kinds of leaves. CANCEL: a cancel, a replacement that moves away, or depth that took lots; CLEAR and WHOLE: the book
is unknown from here, and known again; HALT and RESUME: trading stops, and goes on."""

LEAF_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),
        ("join_ns", np.int64),  # when the order whose lots these are had joined the queue it leaves
        ("price", np.int32),  # ticks
        ("lots", np.int32),
        ("row", np.int32),  # rows of the book before the event: that of the event itself, where it makes one
        ("kind", np.int16),
        ("side", np.int16),  # of the resting order: 1 bid, -1 ask; 0 none
    ]
)
"""One leaf, 32 bytes; in the order of the events."""


def leaves_table(leaves: NDArray[np.void]) -> pa.Table:
    """Leaves as a table, a column a field."""
    return pa.table({name: np.ascontiguousarray(leaves[name]) for name in LEAF_DTYPE.names or ()})


def leaves_of(table: pa.Table) -> NDArray[np.void]:
    """The leaves in a table of the form of `leaves_table`."""
    leaves = np.zeros(table.num_rows, LEAF_DTYPE)
    for name in LEAF_DTYPE.names or ():
        leaves[name] = table.column(name).to_numpy()
    return leaves


def load_leaves(features_dir: Path, partition: Partition) -> NDArray[np.void]:
    """Leaves of one partition, none where it has no such file; raises InputError where it is not of this form."""
    path = partition.folder(features_dir) / LEAVES_FILE
    if not path.is_file():
        return np.zeros(0, LEAF_DTYPE)
    try:
        return leaves_of(pq.read_table(path, partitioning=None))
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not readable leaves ({error}); run the features stage again") from error


def halts_of(leaves: NDArray[np.void]) -> NDArray[np.int64]:
    """From when and until when trading stood still, `(H, 2) int64` ns; a halt that nothing ends lasts for good."""
    marks = leaves[leaves["kind"] >= HALT]
    starts = np.flatnonzero(marks["kind"] == HALT)
    halts = np.full((len(starts), 2), np.iinfo(np.int64).max, np.int64)
    halts[:, 0] = marks["ts_ns"][starts]
    ended = starts + 1 < len(marks)
    halts[ended, 1] = marks["ts_ns"][starts[ended] + 1]
    return halts
