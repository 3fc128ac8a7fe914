import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from binance_files import MIDNIGHT_US, SENT_MS, SPOT, USDM, diff, dump, lines, quote, snapshot, spot_diff, stream, trade

from feature_repo.errors import InputError
from feature_repo.ticks import binance_chain, binance_lines
from feature_repo.ticks.binance import BinanceReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from feature_repo.ticks.standing import StandingBook

BUY, SELL, NONE = Side.BUY, Side.SELL, Side.NONE
LAST, GAP, CARRIED = Flag.LAST, Flag.GAP, Flag.CARRIED
OPENING = StandingBook(50, np.array([-1, 1], np.int8), np.array([1002, 1000]), np.array([4, 3]))


def read(data, opening=None, **request):
    reader, count = BinanceReader(), ReadCount()
    plan = reader.plan(IngestRequest("binance", data, **request))[-1]
    return pa.Table.from_batches(list(reader.read(plan, count, opening)), EVENT_SCHEMA).to_pydict(), count


def rows(events):
    """(kind, side, price, size, order id, flags) of every event."""
    return list(
        zip(*(events[name] for name in ("kind", "side", "price_ticks", "size", "order_id", "flags")), strict=True)
    )


def refusal(data, **request):
    with pytest.raises(InputError) as caught:
        read(data, **request)
    return str(caught.value)


def skipped(count):
    (reasons,) = count.skipped.values()
    return reasons


@pytest.mark.parametrize(("maker", "side"), [(True, SELL), (False, BUY)])
def test_reader_binance_when_trade_then_aggressor_is_who_was_not_maker(tmp_path, maker, side):
    dump(tmp_path, trade("28145.10", "0.020", maker))
    events, count = read(tmp_path)
    assert rows(events) == [(Kind.TRADE, side, 281451, 20, 0, 0)]
    assert count.vendor_rows == {USDM: 1} and not count.skipped


@pytest.mark.parametrize("what", ["INSURANCE_FUND", "ADL", "NA"])
def test_reader_binance_when_trade_is_not_of_the_market_then_it_is_derived(tmp_path, what):
    dump(tmp_path, trade(X=what))
    assert read(tmp_path)[0]["flags"] == [Flag.DERIVED]


def test_reader_binance_when_best_quote_then_bid_and_ask_carry_the_update_number(tmp_path):
    dump(tmp_path, quote(77, ("100.0", "0.005"), ("100.1", "1.250")))
    assert rows(read(tmp_path)[0]) == [(Kind.QUOTE, BUY, 1000, 5, 77, 0), (Kind.QUOTE, SELL, 1001, 1250, 77, LAST)]


def test_reader_binance_when_spot_then_its_own_venue_steps_and_numbering(tmp_path):
    book = {"u": 7, "b": "100.00000000", "B": "0.00012000", "a": "100.01000000", "A": "1.00000000"}
    messages = spot_diff(4, 6, [("99.99", "2")]), spot_diff(6, 9, asks=[("100.03", "0")]), stream("bookTicker", book)
    dump(tmp_path, *messages, name=SPOT)
    (instrument,) = BinanceReader().instruments(IngestRequest("binance", tmp_path))
    assert (instrument.instrument_id, instrument.tick_size, instrument.lot_size) == ("BINANCE:BTCUSDT", 0.01, 1e-5)
    assert rows(read(tmp_path)[0]) == [
        (Kind.DEPTH, BUY, 9999, 200_000, 6, LAST),
        (Kind.DEPTH, SELL, 10003, 0, 9, LAST),
        (Kind.QUOTE, BUY, 10000, 12, 7, 0),
        (Kind.QUOTE, SELL, 10001, 100_000, 7, LAST),
    ]


@pytest.mark.parametrize("digits", [16, 19])
def test_reader_binance_when_receive_time_is_us_or_ns_then_both_times_are_it_in_ns(tmp_path, digits):
    at = str(MIDNIGHT_US + 5) + "000"[: digits - 16]
    dump(tmp_path, f"{at} {json.dumps(trade())}")
    events, _ = read(tmp_path)
    assert events["ts_event_ns"] == events["ts_recv_ns"] == [(MIDNIGHT_US + 5) * 1_000]


def test_reader_binance_when_exchange_clock_then_time_never_runs_back_and_gaps_are_filled(tmp_path):
    late, wrong = trade(T=SENT_MS - 1_500), trade(T=SENT_MS + 3_600_000)
    no_time = stream("bookTicker", {"u": 9, "b": "100.0", "B": "1", "a": "100.1", "A": "1"})
    dump(tmp_path, trade(T=SENT_MS + 7), late, no_time, wrong, trade(T=SENT_MS + 12))
    events, _ = read(tmp_path, options={"clock": "exchange"})
    usual = 7  # ms; half of the messages with a time are sent 7 ms or more after they are received
    assert [at // 1_000_000 - SENT_MS for at in events["ts_event_ns"]] == [7, 7, 2 + usual, 2 + usual, 2 + usual, 12]
    assert [at // 1_000_000 - SENT_MS for at in events["ts_recv_ns"]] == [0, 1, 2, 2, 3, 4]


def test_reader_binance_when_snapshot_then_clear_and_levels_the_last_one_flagged(tmp_path):
    dump(tmp_path, snapshot(10, [("100.0", "1"), ("99.9", "2")], [("100.1", "3")]))
    assert rows(read(tmp_path)[0]) == [
        (Kind.CLEAR, NONE, 0, 0, 10, 0),
        (Kind.DEPTH, BUY, 1000, 1000, 10, 0),
        (Kind.DEPTH, BUY, 999, 2000, 10, 0),
        (Kind.DEPTH, SELL, 1001, 3000, 10, LAST),
    ]


def test_reader_binance_when_snapshot_is_empty_then_the_book_is_unknown(tmp_path):
    dump(tmp_path, snapshot(10, [], []))
    assert rows(read(tmp_path)[0]) == [(Kind.CLEAR, NONE, 0, 0, 10, 0)]


def test_reader_binance_when_diffs_end_before_the_snapshot_then_they_are_skipped_with_a_reason(tmp_path):
    level = [("100.0", "5")]
    dump(tmp_path, snapshot(10, level, []), diff(5, 8, level), diff(8, 12, level), diff(12, 13, level))
    events, count = read(tmp_path)
    assert events["order_id"] == [10, 10, 12, 13] and not any(flag & GAP for flag in events["flags"])
    assert count.total == 4 and skipped(count) == {"diff from before the snapshot": 1}


@pytest.mark.parametrize("first", [diff(7, 10, [("100.0", "5")]), diff(10, 12, [("100.0", "5")])])
def test_reader_binance_when_snapshot_was_taken_at_the_end_of_a_diff_then_both_neighbours_join(tmp_path, first):
    dump(tmp_path, snapshot(10, [("100.0", "1")], []), first)
    assert [row[0] for row in rows(read(tmp_path)[0])] == [Kind.CLEAR, Kind.DEPTH, Kind.DEPTH]


@pytest.mark.parametrize(("make", "name", "missing"), [(diff, USDM, 0), (spot_diff, SPOT, 5)])
def test_reader_binance_when_first_diff_lies_beyond_the_snapshot_then_hole_is_marked(tmp_path, make, name, missing):
    dump(tmp_path, snapshot(10, [("100", "1")], []), make(15, 17, [("100", "5")]), name=name)
    assert rows(read(tmp_path)[0])[2] == (Kind.CLEAR, NONE, 0, missing, 0, GAP)


def test_reader_binance_when_spot_diff_ends_at_the_snapshot_then_skipped_and_the_next_joins(tmp_path):
    messages = snapshot(10, [("100", "1")], []), spot_diff(8, 10, [("100", "4")]), spot_diff(9, 11, [("100", "5")])
    dump(tmp_path, *messages, name=SPOT)
    events, count = read(tmp_path)
    assert events["order_id"] == [10, 10, 11] and skipped(count) == {"diff from before the snapshot": 1}


@pytest.mark.parametrize(("make", "name", "missing"), [(diff, USDM, 0), (spot_diff, SPOT, 3)])
def test_reader_binance_when_a_diff_is_missing_then_hole_before_the_next_and_diffs_go_on(tmp_path, make, name, missing):
    level = [("100", "5")]
    dump(tmp_path, snapshot(10, level, []), make(10, 12, level), make(15, 17, level), make(17, 18, level), name=name)
    got = rows(read(tmp_path)[0])
    assert [row[0] for row in got[2:]] == [Kind.DEPTH, Kind.CLEAR, Kind.DEPTH, Kind.DEPTH]
    assert got[3] == (Kind.CLEAR, NONE, 0, missing, 0, GAP)


def test_reader_binance_when_numbering_runs_back_then_hole_of_unknown_size(tmp_path):
    level = [("100", "5")]
    dump(tmp_path, snapshot(10, level, []), spot_diff(10, 12, level), spot_diff(3, 4, level), name=SPOT)
    assert rows(read(tmp_path)[0])[3] == (Kind.CLEAR, NONE, 0, 0, 0, GAP)


def test_reader_binance_when_a_diff_is_sent_twice_then_the_second_is_skipped(tmp_path):
    level = [("100.0", "5")]
    dump(tmp_path, diff(5, 8, level), diff(5, 8, level), diff(8, 9, level))
    events, count = read(tmp_path)
    assert events["order_id"] == [8, 9] and skipped(count) == {"diff repeated": 1}


def test_reader_binance_when_a_diff_has_no_level_then_numbering_goes_on_over_it(tmp_path):
    level = [("100.0", "5")]
    dump(tmp_path, diff(5, 8, level), diff(8, 9), diff(9, 11, level))
    events, count = read(tmp_path)
    assert events["kind"] == [Kind.DEPTH] * 2 and skipped(count) == {"diff without a level": 1}


def test_reader_binance_when_snapshot_comes_late_then_it_is_brought_forward_to_the_last_diff(tmp_path):
    dump(
        tmp_path,
        diff(5, 8, [("100.0", "5")]),
        diff(8, 12, [("99.9", "0"), ("99.8", "7")], [("100.1", "9")]),
        diff(12, 14, [("99.8", "8")]),
        quote(14),
        snapshot(10, [("100.0", "1"), ("99.9", "2")], [("100.1", "3"), ("100.2", "4")]),
        diff(14, 15, asks=[("100.2", "0")]),
    )
    events, count = read(tmp_path)
    assert rows(events)[7:] == [
        (Kind.CLEAR, NONE, 0, 0, 14, 0),
        (Kind.DEPTH, BUY, 998, 8000, 14, 0),
        (Kind.DEPTH, BUY, 1000, 1000, 14, 0),
        (Kind.DEPTH, SELL, 1001, 9000, 14, 0),
        (Kind.DEPTH, SELL, 1002, 4000, 14, LAST),
        (Kind.DEPTH, SELL, 1002, 0, 15, LAST),
    ]
    assert events["ts_recv_ns"] == sorted(events["ts_recv_ns"]) and set(events["ts_recv_ns"][7:12]) == {
        (MIDNIGHT_US + 4_000) * 1_000
    }
    assert count.total == 6 and not count.skipped


def test_reader_binance_when_late_snapshot_and_diffs_lie_in_two_chunks_then_the_same_events(tmp_path, monkeypatch):
    messages = [
        *(diff(4 + k, 5 + k, [(f"{90 + k % 7}.0", str(k % 3))]) for k in range(1, 30)),
        snapshot(12, [("100.0", "1")], [("100.1", "3")]),
        *(diff(4 + k, 5 + k, [(f"{90 + k % 7}.0", str(k % 3))]) for k in range(30, 40)),
    ]
    dump(tmp_path, *messages)
    whole, _ = read(tmp_path)
    monkeypatch.setattr(binance_lines, "CHUNK_LINES", 3)
    assert read(tmp_path)[0] == whole
    assert whole["sequence"] == list(range(len(whole["kind"])))


def test_reader_binance_when_snapshot_is_older_than_the_kept_diffs_then_skipped_and_the_book_stays(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(binance_chain, "KEPT_DIFFS", 2)
    level = [("100.0", "5")]
    dump(tmp_path, *(diff(k, k + 1, level) for k in range(5, 10)), snapshot(6, level, []), diff(10, 11, level))
    events, count = read(tmp_path)
    assert events["kind"] == [Kind.DEPTH] * 6 and skipped(count) == {"snapshot older than the diffs kept": 1}


def test_reader_binance_when_snapshot_is_from_before_a_hole_then_it_does_not_bridge_it(tmp_path):
    level = [("100.0", "5")]
    dump(tmp_path, diff(5, 8, level), diff(20, 22, level), snapshot(7, level, []))
    events, count = read(tmp_path)
    assert events["kind"] == [Kind.DEPTH, Kind.CLEAR, Kind.DEPTH] and count.skipped


def test_reader_binance_when_the_day_goes_on_then_the_opening_book_stands_before_the_first_diff(tmp_path):
    dump(tmp_path, trade(), diff(50, 52, [("99.9", "1")]), diff(52, 53, [("99.9", "2")]))
    events, count = read(tmp_path, OPENING)
    assert rows(events)[1:] == [
        (Kind.CLEAR, NONE, 0, 0, 50, CARRIED),
        (Kind.DEPTH, SELL, 1002, 4, 50, CARRIED),
        (Kind.DEPTH, BUY, 1000, 3, 50, CARRIED | LAST),
        (Kind.DEPTH, BUY, 999, 1000, 52, LAST),
        (Kind.DEPTH, BUY, 999, 2000, 53, LAST),
    ]
    assert events["ts_event_ns"][1:5] == [(MIDNIGHT_US + 1_000) * 1_000] * 4 and count.total == 3


@pytest.mark.parametrize(("make", "name", "missing"), [(diff, USDM, 0), (spot_diff, SPOT, 9)])
def test_reader_binance_when_the_day_does_not_go_on_then_hole_and_no_opening_book(tmp_path, make, name, missing):
    dump(tmp_path, make(59, 61, [("99.9", "1")]), name=name)
    got = rows(read(tmp_path, OPENING)[0])
    assert got[0] == (Kind.CLEAR, NONE, 0, missing, 0, GAP)
    assert [row[0] for row in got] == [Kind.CLEAR, Kind.DEPTH]


def test_reader_binance_when_the_day_has_its_own_snapshot_then_the_opening_book_is_left_out(tmp_path):
    dump(tmp_path, snapshot(70, [("99.0", "1")], []), diff(70, 71, [("99.1", "1")]))
    events, _ = read(tmp_path, OPENING)
    assert not any(flag & (CARRIED | GAP) for flag in events["flags"])
    assert events["order_id"] == [70, 70, 71]


@pytest.mark.parametrize(("limit", "value"), [("CHUNK_LINES", 3), ("CHUNK_BYTES", 400)])
def test_reader_binance_when_a_batch_is_taken_then_no_more_lines_than_its_own_have_been_read(
    tmp_path, monkeypatch, limit, value
):
    monkeypatch.setattr(binance_lines, limit, value)
    dump(tmp_path, *[trade(str(k)) for k in range(1, 31)])
    (plan,) = BinanceReader().plan(IngestRequest("binance", tmp_path))
    count, seen = ReadCount(), 0
    for batch in BinanceReader().read(plan, count):
        seen += len(batch)
        assert len(batch) == 3 and count.total == seen
    assert seen == 30


def test_reader_binance_when_streams_have_no_market_event_then_skipped_by_reason(tmp_path):
    mark = stream("markPrice@1s", {"e": "markPriceUpdate", "E": SENT_MS, "p": "100.0", "T": SENT_MS + 28_800_000})
    partial = stream("depth20@100ms", {"b": [], "a": []})
    other = stream("trade", {"p": "1"}, symbol="ETHUSDT")
    dump(tmp_path, mark, mark, partial, other, {"result": None, "id": 1}, trade())
    events, count = read(tmp_path)
    assert events["kind"] == [Kind.TRADE] and count.total == 6
    assert skipped(count) == {"stream markPrice": 2, "stream depth20": 1, "symbol ETHUSDT": 1, "no market message": 1}


def test_reader_binance_when_no_line_gives_an_event_then_refused_with_file_and_reasons(tmp_path):
    dump(tmp_path, {"result": None, "id": 1}, stream("trade", {}, symbol="ETHUSDT"))
    text = refusal(tmp_path)
    assert f"{USDM}: empty session, no event of BTCUSDT in 2 lines (1 x no market message, 1 x symbol ETHUSDT)" in text


def test_reader_binance_when_price_lies_between_ticks_then_nearest_and_flagged(tmp_path):
    dump(tmp_path, trade("100.04"), trade("100.06"), trade("100.1000"))
    events, _ = read(tmp_path)
    assert list(zip(events["price_ticks"], events["flags"], strict=True)) == [
        (1000, Flag.SUB_TICK),
        (1001, Flag.SUB_TICK),
        (1001, 0),
    ]


@pytest.mark.parametrize("text", ["0.1", "123456789012.7", "90071992547409.9"])
def test_reader_binance_when_price_has_many_digits_then_it_is_exact(tmp_path, text):
    dump(tmp_path, trade(text))
    assert read(tmp_path)[0]["price_ticks"] == [int(text.replace(".", ""))]


def test_reader_binance_when_an_old_order_holds_part_of_a_lot_then_whole_lots_count_and_are_flagged(tmp_path):
    dump(tmp_path, diff(4, 5, [("100.0", "4690.3438"), ("99.9", "0.0004"), ("99.8", "1.5000")]))
    assert [row[3:] for row in rows(read(tmp_path)[0])] == [
        (4_690_343, 5, Flag.ODD_LOT),
        (0, 5, Flag.ODD_LOT),
        (1_500, 5, LAST),
    ]


def test_reader_binance_when_many_sizes_hold_part_of_a_lot_then_the_lot_size_is_refused(tmp_path):
    dump(tmp_path, trade(), diff(4, 5, [(f"{100 - k}.0", "0.0005") for k in range(20)]))
    assert "line 2: size 0.0005 is no multiple of the lot size 0.001; give option lot_size" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (trade(size="0.0005"), "size 0.0005 is no multiple of the lot size 0.001; give option lot_size"),
        (trade(price="1e20"), "price is 1000000000000000000000 steps, the limit is"),
        (trade(price="NaN"), "price is 'NaN', a decimal in quotes"),
        (trade(price="0.123456789"), "at most 8 decimals is wanted"),
        (trade(price=28145.1), "price is 28145.1, a decimal in quotes"),
        (trade(price=None), "price is None, a decimal in quotes"),
        (trade(size=""), "size is '', a decimal"),
        (trade(maker="yes"), "m is 'yes', true or false"),
        (trade(T="soon"), "time is 'soon'"),
        (quote(-3), "u is -3"),
        (quote(2**63), "u is 9223372036854775808"),
        (diff(8, 5), "U 9 is above u 5"),
        (stream("depth@0ms", {"U": 4, "u": 5, "b": [], "a": []}), "'pu' is missing"),
        (diff(4, 5, [("100.0",)]), "not enough values"),
        (stream("depth@0ms", {"U": 4, "u": 5, "pu": 3, "b": {"1": 2}, "a": []}), "a list is wanted"),
        ({"stream": "btcusdt", "data": {}}, "list index out of range"),
        ({"stream": "btcusdt@trade", "data": None}, "no message of Binance"),
        ("[1]", "starts with b'[1]"),
        (f"{MIDNIGHT_US} [1]", "a JSON object is wanted"),
        (f"{MIDNIGHT_US} {{}} x", "no message of Binance"),
        (f"{MIDNIGHT_US}000 {{}}", "a receive time of 16 digits is wanted"),
        ("4100000000000000 {}", "is not between the years 2001 and 2096"),
        ("", "starts with b'"),
    ],
)
def test_reader_binance_when_a_line_is_wrong_then_error_names_file_line_and_value(tmp_path, message, words):
    dump(tmp_path, trade(), message, trade())
    text = refusal(tmp_path)
    assert f"{USDM}: line 2: " in text and words in text


def test_reader_binance_when_first_time_is_in_milliseconds_then_refused(tmp_path):
    dump(tmp_path, f"{SENT_MS} {json.dumps(trade())}")
    assert "a receive time of 16 (microseconds) or 19 (nanoseconds) digits is wanted" in refusal(tmp_path)


def test_reader_binance_when_receive_time_is_another_day_than_the_exchange_s_then_refused(tmp_path):
    dump(tmp_path, trade(), first_us=MIDNIGHT_US + 3 * 86_400_000_000)
    assert f"{USDM}: line 1: received at" in refusal(tmp_path)


def test_reader_binance_when_a_line_never_ends_then_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(binance_lines, "MAX_LINE_BYTES", 1_000)
    dump(tmp_path, trade(), "1" * 2_000)
    assert f"{USDM}: line 2: longer than 1,000 bytes" in refusal(tmp_path)


def test_reader_binance_when_file_is_cut_off_then_error_names_it(tmp_path):
    path = dump(tmp_path, *[trade(str(k)) for k in range(1, 400)])
    path.write_bytes(path.read_bytes()[:-30])
    assert USDM in refusal(tmp_path)


def test_reader_binance_when_symbol_is_unknown_then_steps_are_the_decimals_it_uses(tmp_path):
    data = stream("trade", {"T": SENT_MS, "p": "0.41230", "q": "12.0", "m": True}, symbol="DOGEUSDT")
    dump(tmp_path, data, name="usdm_dogeusdt_20230405.dat.gz")
    (instrument,) = BinanceReader().instruments(IngestRequest("binance", tmp_path))
    assert (instrument.tick_size, instrument.lot_size, instrument.currency) == (0.0001, 1.0, "USDT")
    assert rows(read(tmp_path)[0]) == [(Kind.TRADE, SELL, 4123, 12, 0, 0)]


def test_reader_binance_when_steps_are_given_then_they_hold(tmp_path):
    dump(tmp_path, trade("100.05", "0.25"))
    events, _ = read(tmp_path, options={"tick_size": 0.01, "lot_size": "0.05"})
    assert (events["price_ticks"], events["size"], events["flags"]) == ([10005], [5], [0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clock": "atomic"}, "option clock is atomic"),
        ({"speed": 1}, "has no option speed; there: clock, tick_size, lot_size"),
        ({"tick_size": 0}, "option tick_size is 0; a positive multiple"),
        ({"lot_size": "a"}, "option lot_size is a; a positive multiple"),
        ({"lot_size": 1e-9}, "option lot_size is 1e-09; a positive multiple"),
        ({"tick_size": float("inf")}, "option tick_size is inf; a positive multiple"),
    ],
)
def test_reader_binance_when_option_is_wrong_then_refused_by_name(tmp_path, options, words):
    dump(tmp_path, trade())
    assert words in refusal(tmp_path, options=options)


def test_reader_binance_when_steps_are_given_for_two_markets_then_refused(tmp_path):
    dump(tmp_path, trade())
    dump(tmp_path, trade(), name=SPOT)
    assert "option tick_size holds for one market, 2 are asked for" in refusal(tmp_path, options={"tick_size": 1})


def test_reader_binance_when_quote_asset_is_unknown_then_refused(tmp_path):
    dump(tmp_path, stream("trade", {"p": "1", "q": "1", "m": True}, symbol="ABCXYZ"), name="usdm_abcxyz_20230405.gz")
    with pytest.raises(InputError, match="symbol ABCXYZ ends with no quote asset"):
        BinanceReader().instruments(IngestRequest("binance", tmp_path))


def test_plan_binance_when_day_before_is_there_then_it_is_previous_though_out_of_range(tmp_path):
    for name in ("usdm_btcusdt_20230402.gz", "usdm_btcusdt_20230404.dat.gz", USDM, SPOT, "usdm_ethusdt_20230404.gz"):
        dump(tmp_path, trade(), name=name)
    reader = BinanceReader()
    plans = reader.plan(IngestRequest("binance", tmp_path, ("btcusdt",), "2023-04-05"))
    assert [(plan.partition.venue, plan.partition.date) for plan in plans] == [
        ("BINANCE", "2023-04-05"),
        ("BINANCE-USDM", "2023-04-05"),
    ]
    assert plans[0].previous is None
    assert plans[1].previous.inputs[0].name == "usdm_btcusdt_20230404.dat.gz" and plans[1].previous.previous is None
    every = reader.plan(IngestRequest("binance", tmp_path))
    assert len(every) == 5 and len({plan.partition for plan in every}) == 5


def test_plan_binance_when_two_files_are_of_one_day_then_refused(tmp_path):
    dump(tmp_path, trade())
    dump(tmp_path, trade(), name="usdm_btcusdt_20230405.dat.gz")
    assert "the same market and day as" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        ({"symbols": ("XRPUSDT",)}, "symbol XRPUSDT is not in"),
        ({"date_from": "2024-01-01"}, "no day of BTCUSDT from 2024-01-01"),
    ],
)
def test_plan_binance_when_nothing_is_there_then_error_says_what_is(tmp_path, request_of, words):
    dump(tmp_path, trade())
    assert words in refusal(tmp_path, **request_of)


def test_plan_binance_when_date_is_none_then_refused(tmp_path):
    dump(tmp_path, trade(), name="usdm_btcusdt_20231305.gz")
    assert "20231305 in the file's name is not a date" in refusal(tmp_path)


def test_plan_binance_when_folder_has_no_such_file_then_refused(tmp_path):
    assert "holds no file that source binance reads" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["usdm_btcusdt_20230405", "usdm_btcusdt_20230405.dat"])
def test_reader_binance_when_file_is_not_packed_then_read_alike(tmp_path, name):
    (tmp_path / name).write_bytes(lines([trade(), quote(3)]))
    packed = gzip.decompress(dump(tmp_path / "gz", trade(), quote(3)).read_bytes())
    assert packed == (tmp_path / name).read_bytes()
    assert read(tmp_path)[0] == read(tmp_path / "gz")[0]


def test_instruments_binance_when_day_is_asked_then_the_session_is_the_utc_day(tmp_path):
    dump(tmp_path, trade())
    (instrument,) = BinanceReader().instruments(IngestRequest("binance", tmp_path))
    start = MIDNIGHT_US * 1_000
    assert instrument.session_ns("2023-04-05") == [(start, start + 86_400 * 10**9)]
    assert (instrument.tick_size, instrument.lot_size) == (0.1, 0.001)
