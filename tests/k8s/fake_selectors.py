"""Label and field selectors as the Kubernetes API server reads them."""

import re
from typing import Any

_SET = re.compile(r"^\s*([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([\w./-]+)\s*(==|=|!=)\s*([\w./-]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([\w./-]+)\s*$")


class SelectorError(ValueError):
    """A selector that the server cannot read."""


def split_terms(selector: str) -> list[str]:
    """The terms of a selector: commas inside parentheses part no terms."""
    terms, depth, start = [], 0, 0
    for index, letter in enumerate(selector):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            terms.append(selector[start:index])
            start = index + 1
    terms.append(selector[start:])
    return [term for term in terms if term.strip()]


def matches_labels(selector: str, labels: dict[str, str]) -> bool:
    """Whether the labels meet every term; raises SelectorError for a term that is none."""
    return all(_label_term(term, labels) for term in split_terms(selector))


def matches_fields(selector: str, item: dict[str, Any]) -> bool:
    """Whether the object meets every term, `path=value` or `path!=value`."""
    for term in split_terms(selector):
        found = _EQUAL.match(term)
        if not found:
            raise SelectorError(f"field selector {term!r}")
        path, sign, wanted = found.groups()
        if (_field(item, path) == wanted) == (sign == "!="):
            return False
    return True


def _label_term(term: str, labels: dict[str, str]) -> bool:
    if found := _SET.match(term):
        key, operator, values = found.groups()
        inside = labels.get(key) in {value.strip() for value in values.split(",")}
        return inside if operator == "in" else not inside
    if found := _EQUAL.match(term):
        key, sign, value = found.groups()
        return (labels.get(key) == value) != (sign == "!=")
    if found := _EXISTS.match(term):
        absent, key = found.groups()
        return (key in labels) != bool(absent)
    raise SelectorError(f"label selector {term!r}")


def _field(item: dict[str, Any], path: str) -> str:
    value: Any = item
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
