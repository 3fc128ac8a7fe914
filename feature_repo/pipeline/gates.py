"""The limits of the data gate: read from YAML, laid over the platform's own, and looked up by venue and instrument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.profiling import DATASETS

DEFAULT_FILE = Path(__file__).with_name("gates.yaml")
STOP, QUARANTINE = "stop", "quarantine"
FEATURES_DATASET = "features"
"""What the features' own gate is called where a limit names the datasets that it is for."""

_SECTIONS = ("trailing", "sample", "lawful_rules", "expectations", "venues", "instruments")
_LIMIT_KEYS = ("min", "max", "severity", "reason", "datasets")


@dataclass(frozen=True)
class Limit:
    """What one column of the profile must meet, what happens where it does not, and why."""

    column: str
    min: float | None = None
    max: float | None = None
    severity: str = QUARANTINE  # or STOP
    reason: str = ""
    datasets: tuple[str, ...] = tuple(DATASETS)


@dataclass(frozen=True)
class Trailing:
    """Which earlier days of the symbol a day is compared with."""

    days: int
    min_days: int  # with fewer there is no comparison
    max_age_days: int  # calendar days; an older day says nothing of this one
    min_observations: int  # of a distribution, on either side


@dataclass(frozen=True)
class Sample:
    """How many rows are checked one by one."""

    rows: int  # of all partitions together
    rows_of_each: int


@dataclass(frozen=True)
class Gates:
    """All limits; `venues` and `instruments` (`VENUE:SYMBOL`) hold what they change, by column."""

    trailing: Trailing
    sample: Sample
    lawful_rules: frozenset[str]
    expectations: Mapping[str, Limit]
    venues: Mapping[str, Mapping[str, Limit]]
    instruments: Mapping[str, Mapping[str, Limit]]

    def scope(self, partition: Partition) -> str:
        """Whose limits hold: the instrument where it has limits of its own, else the venue."""
        return partition.instrument_id if partition.instrument_id in self.instruments else partition.venue

    def limits(self, scope: str, dataset: str) -> list[Limit]:
        """Limits for a `scope` and a kind of dataset, in the order of the file."""
        venue = scope.split(":")[0]
        merged = {**self.expectations, **self.venues.get(venue, {}), **self.instruments.get(scope, {})}
        return [limit for limit in merged.values() if dataset in limit.datasets]


def load_gates(path: Path | None = None) -> Gates:
    """The platform's limits, with those of `path` laid over them.

    Raises InputError naming the file, the key, the value and what is allowed.
    """
    content = _read(DEFAULT_FILE)
    if path is not None:
        content = _laid_over(content, _read(path), path)
    where = path or DEFAULT_FILE
    for name in _SECTIONS:
        if name not in content:
            raise InputError(f"{where}: no section {name!r}; wanted {', '.join(_SECTIONS)}")
    expectations = {
        name: _limit(where, f"expectations.{name}", Limit(name), entry)
        for name, entry in content["expectations"].items()
    }
    venues = {
        name: _overrides(where, f"venues.{name}", expectations, entry) for name, entry in content["venues"].items()
    }
    instruments = {}
    for name, entry in content["instruments"].items():
        venue, _, symbol = str(name).partition(":")
        if not symbol:
            raise InputError(f"{where}: instruments.{name}: not of the form VENUE:SYMBOL")
        instruments[name] = _overrides(where, f"instruments.{name}", expectations | venues.get(venue, {}), entry)
    rules = content["lawful_rules"]
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise InputError(f"{where}: lawful_rules {rules!r} is no list of names of rules")
    trailing = Trailing(**_numbers(where, "trailing", Trailing, content["trailing"]))
    if trailing.min_days > trailing.days:
        raise InputError(f"{where}: trailing.min_days is {trailing.min_days}, more than trailing.days {trailing.days}")
    return Gates(
        trailing,
        Sample(**_numbers(where, "sample", Sample, content["sample"])),
        frozenset(rules),
        expectations,
        venues,
        instruments,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable YAML file of gates ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, wanted a mapping of {', '.join(_SECTIONS)}")
    for name, entry in content.items():
        if name not in _SECTIONS:
            raise InputError(f"{path}: section {name!r} is unknown; sections: {', '.join(_SECTIONS)}")
        if name != "lawful_rules" and not isinstance(entry, dict):
            raise InputError(f"{path}: section {name!r} holds {entry!r}, wanted a mapping")
    return content


def _laid_over(base: dict[str, Any], top: dict[str, Any], path: Path) -> dict[str, Any]:
    """`top` over `base`, section by section, name by name and key by key; a list takes the place of a list."""
    merged = dict(base)
    for section, entry in top.items():
        if section == "lawful_rules":
            merged[section] = entry
            continue
        merged[section] = dict(base[section])
        for name, value in entry.items():
            if section == "expectations" and name not in base[section]:
                known = ", ".join(base[section])
                raise InputError(f"{path}: expectations.{name} is unknown; there are: {known}")
            both = isinstance(value, dict) and isinstance(base[section].get(name), dict)
            merged[section][name] = {**base[section][name], **value} if both else value
    return merged


def _overrides(path: Path, where: str, base: Mapping[str, Limit], entry: Any) -> dict[str, Limit]:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {where} holds {entry!r}, wanted a mapping of expectations")
    found = {}
    for name, change in entry.items():
        if name not in base:
            raise InputError(f"{path}: {where}.{name} is no expectation; there are: {', '.join(base)}")
        if not isinstance(change, dict) or not change.get("reason"):
            raise InputError(f"{path}: {where}.{name} gives no reason; a limit of one's own must say why")
        found[name] = _limit(path, f"{where}.{name}", base[name], change)
    return found


def _limit(path: Path, where: str, base: Limit, entry: Any) -> Limit:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {where} holds {entry!r}, wanted a mapping of {', '.join(_LIMIT_KEYS)}")
    known = {*DATASETS, FEATURES_DATASET}
    for key, value in entry.items():
        if key not in _LIMIT_KEYS:
            raise InputError(f"{path}: {where}.{key} is unknown; keys: {', '.join(_LIMIT_KEYS)}")
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        if key in ("min", "max") and not (value is None or number):
            raise InputError(f"{path}: {where}.{key} is {value!r}, wanted a number or nothing")
        if key == "severity" and value not in (STOP, QUARANTINE):
            raise InputError(f"{path}: {where}.severity is {value!r}, wanted {STOP} or {QUARANTINE}")
        if key == "datasets" and not (isinstance(value, list) and value and set(value) <= known):
            raise InputError(f"{path}: {where}.datasets is {value!r}, wanted some of {', '.join(sorted(known))}")
    changes = {**entry, **({"datasets": tuple(entry["datasets"])} if "datasets" in entry else {})}
    limit = replace(base, **changes)
    if limit.min is None and limit.max is None:
        raise InputError(f"{path}: {where} has neither min nor max; leave one of them")
    if limit.min is not None and limit.max is not None and limit.min > limit.max:
        raise InputError(f"{path}: {where}: min {limit.min} exceeds max {limit.max}, so that nothing would pass")
    return limit


def _numbers(path: Path, section: str, kind: type, entry: dict[str, Any]) -> dict[str, int]:
    names = [item.name for item in fields(kind)]
    if set(entry) != set(names):
        raise InputError(f"{path}: section {section!r} holds {', '.join(map(str, entry))}; wanted {', '.join(names)}")
    for name, value in entry.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{path}: {section}.{name} is {value!r}, wanted a whole number from 1 on")
    return entry
