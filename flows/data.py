"""The data stages on their own, ticks to features, and the backfill of a range of days."""

from typing import Any

from prefect import flow

from feature_repo.errors import ShortfallError
from flows import artifacts
from flows.clean import clean_flow
from flows.features import features_flow
from flows.infra import run_flow, stop_spark
from flows.ingest import ingest_flow, planned_dates
from flows.lake import StageResult
from flows.params import (
    DATA_STAGES,
    BackfillParams,
    CleanParams,
    DataParams,
    DataStage,
    FeaturesParams,
    IngestParams,
    SimulationParams,
    ValidateParams,
)
from flows.progress import SilentReporter, reporter, use_reporter
from flows.validate import validate_flow

TRAILING_DAYS = 5
"""Earlier days that a day is built with: what the gate compares it with, and what its volume curve is made of."""


@flow(name="data")
def data_flow(params: DataParams = DataParams()) -> dict[str, Any]:  # noqa: B008
    """Ticks to features, or to an earlier stage; returns what `shortfall ingest|clean|validate|features` print."""
    try:
        results = run_data_stages(params, params.until, set(params.force))
    finally:
        stop_spark()
    return data_report(results)


@flow(name="backfill")
def backfill_flow(params: BackfillParams = BackfillParams()) -> dict[str, Any]:  # noqa: B008
    """Ticks to features for every day of the range, in time order and bounded memory; a killed one goes on.

    Each day is built with the trailing days that the gate and the volume curve look at; what is already in the lake is
    not done again. At the end the whole range stands as one dataset a stage.
    """
    days = sorted(set(planned_dates(params)))
    shown = reporter()
    shown.begin("backfill")
    use_reporter(SilentReporter())  # one bar over the days, not four a day
    try:
        for number, day in enumerate(days):
            shown.update(number, len(days), "days")
            window = {"date_from": days[max(0, number - TRAILING_DAYS)], "date_to": day}
            try:
                run_data_stages(type(params)(**{**params.model_dump(), **window}))
            except ShortfallError as error:
                done = f"{number} of {len(days)} days are done and stay" if number else "no day is done yet"
                raise type(error)(f"backfill stopped at {day}: {error} ({done})") from error
        results = run_data_stages(params)
    finally:
        use_reporter(shown)
        stop_spark()
    shown.update(len(days), len(days), "days")
    shown.end(StageResult("backfill", results[-1].id, all(r.skipped for r in results), 0.0, {}))
    report = data_report(results)
    artifacts.table("backfilled", report["rows"]["by_symbol_and_day"], "Rows of each symbol and day")
    return report


def run_data_stages(
    params: DataParams | BackfillParams | SimulationParams,
    until: DataStage = "features",
    forced: set[DataStage] | None = None,
) -> list[StageResult]:
    """Run the data stages up to `until`, those that are not done; their results in order."""
    again = forced or set()
    wanted = IngestParams(
        **params.model_dump(include=set(IngestParams.model_fields) - {"force"}), force="ingest" in again
    )
    results = [run_flow(ingest_flow, wanted)]
    if until != "ingest":
        clean = CleanParams(bronze=results[0].id, rules=params.rules, force="clean" in again)
        results.append(run_flow(clean_flow, clean))
    gated = {"silver": results[-1].id, "gates": params.gates}
    if until in ("validate", "features"):
        results.append(run_flow(validate_flow, ValidateParams(force="validate" in again, **gated)))
    if until == "features":
        results.append(run_flow(features_flow, FeaturesParams(force="features" in again, **gated)))
    assert [result.stage for result in results] == list(DATA_STAGES[: len(results)])
    return results


def data_report(results: list[StageResult]) -> dict[str, Any]:
    """What the data stages did, as one object for programs; `rows` as in the nightly report."""
    from flows.accounts import rows_report
    from flows.ids import lake

    by_stage = {result.stage: result for result in results}
    cleaned = by_stage["clean"].summary if "clean" in by_stage else None
    report: dict[str, Any] = {
        "stages": [
            {"name": r.stage, "id": r.id, "status": "done", "skipped": r.skipped, "seconds": round(r.seconds, 2)}
            for r in results
        ],
        "rows": rows_report(by_stage["ingest"].summary, cleaned),
        "folder": str(lake().folder(results[-1].stage, results[-1].id)),
    }
    if "validate" in by_stage:
        gate = by_stage["validate"]
        report["gate"] = {
            "expectations": gate.summary["expectations"],
            "excluded": gate.summary.get("excluded", []),
            "data_docs": str(lake().folder("validate", gate.id) / gate.summary["data_docs"]),
        }
    if "features" in by_stage:
        report["features"] = {
            "rows": by_stage["features"].summary["rows"],
            "names": by_stage["features"].summary["features"],
            "partitions": by_stage["features"].summary["partitions"],
        }
    return report
