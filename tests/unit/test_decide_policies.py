import asyncio

import numpy as np
import pytest
from policy_bundles import random_bundle

from serving.contracts.observation import OBSERVATION_NAMES, OBSERVATION_SIZE
from serving.decide.local import LocalPolicies
from serving.decide.protocol import DecideError
from training.execution.static_rule import write_bundle_zero

EVERYTHING = np.ones(4, np.float32)


def ask(bundle, observation, mask=EVERYTHING):
    return asyncio.run(LocalPolicies.of(bundle).decide(bundle.sha256, observation, mask))


def test_local_policies_when_asked_then_acts_as_the_bundle_does(tmp_path):
    bundle = random_bundle(tmp_path / "bundle", stack=3)
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(50):
        observation = rng.normal(size=3 * OBSERVATION_SIZE).astype(np.float32)
        mask = (rng.random(4) < 0.6).astype(np.float32)
        mask[0] = 1
        found = ask(bundle, observation, mask)
        seen.add(found.action)
        assert found.action == bundle.decide(observation[None], mask[None])[0]
        assert found.action == int(np.argmax(found.distribution))
        assert sum(found.distribution) == pytest.approx(1.0)
        assert all(p == 0.0 for p, allowed in zip(found.distribution, mask, strict=True) if not allowed)
    assert len(seen) > 1


def test_local_policies_when_continuous_then_the_action_is_the_mean_of_the_beta_densities(tmp_path):
    bundle = random_bundle(tmp_path / "bundle", actions="continuous")
    observation = np.random.default_rng(3).normal(size=OBSERVATION_SIZE).astype(np.float32)
    found = ask(bundle, observation, None)
    alpha, beta = np.array(found.distribution[:2]), np.array(found.distribution[2:])
    np.testing.assert_allclose(found.action, 2 * alpha / (alpha + beta) - 1, atol=1e-6)
    assert all(shape > 1 for shape in found.distribution)


def test_local_policies_when_listed_then_say_what_one_must_know_to_ask(tmp_path):
    champion = random_bundle(tmp_path / "one", stack=4, window=6, decisions_per_slice=3)
    challenger = write_bundle_zero(tmp_path / "zero")
    policies = asyncio.run(LocalPolicies.of(champion, challenger).policies())
    assert policies.champion.stack == 4 and policies.champion.signal_window == 6 and policies.champion.signals
    assert policies.champion.execution["decisions_per_slice"] == 3
    assert policies.challenger.kind == "static" and not policies.challenger.signals
    assert policies.find(challenger.sha256) == policies.challenger
    assert policies.find("0" * 64) is None


def faulty(kind):
    observation, mask = np.zeros(OBSERVATION_SIZE, np.float32), EVERYTHING.copy()
    if kind == "nan":
        observation[2] = np.nan
    elif kind == "infinite":
        observation[2] = np.inf
    elif kind == "short":
        observation = observation[:-1]
    elif kind == "all masked":
        mask[:] = 0
    elif kind == "mask value":
        mask[1] = 2
    elif kind == "mask length":
        mask = mask[:3]
    else:
        mask = None
    return observation, mask


@pytest.mark.parametrize(
    "kind, says",
    [
        ("nan", f"{OBSERVATION_NAMES[2]} of row 0 is nan"),
        ("infinite", f"{OBSERVATION_NAMES[2]} of row 0 is inf"),
        ("short", str(OBSERVATION_SIZE)),
        ("all masked", "allows no action"),
        ("mask value", "other than 0 and 1"),
        ("mask length", "action mask"),
        ("no mask", "action_mask is missing"),
    ],
)
def test_local_policies_when_the_input_must_not_be_acted_on_then_refuse(tmp_path, kind, says):
    with pytest.raises(DecideError, match=says) as caught:
        ask(write_bundle_zero(tmp_path / "zero"), *faulty(kind))
    assert caught.value.reason == "refused"


def test_local_policies_when_asked_for_what_is_not_loaded_then_name_it(tmp_path):
    policies = LocalPolicies.of(write_bundle_zero(tmp_path / "zero"))
    with pytest.raises(DecideError, match="f" * 64) as caught:
        asyncio.run(policies.decide("f" * 64, np.zeros(OBSERVATION_SIZE, np.float32), EVERYTHING))
    assert caught.value.reason == "unknown"


def forecast(bundle, features):
    return asyncio.run(LocalPolicies.of(bundle).forecast(bundle.sha256, features))


def test_forecast_when_asked_then_is_the_signal_models(tmp_path):
    bundle = random_bundle(tmp_path / "bundle", window=6)
    features = np.random.default_rng(0).normal(size=(6, len(bundle.metadata["feature_names"]))).astype(np.float32)
    np.testing.assert_array_equal(forecast(bundle, features), bundle.forecast_bps(features[None])[0])


@pytest.mark.parametrize(
    "fault, says", [("rows", "the signal model takes"), ("nan", "not finite"), ("none", "no signal")]
)
def test_forecast_when_the_input_must_not_be_used_then_refuses(tmp_path, fault, says):
    bundle = random_bundle(tmp_path / "bundle", window=0 if fault == "none" else 6)
    features = np.zeros((5 if fault == "rows" else 6, len(bundle.metadata["feature_names"])), np.float32)
    if fault == "nan":
        features[3, 1] = np.nan
    with pytest.raises(DecideError, match=says):
        forecast(bundle, features)
