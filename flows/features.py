"""The features stage: validated silver to book states and feature values."""

import shutil
from pathlib import Path

from prefect import flow

from feature_repo.lake import Partition
from feature_repo.progress import Progress
from flows import artifacts
from flows.ids import existing_file, parts, resolve, stage_id
from flows.infra import spark
from flows.lake import StageResult
from flows.params import FeaturesParams
from flows.stage import run_stage, stage_task
from flows.validate import require_validated


@stage_task(name="build features")
def build_feature_values(params: FeaturesParams) -> StageResult:
    """Run the book and feature kernels in Spark."""
    silver, folder = resolve("clean", params.silver)
    excluded = require_validated(silver, params.gates)
    id_ = stage_id("features", params.model_copy(update={"silver": silver}))

    def work(out: Path, progress: Progress) -> dict:
        from feature_repo.pipeline.build import build_features
        from feature_repo.pipeline.feature_gate import validate_features

        kept = parts("features", params.force)
        gates = existing_file(params.gates, "gates") if params.gates else None
        first, gate = out / ".first", out / "gate"
        for empty in (first, gate):
            empty.mkdir()
        summary = build_features(folder, first, spark(), progress, parts=kept, excluded=excluded)
        verdict = validate_features(first, gate, progress, kept, gates)
        if verdict["excluded"]:  # a day without a usable book: the rest is put together again without it
            bad = {Partition(item["venue"], item["symbol"], item["date"]) for item in verdict["excluded"]}
            shutil.rmtree(first)
            first.mkdir()
            again = parts("features", force=False)
            summary = build_features(folder, first, spark(), progress, parts=again, excluded=excluded | bad)
        for item in list(first.iterdir()):
            item.rename(out / item.name)
        first.rmdir()
        return {**summary, "gate": verdict}

    return run_stage("features", id_, work, force=params.force)


@flow(name="features")
def features_flow(params: FeaturesParams = FeaturesParams()) -> StageResult:  # noqa: B008
    """Silver to features; returns what was published."""
    result = build_feature_values(params)
    artifacts.table("features", result.summary["partitions"], "Feature rows by symbol and day")
    artifacts.lineage(result, {"silver": params.silver})
    return result
