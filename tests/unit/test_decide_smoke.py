import json

import pytest
from policy_bundles import random_bundle

from serving.contracts.bundle import load_bundle, write_bundle
from serving.contracts.smoke import smoke_fault
from training.execution.static_rule import write_bundle_zero

KINDS = {
    "static": lambda folder: write_bundle_zero(folder),
    "discrete": lambda folder: random_bundle(folder),
    "continuous": lambda folder: random_bundle(folder, actions="continuous"),
    "stack and signal": lambda folder: random_bundle(folder, stack=3, window=5),
}


def rewrite(folder, change):
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    return load_bundle(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_smoke_when_the_bundle_is_sound_then_it_answers_as_recorded(tmp_path, kind):
    bundle = KINDS[kind](tmp_path / "bundle")
    section = bundle.metadata["smoke"]
    assert len(section["observation"]) == len(section["action_mask"]) == len(section["action"]) == 8
    assert ("forecast_bps" in section) == (bundle.signal_onnx is not None)
    assert smoke_fault(bundle) is None


def test_smoke_of_bundle_zero_then_covers_every_action_that_the_rule_knows(tmp_path):
    assert set(write_bundle_zero(tmp_path / "zero").metadata["smoke"]["action"]) == {0, 1, 3}


def test_smoke_when_the_same_policy_is_written_again_then_bytes_are_equal(tmp_path):
    first, second = (random_bundle(tmp_path / name, stack=3, window=5) for name in "ab")
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("actions", ["discrete", "continuous"])
def test_smoke_when_another_model_stands_behind_the_record_then_says_where_they_differ(tmp_path, actions):
    one = random_bundle(tmp_path / "one", seed=1, actions=actions)
    other = random_bundle(tmp_path / "other", seed=2, actions=actions)
    (one.folder / "policy.onnx").write_bytes(other.policy_onnx)
    assert "recorded" in smoke_fault(load_bundle(one.folder))


def test_smoke_when_the_forecast_differs_then_says_so(tmp_path):
    bundle = random_bundle(tmp_path / "bundle", window=5)

    def change(metadata):
        metadata["smoke"]["forecast_bps"][1] += 0.01

    assert "forecast_bps[1]" in smoke_fault(rewrite(bundle.folder, change))


@pytest.mark.parametrize("key", ["observation", "action", "action_mask"])
def test_smoke_when_the_record_is_malformed_then_says_so(tmp_path, key):
    bundle = write_bundle_zero(tmp_path / "zero")
    changed = rewrite(bundle.folder, lambda metadata: metadata["smoke"].pop(key))
    assert "cannot be read" in smoke_fault(changed)


def test_bundle_when_written_before_there_was_a_smoke_test_then_still_loads(tmp_path):
    bundle = write_bundle_zero(tmp_path / "zero")
    old = rewrite(bundle.folder, lambda metadata: metadata.pop("smoke"))
    assert smoke_fault(old) is None
    assert old.sha256 != bundle.sha256


def test_bundle_when_metadata_of_another_is_given_then_its_smoke_test_is_recorded_anew(tmp_path):
    one = random_bundle(tmp_path / "one", seed=1)
    other = random_bundle(tmp_path / "other", seed=2)
    copy = write_bundle(tmp_path / "copy", other.policy_onnx, None, one.metadata)
    assert copy.metadata["smoke"] == other.metadata["smoke"] != one.metadata["smoke"]
