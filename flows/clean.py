"""The clean stage: bronze to silver and quarantine."""

from pathlib import Path

from prefect import flow

from feature_repo.errors import ShortfallError
from feature_repo.progress import Progress
from flows import artifacts
from flows.ids import existing_file, parts, resolve, stage_id
from flows.infra import spark
from flows.lake import StageResult
from flows.params import CleanParams
from flows.stage import run_stage, stage_task


@stage_task(name="clean ticks")
def clean_ticks(params: CleanParams) -> StageResult:
    """Apply the cleaning rules with Spark; every row is kept or quarantined with its rule."""
    bronze, folder = resolve("ingest", params.bronze)
    id_ = stage_id("clean", params.model_copy(update={"bronze": bronze}))

    def work(out: Path, progress: Progress) -> dict:
        from feature_repo.pipeline.cleaning import clean

        rules = existing_file(params.rules, "rules") if params.rules else None
        summary = clean(folder, out, spark(), progress, parts=parts("clean", params.force), rules_file=rules)
        balance(summary)
        return summary

    return run_stage("clean", id_, work, force=params.force)


def balance(summary: dict) -> None:
    """Refuse an accounting in which a row was lost or invented, in all or for any symbol and day."""
    for part in [summary, *summary["partitions"]]:
        quarantined = sum(part["by_rule"].values())
        if part["rows_in"] != part["rows_kept"] + quarantined or quarantined != part["rows_quarantined"]:
            name = "/".join(str(part[key]) for key in ("venue", "symbol", "date") if key in part) or "all partitions"
            raise ShortfallError(
                f"cleaning lost rows of {name}: {part['rows_in']:,} in, {part['rows_kept']:,} kept, "
                f"{quarantined:,} quarantined"
            )


@flow(name="clean")
def clean_flow(params: CleanParams = CleanParams()) -> StageResult:  # noqa: B008
    """Bronze to silver; returns what was published."""
    result = clean_ticks(params)
    rules = [{"rule": rule, "rows": rows} for rule, rows in result.summary["by_rule"].items()]
    artifacts.table("quarantined-by-rule", rules or [{"rule": "none", "rows": 0}], "Quarantined rows by rule")
    artifacts.table("cleaned", result.summary["partitions"], "Rows in, kept and quarantined by symbol and day")
    artifacts.lineage(result, {"bronze": params.bronze})
    return result
