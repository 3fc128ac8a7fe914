"""The materialize stage: feature values, and forecasts once there are any, to the online store."""

from pathlib import Path

from prefect import flow

from feature_repo.progress import Progress
from flows import artifacts
from flows.ids import resolve, stage_id
from flows.lake import StageResult
from flows.params import MaterializeParams
from flows.stage import run_stage, stage_task


@stage_task(name="materialize features")
def materialize_features(params: MaterializeParams) -> StageResult:
    """Register the definitions with Feast, fill the online store, read it back and compare."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts) if params.forecasts else (None, None)
    id_ = stage_id("materialize", params.model_copy(update={"features": features, "forecasts": forecasts}))

    def work(out: Path, progress: Progress) -> dict:
        from feature_repo.pipeline.store import materialize

        return materialize(folder, out, forecasts_folder, progress)

    return run_stage("materialize", id_, work, force=params.force)


@flow(name="materialize")
def materialize_flow(params: MaterializeParams = MaterializeParams()) -> StageResult:  # noqa: B008
    """Features to the online store; returns what was published."""
    result = materialize_features(params)
    summary = result.summary
    artifacts.markdown(
        "online-store",
        f"Views {', '.join(summary['views'])}: {summary['compared']:,} online values read back, all equal to Parquet.",
        "Online store against the features it was filled from",
    )
    artifacts.lineage(result, {"features": params.features, "forecasts": params.forecasts or "none"})
    return result
