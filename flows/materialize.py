"""The materialize stage: feature values, and forecasts once there are any, to the online store."""

from pathlib import Path

from prefect import flow

from feature_repo.progress import Progress
from flows import artifacts
from flows.ids import lake, resolve, stage_id
from flows.lake import MARKER, StageResult
from flows.params import MaterializeParams
from flows.settings import settings
from flows.stage import run_stage, stage_task


@stage_task(name="materialize features")
def materialize_features(params: MaterializeParams) -> StageResult:
    """Register the definitions with Feast, fill the online store, read it back and compare."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts) if params.forecasts else (None, None)
    id_ = stage_id("materialize", params.model_copy(update={"features": features, "forecasts": forecasts}))

    def work(out: Path, progress: Progress) -> dict:
        from feature_repo.pipeline.store import materialize

        previous = None if params.force else _previous_store(folder)
        online = settings().online_store
        return materialize(folder, out, forecasts_folder, progress, previous=previous, online_store=online)

    return run_stage("materialize", id_, work, force=params.force)


def _previous_store(features: Path) -> Path | None:
    """The store published last that the one of these features may go on from, None where there is none."""
    from feature_repo.pipeline.store import continues

    found = (path.parent for path in (lake().root / "materialize").glob(f"*/{MARKER}"))
    fitting = [folder for folder in found if continues(folder, features)]
    return max(fitting, key=lambda folder: (folder.stat().st_mtime_ns, folder.name), default=None)


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
