"""Turns a training profile and a flow's parameters into the frozen configurations that training reads."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from flows.params import EvaluateParams, TrainAgentParams, TrainSignalParams
from flows.settings import load_profile, settings

Config = TypeVar("Config")


def with_overrides(config: Config, section: str, profile: str, values: dict[str, Any]) -> Config:
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
