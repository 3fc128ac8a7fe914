"""One shallow pydantic model per flow: the form that the Prefect UI shows, and what the command line fills in."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

DataStage = Literal["ingest", "clean", "validate", "features"]
DATA_STAGES: tuple[DataStage, ...] = ("ingest", "clean", "validate", "features")
StageName = Literal[
    "ingest", "clean", "validate", "features", "materialize", "train_signal", "train_agent", "evaluate", "promote"
]
STAGES: tuple[StageName, ...] = (
    "ingest", "clean", "validate", "features", "materialize", "train_signal", "train_agent", "evaluate", "promote",
)  # fmt: skip

WorldName = Literal["replay", "impact", "reactive"]
RayPlace = Literal["pod", "rayjob"]

LATEST = "latest"
_DATASET = "Id of the {} dataset in the lake, or 'latest'"
_RULES = "YAML file that switches cleaning rules and their limits by venue; empty: the platform's own"
_WORLD = "replay: facts and fill models; impact: calibration; reactive: fit, and its facts against the source's"
_RAY = "Where the agent trains. pod: in the flow's own process; rayjob: on a KubeRay RayJob that the flow follows"
_GATES = "YAML file of the data gate's limits and severities by venue; empty: the platform's own"


class IngestParams(BaseModel):
    """Which vendor's ticks to read, and which part of them."""

    source: str = Field(
        "synthetic",
        description="Reader: synthetic, lean, lean-forex, shfe, lobster, binance, bitstamp, databento, itch, mapped, "
        "or one added by a plug-in",
    )
    data: str | None = Field(None, description="Folder of the vendor's files; not used by the synthetic market")
    symbols: list[str] = Field([], description="Symbols to read; empty means all that the folder holds")
    date_from: date | None = Field(None, description="First session date, inclusive")
    date_to: date | None = Field(None, description="Last session date, inclusive")
    options: list[str] = Field([], description="Options of the reader, each as name=value, e.g. date=2012-06-21")
    synthetic_days: int = Field(6, ge=2, le=250, description="Synthetic market: session days to generate")
    synthetic_hours: float = Field(6.5, gt=0, le=6.5, description="Synthetic market: hours of each session")
    synthetic_strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Synthetic market: planted predictability; 0 plants nothing, empty means the documented default",
    )
    synthetic_seed: int = Field(7, ge=0, description="Synthetic market: seed")
    force: bool = Field(False, description="Do the stage again although its output is there")

    @field_validator("options")
    @classmethod
    def _options_have_names(cls, options: list[str]) -> list[str]:
        for item in options:
            if not item.partition("=")[0].strip() or "=" not in item:
                raise ValueError(f"{item!r} is not name=value")
        return options

    @model_validator(mode="after")
    def _dates_in_order(self) -> "IngestParams":
        if self.date_from and self.date_to and self.date_from > self.date_to:
            raise ValueError(f"date_from {self.date_from} is after date_to {self.date_to}")
        return self


class DataParams(IngestParams):
    """Ticks to features: what to read, which rules and gates it meets, and where to stop."""

    until: DataStage = Field("features", description="Last stage to run")
    rules: str | None = Field(None, description=_RULES)
    gates: str | None = Field(None, description=_GATES)
    force: list[DataStage] = Field([], description="Stages to do again although their output is there")  # type: ignore[assignment]


class BackfillParams(IngestParams):
    """Ticks to features for a range of days, one day after the other in bounded memory."""

    rules: str | None = Field(None, description=_RULES)
    gates: str | None = Field(None, description=_GATES)


class SimulationParams(IngestParams):
    """Ticks to the report of a simulated world: what to read, and which world to examine."""

    world: WorldName = Field("replay", description=_WORLD)
    rules: str | None = Field(None, description=_RULES)
    gates: str | None = Field(None, description=_GATES)
    seed: int = Field(0, ge=0, description="Seed of intervals and simulated markets")
    force: list[Literal["simulate"]] = Field([], description="Examine the world again although its report is there")  # type: ignore[assignment]


class NightlyParams(IngestParams):
    """The whole night: what to read, how long to train, what to hold out."""

    rules: str | None = Field(None, description=_RULES)
    gates: str | None = Field(None, description=_GATES)
    profile: str = Field("quick", description="Training profile: quick, full, or the path of a YAML file")
    test_days: int | None = Field(
        None, ge=1, description="Last days held out for the test; empty: 1 of up to 5 days, else 2"
    )
    seed: int = Field(0, ge=0, description="Seed of training and evaluation")
    ray: RayPlace = Field("pod", description=_RAY)
    force: list[StageName] = Field([], description="Stages to do again although their output is there")  # type: ignore[assignment]


class CleanParams(BaseModel):
    """Bronze to silver."""

    bronze: str = Field(LATEST, description=_DATASET.format("bronze"))
    rules: str | None = Field(None, description=_RULES)
    force: bool = Field(False, description="Do the stage again although its output is there")


class ValidateParams(BaseModel):
    """The gate on silver."""

    silver: str = Field(LATEST, description=_DATASET.format("silver"))
    gates: str | None = Field(None, description=_GATES)
    force: bool = Field(False, description="Do the stage again although its output is there")


class FeaturesParams(BaseModel):
    """Silver to book states and feature values; refuses silver that has not passed its gate."""

    silver: str = Field(LATEST, description=_DATASET.format("silver"))
    gates: str | None = Field(None, description="The gate that it must have passed: the file given to validate")
    force: bool = Field(False, description="Do the stage again although its output is there")


class MaterializeParams(BaseModel):
    """Features, and forecasts where there are any, to the online store."""

    features: str = Field(LATEST, description=_DATASET.format("features"))
    forecasts: str | None = Field(None, description="Id of the forecasts (a train_signal output); empty: features only")
    force: bool = Field(False, description="Do the stage again although its output is there")


class SimulateParams(BaseModel):
    """A world of the market simulator on the days of a features dataset, and its report."""

    features: str = Field(LATEST, description=_DATASET.format("features"))
    silver: str = Field(LATEST, description="Id of the silver dataset that the features came from, or 'latest'")
    world: WorldName = Field("replay", description=_WORLD)
    seed: int = Field(0, ge=0, description="Seed of intervals and simulated markets")
    force: bool = Field(False, description="Do the stage again although its output is there")


class TrainSignalParams(BaseModel):
    """Walk-forward training of the signal model."""

    features: str = Field(LATEST, description=_DATASET.format("features"))
    profile: str = Field("quick", description="Training profile: quick, full, or the path of a YAML file")
    test_days: int = Field(1, ge=1, description="Last days held out for the test")
    seed: int = Field(0, ge=0, description="Training seed")
    force: bool = Field(False, description="Do the stage again although its output is there")


class AgentParams(TrainSignalParams):
    """What training and judging an agent have in common."""

    forecasts: str = Field(LATEST, description="Id of the forecasts (a train_signal output), or 'latest'")


class TrainAgentParams(AgentParams):
    """Training of the execution agent on the earlier days."""

    signals: bool = Field(True, description="Show the agent the forecasts; off, they are flagged missing (ablation)")
    ray: RayPlace = Field("pod", description=_RAY)


class EvaluateParams(AgentParams):
    """The agent against every baseline on the held-out days."""

    agent: str = Field(LATEST, description="Id of the trained agent (a train_agent output), or 'latest'")
    source: str = Field("synthetic", description="Reader that the data came from; each source has its own champion")
    bronze: str | None = Field(
        None,
        description="Id of the bronze dataset that the features came from: it says what a synthetic market planted",
    )
    champion: int | None = Field(
        None, ge=1, description="Version to beat; empty: the one that stood when the agent was first judged"
    )


class OpponentParams(BaseModel):
    """Which agent will be judged, and among the champions of which source."""

    agent: str = Field(LATEST, description="Id of the trained agent (a train_agent output), or 'latest'")
    source: str = Field("synthetic", description="Reader that the data came from; each source has its own champion")


class RollbackParams(BaseModel):
    """Return to the champion before the present one."""

    source: str = Field("synthetic", description="Reader that the data came from; each source has its own champion")
    reason: str = Field(min_length=1, description="Why, for the journal")


class PromoteParams(BaseModel):
    """Register the agent and decide whether it replaces the champion."""

    agent: str = Field(LATEST, description="Id of the trained agent (a train_agent output), or 'latest'")
    evaluation: str = Field(LATEST, description="Id of its evaluation, or 'latest'")
    source: str = Field("synthetic", description="Reader that the data came from; each source has its own champion")
    force: bool = Field(False, description="Decide again although the decision is there")
