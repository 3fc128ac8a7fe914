"""Invariants of the reactive market whatever own orders do in it."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import instrument

from feature_repo.ticks.reactive_tables import published_tables
from training.market.queues import kernel
from training.market.reactive.draws import part, poisson
from training.market.reactive.kernel import next_event, open_market, play
from training.market.reactive.ladder import own_after_cancel, sum_rates, take
from training.market.reactive.own import give_way, rest, take_level, withdraw
from training.market.reactive.rows import show, simulate_book
from training.market.reactive.state import NS, RING, market_seed, new_markets, prepare

TABLES = published_tables()
IN_LOTS = TABLES._replace(by_orders=0, cancel_sizes=np.array([[1, 2, 3, 9, 20]] * 6, np.int32))
seeds = st.integers(0, 2**31 - 1)


@kernel
def one_event(p, m, until_ns):
    return next_event(p, m, until_ns)


def started(seed, tables=TABLES, strength=0.6, bid=1000):
    markets = new_markets(1)
    prepare(markets, tables, strength, 0, 3600 * NS)
    open_market(tables, markets[0], market_seed(seed, 0), 0, bid)
    return markets


def check_state(tables, market):
    levels = np.zeros((4, 5), np.int32)
    show(market, levels)
    assert levels[0, 0] < levels[2, 0] or min(levels[1, 0], levels[3, 0]) == 0  # never crossed
    assert market["lots"].sum() == market["joined"] - market["left"] - market["traded"]
    assert (market["lots"] >= 0).all() and market["bid"] < market["ask"]
    if tables.by_orders:
        assert (market["orders"] <= market["lots"]).all()
        assert ((market["orders"] == 0) == (market["lots"] == 0)).all()
    before = market["arrivals"].copy(), market["leaves"].copy()
    sum_rates(tables, market)
    np.testing.assert_allclose(before[0], market["arrivals"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(before[1], market["leaves"], rtol=1e-9, atol=1e-9)
    if market["own_lots"] > 0:
        others = market["lots"][market["own_side"], market["own_px"] % RING]
        assert 0 <= market["own_ahead"] <= market["own_behind"] <= others
        assert 0 <= market["own_back"] < market["own_lots"]


@settings(max_examples=30, deadline=None)
@given(seed=seeds, tables=st.sampled_from([TABLES, IN_LOTS]), big=st.booleans())
def test_lots_are_conserved_priority_holds_and_the_book_never_crosses(seed, tables, big):
    rng = np.random.default_rng(seed)
    (market,) = markets = started(seed, tables)
    placed = withdrawn = filled = 0
    for _ in range(60):
        was = int(market["own_lots"])
        action, side = rng.integers(0, 4), int(rng.integers(0, 2))
        lots = int(rng.integers(1, 400 if big else 20))
        if action == 0:
            withdraw(tables, market)
            withdrawn += was
        elif action == 1:
            inside = market["ask"] - market["bid"] > 1 and rng.random() < 0.5
            step = 1 if inside else -int(rng.integers(0, 3))
            price = int(market["bid"]) + step if side == 0 else int(market["ask"]) - step
            same = was > 0 and market["own_side"] == side and market["own_px"] == price
            assert rest(tables, market, side, price, lots)
            placed, withdrawn = (
                placed + (max(0, lots - was) if same else lots),
                withdrawn + (max(0, was - lots) if same else was),
            )
        elif action == 2 and not (was > 0 and market["own_side"] == side):
            left = lots
            while left > 0:
                price, taken = take_level(tables, market, side, left, 0)
                if taken == 0:
                    break
                left -= taken
            give_way(tables, market, side)
        check_state(tables, markets[0])
        for _ in range(int(rng.integers(0, 30))):
            front, ahead = int(market["own_lots"] - market["own_back"]), int(market["own_ahead"])
            place = int(market["own_px"])
            if not one_event(tables, market, market["now_ns"] + 60 * NS):
                continue
            filled += int(market["filled"])
            if market["filled"] > 0:  # who stood ahead has traded or gone
                assert market["trade_px"] == place
                assert market["filled"] == market["trade_lots"] or market["own_lots"] == 0 or market["own_ahead"] == 0
                assert market["filled"] < front or market["own_back"] == 0
            assert market["own_lots"] == 0 or market["own_ahead"] <= ahead or market["own_back"] == 0
        check_state(tables, markets[0])
    assert placed == withdrawn + filled + market["own_lots"]


@settings(max_examples=200, deadline=None)
@given(
    queue=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=2),
    behind=st.integers(0, 9),
    lots=st.integers(1, 60),
)
def test_a_market_order_takes_others_and_own_lots_in_their_order(queue, behind, lots):
    """Against the queue written out lot by lot; `queue` holds (others ahead, own lots) of one or two own orders."""
    (market,) = started(1, IN_LOTS)
    price = int(market["bid"])
    written = "".join("o" * ahead + "x" * own for ahead, own in queue) + "o" * behind
    market["lots"][0, price % RING] = written.count("o")
    market["own_side"], market["own_px"], market["own_lots"] = 0, price, written.count("x")
    market["own_ahead"], market["own_back"] = queue[0][0], queue[1][1] if len(queue) > 1 else 0
    market["own_behind"] = sum(ahead for ahead, _ in queue)
    taken, left = written[:lots], written[lots:]
    assert take(IN_LOTS, market, 0, price, lots) == len(taken)
    assert market["filled"] == taken.count("x") and market["own_lots"] == left.count("x")
    assert market["lots"][0, price % RING] == left.count("o")
    if "x" in left:
        assert market["own_ahead"] == left.index("x")
        back = [at for at, lot in enumerate(left) if lot == "x"][-int(market["own_back"]) or None :]
        assert left[: back[0]].count("o") == market["own_behind"]


def test_cancels_strike_ahead_and_behind_by_others_lots():
    (market,) = started(1, IN_LOTS)
    price, ahead = int(market["bid"]), 0
    for pick in (np.arange(1000) + 0.5) / 1000:
        market["lots"][0, price % RING] = 40
        market["own_side"], market["own_px"], market["own_lots"], market["own_back"] = 0, price, 5, 0
        market["own_ahead"] = market["own_behind"] = 30
        own_after_cancel(market, 0, price, 2, pick)
        ahead += 30 - int(market["own_ahead"])
    assert ahead == 2 * 750  # three quarters of others' lots stand ahead


def test_resting_is_post_only_and_within_reach():
    (market,) = started(1)
    bid, ask = int(market["bid"]), int(market["ask"])
    before = market.tobytes()
    assert not rest(TABLES, market, 0, ask, 5) and not rest(TABLES, market, 1, bid, 5)
    assert not rest(TABLES, market, 0, bid - 20, 5)
    assert market.tobytes() == before


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_same_seed_gives_the_same_bytes(seed):
    item = instrument(depth=5)
    books = [simulate_book(TABLES, item, number, 120, strength=0.3) for number in (seed, seed, seed + 1)]
    content = [book.ts_ns.tobytes() + book.bid_sz.tobytes() + book.ask_sz.tobytes() for book in books]
    assert content[0] == content[1] != content[2]


def test_market_is_the_generators_in_distribution():
    """Means over ten days of the synthetic market at strength 0.6 (seed 7), each within four standard errors."""
    item = instrument(depth=5)
    found = []
    for seed in range(6):
        book = simulate_book(TABLES, item, seed, 23_400, strength=0.6)
        at = np.searchsorted(book.ts_ns, book.ts_ns[0] + np.arange(1, 23_400) * NS, side="right") - 1
        spread = book.ask_px[at, 0] - book.bid_px[at, 0]
        mid = (book.ask_px[at, 0] + book.bid_px[at, 0]) / 2
        found.append(
            (
                np.mean(spread == 1),
                *np.quantile(book.bid_sz[at, 0], [0.05, 0.5, 0.95]),
                book.bid_sz[at, 1:].mean(),
                book.trade_sz.sum() / 39,
                np.std(mid[600:] - mid[:-600]),
            )
        )
    generator = np.array([0.916, 18.5, 63.9, 129.7, 76.18, 4657.7, 7.42])
    error = np.array([0.001, 0.29, 0.33, 1.1, 0.37, 76.7, 0.28])  # of the generator's ten days
    together = np.sqrt(error**2 + np.var(found, axis=0, ddof=1) / len(found))
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - generator), 4 * together)


def mids_after(own, seconds, count=1500):
    """Mean move of the mid since before `own(market)` acted, in ticks, `seconds` later, and its standard error."""
    moves = []
    for seed in range(count):
        (market,) = started(seed, strength=0.0)
        play(TABLES, market, 5 * NS)
        before = int(market["bid"] + market["ask"])
        own(market)
        play(TABLES, market, (5 + seconds) * NS)
        moves.append((market["bid"] + market["ask"] - before) / 2)
    return np.mean(moves), np.std(moves) / np.sqrt(count)


def test_own_market_order_that_uses_up_a_queue_moves_what_follows():
    def nothing(market):
        return None

    def buy(market):
        price, lots = int(market["ask"]), market["lots"][1, market["ask"] % RING]
        assert take_level(TABLES, market, 1, int(lots), 0) == (price, lots)
        give_way(TABLES, market, 1)

    idle, error = mids_after(nothing, 30)
    assert abs(idle) < 3.5 * error  # a martingale without us
    moved, error = mids_after(buy, 30)
    assert moved > 0.2 and abs(moved - 0.5) < 4 * error  # half a tick at once, which a fair coin keeps or takes back


def test_own_order_makes_its_queue_longer_for_others():
    (market,) = started(3, strength=0.0)
    while market["units"][0, market["bid"] % RING] > 8:  # arrivals fall with the length up to 12 orders
        one_event(TABLES, market, market["now_ns"] + 60 * NS)
    arrivals, leaves = float(market["arrivals"][0]), float(market["leaves"][0])
    assert rest(TABLES, market, 0, int(market["bid"]), 60)
    assert market["arrivals"][0] < arrivals and market["leaves"][0] > leaves
    withdraw(TABLES, market)
    assert market["arrivals"][0] == pytest.approx(arrivals) and market["leaves"][0] == pytest.approx(leaves)


def test_own_order_inside_an_open_spread_is_the_best_price_until_it_leaves():
    (market,) = started(4, strength=0.0)
    while market["ask"] - market["bid"] == 1:
        one_event(TABLES, market, market["now_ns"] + 60 * NS)
    bid = int(market["bid"])
    assert rest(TABLES, market, 0, bid + 1, 5)
    assert market["bid"] == bid + 1 and market["gap"] == 0
    check_state(TABLES, market)
    withdraw(TABLES, market)
    assert market["bid"] == bid and market["gap"] == -1
    check_state(TABLES, market)


def test_small_own_order_does_not_hold_a_price_and_a_large_one_does():
    held = {}
    for lots in (1, 5000):
        held[lots] = 0
        for seed in range(60):
            (market,) = started(seed, strength=0.0)
            bid = int(market["bid"])
            rest(TABLES, market, 0, bid, lots)
            play(TABLES, market, 60 * NS)
            held[lots] += market["bid"] >= bid
    assert held[5000] == 60 and held[1] < 50


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_parts_of_a_queue_are_sized_as_all_compositions_alike(seed):
    (market,) = started(seed)
    whole, parts = 12, 4
    drawn = np.array([draw_part(market, whole, parts) for _ in range(4000)])
    chance = np.array([comb(whole - s - 1, parts - 2) / comb(whole - 1, parts - 1) for s in range(1, 10)])
    assert chance.sum() == pytest.approx(1.0)
    seen = np.bincount(drawn, minlength=10)[1:10] / 4000
    np.testing.assert_array_less(np.abs(seen - chance), 5 * np.sqrt(chance * (1 - chance) / 4000) + 1e-3)


@kernel
def draw_part(m, whole, parts):
    return part(m, whole, parts)


def test_poisson_draws_have_their_mean_and_variance():
    (market,) = started(1)
    drawn = np.array([poisson(market, 6.0) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(6.0, abs=0.07) and drawn.var() == pytest.approx(6.0, rel=0.05)
