"""Runs Great Expectations suites over frames, in one context whose only traces are the Data Docs."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite

DATA_DOCS = "data_docs/index.html"
_NAMED = 20  # failing rows that a check names


def run_suites(
    pairs: Sequence[tuple[Callable[[], ExpectationSuite], pd.DataFrame]], out_dir: Path
) -> list[dict[str, Any]]:
    """Hold each frame, which has a column `partition`, to its suite; build `data_docs/` in `out_dir`.

    Gives one check an expectation, in order: `suite`, `expectation`, `column`, `limit`, `severity` (critical or
    warning), `description`, `observed`, `partitions` (all that fail it), `unexpected_rows`, `unexpected` (the first of
    them), `success`, and `error` where the expectation could not be evaluated. Plain values, no ids, no times.
    """
    checks = []
    with _quiet():
        import great_expectations as gx
        from great_expectations.checkpoint import UpdateDataDocsAction

        context = _context(out_dir)
        source = context.data_sources.add_pandas("data")
        for make, frame in pairs:  # one checkpoint each: a checkpoint hands all its definitions the same frame
            suite = context.suites.add(make())
            batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
            definition = context.validation_definitions.add(
                gx.ValidationDefinition(name=suite.name, data=batch, suite=suite)
            )
            checkpoint = context.checkpoints.add(
                gx.Checkpoint(
                    name=suite.name,
                    validation_definitions=[definition],
                    actions=[UpdateDataDocsAction(name="data_docs")],
                    result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["partition"]},
                )
            )
            outcome = checkpoint.run(batch_parameters={"dataframe": frame})
            for run in outcome.run_results.values():
                checks += [_describe(suite.name, result, frame) for result in run.results]
    return checks


def sentence(check: dict[str, Any]) -> str:
    """A failed check in words: expectation, place, what was seen and what was allowed."""
    where = f" in {check['unexpected'][0]['partition']}" if check["unexpected"] else ""
    seen = check["unexpected"][0]["observed"] if check["unexpected"] else check.get("error", check["observed"])
    others = f" and {check['unexpected_rows'] - 1} more" if check["unexpected_rows"] > 1 else ""
    return (
        f"{check['suite']}.{check['column']} failed{where}{others}: observed {seen}, allowed {allowed(check)}"
        f" ({check['expectation']})"
    )


def allowed(check: dict[str, Any]) -> str:
    """A check's limits in words."""
    words = {"min_value": "at least", "max_value": "at most", "value_set": "one of"}
    return ", ".join(f"{words.get(name, name)} {value}" for name, value in check["limit"].items()) or "as named"


def _context(out_dir: Path) -> Any:
    import great_expectations as gx
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
    return gx.get_context(project_config=config, mode="ephemeral")


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


def _describe(suite: str, result: Any, frame: pd.DataFrame) -> dict[str, Any]:
    config, details = result.expectation_config, result.result or {}
    limit = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "column", "column_list")}
    if config.type == "expect_table_columns_to_match_ordered_list":
        limit["column_list"] = list(config.kwargs["column_list"])
    column = config.kwargs.get("column") or ",".join(config.kwargs.get("column_list", []))
    unexpected = details.get("unexpected_index_list") or []
    bad = [{"partition": item.get("partition"), "observed": item.get(column)} for item in unexpected[:_NAMED]]
    observed = details.get("observed_value")
    if column in frame.columns and observed is None:
        observed = _range(frame[column])
    error = _error(result)
    return {
        "suite": suite,
        "expectation": config.type,
        "column": column,
        "limit": json.loads(json.dumps(limit, default=str)),
        "severity": config.severity.value,
        "description": config.description or "",
        "observed": json.loads(json.dumps(observed, default=_plain)),
        "partitions": sorted({str(item.get("partition")) for item in unexpected}),
        "unexpected_rows": int(details.get("unexpected_count") or 0),
        "unexpected": json.loads(json.dumps(bad, default=_plain)),
        "success": bool(result.success),
        **({"error": error} if error and not result.success else {}),
    }


def _error(result: Any) -> str:
    """Message of the exception that kept an expectation from being evaluated; empty where there was none."""
    info = result.exception_info or {}
    nested = [info, *(item for item in info.values() if isinstance(item, dict))]
    return next((str(item["exception_message"]) for item in nested if item.get("exception_message")), "")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _range(values: pd.Series) -> Any:
    known = values.dropna()
    if known.empty:
        return None
    return {"min": known.min(), "max": known.max()} if known.dtype.kind in "iuf" else sorted(set(known.astype(str)))
