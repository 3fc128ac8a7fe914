import gzip
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from itch_file import ItchFile, clock

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book
from feature_repo.ticks import itch
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.itch import ItchReader
from feature_repo.ticks.itch_kernel import MESSAGE_BYTES
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

NAME = "01302019.NASDAQ_ITCH50"
ABC, XYZ = 11, 12
OPEN, NOON = clock("09:30:00"), clock("12:00:00")
OPEN_NS = int(datetime(2019, 1, 30, 9, 30, tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9


def feed():
    """The start of a day with two stocks."""
    return ItchFile().system("O", clock("03:00:00")).directory(ABC, "ABC").directory(XYZ, "XYZ")


def opened():
    """A day that has opened with a bid of 100 at 25.00 (order 1)."""
    return feed().order(ABC, "ABC", clock("09:00:00"), 1, "B", 100, 250_000)


def write(folder, day, name=NAME, end=True):
    if end:
        day.system("C", clock("20:00:00"))
    (folder / name).write_bytes(day.content())
    return folder


def read(folder, symbol="ABC", **options):
    reader, count = ItchReader(), ReadCount()
    (plan,) = reader.plan(IngestRequest("itch", folder, (symbol,), options=options))
    return pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA), count


def rows(table, *names):
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def after_open(folder, day, *names):
    """Columns of the events after the opening book of one order (CLEAR, ADD)."""
    table, _ = read(write(folder, day))
    return rows(table.slice(2), *names)


def refusal(folder, **request):
    with pytest.raises(InputError) as caught:
        read(folder, **request)
    return str(caught.value)


def test_itch_file_when_each_type_is_written_then_it_has_the_published_length():
    day = opened().notices(ABC, "ABC", NOON).action(ABC, "ABC", "T", NOON).operational(ABC, "ABC", "T", NOON)
    day.order(ABC, "ABC", NOON, 2, "S", 5, 1, maker="MAKR").executed(ABC, NOON, 1, 5).executed_at(ABC, NOON, 1, 5, 9)
    day.cancel(ABC, NOON, 1, 1).delete(ABC, NOON, 1).replace(ABC, NOON, 1, 3, 4, 5).hidden(ABC, "ABC", NOON, 1, 2)
    day.cross(ABC, "ABC", NOON, 1, 2).broken(ABC, NOON, 3)
    assert {chr(message[0]): len(message) for message in day.messages} == MESSAGE_BYTES


def test_itch_when_orders_rest_before_the_open_then_they_open_the_book_oldest_first(tmp_path):
    day = opened().order(ABC, "ABC", clock("09:01:00"), 2, "S", 70, 250_100).order(XYZ, "XYZ", OPEN, 9, "B", 1, 10_000)
    day.order(ABC, "ABC", clock("09:02:00"), 3, "B", 50, 250_000).cancel(ABC, clock("09:03:00"), 1, 40)
    day.replace(ABC, clock("09:04:00"), 2, 4, 30, 250_200).delete(ABC, clock("09:05:00"), 3)
    table, count = read(write(tmp_path, day))
    assert rows(table, "kind", "side", "price_ticks", "size", "order_id") == [
        (Kind.CLEAR, Side.NONE, 0, 0, 0),
        (Kind.ADD, Side.BUY, 2500, 60, 1),
        (Kind.ADD, Side.SELL, 2502, 30, 4),
    ]
    assert set(table.column("ts_event_ns").to_pylist()) == {OPEN_NS}
    assert table.column("flags").to_pylist() == [Flag.CARRIED, Flag.CARRIED, Flag.CARRIED | Flag.LAST]
    assert count.vendor_rows == {NAME: 11} and count.elsewhere == {NAME: 2} and count.total == 9
    assert count.skipped[NAME] == {
        "before the open, folded into the opening book": 6,
        "R: stock directory": 1,
        "S: system event": 2,
    }


def test_itch_when_an_order_is_executed_then_the_aggressor_is_the_other_side(tmp_path):
    day = opened().order(ABC, "ABC", OPEN, 2, "S", 70, 250_100, maker="MAKR")
    day.executed(ABC, NOON, 1, 30).executed(ABC, NOON, 2, 20).executed_at(ABC, NOON, 2, 10, 250_050)
    assert after_open(tmp_path, day, "kind", "side", "price_ticks", "size", "order_id", "flags") == [
        (Kind.ADD, Side.SELL, 2501, 70, 2, Flag.LAST),
        (Kind.TRADE, Side.SELL, 2500, 30, 1, Flag.LAST),
        (Kind.TRADE, Side.BUY, 2501, 20, 2, Flag.LAST),
        (Kind.TRADE, Side.BUY, 2501, 10, 2, Flag.LAST | Flag.SUB_TICK),
    ]


def test_itch_when_an_execution_is_not_printable_then_it_only_leaves_the_book(tmp_path):
    day = opened().executed_at(ABC, NOON, 1, 60, 249_900, printable="N").cross(ABC, "ABC", NOON, 500, 249_900)
    assert after_open(tmp_path, day, "kind", "side", "price_ticks", "size", "order_id", "flags") == [
        (Kind.CANCEL, Side.BUY, 2500, 60, 1, Flag.LAST),
        (Kind.TRADE, Side.NONE, 2499, 500, 0, Flag.LAST | Flag.HIDDEN),
    ]


def test_itch_when_an_order_is_cancelled_and_replaced_then_lots_leave_and_a_new_number_joins(tmp_path):
    day = opened().cancel(ABC, NOON, 1, 40).replace(ABC, NOON + 5, 1, 7, 80, 250_100).delete(ABC, NOON + 9, 7)
    assert after_open(tmp_path, day, "kind", "price_ticks", "size", "order_id", "flags") == [
        (Kind.CANCEL, 2500, 40, 1, Flag.LAST),
        (Kind.CANCEL, 2500, 60, 1, 0),
        (Kind.ADD, 2501, 80, 7, Flag.LAST),
        (Kind.CANCEL, 2501, 80, 7, Flag.LAST),
    ]


def test_itch_when_prints_meet_no_displayed_order_then_they_are_hidden(tmp_path):
    day = opened().hidden(ABC, "ABC", NOON, 25, 250_049).broken(ABC, NOON, 2).cross(ABC, "ABC", NOON, 0, 0, "H")
    table, count = read(write(tmp_path, day))
    assert rows(table.slice(2), "kind", "side", "price_ticks", "size", "flags") == [
        (Kind.TRADE, Side.NONE, 2500, 25, Flag.LAST | Flag.HIDDEN | Flag.SUB_TICK),
        (Kind.TRADE, Side.NONE, 0, 0, Flag.LAST | Flag.HIDDEN | Flag.CANCELLED),
    ]
    assert count.skipped[NAME]["Q: cross without shares"] == 1


def test_itch_when_the_stock_is_halted_then_halt_and_nothing_for_the_release(tmp_path):
    day = opened().action(ABC, "ABC", "H", NOON).action(ABC, "ABC", "Q", NOON + 1).action(ABC, "ABC", "T", NOON + 2)
    day.action(XYZ, "XYZ", "H", NOON).operational(ABC, "ABC", "H", NOON + 3).operational(ABC, "ABC", "T", NOON + 4)
    assert after_open(tmp_path, day, "kind", "ts_event_ns") == [
        (Kind.HALT, OPEN_NS - OPEN + NOON),
        (Kind.HALT, OPEN_NS - OPEN + NOON + 1),
        (Kind.HALT, OPEN_NS - OPEN + NOON + 3),
    ]


def test_itch_when_the_stock_is_halted_at_the_open_then_halt_follows_the_opening_book(tmp_path):
    day = opened().action(ABC, "ABC", "P", clock("09:29:00")).hidden(ABC, "ABC", NOON, 1, 250_000)
    assert after_open(tmp_path, day, "kind", "ts_event_ns")[0] == (Kind.HALT, OPEN_NS)


def test_itch_when_an_order_is_unknown_then_its_events_are_suspicious(tmp_path):
    day = opened().executed(ABC, NOON, 5, 10).cancel(ABC, NOON, 5, 10).delete(ABC, NOON, 5)
    day.replace(ABC, NOON, 5, 6, 10, 250_000).executed(ABC, NOON, 6, 1)
    doubt = Flag.LAST | Flag.SUSPICIOUS
    assert after_open(tmp_path, day, "kind", "side", "price_ticks", "size", "order_id", "flags") == [
        (Kind.TRADE, Side.NONE, 0, 10, 5, doubt),
        (Kind.CANCEL, Side.NONE, 0, 10, 5, doubt),
        (Kind.CANCEL, Side.NONE, 0, 0, 5, doubt),
        (Kind.CANCEL, Side.NONE, 0, 0, 5, Flag.SUSPICIOUS),
        (Kind.ADD, Side.NONE, 2500, 10, 6, doubt),
        (Kind.TRADE, Side.NONE, 0, 1, 6, doubt),
    ]


def test_itch_when_messages_say_nothing_of_the_book_then_each_is_skipped_by_type(tmp_path):
    day = opened().notices(ABC, "ABC", NOON).add("z", ABC, NOON, b"new in a later version")
    table, count = read(write(tmp_path, day))
    assert len(table) == 2
    skipped = count.skipped[NAME]
    assert skipped["unknown message type 'z'"] == 1
    assert {reason[0] for reason in skipped} >= set("YLVWKJINO")
    assert count.vendor_rows[NAME] == len(day.messages) == sum(skipped.values()) + count.elsewhere[NAME]


def test_itch_when_chunks_end_anywhere_then_events_are_the_same(tmp_path, monkeypatch):
    day = opened()
    for i in range(40):
        day.order(ABC, "ABC", OPEN + i, 10 + i, "BS"[i % 2], 10 + i, 250_000 + 100 * (2 * (i % 2) - 1) * (i % 5 + 1))
        day.notices(XYZ, "XYZ", OPEN + i).executed(ABC, OPEN + i, 10 + i, 3)
        day.replace(ABC, OPEN + i, 10 + i, 90 + i, 5, 1)
    write(tmp_path, day)
    whole, count = read(tmp_path)
    for size in (64, 101, 1000):
        monkeypatch.setattr(itch, "CHUNK_BYTES", size)
        again, recount = read(tmp_path)
        assert again.equals(whole) and recount == count


def test_itch_when_many_orders_come_and_go_then_the_book_equals_a_dictionary_of_orders(tmp_path):
    rng, day, live, number = np.random.default_rng(5), feed(), {}, 0
    for i in range(30_000):
        ts = clock("09:00:00") + i * 200_000_000
        what = rng.choice(["order", "cancel", "delete", "replace", "executed"], p=[0.4, 0.1, 0.3, 0.1, 0.1])
        side, shares, level = "BS"[rng.integers(2)], int(rng.integers(1, 9)) * 10, int(rng.integers(1, 40))
        price = 250_000 + (100 if side == "S" else -100) * level
        if what == "order" or not live:
            number += int(rng.integers(1, 1 << 40))
            day.order(ABC, "ABC", ts, number, side, shares, price)
            live[number] = [side, price, shares]
            continue
        picked = list(live)[int(rng.integers(len(live)))]
        left = live[picked][2]
        if what == "replace":
            number += 1
            price = 250_000 + (100 if live[picked][0] == "S" else -100) * level
            day.replace(ABC, ts, picked, number, shares, price)
            live[number] = [live.pop(picked)[0], price, shares]
        elif what == "delete":
            day.delete(ABC, ts, picked)
            del live[picked]
        else:
            taken = int(rng.integers(1, left + 1))
            (day.cancel if what == "cancel" else day.executed)(ABC, ts, picked, taken)
            live[picked][2] -= taken
            if taken == left:
                del live[picked]
    table, _ = read(write(tmp_path, day))
    book, counts = build_book(table, 5)
    assert counts.unknown_order == counts.oversized == 0
    for side, prices, sizes, sign in (("B", book.bid_px, book.bid_sz, -1), ("S", book.ask_px, book.ask_sz, 1)):
        levels = {}
        for which, price, left in live.values():
            if which == side:
                levels[price // 100] = levels.get(price // 100, 0) + left
        best = sorted(levels, key=lambda price: sign * price)[:5]
        assert prices[-1][: len(best)].tolist() == best
        assert sizes[-1][: len(best)].tolist() == [levels[price] for price in best]


def test_itch_when_a_file_is_ingested_then_every_message_is_accounted_for(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    day = opened().order(XYZ, "XYZ", NOON, 3, "S", 5, 20_000).executed(ABC, NOON, 1, 5).system("C", clock("20:00:00"))
    (data / f"{NAME}.gz").write_bytes(gzip.compress(day.content(end_mark=True)))
    summary = ingest(IngestRequest("itch", data), out)
    assert [(item["symbol"], item["date"]) for item in summary["partitions"]] == [
        ("ABC", "2019-01-30"),
        ("XYZ", "2019-01-30"),
    ]
    # two system messages and its own directory entry; ABC's two orders' messages, XYZ's one
    assert [item["vendor_rows"] for item in summary["partitions"]] == [5, 4]
    for item in summary["partitions"]:
        assert item["rows"] - item["carried_rows"] + item["skipped_rows"] == item["vendor_rows"]


def test_itch_when_a_symbol_is_not_in_the_directory_then_those_there_are_named(tmp_path):
    assert "symbol NOPE is not in" in refusal(write(tmp_path, opened()), symbol="NOPE")


def test_itch_when_the_name_has_no_date_then_the_option_gives_it(tmp_path):
    write(tmp_path, opened(), "excerpt.itch")
    assert "set the option date" in refusal(tmp_path)
    assert "is not a date" in refusal(tmp_path, date="30.01.2019")
    table, _ = read(tmp_path, date="2019-01-30")
    assert table.column("ts_event_ns")[0].as_py() == OPEN_NS


def test_itch_when_the_day_is_not_ended_then_refused_unless_it_is_called_partial(tmp_path):
    write(tmp_path, opened().delete(ABC, NOON, 1), end=False)
    message = refusal(tmp_path)
    assert NAME in message and "without the last one" in message
    table, _ = read(tmp_path, partial=1)
    assert len(table) == 3
    write(tmp_path, opened(), end=False)
    assert "ends before the first message of ABC at or after 09:30:00" in refusal(tmp_path, partial=1)


def test_itch_when_the_session_is_marked_as_ended_then_the_file_is_whole(tmp_path):
    (tmp_path / NAME).write_bytes(opened().content(end_mark=True))
    assert len(read(tmp_path)[0]) == 2


@pytest.mark.parametrize(
    ("damage", "told", "at"),
    [
        (lambda content: content[:-5], "the file is cut off", -14),
        (lambda content: content + b"\0\0" + content, "bytes follow the end of the session", 2),
        (lambda content: content + b"\0\x13D" + bytes(4) + b"\xff" * 14, "time stamp of a message of type 'D'", 0),
        (lambda content: content.replace(b"B\0\0\0\x64ABC", b"?\0\0\0\x64ABC"), "side of a message of type 'A'", -52),
        (lambda content: content + b"\0\x14D" + bytes(19), "of type 'D' is 20 bytes long, 19 are wanted", 0),
    ],
)
def test_itch_when_the_content_is_damaged_then_file_offset_and_reason_are_told(tmp_path, damage, told, at):
    write(tmp_path, opened())
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(damage(content))
    message = refusal(tmp_path)
    assert NAME in message and told in message
    assert f"byte {len(content) + at}:" in message


def test_itch_when_the_content_is_another_format_then_the_missing_directory_is_told(tmp_path):
    (tmp_path / NAME).write_bytes(b"no such format " * 9)
    assert "no stock directory (R) before the first order" in refusal(tmp_path)


def test_itch_when_two_files_hold_one_day_then_refused(tmp_path):
    write(tmp_path, opened())
    write(tmp_path, opened(), f"{NAME}.copy")
    assert "holds the same day 2019-01-30" in refusal(tmp_path)
