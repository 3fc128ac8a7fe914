"""The Great Expectations suites that silver must meet, in code, with the limits in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.pipeline.profiling import KINDS, SIDES
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite

PROFILE_COLUMNS = (
    "partition", "schema_problem", "rows", "nulls", "backward_step_ns", "rows_outside_session", "bad_prices",
    "bad_sizes", "bad_kinds", "bad_sides", "session_coverage", "positive_spread_share", "quarantine_share",
    "out_of_session_share", "rows_to_trailing_median",
)  # fmt: skip


@dataclass(frozen=True)
class GateLimits:
    """What a day of silver must meet before anything downstream reads it."""

    min_rows: int = 100  # fewer events cannot make a day of features
    min_session_coverage: float = 0.5  # share of session minutes with an event; a half day still passes
    min_positive_spread_share: float = 0.9  # AIG's quotes stand locked for 2.5% of a day's updates
    max_quarantine_share: float = 0.05  # of the rows in session
    max_out_of_session_share: float = 0.5  # extended hours are no fault, but half a day of them is a wrong time zone
    min_rows_to_trailing_median: float = 0.2
    max_rows_to_trailing_median: float = 5.0
    trailing_days: int = 5
    min_trailing_days: int = 2
    sample_rows: int = 200_000  # rows of all partitions together that are checked one by one
    min_sample_rows: int = 1_000  # of each partition


def profile_suite(limits: GateLimits) -> ExpectationSuite:
    """Expectations on the profile table: one row a partition, each computed over all of its events."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import core as gxe

    between = gxe.ExpectColumnValuesToBeBetween
    zeros = ("nulls", "backward_step_ns", "rows_outside_session", "bad_prices", "bad_sizes", "bad_kinds", "bad_sides")
    return ExpectationSuite(
        name="partitions",
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(PROFILE_COLUMNS)),
            gxe.ExpectColumnValuesToBeUnique(column="partition"),
            gxe.ExpectColumnValuesToBeInSet(column="schema_problem", value_set=[""]),
            *(between(column=column, min_value=0, max_value=0) for column in zeros),
            between(column="rows", min_value=limits.min_rows),
            between(column="session_coverage", min_value=limits.min_session_coverage),
            between(column="positive_spread_share", min_value=limits.min_positive_spread_share),
            between(column="quarantine_share", max_value=limits.max_quarantine_share),
            between(column="out_of_session_share", max_value=limits.max_out_of_session_share),
            between(
                column="rows_to_trailing_median",
                min_value=limits.min_rows_to_trailing_median,
                max_value=limits.max_rows_to_trailing_median,
            ),
        ],
    )


def event_suite() -> ExpectationSuite:
    """Expectations on single events, checked on an even sample of every partition."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import core as gxe

    priced = [int(Kind.ADD), int(Kind.REPLACE), int(Kind.TRADE)]
    return ExpectationSuite(
        name="events",
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=["partition", *EVENT_SCHEMA.names]),
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in EVENT_SCHEMA.names),
            *(gxe.ExpectColumnValuesToBeOfType(column=field.name, type_=str(field.type)) for field in EVENT_SCHEMA),
            gxe.ExpectColumnValuesToBeInSet(column="kind", value_set=KINDS),
            gxe.ExpectColumnValuesToBeInSet(column="side", value_set=SIDES),
            gxe.ExpectColumnValuesToBeBetween(
                column="price_ticks", min_value=1, row_condition=f"kind in {priced}", condition_parser="pandas"
            ),
            gxe.ExpectColumnValuesToBeBetween(column="size", min_value=0),
            gxe.ExpectColumnValuesToBeBetween(column="sequence", min_value=0),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["partition", "sequence"]),
        ],
    )
