"""Bundles for tests of serving: random networks of either action set, with a history and a signal model or without."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from feature_repo.pipeline.kernels import SIGNAL_V1
from serving.contracts.bundle import Bundle, write_bundle
from serving.contracts.observation import FORECAST_HORIZONS_S, OBSERVATION_SIZE
from training.execution.config import ExecutionConfig
from training.execution.export import export_policy


def random_bundle(
    folder: Path, seed: int = 0, stack: int = 1, actions: str = "discrete", window: int = 0, **execution: Any
) -> Bundle:
    """A PPO-like bundle with random weights; `window` rows of signal features give it forecasts."""
    rng = np.random.default_rng(seed)
    width = stack * OBSERVATION_SIZE
    outputs = 4
    weights = {
        "normaliser.mean": np.zeros(width, np.float32),
        "normaliser.scale": np.full(width, 5.0, np.float32),
        "policy.0.weight": rng.normal(0, 0.3, (16, width)).astype(np.float32),
        "policy.0.bias": rng.normal(0, 0.3, 16).astype(np.float32),
        "policy.2.weight": rng.normal(0, 1.0, (outputs, 16)).astype(np.float32),
        "policy.2.bias": rng.normal(0, 0.3, outputs).astype(np.float32),
    }
    if actions == "continuous":
        weights |= {"action_low": np.full(2, -1, np.float32), "action_span": np.full(2, 2, np.float32)}
    metadata = {
        "kind": "ppo",
        "stack": stack,
        "execution": ExecutionConfig(**{"actions": actions, **execution}).to_dict(),
        "feature_names": list(SIGNAL_V1) if window else [],
        "horizons_s": list(FORECAST_HORIZONS_S) if window else [],
        "seed": seed,
        "training_days": [],
        "data_fingerprint": None,
        "versions": {},
    }
    signal = linear_signal(rng, window, len(SIGNAL_V1)) if window else None
    return write_bundle(folder, export_policy(weights), signal, metadata)


def linear_signal(rng: np.random.Generator, window: int, features: int) -> bytes:
    """A signal model: clipped features times random weights, summed over the window."""
    weights = rng.normal(0, 0.2, (window * features, len(FORECAST_HORIZONS_S))).astype(np.float32)
    constants = {"flat": np.array([-1, window * features]), "weights": weights}
    constants |= {"low": np.float32(-3), "high": np.float32(3)}
    nodes = [
        helper.make_node("Clip", ["features", "low", "high"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["forecast_bps"]),
    ]
    ports = [("features", ["N", window, features]), ("forecast_bps", ["N", len(FORECAST_HORIZONS_S)])]
    first, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "signal", [first], [last], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString(deterministic=True)
