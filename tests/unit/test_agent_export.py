import numpy as np
import pytest

from feature_repo.errors import InputError
from serving.contracts.bundle import write_bundle
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from training.execution.agent_config import AgentConfig
from training.execution.static_rule import write_bundle_zero

KINDS = {
    "ppo": {},
    "dqn": {"algorithm": "dqn", "dqn_dueling": False},
    "dqn dueling": {"algorithm": "dqn"},
    "continuous": {"execution": {"actions": "continuous"}},
    "stacked": {"stack": 3},
}
OBSERVATIONS = 100_000


def made(kind, seed=5):
    """A module of this kind with a made-up normaliser, its last layers large enough that actions differ."""
    import torch
    from gymnasium import spaces

    from training.execution.config import ExecutionConfig
    from training.execution.env import action_space
    from training.execution.ppo import new_module

    config = AgentConfig(**KINDS[kind])
    rng, width = np.random.default_rng(3), config.stack * OBSERVATION_SIZE
    mean, scale = (values.astype(np.float32) for values in (rng.normal(size=width), rng.uniform(0.1, 4, width)))
    seen, mask = spaces.Box(-1e6, 1e6, (width,), np.float32), spaces.Box(0.0, 1.0, (len(ACTION_NAMES),), np.float32)
    space = spaces.Dict({"observation": seen, "action_mask": mask})
    module = new_module(space, action_space(ExecutionConfig.from_dict(config.execution)), mean, scale, config, seed)
    with torch.no_grad():  # the small initial output layer would hide differences
        for name, weight in module.policy.named_parameters():
            if weight.dim() == 2 and weight.shape[0] <= len(ACTION_NAMES):
                weight.mul_(100 if "state" not in name else 1)
    return module, config


@pytest.fixture(scope="module")
def module():
    return made("ppo")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_export_when_compared_with_rllib_module_then_actions_are_equal(kind, tmp_path):
    from training.execution.export import export_policy
    from training.execution.ppo import greedy, weights_of

    module, config = made(kind)
    metadata = {**write_bundle_zero(tmp_path / "zero").metadata, "execution": config.execution, "stack": config.stack}
    bundle = write_bundle(tmp_path / "agent", export_policy(weights_of(module)), None, metadata)
    rng = np.random.default_rng(0)
    observation = (rng.normal(size=(OBSERVATIONS, config.stack * OBSERVATION_SIZE)) * 3).astype(np.float32)
    mask = (rng.random((OBSERVATIONS, len(ACTION_NAMES))) < 0.5).astype(np.float32)
    mask[:, 0] = np.where(mask.any(axis=1), mask[:, 0], 1)
    actions, wanted = bundle.decide(observation, mask), greedy(module)(observation, mask)
    assert actions.dtype == wanted.dtype
    if kind == "continuous":
        np.testing.assert_allclose(actions, wanted, atol=2e-6)
        assert (np.quantile(actions, 0.95, axis=0) - np.quantile(actions, 0.05, axis=0) > 0.3).all()
    else:
        np.testing.assert_array_equal(actions, wanted)
        assert len(np.unique(actions)) == len(ACTION_NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_export_when_read_back_then_a_module_starts_from_the_same_policy(kind, tmp_path):
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of
    from training.execution.warm_start import start_from

    module, config = made(kind)
    metadata = {**write_bundle_zero(tmp_path / "zero").metadata, "execution": config.execution, "stack": config.stack}
    write_bundle(tmp_path / "agent", export_policy(weights_of(module)), None, metadata)
    other, _ = made(kind, seed=6)
    assert export_policy(weights_of(other)) != export_policy(weights_of(module))
    start_from(other, tmp_path / "agent")
    assert export_policy(weights_of(other)) == export_policy(weights_of(module))


def test_export_when_a_module_of_another_size_starts_from_it_then_names_the_weight(module, tmp_path):
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of
    from training.execution.warm_start import start_from

    metadata = dict(write_bundle_zero(tmp_path / "zero").metadata)
    write_bundle(tmp_path / "agent", export_policy(weights_of(module)), None, metadata)
    with pytest.raises(InputError, match="its settings"):
        start_from(made("dqn dueling")[0], tmp_path / "agent")


def test_bundle_when_it_sees_a_history_then_its_decider_keeps_that_of_each_parent(tmp_path):
    from serving.contracts.observation import PRIVATE_NAMES
    from training.execution.export import export_policy
    from training.execution.ppo import weights_of

    module, config = made("stacked")
    metadata = {**write_bundle_zero(tmp_path / "zero").metadata, "stack": config.stack}
    bundle = write_bundle(tmp_path / "agent", export_policy(weights_of(module)), None, metadata)
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(5, 40, OBSERVATION_SIZE)).astype(np.float32)
    seen[:, :, PRIVATE_NAMES.index("time_left_fraction")] = 0.5
    seen[0, :, PRIVATE_NAMES.index("time_left_fraction")] = 1.0
    seen[3, :7, PRIVATE_NAMES.index("time_left_fraction")] = 1.0  # seven parents end, and others begin
    mask = np.ones((40, len(ACTION_NAMES)), np.float32)
    decide = bundle.decider()
    answers = [decide(row, mask) for row in seen]
    for t, past in ((0, (0, 0, 0)), (1, (0, 0, 1)), (4, (2, 3, 4))):
        wanted = bundle.decide(np.concatenate([seen[i] for i in past], axis=1), mask)
        np.testing.assert_array_equal(answers[t][7:], wanted[7:])
    fresh = bundle.decide(np.tile(seen[3, :7], (1, 3)), mask[:7])
    np.testing.assert_array_equal(answers[3][:7], fresh)


@pytest.mark.parametrize("kind", ["ppo", "continuous"])
def test_module_when_it_acts_then_its_log_probabilities_are_those_it_judges_by(kind):
    import torch

    module, _ = made(kind)
    generator = torch.Generator().manual_seed(0)
    observation, mask = torch.randn(4_000, OBSERVATION_SIZE), torch.ones(4_000, len(ACTION_NAMES))
    mask[:, 2] = 0.0
    actions, logp = module.act(observation, mask, True, generator, 0)
    inputs = module.forward_train({"obs": {"observation": observation, "action_mask": mask}})["action_dist_inputs"]
    judged, entropy = module.judge(inputs, actions)
    torch.testing.assert_close(judged, logp)
    if kind == "continuous":
        shapes = (1.0 + torch.nn.functional.softplus(inputs)).chunk(2, dim=1)
        beta = torch.distributions.Beta(*shapes)
        torch.testing.assert_close(entropy, (beta.entropy() + np.log(2.0)).sum(dim=1), atol=1e-4, rtol=1e-4)
        assert ((actions >= -1.0) & (actions <= 1.0)).all()
    else:
        assert not (actions == 2).any()
        torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=inputs).entropy())


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
        ({"algorithm": "sac"}, "sac"),
        ({"algorithm": "dqn", "execution": {"actions": "continuous"}}, "discrete"),
        ({"stack": 0}, "stack is 0"),
        ({"cvar_weight": 2.0}, "cvar_weight 2.0"),
        ({"cvar_weight": 0.5, "gamma": 0.9}, "gamma 1"),
        ({"variants": ({"actions": "continuous"},)}, "variants"),
        ({"variants": ({"lots": 10},), "curriculum": (0.5,)}, "curriculum"),
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
