import numpy as np
import pytest
from rollouts import made_up

from training.execution.replay import ColumnReplayBuffer, SumTree, transitions


def test_sum_tree_when_drawn_from_then_places_come_in_proportion_to_their_weights():
    rng = np.random.default_rng(0)
    tree = SumTree(100)
    weights = np.where(rng.random(100) < 0.3, 0.0, rng.random(100))
    tree.set(np.arange(100), weights)
    assert tree.total == pytest.approx(weights.sum())
    found = tree.find(rng.random(200_000) * tree.total)
    share = np.bincount(found, minlength=100) / 200_000
    assert (share[weights == 0] == 0).all()
    np.testing.assert_allclose(share, weights / weights.sum(), atol=4e-3)
    tree.set(np.array([3, 7]), np.array([5.0, 0.0]))
    assert tree[np.array([3, 7])].tolist() == [5.0, 0.0]
    assert tree.total == pytest.approx(weights.sum() - weights[3] - weights[7] + 5.0)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("same_step", [False, True])
def test_transitions_when_compared_with_a_walk_along_each_episode_then_equal(n_step, same_step):
    rollout, gamma = made_up(length=25, n=4, same_step=same_step), 0.9
    rows = transitions(rollout, n_step, gamma)
    last_seen = {(t, n): seen for t, n, seen, _ in rollout.last_seen}
    for index, (t, n) in enumerate(np.argwhere(rollout.valid)):
        total, at, steps = 0.0, int(t), 0
        while True:
            total += gamma**steps * float(rollout.rewards[at, n])
            steps += 1
            if rollout.ends[at, n] or at == 24 or steps == n_step:
                break
            at += 1
        assert rows["rewards"][index] == pytest.approx(total, abs=1e-5)
        assert rows["steps"][index] == steps
        assert rows["terminated"][index] == rollout.terminated[at, n]
        after = last_seen.get((at, int(n)), rollout.observation[at + 1, n])
        np.testing.assert_array_equal(rows["next_observation"][index], after)


def test_buffer_when_errors_are_known_then_the_surprising_step_is_drawn_most_and_weighs_least():
    buffer = ColumnReplayBuffer(1_000, alpha=1.0, beta=1.0, seed=1)
    buffer.add([made_up(length=50, n=10)])
    assert len(buffer) == made_up(length=50, n=10).valid.sum()
    (sample,) = buffer.sample(64)
    np.testing.assert_allclose(sample.weights, 1.0)
    errors = np.where(np.arange(64) == 5, 100.0, 0.01)
    buffer.update_priorities(errors)
    (again,) = buffer.sample(400)
    same = (again.observation == sample.observation[5]).all(axis=1)
    fresh = 400 * (len(buffer) - 64) / (len(buffer) - 64 + 100.0)
    assert same.sum() == pytest.approx(400 - fresh, abs=3)
    assert again.weights[same].max() == again.weights.min() < again.weights.max() == 1.0


def test_buffer_when_full_then_the_oldest_go_and_state_gives_the_same_samples():
    one, other = ColumnReplayBuffer(100, seed=2), ColumnReplayBuffer(100, seed=3)
    for seed in range(4):
        one.add([made_up(length=15, n=3, seed=seed)])
    assert len(one) == 100
    other.set_state(one.get_state())
    newest = made_up(length=15, n=3, seed=3).observation[:-1].reshape(-1, one.sample(1)[0].observation.shape[1])
    other.sample(1)
    mine, theirs = one.sample(50)[0], other.sample(50)[0]
    for name in ("observation", "rewards", "weights"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    found = (one.sample(2_000)[0].observation[:, None, :4] == newest[None, :, :4]).all(axis=2)
    assert found.any(axis=0).sum() >= made_up(length=15, n=3, seed=3).valid.sum() - 1
