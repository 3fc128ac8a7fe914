"""The data gate: silver is held to the suites by Great Expectations, and a failure stops the run by name."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import GateFailedError, InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.pipeline.accounting import ACCOUNTING_SCHEMA, KEPT
from feature_repo.pipeline.profiling import add_trailing_ratio, profile_partition, sample_rows
from feature_repo.pipeline.suites import PROFILE_COLUMNS, GateLimits, event_suite, profile_suite
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA

if TYPE_CHECKING:
    import pandas as pd

DATA_DOCS = "data_docs/index.html"
_NAMED = 20  # failing partitions that validation.json names for one expectation


def validate(
    silver_dir: Path, out_dir: Path, progress: Progress = no_progress, limits: GateLimits | None = None
) -> dict[str, Any]:
    """Hold every partition of `silver_dir` to the gate; write `validation.json` and `data_docs/` into `out_dir`.

    Two tables are validated: a profile with one row a partition, computed over all of its events, and an even sample
    of the events. Memory is bounded by one batch and the sample.

    Args:
        silver_dir: what `clean` wrote.
        out_dir: empty folder.
        progress: told partitions profiled.
        limits: None for the defaults.

    Returns:
        `success` True, `expectations`, `failed` 0, `data_docs` (path relative to `out_dir`).

    Raises:
        InputError: `silver_dir` is not the output of `clean`.
        GateFailedError: an expectation failed; raised after both outputs are written.
    """
    limits = limits or GateLimits()
    profile, sample = _tables(silver_dir, progress, limits)
    results = _run_checkpoint(profile, sample, out_dir, limits)
    checks = [_describe(suite, result, profile) for suite, group in results for result in group]
    failed = [check for check in checks if not check["success"]]
    summary = {"success": not failed, "expectations": len(checks), "failed": len(failed), "data_docs": DATA_DOCS}
    report = {**summary, "partitions": json.loads(profile.to_json(orient="records")), "checks": checks}
    (out_dir / "validation.json").write_text(json.dumps(report, indent=1) + "\n")
    if failed:
        more = f" (and {len(failed) - 1} more expectations failed)" if len(failed) > 1 else ""
        raise GateFailedError(f"data gate: {_sentence(failed[0])}{more}; see {DATA_DOCS} and validation.json")
    return summary


def _tables(silver_dir: Path, progress: Progress, limits: GateLimits) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    partitions = list_partitions(silver_dir, "events.parquet")
    if not partitions:
        raise InputError(f"{silver_dir}: no partition venue=/symbol=/date=/events.parquet to validate; run clean first")
    instruments, quarantined = load_instruments(silver_dir), _quarantined(silver_dir)
    quota = max(limits.min_sample_rows, limits.sample_rows // len(partitions))
    profiles, samples = [], []
    for done, partition in enumerate(partitions, start=1):
        path = partition.folder(silver_dir) / "events.parquet"
        if partition.instrument_id not in instruments:
            raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run clean again")
        row = profile_partition(partition, path, instruments[partition.instrument_id], quarantined.get(partition, {}))
        if not row["schema_problem"]:
            table = sample_rows(path, quota)
            samples.append(table.add_column(0, "partition", pa.array([row["partition"]] * len(table), pa.string())))
        profiles.append((partition, row))
        progress(done, len(partitions), "partitions")
    add_trailing_ratio(profiles, limits.trailing_days, limits.min_trailing_days)
    empty = pa.table({"partition": pa.array([], pa.string()), **{f.name: pa.array([], f.type) for f in EVENT_SCHEMA}})
    sample = pa.concat_tables(samples) if samples else empty
    return pd.DataFrame([row for _, row in profiles], columns=list(PROFILE_COLUMNS)), sample.to_pandas()


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Great Expectations from logging, warning and reporting its use."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _run_checkpoint(
    profile: pd.DataFrame, sample: pd.DataFrame, out_dir: Path, limits: GateLimits
) -> list[tuple[str, list[Any]]]:
    """Run both suites in one checkpoint that builds the Data Docs; return the results by suite, in suite order."""
    with _quiet():
        import great_expectations as gx
        from great_expectations.checkpoint import UpdateDataDocsAction
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str((out_dir / "data_docs").resolve()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        config = DataContextConfig(
            analytics_enabled=False,
            data_docs_sites={"data_docs": site},
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        )
        context = gx.get_context(project_config=config, mode="ephemeral")
        source = context.data_sources.add_pandas("silver")
        definitions, frames = [], {"partitions": profile, "events": sample}
        for suite in (profile_suite(limits), event_suite()):
            batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
            definition = gx.ValidationDefinition(name=suite.name, data=batch, suite=context.suites.add(suite))
            definitions.append(context.validation_definitions.add(definition))
        results = []
        for definition in definitions:  # one checkpoint each: a checkpoint hands all its definitions the same frame
            checkpoint = context.checkpoints.add(
                gx.Checkpoint(
                    name=definition.name,
                    validation_definitions=[definition],
                    actions=[UpdateDataDocsAction(name="data_docs")],
                    result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["partition"]},
                )
            )
            outcome = checkpoint.run(batch_parameters={"dataframe": frames[definition.name]})
            group = [result for run in outcome.run_results.values() for result in run.results]
            results.append((definition.name, group))
    return results


def _describe(suite: str, result: Any, profile: pd.DataFrame) -> dict[str, Any]:
    """One check of validation.json: plain values, no ids, no times."""
    config = result.expectation_config
    limit = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "column", "column_list")}
    if config.type == "expect_table_columns_to_match_ordered_list":
        limit["column_list"] = list(config.kwargs["column_list"])
    column = config.kwargs.get("column") or ",".join(config.kwargs.get("column_list", []))
    details = result.result or {}
    unexpected = details.get("unexpected_index_list") or []
    bad = [{"partition": item.get("partition"), "observed": item.get(column)} for item in unexpected[:_NAMED]]
    observed = details.get("observed_value")
    if suite == "partitions" and column in profile.columns and observed is None:
        observed = _range(profile[column])
    error = (result.exception_info or {}).get("exception_message")
    return {
        "suite": suite,
        "expectation": config.type,
        "column": column,
        "limit": json.loads(json.dumps(limit, default=str)),
        "observed": json.loads(json.dumps(observed, default=_plain)),
        "unexpected_rows": int(details.get("unexpected_count") or 0),
        "unexpected": json.loads(json.dumps(bad, default=_plain)),
        "success": bool(result.success),
        **({"error": str(error)} if error and not result.success else {}),
    }


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _range(values: pd.Series) -> Any:
    known = values.dropna()
    if known.empty:
        return None
    return {"min": known.min(), "max": known.max()} if known.dtype.kind in "iuf" else sorted(set(known.astype(str)))


def _sentence(check: dict[str, Any]) -> str:
    where = f" in {check['unexpected'][0]['partition']}" if check["unexpected"] else ""
    seen = check["unexpected"][0]["observed"] if check["unexpected"] else check.get("error", check["observed"])
    allowed = ", ".join(f"{name} {value}" for name, value in check["limit"].items())
    others = f" and {check['unexpected_rows'] - 1} more" if check["unexpected_rows"] > 1 else ""
    return (
        f"{check['expectation']} on {check['suite']}.{check['column']} failed{where}{others}: "
        f"observed {seen}, allowed {allowed or 'as named'}"
    )
