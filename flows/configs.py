"""Turns a training profile and a flow's parameters into the frozen configurations that training reads.

Not named `profile`: Prefect puts the folder of a flow's file on the import path, where it would hide the standard one.
"""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from flows.params import EvaluateParams, TrainAgentParams, TrainSignalParams
from flows.settings import load_profile, settings

if TYPE_CHECKING:
    from training.evaluation.config import EvaluationConfig
    from training.execution.agent_config import AgentConfig
    from training.signals.config import SignalConfig

Config = TypeVar("Config")


def signal_config(params: TrainSignalParams) -> "SignalConfig":
    """Settings of the signal model."""
    from training.signals.config import SignalConfig

    profile = load_profile(params.profile)
    base = SignalConfig.quick() if profile["extends"] == "quick" else SignalConfig.full()
    chosen = replace(base, test_days=params.test_days, seed=params.seed, tracking_uri=settings().tracking)
    return _with_overrides(chosen, "signal", params.profile, profile["signal"])


def agent_config(params: TrainAgentParams, partitions: list[Partition]) -> "AgentConfig":
    """Settings of the execution agent: it learns from the days before the held-out ones."""
    from training.evaluation.splits import split_days
    from training.execution.agent_config import AgentConfig

    profile = load_profile(params.profile)
    days = split_days(partitions, params.test_days).train_days
    base = AgentConfig.quick(days) if profile["extends"] == "quick" else AgentConfig.full(days)
    seeds = tuple(seed + params.seed for seed in base.seeds)
    gpus = float(min(1, settings().learner_gpus))
    chosen = replace(base, seeds=seeds, tracking_uri=settings().tracking, num_gpus_per_learner=gpus)
    made = _with_overrides(chosen, "agent", params.profile, profile["agent"])
    return made if params.signals else replace(made, signals=False)


def evaluation_config(params: EvaluateParams) -> "EvaluationConfig":
    """Settings of the evaluation."""
    from training.evaluation.config import EvaluationConfig

    profile = load_profile(params.profile)
    base = EvaluationConfig.quick() if profile["extends"] == "quick" else EvaluationConfig.full()
    longest = max(signal_config(params).horizons_s)
    chosen = replace(base, test_days=params.test_days, seed=params.seed, longest_label_s=longest)
    return _with_overrides(chosen, "evaluation", params.profile, profile["evaluation"])


def _with_overrides(config: Config, section: str, profile: str, values: dict[str, Any]) -> Config:
    """`config` with the profile's values in place; raises InputError that names a field it does not have."""
    known = {item.name for item in fields(config)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"profile {profile}: {section}.{unknown[0]} is no setting; known: {', '.join(sorted(known))}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return replace(config, **plain)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise InputError(f"profile {profile}: section {section}: {error}") from error
