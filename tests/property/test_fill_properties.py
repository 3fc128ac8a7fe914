"""What holds under every fill model, whatever is asked: lots, the ledger, the queue, and time cut anywhere."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import NS, make_day, random_rows

from feature_repo.pipeline.books import build_book
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events
from training.market.engine import Engine
from training.market.orders import FILL_MODELS, INSTRUCTION_DTYPE, PARENT_DTYPE

EPISODES = 12
seeds = st.integers(0, 2**31 - 1)
models = st.sampled_from(FILL_MODELS)


@pytest.fixture(scope="module")
def days():
    """A day order by order with its leaves, and one whose rows are unrelated to one another."""
    import pyarrow as pa

    from feature_repo.ticks.batches import event_batch
    from feature_repo.ticks.reader import IngestRequest

    options = {"days": 1, "seed": 5, "dirt": 0.0, "hours": 0.5}
    (plan,) = SyntheticReader().plan(IngestRequest("synthetic", options=options))
    events = pa.Table.from_batches([event_batch(clean_events(SyntheticOptions.parse(plan.options), plan.partition), 0)])
    book, _ = build_book(events, 3)
    shift = int(make_day([(0, [(1, 1)], [(2, 1)], None)]).windows[0][0]) - int(book.ts_ns[0])
    leaves = LeafBuilder(3).add(events)
    leaves["ts_ns"] += shift
    leaves["join_ns"] += shift
    ordered = replace(make_day([(0, [(1, 1)], [(2, 1)], None)]), book=replace(book, ts_ns=book.ts_ns + shift))
    rows = random_rows(np.random.default_rng(2), 1500)
    return [replace(ordered, leaves=leaves), replace(make_day(rows, latency_ns=0), leaves=leaves[:0])]


def started(days, model, rng):
    """An engine with a parent in each episode, half of them on each day."""
    engine = Engine(days, EPISODES, fill_model=model, fill_capacity=1 << 14)
    parents = np.zeros(EPISODES, PARENT_DTYPE)
    parents["day"], parents["side"] = np.arange(EPISODES) % 2, 1 - 2 * rng.integers(0, 2, EPISODES)
    parents["lots"] = rng.integers(50, 3000, EPISODES)
    parents["horizon_ns"] = 120 * NS
    first = np.array([int(day.book.ts_ns[0]) for day in days])[parents["day"]]
    parents["start_ns"] = first + rng.integers(60, 1500, EPISODES) * NS
    engine.start(parents, record=np.ones(EPISODES, np.int64))
    return engine


def messages(engine, rng):
    """Something random for each episode: rest near the best price, take, both, cancel, or nothing."""
    found = np.zeros(EPISODES, INSTRUCTION_DTYPE)
    own_px = engine.best()[0]
    found["send"] = rng.random(EPISODES) < 0.7
    found["rest_px"] = np.maximum(1, own_px - engine.states["side"] * rng.integers(-2, 4, EPISODES))
    found["rest_lots"] = rng.integers(0, 200, EPISODES)
    found["cross_lots"] = rng.integers(0, 60, EPISODES) * (rng.random(EPISODES) < 0.3)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=seeds, model=models)
def test_lots_are_conserved_and_the_queue_and_the_ledger_stay_within_what_is_displayed(days, seed, model):
    rng = np.random.default_rng(seed)
    engine = started(days, model, rng)
    for step in range(24):
        now = engine.states["start_ns"] + step * 5 * NS
        engine.submit(now, messages(engine, rng))
        engine.advance(now + 5 * NS)
        states = engine.states
        assert (states["rest_ahead"] >= 0).all() and (states["back_ahead"] >= 0).all()
        assert ((states["back_lots"] >= 0) & (states["back_lots"] <= states["rest_lots"])).all()
        assert (states["rest_lots"] + states["filled"] <= states["lots"]).all()
        check_ledger(engine, days)
    engine.complete()
    states, fills = engine.states, engine.fills()
    assert (states["filled"] == states["lots"]).all()
    assert (states["made_lots"] + states["met_lots"] == states["passive_lots"]).all()
    assert (states["passive_lots"] + states["aggressive_lots"] + states["forced_lots"] == states["lots"]).all()
    for i in range(EPISODES):
        own = fills[fills["episode"] == i]
        assert own["lots"].sum() == states["lots"][i] and (np.diff(own["ts_ns"]) >= 0).all()


def check_ledger(engine, days):
    """What an own order took is never more than what its level shows, where it shows."""
    for i, state in enumerate(engine.states):
        if state["filled"] == state["lots"]:
            continue
        book = days[int(state["day"])].book
        row = int(state["row"] - state["row_lo"])
        prices, sizes = (book.ask_px, book.ask_sz) if state["side"] > 0 else (book.bid_px, book.bid_sz)
        shown = dict(zip(prices[row].tolist(), sizes[row].tolist(), strict=True))
        for j in range(int(state["taken_count"])):
            price, lots = int(engine.taken_px[i, j]), int(engine.taken_lots[i, j, 0])
            assert 0 < lots <= shown.get(price, lots)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, model=models, pieces=st.integers(2, 40))
def test_time_when_it_is_cut_into_pieces_then_every_byte_is_the_same(days, seed, model, pieces):
    outcomes = []
    for cuts in (1, pieces):
        rng = np.random.default_rng(seed)
        engine = started(days, model, rng)
        for step in range(8):
            now = engine.states["start_ns"] + step * 15 * NS
            engine.submit(now, messages(engine, rng))
            for piece in range(1, cuts + 1):
                engine.advance(now + 15 * NS * piece // cuts)
        engine.complete()
        fills = np.sort(engine.fills(), order=["episode", "ts_ns", "price_ticks", "lots"], kind="stable")
        # A filled parent's row stands still, and leaves are looked up where an order joins.
        accounts = [name for name in engine.states.dtype.names if name not in ("row", "leaf")]
        outcomes.append((fills.tobytes(), engine.states[accounts].tolist()))
    assert outcomes[0] == outcomes[1]
