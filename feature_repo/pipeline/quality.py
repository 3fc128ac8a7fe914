"""The data gate: silver is held to Great Expectations suites; a fault sets a symbol-day aside or stops the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import GateFailedError, InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.parts import Part, Parts, parts_or_scratch, read_index
from feature_repo.pipeline.accounting import ACCOUNTING_SCHEMA, KEPT
from feature_repo.pipeline.drift import History
from feature_repo.pipeline.gate_report import write_report
from feature_repo.pipeline.gates import Gates, load_gates
from feature_repo.pipeline.gx_run import DATA_DOCS, run_suites, sentence
from feature_repo.pipeline.profiling import SAMPLE_FILE, profile_partition
from feature_repo.pipeline.suites import PROFILE_COLUMNS, event_suite, profile_suite
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA

if TYPE_CHECKING:
    import pandas as pd

EXCLUDED_FILE = "excluded.json"
_OPTIONAL = tuple(
    name for name in PROFILE_COLUMNS if name not in ("partition", "dataset", "schema_problem", "book_fault")
)


def validate(
    silver_dir: Path,
    out_dir: Path,
    progress: Progress = no_progress,
    limits: Gates | None = None,
    parts: Parts | None = None,
    gates_file: Path | None = None,
) -> dict[str, Any]:
    """Hold every partition of `silver_dir` to the gate.

    Two tables are validated for each kind of dataset: a profile with one row a partition, computed over all of its
    events, and an even sample of the events. Memory is bounded by one batch, one book and the samples.

    Args:
        silver_dir: what `clean` wrote.
        out_dir: empty folder; gets `validation.json`, `validation.md`, `excluded.json` and `data_docs/`.
        progress: told partitions profiled.
        limits: read beforehand; None: the platform's, with those of `gates_file` laid over them.
        parts: where the profiles of unchanged partitions are kept.
        gates_file: YAML of the form of `gates.yaml`.

    Returns:
        `success` True, `expectations` (checked), `failed` (of them), `data_docs` (path relative to `out_dir`),
        `partitions` (checked), `excluded`: symbol-days set aside, `{venue, symbol, date, expectation, rows}`, where
        `expectation` names all that failed, separated by commas.

    Raises:
        InputError: `silver_dir` is not the output of `clean`, or the gates are not of their form.
        GateFailedError: an expectation that stops the run failed, or no symbol-day is left; after all is written.
    """
    gates = limits or load_gates(gates_file)
    partitions = list_partitions(silver_dir, "events.parquet")
    if not partitions:
        raise InputError(f"{silver_dir}: no partition venue=/symbol=/date=/events.parquet to validate; run clean first")
    with parts_or_scratch(parts, out_dir) as store:
        profiled = []
        for partition, part in _profiles(silver_dir, partitions, gates, store):
            profiled.append((partition, part))
            progress(len(profiled), len(partitions), "partitions")
        rows = _profile_rows(profiled, _quarantined(silver_dir), gates)
        checks = _check(profiled, rows, gates, out_dir)
    return conclude(partitions, rows, checks, out_dir)


def conclude(
    partitions: list[Partition], rows: dict[str, dict[str, Any]], checks: list[dict[str, Any]], out_dir: Path
) -> dict[str, Any]:
    """Write what the checks found, and return the summary or raise GateFailedError; `rows` are the profile table."""
    excluded, stops = _verdict(partitions, rows, checks)
    summary = {
        "success": not stops,
        "expectations": len(checks),
        "failed": sum(not check["success"] for check in checks),
        "data_docs": DATA_DOCS,
        "partitions": len(partitions),
        "excluded": excluded,
    }
    report = {**summary, "stops": stops, "partitions": list(rows.values()), "checks": checks}
    (out_dir / "validation.json").write_text(json.dumps(report, indent=1) + "\n")
    (out_dir / EXCLUDED_FILE).write_text(json.dumps(excluded, indent=1) + "\n")
    write_report(report, out_dir / "validation.md")
    if stops:
        more = f" (and {len(stops) - 1} more expectations failed)" if len(stops) > 1 else ""
        raise GateFailedError(f"data gate: {stops[0]}{more}; see {DATA_DOCS} and validation.json")
    return summary


def _profiles(
    silver_dir: Path, partitions: list[Partition], gates: Gates, store: Parts
) -> Iterator[tuple[Partition, Part]]:
    """Each partition's profile, found or made."""
    instruments, keys = load_instruments(silver_dir), read_index(silver_dir, "events.parquet", partitions)
    for partition in partitions:
        path = partition.folder(silver_dir) / "events.parquet"
        instrument = instruments.get(partition.instrument_id)
        if instrument is None:
            raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run clean again")
        sample = gates.sample.rows_of_each
        key = store.key(
            stage="profile", silver=keys[partition], instrument=asdict(instrument), date=partition.date, sample=sample
        )
        yield partition, store.build(key, partial(_profile, path, instrument, partition.date, sample))


def _profile(path: Path, instrument: Any, date: str, sample: int, folder: Path) -> dict[str, Any]:
    return profile_partition(path, instrument, date, folder, sample)


def _profile_rows(
    profiled: list[tuple[Partition, Part]], quarantined: dict[Partition, dict[str, int]], gates: Gates
) -> dict[str, dict[str, Any]]:
    """The profile table, by partition: what the file says, what cleaning took out of it, and the days before it."""
    table: dict[str, dict[str, Any]] = {}
    histories: dict[str, History] = {}
    for partition, part in profiled:  # sorted: a symbol's days follow one another
        row = part.summary["row"]
        name = f"{partition.instrument_id} {partition.date}"
        if partition.instrument_id not in histories:
            histories = {partition.instrument_id: History(gates.trailing)}
        history = histories[partition.instrument_id]
        compared = history.compare(partition.date, row.get("rows"), part.summary["histograms"])
        shares = _shares(row.get("rows"), quarantined.get(partition, {}), gates.lawful_rules)
        known = {"partition": name, **row, **shares, **compared}
        table[name] = {column: known.get(column) for column in PROFILE_COLUMNS}
    return table


def _shares(rows: int | None, by_rule: dict[str, int], lawful_rules: frozenset[str]) -> dict[str, float | None]:
    """What cleaning took out: faults as a share of the rows in session, lawful rows as a share of all."""
    if rows is None:
        return {}
    outside = by_rule.get("out_of_session", 0)
    lawful = sum(count for rule, count in by_rule.items() if rule in lawful_rules and rule != "out_of_session")
    faulty = sum(count for rule, count in by_rule.items() if rule not in lawful_rules and rule != "out_of_session")
    inside, total = rows + faulty, rows + faulty + lawful + outside
    return {
        "quarantine_share": faulty / inside if inside else 0.0,
        "out_of_session_share": outside / total if total else 0.0,
        "lawful_share": lawful / (inside + lawful) if inside + lawful else 0.0,
    }


def _quarantined(silver_dir: Path) -> dict[Partition, dict[str, int]]:
    path = silver_dir / "accounting.parquet"
    try:
        table = pq.read_table(path, schema=ACCOUNTING_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable accounting of the cleaning ({error}); run clean again") from error
    found: dict[Partition, dict[str, int]] = {}
    for row in table.to_pylist():
        if row["rule"] != KEPT:
            found.setdefault(Partition(row["venue"], row["symbol"], row["date"]), {})[row["rule"]] = row["rows"]
    return found


def _check(
    profiled: list[tuple[Partition, Part]], rows: dict[str, dict[str, Any]], gates: Gates, out_dir: Path
) -> list[dict[str, Any]]:
    """Run a profile suite for each kind of dataset and scope of limits, and an event suite for each kind."""
    import pandas as pd

    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    samples: dict[str, list[tuple[str, Path]]] = {}
    for partition, part in profiled:
        row = rows[f"{partition.instrument_id} {partition.date}"]
        groups.setdefault((row["dataset"], gates.scope(partition)), []).append(row)
        if not row["schema_problem"]:
            samples.setdefault(row["dataset"], []).append((row["partition"], part.folder / SAMPLE_FILE))
    pairs = []
    for (dataset, scope), group in sorted(groups.items()):
        frame = pd.DataFrame(group, columns=list(PROFILE_COLUMNS))
        empty = [name for name in _OPTIONAL if frame[name].isna().all()]
        limits = gates.limits(scope, dataset)
        pairs.append((partial(profile_suite, f"{dataset} {scope}", limits), frame.astype(dict.fromkeys(empty, float))))
    quota = max(1, gates.sample.rows // len(profiled))
    for dataset, found in sorted(samples.items()):
        pairs.append((partial(event_suite, f"events of {dataset}", dataset), _sample(found, quota)))
    return run_suites(pairs, out_dir)


def _sample(found: list[tuple[str, Path]], quota: int) -> pd.DataFrame:
    """The kept samples together, at most `quota` rows of each."""
    tables = []
    for name, path in found:
        table = pq.read_table(path, partitioning=None).select(EVENT_SCHEMA.names)
        step = max(1, -(-table.num_rows // quota))
        table = table.take(pa.array(range(0, table.num_rows, step), pa.int64()))
        tables.append(table.add_column(0, "partition", pa.array([name] * table.num_rows, pa.string())))
    return pa.concat_tables(tables).to_pandas()


def _verdict(
    partitions: list[Partition], rows: dict[str, dict[str, Any]], checks: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Symbol-days to set aside, and in words what stops the run."""
    failed = [check for check in checks if not check["success"]]
    # A failure that no partition can be held to (it could not be evaluated, say) cannot be set aside.
    stops = [sentence(check) for check in failed if check["severity"] == "critical" or not check["partitions"]]
    aside: dict[str, list[str]] = {}
    for check in failed:
        if check["severity"] != "critical":
            for name in check["partitions"]:
                aside.setdefault(name, []).append(check["column"])
    excluded = []
    for partition in partitions:
        name = f"{partition.instrument_id} {partition.date}"
        if name in aside:
            entry = {"venue": partition.venue, "symbol": partition.symbol, "date": partition.date}
            excluded.append({**entry, "expectation": ",".join(aside[name]), "rows": rows[name]["rows"] or 0})
    if len(excluded) == len(partitions):
        first = next(check for check in failed if check["partitions"])
        stops.append(f"no symbol-day of {len(partitions)} is left: {sentence(first)}")
    return excluded, stops
