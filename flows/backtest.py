"""Agents outside the night: trained on any source, or judged from their bundle on days that they never saw."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.progress import Progress
from flows import artifacts
from flows.configs import evaluation_config
from flows.data import run_data_stages
from flows.evaluate import planted_options
from flows.ids import lake, resolve, stage_id
from flows.infra import run_flow, stop_spark
from flows.ingest import planned_dates
from flows.lake import StageResult
from flows.ledger import open_test_days
from flows.nightly import held_out_days
from flows.params import DataParams, EvaluateParams, IngestParams, NightlyParams, TrainAgentParams, TrainSignalParams
from flows.settings import load_profile
from flows.stage import run_stage, stage_task
from flows.train_agent import train_agent_flow
from flows.train_signal import train_signal_flow


class BacktestParams(DataParams):
    """A bundle, the days to judge it on, and how."""

    bundle: str = Field(description="Folder of the policy bundle")
    profile: str = Field("quick", description="Profile whose evaluation section applies: quick, full, or a YAML file")
    test_days: int | None = Field(
        None, ge=1, description="Last days to judge on; empty: every day after those that the bundle knows"
    )
    seed: int = Field(0, ge=0, description="Seed of the random baseline and of the intervals")


@flow(name="train")
def train_flow(params: NightlyParams) -> dict[str, Any]:
    """Ticks to a policy bundle; returns what `shortfall train-agent` prints."""
    load_profile(params.profile)  # a bad profile ends the run now, not after the data stages
    forced = set(params.force)
    test_days = held_out_days(params, planned_dates(IngestParams(**fields_of(IngestParams, params))))
    training = {"profile": params.profile, "test_days": test_days, "seed": params.seed}
    try:
        stages = run_data_stages(DataParams(**fields_of(DataParams, params)))
        signal = TrainSignalParams(features=stages[-1].id, force="train_signal" in forced, **training)
        forecasts = run_flow(train_signal_flow, signal)
        known = {"features": stages[-1].id, "forecasts": forecasts.id}
        agent = run_flow(train_agent_flow, TrainAgentParams(force="train_agent" in forced, **known, **training))
    finally:
        stop_spark()
    folder = lake().folder("train_agent", agent.id)
    return {
        "stages": stage_rows([*stages, forecasts, agent]),
        "agent": agent.summary,
        "held_out_days": test_days,
        "bundle": str(folder / "bundle"),
        "curves": str(folder / "curves.json"),
        "times": json.loads((folder / "times.json").read_text()),
    }


@flow(name="backtest")
def backtest_flow(params: BacktestParams) -> dict[str, Any]:
    """Ticks to the evaluation of a given bundle; returns what `shortfall backtest` prints."""
    from serving.contracts.bundle import load_bundle

    bundle = load_bundle(Path(params.bundle).expanduser())  # a bad one ends the run now
    load_profile(params.profile)
    try:
        stages = run_data_stages(DataParams(**fields_of(DataParams, params)))
    finally:
        stop_spark()
    if bundle.signal_onnx is not None:
        stages.append(apply_bundle_signal(params.bundle, stages[-1].id))
    forecasts = stages[-1].id if bundle.signal_onnx is not None else None
    judged = judge_bundle(params, forecasts, stages[3].id, stages[0].id)
    folder = lake().folder("backtest", judged.id)
    artifacts.link("backtest-report", folder / "report.html", "Backtest report")
    keys = ("mean_is_bps", "ci_low", "ci_high", "n", "established")
    hindsight = with_hindsight(bundle.metadata, judged.summary["test_days"])
    warnings = [
        f"{day} was left out: an instrument traded less than a parent's lots." for day in judged.summary["left_out"]
    ]
    if hindsight:
        warnings.append("The bundle knows days after these: it never saw them, but this is no forward test.")
    return {
        "stages": stage_rows([*stages, judged]),
        "bundle": {"kind": bundle.kind, "sha256": bundle.sha256, "seed": bundle.metadata["seed"]},
        "test_days": judged.summary["test_days"],
        "left_out": judged.summary["left_out"],
        "hindsight": hindsight,
        "evaluation": {name: {key: row.get(key) for key in keys} for name, row in judged.summary["policies"].items()},
        "opponents": judged.summary["opponents"],
        "distance_closed": judged.summary["distance_closed"],
        "findings": [*judged.summary["verdicts"], *warnings],
        "report": str(folder / "report.html"),
    }


@stage_task(name="forecast with a bundle")
def apply_bundle_signal(bundle: str, features: str) -> StageResult:
    """The forecasts that this bundle's signal model gives on these days."""
    from serving.contracts.bundle import load_bundle

    loaded = load_bundle(Path(bundle).expanduser())
    known, folder = resolve("features", features)
    id_ = stage_id("apply_signal", TrainSignalParams(features=known), bundle_sha256=loaded.sha256)

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.signals.apply import apply_signal

        assert loaded.signal_onnx is not None
        return apply_signal(folder, out, loaded.signal_onnx, loaded.metadata.get("signal_spec") or {}, progress)

    return run_stage("apply_signal", id_, work)


@stage_task(name="judge a bundle")
def judge_bundle(params: BacktestParams, forecasts: str | None, features: str, bronze: str) -> StageResult:
    """Run the bundle and every baseline on the days that it never saw."""
    from serving.contracts.bundle import load_bundle

    bundle = load_bundle(Path(params.bundle).expanduser())
    known, folder = resolve("features", features)
    forecasts_folder = resolve("apply_signal", forecasts)[1] if forecasts else None
    partitions = list_partitions(folder, "features.parquet")
    thin = thin_days(folder, partitions, bundle.metadata["execution"].get("lots"))
    dates = sorted({item.date for item in partitions} - set(thin))
    tested = unseen_days(bundle.metadata, dates, params)
    settings = EvaluateParams(
        features=known, forecasts=forecasts or "", profile=params.profile, test_days=len(tested), seed=params.seed,
        bronze=bronze,
    )  # fmt: skip
    id_ = stage_id("backtest", settings, bundle_sha256=bundle.sha256)

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        from training.evaluation.evaluate import evaluate

        instruments = sorted({item.instrument_id for item in partitions if item.date in tested})
        opened = open_test_days(id_, instruments, tested, {"agent": bundle.sha256})
        curves = bundle.folder.parent / "curves.json"
        alone = len(dates) == len(tested)  # no day to tune the baselines on
        found = evaluate(
            folder, forecasts_folder, {"agent": bundle.folder}, out,
            replace(evaluation_config(settings), untuned=alone, left_out=tuple(thin)), progress,
            curves=curves if curves.is_file() else None, opened_before=opened, planted=planted_options(bronze),
        )  # fmt: skip
        return {**found, "test_days": tested, "left_out": thin}

    return run_stage("backtest", id_, work, force="features" in params.force)


def unseen_days(metadata: Any, dates: list[str], params: BacktestParams) -> list[str]:
    """The days to judge on: the last `test_days`, or all that come after every day that the bundle knows.

    Where the data end before all that it knows, as another instrument's may, they are those days: it never saw them,
    but whoever made it could know what came after (`with_hindsight`).
    The baselines need a day before them, to be tuned on: where the data hold none that the bundle knows, it is the
    first, unless there is no other; then they are not tuned. Raises InputError where no day is left.
    """
    days = sorted(set(dates))
    seen = _known_days(metadata)
    fresh = [day for day in days if day > max(seen, default="")] or [day for day in days if day < min(seen)]
    if len(fresh) == len(days) > 1:
        fresh = fresh[1:]
    if params.test_days is not None:
        fresh = fresh[-params.test_days :]
    if not fresh:
        raise InputError(
            f"no day to judge on among {', '.join(days) or 'none'}: the bundle knows days up to "
            f"{max(seen, default='none')}, and the baselines are tuned on a day before the first; widen --from/--to"
        )
    return fresh


def thin_days(folder: Path, partitions: list[Partition], lots: int | None) -> list[str]:
    """Days on which an instrument traded fewer than `lots`, so that no parent fits, e.g. the eve of a holiday.

    They are left out, and the report says so. Empty where the parents' size follows the volume (None).
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def traded(item: Partition) -> int:
        table = pq.read_table(item.folder(folder) / "book.parquet", columns=["trade_sz"])
        return int(pc.sum(table["trade_sz"]).as_py() or 0)

    return sorted({item.date for item in partitions if lots is not None and traded(item) < lots})


def with_hindsight(metadata: Any, tested: list[str]) -> bool:
    """Whether the bundle was made from days that come after those it is judged on."""
    return max(_known_days(metadata), default="") > max(tested)


def _known_days(metadata: Any) -> list[str]:
    return [*metadata["training_days"], *(metadata.get("signal_spec") or {}).get("train_days", [])]


def stage_rows(stages: list[StageResult]) -> list[dict[str, Any]]:
    """The stages as every report lists them."""
    return [
        {"name": r.stage, "id": r.id, "status": "done", "skipped": r.skipped, "seconds": round(r.seconds, 2)}
        for r in stages
    ]


def fields_of(model: type[IngestParams], params: IngestParams) -> dict[str, Any]:
    """The fields of `params` that `model` has too, without what is to be done again but the stages it names."""
    values = params.model_dump(include=set(model.model_fields) - {"force"})
    if model is DataParams:
        from flows.params import DATA_STAGES

        values["force"] = [name for name in getattr(params, "force", []) if name in DATA_STAGES]
    return values
