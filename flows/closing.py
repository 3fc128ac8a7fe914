"""What a night did, as one object for programs and one table for people."""

from pathlib import Path
from typing import Any

from flows.ids import lake
from flows.lake import StageResult


def closing_report(stages: list[StageResult]) -> dict[str, Any]:
    """The object that `shortfall nightly --json` prints (its form stands in docs/architecture.md)."""
    by_stage = {result.stage: result for result in stages}
    ingest, clean = by_stage["ingest"].summary, by_stage["clean"].summary
    evaluation, decision = by_stage["evaluate"], by_stage["promote"].summary
    established = {row["a"]: row["established"] for row in evaluation.summary["comparisons"] if row["b"] == "champion"}
    established |= {row["b"]: row["established"] for row in evaluation.summary["comparisons"] if row["a"] == "agent"}
    keys = ("mean_is_bps", "ci_low", "ci_high", "n")
    return {
        "stages": [
            {"name": r.stage, "id": r.id, "status": "done", "skipped": r.skipped, "seconds": round(r.seconds, 2)}
            for r in stages
        ],
        "rows": {
            "vendor": ingest["vendor_rows"],
            "in": clean["rows_in"],
            "kept": clean["rows_kept"],
            "quarantined": clean["by_rule"],
            "by_symbol_and_day": _by_day(ingest, clean),
        },
        "signal": by_stage["train_signal"].summary["skill"],
        "evaluation": {
            name: {**{key: row[key] for key in keys}, "established": established.get(name)}
            for name, row in evaluation.summary["policies"].items()
        },
        "findings": evaluation.summary["established"],
        "champion": {key: decision[key] for key in ("name", "version", "moved", "reason")},
        "report": str(lake().folder("evaluate", evaluation.id) / "report.html"),
    }


def _by_day(ingest: dict[str, Any], clean: dict[str, Any]) -> list[dict[str, Any]]:
    """Vendor rows, events in, kept and quarantined of each symbol and day."""
    vendor = {(p["symbol"], p["date"]): p["vendor_rows"] for p in ingest["partitions"]}
    return [
        {
            "symbol": p["symbol"],
            "date": p["date"],
            "vendor": vendor[p["symbol"], p["date"]],
            "in": p["rows_in"],
            "kept": p["rows_kept"],
            "quarantined": p["by_rule"],
        }
        for p in clean["partitions"]
    ]


def closing_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The closing table as rows of text: stage, what it did, seconds."""
    rows, champion = report["rows"], report["champion"]
    quarantined = sum(rows["quarantined"].values())
    agent = report["evaluation"]["agent"]
    interval = _interval(agent["ci_low"], agent["ci_high"])
    did = {
        "ingest": f"{rows['vendor']:,} vendor rows, {rows['in']:,} events",
        "clean": f"{rows['kept']:,} kept + {quarantined:,} quarantined = {rows['kept'] + quarantined:,}",
        "validate": "gate passed",
        "train_signal": "; ".join(
            f"{h} s R2 {s['r2']:.4f} ({'established' if s['established'] else 'not established'})"
            for h, s in report["signal"].items()
        ),
        "evaluate": f"agent {agent['mean_is_bps']:+.3f} bps, 95% {interval}, n {agent['n']:,}",
        "promote": f"champion {champion['name']} v{champion['version']} ({'moved' if champion['moved'] else 'kept'})",
    }
    return [
        {
            "stage": stage["name"],
            "result": did.get(stage["name"], "done"),
            "seconds": "already done" if stage["skipped"] else f"{stage['seconds']:.1f}",
        }
        for stage in report["stages"]
    ]


def _interval(low: float | None, high: float | None) -> str:
    """An interval as text; without bounds where there were too few clusters to give any."""
    return "too few clusters" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def _accounting(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of each symbol and day, and their sums."""
    rows = [
        {
            "symbol": part["symbol"],
            "date": part["date"],
            "vendor rows": part["vendor"],
            "events in": part["in"],
            "kept": part["kept"],
            "quarantined": sum(part["quarantined"].values()),
        }
        for part in report["rows"]["by_symbol_and_day"]
    ]
    total = {name: sum(row[name] for row in rows) for name in list(rows[0])[2:]}
    return [*rows, {"symbol": "all", "date": "", **total}]


def _numbers(title: str, names: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    """A table whose `names` columns are text and whose others are counts."""
    from rich.table import Table

    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in names else "right")
    for row in rows:
        table.add_row(*(str(value) if name in names else f"{value:,}" for name, value in row.items()))
    return table


def print_closing(report: dict[str, Any]) -> None:
    """Print the closing tables: stages, every input row by symbol and day, policies, champion, report."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 120  # a log has no width of its own
    stages = Table(title="Stages")
    for column in ("stage", "result", "seconds"):
        stages.add_column(column, justify="right" if column == "seconds" else "left")
    for row in closing_rows(report):
        stages.add_row(*row.values())
    console.print(stages)

    console.print(_numbers("Every input row", ("symbol", "date"), _accounting(report)))
    rules = [{"rule": rule, "rows": count} for rule, count in report["rows"]["quarantined"].items() if count]
    console.print(_numbers("Quarantined by rule", ("rule",), rules or [{"rule": "none", "rows": 0}]))

    policies = Table(title="Implementation shortfall on the held-out days, bps (lower is better)")
    for column in ("policy", "mean", "95% interval", "orders", "against the agent"):
        policies.add_column(column, justify="left" if column in ("policy", "against the agent") else "right")
    for name, row in sorted(report["evaluation"].items(), key=lambda item: item[1]["mean_is_bps"]):
        verdict = {True: "difference established", False: "not established", None: ""}[row["established"]]
        policies.add_row(
            name,
            f"{row['mean_is_bps']:+.3f}",
            _interval(row["ci_low"], row["ci_high"]),
            f"{row['n']:,}",
            "" if name == "agent" else verdict,
        )
    console.print(policies)
    for sentence in report["findings"]:
        console.print(f"  {sentence}", highlight=False)
    champion = report["champion"]
    moved = "moved" if champion["moved"] else "kept"
    console.print(
        f"Champion {champion['name']} v{champion['version']} ({moved}): {champion['reason']}", highlight=False
    )
    if all(stage["skipped"] for stage in report["stages"]):
        console.print("Every stage was already done; nothing was done again (--force STAGE redoes one).")
    console.print(f"Report: {Path(report['report'])}", highlight=False, soft_wrap=True)
