"""When a training's validation cost falls below that of TWAP passive: a first rule to beat, and soon."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.execution.ppo import Update
    from training.execution.world import Validation

TIMES_FILE = "times.json"
PACES = (1, 6, 15)
"""Decisions a slice at which TWAP passive follows the price; the best of them counts, as in the evaluation's tuning."""


def twap_passive_bps(validation: "Validation") -> float:
    """Mean cost of TWAP passive at its best pace on the validation parents, bps."""
    from training.execution.baselines import TwapPassive
    from training.execution.run import run_policy

    world, costs = validation.world, []
    for pace in PACES:
        if world.execution.interval_ns % pace == 0:
            rows = run_policy(TwapPassive(pace), world.days, validation.parents, world.execution).rows
            costs.append(float(rows["is_bps"].mean()))
    return min(costs)


def first_below(curve: "Sequence[Update]", cost_bps: float) -> "Update | None":
    """The first update whose validation cost is below `cost_bps`; update 0 is the policy that training started from."""
    return next((row for row in curve if row.validation_bps is not None and row.validation_bps < cost_bps), None)


@dataclass
class Stopwatch:
    """Wall and processor seconds of a training: what all seeds share, then each update of each seed."""

    started: tuple[float, float] = field(default_factory=lambda: _now())
    shared: tuple[float, float] = (0.0, 0.0)
    seeds: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, seed: int, resumed: bool) -> None:
        """A seed starts; `resumed`: what its checkpoint knows is told again, so that its early times say nothing."""
        if not self.seeds:
            self.shared = _since(self.started)
        self.seeds.append({"seed": seed, "resumed": resumed, "from": _now(), "updates": []})

    def mark(self) -> None:
        """An update of the present seed is done, its validation included."""
        self.seeds[-1]["updates"].append(_since(self.seeds[-1]["from"]))

    def times(self, curves: "Sequence[Sequence[Update]]", cost_bps: float) -> dict[str, Any]:
        """Seconds of the preparation that all seeds share, and by seed: until below `cost_bps`, and in all.

        A seed's seconds start with the preparation. Those until it was below are None where it never was or where the
        training went on from a checkpoint.
        """
        rows = []
        for run, curve in zip(self.seeds, curves, strict=True):
            below = first_below(curve, cost_bps)
            spent = [tuple(s + own for s, own in zip(self.shared, at, strict=True)) for at in run["updates"]]
            known = below is not None and not run["resumed"]
            reached = spent[below.update] if below is not None and known else (None, None)
            rows.append(
                {
                    "seed": run["seed"],
                    "below_at_env_steps": None if below is None else below.env_steps,
                    "below_after_wall_s": _rounded(reached[0]),
                    "below_after_cpu_s": _rounded(reached[1]),
                    "wall_s": _rounded(spent[-1][0]),
                    "cpu_s": _rounded(spent[-1][1]),
                }
            )
        return {"twap_passive_bps": cost_bps, "preparation_wall_s": _rounded(self.shared[0]), "seeds": rows}


def write_times(folder: Path, times: dict[str, Any]) -> None:
    """Write `times` beside the curves: the one file of a training that differs from run to run."""
    (folder / TIMES_FILE).write_text(json.dumps(times, indent=1, sort_keys=True) + "\n")


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _now()
    return wall - start[0], cpu - start[1]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
