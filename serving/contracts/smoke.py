"""The smoke test of a bundle: a few inputs recorded with the answers that they must give, whatever machine runs it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts.observation import ACTION_NAMES, PRIVATE_NAMES, WAIT, observation_bounds

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle

ROWS, CANDIDATES = 8, 256
CLEAR = 1e-3
"""A recorded action must beat the next by this much, relative to its logit: rounding of another machine is far less."""
TOLERANCE = 1e-4
"""Of recorded real numbers, relative and absolute."""
SECTION = "smoke"


def record_smoke(bundle: "Bundle") -> dict[str, Any]:
    """The `smoke` section of a bundle's metadata: drawn observations, masks, actions, and a window with its forecasts.

    Equal models give equal sections.
    """
    rng = np.random.default_rng(0)
    observation, mask = _draw(rng, bundle.stack)
    action = bundle.decide(observation, mask)
    if bundle.action_set == "discrete":
        chosen = _clear_rows(bundle.logits(observation, mask), mask, action)
        observation, mask, action = observation[chosen], mask[chosen], action[chosen]
    section: dict[str, Any] = {
        "observation": _plain(observation[:ROWS]),
        "action_mask": mask[:ROWS].astype(int).tolist(),
        "action": action[:ROWS].tolist() if action.dtype.kind == "i" else _plain(action[:ROWS]),
    }
    if bundle.signal_window:
        shape = (bundle.signal_window, len(bundle.metadata["feature_names"]))
        features = rng.normal(size=shape).round(3).astype(np.float32)
        section["features"] = _plain(features)
        section["forecast_bps"] = _plain(bundle.forecast_bps(features[None]))[0]
    return section


def smoke_fault(bundle: "Bundle") -> str | None:
    """What differs from what is recorded, None where nothing does; a bundle from before the section has nothing.

    Raises BundleError where a model refuses what was recorded.
    """
    section: Mapping[str, Any] | None = bundle.metadata.get(SECTION)
    if section is None:
        return None
    try:
        observation = np.array(section["observation"], np.float32)
        mask = np.array(section["action_mask"], np.float32)
        fault = _difference("action", np.array(section["action"]), bundle.decide(observation, mask))
        if fault is None and bundle.signal_window:
            features = np.array(section["features"], np.float32)
            recorded = np.array(section["forecast_bps"])
            fault = _difference("forecast_bps", recorded, bundle.forecast_bps(features[None])[0])
    except (KeyError, TypeError, ValueError) as error:
        return f"{SECTION} of the metadata cannot be read ({error})"
    return fault


def _draw(rng: np.random.Generator, stack: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations with everything private within its bounds, and the rest as if normalised."""
    low, high = observation_bounds()
    private = len(PRIVATE_NAMES)
    drawn = rng.normal(size=(CANDIDATES, stack, len(low)))
    drawn[:, :, :private] = low[:private] + rng.random((CANDIDATES, stack, private)) * (high - low)[:private]
    mask = (rng.random((CANDIDATES, len(ACTION_NAMES))) < 0.7).astype(np.float32)
    mask[:, WAIT] = 1
    rows = np.clip(drawn, low, high).round(3).astype(np.float32)
    return rows.reshape(CANDIDATES, -1), mask


def _clear_rows(logits: NDArray[np.float32], mask: NDArray[np.float32], action: NDArray[Any]) -> NDArray[np.int64]:
    """Rows, in turn of their actions, where something else was allowed and the action stands out clearly."""
    others = np.where(mask > 0, logits, -np.inf).astype(np.float64)
    best = others[np.arange(len(action)), action]
    others[np.arange(len(action)), action] = -np.inf
    margin = best - others.max(axis=1)
    clear = np.flatnonzero(np.isfinite(margin) & (margin > CLEAR * np.maximum(1.0, np.abs(best))))
    rank = np.zeros(len(clear), np.int64)
    for value in np.unique(action[clear]):
        same = action[clear] == value
        rank[same] = np.arange(same.sum())
    return clear[np.argsort(rank, kind="stable")]


def _difference(name: str, recorded: NDArray[Any], found: NDArray[Any]) -> str | None:
    if recorded.shape != found.shape:
        return f"{name} has shape {found.shape}, recorded {recorded.shape}"
    exact = found.dtype.kind == "i"
    same = recorded == found if exact else np.isclose(found, recorded, rtol=TOLERANCE, atol=TOLERANCE)
    if same.all():
        return None
    first = tuple(int(i) for i in np.argwhere(~same)[0])
    return f"{name}{list(first)} is {found[first]}, recorded {recorded[first]}"


def _plain(values: NDArray[Any]) -> list[Any]:
    """Floats as JSON holds them: a float32 comes back as the same float32."""
    return np.asarray(values, np.float64).round(7).tolist()
