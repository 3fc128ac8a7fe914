"""Random streams of events for tests of books: orders alone, and depth with gaps, quotes and orders on one ladder."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Flag, Kind

DEPTH = 3


def events(rows: list[tuple]) -> pa.Table:
    """Rows are (ts, kind, side, price, size, order, flags)."""
    ts, kind, side, price, size, order, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    columns = EventColumns.build(ts, kind, side, price, size, flags, order)
    return pa.Table.from_batches([event_batch(columns, 0)])


@st.composite
def order_streams(draw) -> list[tuple]:
    """Sane order-by-order streams: adds on their own side of 100, then cancels, replaces and trades of live orders."""
    rows: list[tuple] = []
    live: dict[int, list[int]] = {}
    for number in range(draw(st.integers(1, 60))):
        what = draw(st.sampled_from(["add", "add", "cancel", "trade", "replace"])) if live else "add"
        if what == "add":
            side = draw(st.sampled_from([1, -1]))
            price = 100 - side * draw(st.integers(1, 6))
            size = draw(st.integers(1, 9))
            live[number + 1] = [side, price, size]
            rows.append((number, Kind.ADD, side, price, size, number + 1, 0))
            continue
        order = draw(st.sampled_from(sorted(live)))
        side, price, size = live[order]
        if what == "replace":
            live[order] = [side, 100 - side * draw(st.integers(1, 6)), draw(st.integers(1, 9))]
            rows.append((number, Kind.REPLACE, side, live[order][1], live[order][2], order, 0))
            continue
        lots = draw(st.integers(1, size))
        kind = Kind.CANCEL if what == "cancel" else Kind.TRADE
        rows.append((number, kind, side if what == "cancel" else -side, price, lots, order, 0))
        live[order][2] -= lots
        if live[order][2] == 0:
            del live[order]
    return rows


PRICES = st.one_of(st.integers(95, 105), st.sampled_from([36, 37, 163, 164, 5_000, 700_000, 4_000_000]))
"""Around the touch, at the edges of a page, and as far away as a depth feed's lowest and highest orders."""


@st.composite
def depth_streams(draw) -> list[tuple]:
    """Snapshots, gaps, depth messages, quotes, trades and orders on one ladder, in any order."""
    rows: list[tuple] = []
    ts, update = 0, 0
    for _ in range(draw(st.integers(1, 40))):
        ts += draw(st.integers(0, 1))
        what = draw(st.sampled_from(["snapshot", "gap", "diff", "diff", "diff", "quote", "trade", "order", "order"]))
        side, price, size = draw(st.sampled_from([1, -1])), draw(PRICES), draw(st.integers(1, 9))
        order = draw(st.integers(1, 4))
        if what in ("snapshot", "diff"):
            update += 1
            levels = draw(st.lists(st.tuples(st.sampled_from([1, -1]), PRICES, st.integers(0, 9)), max_size=6))
            if what == "snapshot":
                rows.append((ts, Kind.CLEAR, 0, 0, 0, 0, 0))
            rows += [(ts, Kind.DEPTH, *level, update, 0) for level in levels]
            whole = draw(st.integers(0, 9)) > 0
            rows.append((ts, Kind.DEPTH, side, price, size, update, Flag.LAST if whole else 0))
        elif what == "gap":
            rows.append((ts, Kind.CLEAR, 0, 0, 3, 0, Flag.GAP))
        elif what == "quote":
            rows.append((ts, Kind.QUOTE, side, price, size, draw(st.sampled_from([0, update, update + 1])), 0))
        elif what == "trade":
            rows.append((ts, Kind.TRADE, side, price, size, draw(st.sampled_from([0, order])), 0))
        else:
            kind = draw(st.sampled_from([Kind.ADD, Kind.CANCEL, Kind.CANCEL, Kind.REPLACE]))
            rows.append((ts, kind, side, price, size, order, draw(st.sampled_from([0, Flag.LAST]))))
    return rows
