"""The simulate stage: a world of the market simulator on built features, and its report; and the whole way to it."""

from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.progress import Progress
from flows import artifacts
from flows.data import data_report, run_data_stages
from flows.ids import lake, resolve, stage_id
from flows.infra import run_flow, stop_spark
from flows.lake import StageResult
from flows.params import SimulateParams, SimulationParams
from flows.stage import run_stage, stage_task


@stage_task(name="examine a simulated world")
def examine_world(params: SimulateParams) -> StageResult:
    """Build a world on every day of the features and measure it."""
    features, features_folder = resolve("features", params.features)
    silver, silver_folder = resolve("clean", params.silver)
    id_ = stage_id("simulate", params.model_copy(update={"features": features, "silver": silver}))

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.evaluation.simulation.config import SimulationConfig
        from training.evaluation.simulation.stage import simulate

        config = SimulationConfig(world=params.world, seed=params.seed)
        return simulate(features_folder, silver_folder, out, config, progress)

    return run_stage("simulate", id_, work, force=params.force)


@flow(name="simulate")
def simulate_flow(params: SimulateParams = SimulateParams()) -> StageResult:  # noqa: B008
    """Features to the report of a world; returns what was published."""
    result = examine_world(params)
    folder = lake().folder("simulate", result.id)
    artifacts.link("simulation-report", folder / "report.html", f"Report of the world {params.world}")
    artifacts.table("simulation", closing_rows(result.summary), f"The world {params.world} in figures")
    artifacts.lineage(result, {"features": params.features, "silver": params.silver})
    return result


@flow(name="simulation")
def simulation_flow(params: SimulationParams = SimulationParams()) -> dict[str, Any]:  # noqa: B008
    """Ticks to the report of a world; returns what `shortfall simulate --json` prints."""
    try:
        results = run_data_stages(params)
    finally:
        stop_spark()
    by_stage = {result.stage: result.id for result in results}
    wanted = SimulateParams(
        features=by_stage["features"],
        silver=by_stage["clean"],
        world=params.world,
        seed=params.seed,
        force="simulate" in params.force,
    )
    results.append(run_flow(simulate_flow, wanted))
    summary = results[-1].summary
    report = data_report(results)
    return {
        **{name: summary[name] for name in ("world", "synthetic", "settings", "instruments")},
        **{name: report[name] for name in ("stages", "rows", "folder")},
        "report": str(Path(report["folder"]) / summary["report"]),
    }


def closing_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The closing table: a row for each figure of each instrument, as text."""
    rows = []
    for name, found in summary["instruments"].items():
        rows += [{"instrument": name, **row} for row in _ROWS[summary["world"]](found)]
    return rows


def _replay_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "fill model": model,
            "filled in 10 s": _triple(row[f"{model}_10s"]),
            "filled in 60 s": _triple(row[f"{model}_60s"]),
            "worth of a lot, ticks": _triple(row[f"{model}_worth"]),
            "orders": f"{row['orders']:,}",
        }
        for model, row in found["fill_models"].items()
    ]


def _impact_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    parameters, intervals = found["impact"]["parameters"], found["impact"]["intervals"]
    values = {"permanent_bps": parameters["permanent_bps"], "temporary": parameters["temporary"]}
    values |= {f"transient_bps_{k}": value for k, value in enumerate(parameters["transient_bps"])}
    return [{"parameter": key, "value": _triple([value, *intervals[key]])} for key, value in values.items()]


def _reactive_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    def of(facts: dict[str, Any], key: str) -> str:
        item = next(numbers[key] for numbers in facts.values() if key in numbers)
        return _triple([item["value"], item["low"], item["high"]])

    return [
        {
            "fact": row["fact"],
            "figure": row["figure"],
            "source": of(found["facts"], row["figure"]),
            "simulation": of(found["simulated_facts"], row["figure"]),
            "verdict": row["verdict"],
        }
        for row in found["comparison"]
    ]


_ROWS = {"replay": _replay_rows, "impact": _impact_rows, "reactive": _reactive_rows}


def _triple(values: list[float | None]) -> str:
    value, low, high = (None if item is None else f"{item:.3g}" for item in values)
    if value is None:
        return "–"
    return value if low is None or high is None else f"{value} [{low}, {high}]"
