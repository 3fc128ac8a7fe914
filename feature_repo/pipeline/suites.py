"""The Great Expectations suites that silver must meet: one a kind of dataset, with the limits of `gates.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from feature_repo.pipeline.drift import COLUMNS as TRAILING_COLUMNS
from feature_repo.pipeline.gates import STOP, Limit
from feature_repo.pipeline.profiling import DATASETS
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind, Side

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite
    from great_expectations.expectations.metadata_types import FailureSeverity

PROFILE_COLUMNS = (
    "partition", "dataset", "schema_problem", "book_fault", "rows", "nulls", "backward_step_ns", "repeated_sequences",
    "rows_outside_session", "bad_prices", "bad_sizes", "bad_kinds", "bad_sides", "session_coverage",
    "book_known_share", "positive_spread_share", "crossed_share", "positive_depth_share", "holes", "unwhole_share",
    "unknown_order_share", "quote_agreement_share", "quarantine_share", "out_of_session_share", "lawful_share",
    *TRAILING_COLUMNS,
)  # fmt: skip


def severity_of(limit: Limit) -> FailureSeverity:
    """Great Expectations' severity of a limit: critical stops the run, warning sets the symbol-day aside."""
    from great_expectations.expectations.metadata_types import FailureSeverity

    return FailureSeverity.CRITICAL if limit.severity == STOP else FailureSeverity.WARNING


def profile_suite(name: str, limits: Sequence[Limit]) -> ExpectationSuite:
    """Expectations on the profile table: one row a partition, each computed over all of its events."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import core as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    return ExpectationSuite(
        name=name,
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(PROFILE_COLUMNS)),
            gxe.ExpectColumnValuesToBeUnique(column="partition"),
            gxe.ExpectColumnValuesToBeInSet(
                column="schema_problem", value_set=[""], description="schema_problem empty. Stops the run"
            ),
            gxe.ExpectColumnValuesToBeInSet(
                column="book_fault",
                value_set=[""],
                severity=FailureSeverity.WARNING,
                description="book_fault empty. Sets the symbol-day aside: its book cannot be built",
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


def event_suite(name: str, dataset: str) -> ExpectationSuite:
    """Expectations on single events of one kind of dataset, checked on an even sample of every partition."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import core as gxe

    order = list(DATASETS)
    foreign = {kind for other in order[: order.index(dataset)] for kind in DATASETS[other]}
    kinds = [int(kind) for kind in Kind if kind not in foreign]
    priced = [int(kind) for kind in (Kind.ADD, Kind.REPLACE, Kind.TRADE, Kind.DEPTH) if kind not in foreign]
    return ExpectationSuite(
        name=name,
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=["partition", *EVENT_SCHEMA.names]),
            *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in EVENT_SCHEMA.names),
            *(gxe.ExpectColumnValuesToBeOfType(column=field.name, type_=str(field.type)) for field in EVENT_SCHEMA),
            gxe.ExpectColumnValuesToBeInSet(column="kind", value_set=kinds),
            gxe.ExpectColumnValuesToBeInSet(column="side", value_set=[int(side) for side in Side]),
            gxe.ExpectColumnValuesToBeBetween(
                column="price_ticks", min_value=1, row_condition=f"kind in {priced}", condition_parser="pandas"
            ),
            gxe.ExpectColumnValuesToBeBetween(column="size", min_value=0),
            gxe.ExpectColumnValuesToBeBetween(column="sequence", min_value=0),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["partition", "sequence"]),
        ],
    )


def description(limit: Limit) -> str:
    """What the Data Docs show of an expectation: they leave out its severity, so that it is said here."""
    least = [] if limit.min is None else [f"at least {limit.min:g}"]
    most = [] if limit.max is None else [f"at most {limit.max:g}"]
    effect = "Stops the run" if limit.severity == STOP else "Sets the symbol-day aside"
    return f"{limit.column} {' and '.join(least + most)}. {effect}: {limit.reason}"
