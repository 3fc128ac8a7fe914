"""What becomes of silver events: 32-byte messages, or a typed error that names the row."""

import pytest
from order_events import add, table

from feature_repo.errors import InputError
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from training.market.message_kernel import MessageFlag, MessageKind
from training.market.messages import (
    MESSAGE_DTYPE,
    EmptyDayError,
    MessageError,
    NegativeSizeError,
    NotByOrderError,
    RangeError,
    TimeOrderError,
    UnknownOrderError,
    blank_day,
    pack_messages,
)

BUY, SELL, NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)


def test_messages_when_packed_then_they_cost_32_bytes_and_are_read_only():
    day = pack_messages(table(*[add(ts, BUY, 100, 5, ts) for ts in range(1, 5_000)]))
    assert MESSAGE_DTYPE.itemsize == 32
    assert len(day.pages) == 1
    assert day.bytes_per_event == 32 + 4 / len(day.events)  # the index has 4 bytes for every 64 prices that were used
    assert not day.events.flags.writeable and not day.pages.flags.writeable


def test_messages_when_orders_come_and_go_then_their_slots_are_used_again():
    rows = []
    for order in range(1, 1_000):
        rows += [add(order, BUY, 100, 5, order), (order, int(Kind.CANCEL), BUY, 100, 5, order)]
    assert pack_messages(table(*rows)).slots == 1


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([add(1, BUY, 100, 5, 7), (2, int(Kind.CANCEL), BUY, 100, 5, 8)], UnknownOrderError, "row 1: order 8"),
        ([add(1, BUY, 100, 5, 7), (2, int(Kind.REPLACE), BUY, 99, 5, 8)], UnknownOrderError, "row 1: order 8"),
        ([add(1, BUY, 100, 5, 7), (2, int(Kind.TRADE), SELL, 100, 5, 8)], UnknownOrderError, "row 1: order 8"),
        ([add(1, BUY, 100, 5, 7), add(2, BUY, 100, -5, 8)], NegativeSizeError, "row 1: a size of -5"),
        ([add(2, BUY, 100, 5, 7), add(1, BUY, 100, 5, 8)], TimeOrderError, "row 1, 1 ns after 2 ns"),
        ([], EmptyDayError, "empty day"),
        ([(1, int(Kind.QUOTE), BUY, 100, 5)], EmptyDayError, "no order among 1 events"),
        ([add(1, BUY, 100, 0, 7)], EmptyDayError, "has a lot"),
        ([add(1, BUY, 100, 2**31, 7)], RangeError, "row 0"),
        ([add(1, BUY, 2**40, 5, 7)], RangeError, "exceed"),
        ([add(1, BUY, 100, 5, 7), add(1, SELL, 2**25, 5, 8)], RangeError, "outlying"),
        ([add(1, BUY, 100, 2**30 - 1, 7), add(1, BUY, 100, 1, 8)], RangeError, "rest at one price"),
        ([add(1, BUY, 100, 5, 7), (2, int(Kind.LEVEL), BUY, 100, 5)], NotByOrderError, "LEVEL"),
    ],
)
def test_messages_when_events_are_bad_then_a_typed_error_names_the_row(rows, error, words):
    with pytest.raises(error, match=words) as caught:
        pack_messages(table(*rows) if rows else EVENT_SCHEMA.empty_table())
    assert isinstance(caught.value, InputError)


def test_messages_when_columns_are_wrong_then_it_is_refused():
    with pytest.raises(MessageError, match="missing"):
        pack_messages(table(add(1, BUY, 100, 5, 7)).drop_columns(["size"]))
    with pytest.raises(InputError, match="'refuse' or 'count'"):
        pack_messages(table(add(1, BUY, 100, 5, 7)), unknown="ignore")
    with pytest.raises(RangeError, match="below the lowest"):
        blank_day(10, 9)


def test_messages_when_unknown_orders_are_counted_then_they_are_prints_or_nothing():
    rows = [add(1, BUY, 100, 5, 7), (2, int(Kind.CANCEL), BUY, 100, 5, 8), (3, int(Kind.TRADE), SELL, 100, 2, 9)]
    day = pack_messages(table(*rows), unknown="count")
    assert day.counts.unknown_orders == 2
    assert day.events["kind"].tolist() == [MessageKind.ADD, MessageKind.PRINT]


def test_messages_when_a_print_precedes_its_cancel_then_it_is_an_execution():
    last = int(Flag.LAST)
    rows = [
        add(1, SELL, 100, 5, 7),
        add(1, SELL, 100, 5, 8),
        (2, int(Kind.TRADE), BUY, 100, 6, 0, 0),
        (2, int(Kind.CANCEL), SELL, 100, 5, 7, 0),
        (2, int(Kind.CANCEL), SELL, 100, 1, 8, last),
        (2, int(Kind.CANCEL), SELL, 100, 1, 8, last),
        (3, int(Kind.CANCEL), SELL, 100, 1, 8, last),
    ]
    day = pack_messages(table(*rows))
    kinds = [MessageKind(kind).name for kind in day.events["kind"]]
    assert kinds == ["ADD", "ADD", "PRINT", "EXECUTE", "EXECUTE", "CUT", "CUT"]
    assert day.counts.paired == 2


def test_messages_when_trading_halts_then_the_next_event_resumes_it():
    rows = [add(1, BUY, 100, 5, 7), (2, int(Kind.HALT), NONE, 0, 0), (3, int(Kind.HALT), NONE, 0, 0)]
    day = pack_messages(table(*rows, add(4, BUY, 100, 5, 8)))
    kinds = [MessageKind(kind).name for kind in day.events["kind"]]
    assert kinds == ["ADD", "HALT", "RESUME", "ADD"]
    assert day.events["ts_ns"].tolist() == [1, 2, 4, 4]


def test_messages_when_history_crosses_itself_then_the_arrival_is_marked():
    rows = [add(1, SELL, 100, 5, 7), add(2, BUY, 101, 5, 8), (3, int(Kind.TRADE), BUY, 100, 5, 7)]
    flags = pack_messages(table(*rows)).events["flags"]
    assert [bool(flag & MessageFlag.CROSSING) for flag in flags] == [False, True, False]
    assert flags[2] & MessageFlag.FRONT
