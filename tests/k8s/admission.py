"""ValidatingAdmissionPolicies as the API server applies them: CEL, its types checked, over what is posted."""

import re
from collections.abc import Mapping
from typing import Any

from manifests import Document, of_kind


def _environment() -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables=dict.fromkeys(("object", "oldObject", "request"), cel.Type.DYN))


def _written_out(expression: str, variables: Mapping[str, str]) -> str:
    """An expression with each `variables.NAME` replaced by what the policy says it is."""
    return re.sub(r"\bvariables\.([a-z]+)", lambda match: f"({variables[match[1]]})", expression)


def _variables(spec: Document) -> dict[str, str]:
    known: dict[str, str] = {}
    for item in spec.get("variables", []):
        known[item["name"]] = _written_out(item["expression"], known)
    return known


def compile_all(documents: list[Document]) -> int:
    """Compile every expression of every policy; how many there are. Raises what CEL says of one that is wrong."""
    count, environment = 0, _environment()
    for policy in of_kind(documents, "ValidatingAdmissionPolicy"):
        spec = policy["spec"]
        known = _variables(spec)
        for item in (*spec.get("matchConditions", []), *spec["validations"]):
            for expression in (item["expression"], item.get("messageExpression")):
                if expression is not None:
                    environment.compile(_written_out(expression, known))
                    count += 1
    return count


def refusals(documents: list[Document], item: Document, user: str, resource: str) -> list[str]:
    """Why the policies refuse that `user` creates `item` of a resource (`jobs`); empty where they do not.

    An expression that fails, as where a field is missing, is a refusal too (failurePolicy Fail).
    """
    found, environment = [], _environment()
    for policy in of_kind(documents, "ValidatingAdmissionPolicy"):
        spec = policy["spec"]
        if not any(resource in rule["resources"] for rule in spec["matchConstraints"]["resourceRules"]):
            continue
        known, data = _variables(spec), {"object": item, "request": {"userInfo": {"username": user}}}

        def value(expression: str, known: Mapping[str, str] = known, data: Mapping[str, Any] = data) -> Any:
            return environment.compile(_written_out(expression, known)).eval(data=data).value()

        if not all(value(condition["expression"]) is True for condition in spec.get("matchConditions", [])):
            continue
        for validation in spec["validations"]:
            passed = value(validation["expression"])
            if passed is not True:
                said = validation.get("message") or value(validation["messageExpression"])
                found.append(f"{policy['metadata']['name']}: {said if passed is False else passed}")
    return found
