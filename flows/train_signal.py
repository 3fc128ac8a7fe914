"""The train_signal stage: walk-forward forecasts and the model that serves."""

from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.progress import Progress
from flows import artifacts
from flows.configs import signal_config
from flows.ids import resolve, stage_id
from flows.lake import StageResult
from flows.params import TrainSignalParams
from flows.stage import run_stage, stage_task


@stage_task(name="train signal model")
def train_signal_model(params: TrainSignalParams) -> StageResult:
    """Train fold by fold with Lightning; finished folds survive a kill."""
    features, folder = resolve("features", params.features)
    id_ = stage_id("train_signal", params.model_copy(update={"features": features}))

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.signals.train import train_signal

        return train_signal(folder, out, signal_config(params), progress)

    return run_stage("train_signal", id_, work, force=params.force, keeps_parts=True)


@flow(name="train-signal")
def train_signal_flow(params: TrainSignalParams = TrainSignalParams()) -> StageResult:  # noqa: B008
    """Features to out-of-fold forecasts; returns what was published."""
    result = train_signal_model(params)
    artifacts.table("signal-skill", skill_rows(result.summary), "Out-of-fold skill by horizon")
    artifacts.lineage(result, {"features": params.features})
    return result


def skill_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a horizon: out-of-sample R2, its interval, and whether skill is established."""
    return [
        {
            "horizon": f"{horizon} s",
            "R2": round(skill["r2"], 5),
            "95% interval": "none: too few half hours"
            if skill["ci_low"] is None
            else f"{skill['ci_low']:.5f} to {skill['ci_high']:.5f}",
            "skill": "established" if skill["established"] else "not established",
        }
        for horizon, skill in summary["skill"].items()
    ]
