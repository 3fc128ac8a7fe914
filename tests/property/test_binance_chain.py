"""A Binance book that calls itself whole is the exchange's, whatever was lost, repeated, reordered or came late."""

from unittest import mock

import pyarrow as pa
import pytest
from binance_files import SPOT, USDM, diff, dump, snapshot, spot_diff
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.ticks import binance_chain, binance_lines
from feature_repo.ticks.binance import BinanceReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind

UPDATE = st.tuples(st.sampled_from("ba"), st.integers(95, 105), st.integers(0, 2))
PROPERTY = settings(max_examples=60, deadline=None)


@st.composite
def exchanges(draw):
    """`(states, spans)`: the book after each of the updates 0, 1, ...; and the diffs, `(before, last)` update."""
    updates = draw(st.lists(UPDATE, min_size=6, max_size=40))
    states = [{("b", 90): 9, ("a", 110): 9}]
    for side, price, size in updates:
        states.append({**states[-1], (side, price): size})
    cuts = sorted(draw(st.sets(st.integers(1, len(updates) - 1), max_size=12)))
    edges = [0, *cuts, len(updates)]
    return states, list(zip(edges, edges[1:], strict=False))


def message_of(states, item, make):
    """A snapshot where `item` is a number, else the diff of a span."""
    if isinstance(item, int):
        levels = [[(str(p), str(q)) for (s, p), q in states[item].items() if s == side and q] for side in "ba"]
        return snapshot(item, *levels)
    changed = [
        {p: q for (s, p), q in states[item[1]].items() if s == side and _moved(states, item, (s, p))} for side in "ba"
    ]
    return make(*item, *([(str(p), str(q)) for p, q in levels.items()] for levels in changed))


def _moved(states, span, key):
    return any(states[at].get(key) != states[at + 1].get(key) for at in range(*span))


def read(folder, name, messages, chunk_lines):
    dump(folder, *messages, name=name)
    (plan,) = BinanceReader().plan(IngestRequest("binance", folder))
    count = ReadCount()
    with mock.patch.object(binance_lines, "CHUNK_LINES", chunk_lines):
        events = pa.Table.from_batches(list(BinanceReader().read(plan, count)), EVENT_SCHEMA).to_pydict()
    assert count.total == len(messages)
    return events


def books(events, tick, lot):
    """The book at the end of each depth message while it is whole: `[(number, {(side, price): size})]`."""
    book, whole, opened, found = {}, False, False, []
    columns = ("kind", "side", "price_ticks", "size", "order_id", "flags")
    for kind, side, price, size, number, flags in zip(*(events[name] for name in columns), strict=True):
        if kind == Kind.CLEAR:
            book, whole, opened = {}, False, not flags & Flag.GAP
        elif whole or opened:
            assert price % tick == size % lot == 0
            book["b" if side > 0 else "a", price // tick] = size // lot
            whole = whole or bool(flags & Flag.LAST)
            if flags & Flag.LAST:
                found.append((number, {key: lots for key, lots in book.items() if lots}))
    return found


MARKETS = [(SPOT, spot_diff, 100, 100_000), (USDM, diff, 10, 1_000)]


@pytest.mark.parametrize(("name", "make", "tick", "lot"), MARKETS)
@PROPERTY
@given(st.data())
def test_binance_chain_when_messages_are_lost_repeated_or_reordered_then_a_whole_book_is_never_wrong(
    tmp_path_factory, name, make, tick, lot, data
):
    states, spans = data.draw(exchanges(), label="exchange")
    numbers = st.integers(0, len(states) - 1)
    items = [span for span in spans for _ in range(data.draw(st.sampled_from([1, 1, 1, 1, 0, 2]), label="times"))]
    for number in data.draw(st.lists(numbers, min_size=1, max_size=4), label="snapshots"):
        items.insert(data.draw(st.integers(0, len(items)), label="place"), number)
    for _ in range(data.draw(st.sampled_from([0, 0, 1, 2]), label="swaps")):
        a, b = (data.draw(st.integers(0, len(items) - 1), label="swap") for _ in range(2))
        items[a], items[b] = items[b], items[a]
    messages = [message_of(states, item, make) for item in items]
    with mock.patch.object(binance_chain, "KEPT_DIFFS", data.draw(st.sampled_from([1, 3, 2_048]), label="kept")):
        events = read(tmp_path_factory.mktemp("chain"), name, messages, data.draw(st.sampled_from([1, 3, 4_096])))
    for number, book in books(events, tick, lot):
        assert book == {key: size for key, size in states[number].items() if size}


@pytest.mark.parametrize(("name", "make", "tick", "lot"), MARKETS)
@PROPERTY
@given(st.data())
def test_binance_chain_when_nothing_is_lost_then_one_snapshot_at_any_place_makes_the_last_book_whole(
    tmp_path_factory, name, make, tick, lot, data
):
    states, spans = data.draw(exchanges(), label="exchange")
    items = list(spans)
    items.insert(data.draw(st.integers(0, len(spans)), label="place"), data.draw(st.integers(0, len(states) - 1)))
    messages = [message_of(states, item, make) for item in items]
    events = read(tmp_path_factory.mktemp("chain"), name, messages, data.draw(st.sampled_from([1, 3, 4_096])))
    assert not any(flags & Flag.GAP for flags in events["flags"])
    assert events["ts_event_ns"] == sorted(events["ts_event_ns"])
    number, book = books(events, tick, lot)[-1]
    assert book == {key: size for key, size in states[number].items() if size}
    assert book == {key: size for key, size in states[-1].items() if size}
