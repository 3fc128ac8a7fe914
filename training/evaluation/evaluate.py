"""The evaluate stage: every policy on the same parents, paths and fills of the held-out days."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.progress import Progress, no_progress
from training.evaluation.calibration import calibrate
from training.evaluation.config import EvaluationConfig
from training.evaluation.examples import example_indices, examples_of
from training.evaluation.limits import limits
from training.evaluation.oracle import distance_closed
from training.evaluation.report import Extras, render, tca_markdown, title_of, verdicts
from training.evaluation.runs import Cast, Orders, cast, run_all, run_frontier, run_sensitivities, run_strata
from training.evaluation.scene import Scene, data_hashes, liquidity, local_minutes, open_scene, participations
from training.evaluation.sensitivity import survival
from training.evaluation.sources import read_curves, read_skill, read_twap_passive
from training.evaluation.svg import forest_svg
from training.evaluation.tca import ORDER_DTYPE, Family, analyse

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle

ROW_GROUP_ROWS = 65_536


def evaluate(
    features_dir: Path,
    forecasts_dir: Path | None,
    policies: Mapping[str, Path],
    out_dir: Path,
    config: EvaluationConfig,
    progress: Progress = no_progress,
    *,
    seed_bundles: Sequence[Path] = (),
    curves: Path | None = None,
    signal_metrics: Path | None = None,
    opened_before: Mapping[str, int] | None = None,
    planted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the bundles of `policies` and every baseline on the test days and write what was found into `out_dir`.

    The baselines are tuned, and each instrument's opponent is declared, on the validation days before a test order is
    played. `seed_bundles` are the agents of all training seeds, the chosen one included. `opened_before` says how many
    earlier evaluations opened each test day. `planted` are the options of a synthetic market, as its bronze manifest
    has them: a rule that sees the signal plays too, and `distance_closed` says how near the agent comes. Writes
    `orders.parquet`, `evaluation.json`, `report.html`, `tca_table.md` and `tca.svg`. `curves` and `signal_metrics`
    default to `curves.json` beside the agent's bundle and `metrics.json` of the forecasts, where there are such files.
    Equal inputs and configuration give equal bytes. Returns `policies`, `comparisons`, `distance_closed`, `established`
    (sentences), `verdicts` (all sentences), `opponents` and `report`.
    Raises InputError where a bundle, a day or a parent cannot be used, and what `training.evaluation.tca` raises.
    """
    from serving.contracts.bundle import load_bundle

    bundles = {name: load_bundle(folder) for name, folder in policies.items()}
    seeds = [load_bundle(folder) for folder in seed_bundles]
    scene = open_scene(features_dir, forecasts_dir, {**bundles, **_named(seeds)}, config)
    calibration = {key: calibrate(days, scene.execution) for key, days in scene.calibration.items()}
    players = cast(scene, bundles, seeds, calibration, config, progress, planted)
    shown = example_indices(scene)
    record = {name: shown for name in (config.agent, config.reference) if name in players.names()}
    orders, fills, seed_costs = run_all(scene, players, record, progress)
    strata, sized = run_strata(scene, players, config, progress)
    family = Family(config.agent, config.champion, config.reference, players.tuned.opponents)
    rng = np.random.default_rng(config.seed)
    found = analyse(orders, family, rng, config.draws, config.alpha, seed_costs, sized)
    result = {**_facts(scene, bundles, players, config), **found}
    for row in strata:
        row["comparisons"] = [found["others"][index] for index in row["comparisons"]]
    result["seeds"] = _costs_of_seeds(seeds, seed_costs)
    result["strata"] = strata
    result["sensitivities"] = run_sensitivities(scene, players, config, progress) if config.sensitivities else []
    result["distance_closed"] = (
        distance_closed(
            orders, config.agent, players.tuned.opponents, players.oracle, rng, config.draws, config.alpha, seed_costs
        )
        if players.oracle
        else {}
    )
    result["survival"] = _survival(result, config.sensitivities)
    result["frontier"] = run_frontier(scene, players, config)
    result["data"] = data_hashes(features_dir, forecasts_dir, scene.days)
    result["opened_before"] = {day: (opened_before or {}).get(day, 0) for day in scene.splits.test_days}
    share = participations(scene)
    result["participation"] = {"mean": _finite(share.mean()), "median": _finite(np.median(share))}
    curves, signal_metrics = _beside(policies, forecasts_dir, config, curves, signal_metrics)
    extras = Extras(
        curves=read_curves(curves),
        twap_passive_bps=read_twap_passive(curves),
        skill=read_skill(signal_metrics),
        examples=examples_of(scene, shown, fills),
        minute=local_minutes(scene),
        liquidity=liquidity(scene),
        seeds=_seeds(bundles, seeds, config),
    )
    result["limits"] = limits(result, extras.curves, extras.skill)
    _write(out_dir, result, orders, extras)
    said = verdicts(result, extras.seeds)
    return {
        "policies": result["policies"],
        "comparisons": result["comparisons"],
        "opponents": dict(players.tuned.opponents),
        "distance_closed": result["distance_closed"],
        "established": [line for line in said if line.startswith("Established")],
        "verdicts": said,
        "report": "report.html",
    }


def _named(bundles: "Sequence[Bundle]") -> "dict[str, Bundle]":
    return {f"agent of seed {bundle.metadata['seed']}": bundle for bundle in bundles}


def _costs_of_seeds(seeds: "Sequence[Bundle]", costs: NDArray[np.float64] | None) -> list[dict[str, Any]]:
    """The agent of each training seed, and its mean cost on the test days; `costs` (S, N)."""
    if costs is None:
        return []
    return [
        {"seed": bundle.metadata["seed"], "sha256": bundle.sha256, "mean_is_bps": float(own.mean())}
        for bundle, own in zip(seeds, costs, strict=True)
    ]


def _seeds(bundles: "Mapping[str, Bundle]", seeds: "Sequence[Bundle]", config: EvaluationConfig) -> list[int]:
    if seeds:
        return [bundle.metadata["seed"] for bundle in seeds]
    return [bundles[config.agent].metadata["seed"]] if config.agent in bundles else []


def _beside(
    policies: Mapping[str, Path],
    forecasts_dir: Path | None,
    config: EvaluationConfig,
    curves: Path | None,
    signal_metrics: Path | None,
) -> tuple[Path | None, Path | None]:
    if curves is None and config.agent in policies:
        curves = policies[config.agent].parent / "curves.json"
    if signal_metrics is None and forecasts_dir is not None:
        signal_metrics = forecasts_dir / "metrics.json"
    return curves, signal_metrics


def _survival(result: Mapping[str, Any], played: bool) -> dict[str, tuple[bool | None, str]]:
    """By instrument: whether what the primary comparison established stands in every other market, and where not."""
    return {
        item["instrument"]: survival(item["verdict"], item["instrument"], result["sensitivities"], played)
        for item in result["comparisons"]
        if item["primary"]
    }


def _facts(scene: Scene, bundles: "Mapping[str, Bundle]", players: Cast, config: EvaluationConfig) -> dict[str, Any]:
    """What the figures rest on, known before a test order is played."""
    instruments = {day.instrument.instrument_id: day.instrument for day in scene.days}
    own = scene.execution.latency_ns
    return {
        "synthetic": any(item.synthetic for item in instruments.values()),
        "fill_model": scene.execution.fill_model,
        "world": scene.execution.world,
        "impact": {d.partition.instrument_id: d.impact.to_dict() for d in scene.days if d.impact is not None},
        "latency": {
            key: "next snapshot"
            if item.snapshot_data and own is None
            else f"{(item.latency_ns if own is None else own) / 1e6:g} ms"
            for key, item in instruments.items()
        },
        "splits": {
            "train_days": list(scene.splits.train_days),
            "validation_days": list(scene.splits.validation_days),
            "test_days": list(scene.splits.test_days),
            **scene.embargo,
        },
        "opponents": dict(players.tuned.opponents),
        "tuning": players.tuned.record(),
        "parents": scene.execution.to_dict(),
        "calibration": {key: dict(values) for key, values in players.tuned.calibration.items()},
        "statistics": {
            "interval": "symmetric studentised cluster bootstrap; the training seed is a level where there are several",
            "adjustment": "Holm over the secondary comparisons",
            **{name: asdict(config)[name] for name in ("seed", "draws", "alpha", "risk_aversion")},
        },
        "bundles": {
            name: {"kind": bundle.kind, "sha256": bundle.sha256, "seed": bundle.metadata["seed"]}
            for name, bundle in bundles.items()
        },
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _write(out_dir: Path, result: Mapping[str, Any], orders: Orders, extras: Extras) -> None:
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n"
    (out_dir / "evaluation.json").write_text(text)
    write_orders(out_dir / "orders.parquet", orders)
    (out_dir / "report.html").write_text(render(result, orders, extras), encoding="utf-8")
    (out_dir / "tca_table.md").write_text(tca_markdown(result, extras.seeds), encoding="utf-8")
    subtitle = (
        f"{', '.join(result['by_instrument'])}, test days {', '.join(result['splits']['test_days'])}, "
        f"{result['n_parents']} parent orders, 95% intervals by {result['clusters']}"
    )
    svg = forest_svg(result["policies"], title_of(result), subtitle)
    (out_dir / "tca.svg").write_text(svg, encoding="utf-8")


def write_orders(path: Path, orders: Mapping[str, NDArray[np.void]]) -> None:
    """One row for each policy and parent, policies in the order that they ran; equal orders give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: Sequence[str] = ORDER_DTYPE.names or ()
    count = len(next(iter(orders.values())))
    columns = {"policy": pa.array(np.repeat(list(orders), count).tolist(), pa.string())}
    for name in names:
        values = np.concatenate([rows[name] for rows in orders.values()])
        columns[name] = pa.array(values.tolist(), pa.string()) if values.dtype.kind == "U" else pa.array(values)
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
