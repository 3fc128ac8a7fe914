"""What signals are worth to the agent: trained with and without them on the same seeds, compared on held-out days."""

import json
from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.lake import list_partitions
from feature_repo.progress import Progress
from flows.backtest import train_flow
from flows.configs import evaluation_config
from flows.ids import lake, resolve, stage_id
from flows.lake import StageResult
from flows.ledger import open_test_days
from flows.params import EvaluateParams, NightlyParams, TrainAgentParams
from flows.stage import run_stage, stage_task
from flows.train_agent import train_agent_flow


@stage_task(name="compare with and without signals")
def compare_signals(params: EvaluateParams, blind: str) -> StageResult:
    """Play the bundles of all seeds of both trainings on the held-out days."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts)
    agent, agent_folder = resolve("train_agent", params.agent)
    blind_folder = lake().folder("train_agent", blind)
    id_ = stage_id(
        "ablate",
        params.model_copy(update={"features": features, "forecasts": forecasts, "agent": agent}),
        blind=blind,
    )

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.evaluation.ablation import ablate_signals
        from training.evaluation.splits import split_days

        config = evaluation_config(params)
        partitions = list_partitions(folder, "features.parquet")
        tested = split_days(partitions, config.test_days).test_days
        instruments = sorted({item.instrument_id for item in partitions if item.date in tested})
        opened = open_test_days(id_, instruments, tested, {"agent": agent, "without signals": blind})
        compared = ablate_signals(folder, forecasts_folder, _seeds(agent_folder), _seeds(blind_folder), config)
        found = {**compared, "opened_before": opened}
        (out / "ablation.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return found

    return run_stage("ablate", id_, work, force=params.force)


def _seeds(folder: Path) -> list[Path]:
    found = (path.parent for path in folder.glob("seeds/*/metadata.json"))
    return sorted(found, key=lambda path: (len(path.name), path.name))  # 7 before 11


@flow(name="ablate")
def ablate_flow(params: NightlyParams) -> dict[str, Any]:
    """Ticks to two trainings and the difference of their costs; returns what `train-agent --ablate signals` prints."""
    trained = train_flow(params)
    ids = {stage["name"]: stage["id"] for stage in trained["stages"]}
    known = {"features": ids["features"], "forecasts": ids["train_signal"]}
    training = {"profile": params.profile, "test_days": trained["held_out_days"], "seed": params.seed}
    force = "train_agent" in params.force
    blind = train_agent_flow(TrainAgentParams(signals=False, force=force, **known, **training))
    judged = EvaluateParams(agent=ids["train_agent"], source=params.source, force=force, **known, **training)
    found = compare_signals(judged, blind.id)
    return {**trained, "blind_agent": blind.summary, "ablation": found.summary}
