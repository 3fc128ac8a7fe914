import json

import numpy as np
import pytest

from serving.contracts.bundle import BundleError, BundleInputError, bundle_sha256, load_bundle, write_bundle
from serving.contracts.observation import ACTION_NAMES, CROSS, OBSERVATION_NAMES, OBSERVATION_SIZE, PLACE, WAIT
from training.execution.static_rule import static_rule, static_rule_onnx, write_bundle_zero


@pytest.fixture
def bundle(tmp_path):
    return write_bundle_zero(tmp_path / "zero")


def observations(count, seed=0):
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(count, OBSERVATION_SIZE)).astype(np.float32)
    observation[:, OBSERVATION_NAMES.index("opposite_queue_share")] = rng.random(count)
    mask = (rng.random((count, len(ACTION_NAMES))) < 0.6).astype(np.float32)
    mask[:, WAIT] = 1
    return observation, mask


def test_bundle_zero_when_written_twice_then_bytes_are_equal(tmp_path):
    first, second = write_bundle_zero(tmp_path / "a"), write_bundle_zero(tmp_path / "b")
    assert first.sha256 == second.sha256 == bundle_sha256(tmp_path / "b")
    assert first.kind == "static"


def test_bundle_zero_when_asked_then_acts_as_the_rule(bundle):
    observation, mask = observations(20_000)
    np.testing.assert_array_equal(bundle.decide(observation, mask), static_rule(observation, mask))
    assert set(np.unique(bundle.decide(observation, mask))) == {WAIT, PLACE, CROSS}


@pytest.mark.parametrize(
    "share, allowed, wanted",
    [
        (0.1, (1, 1, 1, 1), CROSS),
        (0.2, (1, 1, 1, 1), PLACE),
        (0.1, (1, 1, 0, 0), PLACE),
        (0.9, (1, 0, 1, 1), WAIT),
        (0.1, (1, 0, 0, 1), CROSS),
    ],
)
def test_bundle_zero_when_queue_thins_then_crosses_else_rests(bundle, share, allowed, wanted):
    observation = np.zeros((1, OBSERVATION_SIZE), dtype=np.float32)
    observation[0, OBSERVATION_NAMES.index("opposite_queue_share")] = share
    assert bundle.decide(observation, np.array([allowed], dtype=np.float32)).tolist() == [wanted]


def test_bundle_when_observation_is_not_finite_then_names_the_element(bundle):
    observation, mask = observations(3)
    observation[1, 4] = np.nan
    with pytest.raises(BundleInputError, match=f"{OBSERVATION_NAMES[4]} of row 1 is nan"):
        bundle.decide(observation, mask)


@pytest.mark.parametrize("fault", ["width", "dtype", "mask width", "mask value", "no action", "no rows match"])
def test_bundle_when_input_is_malformed_then_refuses(bundle, fault):
    observation, mask = observations(2)
    if fault == "width":
        observation = observation[:, :-1]
    elif fault == "dtype":
        observation = observation.astype(np.float64)
    elif fault == "mask width":
        mask = mask[:, :-1]
    elif fault == "mask value":
        mask[0, 0] = 0.5
    elif fault == "no action":
        mask[1] = 0
    else:
        mask = mask[:1]
    with pytest.raises(BundleInputError):
        bundle.decide(observation, mask)


@pytest.mark.parametrize("name", ["policy.onnx", "metadata.json"])
def test_bundle_when_a_file_is_absent_then_names_it(bundle, name):
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["weights.pkl", "policy.py"])
def test_bundle_when_a_foreign_file_is_inside_then_refuses(bundle, name):
    (bundle.folder / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle.folder)


def test_bundle_when_a_file_is_a_link_then_refuses(bundle, tmp_path):
    real = tmp_path / "elsewhere.onnx"
    (bundle.folder / "policy.onnx").rename(real)
    (bundle.folder / "policy.onnx").symlink_to(real)
    with pytest.raises(BundleError, match="plain files"):
        load_bundle(bundle.folder)


@pytest.mark.parametrize("key", ["observation_names", "action_names"])
def test_bundle_when_specs_differ_then_names_the_first_difference(bundle, key):
    path = bundle.folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata[key][2] = "something_else"
    path.write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match=rf"{key}\[2\] is 'something_else'"):
        load_bundle(bundle.folder)


@pytest.mark.parametrize("change", [{"format_version": 99}, {"training_days": "x"}, {"versions": None}])
def test_bundle_when_metadata_is_of_another_form_then_refuses(bundle, change):
    path = bundle.folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=next(iter(change))):
        load_bundle(bundle.folder)


def test_bundle_when_policy_is_cut_off_then_names_the_file(bundle):
    path = bundle.folder / "policy.onnx"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"policy\.onnx"):
        load_bundle(bundle.folder)


def test_bundle_when_signal_has_other_ports_then_refuses(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"signal\.onnx"):
        write_bundle(tmp_path / "new", static_rule_onnx(), static_rule_onnx(), bundle.metadata)


def test_bundle_when_folder_is_taken_then_is_not_overwritten(bundle):
    with pytest.raises(BundleError, match="never changed"):
        write_bundle(bundle.folder, static_rule_onnx(), None, bundle.metadata)
