"""Reader of the synthetic market, which stands in for a vendor: seeded days of a queue-reactive order book.

Options: `seed`, `days`, `hours` of a session, `strength` of the planted signal (0 plants nothing), `symbols`, and
`dirt`, the share of wrong rows added for cleaning to find. docs/synthetic.md says exactly what is planted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.queue_reactive import (
    FLAGS,
    KIND,
    ORDER,
    PRICE,
    SIDE,
    SIZE,
    TS,
    activity_path,
    generate_day,
    latent_path,
)
from feature_repo.ticks.reactive_tables import MarketParameters
from feature_repo.ticks.reader import IngestRequest, Option, PartitionPlan, ReadCount
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.selection import choose_days
from feature_repo.ticks.standing import StandingBook

VENUE = "SYN"
FIRST_DAY, OPEN = date(2025, 1, 6), time(9, 30)
DEFAULT_STRENGTH = 0.6
"""Gives forecasts no better than the same regression finds on real futures depth (docs/synthetic.md)."""

_LIMITS: dict[str, tuple[float, float, float]] = {
    "seed": (7, 0, 2**31),
    "days": (6, 1, 250),
    "hours": (6.5, 0.05, 6.5),
    "strength": (DEFAULT_STRENGTH, 0.0, 1.0),
    "symbols": (1, 1, 20),
    "dirt": (1e-4, 0.0, 0.01),
}
"""Option to (default, lowest, highest)."""
_WHOLE = ("seed", "days", "symbols")

DIRT_KINDS = ("duplicate", "late", "out_of_session", "zero_price", "outlying_price")


@dataclass(frozen=True)
class SyntheticOptions:
    """Checked options of the synthetic market."""

    seed: int
    days: int
    hours: float
    strength: float
    symbols: int
    dirt: float

    @property
    def seconds(self) -> int:
        """Length of a session."""
        return round(self.hours * 3600)

    @classmethod
    def parse(cls, options: Mapping[str, Option]) -> "SyntheticOptions":
        """Options with defaults in place; raises InputError naming the option, its value and the limits."""
        unknown = sorted(set(options) - set(_LIMITS))
        if unknown:
            raise InputError(f"synthetic option {unknown[0]!r} is unknown; options: {', '.join(_LIMITS)}")
        values: dict[str, float] = {}
        for name, (default, low, high) in _LIMITS.items():
            value = options.get(name, default)
            if isinstance(value, str) or not low <= value <= high:
                raise InputError(f"synthetic option {name} is {value!r}, it must be a number from {low:g} to {high:g}")
            if name in _WHOLE and value != int(value):
                raise InputError(f"synthetic option {name} is {value!r}, it must be a whole number")
            values[name] = value
        whole = {name: int(values[name]) for name in _WHOLE}
        return cls(**whole, hours=values["hours"], strength=values["strength"], dirt=values["dirt"])


class SyntheticReader:
    """Symbols SYN1, SYN2 ... on business days from 2025-01-06; a day depends on seed, symbol and date alone."""

    name = "synthetic"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition a symbol and day; no input files."""
        options = SyntheticOptions.parse(request.options)
        if request.data is not None:
            raise InputError(f"source synthetic generates its data: leave --data {request.data} out")
        days = {day.isoformat(): day for day in business_days(options.days)}
        symbols = [f"SYN{number}" for number in range(1, options.symbols + 1)]
        chosen = [name for name in symbols if not request.symbols or name in request.symbols]
        if len(chosen) < len(request.symbols):
            missing = sorted(set(request.symbols) - set(chosen))[0]
            raise InputError(f"symbol {missing} is not in the synthetic market; there: {', '.join(symbols)}")
        return [
            PartitionPlan(Partition(VENUE, symbol, day), (), dict(vars(options)))
            for symbol in chosen
            for day in choose_days(request, days, symbol)
        ]

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """One cent a tick at about 100: a tick is a basis point."""
        options = SyntheticOptions.parse(request.options)
        closes = datetime.combine(FIRST_DAY, OPEN, UTC) + timedelta(seconds=options.seconds)
        windows = (SessionWindow(OPEN.isoformat(), closes.time().isoformat()),)
        return [
            Instrument(VENUE, symbol, 0.01, 1.0, "USD", "UTC", windows, 5, False, 10_000_000, synthetic=True)
            for symbol in sorted({plan.partition.symbol for plan in self.plan(request)})
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The market's events with the dirt among them."""
        options = SyntheticOptions.parse(plan.options)
        clean = clean_events(options, plan.partition)
        count.add("generated", len(clean))
        for kind, rows in dirty_rows(options, plan.partition, clean).items():
            count.add(kind, len(rows.events))
        events = with_dirt(options, plan.partition, clean)
        for start in range(0, len(events), 262_144):
            yield event_batch(events.slice(start, start + 262_144), start)


@dataclass(frozen=True)
class DirtyRows:
    """Rows of one kind of dirt, and the clean event before which each is put."""

    where: NDArray[np.int64]
    events: EventColumns


def business_days(count: int) -> list[date]:
    """The first `count` weekdays of the synthetic calendar."""
    days: list[date] = []
    day = FIRST_DAY
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def latent_signal(options: Mapping[str, Option], partition: Partition) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The planted signal of a day, from its seed: `ts_ns (n,) int64` UTC, one a second, and the value from then on."""
    parsed = SyntheticOptions.parse(options)
    path = latent_path(
        _seed(parsed, partition), _ordinal(partition), parsed.seconds, MarketParameters().signal_relaxation_s
    )
    return _open_ns(partition) + np.arange(parsed.seconds, dtype=np.int64) * NS, path


def latent_activity(options: Mapping[str, Option], partition: Partition) -> NDArray[np.float64]:
    """The day's multiplier of every rate `(n,)`, from its seed, at the times of `latent_signal`."""
    parsed = SyntheticOptions.parse(options)
    return activity_path(_seed(parsed, partition), _ordinal(partition), parsed.seconds, MarketParameters())


def clean_events(options: SyntheticOptions, partition: Partition) -> EventColumns:
    """The day's events as the market made them."""
    seed, day = _seed(options, partition), _ordinal(partition)
    rows = generate_day(seed, day, options.seconds, _reference(seed, day), options.strength, MarketParameters())
    clear = EventColumns.build(np.array([_open_ns(partition)]), Kind.CLEAR, 0, 0, 0)
    made = EventColumns.build(
        _open_ns(partition) + rows[:, TS],
        rows[:, KIND],
        rows[:, SIDE],
        rows[:, PRICE],
        rows[:, SIZE],
        rows[:, FLAGS],
        rows[:, ORDER],
    )
    return EventColumns.concatenate([clear, made])


def dirty_rows(options: SyntheticOptions, partition: Partition, clean: EventColumns) -> dict[str, DirtyRows]:
    """Wrong rows by kind, `dirt` x events of each; taking them out again leaves the clean events exactly."""
    rng = np.random.default_rng([_seed(options, partition), _ordinal(partition), 4])
    number = int(options.dirt * len(clean))
    first = int(np.flatnonzero(clean.flags & int(Flag.LAST))[0]) + 1  # after the opening book
    where = np.sort(rng.choice(np.arange(first, len(clean)), (len(DIRT_KINDS), number), replace=False), axis=1)
    trade_price = int(clean.price_ticks[first - 1])
    own = int(clean.order_id.max()) + 1 + np.arange(number, dtype=np.int64)
    at = clean.ts_event_ns
    close = _open_ns(partition) + options.seconds * NS
    late = at[where[1] - 1] - NS - rng.integers(0, 5 * NS, number)
    dirt = {
        "duplicate": DirtyRows(where[0], clean.take(where[0] - 1)),
        "late": DirtyRows(where[1], EventColumns.build(late, Kind.ADD, Side.BUY, trade_price - 20, 3, 0, own)),
        "out_of_session": DirtyRows(
            np.full(number, len(clean)),
            EventColumns.build(
                close + 60 * NS + np.arange(number) * NS, Kind.ADD, Side.SELL, trade_price, 5, 0, own + number
            ),
        ),
        "zero_price": DirtyRows(where[3], EventColumns.build(at[where[3] - 1], Kind.TRADE, 0, 0, 1)),
        "outlying_price": DirtyRows(
            where[4], EventColumns.build(at[where[4] - 1], Kind.TRADE, 0, trade_price * 3 // 2, 1)
        ),
    }
    return dirt if number else {}


def with_dirt(options: SyntheticOptions, partition: Partition, clean: EventColumns) -> EventColumns:
    """Clean events with all dirt put among them."""
    kinds = list(dirty_rows(options, partition, clean).values())
    if not kinds:
        return clean
    where = np.concatenate([rows.where for rows in kinds])
    order = np.argsort(where, kind="stable")
    return clean.insert(where[order], EventColumns.concatenate([rows.events for rows in kinds]).take(order))


def _seed(options: SyntheticOptions, partition: Partition) -> int:
    """Seed of one symbol."""
    return options.seed + 1_000_003 * int(partition.symbol.removeprefix("SYN"))


def _ordinal(partition: Partition) -> int:
    return date.fromisoformat(partition.date).toordinal()


def _reference(seed: int, day: int) -> int:
    """Best bid at the open: about 100.00, a level of its own each day, so that days need not be made in order."""
    return 10_000 + int(np.random.default_rng([seed, day, 0]).integers(-300, 301))


def _open_ns(partition: Partition) -> int:
    return int(datetime.combine(date.fromisoformat(partition.date), OPEN, UTC).timestamp()) * NS
