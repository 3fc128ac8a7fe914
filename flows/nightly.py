"""The nightly flow: from ticks to a promoted policy. Its body is the diagram in docs/architecture.md."""

from typing import Any

from prefect import flow
from pydantic import BaseModel

from feature_repo.errors import InputError
from flows import artifacts
from flows.clean import clean_flow
from flows.closing import closing_report, closing_rows
from flows.evaluate import evaluate_flow
from flows.features import features_flow
from flows.infra import FOLLOWER, run_flow, stop_spark
from flows.ingest import ingest_flow, planned_dates
from flows.materialize import materialize_flow
from flows.opponent import opponent_flow
from flows.params import (
    CleanParams,
    EvaluateParams,
    FeaturesParams,
    IngestParams,
    MaterializeParams,
    NightlyParams,
    OpponentParams,
    PromoteParams,
    TrainAgentParams,
    TrainSignalParams,
    ValidateParams,
)
from flows.promote import promote_flow
from flows.settings import load_profile
from flows.train_agent import train_agent_flow
from flows.train_signal import train_signal_flow
from flows.validate import validate_flow


@flow(name="nightly")
def nightly_flow(params: NightlyParams = NightlyParams()) -> dict[str, Any]:  # noqa: B008
    """Ticks to a promoted policy; returns the object that `shortfall nightly --json` prints."""
    forced = set(params.force)
    wanted = _shared(IngestParams, params, force="ingest" in forced)
    test_days = held_out_days(params, planned_dates(wanted))
    training = {"profile": params.profile, "test_days": test_days, "seed": params.seed}
    load_profile(params.profile)  # a bad profile ends the run now, not after the data stages
    try:
        bronze = run_flow(ingest_flow, wanted)
        silver = run_flow(clean_flow, CleanParams(bronze=bronze.id, rules=params.rules, force="clean" in forced))
        gated = {"silver": silver.id, "gates": params.gates}
        gate = run_flow(validate_flow, ValidateParams(force="validate" in forced, **gated))
        features = run_flow(features_flow, FeaturesParams(force="features" in forced, **gated))
        store = run_flow(materialize_flow, MaterializeParams(features=features.id, force="materialize" in forced))

        forecasts = run_flow(
            train_signal_flow, TrainSignalParams(features=features.id, force="train_signal" in forced, **training)
        )
        known = {"features": features.id, "forecasts": forecasts.id}
        forecast_store = run_flow(materialize_flow, MaterializeParams(force="materialize" in forced, **known))
        wanted_agent = TrainAgentParams(force="train_agent" in forced, ray=params.ray, **known, **training)
        agent = run_flow(train_agent_flow, wanted_agent, FOLLOWER if params.ray == "rayjob" else None)

        opponent = run_flow(opponent_flow, OpponentParams(agent=agent.id, source=params.source)).summary["version"]
        judged = EvaluateParams(
            agent=agent.id,
            champion=opponent,
            source=params.source,
            bronze=bronze.id,
            force="evaluate" in forced,
            **known,
            **training,
        )
        evaluation = run_flow(evaluate_flow, judged)
        decision = run_flow(
            promote_flow,
            PromoteParams(agent=agent.id, evaluation=evaluation.id, source=params.source, force="promote" in forced),
        )
    finally:
        stop_spark()
    stages = [bronze, silver, gate, features, store, forecasts, forecast_store, agent, evaluation, decision]
    report = closing_report(stages)
    artifacts.table(
        "nightly", closing_rows(report), "What the night ingested, quarantined, trained, measured and promoted"
    )
    return report


def held_out_days(params: NightlyParams, dates: list[str]) -> int:
    """Number of last days that nothing is trained on.

    Raises InputError where the range leaves no day to train on before a day to test on.
    """
    days = sorted(set(dates))
    test_days = params.test_days or (1 if len(days) <= 5 else 2)
    if len(days) <= test_days:
        raise InputError(
            f"{len(days)} session day(s) ({', '.join(days)}) with {test_days} held out for the test: no day left to "
            f"{'test on' if len(days) < 2 else 'train on'}; widen --from/--to or lower --test-days"
        )
    return test_days


def _shared(model: type[IngestParams], params: BaseModel, **update: Any) -> IngestParams:
    return model(**{**params.model_dump(include=set(model.model_fields) - {"force"}), **update})
