import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns

from feature_repo.errors import InputError
from training.market.engine import Engine
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE

T0 = open_ns()
BIDS, ASKS = [(100, 10), (99, 20)], [(101, 10), (102, 20)]


def engine_on(rows, lots=50, side=1, snapshot=False, latency_ns=10_000_000, depth=3):
    day = make_day(rows, depth, snapshot, latency_ns)
    engine = Engine([day], 1, fill_capacity=64)
    parent = np.array([(0, side, lots, T0, 600 * NS)], PARENT_DTYPE)
    engine.start(parent, record=np.ones(1, np.int64))
    return engine


def send(engine, at_ns, rest_px=0, rest_lots=0, cross_lots=0, beyond=0):
    message = np.array([(1, rest_px, rest_lots, cross_lots, beyond)], INSTRUCTION_DTYPE)
    engine.submit(np.array([at_ns]), message)


def play(engine, until_ns):
    engine.advance(np.array([until_ns]))


def fill_list(engine):
    return [(int(f["price_ticks"]), int(f["lots"]), int(f["kind"])) for f in engine.fills()]


def test_sweep_when_repeated_on_an_unchanged_level_then_gets_nothing():
    engine = engine_on([(T0, BIDS, ASKS, None)] + [(T0 + k * NS, BIDS, ASKS, None) for k in range(1, 5)])
    send(engine, T0, cross_lots=50)
    play(engine, T0 + NS)
    assert fill_list(engine) == [(101, 10, 2), (102, 20, 2)]
    send(engine, T0 + NS, cross_lots=20)
    play(engine, T0 + 3 * NS)
    assert len(fill_list(engine)) == 2


def test_taken_level_when_additions_arrive_then_only_those_can_be_had():
    shrunk, grown = [(101, 4), (102, 20)], [(101, 9), (102, 20)]
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, shrunk, None), (T0 + 2 * NS, BIDS, grown, None)]
    engine = engine_on(rows)
    send(engine, T0, cross_lots=10)
    play(engine, T0 + 2 * NS)
    send(engine, T0 + 2 * NS, cross_lots=5)
    play(engine, T0 + 3 * NS)
    assert fill_list(engine) == [(101, 10, 2), (101, 5, 2)]


def test_taken_level_when_it_disappears_and_returns_then_it_is_new():
    gone = [(102, 20)]
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, gone, None), (T0 + 2 * NS, BIDS, ASKS, None)]
    engine = engine_on(rows)
    send(engine, T0, cross_lots=10)
    play(engine, T0 + 2 * NS)
    send(engine, T0 + 2 * NS, cross_lots=10)
    play(engine, T0 + 3 * NS)
    assert fill_list(engine) == [(101, 10, 2), (101, 10, 2)]


def test_market_order_on_snapshot_data_then_meets_the_next_row_not_the_standing_one():
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, [(104, 5)], [(105, 30)], None)]
    engine = engine_on(rows, snapshot=True)
    send(engine, T0, cross_lots=10)
    play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(105, 10, 2)]


def test_market_order_otherwise_meets_the_state_at_decision_plus_latency():
    rows = [(T0, BIDS, ASKS, None), (T0 + 10_000_000, [(104, 5)], [(105, 30)], None), (T0 + NS, BIDS, ASKS, None)]
    engine = engine_on(rows, latency_ns=10_000_000)
    send(engine, T0, cross_lots=10)
    play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(105, 10, 2)]
    early = engine_on(rows, latency_ns=9_999_999)
    send(early, T0, cross_lots=10)
    play(early, T0 + 2 * NS)
    assert fill_list(early) == [(101, 10, 2)]


@pytest.mark.parametrize("side", [1, -1])
def test_resting_order_joins_the_back_and_is_filled_by_volume_beyond_the_queue(side):
    own, other = (100, -1) if side > 0 else (101, 1)
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, ASKS, (own, 7, other)), (T0 + 2 * NS, BIDS, ASKS, (own, 8, 0))]
    engine = engine_on(rows, side=side)
    send(engine, T0, rest_px=own, rest_lots=20)
    play(engine, T0 + NS)
    assert fill_list(engine) == []  # 7 of the 10 ahead
    play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(own, 5, 1)]


def test_resting_order_when_the_price_is_only_touched_then_is_not_filled():
    locked_away = [(101, 1)]
    rows = [(T0, BIDS, ASKS, None)] + [(T0 + k * NS, BIDS, locked_away, None) for k in range(1, 9)]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + 9 * NS)
    assert fill_list(engine) == []


def test_trade_by_our_own_side_then_does_not_advance_the_queue():
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, ASKS, (100, 100, 1))]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + NS)
    assert fill_list(engine) == []


def test_trade_through_our_price_then_fills_up_to_its_volume():
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, ASKS, (99, 12, -1))]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + NS)
    assert fill_list(engine) == [(100, 12, 1)]


def test_book_that_moves_through_our_price_then_fills_at_our_price_and_only_once():
    through = ([(98, 5)], [(100, 6), (101, 30)])
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, *through, None), (T0 + 2 * NS, *through, None)]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + 3 * NS)
    assert fill_list(engine) == [(100, 6, 1)]


def test_queue_ahead_when_the_displayed_queue_shrinks_then_is_capped_by_it():
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, [(100, 3)], ASKS, None), (T0 + 2 * NS, BIDS, ASKS, (100, 8, -1))]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(100, 5, 1)]


def test_order_inside_the_spread_then_has_nobody_ahead():
    wide = [(103, 10)]
    rows = [(T0, BIDS, wide, None), (T0 + NS, BIDS, wide, (101, 4, -1)), (T0 + 2 * NS, BIDS, wide, (100, 6, -1))]
    engine = engine_on(rows)
    send(engine, T0, rest_px=101, rest_lots=20)
    play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(101, 4, 1), (101, 6, 1)]


def test_replacement_at_the_same_price_then_keeps_its_place_and_added_lots_join_the_back():
    grown = [(100, 30), (99, 20)]
    rows = [
        (T0, BIDS, ASKS, None),
        (T0 + NS, grown, ASKS, None),
        (T0 + 3 * NS, grown, ASKS, (100, 18, -1)),  # 10 ahead, our first 5, 3 of the 20 between
        (T0 + 4 * NS, grown, ASKS, (100, 20, -1)),  # 17 left between, then 3 of our added 7
    ]
    engine = engine_on(rows)
    send(engine, T0, rest_px=100, rest_lots=5)
    play(engine, T0 + NS)
    send(engine, T0 + NS, rest_px=100, rest_lots=12)
    play(engine, T0 + 3 * NS)
    assert fill_list(engine) == [(100, 5, 1)]
    play(engine, T0 + 4 * NS)
    assert fill_list(engine) == [(100, 5, 1), (100, 3, 1)]


def test_replacement_at_another_price_then_loses_its_place():
    rows = [(T0, BIDS, ASKS, None), (T0 + 3 * NS, BIDS, ASKS, (100, 12, -1))]
    engine = engine_on(rows)
    for at, price in ((T0, 100), (T0 + NS, 99), (T0 + 2 * NS, 100)):
        send(engine, at, rest_px=price, rest_lots=5)
        play(engine, at + NS - 1)
    assert int(engine.states[0]["rest_ahead"]) == 10
    play(engine, T0 + 3 * NS)
    assert fill_list(engine) == [(100, 2, 1)]


def test_fills_while_a_message_is_in_flight_then_come_off_what_it_asks_for():
    rows = [(T0, BIDS, ASKS, None), (T0 + 2 * NS, BIDS, ASKS, (99, 15, -1)), (T0 + 3 * NS, BIDS, ASKS, None)]
    engine = engine_on(rows, lots=20, latency_ns=NS)
    send(engine, T0, rest_px=100, rest_lots=20)
    play(engine, T0 + NS + NS // 2)
    send(engine, T0 + NS + NS // 2, cross_lots=20)  # arrives after 15 were filled
    play(engine, T0 + 4 * NS)
    assert fill_list(engine) == [(100, 15, 1), (101, 5, 2)]


def test_forced_completion_beyond_the_book_then_steps_by_a_tick_with_mean_level_size_and_reports_it():
    engine = engine_on([(T0, BIDS, ASKS, None), (T0 + 700 * NS, BIDS, ASKS, None)], lots=50)
    play(engine, T0 + 600 * NS)
    engine.complete()
    assert fill_list(engine) == [(101, 10, 3), (102, 20, 3), (103, 15, 3), (104, 5, 3)]
    assert int(engine.states[0]["extrapolated_lots"]) == 20


def test_forced_completion_when_the_opposite_side_is_empty_then_starts_beyond_the_last_mid():
    rows = [(T0, BIDS, ASKS, None), (T0 + 300 * NS, BIDS, [], None)]
    engine = engine_on(rows, lots=2)
    play(engine, T0 + 600 * NS)
    engine.complete()
    assert [price for price, _, _ in fill_list(engine)] == [101, 102]


def test_engine_when_no_book_stands_yet_then_names_the_time():
    day = make_day([(T0 + NS, BIDS, ASKS, None)])
    with pytest.raises(InputError, match=f"no two-sided book stands at {T0}"):
        Engine([day], 1).start(np.array([(0, 1, 5, T0, NS)], PARENT_DTYPE))


def test_engine_when_the_fill_model_is_unknown_then_names_it():
    with pytest.raises(InputError, match="hopeful"):
        Engine([make_day([(T0, BIDS, ASKS, None)])], 1, fill_model="hopeful")
