"""The patches that the Kubernetes API server takes: JSON patch, merge patch, strategic merge of lists by their keys."""

import copy
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "ownerReferences": "uid",
    "tolerations": "key",
    "conditions": "type",
}
"""List fields that a strategic merge joins, and the key that it joins them by."""


class PatchError(ValueError):
    """A patch that does not fit, or whose test failed."""


def apply_patch(kind: str, item: dict[str, Any], patch: Any) -> dict[str, Any]:
    """`item` patched; `kind` is the patch's content type."""
    if kind.startswith("application/json-patch"):
        import jsonpatch

        try:
            return dict(jsonpatch.apply_patch(item, patch))
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise PatchError(f"the server rejected our request due to an error in our request: {error}") from error
    if kind.startswith("application/merge-patch"):
        return dict(_merge(item, patch, {}))
    if kind.startswith(("application/strategic-merge-patch", "application/apply-patch")):
        return dict(_merge(item, patch, _KEYS))
    raise ValueError(f"patch of type {kind!r}")


def _merge(target: Any, patch: Any, keys: dict[str, str]) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, list) and name in keys and isinstance(merged.get(name), list):
            merged[name] = _merge_list(merged[name], value, keys[name], keys)
        else:
            merged[name] = _merge(merged.get(name), value, keys)
    return merged


def _merge_list(target: list[Any], patch: list[Any], key: str, keys: dict[str, str]) -> list[Any]:
    merged = copy.deepcopy(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            return copy.deepcopy(patch)
        found = [index for index, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == item[key]]
        if item.get("$patch") == "delete":
            merged = [old for index, old in enumerate(merged) if index not in found]
        elif found:
            merged[found[0]] = _merge(merged[found[0]], item, keys)
        else:
            merged.append(copy.deepcopy(item))
    return merged
