"""The evaluate stage: every policy on the same parents, paths and fills of the held-out days."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.progress import Progress, no_progress
from training.evaluation.calibration import calibrate
from training.evaluation.config import EvaluationConfig
from training.evaluation.report import Extras, render, tca_markdown, title_of, verdicts
from training.evaluation.scene import Scene, data_hashes, local_minutes, open_scene
from training.evaluation.sources import read_curves, read_skill
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
    curves: Path | None = None,
    signal_metrics: Path | None = None,
) -> dict[str, Any]:
    """Run the bundles of `policies` and every baseline on the test days and write what was found into `out_dir`.

    Writes `orders.parquet`, `evaluation.json`, `report.html`, `tca_table.md` and `tca.svg`. `curves` and
    `signal_metrics` default to `curves.json` beside the agent's bundle and `metrics.json` of the forecasts, where there
    are such files. Equal inputs and configuration give equal bytes. Returns `policies`, `comparisons`, `established`
    (sentences), `verdicts` (all sentences) and `report`.
    Raises InputError where a bundle, a day or a parent cannot be used, and what `training.evaluation.tca` raises.
    """
    from serving.contracts.bundle import load_bundle

    bundles = {name: load_bundle(folder) for name, folder in policies.items()}
    scene = open_scene(features_dir, forecasts_dir, bundles, config)
    calibration = {key: calibrate(days, scene.execution) for key, days in scene.calibration.items()}
    orders, fills = run_all(scene, bundles, calibration, config, progress)
    result = _result(scene, bundles, orders, calibration, config)
    result["data"] = data_hashes(features_dir, forecasts_dir, scene.days)
    if curves is None and config.agent in policies:
        curves = policies[config.agent].parent / "curves.json"
    if signal_metrics is None and forecasts_dir is not None:
        signal_metrics = forecasts_dir / "metrics.json"
    seeds = [bundles[config.agent].metadata["seed"]] if config.agent in bundles else []
    extras = Extras(
        curves=read_curves(curves),
        skill=read_skill(signal_metrics),
        example=example_of(scene, fills),
        minute=local_minutes(scene),
        seeds=seeds,
    )
    _write(out_dir, result, orders, extras)
    said = verdicts(result, seeds)
    return {
        "policies": result["policies"],
        "comparisons": result["comparisons"],
        "established": [line for line in said if line.startswith("Established")],
        "verdicts": said,
        "report": "report.html",
    }


Orders = dict[str, NDArray[np.void]]


def run_all(
    scene: Scene,
    bundles: "Mapping[str, Bundle]",
    calibration: Mapping[str, Mapping[str, float]],
    config: EvaluationConfig,
    progress: Progress = no_progress,
) -> tuple[Orders, Orders]:
    """Orders (ORDER_DTYPE) of every policy; the example order's fills (FILL_DTYPE) of the agent and the reference."""
    from training.execution.baselines import AlmgrenChriss, default_policies
    from training.execution.policies import ModelPolicy
    from training.execution.run import run_policy

    baselines = {policy.name: policy for policy in default_policies(scene.execution, config.seed)}
    clash = sorted(set(baselines) & set(bundles))
    if clash:
        raise InputError(f"policy {clash[0]} is the name of a baseline: give the bundle another name")
    runs: dict[str, Any] = {name: ModelPolicy(name, bundle.decide) for name, bundle in bundles.items()}
    runs |= {name: policy for name, policy in baselines.items() if name != AlmgrenChriss.name}
    total = len(runs) + 1
    orders: Orders = {}
    fills: Orders = {}
    example = example_index(scene.parents)
    for done, (name, policy) in enumerate(runs.items()):
        progress(done, total, "policies")
        record = [example] if name in (config.agent, config.reference) else []
        ran = run_policy(policy, scene.days, scene.parents, scene.execution, record=record)
        orders[name] = _as_orders(ran.rows)
        if record:
            fills[name] = ran.fills
    progress(total - 1, total, "policies")
    orders[AlmgrenChriss.name] = _almgren_chriss(scene, calibration, config)
    progress(total, total, "policies")
    return orders, fills


def _almgren_chriss(
    scene: Scene, calibration: Mapping[str, Mapping[str, float]], config: EvaluationConfig
) -> NDArray[np.void]:
    """Each instrument's parents under the schedule of its own volatility and impact."""
    from training.execution.baselines import AlmgrenChriss
    from training.execution.run import run_policy

    orders = np.zeros(len(scene.parents), ORDER_DTYPE)
    names = np.array([scene.days[int(day)].partition.instrument_id for day in scene.parents["day"]])
    for name in np.unique(names):
        chosen = names == name
        if str(name) not in calibration:
            raise InputError(f"{name} has no training day before its test days: leave it out or widen --from/--to")
        policy = AlmgrenChriss(risk_aversion=config.risk_aversion, gamma_bps=0.0, **calibration[str(name)])
        orders[chosen] = _as_orders(run_policy(policy, scene.days, scene.parents[chosen], scene.execution).rows)
    return orders


def _as_orders(rows: NDArray[np.void]) -> NDArray[np.void]:
    orders = np.zeros(len(rows), ORDER_DTYPE)
    for name in ORDER_DTYPE.names or ():
        orders[name] = rows[name]
    return orders


def _result(
    scene: Scene,
    bundles: "Mapping[str, Bundle]",
    orders: Orders,
    calibration: Mapping[str, Mapping[str, float]],
    config: EvaluationConfig,
) -> dict[str, Any]:
    family = Family(config.agent, config.champion, config.reference)
    rng = np.random.default_rng(config.seed)
    found = analyse(orders, family, rng, config.draws, config.alpha)
    instruments = {day.instrument.instrument_id: day.instrument for day in scene.days}
    return {
        "synthetic": any(item.synthetic for item in instruments.values()),
        "fill_model": scene.execution.fill_model,
        "latency": {
            key: "next snapshot"
            if item.snapshot_data and scene.execution.latency_ns is None
            else f"{(item.latency_ns if scene.execution.latency_ns is None else scene.execution.latency_ns) / 1e6:g} ms"
            for key, item in instruments.items()
        },
        "splits": {
            "train_days": list(scene.splits.train_days),
            "test_days": list(scene.splits.test_days),
            **scene.embargo,
        },
        **found,
        "parents": scene.execution.to_dict(),
        "calibration": {key: dict(values) for key, values in calibration.items()},
        "statistics": {
            "interval": "symmetric studentised cluster bootstrap",
            "adjustment": "Holm over the secondary comparisons",
            **{name: asdict(config)[name] for name in ("seed", "draws", "alpha", "risk_aversion")},
        },
        "bundles": {
            name: {"kind": bundle.kind, "sha256": bundle.sha256, "seed": bundle.metadata["seed"]}
            for name, bundle in bundles.items()
        },
    }


def example_index(parents: NDArray[np.void]) -> int:
    """The buy order in the middle of the grid: chosen by its place, never by its outcome."""
    buys = np.flatnonzero(parents["side"] > 0)
    return int(buys[len(buys) // 2])


def example_of(scene: Scene, fills: Mapping[str, NDArray[np.void]]) -> dict[str, Any] | None:
    """Best prices while the example parent was worked, and its fills, as `plots.example_order` takes them."""
    from training.market.orders import FillKind

    if not fills:
        return None
    parent = scene.parents[example_index(scene.parents)]
    day = scene.days[int(parent["day"])]
    tick, start = day.instrument.tick_size, int(parent["start_ns"])
    rows = slice(
        max(int(np.searchsorted(day.book.ts_ns, start, side="right")) - 1, 0),
        int(np.searchsorted(day.book.ts_ns, start + int(parent["horizon_ns"]), side="right")),
    )
    both = (day.book.bid_sz[rows, 0] > 0) & (day.book.ask_sz[rows, 0] > 0)
    bid, ask = day.book.bid_px[rows, 0][both] * tick, day.book.ask_px[rows, 0][both] * tick
    moved = np.flatnonzero(np.r_[True, (np.diff(bid) != 0) | (np.diff(ask) != 0)])
    return {
        "seconds": np.maximum((day.book.ts_ns[rows][both][moved] - start) / 1e9, 0.0),
        "bid": bid[moved],
        "ask": ask[moved],
        "arrival": float(bid[0] + ask[0]) / 2.0,
        "side": int(parent["side"]),
        "caption": f"A buy of {int(parent['lots'])} lots of {day.partition.instrument_id} on {day.partition.date}, "
        "the one in the middle of the grid; the dashed line is the arrival price, larger marks are larger fills.",
        "fills": {
            name: {
                "seconds": (found["ts_ns"] - start) / 1e9,
                "price": found["price_ticks"] * tick,
                "lots": found["lots"],
                "passive": found["kind"] == FillKind.PASSIVE,
            }
            for name, found in fills.items()
        },
    }


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
