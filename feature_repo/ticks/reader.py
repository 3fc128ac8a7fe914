"""What a reader of one vendor format is asked, and what it answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.standing import StandingBook

Option = int | float | str


@dataclass(frozen=True)
class IngestRequest:
    """Which source, and which part of it."""

    source: str
    data: Path | None = None  # folder of the vendor's files; None for a source that needs none
    symbols: tuple[str, ...] = ()  # empty: all that the source holds
    date_from: str | None = None  # ISO session date, inclusive
    date_to: str | None = None  # ISO session date, inclusive
    options: Mapping[str, Option] = field(default_factory=dict)  # of the reader


@dataclass(frozen=True)
class PartitionPlan:
    """One partition and the files that it is read from."""

    partition: Partition
    inputs: tuple[Path, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    previous: "PartitionPlan | None" = None  # the day whose standing book this one may open with, where feeds go on


@dataclass
class ReadCount:
    """Rows of each input, counted while a partition is read, so that the manifest accounts for every one of them."""

    vendor_rows: dict[str, int] = field(default_factory=dict)  # by input file name, or by what a generator made

    # rows among them that give no event, by input and reason: a heartbeat, a status message of another instrument
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)

    # rows among them that another partition takes from the same file: another symbol's, another session's
    elsewhere: dict[str, int] = field(default_factory=dict)

    def leave(self, name: str, rows: int) -> None:
        """Say that `rows` of input `name`, which `add` has counted, belong to another partition."""
        if rows:
            self.elsewhere[name] = self.elsewhere.get(name, 0) + rows

    def skip(self, name: str, reason: str, rows: int) -> None:
        """Say that `rows` of input `name`, which `add` has counted, give no event."""
        if rows:
            reasons = self.skipped.setdefault(name, {})
            reasons[reason] = reasons.get(reason, 0) + rows

    def add(self, name: str, rows: int) -> None:
        """Count `rows` more of input `name`."""
        self.vendor_rows[name] = self.vendor_rows.get(name, 0) + rows

    @property
    def total(self) -> int:
        """Rows of all inputs that are this partition's."""
        return sum(self.vendor_rows.values()) - sum(self.elsewhere.values())


class Reader(Protocol):
    """Reads one vendor's format; streams, and never holds a day in Python objects."""

    name: str

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """Partitions that the request asks for, sorted; raises InputError that names what is there instead."""

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """Static facts of the instruments that the request asks for."""

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Events of one partition in EVENT_SCHEMA, in the vendor's order; raises InputError naming file and line.

        `opening` is the book at the end of `plan.previous`, None where there is none or it was not whole. A reader
        whose feed goes on from it yields it first (`StandingBook.events`); the others ignore it.
        """
