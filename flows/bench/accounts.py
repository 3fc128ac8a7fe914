"""`make data-tables DATA=FOLDER`: the accounting of every source of a folder of samples, as docs/data.md shows it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from feature_repo.errors import ShortfallError
from feature_repo.ticks.reader import IngestRequest
from flows.accounts import accounting_rows, rows_report

SOURCES = {
    "lean": "lean",
    "lean-forex": "lean",
    "shfe": "shfe",
    "lobster": "lobster",
    "binance": "binance",
    "bitstamp": "bitstamp",
    "databento": "databento",
}
"""Source and the folder of its sample, below the data folder."""


def run(source: str, data: Path, folder: Path, spark: Any) -> dict[str, Any]:
    """Ingest, clean, gate and build the features of one source; gives the rows, the gate's verdict and the books."""
    from feature_repo.lake import Partition
    from feature_repo.pipeline.build import build_features
    from feature_repo.pipeline.cleaning import clean
    from feature_repo.pipeline.quality import validate
    from feature_repo.ticks.ingest import ingest

    outputs = {name: folder / source / name for name in ("bronze", "silver", "gate", "features")}
    for output in outputs.values():
        output.mkdir(parents=True)
    read = ingest(IngestRequest(source, data), outputs["bronze"])
    cleaned = clean(outputs["bronze"], outputs["silver"], spark)
    report: dict[str, Any] = {"rows": rows_report(read, cleaned), "gate": "", "books": []}
    try:
        gate = validate(outputs["silver"], outputs["gate"])
        excluded = frozenset(Partition(item["venue"], item["symbol"], item["date"]) for item in gate["excluded"])
        report["gate"] = f"passed, {len(excluded)} of {len(cleaned['partitions'])} symbol-days set aside"
        built = build_features(outputs["silver"], outputs["features"], spark, excluded=excluded)
        report["books"] = built["partitions"]
    except ShortfallError as error:
        report["gate"] = f"stopped: {error}"
    return report


def markdown(source: str, report: dict[str, Any]) -> str:
    """The report as Markdown tables."""
    lines = [f"### {source}", ""]
    rows = accounting_rows(report["rows"])
    lines += _table(rows)
    rules = [{"rule": rule, "rows": count} for rule, count in report["rows"]["quarantined"].items() if count]
    lines += ["", *_table(rules or [{"rule": "none", "rows": 0}]), "", f"Gate: {report['gate']}", ""]
    if report["books"]:
        lines += [*_table(report["books"]), ""]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        values = [f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(values) + " |")
    return lines


def main(data: Path) -> int:
    """Print the tables of every source; 1 where one of them does not balance or cannot be read."""
    from feature_repo.pipeline.spark import spark_session

    spark, failed = spark_session(), 0
    with tempfile.TemporaryDirectory(prefix="shortfall-accounts-") as scratch:
        for source, name in SOURCES.items():
            try:
                report = run(source, data / name, Path(scratch), spark)
            except ShortfallError as error:
                print(f"### {source}\n\nerror: {error}\n", flush=True)
                failed = 1
                continue
            rows = report["rows"]
            if rows["in"] != rows["kept"] + sum(rows["quarantined"].values()):
                failed = 1
            print(markdown(source, report), flush=True)
    spark.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
