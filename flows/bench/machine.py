"""What every benchmark answers with: the machine it ran on, and rows of a name, a value, a unit and a target."""

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Row:
    """One figure; `target` and `met` are None where nothing was promised."""

    name: str
    value: float
    unit: str  # a comparison of two things measured in one run has the unit `ratio`
    target: float | None = None
    met: bool | None = None


def result(rows: list[Row]) -> dict[str, Any]:
    """The object that `shortfall bench NAME --json` prints."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}


def machine() -> dict[str, Any]:
    """Facts of this machine that a figure depends on; no name, no path."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),  # what else ran: a loaded machine slows every figure but the ratios
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def print_result(found: dict[str, Any], title: str) -> None:
    """Print the figures as a table."""
    from rich.table import Table

    from flows.accounts import wide_console

    console = wide_console()
    table = Table(title=title, caption=", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    for column in ("figure", "value", "unit", "target", "met"):
        table.add_column(column, justify="right" if column in ("value", "target") else "left")
    for row in found["rows"]:
        target = "" if row["target"] is None else f"{row['target']:,.12g}"
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        table.add_row(
            row["name"],
            f"{row['value']:,.4g}" if row["value"] < 100 else f"{row['value']:,.0f}",
            row["unit"],
            target,
            met,
        )
    console.print(table)
