"""The validate stage: the gate that silver must pass."""

from pathlib import Path

from prefect import flow

from feature_repo.errors import GateFailedError
from feature_repo.lake import Partition
from feature_repo.progress import Progress
from flows import artifacts
from flows.ids import existing_file, lake, parts, resolve, stage_id
from flows.lake import StageResult
from flows.params import ValidateParams
from flows.stage import run_stage, stage_task


def validation_id(silver: str, gates: str | None = None) -> str:
    """Id of the validation of this silver by this gate."""
    return stage_id("validate", ValidateParams(silver=silver, gates=gates))


def require_validated(silver: str, gates: str | None = None) -> frozenset[Partition]:
    """The partitions that the gate set aside; refuses silver that has not passed it.

    Nothing downstream reads unvalidated data: raises GateFailedError.
    """
    summary = lake().summary("validate", validation_id(silver, gates))
    if summary is None:
        raise GateFailedError(f"silver {silver} has not passed its gate: run the validate stage on it first")
    return frozenset(Partition(item["venue"], item["symbol"], item["date"]) for item in summary.get("excluded", []))


@stage_task(name="validate silver")
def validate_silver(params: ValidateParams) -> StageResult:
    """Run the Great Expectations checkpoint."""
    silver, folder = resolve("clean", params.silver)

    def work(out: Path, progress: Progress) -> dict:
        from feature_repo.pipeline.quality import validate

        gates = existing_file(params.gates, "gates") if params.gates else None
        return validate(folder, out, progress, parts=parts("validate", params.force), gates_file=gates)

    return run_stage("validate", validation_id(silver, params.gates), work, force=params.force)


@flow(name="validate")
def validate_flow(params: ValidateParams = ValidateParams()) -> StageResult:  # noqa: B008
    """Gate silver; returns what was published, or stops the run naming the expectation."""
    result = validate_silver(params)
    docs = lake().folder("validate", result.id) / "data_docs" / "index.html"
    artifacts.link("data-docs", docs, "Great Expectations Data Docs")
    counts = result.summary
    excluded = counts.get("excluded", [])
    artifacts.markdown(
        "gate",
        f"Passed: {counts['expectations']} expectations, {counts['failed']} failed, {len(excluded)} symbol-days set "
        f"aside. [Data Docs]({docs.as_uri()})",
        "Data gate",
    )
    if excluded:
        artifacts.table("set-aside", excluded, "Symbol-days that the gate set aside, and why")
    artifacts.lineage(result, {"silver": params.silver})
    return result
