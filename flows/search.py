"""The search for settings of the agent's training; a killed one goes on, one that is done is not done again."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.lake import list_partitions
from feature_repo.progress import Progress
from flows.backtest import fields_of, stage_rows
from flows.configs import agent_config
from flows.data import run_data_stages
from flows.ids import resolve, stage_id
from flows.infra import run_flow, stop_spark
from flows.ingest import planned_dates
from flows.lake import StageResult
from flows.nightly import held_out_days
from flows.params import DataParams, IngestParams, NightlyParams, TrainAgentParams, TrainSignalParams
from flows.stage import run_stage, stage_task
from flows.train_signal import train_signal_flow


@stage_task(name="search settings")
def search_settings(params: TrainAgentParams, trials: int) -> StageResult:
    """Try settings with Ray Tune; trials that an interrupted search has finished are kept."""
    features, folder = resolve("features", params.features)
    forecasts, forecasts_folder = resolve("train_signal", params.forecasts)
    resolved = params.model_copy(update={"features": features, "forecasts": forecasts})
    id_ = stage_id("search", resolved, trials=trials)

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.execution.search import search

        config = agent_config(params, list_partitions(folder, "features.parquet"))
        found = search(folder, forecasts_folder, config, trials, params.seed, out / "tune")
        (out / "trials.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        shutil.rmtree(out / "tune")
        return {"trials": found}

    return run_stage("search", id_, work, force=params.force, keeps_parts=True)


@flow(name="search")
def search_flow(params: NightlyParams, trials: int) -> dict[str, Any]:
    """Ticks to the settings that did best on the validation days, as `shortfall train-agent --search` prints them."""
    test_days = held_out_days(params, planned_dates(IngestParams(**fields_of(IngestParams, params))))
    training = {"profile": params.profile, "test_days": test_days, "seed": params.seed}
    try:
        stages = run_data_stages(DataParams(**fields_of(DataParams, params)))
        forecasts = run_flow(train_signal_flow, TrainSignalParams(features=stages[-1].id, **training))
    finally:
        stop_spark()
    known = {"features": stages[-1].id, "forecasts": forecasts.id, "force": "train_agent" in params.force}
    found = search_settings(TrainAgentParams(**known, **training), trials)
    return {"stages": stage_rows([*stages, forecasts, found]), "trials": found.summary["trials"]}
