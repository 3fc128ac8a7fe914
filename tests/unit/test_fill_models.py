"""The four fill models, by hand: what each makes of the same queue, and what stays taken under every one of them."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns, random_rows

from feature_repo.errors import InputError
from feature_repo.pipeline.leaves import CANCEL, CLEAR, EXECUTE, LEAF_DTYPE, WHOLE
from training.execution.config import ExecutionConfig
from training.market.engine import Engine
from training.market.orders import FILL_MODELS, INSTRUCTION_DTYPE, PARENT_DTYPE
from training.market.tape import NoQueuesError

T0 = open_ns()
BIDS, ASKS = [(100, 10), (99, 20)], [(101, 10), (102, 20)]
BY_DEPTH = ("conservative", "expected", "optimistic")


def leaf(second, price, lots, joined, kind=EXECUTE, row=None, side=1):
    """One leaf at `second` of an order that had joined at second `joined`; `row` as seconds count rows by default."""
    return (T0 + second * NS, T0 + joined * NS, price, lots, second if row is None else row, kind, side)


def engine_on(rows, model, lots=1000, side=1, depth=3, leaves=(), latency_ns=0):
    day = replace(make_day(rows, depth, latency_ns=latency_ns), leaves=np.array(list(leaves), LEAF_DTYPE))
    engine = Engine([day], 1, fill_model=model, fill_capacity=64)
    engine.start(np.array([(0, side, lots, T0, 600 * NS)], PARENT_DTYPE), record=np.ones(1, np.int64))
    return engine


def send(engine, at_ns, rest_px=0, rest_lots=0, cross_lots=0):
    engine.submit(np.array([at_ns]), np.array([(1, rest_px, rest_lots, cross_lots, 0)], INSTRUCTION_DTYPE))


def play(engine, seconds):
    engine.advance(np.array([T0 + int(seconds * NS)]))
    return engine.states[0]


def fill_list(engine):
    return [(int(f["price_ticks"]), int(f["lots"]), int(f["kind"])) for f in engine.fills()]


def queue_rows(sizes, trades=None):
    """Rows a second apart with the best bid at 100 showing `sizes`; `trades` {second: (price, lots, aggressor)}."""
    return [(T0 + k * NS, [(100, size)], ASKS, (trades or {}).get(k)) for k, size in enumerate(sizes)]


# The queue ahead ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "ahead"), [("conservative", 40), ("expected", 30), ("optimistic", 20)])
def test_cancels_before_and_behind_then_each_model_moves_up_as_it_says(model, ahead):
    # 40 ahead; 40 join behind; 20 of the 80 are cancelled: none, half, or all of them stood ahead
    engine = engine_on(queue_rows([40, 80, 60]), model)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 2)["rest_ahead"] == ahead


def test_expected_queue_when_cancels_come_one_by_one_then_parts_of_lots_are_kept():
    engine = engine_on(queue_rows([10, 30, 29, 28, 27]), "expected")
    send(engine, T0, rest_px=100, rest_lots=5)
    state = play(engine, 4)
    exact = 10 * (29 / 30) * (28 / 29) * (27 / 28)  # each lot of the queue is as likely as any other to go
    assert state["rest_ahead"] - state["rest_part"] / 65536 == pytest.approx(exact, abs=1e-3)
    assert state["rest_ahead"] == 9  # what rounding leaves over is no tenth lot


def test_expected_queue_when_a_part_of_a_lot_is_ahead_then_a_trade_must_use_it_up_as_a_lot():
    engine = engine_on(queue_rows([10, 30, 29, 29], {3: (100, 10, -1)}), "expected")
    send(engine, T0, rest_px=100, rest_lots=5)
    play(engine, 3)
    assert fill_list(engine) == []  # 9 2/3 lots ahead: 10 traded reach no whole lot of ours


@pytest.mark.parametrize("model", BY_DEPTH)
def test_trade_and_its_decrease_in_one_row_then_no_cancel_is_seen(model):
    engine = engine_on(queue_rows([40, 80, 70], {2: (100, 10, -1)}), model)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 2)["rest_ahead"] == 30


@pytest.mark.parametrize("model", BY_DEPTH)
def test_trade_printed_before_its_lots_go_one_by_one_then_no_cancel_is_seen(model):
    engine = engine_on(queue_rows([40, 80, 80, 74, 70], {2: (100, 10, -1)}), model)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 4)["rest_ahead"] == 30


@pytest.mark.parametrize("model", BY_DEPTH)
def test_queue_ahead_then_never_exceeds_what_is_displayed(model):
    engine = engine_on(queue_rows([40, 12]), model)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 1)["rest_ahead"] <= 12


@pytest.mark.parametrize("model", BY_DEPTH)
def test_level_that_leaves_the_visible_depth_then_its_change_meanwhile_is_no_cancel(model):
    above = ([(102, 5), (101, 5)], [(103, 5)], None)
    rows = [(T0, [(100, 40)], ASKS, None), (T0 + NS, *above), (T0 + 2 * NS, [(101, 5), (100, 60)], [(103, 5)], None)]
    engine = engine_on(rows, model, depth=2)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 2)["rest_ahead"] == 40


@pytest.mark.parametrize("model", ["expected", "optimistic"])
def test_lots_added_to_an_order_then_their_queue_follows_cancels_too(model):
    engine = engine_on(queue_rows([10, 30, 30, 20]), model)
    send(engine, T0, rest_px=100, rest_lots=5)
    play(engine, 1)
    send(engine, T0 + NS, rest_px=100, rest_lots=9)
    state = play(engine, 3)
    front = 10 - 10 * 10 / 30 if model == "expected" else 0
    assert state["rest_ahead"] - state["rest_part"] / 65536 == pytest.approx(front, abs=1e-3)
    assert state["back_ahead"] == 20 and state["back_lots"] == 4


def test_models_when_all_see_the_same_days_then_the_bolder_ones_fill_no_less_at_rest():
    rng, rows, size = np.random.default_rng(3), [], 40
    for k in range(3000):  # a long queue at one price: orders join, leave from anywhere, and are traded with
        kind, lots = rng.choice(3, p=[0.4, 0.35, 0.25]), int(rng.integers(1, 6))
        size += lots if kind == 0 or size < 25 else -lots
        trade = (100, lots, -1) if kind == 2 and size >= 20 else None
        rows.append((T0 + k * NS, [(100, size)], ASKS, trade))
    days = [make_day(rows, latency_ns=0)]
    filled = []
    for model in BY_DEPTH:
        engine = Engine(days, 40, fill_model=model)
        parents = np.zeros(40, PARENT_DTYPE)
        parents["side"], parents["lots"], parents["horizon_ns"] = 1 - 2 * (np.arange(40) % 2), 10_000, 60 * NS
        parents["start_ns"] = T0 + (10 + 60 * np.arange(40)) * NS
        engine.start(parents)
        message = np.zeros(40, INSTRUCTION_DTYPE)
        message["send"], message["rest_px"], message["rest_lots"] = 1, engine.best()[0], 30
        engine.submit(parents["start_ns"], message)
        engine.advance(parents["start_ns"] + 60 * NS)
        filled.append(engine.states["passive_lots"].copy())
    assert (filled[0] <= filled[1]).all() and (filled[1] <= filled[2]).all()
    assert filled[0].sum() < filled[1].sum() < filled[2].sum()


# Exact queues ---------------------------------------------------------------------------------------------------------


def test_fifo_when_an_order_behind_us_was_executed_then_the_execution_was_ours():
    rows = queue_rows([10, 10, 16, 6, 2])
    leaves = [leaf(3, 100, 10, 0), leaf(4, 100, 4, 2)]
    engine = engine_on(rows, "fifo", leaves=leaves)
    send(engine, T0 + NS, rest_px=100, rest_lots=5)
    assert play(engine, 3)["rest_ahead"] == 0
    assert fill_list(engine) == []
    state = play(engine, 4)
    assert fill_list(engine) == [(100, 4, 1)] and state["made_lots"] == 4


def test_fifo_when_the_order_had_joined_at_the_very_moment_of_our_arrival_then_it_is_ahead():
    engine = engine_on(queue_rows([10, 14, 0], None), "fifo", leaves=[leaf(2, 100, 4, 1)])
    send(engine, T0 + NS, rest_px=100, rest_lots=5)
    play(engine, 2)
    assert fill_list(engine) == []


def test_fifo_when_cancels_come_then_only_those_ahead_move_us_up():
    rows = queue_rows([10, 30, 25, 21])
    leaves = [leaf(2, 100, 5, 1, CANCEL), leaf(3, 100, 4, 0, CANCEL)]
    engine = engine_on(rows, "fifo", leaves=leaves)
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 2)["rest_ahead"] == 10
    assert play(engine, 3)["rest_ahead"] == 6


def test_fifo_when_an_execution_at_a_worse_price_comes_then_we_were_before_it():
    wide = [(103, 10)]
    rows = [(T0 + k * NS, BIDS, wide, None) for k in range(4)]
    engine = engine_on(rows, "fifo", leaves=[leaf(2, 100, 3, -9), leaf(3, 102, 3, -9, side=-1)])
    send(engine, T0, rest_px=101, rest_lots=5)
    play(engine, 3)
    assert fill_list(engine) == [(101, 3, 1)]


def test_fifo_when_trades_name_no_order_then_they_do_not_fill():
    engine = engine_on(queue_rows([10, 10, 10], {1: (100, 99, -1), 2: (99, 99, -1)}), "fifo")
    send(engine, T0, rest_px=100, rest_lots=5)
    play(engine, 2)
    assert fill_list(engine) == []


def test_fifo_when_lots_are_added_then_those_between_stand_before_them():
    rows = queue_rows([10, 14, 14, 14, 9])
    leaves = [leaf(3, 100, 10, 0), leaf(4, 100, 4, 1), leaf(4, 100, 3, 3, row=5)]
    engine = engine_on(rows, "fifo", leaves=leaves)
    send(engine, T0, rest_px=100, rest_lots=2)
    play(engine, 1)
    send(engine, T0 + 2 * NS, rest_px=100, rest_lots=7)
    play(engine, 4)  # of 4 that joined between, our first 2 take 2; then 3 that joined behind are our last ones'
    assert fill_list(engine) == [(100, 2, 1), (100, 3, 1)]


def test_fifo_when_an_event_makes_no_row_then_it_is_met_at_its_time():
    rows = [(T0, BIDS, ASKS, None), (T0 + 9 * NS, BIDS, ASKS, None)]
    engine = engine_on(rows, "fifo", leaves=[leaf(3, 99, 2, -5, row=1), leaf(4, 99, 4, 2, row=1)])
    send(engine, T0 + NS, rest_px=99, rest_lots=5)
    play(engine, 3.5)
    assert fill_list(engine) == [] and play(engine, 4)["filled"] == 4
    assert engine.fills()["ts_ns"].tolist() == [T0 + 4 * NS]


def test_fifo_when_the_book_becomes_unknown_then_the_order_joins_the_back_of_the_new_one():
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, [], [], None), (T0 + 2 * NS, BIDS, ASKS, None)]
    rows += [(T0 + k * NS, BIDS, ASKS, None) for k in (3, 4)]
    marks = [leaf(1, 0, 0, 0, CLEAR, side=0), leaf(2, 0, 0, 0, WHOLE, row=3, side=0)]
    engine = engine_on(rows, "fifo", leaves=[*marks, leaf(3, 100, 10, 2), leaf(4, 100, 2, 3)])
    send(engine, T0, rest_px=100, rest_lots=5)
    assert play(engine, 2)["rest_ahead"] == 10
    assert play(engine, 3)["filled"] == 0  # joined with the snapshot: ahead now
    assert play(engine, 4)["filled"] == 2


def test_fifo_when_an_order_crosses_history_s_own_book_then_only_its_executions_fill():
    crossed = [(99, 7), (101, 10)]
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, BIDS, crossed, None), (T0 + 2 * NS, [(99, 20)], ASKS, (100, 7, -1))]
    engine = engine_on(rows, "fifo", leaves=[leaf(2, 100, 7, -5)])
    send(engine, T0, rest_px=100, rest_lots=5)
    play(engine, 2)
    assert fill_list(engine) == []


def test_fifo_when_the_day_is_not_known_order_by_order_then_it_is_named():
    with pytest.raises(NoQueuesError, match="TEST-T 2024-01-02|TEST.T 2024-01-02"):
        Engine([make_day([(T0, BIDS, ASKS, None)])], 1, fill_model="fifo")


# What is taken stays taken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_sweep_when_repeated_on_an_unchanged_level_then_gets_nothing_under_any_model(model):
    engine = engine_on([(T0 + k * NS, BIDS, ASKS, None) for k in range(6)], model)
    send(engine, T0, cross_lots=50)
    play(engine, 1)
    assert fill_list(engine) == [(101, 10, 2), (102, 20, 2)]
    for k in range(1, 5):
        send(engine, T0 + k * NS, cross_lots=20)
        play(engine, k + 1)
    assert len(fill_list(engine)) == 2


@pytest.mark.parametrize("model", FILL_MODELS)
def test_taken_level_when_it_leaves_the_visible_depth_and_returns_then_it_is_still_taken(model):
    beyond, back = [(99, 5), (100, 5)], [(101, 10), (102, 20)]
    rows = [
        (T0, [(97, 5)], back, None),
        (T0 + NS, [(97, 5)], beyond, None),
        (T0 + 2 * NS, [(97, 5)], [(99, 5), (101, 12)], None),
        (T0 + 3 * NS, [(97, 5)], [(101, 12), (102, 20)], None),
    ]
    engine = engine_on(rows, model, depth=2)
    send(engine, T0, cross_lots=10)
    play(engine, 3)
    send(engine, T0 + 3 * NS, cross_lots=10)
    play(engine, 4)
    assert fill_list(engine) == [(101, 10, 2), (101, 2, 2), (102, 8, 2)]


@pytest.mark.parametrize("model", FILL_MODELS)
def test_taken_level_when_the_book_is_unknown_for_a_while_then_it_is_still_taken(model):
    rows = [(T0, BIDS, ASKS, None), (T0 + NS, [], [], None), (T0 + 2 * NS, BIDS, ASKS, None)]
    engine = engine_on(rows, model)
    send(engine, T0, cross_lots=30)
    play(engine, 2)
    send(engine, T0 + 2 * NS, cross_lots=30)
    play(engine, 3)
    assert len(fill_list(engine)) == 2


@pytest.mark.parametrize("model", FILL_MODELS)
def test_lots_that_came_to_meet_our_resting_order_then_are_taken_once(model):
    rows = [(T0, [(98, 9)], [(101, 10)], None)] + [(T0 + k * NS, [(98, 9)], [(100, 6)], None) for k in range(1, 4)]
    engine = engine_on(rows, model)
    send(engine, T0, rest_px=100, rest_lots=20)
    state = play(engine, 3)
    assert fill_list(engine) == [(100, 6, 1)] and state["met_lots"] == 6 and state["made_lots"] == 0


# Divergence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FILL_MODELS)
def test_historical_trades_when_they_want_lots_that_we_took_then_the_excess_is_counted(model):
    rows = [
        (T0, BIDS, ASKS, None),
        (T0 + NS, BIDS, ASKS, (101, 1, 1)),  # 3 are left of 10: a print whose lots go later
        (T0 + 2 * NS, BIDS, ASKS, (101, 4, 1)),  # 2 of it find nothing
        (T0 + 3 * NS, BIDS, [(101, 5), (102, 20)], None),
        (T0 + 4 * NS, BIDS, [(101, 1), (102, 20)], (101, 4, 1)),  # nothing is left: all 4
        (T0 + 5 * NS, BIDS, [(101, 1), (102, 20)], (102, 7, 1)),  # at a price where we took nothing
    ]
    engine = engine_on(rows, model)
    send(engine, T0, cross_lots=7)
    assert play(engine, 2)["rerouted_lots"] == 2
    assert play(engine, 5)["rerouted_lots"] == 6
    assert fill_list(engine) == [(101, 7, 2)]


def test_trade_that_fills_our_resting_order_then_counts_as_made():
    engine = engine_on(queue_rows([10, 10], {1: (100, 14, -1)}), "conservative")
    send(engine, T0, rest_px=100, rest_lots=20)
    state = play(engine, 1)
    assert (state["made_lots"], state["met_lots"], state["rerouted_lots"]) == (4, 0, 0)


# The figures that were published with the conservative model ----------------------------------------------------------


def test_conservative_model_then_gives_the_fills_that_it_gave_before_there_were_others():
    rng = np.random.default_rng(20240102)
    days = [
        make_day(random_rows(rng, 2500)),
        make_day(random_rows(rng, 2500, depth=1), depth=1, snapshot=True),
        make_day(random_rows(rng, 2500, start_mid=300), latency_ns=0),
    ]
    count = 60
    parents = np.zeros(count, PARENT_DTYPE)
    parents["day"], parents["side"] = np.arange(count) % 3, 1 - 2 * (np.arange(count) // 3 % 2)
    parents["lots"] = rng.integers(20, 400, count)
    parents["start_ns"] = [int(days[d].book.ts_ns[0]) + int(rng.integers(1, 3000)) * NS for d in parents["day"]]
    parents["horizon_ns"] = 600 * NS
    engine = Engine(days, count, fill_capacity=1 << 16)
    engine.start(parents, record=np.ones(count, np.int64))
    for step in range(120):
        now = engine.states["start_ns"] + step * 5 * NS
        own_px = engine.best()[0]
        message = np.zeros(count, INSTRUCTION_DTYPE)
        message["send"] = rng.random(count) < 0.5
        message["rest_px"] = np.maximum(own_px - engine.states["side"] * rng.integers(-2, 3, count), 1)
        message["rest_lots"] = rng.integers(0, 60, count)
        message["cross_lots"] = rng.integers(0, 12, count) * (rng.random(count) < 0.2)
        message["beyond"] = rng.integers(0, 2, count)
        engine.submit(now, message)
        engine.advance(now + 5 * NS)
    resting = engine.states.copy()
    engine.complete()
    digest = hashlib.sha256(np.sort(engine.fills(), order=["episode", "ts_ns"], kind="stable").tobytes())
    for name in ("row", "filled", "passive_lots", "aggressive_lots", "forced_lots", "extrapolated_lots", "passive_cost",
                 "aggressive_cost", "forced_cost", "spread2", "timing2", "impact2", "orders"):  # fmt: skip
        digest.update(engine.states[name].tobytes())
    for name in ("rest_px", "rest_lots", "rest_ahead", "back_lots", "back_ahead"):
        digest.update(resting[name].tobytes())
    assert digest.hexdigest() == "c9888e3ed42c56bdcb7440ea2b052e991cd057a82c11c5fbc21171c4dc24d2cc"


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings_when_the_fill_model_is_unknown_then_it_is_refused_by_name():
    with pytest.raises(InputError, match="fill_model 'hopeful' is not one of conservative, expected, optimistic, fifo"):
        ExecutionConfig(fill_model="hopeful")
