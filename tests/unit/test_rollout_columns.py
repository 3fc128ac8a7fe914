import numpy as np
import pytest
from rollouts import ACTIONS, made_up

from serving.contracts.observation import OBSERVATION_SIZE
from training.execution.agent_config import AgentConfig


@pytest.fixture(scope="module")
def learners():
    """Our learner and RLlib's own, with equal weights; gamma and lambda below 1 so that both matter."""
    from gymnasium import spaces
    from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
    from ray.rllib.core import DEFAULT_MODULE_ID

    from training.execution.env import observation_space
    from training.execution.ppo import new_module, ppo_config

    config = AgentConfig(gamma=0.97, gae_lambda=0.9)
    mean, scale = np.zeros(OBSERVATION_SIZE, np.float32), np.ones(OBSERVATION_SIZE, np.float32)
    module = new_module(observation_space(), spaces.Discrete(ACTIONS), mean, scale, config, 5)
    found = []
    for kind in (None, PPOTorchLearner):
        settings = ppo_config(lambda count, seed: None, module, config, 1)
        if kind is not None:
            settings = settings.training(learner_class=kind)
        learner = settings.build_learner(spaces={DEFAULT_MODULE_ID: (module.observation_space, module.action_space)})
        learner.module[DEFAULT_MODULE_ID].load_state_dict(module.state_dict())
        found.append(learner)
    return found


def batch_of(learner, episodes):
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.learner.training_data import TrainingData

    return learner._make_batch_if_necessary(TrainingData(episodes=episodes)).policy_batches[DEFAULT_MODULE_ID]


@pytest.mark.ray
@pytest.mark.parametrize("same_step", [False, True])
def test_advantages_when_compared_with_rllib_on_the_same_episodes_then_equal(learners, same_step):
    ours, stock = learners
    rollout = made_up(same_step=same_step)
    mine, theirs = batch_of(ours, [rollout]), batch_of(stock, list(rollout.episodes()))
    real = theirs["loss_mask"].numpy()
    rows, columns = np.nonzero(rollout.chosen)
    order = np.lexsort((rows, columns))  # RLlib's batch has one sub-environment after the other
    targets = theirs["value_targets"].numpy()[real]
    np.testing.assert_allclose(mine["value_targets"].numpy()[order], targets, atol=1e-5)
    np.testing.assert_array_equal(mine["actions"].numpy()[order], theirs["actions"].numpy()[real])
    # RLlib standardises over artificial steps too: what is left after both is one affine map.
    a, b = mine["advantages"].numpy()[order].astype(float), theirs["advantages"].numpy()[real].astype(float)
    slope, offset = np.polyfit(b, a, 1)
    np.testing.assert_allclose(slope * b + offset, a, atol=1e-5)
    np.testing.assert_allclose([a.mean(), a.std()], [0.0, 1.0], atol=1e-5)


@pytest.mark.ray
def test_loss_when_compared_with_rllib_on_the_same_batch_then_equal(learners):
    import torch
    from ray.rllib.core import DEFAULT_MODULE_ID

    ours, stock = learners
    batch = dict(batch_of(ours, [made_up()]))
    batch["action_dist_inputs"] = torch.randn(len(batch["actions"]), ACTIONS)
    gradients = []
    for learner in (ours, stock):
        learner._left = 0
        out = learner.module.forward_train({DEFAULT_MODULE_ID: batch})
        loss = learner.compute_losses(fwd_out=out, batch={DEFAULT_MODULE_ID: batch})
        found = learner.compute_gradients(loss)
        gradients.append([value.detach().clone() for value in found.values()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_advantages_when_a_rollout_is_cut_among_learners_then_no_step_is_lost_or_changed():
    rollout = made_up(length=21, n=4)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(22, 4)).astype(np.float32)
    whole = rollout.gae(values, np.zeros(0, np.float32), 0.9, 0.8)
    first, second = rollout[:30], rollout.slice(slice(30, None), len_lookback_buffer=1)
    assert (len(first), len(second)) == (30, len(rollout) - 30)
    parts = []
    for part in (first, second):
        columns = [int(np.flatnonzero((rollout.observation[0] == row).all(axis=1))[0]) for row in part.observation[0]]
        found = part.gae(values[:, columns], np.zeros(0, np.float32), 0.9, 0.8)
        for name, wanted in zip(found._fields, whole, strict=True):
            np.testing.assert_array_equal(getattr(found, name), wanted[:, columns])
        parts.append({(t, columns[n]) for t, n in np.argwhere(part.chosen)})
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {(t, n) for t, n in np.argwhere(rollout.chosen)}


def test_advantages_when_gamma_and_lambda_are_one_then_targets_are_what_followed():
    rollout = made_up(length=30, n=3)
    values = np.random.default_rng(2).normal(size=(31, 3)).astype(np.float32)
    targets = rollout.gae(values, np.zeros(0, np.float32), 1.0, 1.0).targets
    for n in range(3):
        for t in np.flatnonzero(rollout.valid[:, n]):
            total, at = 0.0, t
            while True:
                total += float(rollout.rewards[at, n])
                if rollout.terminated[at, n]:
                    break
                if rollout.truncated[at, n] or at == 29:
                    total += float(values[at + 1, n])
                    break
                at += 1
            assert targets[t, n] == pytest.approx(total, abs=1e-5)


def test_minibatches_when_iterated_then_every_step_comes_once_an_epoch():
    import torch
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    from training.execution.learners import Minibatches

    columns = {"actions": torch.arange(1_003), "obs": {"observation": torch.arange(1_003)[:, None]}}
    batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, 1_003)
    found = [part.policy_batches[DEFAULT_MODULE_ID] for part in Minibatches(batch, 250, 2, 0, torch.Generator())]
    assert len(found) == 8
    assert {len(part["actions"]) for part in found} == {250, 251}
    for epoch in (found[:4], found[4:]):
        assert torch.cat([part["actions"] for part in epoch]).sort().values.tolist() == list(range(1_003))
    assert all((part["obs"]["observation"][:, 0] == part["actions"]).all() for part in found)
    assert len(list(Minibatches(batch, 250, 2, 5, torch.Generator()))) == 5
