import numpy as np
import pytest

from feature_repo.errors import InputError
from serving.contracts.bundle import write_bundle
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from training.execution.agent_config import AgentConfig
from training.execution.static_rule import write_bundle_zero


@pytest.fixture(scope="module")
def module():
    from gymnasium import spaces

    from training.execution.env import observation_space
    from training.execution.ppo import new_module

    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=OBSERVATION_SIZE), rng.uniform(0.1, 4, OBSERVATION_SIZE)
    space = observation_space()
    made = new_module(
        space, spaces.Discrete(4), mean.astype(np.float32), scale.astype(np.float32), AgentConfig(), seed=5
    )
    import torch

    with torch.no_grad():  # the small initial output layer would hide differences
        made.policy[-1].weight.mul_(100)
    return made


def test_export_when_compared_with_rllib_module_then_actions_are_equal(module, tmp_path):
    from training.execution.export import export_policy
    from training.execution.ppo import greedy, weights_of

    metadata = dict(write_bundle_zero(tmp_path / "zero").metadata)
    bundle = write_bundle(tmp_path / "agent", export_policy(weights_of(module)), None, metadata)
    rng = np.random.default_rng(0)
    observation = (rng.normal(size=(20_000, OBSERVATION_SIZE)) * 3).astype(np.float32)
    mask = (rng.random((20_000, len(ACTION_NAMES))) < 0.5).astype(np.float32)
    mask[:, 0] = np.where(mask.any(axis=1), mask[:, 0], 1)
    actions = bundle.decide(observation, mask)
    np.testing.assert_array_equal(actions, greedy(module)(observation, mask))
    assert len(np.unique(actions)) == len(ACTION_NAMES)


def test_export_when_repeated_then_bytes_are_equal(module):
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of

    assert export_policy(weights_of(module)) == export_policy(weights_of(module))


def test_export_when_a_weight_is_not_finite_then_refuses(module):
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of

    weights = weights_of(module)
    weights["policy.0.bias"][0] = np.nan
    with pytest.raises(InputError, match=r"policy\.0\.bias is not finite"):
        export_policy(weights)


def test_module_when_actions_are_masked_then_their_probability_is_zero_and_entropy_finite(module):
    import torch

    observation = torch.zeros(2, OBSERVATION_SIZE)
    mask = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 1, 0]])
    distribution = torch.distributions.Categorical(logits=module.masked_logits(observation, mask))
    assert (distribution.probs[mask == 0] == 0).all()
    assert torch.isfinite(distribution.entropy()).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"env_steps": 0}, "env_steps is 0"),
        ({"minibatch_steps": 10**6}, "minibatch_steps 1000000"),
        ({"execution": {"no_such": 1}}, "no_such"),
        ({"warm_start_confidence": 1.0}, "warm_start_confidence"),
    ],
)
def test_config_when_a_setting_cannot_train_then_names_it(change, words):
    with pytest.raises(InputError, match=words):
        AgentConfig(**change)


def test_config_when_written_as_json_then_reads_back():
    config = AgentConfig.full(("2024-01-02",))
    assert AgentConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError, match="no_such"):
        AgentConfig.from_json({"no_such": 1})
