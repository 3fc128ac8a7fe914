"""The kinds that the fake API server serves, and the schemas that it holds what is written to."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas" / "kuberay"
VERSION = "1.36"


class Kind(NamedTuple):
    """One kind of object: where it is served."""

    group: str  # "" is the core group
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


KINDS = [
    *(Kind("", "v1", plural, kind) for plural, kind in (
        ("pods", "Pod"), ("services", "Service"), ("configmaps", "ConfigMap"), ("secrets", "Secret"),
        ("persistentvolumeclaims", "PersistentVolumeClaim"), ("serviceaccounts", "ServiceAccount"), ("events", "Event"),
    )),
    Kind("", "v1", "nodes", "Node", False),
    Kind("", "v1", "namespaces", "Namespace", False),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob"),
    Kind("apps", "v1", "deployments", "Deployment"),
    Kind("apps", "v1", "statefulsets", "StatefulSet"),
    Kind("apps", "v1", "replicasets", "ReplicaSet"),
    Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", False),
    Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False),
    Kind("ray.io", "v1", "rayjobs", "RayJob"),
    Kind("ray.io", "v1", "rayclusters", "RayCluster"),
]  # fmt: skip


@cache
def ray_schema(plural: str) -> dict[str, Any] | None:
    """KubeRay's schema of a kind, unknown fields refused; None where the schemas are not there."""
    path = SCHEMAS / f"ray.io_{plural}.yaml.gz"
    if not path.is_file():
        return None
    definition = yaml.safe_load(gzip.decompress(path.read_bytes()))
    for version in definition["spec"]["versions"]:
        if version["name"] == "v1":
            return _closed(version["schema"]["openAPIV3Schema"], top=True)
    raise ValueError(f"{path}: no version v1")


def problem_of(kind: Kind, item: dict[str, Any]) -> str | None:
    """Why a strict API server refuses the object as it is written; None where it does not."""
    if kind.group == "ray.io":
        return _ray_problem(kind.plural, item)
    return first_error(strict_validator(kind.kind, kind.api_version), item)


def first_error(validator: Any, item: dict[str, Any]) -> str | None:
    """Path and message of an error that the validator finds; None where there is none."""
    for error in validator.iter_errors(item):
        return f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
    return None


@cache
def strict_validator(kind: str, api_version: str) -> Any:
    """What `kubernetes_validate.validate(..., strict=True)` makes anew for each object, made once."""
    import jsonschema
    from kubernetes_validate import utils
    from referencing import Registry, Resource

    group, _, version = api_version.rpartition("/")
    name = f"{kind.lower()}-{group.partition('.')[0]}-{version}" if group else f"{kind.lower()}-{version}"
    folder = f"kubernetes-json-schema/v{_schema_version()}-local-strict"
    schema, definitions = (utils.schema_contents(f"{folder}/{file}.json", VERSION) for file in (name, "_definitions"))
    registry: Any = Resource.from_contents(definitions) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry.crawl())


def _schema_version() -> str:
    from kubernetes_validate import utils

    return next(item for item in utils.all_versions() if utils.major_minor(item) == VERSION)


def _ray_problem(plural: str, item: dict[str, Any]) -> str | None:
    import jsonschema

    schema = ray_schema(plural)
    return None if schema is None else first_error(jsonschema.Draft202012Validator(schema), item)


def _closed(schema: Any, top: bool = False) -> Any:
    """A structural schema that refuses what it does not name, as a strict API server does."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        name: {key: _closed(item) for key, item in value.items()} if name == "properties" else _closed(value)
        for name, value in schema.items()
    }
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("anyOf", None)
        closed["type"] = ["integer", "string"]
    if closed.pop("nullable", False) and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    closed.pop("format", None)
    if top:
        closed["properties"]["metadata"] = {"type": "object"}
    free = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in closed and "additionalProperties" not in closed and not free:
        closed["additionalProperties"] = False
    return closed
