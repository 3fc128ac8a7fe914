"""The gate on features: every value is whole and within its definition, a row a second, before a model reads it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.parts import Parts, parts_or_scratch, read_index
from feature_repo.pipeline.definitions import DEFINITIONS, SIGN, Feature
from feature_repo.pipeline.gates import FEATURES_DATASET, Gates, Limit, load_gates
from feature_repo.pipeline.gx_run import run_suites
from feature_repo.pipeline.quality import conclude
from feature_repo.pipeline.suites import description, severity_of
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import Instrument, load_instruments

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite

FILE = "features.parquet"
FEATURE_COLUMNS = (
    "partition", "schema_problem", "rows", "empty_values", "not_finite", "out_of_range", "where", "stamps_not_rising",
    "grid_share", "book_valid_share",
)  # fmt: skip
_ROUNDING = 1e-5  # of float32, for shares at their ends
_AT_LEAST_ZERO = ("log(1 +", "trades per second", "ticks", "bps", "flag", "share")


def validate_features(
    features_dir: Path,
    out_dir: Path,
    progress: Progress = no_progress,
    parts: Parts | None = None,
    gates_file: Path | None = None,
) -> dict[str, Any]:
    """Hold every partition of `features_dir` to the limits for `features`; memory is one partition.

    Args:
        features_dir: what `build_features` wrote.
        out_dir: empty folder; gets what `quality.validate` writes.
        progress: told partitions profiled.
        parts: where the profiles of unchanged partitions are kept.
        gates_file: YAML of the form of `gates.yaml`, laid over it.

    Returns:
        As `quality.validate`; `excluded` are symbol-days with too little of a book.

    Raises:
        InputError: `features_dir` is not the output of `build_features`, or the gates are not of their form.
        GateFailedError: an expectation that stops the run failed, or no symbol-day is left; after all is written.
    """
    gates = load_gates(gates_file)
    partitions = list_partitions(features_dir, FILE)
    if not partitions:
        raise InputError(f"{features_dir}: no {FILE} below it; run the features stage again")
    instruments, keys = load_instruments(features_dir), read_index(features_dir, FILE, partitions)
    rows: dict[str, dict[str, Any]] = {}
    with parts_or_scratch(parts, out_dir) as store:
        for partition in partitions:
            path, instrument = partition.folder(features_dir) / FILE, instruments.get(partition.instrument_id)
            if instrument is None:
                raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run features again")
            key = store.key(
                stage="feature_profile", features=keys[partition], instrument=asdict(instrument), date=partition.date
            )
            part = store.build(key, partial(_profile, path, instrument, partition.date))
            name = f"{partition.instrument_id} {partition.date}"
            known = {"partition": name, **part.summary}
            rows[name] = {column: known.get(column) for column in FEATURE_COLUMNS}
            progress(len(rows), len(partitions), "partitions")
    return conclude(partitions, rows, _check(partitions, rows, gates, out_dir), out_dir)


def lowest_and_highest(feature: Feature) -> tuple[float, float]:
    """What a feature's definition allows: its unit says, and whether it changes sign with the sides of the book."""
    signed = feature.mirror == SIGN
    high = 1.0 + _ROUNDING if feature.unit in ("share", "flag") else np.inf
    if signed:
        return -high, high
    return (0.0 if feature.unit.startswith(_AT_LEAST_ZERO) and feature.unit != "bps per lot" else -np.inf), high


def _profile(path: Path, instrument: Instrument, date: str, _folder: Path) -> dict[str, Any]:
    """One row of the profile table."""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); run the features stage again") from error
    wanted = {"event_timestamp": pa.timestamp("us", tz="UTC"), "ts_ns": pa.int64(), "instrument_id": pa.string()}
    wanted |= {feature.name: pa.float32() for feature in DEFINITIONS} | {"book_valid": pa.int8()}
    found = {field.name: field.type for field in table.schema}
    wrong = [f"{name} is {found.get(name, 'missing')}" for name, kind in wanted.items() if found.get(name) != kind]
    if wrong:
        return {"schema_problem": "; ".join(wrong)}
    empty = sum(table[name].null_count for name in wanted)
    row: dict[str, Any] = {"schema_problem": "", "rows": table.num_rows, "empty_values": empty}
    if empty or not table.num_rows:
        return row
    not_finite, out_of_range, where = 0, 0, []
    for feature in DEFINITIONS:
        values = table[feature.name].to_numpy()
        finite = np.isfinite(values)
        low, high = lowest_and_highest(feature)
        beyond = int((finite & ((values < low) | (values > high))).sum())
        not_finite += int((~finite).sum())
        out_of_range += beyond
        if beyond or not finite.all():
            where.append(feature.name)
    ts_ns: NDArray[np.int64] = table["ts_ns"].to_numpy()
    stamps = table["event_timestamp"].cast(pa.int64()).to_numpy() * 1000
    seconds = sum((closes - opens) // 1_000_000_000 for opens, closes in instrument.session_ns(date))
    return row | {
        "not_finite": not_finite,
        "out_of_range": out_of_range,
        "where": ", ".join(where),
        "stamps_not_rising": int((np.diff(ts_ns) <= 0).sum() + (stamps != ts_ns).sum()),
        "grid_share": table.num_rows / seconds if seconds else 0.0,
        "book_valid_share": float((table["book_valid"].to_numpy() == 1).mean()),
    }


def _check(
    partitions: list[Partition], rows: dict[str, dict[str, Any]], gates: Gates, out_dir: Path
) -> list[dict[str, Any]]:
    import pandas as pd

    groups: dict[str, list[dict[str, Any]]] = {}
    for partition in partitions:
        row = rows[f"{partition.instrument_id} {partition.date}"]
        groups.setdefault(gates.scope(partition), []).append(row)
    pairs = []
    for scope, group in sorted(groups.items()):
        frame = pd.DataFrame(group, columns=list(FEATURE_COLUMNS))
        figures = [name for name in FEATURE_COLUMNS if name not in ("partition", "schema_problem", "where")]
        empty = [name for name in figures if frame[name].isna().all()]
        limits = gates.limits(scope, FEATURES_DATASET)
        pairs.append((partial(_suite, f"features {scope}", limits), frame.astype(dict.fromkeys(empty, float))))
    return run_suites(pairs, out_dir)


def _suite(name: str, limits: list[Limit]) -> ExpectationSuite:
    """Expectations on the profile table: one row a partition, each computed over all of its rows."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import core as gxe

    return ExpectationSuite(
        name=name,
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(FEATURE_COLUMNS)),
            gxe.ExpectColumnValuesToBeUnique(column="partition"),
            gxe.ExpectColumnValuesToBeInSet(
                column="schema_problem", value_set=[""], description="schema_problem empty. Stops the run"
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="rows", min_value=1, description="rows at least 1. Stops the run: there is nothing in the file"
            ),
            *(
                gxe.ExpectColumnValuesToBeBetween(
                    column=limit.column,
                    min_value=limit.min,
                    max_value=limit.max,
                    severity=severity_of(limit),
                    description=description(limit),
                )
                for limit in limits
            ),
        ],
    )
