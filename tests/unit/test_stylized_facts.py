"""Stylized facts recover what was planted in a book, count only the session, and give intervals that hold."""

import numpy as np
import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from training.market.facts import book_shape, flow, moves
from training.market.facts.estimate import BlockBootstrap, Estimate, power_law
from training.market.facts.measure import AGREE, DIFFER, UNKNOWN, compare, facts_json, measure
from training.market.facts.sample import NS, autocorrelation, autocorrelation_sums, prepare
from training.market.facts.snapshots import as_snapshots, snapshot_interval_ns

HOUR = 3_600 * NS


def book_of(ts_ns, bid, ask, lots=10, trade_sz=None, trade_side=None, trade_px=None) -> Book:
    """A book of one level: prices `bid`, `ask` (T,), `lots` at both, and trades where `trade_sz` is above 0."""
    rows = len(ts_ns)

    def column(values, kind=np.int32):
        return np.broadcast_to(np.asarray(values, kind), (rows,)).copy()

    none = np.zeros(rows, np.int64)
    trade_sz, trade_side = (none if item is None else item for item in (trade_sz, trade_side))
    size = column(lots)[:, None]
    price = np.where(np.asarray(trade_sz) > 0, bid, 0) if trade_px is None else trade_px
    prices = column(bid)[:, None], size, column(ask)[:, None], size.copy()
    return Book(column(ts_ns, np.int64), *prices, column(price), column(trade_sz), column(trade_side, np.int8))


def every_second(hours: float, mid: np.ndarray | int = 100) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    ts_ns = np.arange(int(hours * 3_600), dtype=np.int64) * NS
    return ts_ns, ((0, int(hours * HOUR)),)


def numbers(fact) -> dict[str, Estimate]:
    return {item.key: item for item in fact.numbers}


def bootstrap_of(sample, seed=0) -> BlockBootstrap:
    return BlockBootstrap(sample.blocks, np.random.default_rng(seed))


def test_spread_when_states_stand_for_known_times_then_weighs_them_by_it():
    ts_ns = np.array([0, 900 * NS, 1_800 * NS, 2_700 * NS], np.int64)
    book = book_of(ts_ns, [100, 100, 100, 100], [101, 103, 101, 103])
    sample = prepare(book, [(0, HOUR)])
    found = numbers(book_shape.spread([sample], bootstrap_of(sample)))
    assert found["spread_mean"].value == pytest.approx(2.0)
    assert found["spread_one_tick"].value == pytest.approx(0.5)
    assert found["spread_mean"].low == pytest.approx(2.0)  # both half hours are alike: nothing varies


def test_spread_when_the_book_is_one_sided_or_outside_the_session_then_that_time_does_not_count():
    ts_ns = np.array([-NS, 0, 600 * NS, 1_200 * NS, HOUR, 2 * HOUR], np.int64)
    book = book_of(ts_ns, [100] * 6, [109, 101, 0, 102, 120, 120])
    book.ask_sz[2] = 0
    sample = prepare(book, [(0, HOUR)])
    found = numbers(book_shape.spread([sample], bootstrap_of(sample)))
    assert found["spread_mean"].value == pytest.approx((600 * 1 + 2_400 * 2) / 3_000)


def test_depth_when_one_level_is_visible_then_the_ratios_of_others_are_not_defined():
    ts_ns, windows = every_second(1)
    sample = prepare(book_of(ts_ns, 100, 101, lots=7), windows)
    found = numbers(book_shape.depth([sample], bootstrap_of(sample)))
    assert found["depth_best"].value == pytest.approx(7.0) and found["depth_variation"].value == pytest.approx(0.0)
    assert not found["depth_second"].known and not found["depth_deepest"].known


def test_sample_when_a_window_ends_in_a_short_rest_then_the_rest_belongs_to_the_block_before():
    ts_ns, _ = every_second(2)
    sample = prepare(book_of(ts_ns, 100, 101), [(0, 4_200 * NS), (5_000 * NS, 7_000 * NS)])
    assert sample.spans_ns.tolist() == [1_800 * NS, 2_400 * NS, 2_000 * NS]
    assert sample.window.tolist() == [0, 0, 1]
    assert set(sample.block[(ts_ns >= 4_200 * NS) & (ts_ns < 5_000 * NS)]) == {-1}


def test_trades_when_executions_follow_at_once_then_are_one_trade_with_the_net_side():
    ts_ns = np.array([0, 10 * NS, 10 * NS + 1_000, 10 * NS + 2_000, 20 * NS, 21 * NS], np.int64)
    lots, side = [0, 3, 2, 4, 5, 0], [0, 1, 1, -1, -1, 0]
    book = book_of(ts_ns, [100, 100, 101, 102, 102, 102], [101, 101, 102, 103, 103, 103], 10, lots, side)
    trades = prepare(book, [(0, HOUR)]).trades
    assert trades.ts_ns.tolist() == [10 * NS, 20 * NS]
    assert trades.side.tolist() == [1, -1] and trades.lots.tolist() == [1, 5] and trades.volume.tolist() == [9, 5]
    assert trades.before2.tolist() == [201, 205] and trades.after2.tolist() == [205, 205]


def test_signature_when_the_mid_is_a_random_walk_then_is_flat_and_when_it_bounces_then_falls():
    rng = np.random.default_rng(3)
    ts_ns, windows = every_second(6)
    walk = 10_000 + np.cumsum(rng.choice([-1, 0, 1], len(ts_ns)))
    flat = prepare(book_of(ts_ns, walk, walk + 1), windows)
    found = numbers(moves.signature([flat], bootstrap_of(flat)))
    assert found["variance_1s"].low < 2 / 3 < found["variance_1s"].high
    assert found["signature_ratio"].low < 1.0 < found["signature_ratio"].high
    bounced = walk + rng.choice([-2, 2], len(ts_ns))
    noisy = prepare(book_of(ts_ns, bounced, bounced + 1), windows)
    assert numbers(moves.signature([noisy], bootstrap_of(noisy)))["signature_ratio"].low > 2.0


def test_volatility_memory_when_calm_and_wild_minutes_alternate_then_is_seen_and_returns_have_none():
    rng = np.random.default_rng(5)
    ts_ns, windows = every_second(6)
    wild = np.repeat(rng.random(6 * 12) < 0.5, 300)  # five minutes of each
    walk = 10_000 + np.cumsum(rng.choice([-1, 1], len(ts_ns)) * np.where(wild, 5, 1))
    sample = prepare(book_of(ts_ns, walk, walk + 1), windows)
    clustered = numbers(moves.volatility_memory([sample], bootstrap_of(sample)))
    assert clustered["volatility_memory_10s"].low > 0.1
    memory = numbers(moves.returns([sample], bootstrap_of(sample)))
    assert memory["return_memory"].low < 0.0 < memory["return_memory"].high
    assert memory["return_kurtosis"].low > 0.5


def chain(rng, count: int, stay: float) -> np.ndarray:
    """Signs whose autocorrelation at lag l is (2 stay - 1)^l."""
    turns = np.where(rng.random(count) < stay, 1, -1)
    return np.cumprod(turns)


def test_trade_signs_when_a_markov_chain_is_planted_then_its_autocorrelation_is_found():
    ts_ns, windows = every_second(6)
    side = chain(np.random.default_rng(11), len(ts_ns), 0.8)
    sample = prepare(book_of(ts_ns, 100, 101, 10, np.full(len(ts_ns), 3), side), windows)
    fact = flow.trade_signs([sample], bootstrap_of(sample))
    for lag in (1, 2, 3, 5):
        at = fact.curve.x.tolist().index(lag)
        assert fact.curve.y[at] == pytest.approx(0.6**lag, abs=0.02)
        assert 0.005 < fact.curve.high[at] - fact.curve.low[at] < 0.1
    assert numbers(fact)["trade_signs_100"].low < 0 < numbers(fact)["trade_signs_100"].high


def test_trade_signs_when_independent_then_no_decay_exponent_is_claimed():
    ts_ns, windows = every_second(6)
    side = chain(np.random.default_rng(12), len(ts_ns), 0.5)
    sample = prepare(book_of(ts_ns, 100, 101, 10, np.full(len(ts_ns), 3), side), windows)
    assert not numbers(flow.trade_signs([sample], bootstrap_of(sample)))["trade_signs_decay"].known


def test_order_flow_when_bids_grow_and_asks_shrink_then_every_sign_is_that_of_buying():
    ts_ns = np.arange(5, dtype=np.int64) * NS
    book = book_of(ts_ns, 100, 101)
    book.bid_sz[:, 0] = [10, 12, 12, 12, 5]
    book.ask_sz[:, 0] = [10, 10, 8, 8, 8]
    book.ask_px[3:, 0] = 102
    _, sign = flow.flow_signs(prepare(book, [(0, HOUR)]))
    assert sign.tolist() == [1, 1, 1, -1]


def planted_impact(rng, hours: float, exponent: float) -> tuple[Book, tuple]:
    """A trade each 4 s; half a second later the mid moves by sign x 20 lots^exponent ticks / mean, with noise."""
    count = int(hours * 900)
    size, side = 2 ** rng.integers(0, 10, count), rng.choice([-1, 1], count)
    move = side * 4.0 * size**exponent + rng.normal(0, 5, count)
    start = np.arange(count, dtype=np.int64) * 4 * NS + NS
    level = 1_000_000 + np.concatenate([[0], np.cumsum(move.round().astype(np.int64))])
    ts_ns = np.column_stack([start, start + NS // 2]).ravel()
    bid = np.column_stack([level[:-1], level[1:]]).ravel()
    trade = np.column_stack([size, np.zeros(count, np.int64)]).ravel()
    sides = np.column_stack([side, np.zeros(count, np.int64)]).ravel()
    ts_ns = np.concatenate([[0], ts_ns])
    bid, trade, sides = (np.concatenate([[first], item]) for first, item in ((level[0], bid), (0, trade), (0, sides)))
    return book_of(ts_ns, bid, bid + 1, 10, trade, sides), ((0, int(hours * HOUR)),)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_impact_when_a_power_of_size_is_planted_then_the_exponent_is_found(exponent):
    book, windows = planted_impact(np.random.default_rng(17), 6, exponent)
    sample = prepare(book, windows)
    found = numbers(flow.impact_of_size([sample], bootstrap_of(sample)))["impact_exponent"]
    assert found.value == pytest.approx(exponent, abs=0.05)
    assert found.low - 0.02 <= exponent <= found.high + 0.02  # its grid has steps of 0.01
    assert found.high - found.low < 0.2


def test_response_when_each_trade_moves_the_mid_once_and_for_good_then_is_the_same_at_every_lag():
    book, windows = planted_impact(np.random.default_rng(19), 6, 0.0)
    sample = prepare(book, windows)
    for item in flow.response([sample], bootstrap_of(sample)).numbers:
        assert abs(item.value - 4.0) < item.high - item.low  # four standard errors: three looks at one draw


def test_durations_when_trades_are_poisson_then_their_spread_equals_their_mean():
    rng = np.random.default_rng(23)
    ts_ns = np.cumsum(rng.exponential(2e9, 9_000)).astype(np.int64)
    windows = ((0, int(ts_ns[-1]) + 1),)
    sample = prepare(book_of(ts_ns, 100, 101, 10, np.ones(len(ts_ns), int), np.ones(len(ts_ns), int)), windows)
    found = numbers(flow.durations([sample], bootstrap_of(sample)))
    assert found["duration_mean"].low < 2.0 < found["duration_mean"].high
    assert found["duration_variation"].low < 1.0 < found["duration_variation"].high


def test_volume_of_day_when_the_edges_trade_thrice_as_much_then_says_three():
    ts_ns, windows = every_second(6)
    edge = (ts_ns < 1_800 * NS) | (ts_ns >= 6 * HOUR - 1_800 * NS)
    sample = prepare(book_of(ts_ns, 100, 101, 10, np.where(edge, 6, 2), np.ones(len(ts_ns), int)), windows)
    fact = flow.volume_of_day([sample], bootstrap_of(sample))
    assert numbers(fact)["volume_u"].value == pytest.approx(3.0)
    assert fact.curve.y[0] / fact.curve.y[1] == pytest.approx(3.0) and len(fact.curve.y) == 12


def test_autocorrelation_when_two_windows_follow_then_no_pair_crosses_between_them():
    values = np.array([1.0, -1.0, 5.0, 5.0, -5.0])
    window = np.array([0, 0, 1, 1, 1])
    sums = autocorrelation_sums(values, window, window, 2, (1, 4))
    assert sums[:, 3].tolist() == [1, 2] and sums[:, 6].tolist() == [-1.0, 0.0]
    assert sums[:, 7].tolist() == [0, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isnan(autocorrelation(sums.sum(0)[None])[0, 1])


def test_interval_when_resampled_many_times_then_holds_the_truth_nineteen_times_in_twenty():
    rng, held, repeats = np.random.default_rng(29), 0, 400
    for _ in range(repeats):
        weight = rng.lognormal(0.0, 0.5, 24)
        sums = np.column_stack([weight * rng.normal(2.0, 1.0, 24), weight])
        _, low, high = BlockBootstrap(24, rng, 199).values(sums, lambda total: total[:, 0:1] / total[:, 1:2])
        held += bool(low[0] <= 2.0 <= high[0])
    assert 0.91 <= held / repeats <= 0.985


def test_interval_when_there_is_one_half_hour_then_is_infinite():
    _, low, high = BlockBootstrap(1, np.random.default_rng(0)).values(np.array([[4.0, 2.0]]), lambda s: s[:, 0:1])
    assert low[0] == -np.inf and high[0] == np.inf


def test_power_law_when_a_bin_is_negative_by_noise_then_still_fits_and_needs_three_bins():
    x = np.array([[1.0, 2.0, 4.0, 8.0]])
    y = 3.0 * x**0.7
    assert power_law(x, y, np.ones_like(x))[0] == pytest.approx(0.7, abs=0.005)
    y[0, 0] = -0.1
    assert np.isfinite(power_law(x, y, np.array([[0.01, 1.0, 1.0, 1.0]]))[0])
    assert np.isnan(power_law(x, y, np.array([[0.0, 0.0, 1.0, 1.0]]))[0])


def test_compare_when_intervals_meet_or_not_or_are_missing_then_says_so():
    ts_ns, windows = every_second(6)
    one = book_of(ts_ns, 100, 101, 10, np.full(len(ts_ns), 3), chain(np.random.default_rng(1), len(ts_ns), 0.8))
    other = book_of(ts_ns, 100, 102, 10, np.full(len(ts_ns), 3), chain(np.random.default_rng(2), len(ts_ns), 0.8))
    source, simulated = measure([(one, windows)]), measure([(other, windows)])
    verdict = {row.source.key: row.verdict for row in compare(source, simulated)}
    assert verdict["spread_mean"] == DIFFER and verdict["trade_signs_1"] == AGREE
    assert verdict["depth_second"] == UNKNOWN
    difference = {row.source.key: row.difference for row in compare(source, simulated)}
    assert difference["spread_mean"] == pytest.approx(1.0)


def test_measure_when_run_twice_with_one_seed_then_gives_the_same_numbers_and_reports_each_step():
    book, windows = planted_impact(np.random.default_rng(31), 2, 0.5)
    steps: list[int] = []
    first = facts_json(measure([(book, windows)] * 2, seed=4, draws=199, step=steps.append))
    assert first == facts_json(measure([(book, windows)] * 2, seed=4, draws=199))
    assert steps == list(range(1, len(first) + 1))
    assert first["volume_of_day"]["volume_u"]["value"] is not None
    assert all(set(item) == {"value", "low", "high"} for fact in first.values() for item in fact.values())


def test_measure_when_there_is_nothing_to_measure_then_refuses():
    with pytest.raises(InputError, match="at least one day"):
        measure([])
    ts_ns, windows = every_second(1)
    with pytest.raises(InputError, match="no two-sided book"):
        measure([(book_of(ts_ns, 101, 101), windows)])
    with pytest.raises(InputError, match="no two-sided book"):
        measure([(book_of(ts_ns, 100, 101), ((9 * HOUR, 10 * HOUR),))])


def test_measure_when_nothing_ever_trades_then_facts_of_trades_are_not_defined_and_nothing_fails():
    ts_ns, windows = every_second(2)
    found = {item.key: item for fact in measure([(book_of(ts_ns, 100, 101), windows)]) for item in fact.numbers}
    assert not found["response_1"].known and not found["impact_exponent"].known and not found["volume_u"].known
    assert found["spread_mean"].value == pytest.approx(1.0)


def test_snapshots_when_a_book_is_seen_every_so_often_then_trades_between_are_summed_by_side_and_none_is_lost():
    ts_ns = np.array([0, 100, 200, 900, 1_500, 2_000], np.int64)
    book = book_of(ts_ns, [100, 100, 101, 101, 102, 103], 110, 10, [0, 3, 4, 5, 0, 6], [0, 1, 1, -1, 0, 1])
    seen = as_snapshots(book, 1_000)
    assert seen.ts_ns.tolist() == [0, 1_000, 1_000, 1_000, 2_000, 2_000]
    assert seen.trade_sz.tolist() == [0, 5, 7, 0, 6, 0] and seen.trade_side.tolist() == [0, -1, 1, 0, 1, 0]
    assert seen.bid_px[:, 0].tolist() == [100, 100, 100, 101, 101, 103]  # trades stand beside the book before them
    assert seen.trade_px.tolist() == [0, 101, 101, 0, 103, 0]
    assert snapshot_interval_ns(seen) == 1_000
    with pytest.raises(InputError, match="interval of its snapshots"):
        snapshot_interval_ns(book_of(np.zeros(3, np.int64), 100, 101))


def test_snapshots_when_a_long_book_is_seen_then_volume_by_side_is_kept_up_to_the_last_snapshot():
    rng = np.random.default_rng(37)
    ts_ns = np.sort(rng.integers(0, 600 * NS, 5_000))
    ts_ns[0] = 0
    lots, side = rng.integers(0, 9, 5_000), rng.choice([-1, 0, 1], 5_000)
    book = book_of(ts_ns, 100, 101, 10, lots, side)
    seen = as_snapshots(book, NS // 2)
    until = ts_ns <= seen.ts_ns[-1]
    for which in (-1, 0, 1):
        assert seen.trade_sz[seen.trade_side == which].sum() == lots[until & (side == which)].sum()
    assert (np.diff(seen.ts_ns) >= 0).all()
