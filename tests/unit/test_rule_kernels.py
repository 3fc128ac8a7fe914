"""Each compiled rule on a handful of events, without Spark: what it catches, and what it must leave alone."""

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.pipeline.judge import judge
from feature_repo.pipeline.rule_kernels import Events
from feature_repo.pipeline.rules import RULES, CleanLimits
from feature_repo.pipeline.venue_rules import VenueRules
from feature_repo.ticks.schema import Flag, Kind, Side

MS = 1_000_000
OPEN, CLOSE = 1_000_000 * MS, 2_000_000 * MS
NAMES = list(RULES)
ON = VenueRules(frozenset(RULES) - {"stale_repeat"})


def row(at_ms, kind, side=Side.NONE, price=0, size=0, order_id=0, flags=0, recv_ms=None):
    recv = at_ms if recv_ms is None else recv_ms
    return (OPEN + int(at_ms * MS), OPEN + int(recv * MS), kind, side, price, size, order_id, flags)


def trade(at_ms, price=5000, size=100, **more):
    return row(at_ms, Kind.TRADE, Side.NONE, price, size, **more)


def bid(at_ms, price=4999, size=100, **more):
    return row(at_ms, Kind.QUOTE, Side.BUY, price, size, **more)


def ask(at_ms, price=5001, size=100, **more):
    return row(at_ms, Kind.QUOTE, Side.SELL, price, size, **more)


def depth(at_ms, price, size, side=Side.BUY, flags=Flag.LAST, **more):
    return row(at_ms, Kind.DEPTH, side, price, size, flags=flags, **more)


def clear(at_ms, flags=0, size=0):
    return row(at_ms, Kind.CLEAR, size=size, flags=flags)


def columns(rows, sequence=None):
    ts, recv, kind, side, price, size, order_id, flags = (
        np.array(column, np.int64) for column in zip(*rows, strict=True)
    )
    sequence = np.arange(len(rows)) if sequence is None else np.array(sequence)
    return Events(
        ts, recv, sequence, kind.astype(np.int8), side.astype(np.int8), price, size, order_id, flags.astype(np.int32)
    )


def judged(rows, rules=ON, auctions=(), sequence=None):
    return judge(columns(rows, sequence), rules, [(OPEN, CLOSE)], list(auctions))


def caught(rows, rules=ON, **more):
    found = judged(rows, rules, **more)
    return {int(s): NAMES[r - 1] for s, r in zip(found.sequence, found.rule, strict=True)}


def with_limits(**limits):
    return replace(ON, limits=replace(CleanLimits(), **limits))


def calm(count=30, start_ms=0, step_ms=10):
    return [trade(start_ms + i * step_ms, 5000 + i % 3) for i in range(count)]


def test_clock_skew_when_one_row_is_received_long_before_it_happened_then_it_goes():
    rows = calm(20) + [trade(200, recv_ms=-900), trade(201, recv_ms=-700)]
    assert caught(rows) == {20: "clock_skew"}


def test_clock_skew_when_the_receivers_clock_is_behind_all_day_then_nothing_goes_and_it_is_noted():
    rows = [trade(i * 10, 5000 + i % 3, recv_ms=i * 10 - 1520) for i in range(20)]
    assert caught(rows) == {}
    assert judged(rows).notes == {"receive_clock_behind_ns": 1520 * MS}
    assert caught([*rows, trade(300, recv_ms=300 - 1520 - 1001)]) == {20: "clock_skew"}


def test_auction_when_in_its_window_then_named_so_even_outside_the_session():
    rows = [trade(-5), *calm(10), trade(200)]
    auctions = [(OPEN - 10 * MS, OPEN - 1 * MS), (OPEN + 200 * MS, OPEN + 300 * MS)]
    assert caught(rows, auctions=auctions) == {0: "auction", 11: "auction"}
    assert caught(rows) == {0: "out_of_session"}


def test_no_side_when_quote_depth_or_order_names_none_then_it_goes_and_a_trade_stays():
    rows = [
        *calm(5),
        row(60, Kind.QUOTE, 0, 5000, 1),
        row(61, Kind.DEPTH, 0, 5000, 1),
        row(62, Kind.ADD, 0, 5000, 1, 7),
    ]
    assert caught(rows) == {5: "no_side", 6: "no_side", 7: "no_side"}


def test_depth_when_size_is_zero_then_it_removes_and_stays_while_bad_prices_and_sizes_go():
    rows = [depth(0, 5000, 3), depth(1, 5000, 0), depth(2, 0, 4), depth(3, 5000, -1), depth(4, -2, 0)]
    assert caught(rows) == {2: "non_positive_price", 3: "non_positive_size", 4: "non_positive_price"}


def test_off_tick_when_a_quote_lies_between_ticks_then_it_goes_and_a_trade_only_where_asked():
    rows = [
        *calm(5),
        bid(60, flags=Flag.SUB_TICK),
        trade(61, flags=Flag.SUB_TICK),
        depth(62, 4990, 1, flags=Flag.SUB_TICK),
    ]
    assert caught(rows) == {5: "off_tick", 7: "off_tick"}
    assert caught(rows, with_limits(off_tick_trades=True)) == {5: "off_tick", 6: "off_tick", 7: "off_tick"}


def test_trade_condition_when_it_sets_no_price_then_it_goes_and_odd_lots_only_where_asked():
    flags = (Flag.LATE, Flag.CANCELLED, Flag.DERIVED, Flag.ODD_LOT)
    rows = calm(5) + [trade(60 + i, flags=flag) for i, flag in enumerate(flags)]
    assert caught(rows) == dict.fromkeys((5, 6, 7), "trade_condition")
    assert caught(rows, with_limits(trade_conditions=("ODD_LOT",))) == {8: "trade_condition"}


def test_trade_condition_when_the_trade_executes_a_resting_order_then_it_stays():
    rows = [row(0, Kind.ADD, Side.BUY, 5000, 10, 7, Flag.LAST), trade(5, size=10, order_id=7, flags=Flag.LATE)]
    assert caught(rows) == {}


def test_halted_when_trades_print_before_the_book_comes_back_then_they_go():
    rows = [bid(0), ask(1), trade(2), row(10, Kind.HALT), trade(11), row(12, Kind.CANCEL, Side.BUY, 1, 1, 9)]
    rows += [trade(13), bid(20), trade(21)]
    assert caught(rows) == {4: "halted", 6: "halted"}


def test_halted_when_a_halt_message_says_that_trading_resumes_then_trades_stay():
    rows = [bid(0), ask(1), row(10, Kind.HALT, price=-1), trade(11), row(12, Kind.HALT, price=1), trade(13)]
    assert caught(rows) == {3: "halted"}


def test_halted_when_the_source_has_trades_alone_then_the_end_is_unknown_and_nothing_goes():
    assert caught([trade(0), row(10, Kind.HALT), *calm(5, 20)]) == {}


def test_sequence_gap_when_updates_are_missing_then_depth_goes_until_a_whole_snapshot():
    snapshot = [clear(100), depth(100, 4999, 5, flags=0), depth(100, 5001, 5, Side.SELL)]
    rows = [clear(0), depth(0, 4999, 9), depth(1, 4998, 9), clear(10, Flag.GAP, size=3), depth(11, 4997, 1), bid(12)]
    rows += [depth(13, 4996, 1, flags=Flag.RESYNC | Flag.LAST), depth(14, 4995, 1), *snapshot, depth(101, 4990, 2)]
    found = judged(rows)
    assert caught(rows) == {4: "sequence_gap", 7: "sequence_gap"}
    assert found.holes.tolist() == [[3, OPEN + 10 * MS, 3, OPEN + 100 * MS, 2]]


def test_sequence_gap_when_the_snapshot_after_it_is_not_whole_then_the_hole_goes_on_to_the_end():
    rows = [
        clear(0),
        depth(0, 4999, 9),
        clear(10, Flag.GAP),
        depth(11, 4997, 1),
        clear(20),
        depth(20, 4996, 1, flags=0),
    ]
    rows += [clear(30, Flag.GAP), depth(31, 4990, 1)]
    found = judged(rows)
    assert caught(rows) == {3: "sequence_gap", 7: "sequence_gap"}
    assert found.holes[:, 3].tolist() == [-1, -1] and found.holes[:, 4].tolist() == [1, 1]


def test_sequence_gap_when_the_rule_is_off_then_the_hole_is_still_told():
    rows = [clear(0), depth(0, 4999, 9), clear(10, Flag.GAP), depth(11, 4997, 1)]
    found = judged(rows, replace(ON, on=ON.on - {"sequence_gap"}))
    assert len(found.sequence) == 0 and len(found.holes) == 1


def test_gap_clear_when_its_clock_runs_back_then_it_stays_and_the_file_is_not_in_order():
    rows = [depth(i * 10, 4000 + i, 1) for i in range(20)]
    rows.insert(10, clear(5, Flag.GAP))
    found = judged(rows, replace(ON, on=ON.on - {"sequence_gap"}))
    assert len(found.sequence) == 0 and not found.in_order


def test_carried_rows_when_they_break_every_rule_then_they_stay():
    rows = [
        clear(-900, Flag.CARRIED),
        depth(-900, 0, -5, flags=Flag.CARRIED | Flag.LAST, recv_ms=-9000),
        depth(1, 4999, 1),
    ]
    assert caught(rows) == {}


def test_size_outlier_when_a_price_stands_in_its_place_then_it_goes_and_a_block_stays():
    rows = [trade(i, 5000 + i % 3, 100) for i in range(200)] + [trade(300, size=100_000), trade(301, size=100_001)]
    rows += [bid(302 + i, 4990 + i % 3, 7) for i in range(200)]
    assert caught(rows) == {201: "size_outlier"}


def test_size_outlier_when_the_day_has_few_sizes_then_none_is_judged():
    assert caught([*calm(20), trade(300, size=10**9)]) == {}


def test_stale_repeat_when_switched_on_then_the_second_of_equal_quotes_goes_and_after_a_halt_all_is_news():
    rules = replace(ON, on=frozenset(RULES))
    rows = [bid(0), ask(1), bid(2), bid(3, size=50), bid(4), ask(5), row(6, Kind.HALT), bid(7), ask(8)]
    assert caught(rows, rules) == {2: "stale_repeat", 5: "stale_repeat"}
    assert caught(rows) == {}


@pytest.mark.parametrize(("last_ms", "stretches"), [(90, 0), (150, 1)])
def test_notes_when_a_depth_book_stands_crossed_beyond_the_grace_then_it_is_counted_and_nothing_goes(
    last_ms, stretches
):
    rows = [clear(0), depth(0, 4999, 5, flags=0), depth(0, 5001, 5, Side.SELL), depth(10, 5001, 2)]
    rows += [depth(10 + last_ms, 5001, 0), depth(500, 4998, 1)]
    found = judged(rows)
    assert len(found.sequence) == 0
    assert found.notes == ({"book_crossed_stretches": 1, "book_crossed_ns": last_ms * MS} if stretches else {})


def test_notes_when_orders_cross_after_a_cancel_of_an_order_from_before_then_its_lots_leave_the_price():
    rows = [clear(0), depth(0, 5000, 5, flags=0), depth(0, 5002, 5, Side.SELL)]
    rows += [
        row(10, Kind.CANCEL, Side.SELL, 5002, 5, 77, Flag.LAST),
        row(11, Kind.ADD, Side.BUY, 5003, 1, 78, Flag.LAST),
    ]
    assert judged([*rows, row(900, Kind.CANCEL, Side.BUY, 5003, 1, 78, Flag.LAST)]).notes == {}


def test_judge_when_the_file_is_not_in_the_vendors_order_then_it_is_judged_in_it():
    rows = [*calm(40), trade(405, 9999), *calm(40, 410)]
    back = list(range(len(rows)))[::-1]
    found = judged(rows[::-1], sequence=back)
    assert found.sequence.tolist() == [40] and not found.in_order


BREAKS = {
    "exact_duplicate": [bid(0), bid(0)],
    "auction": [*calm(5), trade(-5)],
    "out_of_session": [*calm(5), trade(-50)],
    "clock_skew": [*calm(5), trade(60, recv_ms=-2000)],
    "out_of_order": [*calm(5), trade(5)],
    "no_side": [*calm(5), row(60, Kind.QUOTE, 0, 5000, 1)],
    "non_positive_price": [*calm(5), trade(60, 0)],
    "non_positive_size": [*calm(5), trade(60, size=0)],
    "off_tick": [bid(0, flags=Flag.SUB_TICK)],
    "suspicious": [bid(0, flags=Flag.SUSPICIOUS)],
    "trade_condition": [trade(0, flags=Flag.LATE)],
    "halted": [bid(0), row(1, Kind.HALT), trade(2)],
    "sequence_gap": [clear(0, Flag.GAP), depth(1, 5000, 1)],
    "size_outlier": [*calm(120), trade(2000, size=10**8)],
    "broken_snapshot": [clear(0), row(0, Kind.LEVEL, Side.BUY, 5000, 1)],
    "outlier_price": [*calm(30), trade(305, 9999), *calm(30, 310)],
    "crossed_book": [bid(0, 4999), ask(0, 5001), bid(1, 5003), ask(500, 5005)],
    "locked_book": [bid(0, 4999), ask(0, 5001), bid(1, 5001), ask(1500, 5005)],
    "stale_repeat": [bid(0), bid(1)],
    "orphan": [row(0, Kind.ADD, 0, 5000, 1, 7), row(1, Kind.CANCEL, Side.BUY, 5000, 1, 7)],
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_when_switched_off_then_what_it_alone_catches_is_kept(rule):
    everything, auctions = frozenset(RULES), [(OPEN - 10 * MS, OPEN)]
    assert rule in caught(BREAKS[rule], replace(ON, on=everything), auctions=auctions).values()
    assert rule not in caught(BREAKS[rule], replace(ON, on=everything - {rule}), auctions=auctions).values()
