"""When a challenger replaces the champion, and which versions a journal says were live; pure functions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.errors import InputError
from serving.journal import canonical_json

MODEL_NAME = "execution-policy"
MOVES = ("promoted", "rolled_back")
"""Actions of a registry's journal that make a champion."""


@dataclass(frozen=True)
class Decision:
    """Whether the champion alias moves, and why."""

    moved: bool
    reason: str
    changes: bool = True  # False when there was nothing to decide (the version is the champion already)


def decide_promotion(evaluation: Mapping[str, Any], champion_name: str, challenger_name: str) -> Decision:
    """Move only where the paired comparison challenger minus champion is established below zero.

    `evaluation` is the content of evaluation.json; its comparison between the two names, either way round, gives the
    mean difference of implementation shortfall in bps, its interval, and whether it is established after adjustment.
    Raises InputError where the evaluation holds no such comparison or one that is not finite.
    """
    row, sign = _find_comparison(evaluation, champion_name, challenger_name)
    if row.get("ci_low") is None and row.get("ci_high") is None and "ci_low" in row and "ci_high" in row:
        text = f"{challenger_name} minus {champion_name}: too few clusters for an interval"
        return Decision(False, f"{text}: not established")
    bounds = sorted((sign * _number(row, "ci_low"), sign * _number(row, "ci_high")))
    mean = sign * _number(row, "mean_diff_bps")
    text = f"{challenger_name} minus {champion_name} {mean:+.3f} bps, 95% interval [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
    if row.get("established") is True and bounds[1] < 0:
        return Decision(True, f"{text}: established")
    if bounds[0] > 0:
        return Decision(False, f"{text}: the champion is better")
    return Decision(False, f"{text}: not established")


def live_stack(records: Iterable[Mapping[str, Any]]) -> list[int]:
    """Versions that were promoted and not rolled back, oldest first; the last one is the champion."""
    stack: list[int] = []
    for record in records:
        if record["action"] == "promoted":
            stack.append(int(record["version"]))
        elif record["action"] == "rolled_back" and stack:
            stack.pop()
    return stack


def _find_comparison(
    evaluation: Mapping[str, Any], champion_name: str, challenger_name: str
) -> tuple[Mapping[str, Any], int]:
    for row in evaluation.get("comparisons", ()):
        if (row.get("a"), row.get("b")) == (challenger_name, champion_name):
            return row, 1
        if (row.get("a"), row.get("b")) == (champion_name, challenger_name):
            return row, -1
    raise InputError(
        f"the evaluation has no comparison of {challenger_name!r} with {champion_name!r}; evaluate the two together"
    )


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"comparison of {row.get('a')!r} with {row.get('b')!r}: {key} is {value!r}, wanted a number")
    return float(value)


def signed_part(record: Mapping[str, Any]) -> bytes:
    """What the promoter signs of a record: the bundle's hash and what was decided about it, when."""
    names = ("action", "version", "bundle_sha256", "reason", "evidence_sha256", "forced", "ts_ns")
    return canonical_json({"model": MODEL_NAME, **{name: record[name] for name in names}})
