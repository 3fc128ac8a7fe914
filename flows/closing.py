"""What a night did, as one object for programs and one table for people."""

from pathlib import Path
from typing import Any

from flows.accounts import print_accounting, rows_report, wide_console
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
        "rows": rows_report(ingest, clean),
        "signal": by_stage["train_signal"].summary["skill"],
        "evaluation": {
            name: {**{key: row[key] for key in keys}, "established": established.get(name)}
            for name, row in evaluation.summary["policies"].items()
        },
        "findings": evaluation.summary["established"],
        "champion": {key: decision[key] for key in ("name", "version", "moved", "reason")},
        "report": str(lake().folder("evaluate", evaluation.id) / "report.html"),
    }


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


def print_closing(report: dict[str, Any]) -> None:
    """Print the closing tables: stages, every input row by symbol and day, policies, champion, report."""
    from rich.table import Table

    console = wide_console()
    stages = Table(title="Stages")
    for column in ("stage", "result", "seconds"):
        stages.add_column(column, justify="right" if column == "seconds" else "left")
    for row in closing_rows(report):
        stages.add_row(*row.values())
    console.print(stages)

    print_accounting(report["rows"], console)
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
