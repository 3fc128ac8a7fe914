"""The gate's findings as a page that a person reads: what was set aside, what stopped the run, and every limit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feature_repo.pipeline.gx_run import sentence

_SHOWN = 200  # symbol-days in the table


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write `validation.md` from the content of `validation.json`."""
    partitions, excluded, checks = report["partitions"], report["excluded"], report["checks"]
    head = "Passed" if report["success"] else "Stopped the run"
    lines = [
        "# Data gate",
        "",
        f"**{head}**: {len(partitions)} symbol-days, {report['expectations']} expectations, {report['failed']} failed, "
        f"{len(excluded)} symbol-days set aside.",
        "",
    ]
    if report["stops"]:
        lines += ["## What stopped the run", "", *(f"- {item}" for item in report["stops"]), ""]
    if excluded:
        rows = [(e["venue"], e["symbol"], e["date"], e["expectation"], f"{e['rows']:,}") for e in excluded]
        lines += ["## Set aside", "", *_table(("venue", "symbol", "date", "expectation", "rows"), rows), ""]
        warnings = [check for check in checks if not check["success"] and check["severity"] != "critical"]
        lines += [*(f"- {sentence(check)}" for check in warnings), ""]
    telling = ("rows", "session_coverage", "quarantine_share", "book_known_share", "crossed_share", "book_valid_share")
    columns = [name for name in telling if name in partitions[0]]
    shown = [(item["partition"], *(_figure(item[name]) for name in columns)) for item in partitions[:_SHOWN]]
    lines += ["## Symbol-days", "", *_table(("symbol-day", *columns), shown), ""]
    if len(partitions) > _SHOWN:
        lines += [f"The first {_SHOWN} of {len(partitions)}; all are in `validation.json`.", ""]
    lines += ["## Expectations", ""]
    found = [
        (
            check["suite"],
            check["description"],
            _seen(check["observed"]),
            "yes" if check["success"] else "FAILED",
        )
        for check in checks
        if check["description"]
    ]
    lines += [*_table(("suite", "expectation", "seen", "met"), found), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    return [_row(names), _row(["---"] * len(names)), *(_row(row) for row in rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _seen(observed: Any) -> str:
    if isinstance(observed, dict) and {"min", "max"} <= observed.keys():
        return f"{_figure(observed['min'])} .. {_figure(observed['max'])}"
    return "-" if observed is None else str(observed)
