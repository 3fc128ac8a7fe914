"""The evaluate stage: the agent against the champion and every baseline on the held-out days."""

import json
from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.lake import list_partitions
from feature_repo.progress import Progress
from flows import artifacts
from flows.champions import pinned_champion, version_of
from flows.configs import evaluation_config
from flows.ids import lake, resolve, stage_id
from flows.lake import StageResult
from flows.ledger import open_test_days
from flows.params import EvaluateParams
from flows.stage import run_stage, stage_task


@stage_task(name="evaluate policies")
def evaluate_policies(params: EvaluateParams) -> StageResult:
    """Run every policy on the same parent orders and compare them."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts)
    agent, agent_folder = resolve("train_agent", params.agent)
    champion = version_of(params.source, params.champion or pinned_champion(params.source, agent))
    resolved = {"features": features, "forecasts": forecasts, "agent": agent, "champion": champion.version}
    id_ = stage_id("evaluate", params.model_copy(update=resolved), champion_sha256=champion.sha256)

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.evaluation.evaluate import evaluate
        from training.evaluation.splits import split_days

        policies = {
            "agent": agent_folder / "bundle",
            "untrained": agent_folder / "bundle_untrained",
            "champion": champion.bundle_dir,
        }
        config = evaluation_config(params)
        partitions = list_partitions(folder, "features.parquet")
        tested = split_days(partitions, config.test_days).test_days
        instruments = sorted({item.instrument_id for item in partitions if item.date in tested})
        opened = open_test_days(id_, instruments, tested, {"agent": agent, "champion": champion.sha256})
        found = (path.parent for path in agent_folder.glob("seeds/*/metadata.json"))
        seeds = sorted(found, key=lambda folder: (len(folder.name), folder.name))  # 7 before 11
        return evaluate(
            folder, forecasts_folder, policies, out, config, progress,
            seed_bundles=seeds, opened_before=opened, planted=planted_options(params.bronze),
        )  # fmt: skip

    return run_stage("evaluate", id_, work, force=params.force)


def planted_options(bronze: str | None) -> dict[str, Any] | None:
    """Options of the synthetic market that this bronze dataset holds; None for a vendor's data."""
    if bronze is None:
        return None
    manifest = json.loads((resolve("ingest", bronze)[1] / "manifest.json").read_text())
    return manifest["options"] if manifest["source"] == "synthetic" else None


@flow(name="evaluate")
def evaluate_flow(params: EvaluateParams = EvaluateParams()) -> StageResult:  # noqa: B008
    """Agent, champion and baselines on the held-out days; returns what was published."""
    result = evaluate_policies(params)
    folder = lake().folder("evaluate", result.id)
    artifacts.markdown("tca", (folder / "tca_table.md").read_text(), "Transaction cost analysis on the held-out days")
    artifacts.link("tca-report", folder / "report.html", "TCA report")
    artifacts.lineage(result, {"features": params.features, "forecasts": params.forecasts, "agent": params.agent})
    return result
