"""Policies as ONNX graphs that a bundle carries: written node by node, so that equal weights give equal bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.observation import ACTION_NAMES

if TYPE_CHECKING:
    from onnx import NodeProto

    from training.execution.ppo import Weights

MASKED_LOGIT = -1.0e9
"""Logit of a forbidden action: its probability is exactly 0 in float32, and entropy and KL stay finite."""

NORMALISED_LIMIT = 8.0
"""Normalised observations are clamped to plus or minus this many standard deviations."""

MASK_WIDTH = len(ACTION_NAMES)

OPSET, IR_VERSION = 17, 8
"""Old enough for every ONNX Runtime that serving may run, new enough for these operators."""


def export_policy(weights: "Weights") -> bytes:
    """ONNX model of an execution module's acting part: normaliser, network, and what makes an action of its output.

    `weights` as from `training.execution.ppo.weights_of`; what acting does not need is left out. Discrete modules end
    in mask and argmax, DQN's too, continuous ones in the mean of their Beta densities. Inputs and outputs are those of
    a bundle's policy. Raises InputError naming a weight that is not finite.
    """
    from onnx import helper

    constants: dict[str, Any] = {"mean": weights["normaliser.mean"], "scale": weights["normaliser.scale"]}
    constants |= {"limit": np.float32(NORMALISED_LIMIT), "minus_limit": np.float32(-NORMALISED_LIMIT)}
    nodes = [
        helper.make_node("Sub", ["observation", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "minus_limit", "limit"], ["seen"]),
    ]
    network = {name: value for name, value in weights.items() if name.startswith("policy.")}
    constants |= network
    width = len(weights["normaliser.mean"])
    if "policy.state.0.weight" in network:
        nodes += _layers(network, "policy.trunk.0", "seen", "trunk.raw")
        nodes.append(helper.make_node("Tanh", ["trunk.raw"], ["trunk"]))
        nodes += _layers(network, "policy.advantage", "trunk", "advantage")
        nodes += _layers(network, "policy.state", "trunk", "state")
        nodes.append(helper.make_node("ReduceMean", ["advantage"], ["advantage.mean"], axes=[1], keepdims=1))
        nodes.append(helper.make_node("Add", ["state", "advantage"], ["worth"]))
        nodes.append(helper.make_node("Sub", ["worth", "advantage.mean"], ["raw_logits"]))
        return masked_policy_model(nodes, constants, "raw_logits", width, len(network["policy.advantage.0.bias"]))
    if "action_low" in weights:
        nodes += _layers(network, "policy", "seen", "parameters")
        constants |= {name: weights[name] for name in ("action_low", "action_span")}
        return _box_policy_model(nodes, constants, width, len(weights["action_low"]))
    nodes += _layers(network, "policy", "seen", "raw_logits")
    last = max(int(name.split(".")[1]) for name in network)
    return masked_policy_model(nodes, constants, "raw_logits", width, len(network[f"policy.{last}.bias"]))


def policy_weights(policy_onnx: bytes) -> "Weights":
    """Weights of an exported policy by the names that its module gives them: the inverse of `export_policy`."""
    import onnx
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(policy_onnx).graph.initializer}
    renamed = {"mean": "normaliser.mean", "scale": "normaliser.scale"}
    return {
        renamed.get(name, name): value.copy()
        for name, value in found.items()
        if name in renamed or name.startswith("policy.")
    }


def _layers(weights: "Weights", prefix: str, value: str, output: str) -> "list[NodeProto]":
    """Nodes of a tanh perceptron `prefix` from `value` to `output`."""
    from onnx import helper

    nodes = []
    found = {name.removeprefix(f"{prefix}.").split(".")[0] for name in weights if name.startswith(f"{prefix}.")}
    layers = sorted(int(item) for item in found)
    for layer in layers:
        is_last = layer == layers[-1]
        out = output if is_last else f"{prefix}.{layer}.out"
        inputs = [value, f"{prefix}.{layer}.weight", f"{prefix}.{layer}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [out], transB=1))
        if not is_last:
            nodes.append(helper.make_node("Tanh", [out], [f"{out}.tanh"]))
        value = f"{out}.tanh"
    return nodes


def _box_policy_model(
    nodes: "Sequence[NodeProto]", constants: Mapping[str, NDArray[Any]], width: int, actions: int
) -> bytes:
    """Complete `nodes`, which compute `parameters` (N, 2K), to a continuous policy: the means within their bounds."""
    from onnx import helper

    # Every policy has the mask as an input; here the environment clamps what it forbids.
    halves: dict[str, Any] = {"first": np.array([0], np.int64), "middle": np.array([actions], np.int64)}
    halves |= {"last": np.array([2 * actions], np.int64), "columns": np.array([1], np.int64), "one": np.float32(1.0)}
    highest = constants["action_low"] + constants["action_span"]
    tail = [
        helper.make_node("Softplus", ["parameters"], ["soft"]),
        helper.make_node("Add", ["soft", "one"], ["shapes"]),
        helper.make_node("Slice", ["shapes", "first", "middle", "columns"], ["alpha"]),
        helper.make_node("Slice", ["shapes", "middle", "last", "columns"], ["beta"]),
        helper.make_node("Add", ["alpha", "beta"], ["total"]),
        helper.make_node("Div", ["alpha", "total"], ["share"]),
        helper.make_node("Mul", ["share", "action_span"], ["above"]),
        helper.make_node("Add", ["above", "action_low"], ["unbounded"]),
        # Rounding may leave the box by one unit in the last place.
        helper.make_node("Min", ["unbounded", "action_high"], ["action"]),
    ]
    outputs = [("parameters", "FLOAT", 2 * actions), ("action", "FLOAT", actions)]
    return _model([*nodes, *tail], {**constants, **halves, "action_high": highest}, width, MASK_WIDTH, outputs)


def masked_policy_model(
    nodes: "Sequence[NodeProto]", constants: Mapping[str, NDArray[Any]], raw_logits: str, width: int, actions: int
) -> bytes:
    """Complete `nodes`, which compute `raw_logits` (N, A) from `observation` (N, D), to a bundle's policy model.

    Adds the mask and the argmax (the first of equals), checks the graph, and serialises it deterministically.
    """
    from onnx import helper

    whole: dict[str, Any] = {**constants, "mask.half": np.float32(0.5), "mask.logit": np.float32(MASKED_LOGIT)}
    tail = [
        helper.make_node("Greater", ["action_mask", "mask.half"], ["allowed"]),
        helper.make_node("Where", ["allowed", raw_logits, "mask.logit"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["action"], axis=1, keepdims=0),
    ]
    outputs = [("logits", "FLOAT", actions), ("action", "INT64", None)]
    return _model([*nodes, *tail], whole, width, actions, outputs)


def _model(
    nodes: "Sequence[NodeProto]",
    constants: Mapping[str, Any],
    width: int,
    mask_width: int,
    outputs: Sequence[tuple[str, str, int | None]],
) -> bytes:
    """The checked, deterministically serialised graph; InputError naming a constant that is not finite."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    for name, value in constants.items():
        if not np.isfinite(value).all():
            raise InputError(f"policy weight {name} is not finite: the training diverged; lower learning_rate")
    graph = helper.make_graph(
        nodes,
        "execution_policy",
        [
            helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", width]),
            helper.make_tensor_value_info("action_mask", TensorProto.FLOAT, ["N", mask_width]),
        ],
        [
            helper.make_tensor_value_info(name, getattr(TensorProto, kind), ["N"] if size is None else ["N", size])
            for name, kind, size in outputs
        ],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in sorted(constants.items())],
    )
    model = helper.make_model(graph, producer_name="shortfall", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
