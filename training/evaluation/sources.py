"""What the report shows of earlier stages: learning curves and signal skill, where their files are there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError


def read_curves(path: Path | None) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Validation cost (bps) against environment steps, a series for each seed of `curves.json`; none without the file.

    Raises InputError where the file is there and not of this form.
    """
    content = _read(path)
    series = {}
    try:
        for run in content.get("seeds", ()):
            rows = [row for row in run["curve"] if row["validation_bps"] is not None]
            series[f"seed {run['seed']}"] = (
                [row["env_steps"] for row in rows],
                [float(row["validation_bps"]) for row in rows],
            )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not learning curves ({error!r}); train the agent again") from error
    return {name: points for name, points in series.items() if points[0]}


def read_twap_passive(path: Path | None) -> float | None:
    """TWAP passive's cost on the validation parents of `curves.json`, bps; None without it."""
    validation = _read(path).get("validation")
    found = validation.get("twap_passive_bps") if isinstance(validation, dict) else None
    return float(found) if isinstance(found, int | float) else None


def read_skill(path: Path | None) -> list[dict[str, Any]]:
    """Rows of the signal's out-of-fold skill by horizon, before the test days and on them; none without the file.

    Raises InputError where the file is there and not of this form.
    """
    content = _read(path)
    rows = []
    try:
        for key, part in (("skill_before_test", "before the test"), ("skill_test", "test days")):
            for horizon, found in content.get(key, {}).items():
                shown = {name: found[name] for name in ("r2", "ci_low", "ci_high", "ic", "n", "verdict")}
                rows.append({"horizon_s": horizon, "days": part, **shown})
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not signal metrics ({error!r}); train the signal again") from error
    return rows


def _read(path: Path | None) -> Mapping[str, Any]:
    if path is None or not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable JSON ({error}); run the stage that writes it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, wanted an object")
    return content
