import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns, random_rows

from feature_repo.errors import InputError
from training.execution.config import ExecutionConfig
from training.execution.parents import check_parents, sample_parents, start_spans
from training.execution.streams import below, new_stream, next_bits


def test_stream_gives_the_published_values_of_splitmix64():
    stream = np.array([1234567], np.uint64)
    assert [int(next_bits(stream)) for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("bound", [1, 2, 7, 6000, 2**32 - 1])
def test_draws_below_a_bound_are_uniform(bound):
    stream = new_stream(np.random.default_rng(bound))
    draws = np.array([below(stream, bound) for _ in range(20_000)])
    assert draws.min() >= 0 and draws.max() < bound
    bins = min(bound, 10)
    counts = np.bincount(draws * bins // bound, minlength=bins)
    expected = np.bincount(np.arange(bound) * bins // bound) / bound * 20_000 if bound < 1e5 else np.full(bins, 2_000.0)
    assert (((counts - expected) ** 2) / expected).sum() < 40.0  # chi squared, 9 degrees: exceeded once in 100,000


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(5)
    short = [row for row in random_rows(rng) if row[0] < open_ns() + 3000 * NS]
    return [make_day(random_rows(rng)), make_day(short, date="2024-01-02")]


def test_parents_are_uniform_over_days_arrival_seconds_and_sides(days):
    config = ExecutionConfig(lots=20)
    parents = sample_parents(days, config, np.random.default_rng(1), 20_000)
    check_parents(days, parents[:500], config)
    assert (parents["lots"] == 20).all() and (parents["horizon_ns"] == config.horizon_ns).all()
    for name, values in (("day", (0, 1)), ("side", (-1, 1))):
        shares = [np.mean(parents[name] == value) for value in values]
        assert shares == pytest.approx([0.5, 0.5], abs=0.02)
    for index, day in enumerate(days):
        ((_, first, last),) = start_spans(day, config)
        starts = parents["start_ns"][parents["day"] == index]
        assert starts.min() >= first and starts.max() <= last and not ((starts - first) % NS).any()
        quarters = np.histogram(starts, 4, (first, last + 1))[0] / len(starts)
        assert quarters == pytest.approx(np.full(4, 0.25), abs=0.02)


def test_parents_of_one_generator_state_are_the_same_bytes_and_move_it_on(days):
    config = ExecutionConfig(lots=20)
    one, other = np.random.default_rng(9), np.random.default_rng(9)
    first = sample_parents(days, config, one, 50)
    assert first.tobytes() == sample_parents(days, config, other, 50).tobytes()
    assert first.tobytes() != sample_parents(days, config, one, 50).tobytes()


def test_sampling_when_no_window_has_room_then_says_so(days):
    with pytest.raises(InputError, match="no session window has room for a horizon of 7200 s"):
        sample_parents(days, ExecutionConfig(horizon_s=7200), np.random.default_rng(0), 1)
