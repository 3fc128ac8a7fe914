"""The ledger of test days: every opening of a held-out day is written down before its first order is played.

`<lake>/test_days.jsonl`, one line an opening, only ever appended to. A test day is fresh once: what an evaluation found
on it can steer whoever trains next, so later evaluations of the day say how many there were before.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.ids import lake

FILE = "test_days.jsonl"


def open_test_days(
    evaluation: str, instruments: Sequence[str], days: Sequence[str], bundles: Mapping[str, str]
) -> dict[str, int]:
    """Write down that `evaluation` opens `days` of `instruments`; how many others opened each of them before.

    `bundles` names the policies and their sha256. An evaluation that goes on after a kill, or is done again, is no
    other one and counts only what came before its own first opening, so that it says the same again.
    """
    path = lake().root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        earlier = _before(path, evaluation)
        entry = {
            "opened_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "evaluation": evaluation,
            "instruments": sorted(instruments),
            "days": sorted(days),
            "bundles": dict(bundles),
        }
        cut = path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")  # by a crash
        ledger.write("\n" * cut + json.dumps(entry, sort_keys=True) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return {day: len({item["evaluation"] for item in earlier if _shares(item, instruments, day)}) for day in days}


def read_ledger() -> list[dict[str, Any]]:
    """Every opening in the order that they happened; a line that a crash cut short is left out."""
    path = lake().root / FILE
    return _read(path) if path.is_file() else []


def _before(path: Path, evaluation: str) -> list[dict[str, Any]]:
    entries = _read(path)
    own = next((index for index, item in enumerate(entries) if item["evaluation"] == evaluation), len(entries))
    return entries[:own]


def _read(path: Path) -> list[dict[str, Any]]:
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _shares(entry: Mapping[str, Any], instruments: Sequence[str], day: str) -> bool:
    return day in entry["days"] and bool(set(entry["instruments"]) & set(instruments))
