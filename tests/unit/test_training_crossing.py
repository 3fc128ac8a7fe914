"""When a validation cost falls below TWAP passive's: which update, after how long, and where that is not known."""

import pytest

from training.evaluation.plots import learning_curve
from training.execution.crossing import Stopwatch, first_below
from training.execution.ppo import Update


def curve(*costs):
    return [Update(i, 100 * i, None, None, None, cost) for i, cost in enumerate(costs)]


def test_first_update_below_is_the_first_validated_one_that_is_cheaper():
    assert first_below(curve(0.5, None, 0.3, 0.1, 0.4), 0.3).update == 3
    assert first_below(curve(0.5, None, 0.3), 0.3) is None


def test_times_count_what_seeds_share_to_each_and_say_nothing_of_a_resumed_one():
    clock = Stopwatch()
    clock.shared = (10.0, 4.0)
    for seed, resumed in ((7, False), (11, True)):
        clock.seeds.append({"seed": seed, "resumed": resumed, "updates": [(1.0, 1.0), (2.0, 1.5), (9.0, 3.0)]})
    found = clock.times([curve(0.5, 0.2, 0.1)] * 2, 0.3)
    fresh, resumed = found["seeds"]
    assert fresh["below_at_env_steps"] == resumed["below_at_env_steps"] == 100
    assert (fresh["below_after_wall_s"], fresh["below_after_cpu_s"]) == (12.0, 5.5)
    assert (resumed["below_after_wall_s"], resumed["below_after_cpu_s"]) == (None, None)
    assert fresh["wall_s"] == 19.0 and found["preparation_wall_s"] == 10.0


def test_stopwatch_marks_updates_of_the_seed_that_began_last():
    clock = Stopwatch()
    clock.begin(7, False)
    clock.mark()
    clock.begin(11, False)
    clock.mark()
    clock.mark()
    assert [len(run["updates"]) for run in clock.seeds] == [1, 2]
    assert clock.shared[0] >= 0.0


@pytest.mark.parametrize(("passive", "stars"), [(0.3, 1), (0.05, 0), (None, 0)])
def test_learning_curve_shows_twap_passive_and_stars_where_a_seed_is_first_below(passive, stars):
    figure = learning_curve({"seed 7": ([0, 100, 200], [0.5, 0.2, 0.1])}, passive)
    starred = [trace for trace in figure.data if trace.marker.symbol == "star"]
    assert len(starred) == stars and len(figure.layout.shapes) == (passive is not None)
    if stars:
        assert (starred[0].x, starred[0].y) == ((100,), (0.2,))
