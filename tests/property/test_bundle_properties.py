import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.contracts.bundle import BundleError, bundle_sha256, load_bundle
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from training.execution.static_rule import write_bundle_zero


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle_zero(tmp_path_factory.mktemp("bundle") / "zero")


@given(
    observation=arrays(np.float32, (3, OBSERVATION_SIZE), elements=st.floats(-1e6, 1e6, width=32)),
    mask=arrays(np.int8, (3, len(ACTION_NAMES)), elements=st.integers(0, 1)),
)
@settings(max_examples=100, deadline=None)
def test_bundle_when_deciding_then_never_leaves_the_mask(bundle, observation, mask):
    mask[:, 0] |= ~mask.any(axis=1)
    actions = bundle.decide(observation, mask)
    assert (mask[np.arange(3), actions] == 1).all()


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), name=st.sampled_from(["policy.onnx", "metadata.json"]))
@example(at=12247, bit=0, name="policy.onnx")  # the column that the rule gathers leaves the observation
@settings(max_examples=60, deadline=None)
def test_bundle_when_one_bit_flips_then_sha256_differs_and_loading_never_crashes(bundle, at, bit, name):
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for path in bundle.folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        raw = bytearray((copy / name).read_bytes())
        raw[at % len(raw)] ^= 1 << bit
        (copy / name).write_bytes(raw)
        assert bundle_sha256(copy) != bundle.sha256
        try:
            assert load_bundle(copy).sha256 != bundle.sha256
        except BundleError as error:
            assert str(copy) in str(error)
