"""What left its queue and when it had joined: each kind of event, batches, files, and days that have none."""

import numpy as np
import pytest
from market_fixtures import NS
from order_events import add, table

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.books import build_book
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from feature_repo.pipeline.leaves import (
    CANCEL,
    CLEAR,
    EXECUTE,
    HALT,
    LEAF_DTYPE,
    LEAVES_FILE,
    RESUME,
    WHOLE,
    halts_of,
    leaves_table,
    load_leaves,
)
from feature_repo.ticks.schema import Flag, Kind

LAST = int(Flag.LAST)
BEHIND_ALL = np.iinfo(np.int64).max


def leaves_of(*rows, depth=3, by_order=True):
    return LeafBuilder(depth, "X 2024-01-02", by_order).add(table(*rows))


def brief(leaves):
    """(time, joined, price, lots, kind, side) of each leaf."""
    return [tuple(int(leaf[name]) for name in ("ts_ns", "join_ns", "price", "lots", "kind", "side")) for leaf in leaves]


def test_trades_and_cancels_then_tell_when_their_orders_joined():
    found = leaves_of(
        add(1, 1, 100, 10, 1), add(2, 1, 100, 5, 2), add(3, -1, 102, 7, 3),
        (4, Kind.TRADE, -1, 100, 4, 1), (5, Kind.CANCEL, 1, 100, 3, 2), (6, Kind.TRADE, 1, 102, 9, 3),
    )  # fmt: skip
    assert brief(found) == [(4, 1, 100, 4, EXECUTE, 1), (5, 2, 100, 3, CANCEL, 1), (6, 3, 102, 7, EXECUTE, -1)]


def test_replacement_then_leaves_its_old_queue_whole_and_joins_anew():
    found = leaves_of(
        add(1, 1, 100, 10, 1), (2, Kind.REPLACE, 1, 99, 6, 1), (3, Kind.REPLACE, 1, 99, 8, 1),
        (4, Kind.TRADE, -1, 99, 8, 1),
    )  # fmt: skip
    expected = [(2, 1, 100, 10, CANCEL, 1), (3, 2, 99, 6, CANCEL, 1), (4, 3, 99, 8, EXECUTE, 1)]
    assert brief(found) == expected


def test_order_ids_when_used_again_then_the_new_order_has_its_own_time():
    found = leaves_of(
        add(1, 1, 100, 4, 1), (2, Kind.CANCEL, 1, 100, 4, 1), add(5, 1, 101, 4, 1), (6, Kind.CANCEL, 1, 101, 4, 1)
    )
    assert [leaf[:2] for leaf in brief(found)] == [(2, 1), (6, 5)]


def test_hidden_executions_unknown_orders_and_bare_prints_then_leave_nothing():
    found = leaves_of(
        add(1, 1, 100, 10, 1), (2, Kind.TRADE, -1, 100, 4, 1, Flag.HIDDEN), (3, Kind.TRADE, -1, 100, 4, 9),
        (4, Kind.CANCEL, 1, 100, 4, 8), (5, Kind.TRADE, -1, 100, 4, 0),
    )  # fmt: skip
    assert brief(found) == []


def test_cancels_that_a_print_of_their_moment_explains_then_are_executions():
    found = leaves_of(
        add(1, 1, 100, 4, 1), add(2, 1, 100, 5, 2), add(2, 1, 100, 6, 3),
        (3, Kind.TRADE, -1, 100, 6, 0), (3, Kind.CANCEL, 1, 100, 4, 1), (3, Kind.CANCEL, 1, 100, 2, 2),
        (3, Kind.CANCEL, 1, 100, 1, 3), (4, Kind.CANCEL, 1, 100, 1, 2),
    )  # fmt: skip
    assert [leaf[4] for leaf in brief(found)] == [EXECUTE, EXECUTE, CANCEL, CANCEL]


def test_lots_that_depth_set_then_leave_as_nobody_s():
    found = leaves_of(
        (1, Kind.CLEAR, 0, 0, 0), (1, Kind.DEPTH, 1, 100, 10, 0), (1, Kind.DEPTH, -1, 102, 10, 0, LAST),
        (5, Kind.DEPTH, 1, 100, 14, 0, LAST), add(6, 1, 100, 3, 7),
        (7, Kind.TRADE, -1, 100, 2, 99), (8, Kind.CANCEL, 1, 100, 1, 98),
        (9, Kind.DEPTH, 1, 100, 1, 0, LAST),
    )  # fmt: skip
    assert brief(found)[:2] == [(1, 0, 0, 0, CLEAR, 0), (1, 0, 0, 0, WHOLE, 0)]
    assert brief(found)[2:] == [
        (7, 1, 100, 2, EXECUTE, 1),  # the oldest of them
        (8, 5, 100, 1, CANCEL, 1),  # the newest
        (9, 5, 100, 11, CANCEL, 1),
        (9, BEHIND_ALL, 100, 2, CANCEL, 1),  # of the known order, nobody says so: the last of the queue
    ]


def test_order_that_outlives_a_clear_then_is_forgotten():
    found = leaves_of(
        add(1, 1, 100, 4, 1), (2, Kind.CLEAR, 0, 0, 0), (3, Kind.CANCEL, 1, 100, 4, 1), add(4, 1, 100, 6, 1, LAST),
        (5, Kind.CANCEL, 1, 100, 6, 1),
    )  # fmt: skip
    assert brief(found) == [(2, 0, 0, 0, CLEAR, 0), (4, 0, 0, 0, WHOLE, 0), (5, 4, 100, 6, CANCEL, 1)]


def test_events_in_a_hole_of_the_feed_then_leave_nothing():
    found = leaves_of(
        add(1, 1, 100, 4, 1),
        (2, Kind.CLEAR, 0, 0, 0, 0, Flag.GAP),
        add(3, 1, 100, 5, 2),
        (4, Kind.CANCEL, 1, 100, 5, 2),
    )
    assert brief(found) == [(2, 0, 0, 0, CLEAR, 0)]


@pytest.mark.parametrize("by_order", [True, False])
def test_halts_then_last_until_the_next_event_of_another_kind(by_order):
    rows = [add(1, 1, 100, 4, 1), *((t, Kind.HALT, 0, 0, 0) for t in (3, 4)), add(9, 1, 100, 4, 2)]
    found = leaves_of(*rows, (11, Kind.HALT, 0, 0, 0), by_order=by_order)
    assert [(leaf[0], leaf[4]) for leaf in brief(found)] == [(3, HALT), (9, RESUME), (11, HALT)]
    assert halts_of(found).tolist() == [[3, 9], [11, BEHIND_ALL]]


def test_leaves_then_name_the_row_of_the_book_that_their_event_makes():
    events = table(
        add(1, 1, 100, 10, 1), add(2, 1, 98, 5, 2), add(3, -1, 102, 7, 3), (4, Kind.CANCEL, 1, 98, 5, 2),
        (5, Kind.TRADE, -1, 100, 4, 1), (6, Kind.TRADE, 1, 102, 1, 3),
    )  # fmt: skip
    book, _ = build_book(events, 1)
    found = LeafBuilder(1).add(events)
    assert found["row"].tolist() == [2, 2, 3]  # the cancel lies beyond the one visible level: before the next row
    assert book.ts_ns[found["row"][1:]].tolist() == [5, 6]


def random_events(seed, count=4000):
    rng = np.random.default_rng(seed)
    rows, live, ts = [], {}, 0
    for order in range(1, count + 1):
        ts += int(rng.integers(0, 3))
        kind = rng.random()
        if not live or kind < 0.55:
            side = 1 if rng.random() < 0.5 else -1
            live[order] = [side, 100 - side * int(rng.integers(1, 6)), int(rng.integers(1, 20))]
            rows.append(add(ts, *live[order], order))
            continue
        chosen = list(live)[int(rng.integers(0, len(live)))]
        side, price, lots = live[chosen]
        if kind < 0.65:
            live[chosen] = [side, 100 - side * int(rng.integers(1, 6)), int(rng.integers(1, 20))]
            rows.append((ts, Kind.REPLACE, side, *live[chosen][1:], chosen))
            continue
        gone = int(rng.integers(1, lots + 1))
        rows.append((ts, Kind.TRADE if kind < 0.8 else Kind.CANCEL, -side if kind < 0.8 else side, price, gone, chosen))
        live[chosen][2] -= gone
        if live[chosen][2] == 0:
            del live[chosen]
    return table(*rows)


def reference(events):
    """The same in plain Python: an order's queue time is that of its last ADD or REPLACE."""
    joined, found = {}, []
    for event in events.to_pylist():
        order, ts = event["order_id"], event["ts_event_ns"]
        if event["kind"] in (Kind.ADD, Kind.REPLACE):
            if event["kind"] == Kind.REPLACE:
                found.append((ts, joined[order][0], *joined[order][1:3], CANCEL, joined[order][3]))
            joined[order] = [ts, event["price_ticks"], event["size"], event["side"]]
            continue
        since, price, _, side = joined[order]
        found.append((ts, since, price, event["size"], EXECUTE if event["kind"] == Kind.TRADE else CANCEL, side))
        joined[order][2] -= event["size"]
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_leaves_of_random_orders_then_are_those_of_the_obvious_reference_in_any_batches(seed):
    events = random_events(seed)
    whole = LeafBuilder(3).add(events)
    assert brief(whole) == reference(events)
    builder, parts = LeafBuilder(3), []
    for start in range(0, len(events), 700):
        parts.append(builder.add(events.slice(start, 700)))
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_events_when_a_size_is_negative_then_the_day_is_named():
    with pytest.raises(InputError, match="X 2024-01-02: a size of -4 lots is negative"):
        leaves_of(add(1, 1, 100, -4, 1))


def test_leaves_when_written_then_cost_32_bytes_and_are_read_back(tmp_path):
    import pyarrow.parquet as pq

    assert LEAF_DTYPE.itemsize == 32
    partition = Partition("TEST", "T", "2024-01-02")
    assert len(load_leaves(tmp_path, partition)) == 0
    folder = partition.folder(tmp_path)
    folder.mkdir(parents=True)
    leaves = leaves_of(add(NS, 1, 100, 10, 1), (2 * NS, Kind.TRADE, -1, 100, 4, 1))
    pq.write_table(leaves_table(leaves), folder / LEAVES_FILE)
    assert load_leaves(tmp_path, partition).tobytes() == leaves.tobytes()
    (folder / LEAVES_FILE).write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="leaves.parquet: not readable leaves"):
        load_leaves(tmp_path, partition)
