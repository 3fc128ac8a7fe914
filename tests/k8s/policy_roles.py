"""Rights: what a Role gives, and what code asks for, read out of the calls that it makes to Kubernetes' clients."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from manifests import Document, of_kind

Right = tuple[str, str, str]  # API group, resource, verb

_CALL = re.compile(r"^(create|read|list|delete|patch|replace|get)_(?:namespaced_)?(?:collection_namespaced_)?(\w+)$")
_VERB = {"read": "get", "replace": "update"}
_RESOURCES = {
    "job": ("batch", "jobs"),
    "pod": ("", "pods"),
    "pod_log": ("", "pods/log"),
    "persistent_volume_claim": ("", "persistentvolumeclaims"),
    "secret": ("", "secrets"),
    "deployment": ("apps", "deployments"),
    "stateful_set": ("apps", "statefulsets"),
}


def granted(documents: list[Document], namespace: str, account: str) -> set[Right]:
    """Every right that a service account has in its namespace, by whatever is bound to it.

    Raises AssertionError where it has any in the whole cluster, or a wildcard.
    """
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    assert not [b for b in of_kind(documents, "ClusterRoleBinding") if subject in b["subjects"]]
    bound = [b["roleRef"]["name"] for b in of_kind(documents, "RoleBinding") if subject in b["subjects"]]
    found: set[Right] = set()
    for role in of_kind(documents, "Role"):
        if role["metadata"]["namespace"] == namespace and role["metadata"]["name"] in bound:
            for rule in role["rules"]:
                assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
                found |= {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    return found


def asked(paths: Iterable[Path], custom: tuple[str, str] | None = None) -> set[Right]:
    """Every right that the calls in these files need; `custom` is the group and plural of their custom objects."""
    found: set[Right] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            match = _CALL.match(node.attr) if isinstance(node, ast.Attribute) else None
            if match is None:
                continue
            verb, what = _VERB.get(match[1], match[1]), match[2]
            if what == "custom_object" and custom is not None:
                found.add((*custom, verb))
            elif what in _RESOURCES:
                found.add((*_RESOURCES[what], verb))
    return found
