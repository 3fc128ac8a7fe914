"""Halts, unknown books, session windows, hidden executions, fees; and the days and parents that the engine refuses."""

from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns
from order_events import add, table

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book
from feature_repo.ticks.schema import Flag, Kind
from training.execution.config import ExecutionConfig
from training.execution.parents import check_parents
from training.market.engine import Engine, ParentError
from training.market.messages import EmptyDayError, NegativeSizeError, RangeError, TimeOrderError
from training.market.orders import FILL_MODELS, INSTRUCTION_DTYPE, PARENT_DTYPE
from training.market.tape import CrossedSnapshotError, build_tape

T0 = open_ns()
CLOSE = T0 + 7200 * NS
BIDS, ASKS = [(100, 10), (99, 20)], [(101, 10), (102, 20)]
STEADY = [(T0 + k * NS, BIDS, ASKS, None) for k in range(8)]


def parents(lots=50, side=1, start_ns=T0, horizon_ns=600 * NS):
    return np.array([(0, side, lots, start_ns, horizon_ns)], PARENT_DTYPE)


def engine_on(day, model="conservative", **parent):
    if model == "fifo":
        from feature_repo.pipeline.leaves import LEAF_DTYPE

        day = replace(day, leaves=np.zeros(0, LEAF_DTYPE))
    engine = Engine([day], 1, fill_model=model, fill_capacity=64)
    engine.start(parents(**parent), record=np.ones(1, np.int64))
    return engine


def send(engine, at_ns, rest_px=0, rest_lots=0, cross_lots=0, beyond=0):
    engine.submit(np.array([at_ns]), np.array([(1, rest_px, rest_lots, cross_lots, beyond)], INSTRUCTION_DTYPE))


def play(engine, until_ns):
    engine.advance(np.array([until_ns]))
    return engine.states[0]


def fill_list(engine):
    return [(int(f["price_ticks"]), int(f["lots"]), int(f["kind"])) for f in engine.fills()]


def halted_day(rows, start, stop):
    return replace(make_day(rows, latency_ns=0), halts=np.array([[T0 + start * NS, T0 + stop * NS]], np.int64))


# Halts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_messages_in_a_halt_then_are_refused_and_what_rests_stays(model):
    engine = engine_on(halted_day(STEADY, 2, 5), model)
    send(engine, T0, rest_px=100, rest_lots=9)
    play(engine, T0 + NS)
    for second, message in ((2, {"cross_lots": 5}), (3, {"rest_px": 99, "rest_lots": 7}), (4, {"cross_lots": 1})):
        send(engine, T0 + second * NS, **message)
        state = play(engine, T0 + second * NS + NS // 2)
        assert (state["rest_px"], state["rest_lots"], state["filled"]) == (100, 9, 0)
    assert state["refused"] == 3
    send(engine, T0 + 5 * NS, cross_lots=5)
    play(engine, T0 + 6 * NS)
    assert fill_list(engine) == [(101, 5, 2)]


def test_cancel_in_a_halt_then_is_carried_out():
    engine = engine_on(halted_day(STEADY, 2, 5))
    send(engine, T0, rest_px=100, rest_lots=9)
    play(engine, T0 + 2 * NS)
    send(engine, T0 + 3 * NS)
    assert play(engine, T0 + 4 * NS)["rest_lots"] == 0


def test_rows_in_a_halt_then_do_not_fill_but_the_queue_goes_on():
    calling = [(T0 + 3 * NS, [(100, 4)], [(99, 30)], (100, 50, -1)), (T0 + 6 * NS, [(100, 4)], ASKS, (100, 6, -1))]
    engine = engine_on(halted_day([STEADY[0], *calling], 2, 5))
    send(engine, T0, rest_px=100, rest_lots=9)
    state = play(engine, T0 + 4 * NS)
    assert (state["filled"], state["rest_ahead"]) == (0, 4)
    play(engine, T0 + 6 * NS)
    assert fill_list(engine) == [(100, 2, 1)]


def test_forced_completion_in_a_halt_then_is_charged_at_the_book_that_stands():
    engine = engine_on(halted_day(STEADY, 2, 3000), lots=12, horizon_ns=5 * NS)
    play(engine, T0 + 5 * NS)
    engine.complete()
    assert fill_list(engine) == [(101, 10, 3), (102, 2, 3)]


# A book that nobody knows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_messages_to_an_unknown_book_then_are_refused(model):
    rows = [STEADY[0], (T0 + NS, [], [], None), (T0 + 5 * NS, BIDS, ASKS, None)]
    engine = engine_on(make_day(rows, latency_ns=0), model)
    send(engine, T0 + 2 * NS, cross_lots=5, beyond=1)
    play(engine, T0 + 3 * NS)
    send(engine, T0 + 3 * NS, rest_px=100, rest_lots=5)
    state = play(engine, T0 + 6 * NS)
    assert (state["refused"], state["filled"], state["rest_lots"]) == (2, 0, 0)


def test_order_that_rests_when_the_book_becomes_unknown_then_joins_the_back_of_the_new_one():
    unknown = [(T0 + 2 * NS, [], [], None), (T0 + 3 * NS, [], [], (100, 50, -1))]
    known = [(T0 + 4 * NS, [(100, 30)], ASKS, (99, 9, -1)), (T0 + 5 * NS, [(100, 30)], ASKS, (100, 31, -1))]
    engine = engine_on(make_day([STEADY[0], (T0 + NS, [(100, 3)], ASKS, None), *unknown, *known], latency_ns=0))
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, T0 + NS)["rest_ahead"] == 3
    assert play(engine, T0 + 3 * NS)["filled"] == 0
    assert play(engine, T0 + 4 * NS)["rest_ahead"] == 30
    play(engine, T0 + 5 * NS)
    assert fill_list(engine) == [(100, 1, 1)]


def test_one_sided_book_then_resting_orders_trade_and_sweeps_find_nothing():
    rows = [STEADY[0], (T0 + NS, BIDS, [], None), (T0 + 2 * NS, BIDS, [], (100, 12, -1))]
    engine = engine_on(make_day(rows, latency_ns=0))
    send(engine, T0 + NS, rest_px=100, rest_lots=5, cross_lots=5)
    state = play(engine, T0 + 2 * NS)
    assert fill_list(engine) == [(100, 2, 1)] and state["refused"] == 0


# Hidden executions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_hidden_executions_then_neither_fill_us_nor_move_us_up(model):
    from feature_repo.pipeline.leaf_kernel import LeafBuilder

    events = table(
        add(T0, 1, 100, 10, 1), add(T0, -1, 103, 10, 2),
        (T0 + NS, Kind.TRADE, -1, 100, 50, 0, Flag.HIDDEN), (T0 + NS, Kind.TRADE, -1, 99, 50, 1, Flag.HIDDEN),
        add(T0 + 2 * NS, 1, 99, 1, 3), (T0 + 3 * NS, Kind.TRADE, -1, 100, 4, 1),
    )  # fmt: skip
    book, counts = build_book(events, 3)
    assert counts.hidden_trades == 2
    day = replace(make_day(STEADY, latency_ns=0), book=book, leaves=LeafBuilder(3).add(events))
    engine = Engine([day], 1, fill_model=model)
    engine.start(parents())
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, T0 + 2 * NS)["rest_ahead"] == 10
    state = play(engine, T0 + 3 * NS)
    assert (state["rest_ahead"], state["filled"]) == (6, 0)


# Opening and closing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_rows_after_the_close_then_do_not_fill_whatever_is_asked(model):
    auction = (CLOSE, [(98, 5)], [(99, 500)], (99, 500, -1))
    rows = [(CLOSE - 700 * NS, BIDS, ASKS, None), auction, (CLOSE + NS, *auction[1:])]
    engine = engine_on(make_day(rows, latency_ns=0), model, start_ns=CLOSE - 650 * NS)
    send(engine, CLOSE - 650 * NS, rest_px=100, rest_lots=5)
    state = play(engine, CLOSE + 5 * NS)
    assert state["filled"] == 0 and engine.tape.ts[state["row"]] == CLOSE - 700 * NS
    engine.complete()
    assert (engine.fills()["ts_ns"] < CLOSE).all() and engine.states[0]["filled"] == 50


def test_sweep_when_snapshots_pause_until_after_the_close_then_meets_the_last_book_before_it():
    rows = [(CLOSE - 700 * NS, BIDS, ASKS, None), (CLOSE + 3600 * NS, [(90, 5)], [(91, 900)], None)]
    engine = engine_on(make_day(rows, snapshot=True), lots=10, start_ns=CLOSE - 650 * NS)
    play(engine, CLOSE - 50 * NS)
    engine.complete()
    assert fill_list(engine) == [(101, 10, 3)] and engine.fills()["ts_ns"][0] == CLOSE - 1


def test_parent_when_its_horizon_passes_the_close_then_start_names_both():
    engine = Engine([make_day(STEADY)], 1)
    start = CLOSE - 600 * NS
    with pytest.raises(ParentError, match=rf"needs the market until {CLOSE + 10_000_000} ns, .* closes at {CLOSE} ns"):
        engine.start(parents(start_ns=start))
    engine.start(parents(start_ns=start - NS))


def test_parent_when_it_starts_outside_every_window_then_start_says_so():
    rows = [(T0 - 60 * NS, BIDS, ASKS, None), *STEADY]
    engine = Engine([make_day(rows)], 1)
    with pytest.raises(ParentError, match=f"{T0 - 30 * NS} ns lies in no session window"):
        engine.start(parents(start_ns=T0 - 30 * NS))


def test_parent_when_its_day_is_unknown_then_start_says_how_many_there_are():
    wrong = parents()
    wrong["day"] = 3
    with pytest.raises(ParentError, match="day index 3; the tape holds 1"):
        Engine([make_day(STEADY)], 1).start(wrong)


def test_parent_when_larger_than_the_day_s_volume_then_both_are_named():
    day = make_day([(T0 + k * NS, BIDS, ASKS, (100, 5, -1)) for k in range(3000)])
    with pytest.raises(InputError, match="parent of 15001 lots exceeds the day's volume of 15000 lots"):
        check_parents([day], parents(15_001, start_ns=T0 + 60 * NS), ExecutionConfig(lots=None))


@pytest.mark.parametrize("message", [{"rest_px": 0, "rest_lots": 5}, {"rest_lots": -1}, {"cross_lots": -3}])
def test_message_without_meaning_then_is_refused_with_its_values(message):
    engine = engine_on(make_day(STEADY))
    with pytest.raises(InputError, match="message 0: rest .* lots at .* ticks, cross"):
        send(engine, T0, **message)
    assert engine.states["pend_ns"][0] == 0


# Fees -----------------------------------------------------------------------------------------------------------------


def test_maker_and_taker_fees_then_are_charged_on_what_rested_and_what_took():
    from training.market.engine import cost_bps

    rows = [STEADY[0], (T0 + NS, BIDS, ASKS, (100, 15, -1))]
    engine = engine_on(make_day(rows, latency_ns=0), lots=10)
    send(engine, T0, rest_px=100, rest_lots=5, cross_lots=5)
    state = play(engine, T0 + NS)
    assert fill_list(engine) == [(101, 5, 2), (100, 5, 1)]
    free = cost_bps(state, 201, 0.0, 0.0)
    with_fees = cost_bps(state, 201, -0.5, 2.0)
    assert with_fees - free == pytest.approx((-0.5 * 500 + 2.0 * 505) / 1005)


# Days that no market had ----------------------------------------------------------------------------------------------


def test_day_when_it_is_empty_then_it_is_refused_by_name():
    day = make_day([])
    with pytest.raises(EmptyDayError, match="2024-01-02: empty day"):
        Engine([day], 1)


def test_day_when_time_runs_backwards_then_the_row_is_named():
    with pytest.raises(TimeOrderError, match="time runs backwards at book row 2"):
        build_tape([make_day([STEADY[0], STEADY[2], STEADY[1]])])


@pytest.mark.parametrize("rows", [[(T0, [(100, -4)], ASKS, None)], [(T0, BIDS, ASKS, (100, -3, 1))]])
def test_day_when_a_size_is_negative_then_it_is_named(rows):
    with pytest.raises(NegativeSizeError, match="_sz of -[34] lots is negative"):
        build_tape([make_day(rows)])


def test_day_when_twice_a_price_exceeds_an_int32_then_it_is_refused():
    with pytest.raises(RangeError, match="a price of 1073741824 ticks exceeds 1073741823"):
        build_tape([make_day([(T0, [(1, 5)], [(1 << 30, 5)], None)])])


def test_snapshot_when_crossed_then_the_day_is_refused_and_quotes_that_cross_are_not():
    rows = [STEADY[0], (T0 + NS, [(102, 5)], [(101, 5)], None)]
    with pytest.raises(CrossedSnapshotError, match="row 1, bid 102 above ask 101 ticks"):
        build_tape([make_day(rows, snapshot=True)])
    assert len(build_tape([make_day(rows)]).ts) == 2


def test_tape_then_tells_what_a_row_costs():
    day = make_day(STEADY, depth=5)
    assert build_tape([day]).bytes_per_row == 8 + 32 + 64
    assert build_tape([make_day([(T0, BIDS[:1], ASKS[:1], None)], depth=1)]).bytes_per_row == 8 + 32
