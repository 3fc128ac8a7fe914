import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.standing import STANDING_FILE, StandingBook, StandingTracker, read_standing, write_standing

GAP, LAST = int(Flag.GAP), int(Flag.LAST)
DEPTH = st.tuples(
    st.just(Kind.DEPTH),
    st.sampled_from([Side.BUY, Side.SELL]),
    st.integers(100, 104),
    st.sampled_from([0, 0, 1, 2, 7]),
    st.sampled_from([0, 0, LAST]),
)
CLEAR = st.tuples(st.just(Kind.CLEAR), st.just(Side.NONE), st.just(0), st.just(0), st.sampled_from([0, 0, GAP]))
OTHER = st.tuples(
    st.sampled_from([Kind.TRADE, Kind.QUOTE]), st.just(Side.BUY), st.integers(100, 104), st.just(5), st.just(LAST)
)
EVENTS = st.lists(st.one_of(DEPTH, DEPTH, DEPTH, CLEAR, OTHER), max_size=60)


def batches(events, cuts=()):
    """Batches of (kind, side, price, size, flags), numbered from 1 by order_id, cut before the rows `cuts`."""
    rows = np.array([tuple(map(int, event)) for event in events], np.int64).reshape(-1, 5)
    times = np.arange(len(rows), dtype=np.int64)
    columns = EventColumns.build(times, *rows.T, order_id=times + 1)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    return [event_batch(columns.slice(a, b), a) for a, b in zip(edges, edges[1:], strict=False)]


def follow(events, cuts=()):
    tracker = StandingTracker()
    for batch in batches(events, cuts):
        tracker.add(batch)
    return tracker.standing()


def replay(events):
    """The same, event by event with a dictionary: (update id, {(side, price): size}), None where it is not whole."""
    levels, opened, whole, update_id = {}, False, False, 0
    for number, (kind, side, price, size, flags) in enumerate(events, start=1):
        if kind == Kind.CLEAR:
            levels, whole, opened = {}, False, not flags & GAP
        elif kind == Kind.DEPTH and (whole or opened):
            levels[side, price] = size
            update_id = number
            whole = whole or bool(flags & LAST)
    return (update_id, {key: size for key, size in levels.items() if size}) if whole else None


def plain(book):
    if book is None:
        return None
    keys = zip(book.side.tolist(), book.price_ticks.tolist(), strict=True)
    return book.update_id, dict(zip(keys, book.size.tolist(), strict=True))


def snapshot(*levels):
    """CLEAR and DEPTH events of (side, price, size), the last one flagged LAST."""
    rows = [(Kind.DEPTH, *level, 0) for level in levels]
    return [(Kind.CLEAR, Side.NONE, 0, 0, 0), *rows[:-1], (*rows[-1][:4], LAST)]


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.lists(st.integers(1, 59), max_size=5))
def test_standing_when_any_events_are_cut_into_batches_then_it_is_the_plain_replay(events, cuts):
    assert plain(follow(events, cuts)) == replay(events)


def test_standing_when_snapshot_and_updates_then_zero_removes_and_last_update_of_a_price_stands():
    events = [
        *snapshot((Side.BUY, 100, 5), (Side.SELL, 101, 6), (Side.BUY, 99, 3)),
        (Kind.DEPTH, Side.BUY, 100, 9, 0),
        (Kind.DEPTH, Side.BUY, 99, 0, 0),
        (Kind.DEPTH, Side.BUY, 100, 4, LAST),
    ]
    assert plain(follow(events)) == (7, {(-1, 101): 6, (1, 100): 4})


def test_standing_when_update_repeats_a_price_inside_a_snapshot_then_the_later_size_stands():
    events = snapshot((Side.BUY, 100, 5), (Side.SELL, 101, 6), (Side.BUY, 100, 8))
    assert plain(follow(events)) == (4, {(-1, 101): 6, (1, 100): 8})


def test_standing_when_only_updates_then_none():
    assert follow([(Kind.DEPTH, Side.BUY, 100, 5, LAST)] * 3) is None


def test_standing_when_gap_then_updates_do_not_make_the_book_whole_but_a_snapshot_does():
    gap = (Kind.CLEAR, Side.NONE, 0, 4, GAP)
    broken = [*snapshot((Side.BUY, 100, 5)), gap, (Kind.DEPTH, Side.BUY, 99, 2, LAST)]
    assert follow(broken) is None
    assert plain(follow([*broken, *snapshot((Side.SELL, 103, 1))])) == (6, {(-1, 103): 1})


def test_standing_when_snapshot_is_not_ended_then_none():
    assert follow([(Kind.CLEAR, Side.NONE, 0, 0, 0), (Kind.DEPTH, Side.BUY, 100, 5, 0)]) is None


def test_standing_when_snapshot_and_last_lie_in_two_batches_then_whole():
    assert plain(follow(snapshot((Side.BUY, 100, 5), (Side.SELL, 101, 6)), cuts=[2])) == (
        3,
        {(1, 100): 5, (-1, 101): 6},
    )


def test_standing_when_prices_are_huge_then_sides_and_prices_stay_apart():
    far = 2**61 - 1
    events = snapshot((Side.BUY, far, 1), (Side.SELL, far, 2), (Side.BUY, far - 1, 3))
    assert plain(follow(events)) == (4, {(1, far): 1, (-1, far): 2, (1, far - 1): 3})


@settings(max_examples=50, deadline=None)
@given(st.lists(DEPTH, max_size=20))
def test_standing_when_handed_on_as_events_then_the_next_day_opens_with_the_same_book(updates):
    book = follow([*snapshot((Side.BUY, 90, 5)), *updates])
    assert book is not None
    carried = book.events(7_000, 9_000)
    tracker = StandingTracker()
    tracker.add(event_batch(carried, 0))
    assert plain(tracker.standing()) == plain(book)
    assert set(carried.ts_event_ns) == {7_000} and set(carried.ts_recv_ns) == {9_000}
    assert np.all(carried.flags & int(Flag.CARRIED)) and np.flatnonzero(carried.flags & LAST).tolist() == [
        len(carried) - 1
    ]
    assert carried.kind[0] == Kind.CLEAR and np.all(carried.kind[1:] == Kind.DEPTH)


def test_standing_when_written_then_read_back_equal_and_bytes_repeat(tmp_path):
    book = StandingBook(2**62, np.array([-1, 1], np.int8), np.array([101, 100]), np.array([6, 5]))
    write_standing(book, tmp_path)
    first = (tmp_path / STANDING_FILE).read_bytes()
    write_standing(book, tmp_path)
    assert (tmp_path / STANDING_FILE).read_bytes() == first
    assert plain(read_standing(tmp_path)) == plain(book)


def test_standing_when_no_file_then_none(tmp_path):
    assert read_standing(tmp_path) is None


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"PAR1 no PAR1"])
def test_standing_when_file_is_damaged_then_error_names_it(tmp_path, damage):
    write_standing(StandingBook(1, np.array([1], np.int8), np.array([100]), np.array([5])), tmp_path)
    path = tmp_path / STANDING_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="standing_book.parquet: not a readable standing book"):
        read_standing(tmp_path)


def test_standing_when_last_level_goes_then_the_empty_book_is_handed_on_as_unknown():
    book = follow([*snapshot((Side.BUY, 100, 5)), (Kind.DEPTH, Side.BUY, 100, 0, LAST)])
    carried = book.events(1, 1)
    assert plain(book) == (3, {})
    assert carried.kind.tolist() == [Kind.CLEAR] and carried.flags.tolist() == [Flag.CARRIED]
