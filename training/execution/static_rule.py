"""Bundle 0, the first champion: rest at the best price, cross when the opposite queue runs thin; an ONNX graph."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts.bundle import Bundle, write_bundle
from serving.contracts.observation import (
    ACTION_NAMES,
    CROSS,
    FORECAST_HORIZONS_S,
    IMPROVE,
    OBSERVATION_NAMES,
    OPPOSITE_QUEUE_SHARE,
    PLACE,
    REST_DISTANCE_TICKS,
    RESTING,
    WAIT,
)
from training.execution.config import ExecutionConfig
from training.execution.export import masked_policy_model

THIN_SHARE = 0.2
"""The opposite queue is thin below this share of the lots at both best prices. Tuned: of the thresholds of
`evaluation.tuning.TuningGrid` the one that costs least over four instruments together (docs/decide.md)."""

_FORECAST, _MISSING = OBSERVATION_NAMES.index("forecast_10s_bps"), OBSERVATION_NAMES.index("forecast_missing")
_PREFERENCE = {PLACE: 1.0, WAIT: 0.0, CROSS: -1.0, IMPROVE: -2.0}
_THIN_BONUS = 3.0
"""Lifts CROSS above PLACE."""


def static_rule(
    observation: NDArray[np.float32],
    action_mask: NDArray[Any],
    thin_share: float = THIN_SHARE,
    keep_ticks: int = 0,
    chase_bps: float = np.inf,
) -> NDArray[np.int64]:
    """The rule's actions (N,) for `observation` (N, D) and `action_mask` (N, 4).

    The best allowed of: CROSS where the opposite queue is thinner than `thin_share` (0: never), IMPROVE where the
    spread is wide and the forecast of the next ten seconds is there and above `chase_bps` against the parent, PLACE,
    WAIT. With `keep_ticks` it does not follow the best price until that is farther than so many ticks from what rests:
    for an environment in which waiting keeps what rests.
    """
    thin = observation[:, OPPOSITE_QUEUE_SHARE] < np.float32(thin_share)
    crosses = thin & (action_mask[:, CROSS] > 0.5)
    places = action_mask[:, PLACE] > 0.5
    if keep_ticks:
        away = observation[:, REST_DISTANCE_TICKS]
        places &= (observation[:, RESTING] < 0.5) | (away < 0.5) | (away > keep_ticks + 0.5)
    chases = (
        (observation[:, _FORECAST] > chase_bps) & (observation[:, _MISSING] < 0.5) & (action_mask[:, IMPROVE] > 0.5)
    )
    rests = np.where(chases, IMPROVE, np.where(places, PLACE, WAIT))
    return np.where(crosses, CROSS, rests).astype(np.int64)


def static_rule_onnx() -> bytes:
    """The same rule as a bundle's policy model."""
    from onnx import helper

    preference = np.array([[_PREFERENCE[index] for index in range(len(ACTION_NAMES))]], dtype=np.float32)
    bonus = np.zeros_like(preference)
    bonus[0, CROSS] = _THIN_BONUS
    constants: dict[str, Any] = {
        "column": np.array([OPPOSITE_QUEUE_SHARE], dtype=np.int64),
        "thin_share": np.float32(THIN_SHARE),
        "bonus": bonus,
        "preference": preference,
    }
    nodes = [
        helper.make_node("Gather", ["observation", "column"], ["share"], axis=1),
        helper.make_node("Less", ["share", "thin_share"], ["is_thin"]),
        helper.make_node("Cast", ["is_thin"], ["thin"], to=1),
        helper.make_node("MatMul", ["thin", "bonus"], ["lift"]),
        helper.make_node("Add", ["lift", "preference"], ["raw_logits"]),
    ]
    return masked_policy_model(nodes, constants, "raw_logits", len(OBSERVATION_NAMES), len(ACTION_NAMES))


def write_bundle_zero(folder: Path) -> Bundle:
    """Write bundle 0 into the new or empty `folder`; every call gives the same bytes with the same library versions."""
    metadata = {
        "kind": "static",
        "rule": f"rest at the best price; cross when opposite_queue_share < {THIN_SHARE}",
        "execution": ExecutionConfig().to_dict(),
        "feature_names": [],
        "horizons_s": list(FORECAST_HORIZONS_S),
        "seed": None,
        "training_days": [],
        "data_fingerprint": None,
        "versions": {},
    }
    return write_bundle(folder, static_rule_onnx(), None, metadata)
