"""Policies as ONNX graphs that a bundle carries: written node by node, so that equal weights give equal bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError

if TYPE_CHECKING:
    from onnx import NodeProto

    from training.execution.ppo import Weights

MASKED_LOGIT = -1.0e9
"""Logit of a forbidden action: its probability is exactly 0 in float32, and entropy and KL stay finite."""

NORMALISED_LIMIT = 8.0
"""Normalised observations are clamped to plus or minus this many standard deviations."""

OPSET, IR_VERSION = 17, 8
"""Old enough for every ONNX Runtime that serving may run, new enough for these operators."""


def export_policy(weights: "Weights") -> bytes:
    """ONNX model of an execution module's acting part: normaliser, policy network, mask and argmax.

    `weights` as from `training.execution.ppo.weights_of`; what acting does not need is left out. Inputs and outputs are
    those of a bundle's policy. Raises InputError naming a weight that is not finite.
    """
    from onnx import helper

    constants: dict[str, Any] = {"mean": weights["normaliser.mean"], "scale": weights["normaliser.scale"]}
    constants |= {"limit": np.float32(NORMALISED_LIMIT), "minus_limit": np.float32(-NORMALISED_LIMIT)}
    nodes = [
        helper.make_node("Sub", ["observation", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "minus_limit", "limit"], ["layer.in"]),
    ]
    layers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("policy.")})
    value = "layer.in"
    for layer in layers:
        weight, bias = f"policy.{layer}.weight", f"policy.{layer}.bias"
        constants |= {weight: weights[weight], bias: weights[bias]}
        is_last = layer == layers[-1]
        output = "raw_logits" if is_last else f"layer.{layer}"
        nodes.append(helper.make_node("Gemm", [value, weight, bias], [output], transB=1))
        if not is_last:
            nodes.append(helper.make_node("Tanh", [output], [f"{output}.tanh"]))
        value = f"{output}.tanh"
    width, actions = len(weights["normaliser.mean"]), len(weights[f"policy.{layers[-1]}.bias"])
    return masked_policy_model(nodes, constants, "raw_logits", width, actions)


def masked_policy_model(
    nodes: "Sequence[NodeProto]", constants: Mapping[str, NDArray[Any]], raw_logits: str, width: int, actions: int
) -> bytes:
    """Complete `nodes`, which compute `raw_logits` (N, A) from `observation` (N, D), to a bundle's policy model.

    Adds the mask and the argmax (the first of equals), checks the graph, and serialises it deterministically.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    whole: dict[str, Any] = {**constants, "mask.half": np.float32(0.5), "mask.logit": np.float32(MASKED_LOGIT)}
    for name, value in whole.items():
        if not np.isfinite(value).all():
            raise InputError(f"policy weight {name} is not finite: the training diverged; lower learning_rate")
    tail = [
        helper.make_node("Greater", ["action_mask", "mask.half"], ["allowed"]),
        helper.make_node("Where", ["allowed", raw_logits, "mask.logit"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["action"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        [*nodes, *tail],
        "execution_policy",
        [
            helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", width]),
            helper.make_tensor_value_info("action_mask", TensorProto.FLOAT, ["N", actions]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", actions]),
            helper.make_tensor_value_info("action", TensorProto.INT64, ["N"]),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in sorted(whole.items())],
    )
    model = helper.make_model(graph, producer_name="shortfall", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
