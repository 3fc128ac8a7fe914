"""The registries of the lake, one a data source, and what the flows ask of them.

Each source has a registry of its own: a policy raised on the synthetic market is never champion of a real one.
"""

import json
import os
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError
from flows.ids import lake
from flows.settings import settings
from serving.registry import Registry, Version

RULE_NAMES = {"static": "bundle 0 (imbalance rule)", "ppo": "PPO agent", "dqn": "DQN agent"}


def open_registry(source: str) -> Registry:
    """The registry of this source, with the promoter's key from the settings."""
    return Registry(settings().registry / source, settings().signing_key)


def ensure_champion(source: str) -> int:
    """Version of the source's champion; where there is none yet, bundle 0 becomes it."""
    from training.execution.static_rule import write_bundle_zero

    return open_registry(source).ensure_bundle_zero(write_bundle_zero)


def version_of(source: str, number: int) -> Version:
    """A registered version; raises InputError that lists those there are."""
    versions = {item.version: item for item in open_registry(source).list_versions()}
    if number not in versions:
        raise InputError(f"source {source}: no policy version {number}; there are {sorted(versions) or 'none'}")
    return versions[number]


def pinned_champion(source: str, agent: str) -> int:
    """Version that this agent is judged against: the champion of the moment when it was first asked for.

    Pinned on disk, so that a run that goes on after a kill, or is repeated after the agent itself became champion,
    compares the same two policies.
    """
    pin = lake().root / "opponents" / f"{source}-{agent}.json"
    if pin.is_file():
        return int(json.loads(pin.read_text())["champion"])
    version = ensure_champion(source)
    pin.parent.mkdir(parents=True, exist_ok=True)
    partial = pin.with_suffix(f".part{os.getpid()}")
    partial.write_text(json.dumps({"champion": version}))
    os.replace(partial, pin)
    return version


def decide(source: str, bundle: Path, evaluation_id: str, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Register the bundle and let the evidence decide; a decision already journalled is given again, not retaken.

    Returns `moved`, `reason`, the version decided on, and `name` and `version` of the champion that stands after it.
    """
    registry = open_registry(source)
    version = registry.register(bundle, {})
    mark = f"evaluation {evaluation_id}"
    if not (taken := _taken(registry, version, mark)):
        evidence = {"evaluation": evaluation, "champion": "champion", "challenger": "agent"}
        decision = registry.promote(version, mark, evidence)
        taken = {"moved": decision.moved, "reason": decision.reason}
    publish(source)
    if taken["moved"]:
        taken = settle(source, version, taken["reason"])
    standing = registry.champion()
    if standing is None:
        raise InputError(f"source {source}: no champion stands after the decision; run the evaluate stage first")
    champion = version_of(source, standing[0])
    return {
        **taken,
        "challenger": version,
        "version": champion.version,
        "name": RULE_NAMES.get(champion.kind, champion.kind),
    }


def settle(source: str, version: int, reason: str) -> dict[str, Any]:
    """Watch serving take up a promoted version, and roll back where it does not; `moved` and `reason` after that.

    Does nothing to a version that is champion no longer, or without a decide service (`SHORTFALL_DECIDE_URL`).
    """
    from flows.smoke import SmokeError, watch_champion

    registry = open_registry(source)
    standing = registry.champion()
    if standing is None or standing[0] != version:
        return {"moved": False, "reason": f"{reason}; rolled back since"}
    try:
        seen = watch_champion(settings(), standing[1])
    except SmokeError as error:
        back = registry.rollback(f"smoke decision of version {version}: {error}")
        publish(source)
        return {"moved": False, "reason": f"{reason}; rolled back to version {back}: {error}"}
    return {"moved": True, "reason": f"{reason}; {seen}" if seen else reason}


def publish(source: str) -> int:
    """Put the source's signed registry where serving copies it from; returns how many files that wrote.

    Does nothing without an MLflow server (`SHORTFALL_TRACKING_URI`): on one machine serving reads the registry itself.
    """
    uri = settings().tracking_uri
    if uri is None or not uri.startswith(("http://", "https://")):
        return 0
    from serving import mirror

    return mirror.publish(settings().registry / source, mirror.ArtifactProxy(uri, source))


def _taken(registry: Registry, version: int, mark: str) -> dict[str, Any] | None:
    """The journalled decision on this version and evaluation, or None."""
    for record in registry.history():
        if record["version"] == version and record["reason"].startswith(f"{mark}: "):
            return {"moved": record["action"] == "promoted", "reason": record["reason"].removeprefix(f"{mark}: ")}
    return None
