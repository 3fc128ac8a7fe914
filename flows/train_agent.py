"""The train_agent stage: an execution policy trained on the earlier days."""

from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.lake import list_partitions
from feature_repo.progress import Progress
from flows import artifacts
from flows.configs import agent_config
from flows.ids import resolve, stage_id
from flows.infra import stop_spark
from flows.lake import StageResult
from flows.params import TrainAgentParams
from flows.settings import load_profile, settings
from flows.stage import run_stage, stage_task


@stage_task(name="train execution agent")
def train_execution_agent(params: TrainAgentParams) -> StageResult:
    """Train with RLlib; an interrupted training goes on, or starts again from its seed: the policy is the same."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts)
    resolved = params.model_copy(update={"features": features, "forecasts": forecasts})
    id_ = stage_id("train_agent", resolved, **_start(params))

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.execution.train import train_agent

        stop_spark()
        config = agent_config(params, list_partitions(folder, "features.parquet"))
        if params.ray == "rayjob":
            from flows.kube.ray_agent import train_in_rayjob

            return train_in_rayjob(folder, forecasts_folder, out, config, progress, settings())
        return train_agent(folder, forecasts_folder, out, config, progress)

    return run_stage("train_agent", id_, work, force=params.force, keeps_parts=True)


def _start(params: TrainAgentParams) -> dict[str, str]:
    """What a fine-tuning starts from, by its content: the profile names only its folder."""
    from serving.contracts.bundle import bundle_sha256

    folder = load_profile(params.profile)["agent"].get("fine_tune_from")
    return {"fine_tune_sha256": bundle_sha256(Path(folder))} if folder else {}


@flow(name="train-agent")
def train_agent_flow(params: TrainAgentParams = TrainAgentParams()) -> StageResult:  # noqa: B008
    """Features and forecasts to a policy bundle; returns what was published."""
    result = train_execution_agent(params)
    facts = {key: value for key, value in result.summary.items() if not isinstance(value, dict | list)}
    artifacts.table("agent-training", [facts], "What the training did")
    artifacts.lineage(result, {"features": params.features, "forecasts": params.forecasts})
    return result
