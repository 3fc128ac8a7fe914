"""JSON of the decide service, strict in both directions: unknown fields and wrong types are refused."""

from typing import Any

import msgspec
import numpy as np

from serving.decide.protocol import DecideError, Policies, Policy, PolicyDecision

BODY_MAX = 2**20
"""Bytes of a request: 32 stacked observations take a fiftieth of it."""


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/decide`."""

    sha256: str
    observation: list[float]
    action_mask: list[int] | None = None


class DecideReply(msgspec.Struct, forbid_unknown_fields=True):
    """To `POST /v1/decide`."""

    sha256: str
    version: int
    action: int | list[float]
    distribution: list[float]


class ForecastRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/forecast`."""

    sha256: str
    features: list[list[float]]


class ForecastReply(msgspec.Struct, forbid_unknown_fields=True):
    """To `POST /v1/forecast`."""

    sha256: str
    version: int
    forecast_bps: list[float]


class PolicyRow(msgspec.Struct, forbid_unknown_fields=True):
    """A loaded policy in `GET /v1/policies`."""

    version: int
    sha256: str
    kind: str
    action_set: str
    stack: int
    signals: bool
    execution: dict[str, Any]
    feature_names: list[str]
    signal_window: int
    horizons_s: list[int]


class PolicyName(msgspec.Struct, forbid_unknown_fields=True):
    """A champion or challenger."""

    version: int
    sha256: str


class PoliciesReply(msgspec.Struct, forbid_unknown_fields=True):
    """To `GET /v1/policies`."""

    champion: PolicyName | None
    challenger: PolicyName | None
    loaded: list[PolicyRow]
    refused: list[str] = []  # what stands in the registry and was refused, each with its reason


class ErrorReply(msgspec.Struct, forbid_unknown_fields=True):
    """To whatever was not answered."""

    error: str
    reason: str
    sha256: str | None = None


def row_of(policy: Policy) -> PolicyRow:
    """A policy as JSON shows it."""
    return PolicyRow(
        policy.version, policy.sha256, policy.kind, policy.action_set, policy.stack, policy.signals,
        dict(policy.execution), list(policy.feature_names), policy.signal_window, list(policy.horizons_s),
    )  # fmt: skip


def policies_reply(policies: Policies, refused: list[str]) -> PoliciesReply:
    """What may be asked, as JSON shows it."""
    champion, challenger = (
        None if item is None else PolicyName(item.version, item.sha256)
        for item in (policies.champion, policies.challenger)
    )
    return PoliciesReply(champion, challenger, [row_of(item) for item in policies.loaded], refused)


def policies_of(reply: PoliciesReply) -> Policies:
    """The inverse. Raises DecideError where champion or challenger are not among the loaded."""
    loaded = {
        row.sha256: Policy(
            row.version, row.sha256, row.kind, row.action_set, row.stack, row.execution, tuple(row.feature_names),
            row.signal_window, tuple(row.horizons_s),
        )
        for row in reply.loaded
    }  # fmt: skip
    found = []
    for item in (reply.champion, reply.challenger):
        if item is not None and item.sha256 not in loaded:
            raise DecideError("refused", f"policy {item.sha256} is announced and not loaded")
        found.append(None if item is None else loaded[item.sha256])
    return Policies(found[0], found[1], tuple(loaded.values()))


def decision_of(reply: DecideReply) -> PolicyDecision:
    """A reply as the answer of a policy; a float32 comes back as the float32 that it was."""
    action = reply.action
    values = action if isinstance(action, int) else tuple(float(np.float32(value)) for value in action)
    return PolicyDecision(reply.sha256, reply.version, values, tuple(reply.distribution))
