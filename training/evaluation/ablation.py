"""What a part of an agent is worth: agents trained with it and without it, by seed, on the same parents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.evaluation.config import EvaluationConfig
from training.evaluation.players import BundlePolicy
from training.evaluation.runs import play
from training.evaluation.scene import Scene, open_scene
from training.evaluation.statistics import ClusterBootstrap, Comparison, cluster_labels, compare

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.market.day import MarketDay

WITH, WITHOUT = "with signals", "without signals"


def ablate_signals(
    features_dir: Path,
    forecasts_dir: Path | None,
    seeing: Sequence[Path],
    blind: Sequence[Path],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Play bundles trained with the stored forecasts and without them, one of each for every training seed.

    Both meet the same parents of the test days; to the blind ones forecasts are flagged missing, as in their training.
    Pairs are of one seed each, and the seed is a level of the bootstrap where there are several. Returns `seeds` (a row
    each), `by_instrument` and `all` (mean costs, difference with minus without, its 95% interval, verdict), JSON-able.
    Raises InputError where the two sides do not have the same seeds, and what `open_scene` raises.
    """
    from serving.contracts.bundle import load_bundle

    sides = {WITH: [load_bundle(folder) for folder in seeing], WITHOUT: [load_bundle(folder) for folder in blind]}
    seeds = {name: [bundle.metadata["seed"] for bundle in bundles] for name, bundles in sides.items()}
    if seeds[WITH] != seeds[WITHOUT] or not seeds[WITH]:
        raise InputError(f"training seeds {seeds[WITH]} with signals, {seeds[WITHOUT]} without: give both the same")
    named = {f"{name}, seed {item.metadata['seed']}": item for name, found in sides.items() for item in found}
    agent = f"{WITH}, seed {seeds[WITH][0]}"
    scene = open_scene(features_dir, forecasts_dir, named, replace(config, agent=agent))
    costs = {
        WITH: _costs(scene, scene.days, sides[WITH]),
        WITHOUT: _costs(scene, [_without_forecasts(day) for day in scene.days], sides[WITHOUT]),
    }
    rows = [
        {"seed": seed, **{f"{name}_bps": float(costs[name][i].mean()) for name in costs}}
        for i, seed in enumerate(seeds[WITH])
    ]
    names = np.array([scene.days[int(day)].partition.instrument_id for day in scene.parents["day"]])
    everywhere = np.ones(len(names), bool)
    return {
        "test_days": list(scene.splits.test_days),
        "parents": len(scene.parents),
        "seeds": rows,
        "all": _difference(scene, costs, everywhere, "all", config),
        "by_instrument": {
            str(key): _difference(scene, costs, names == key, str(key), config) for key in np.unique(names)
        },
    }


def _costs(scene: Scene, days: "list[MarketDay]", bundles: "Sequence[Bundle]") -> NDArray[np.float64]:
    """Costs `(S, N)` of the bundles, bps."""
    played = [play(BundlePolicy("agent", item), days, scene.parents, scene.execution)[0] for item in bundles]
    return np.stack([orders["is_bps"] for orders in played])


def _without_forecasts(day: "MarketDay") -> "MarketDay":
    return replace(day, forecasts=np.zeros_like(day.forecasts), forecast_missing=np.ones_like(day.forecast_missing))


def _difference(
    scene: Scene,
    costs: Mapping[str, NDArray[np.float64]],
    here: NDArray[np.bool_],
    key: str,
    config: EvaluationConfig,
) -> dict[str, Any]:
    dates = [scene.days[int(day)].partition.date for day in scene.parents["day"]]
    labels, kind = cluster_labels(scene.parents["start_ns"], dates)
    bootstrap = ClusterBootstrap(labels[here], np.random.default_rng(config.seed), config.draws)
    gains = costs[WITH][:, here] - costs[WITHOUT][:, here]  # paired by seed as well as by parent
    found = compare(
        gains[0] if len(gains) == 1 else gains,
        np.zeros(int(here.sum())),
        bootstrap,
        a=WITH,
        b=WITHOUT,
        alpha=config.alpha,
        instrument=key,
    )
    return {
        "with_bps": float(costs[WITH][:, here].mean()),
        "without_bps": float(costs[WITHOUT][:, here].mean()),
        **_interval(found),
        "n": found.n,
        "clusters": f"{found.n_clusters} ({kind})",
        "n_seeds": found.n_seeds,
        "verdict": found.verdict,
    }


def _interval(item: Comparison) -> dict[str, float | None]:
    values = {"diff_bps": item.mean_diff_bps, "ci_low": item.ci_low, "ci_high": item.ci_high}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
