import gzip
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.ticks import csv_numbers, lobster_levels
from feature_repo.ticks.lobster import LevelAgreement, LobsterReader, level_agreement
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

STEM = "ABC_2012-06-21_34200000_57600000"
MIDNIGHT_NS = 1_340_251_200_000_000_000  # 2012-06-21 00:00 in New York
OPEN_MESSAGE = "34200.5,5,0,1,10050,1"  # leaves the book as it is
NONE_ASK, NONE_BID = "9999999999,0", "-9999999999,0"


def write(folder, messages, rows, levels=1, stem=STEM):
    """A pair of files; gives both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{stem}_message_{levels}.csv", folder / f"{stem}_orderbook_{levels}.csv"
    for path, lines in zip(paths, (messages, rows), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    return paths


def read(data, **request):
    reader, count = LobsterReader(), ReadCount()
    (plan,) = reader.plan(IngestRequest("lobster", data, **request))
    return pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA), count


def events(data):
    """(kind, side, price, size, order, flags) of each event."""
    columns = read(data)[0].to_pydict()
    names = ("kind", "side", "price_ticks", "size", "order_id", "flags")
    return list(zip(*(columns[name] for name in names), strict=True))


def refusal(data, **request):
    with pytest.raises(InputError) as caught:
        read(data, **request)
    return str(caught.value)


def books(table, depth):
    """Top levels (asks, bids) after every event flagged LAST, from nothing but the events."""
    ladder, out = {Side.SELL: {}, Side.BUY: {}}, []
    for event in table.to_pylist():
        kind, side, price, size = event["kind"], event["side"], event["price_ticks"], event["size"]
        if kind == Kind.CLEAR:
            ladder = {Side.SELL: {}, Side.BUY: {}}
        elif kind == Kind.DEPTH:
            ladder[side][price] = size
        elif kind in (Kind.ADD, Kind.CANCEL):
            ladder[side][price] = ladder[side].get(price, 0) + (size if kind == Kind.ADD else -size)
        elif kind == Kind.TRADE and not event["flags"] & Flag.HIDDEN:
            ladder[-side][price] = ladder[-side].get(price, 0) - size
        if event["flags"] & Flag.LAST:
            asks = sorted((p, s) for p, s in ladder[Side.SELL].items() if s)[:depth]
            bids = sorted(((p, s) for p, s in ladder[Side.BUY].items() if s), reverse=True)[:depth]
            out.append((asks, bids))
    return out


def vendor_books(path):
    """The same from a book file."""
    out = []
    for line in path.read_text().splitlines():
        levels = np.array(line.split(","), np.int64).reshape(-1, 2, 2)
        out.append(tuple([(int(p) // 100, int(s)) for p, s in levels[:, side] if s] for side in (0, 1)))
    return out


@pytest.mark.parametrize(
    ("message", "row", "expected"),
    [
        ("1,7,4,10000,1", "10100,5,10000,9", (Kind.ADD, Side.BUY, 100, 4, 7, Flag.LAST)),
        ("1,7,4,10100,-1", "10100,9,10000,5", (Kind.ADD, Side.SELL, 101, 4, 7, Flag.LAST)),
        ("2,7,4,10000,1", "10100,5,10000,1", (Kind.CANCEL, Side.BUY, 100, 4, 7, Flag.LAST)),
        ("3,7,4,10100,-1", "10100,1,10000,5", (Kind.CANCEL, Side.SELL, 101, 4, 7, Flag.LAST)),
        ("4,7,4,10000,1", "10100,5,10000,1", (Kind.TRADE, Side.SELL, 100, 4, 7, Flag.LAST)),
        ("4,7,4,10100,-1", "10100,1,10000,5", (Kind.TRADE, Side.BUY, 101, 4, 7, Flag.LAST)),
        ("5,0,4,10100,-1", "10100,5,10000,5", (Kind.TRADE, Side.BUY, 101, 4, 0, Flag.LAST | Flag.HIDDEN)),
        (
            "5,0,4,10050,1",
            "10100,5,10000,5",
            (Kind.TRADE, Side.SELL, 101, 4, 0, Flag.LAST | Flag.HIDDEN | Flag.SUB_TICK),
        ),
        ("6,0,4,10100,-1", "10100,5,10000,5", (Kind.TRADE, Side.NONE, 101, 4, 0, Flag.LAST | Flag.HIDDEN)),
        ("7,0,0,-1,-1", "10100,5,10000,5", (Kind.HALT, Side.NONE, -1, 0, 0, Flag.LAST)),
        ("7,0,0,0,-1", "10100,5,10000,5", (Kind.HALT, Side.NONE, 0, 0, 0, Flag.LAST)),
        ("7,0,0,1,-1", "10100,5,10000,5", (Kind.HALT, Side.NONE, 1, 0, 0, Flag.LAST)),
    ],
)
def test_lobster_when_message_is_read_then_it_is_one_event_and_the_aggressor_is_opposite(
    tmp_path, message, row, expected
):
    write(tmp_path, [OPEN_MESSAGE, f"34201,{message}"], ["10100,5,10000,5", row])
    got = events(tmp_path)
    assert got[-1] == expected
    assert [event[0] for event in got] == [Kind.CLEAR, Kind.DEPTH, Kind.DEPTH, Kind.TRADE, expected[0]]


def test_lobster_when_time_has_nine_decimals_then_no_nanosecond_is_rounded(tmp_path):
    times = ["34200.000000001", "34200.1", "57599.999999999", "57600"]
    write(tmp_path, [f"{time},5,0,1,10000,1" for time in times], ["10100,5,10000,5"] * 4)
    table, _ = read(tmp_path)
    got = [ts - MIDNIGHT_NS for ts in table["ts_event_ns"].to_pylist()]
    assert got[-4:] == [34_200_000_000_001, 34_200_100_000_000, 57_599_999_999_999, 57_600_000_000_000]
    assert got[0] == got[-4] and table["ts_recv_ns"].equals(table["ts_event_ns"])


@pytest.mark.parametrize(
    ("first", "row", "opening"),
    [
        ("1,7,4,10000,1", "10100,5,10000,9", [(Side.SELL, 101, 5), (Side.BUY, 100, 5)]),
        ("1,7,9,10000,1", "10100,5,10000,9", [(Side.SELL, 101, 5)]),
        ("3,7,4,10100,-1", "10100,5,10000,9", [(Side.SELL, 101, 9), (Side.BUY, 100, 9)]),
        ("4,7,4,10000,-1", "10100,5,9900,9", [(Side.SELL, 100, 4), (Side.BUY, 99, 9)]),
        ("5,0,4,10100,-1", "10100,5,10000,9", [(Side.SELL, 101, 5), (Side.BUY, 100, 9)]),
        ("1,7,40,10000,1", "10100,5,10000,9", [(Side.SELL, 101, 5), (Side.BUY, 100, 9)]),  # can not be taken back
    ],
)
def test_lobster_when_a_file_begins_then_the_book_before_its_first_message_opens_it(tmp_path, first, row, opening):
    _, book = write(tmp_path, [f"34200,{first}"], [row])
    got = events(tmp_path)
    assert got[0][:4] == (Kind.CLEAR, Side.NONE, 0, 0)
    assert [event[1:4] for event in got[1 : 1 + len(opening)]] == opening
    assert got[len(opening)][5] == Flag.LAST
    assert books(read(tmp_path)[0], 1)[-1] == vendor_books(book)[-1]


def test_lobster_when_the_visible_level_is_used_up_then_the_next_is_set_before_the_message_shows_it(tmp_path):
    write(tmp_path, [OPEN_MESSAGE, "34201,3,7,5,10100,-1"], ["10100,5,10000,5", "10300,8,10000,5"])
    assert events(tmp_path)[-2:] == [
        (Kind.DEPTH, Side.SELL, 103, 8, 0, Flag.RESYNC),
        (Kind.CANCEL, Side.SELL, 101, 5, 7, Flag.LAST),
    ]


def test_lobster_when_a_better_order_comes_then_the_level_out_of_sight_is_forgotten_after_it(tmp_path):
    write(tmp_path, [OPEN_MESSAGE, "34201,1,7,4,10100,1"], ["10200,5,10000,5", "10200,5,10100,4"])
    assert events(tmp_path)[-2:] == [
        (Kind.ADD, Side.BUY, 101, 4, 7, 0),
        (Kind.DEPTH, Side.BUY, 100, 0, 0, Flag.RESYNC | Flag.LAST),
    ]


@pytest.mark.parametrize(
    ("message", "row"),
    [
        ("3,7,9,10000,1", "10100,5,9900,3"),  # more than rests there
        ("3,7,9,10000,1", "10100,5,10000,5"),  # the same, and the row says that nothing happened
        ("4,7,2,10000,-1", "10100,5,10000,5"),  # no such level on that side
        ("1,7,2,10100,1", "10100,3,10000,5"),  # arrives across the spread
        ("1,7,0,10000,1", "10100,5,10000,6"),  # no size
        ("2,7,-3,10000,1", "10100,5,10000,5"),
    ],
)
def test_lobster_when_the_book_cannot_take_a_message_then_it_is_counted_and_the_row_taken_over(tmp_path, message, row):
    paths = write(tmp_path, [OPEN_MESSAGE, f"34201,{message}"], ["10100,5,10000,5", row])
    assert books(read(tmp_path)[0], 1)[1:] == vendor_books(paths[1])
    found = level_agreement(*paths)
    assert (found.rows, found.determined, found.inconsistent, found.exhausted) == (2, 0, 1, 0)


def test_lobster_when_a_determined_row_differs_then_it_is_not_equal_and_the_level_is_set_anew(tmp_path):
    paths = write(tmp_path, [OPEN_MESSAGE, "34201,1,7,4,10000,1"], ["10100,5,10000,5", "10100,5,10000,8"])
    assert events(tmp_path)[-3:] == [
        (Kind.ADD, Side.BUY, 100, 4, 7, 0),
        (Kind.DEPTH, Side.BUY, 100, 0, 0, Flag.RESYNC),
        (Kind.DEPTH, Side.BUY, 100, 8, 0, Flag.RESYNC | Flag.LAST),
    ]
    assert level_agreement(*paths) == LevelAgreement(2, 1, 0, 0, 0, 1)


def test_lobster_when_all_levels_of_a_side_are_seen_then_using_one_up_is_determined(tmp_path):
    rows = [f"10100,5,10000,5,10200,3,{NONE_BID}", f"10200,3,10000,5,{NONE_ASK},{NONE_BID}"]
    rows += [f"10200,3,{NONE_BID},{NONE_ASK},{NONE_BID}"] * 2
    messages = [OPEN_MESSAGE, "34201,3,7,5,10100,-1", "34202,3,8,5,10000,1", "34203,5,0,1,10000,1"]
    paths = write(tmp_path, messages, rows, levels=2)
    assert books(read(tmp_path)[0], 2)[1:] == vendor_books(paths[1])
    # the first of them lost a full side's level; the bid was the only one of two places
    assert level_agreement(*paths) == LevelAgreement(4, 2, 2, 1, 0, 0)


@st.composite
def market(draw):
    """Lines of a message and a book file of two levels from a whole book that is deeper than the files show."""
    levels = 2
    ladder = {-1: {101: 5, 102: 5, 103: 5, 104: 5}, 1: {100: 5, 99: 5, 98: 5, 97: 5}}
    messages, rows, exhausted = [], [], 0
    for i in range(draw(st.integers(1, 40))):
        side = draw(st.sampled_from([1, -1]))
        mine = ladder[side]
        seen = sorted((price for price in mine), key=lambda price: -side * price)[:levels]
        what = draw(st.sampled_from([1, 1, 2, 3, 4, 5]))
        if what == 1 or not seen or (what in (3, 4) and len(mine) == 1):
            inner = 100 if side > 0 else 101
            what, price, lots = 1, inner - side * draw(st.integers(0, 5)), draw(st.integers(1, 5))
            mine[price] = mine.get(price, 0) + lots
        elif what == 5:
            price, lots = 100, 1
        else:
            price = draw(st.sampled_from(seen)) if what != 4 else seen[0]
            lots = draw(st.integers(1, mine[price]))
            exhausted += i > 0 and lots == mine[price] and len(seen) == levels
            mine[price] -= lots
            if not mine[price]:
                del mine[price]
        messages.append(f"{34_200 + i},{what},{i + 1},{lots},{100 * price},{side}")
        asks = [f"{100 * price},{ladder[-1][price]}" for price in sorted(ladder[-1])[:levels]]
        bids = [f"{100 * price},{ladder[1][price]}" for price in sorted(ladder[1], reverse=True)[:levels]]
        asks += [NONE_ASK] * (levels - len(asks))
        bids += [NONE_BID] * (levels - len(bids))
        rows.append(",".join(f"{ask},{bid}" for ask, bid in zip(asks, bids, strict=True)))
    return messages, rows, exhausted


@settings(max_examples=120, deadline=None)
@given(market())
def test_lobster_when_a_market_is_seen_through_two_levels_then_events_give_every_row_back(tmp_path_factory, sample):
    messages, rows, exhausted = sample
    folder = tmp_path_factory.mktemp("lobster")
    paths = write(folder, messages, rows, levels=2)
    assert books(read(folder)[0], 2)[1:] == vendor_books(paths[1])
    found = level_agreement(*paths)
    assert found.rows == len(rows) == 1 + found.determined + found.exhausted + found.inconsistent
    assert found.equal == found.determined and (found.exhausted, found.inconsistent) == (exhausted, 0)


def test_lobster_when_files_come_in_many_batches_then_events_and_counts_are_the_same(tmp_path, monkeypatch):
    rows = [f"10100,{i % 7 + 1},10000,5" for i in range(400)]
    paths = write(tmp_path, [f"{34_200 + i},1,{i + 1},2,10100,-1" for i in range(400)], rows)
    whole, count = read(tmp_path)
    found = level_agreement(*paths)
    monkeypatch.setattr(csv_numbers, "BLOCK_BYTES", 512)
    monkeypatch.setattr(lobster_levels, "_MIN_EVENTS", 1)
    pieces, again = read(tmp_path)
    assert pieces.equals(whole) and pieces["sequence"].to_pylist() == list(range(len(whole)))
    assert again == count and level_agreement(*paths) == found


def test_lobster_when_rows_are_counted_then_messages_and_book_rows_balance(tmp_path):
    messages = [OPEN_MESSAGE, "34201,1,7,4,10000,1", "34202,3,9,5,10100,-1"]
    paths = write(tmp_path, messages, ["10100,5,10000,5", "10100,5,10000,9", "10300,8,10000,9"])
    _, count = read(tmp_path)
    assert count.vendor_rows == {path.name: 3 for path in paths}
    assert count.skipped == {paths[1].name: {"the book is what the messages make of it": 2}}


def test_lobster_when_one_file_ends_first_then_names_it_and_the_row(tmp_path):
    message, book = write(tmp_path, [OPEN_MESSAGE] * 3, ["10100,5,10000,5"] * 2)
    assert f"{book}: ends after row 2, {message.name} does not" in refusal(tmp_path)
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"] * 2)
    assert f"{message}: ends after row 1, {book.name} does not" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("34200.0000000001,1,7,4,10000,1", "line 2: seconds is '34200.0000000001'"),
        ("nan,1,7,4,10000,1", "line 2: seconds is 'nan'"),
        ("90001,1,7,4,10000,1", "line 2: seconds is '90001'"),
        ("34201,8,7,4,10000,1", "line 2: type is '8', a whole number from 1 to 7"),
        ("34201,1,7,4,10000", "line 2: 5 columns, 6 wanted"),
        ("34201,1,7,9999999999999999999999,10000,1", "line 2: size is '9999999999999999999999'"),
        ("34201,1,7,4,10000,0", "row 2: direction is 0, 1 or -1"),
        ("34201,3,7,4,10001,1", "row 2: price is 10001, a multiple of 100"),
    ],
)
def test_lobster_when_a_message_is_wrong_then_names_file_line_and_value(tmp_path, line, said):
    message, _ = write(tmp_path, [OPEN_MESSAGE, line], ["10100,5,10000,5"] * 2)
    assert f"{message}: {said}" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("10100,5,10000,5,10200,5,10000,5", "row 2: the order of levels"),
        ("10200,5,10000,5,10100,5,9900,5", "row 2: the order of levels"),
        (f"{NONE_ASK},10000,5,10200,5,9900,5", "row 2: the order of levels"),
        ("10100,5,10000,5,10250,5,9900,5", "row 2: a level's price"),
        ("10100,5,10000,5,10200,5,0,5", "row 2: a level's price"),
        ("10100,5,10000,5,9999999999,5,9900,5", "row 2: a level's price"),
        ("10100,5,10000,5,10200,-5,9900,5", "line 2: ask size 2 is '-5'"),
        ("10100,5,10000,5", "line 2: 4 columns, 8 wanted"),
    ],
)
def test_lobster_when_a_book_row_is_no_book_then_names_file_line_and_value(tmp_path, row, said):
    good = "10100,5,10000,5,10200,5,9900,5"
    _, book = write(tmp_path, [OPEN_MESSAGE] * 2, [good, row], levels=2)
    assert f"{book}: {said}" in refusal(tmp_path)


def test_lobster_when_files_are_compressed_then_events_are_the_same(tmp_path):
    paths = write(tmp_path / "plain", [OPEN_MESSAGE, "34201,1,7,4,10000,1"], ["10100,5,10000,5", "10100,5,10000,9"])
    (tmp_path / "packed").mkdir()
    for path in paths:
        (tmp_path / "packed" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read(tmp_path / "packed")[0].equals(read(tmp_path / "plain")[0])


def test_lobster_when_a_name_has_no_date_then_the_option_gives_it_or_the_file_is_left_out(tmp_path):
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"])
    for what in ("message", "orderbook"):
        source = tmp_path / f"{STEM}_{what}_1.csv"
        (tmp_path / f"XYZ_L1_excerpt_{what}.csv").write_bytes(source.read_bytes())
    reader = LobsterReader()
    (plan,) = reader.plan(IngestRequest("lobster", tmp_path))
    assert plan.partition.symbol == "ABC"
    assert plan.options == {"left_out": "XYZ_L1_excerpt_message.csv: no date in the name and no option date"}
    plans = reader.plan(IngestRequest("lobster", tmp_path, options={"date": "2012-06-22"}))
    assert [(item.partition.symbol, item.partition.date, item.options) for item in plans] == [
        ("ABC", "2012-06-21", {}),
        ("XYZ", "2012-06-22", {}),
    ]
    assert "option date=YYYY-MM-DD" in refusal(tmp_path, symbols=("xyz",))
    for path in tmp_path.glob("ABC*"):
        path.unlink()
    assert "XYZ_L1_excerpt_message.csv has no date in its name" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"date": "2012-13-01"}, "not a date"),
        ({"date": "yesterday"}, "not a date"),
        ({"day": "2012-06-21"}, "lobster option 'day' is unknown; options: date"),
    ],
)
def test_lobster_when_an_option_is_wrong_then_says_so(tmp_path, options, said):
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"], stem="XYZ_L1_excerpt")
    for what in ("message", "orderbook"):
        (tmp_path / f"XYZ_L1_excerpt_{what}_1.csv").rename(tmp_path / f"XYZ_L1_excerpt_{what}.csv")
    assert said in refusal(tmp_path, options=options)


def test_lobster_when_files_do_not_pair_or_two_hold_one_day_then_names_them(tmp_path):
    message, book = write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"])
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5,10200,5,9900,5"], levels=2)
    assert "holds the same symbol and day as" in refusal(tmp_path)
    message.unlink()
    assert f"{book}: 0 message files go with this orderbook file" in refusal(tmp_path)


def test_lobster_when_folder_holds_nothing_then_says_so(tmp_path):
    (tmp_path / "notes.csv").write_text("1,2\n")
    assert "holds no file that source lobster reads" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "nowhere")


def test_lobster_when_levels_in_name_are_absurd_then_refuses(tmp_path):
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"], levels=100_000)
    assert "the name tells 100000 levels, 1 to 1000" in refusal(tmp_path)


def test_lobster_when_a_symbol_has_files_of_several_depths_then_the_shallowest_holds(tmp_path):
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5"])
    write(tmp_path, [OPEN_MESSAGE], ["10100,5,10000,5,10200,5,9900,5"], levels=2, stem=STEM.replace("21", "22"))
    (item,) = LobsterReader().instruments(IngestRequest("lobster", tmp_path))
    assert (item.instrument_id, item.depth, item.tick_size, item.lot_size) == ("NASDAQ:ABC", 1, 0.01, 1.0)
    opens, closes = item.session_ns("2012-06-21")[0]
    assert (opens - MIDNIGHT_NS, closes - opens) == (34_200 * 10**9, 23_400 * 10**9)


def test_lobster_when_real_amzn_is_read_then_all_43561_determined_rows_are_predicted(real_data):
    stem = real_data / "lobster" / "AMZN_2012-06-21_34200000_57600000"
    message, book = (stem.with_name(f"{stem.name}_{what}_1.csv.gz") for what in ("message", "orderbook"))
    assert level_agreement(message, book) == LevelAgreement(57_515, 43_561, 43_561, 13_953, 0, 13_953)
    lines = gzip.decompress(message.read_bytes()).decode().splitlines()
    repeated = Counter(lines) - Counter(set(lines))
    assert repeated.total() == 48 and {line.split(",")[1] for line in repeated} == {"5"}  # equal hidden prints


def test_lobster_when_real_aapl_excerpt_is_read_then_ten_levels_agree(real_data):
    folder = real_data / "lobster"
    found = level_agreement(folder / "AAPL_L10_excerpt_message.csv", folder / "AAPL_L10_excerpt_orderbook.csv")
    assert found == LevelAgreement(999, 680, 680, 318, 0, 318)
    table, _ = read(folder, symbols=("AAPL",), options={"date": "2012-06-21"})
    assert books(table, 10)[1:] == vendor_books(folder / "AAPL_L10_excerpt_orderbook.csv")
