"""What the fake API server keeps: objects with resource versions, their history for watches, and their owners."""

import copy
import itertools
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fake_kinds import Kind, problem_of
from fake_selectors import matches_fields, matches_labels

Object = dict[str, Any]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_KEPT_BY_SERVER = ("uid", "creationTimestamp", "generation", "namespace", "name")


class ApiError(Exception):
    """An answer other than 2xx: HTTP status, Kubernetes' reason and the message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def body(self) -> Object:
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.status,
        }  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One change, as a watch tells it."""

    version: int
    type: str  # ADDED, MODIFIED, DELETED
    kind: Kind
    item: Object
    before: Object | None  # a selector may match what was and not what is


@dataclass
class Store:
    """All objects. Every method may be called from any thread."""

    strict: bool = True  # refuse what Kubernetes' or KubeRay's schema does not know
    objects: dict[tuple[Kind, str, str], Object] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    compacted: int = 0  # changes up to this version are forgotten: a watch from before it is told 410
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    on_change: list[Callable[[Event], None]] = field(default_factory=list)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1001))
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    version: int = 1000

    def create(self, kind: Kind, namespace: str, item: Object) -> Object:
        """Add an object; raises ApiError 400, 409 or 422 as the server does."""
        with self.changed:
            item = copy.deepcopy(item)
            metadata = item.setdefault("metadata", {})
            if metadata.get("namespace", namespace) != namespace:
                raise ApiError(
                    400, "BadRequest", f"namespace {metadata['namespace']} of the object is not {namespace} of the call"
                )
            if metadata.get("resourceVersion"):
                raise ApiError(500, "InternalError", "resourceVersion should not be set on objects to be created")
            self._check(kind, item)
            if not metadata.get("name"):
                if not metadata.get("generateName"):
                    raise ApiError(422, "Invalid", f"{kind.kind}: metadata.name: name or generateName is required")
                metadata["name"] = metadata["generateName"] + "".join(self._random.choices(_SUFFIX, k=5))
            name = metadata["name"]
            if (kind, namespace, name) in self.objects:
                raise ApiError(409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
            metadata |= {"uid": str(uuid.UUID(int=self._random.getrandbits(128))), "generation": 1}
            metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if kind.namespaced:
                metadata["namespace"] = namespace
            if kind.kind == "Pod":
                item.setdefault("status", {"phase": "Pending"})
            return self._put("ADDED", kind, item, None)

    def read(self, kind: Kind, namespace: str, name: str) -> Object:
        """An object; raises ApiError 404."""
        with self.changed:
            found = self.objects.get((kind, namespace, name))
            if found is None:
                raise ApiError(404, "NotFound", f'{kind.plural}.{kind.group} "{name}" not found')
            return copy.deepcopy(found)

    def select(self, kind: Kind, namespace: str, labels: str = "", fields: str = "") -> list[Object]:
        """Objects in order of their names; an empty namespace is all of them."""
        with self.changed:
            found = [
                item
                for (of, where, _), item in sorted(self.objects.items(), key=lambda entry: entry[0][1:])
                if of == kind and (not namespace or where == namespace) and selected(item, labels, fields)
            ]
            return copy.deepcopy(found)

    def replace(self, kind: Kind, namespace: str, name: str, item: Object, part: str = "") -> Object:
        """Put an object, or its `part` (status or scale), in place; raises ApiError 409 on a stale resource version."""
        with self.changed:
            old = self.read(kind, namespace, name)
            wanted = item.get("metadata", {}).get("resourceVersion")
            if wanted and wanted != old["metadata"]["resourceVersion"]:
                raise ApiError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            new = copy.deepcopy(item)
            if part == "status":
                new = {**copy.deepcopy(old), "status": new.get("status", {})}
            elif part == "scale":
                new = copy.deepcopy(old)
                new["spec"]["replicas"] = item["spec"]["replicas"]
            else:
                self._check(kind, new)
                if "status" in old and kind.kind != "Event":
                    new["status"] = copy.deepcopy(old["status"])
            for key in _KEPT_BY_SERVER:
                if key in old["metadata"]:
                    new["metadata"][key] = old["metadata"][key]
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"]["generation"] + 1
            if old["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                return self._drop(kind, namespace, name)
            return self._put("MODIFIED", kind, new, old)

    def delete(self, kind: Kind, namespace: str, name: str, options: Object | None = None) -> Object:
        """Take an object away, and what it owns; raises ApiError 404, or 409 where preconditions fail."""
        options = options or {}
        with self.changed:
            old = self.read(kind, namespace, name)
            for key, wanted in (options.get("preconditions") or {}).items():
                if wanted and old["metadata"].get(key) != wanted:
                    raise ApiError(409, "Conflict", f"precondition failed: {key} is {old['metadata'].get(key)}")
            if old["metadata"].get("finalizers"):
                old["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return self._put("MODIFIED", kind, old, self.objects[kind, namespace, name])
            gone = self._drop(kind, namespace, name)
            if options.get("propagationPolicy") != "Orphan":
                self.collect_garbage()
            return gone

    def collect_garbage(self) -> None:
        """Take away every object all of whose owners are gone."""
        with self.changed:
            while True:
                living = {item["metadata"]["uid"] for item in self.objects.values()}
                orphans = [
                    key
                    for key, item in self.objects.items()
                    if (owners := item["metadata"].get("ownerReferences"))
                    and not any(owner["uid"] in living for owner in owners)
                ]
                if not orphans:
                    return
                for key in orphans:
                    self._drop(*key)

    def compact(self) -> None:
        """Forget all changes so far, as etcd does after five minutes."""
        with self.changed:
            self.compacted = self.version
            self.events.clear()
            self.changed.notify_all()

    def since(self, version: int) -> list[Event]:
        """Changes after `version`; raises ApiError 410 where they are forgotten."""
        with self.changed:
            if version < self.compacted:
                raise ApiError(410, "Expired", f"too old resource version: {version} ({self.compacted})")
            return [event for event in self.events if event.version > version]

    def _check(self, kind: Kind, item: Object) -> None:
        if item.get("kind", kind.kind) != kind.kind or item.get("apiVersion", kind.api_version) != kind.api_version:
            raise ApiError(
                400,
                "BadRequest",
                f"{item.get('apiVersion')} {item.get('kind')} was sent to {kind.api_version} {kind.kind}",
            )
        item |= {"kind": kind.kind, "apiVersion": kind.api_version}
        if self.strict and (problem := problem_of(kind, item)):
            raise ApiError(400, "BadRequest", f"strict decoding error: {kind.kind} {problem}")

    def _put(self, type_: str, kind: Kind, item: Object, before: Object | None) -> Object:
        self.version = next(self._versions)
        item["metadata"]["resourceVersion"] = str(self.version)
        self.objects[kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]] = item
        self._tell(Event(self.version, type_, kind, copy.deepcopy(item), copy.deepcopy(before)))
        return copy.deepcopy(item)

    def _drop(self, kind: Kind, namespace: str, name: str) -> Object:
        item = self.objects.pop((kind, namespace, name))
        self.version = next(self._versions)
        item["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Event(self.version, "DELETED", kind, copy.deepcopy(item), None))
        return copy.deepcopy(item)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self.changed.notify_all()
        for act in self.on_change:
            act(event)


def selected(item: Object, labels: str, fields: str) -> bool:
    """Whether both selectors match the object."""
    return matches_labels(labels, item["metadata"].get("labels") or {}) and matches_fields(fields, item)
