"""Accounts for every row that cleaning was given: kept, or quarantined by which rule, by symbol and day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition
from feature_repo.pipeline.rules import RULES

EVENTS_FILE = "events.parquet"
ACCOUNTING_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("venue", "symbol", "date", "rule")]
    + [pa.field("rows", pa.int64(), nullable=False)]
)
HOLES_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("venue", "symbol", "date")]
    + [pa.field("sequence", pa.int64(), nullable=False)]  # of the CLEAR flagged GAP
    + [pa.field("from_ns", pa.int64(), nullable=False)]  # its time
    + [pa.field("until_ns", pa.int64())]  # when a snapshot made the book whole again; null: not on this day
    + [pa.field("missing", pa.int64(), nullable=False)]  # updates missing by the vendor's numbering; 0: unknown
    + [pa.field("rows_lost", pa.int64(), nullable=False)]  # quarantined as sequence_gap meanwhile
)
KEPT = "kept"


def partition_account(partition: Partition, rows_in: int, counts: dict[str, int]) -> dict[str, Any]:
    """Account for one partition's rows; `counts` holds rows by rule and under `kept`.

    Raises ShortfallError where rows are lost or invented, InputError where none is kept.
    """
    by_rule = {name: counts[name] for name in RULES if counts.get(name)}
    kept, quarantined = counts.get(KEPT, 0), sum(by_rule.values())
    if kept + quarantined != rows_in:
        raise ShortfallError(
            f"{partition.instrument_id} {partition.date}: {rows_in} rows came in but {kept} kept + {quarantined} "
            f"quarantined = {kept + quarantined} went out; this is a fault in cleaning, nothing is published"
        )
    if kept == 0:
        reasons = ", ".join(f"{name} {rows}" for name, rows in by_rule.items())
        raise InputError(
            f"{partition.instrument_id} {partition.date}: none of {rows_in} rows is fit for use ({reasons}); check the "
            f"file and the instrument's session windows, or leave this day out"
        )
    return {
        "venue": partition.venue,
        "symbol": partition.symbol,
        "date": partition.date,
        "rows_in": rows_in,
        "rows_kept": kept,
        "rows_quarantined": quarantined,
        "by_rule": by_rule,
    }


def write_accounting(accounts: list[dict[str, Any]], out_dir: Path) -> dict[str, Any]:
    """Write the accounting into `out_dir`; return the summary of all partitions.

    `accounting.parquet` (ACCOUNTING_SCHEMA) and `holes.parquet` (HOLES_SCHEMA) are for programs, `accounting.md` for
    people, `accounting.json` is the summary.
    """
    rows = [
        {"venue": a["venue"], "symbol": a["symbol"], "date": a["date"], "rule": rule, "rows": count}
        for a in accounts
        for rule, count in ({KEPT: a["rows_kept"]} | a["by_rule"]).items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, ACCOUNTING_SCHEMA), out_dir / "accounting.parquet", compression="zstd")
    holes = [
        {name: a[name] for name in ("venue", "symbol", "date")} | hole for a in accounts for hole in a.get("holes", [])
    ]
    pq.write_table(pa.Table.from_pylist(holes, HOLES_SCHEMA), out_dir / "holes.parquet", compression="zstd")
    totals = {name: sum(a["by_rule"].get(name, 0) for a in accounts) for name in RULES}
    summary: dict[str, Any] = {
        name: sum(a[name] for a in accounts) for name in ("rows_in", "rows_kept", "rows_quarantined")
    }
    partitions = [{**a, "holes": len(a.get("holes", []))} for a in accounts]
    summary |= {"by_rule": {name: rows for name, rows in totals.items() if rows}, "holes": len(holes)}
    summary |= {"partitions": partitions}
    (out_dir / "accounting.json").write_text(json.dumps(summary, indent=1) + "\n")
    (out_dir / "accounting.md").write_text(_as_markdown(summary))
    return summary


def _as_markdown(summary: dict[str, Any]) -> str:
    """One line a symbol and day, one column a rule that caught anything, and the notes below."""
    rules = list(summary["by_rule"])
    head = ["venue", "symbol", "date", "rows in", "kept", "quarantined", *rules, "holes"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * 3 + ["---:"] * (len(head) - 3)) + " |"]
    total = {"venue": "all", "symbol": "", "date": "", **summary}
    for row in [*summary["partitions"], total]:
        numbers = [row[name] for name in ("rows_in", "rows_kept", "rows_quarantined")]
        numbers += [row["by_rule"].get(name, 0) for name in rules] + [row["holes"]]
        cells = [row["venue"], row["symbol"], row["date"], *(f"{number:,}" for number in numbers)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        f"* {row['venue']}:{row['symbol']} {row['date']}: {name} {value:,}"
        for row in summary["partitions"]
        for name, value in row.get("notes", {}).items()
    ]
    meanings = [f"* {name}: {RULES[name]}." for name in rules]
    blocks = ["# Rows in = rows kept + rows quarantined", "\n".join(lines)]
    blocks += ["## Notes\n\n" + "\n".join(notes)] * bool(notes) + ["## Rules\n\n" + "\n".join(meanings)] * bool(rules)
    return "\n\n".join(blocks) + "\n"
