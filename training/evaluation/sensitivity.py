"""The markets that a ranking must survive: every world, fill model and strength of impact that the simulator knows.

The headline is one of them. The others are played with the same parents, days and tuned baselines, one thing changed at
a time. Zero latency is shown and decides nothing: no order can be that fast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.evaluation.statistics import ClusterBootstrap, compare

if TYPE_CHECKING:
    from training.execution.config import ExecutionConfig

IMPACT_SCALES = (0.5, 1.0, 1.5)
MOVING_WORLDS = ("impact", "reactive")
"""Worlds in which own orders move the market."""


@dataclass(frozen=True)
class Setting:
    """One market to play the declared comparisons in; `decides`: a ranking must survive it."""

    name: str
    execution: "ExecutionConfig"
    decides: bool = True


def settings_of(execution: "ExecutionConfig") -> list[Setting]:
    """Every setting beside the headline `execution`, one thing changed at a time."""
    from training.execution.config import WORLDS
    from training.market.tape import FILL_MODELS

    found = [
        Setting(f"fill model {name}", replace(execution, fill_model=name))
        for name in FILL_MODELS
        if name != execution.fill_model
    ]
    for world in WORLDS:
        changed = replace(execution, world=world)
        if world == "impact":
            scales = [replace(changed, impact_scale=scale) for scale in IMPACT_SCALES]
            found += [Setting(f"impact world, {_percent(item.impact_scale)}", item) for item in scales]
        elif world != execution.world:
            found.append(Setting(f"{world} world", changed))
    if execution.latency_ns != 0:
        found.append(Setting("zero latency", replace(execution, latency_ns=0), decides=False))
    return [item for item in found if item.execution != execution]


def _percent(scale: float) -> str:
    return "nominal impact" if scale == 1.0 else f"impact {100 * (scale - 1):+.0f}%"


def moves_the_market(execution: "ExecutionConfig") -> bool:
    """Whether own orders move the market under `execution`."""
    return execution.world in MOVING_WORLDS and (execution.world != "impact" or execution.impact_scale > 0)


def with_impact(execution: "ExecutionConfig") -> "ExecutionConfig":
    """`execution` in the world of nominal impact."""
    return replace(execution, world="impact", impact_scale=1.0)


def judge_setting(
    costs: Mapping[str, NDArray[np.float64]],
    instrument_of: NDArray[np.str_],
    agent: str,
    opponents: Mapping[str, str],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
    alpha: float,
) -> dict[str, dict[str, Any]]:
    """By instrument: agent minus opponent under one setting, bps, with its unadjusted interval."""
    found = {}
    for key, opponent in opponents.items():
        here = instrument_of == key
        if not here.any() or agent not in costs:
            continue
        bootstrap = ClusterBootstrap(labels[here], rng, draws)
        item = compare(costs[agent][here], costs[opponent][here], bootstrap, a=agent, b=opponent, alpha=alpha)
        found[key] = {
            "opponent": opponent,
            "agent_mean_bps": float(costs[agent][here].mean()),
            "opponent_mean_bps": float(costs[opponent][here].mean()),
            "mean_diff_bps": item.mean_diff_bps,
            "ci_low": float(item.ci_low) if np.isfinite(item.ci_low) else None,
            "ci_high": float(item.ci_high) if np.isfinite(item.ci_high) else None,
            "verdict": item.verdict,
        }
    return found


def survival(verdict: str, key: str, rows: Sequence[Mapping[str, Any]], played: bool) -> tuple[bool | None, str]:
    """Whether the headline's `verdict` on instrument `key` stands in every deciding setting, and where it does not.

    None where nothing was played or nothing was claimed.
    """
    if not played or verdict == "not established":
        return None, "" if played else "the other worlds and fill models were not played"
    failed = [
        row["name"]
        for row in rows
        if row["decides"] and row["available"] and row["by_instrument"].get(key, {}).get("verdict") != verdict
    ]
    return not failed, ", ".join(failed)


def unavailable(error: InputError) -> dict[str, Any]:
    """What a row says of a setting that these days cannot be played in."""
    return {"available": False, "why_not": str(error), "by_instrument": {}}
