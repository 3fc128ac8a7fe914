"""Which cleaning rules a venue uses and with what limits: `venues.yaml`, and over it a file of the user's own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from feature_repo.errors import InputError
from feature_repo.pipeline.rules import RULES, TRADE_CONDITIONS, CleanLimits
from feature_repo.ticks.instruments import Instrument, SessionWindow

DEFAULT_FILE = Path(__file__).with_name("venues.yaml")
_SECTIONS, _KEYS = ("default", "venues"), ("on", "off", "limits", "auctions")
_WINDOW = tuple(item.name for item in fields(SessionWindow))


@dataclass(frozen=True)
class VenueRules:
    """The rules of one venue."""

    on: frozenset[str] = frozenset(RULES)
    limits: CleanLimits = CleanLimits()
    auctions: tuple[SessionWindow, ...] = ()  # call auctions, in the instrument's local time

    def auctions_ns(self, instrument: Instrument, session_date: str) -> list[tuple[int, int]]:
        """Auction windows of ISO `session_date` as `[open, close)` in UTC nanoseconds, in time order."""
        return replace(instrument, windows=self.auctions).session_ns(session_date)

    def describe(self) -> dict[str, Any]:
        """All of it as JSON, in the rules' order; equal rules give equal text."""
        windows = [asdict(window) for window in self.auctions]
        return {"on": [name for name in RULES if name in self.on], "limits": asdict(self.limits), "auctions": windows}


@dataclass(frozen=True)
class RuleBook:
    """The rules of every venue; one that is not named uses the default ones."""

    default: VenueRules
    venues: Mapping[str, VenueRules]

    def of(self, venue: str) -> VenueRules:
        """Rules of `venue`."""
        return self.venues.get(venue, self.default)


def load_rules(path: Path | None = None, limits: CleanLimits | None = None) -> RuleBook:
    """The platform's rules, with the user's own file `path` laid over them.

    A file has a `default` section and one for each venue under `venues`; each may turn rules `on` and `off` and set
    `limits` and `auctions`. A venue starts from the default section, and what the own file says comes last: its default
    section over the platform's, its venue over both. `limits` are what all of it starts from, None for CleanLimits'.

    Raises InputError that names the file and the unknown or unfit section, key, rule or limit.
    """
    files = [(DEFAULT_FILE, _read(DEFAULT_FILE))] + ([(path, _read(path))] if path is not None else [])
    default = VenueRules(limits=limits or CleanLimits())
    for file, content in files:
        default = _changed(default, content.get("default"), f"{file}: default")
    venues: dict[str, VenueRules] = {}
    for name in sorted({name for _, content in files for name in content.get("venues") or {}}):
        rules = VenueRules(limits=limits or CleanLimits())
        for file, content in files:
            rules = _changed(rules, content.get("default"), f"{file}: default")
            rules = _changed(rules, (content.get("venues") or {}).get(name), f"{file}: venues: {name}")
        venues[name] = rules
    return RuleBook(default, venues)


@cache
def default_rules() -> RuleBook:
    """The platform's rules."""
    return load_rules()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = _named(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable YAML file of cleaning rules ({error})") from error
    _require_mapping(content, f"{path}", _SECTIONS)
    venues = content.get("venues") or {}
    if not isinstance(venues, dict):
        raise InputError(f"{path}: venues holds {venues!r}, wanted a mapping of venues")
    for name, entry in venues.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: venues: {name!r} is no text; YAML reads it so, put it in quotes")
        _require_mapping(entry or {}, f"{path}: venues: {name}", _KEYS)
    _require_mapping(content.get("default") or {}, f"{path}: default", _KEYS)
    return content


def _named(value: Any) -> Any:
    """The same with the keys `on` and `off`, which YAML 1.1 reads as true and false."""
    if not isinstance(value, dict):
        return value
    words = {True: "on", False: "off"}
    return {words[key] if isinstance(key, bool) else key: _named(item) for key, item in value.items()}


def _require_mapping(value: Any, where: str, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where}: holds {value!r}, wanted a mapping of {', '.join(known)}")
    for name in value:
        if name not in known:
            raise InputError(f"{where}: {name!r} is unknown; there are: {', '.join(known)}")


def _changed(rules: VenueRules, entry: dict[str, Any] | None, where: str) -> VenueRules:
    if not entry:
        return rules
    on, off = (_rule_names(entry.get(key), f"{where}: {key}") for key in ("on", "off"))
    if both := sorted(on & off):
        raise InputError(f"{where}: rule {both[0]} is both on and off; leave one of them")
    rules = replace(rules, on=(rules.on | on) - off)
    if entry.get("limits") is not None:
        rules = replace(rules, limits=_limits(rules.limits, entry["limits"], f"{where}: limits"))
    if entry.get("auctions") is not None:
        rules = replace(rules, auctions=_windows(entry["auctions"], f"{where}: auctions"))
    return rules


def _rule_names(value: Any, where: str) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise InputError(f"{where}: holds {value!r}, wanted a list of rules")
    for name in value:
        if not isinstance(name, str) or name not in RULES:
            raise InputError(f"{where}: rule {name!r} is unknown; there are: {', '.join(RULES)}")
    return frozenset(value)


def _limits(base: CleanLimits, entry: Any, where: str) -> CleanLimits:
    names = tuple(item.name for item in fields(CleanLimits))
    _require_mapping(entry, where, names)
    changes: dict[str, Any] = {}
    for name, value in entry.items():
        usual = getattr(base, name)
        if name == "trade_conditions":
            if not isinstance(value, list) or not all(item in TRADE_CONDITIONS for item in value):
                raise InputError(f"{where}: {name} is {value!r}, wanted a list of {', '.join(TRADE_CONDITIONS)}")
            changes[name] = tuple(item for item in TRADE_CONDITIONS if item in value)
        elif isinstance(usual, bool):
            if not isinstance(value, bool):
                raise InputError(f"{where}: {name} is {value!r}, wanted true or false")
            changes[name] = value
        else:
            changes[name] = _number(value, type(usual), f"{where}: {name}")
    return replace(base, **changes)


def _number(value: Any, kind: type, where: str) -> int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 2**62 or (kind is int and not isinstance(value, int)):
        raise InputError(f"{where} is {value!r}, wanted {'a whole' if kind is int else 'a'} number from 0 on")
    least = {"size_multiple": 1, "outlier_neighbours": 1, "outlier_min_neighbours": 3}.get(where.rsplit(" ", 1)[1], 0)
    if value < least:
        raise InputError(f"{where} is {value}, which is below {least}")
    return kind(value)


def _windows(value: Any, where: str) -> tuple[SessionWindow, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: holds {value!r}, wanted a list of windows with {', '.join(_WINDOW)}")
    found = []
    for entry in value:
        _require_mapping(entry, where, _WINDOW)
        try:
            window = SessionWindow(**entry)
            time.fromisoformat(window.open), time.fromisoformat(window.close)
            if type(window.days_before) is not int or not 0 <= window.days_before <= 5:
                raise ValueError(f"days_before {window.days_before!r} is none of 0 to 5")
        except (TypeError, ValueError) as error:
            raise InputError(f'{where}: {entry!r} is no window ({error}); times are in quotes, "HH:MM:SS"') from error
        found.append(window)
    return tuple(found)
