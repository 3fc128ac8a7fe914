"""The reactive market for many parents, one for each, behind the interface of `training.market.engine`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline import feature_kernel as features
from feature_repo.ticks.reactive_tables import QueueReactiveParameters, published_tables
from training.market.engine import ParentError
from training.market.orders import EPISODE_DTYPE, FILL_DTYPE, PARENT_DTYPE, checked_instructions
from training.market.queues import kernel
from training.market.reactive.episode import (
    NO_LIMIT,
    SEEN_DTYPE,
    WORLD_DAY_DTYPE,
    World,
    advance_episode,
    best_prices,
    complete_episode,
    start_episode,
    submit,
)
from training.market.reactive.state import new_markets, prepare

if TYPE_CHECKING:
    from training.market.day import MarketDay

SNAPSHOT_NS = 500_000_000
"""Latency on snapshot data, where an order is taken to meet the next snapshot: the longest wait for one."""
_FITTED: dict[tuple[object, ...], QueueReactiveParameters] = {}


def model_of(days: Sequence["MarketDay"]) -> QueueReactiveParameters:
    """The model behind `days`: the published tables for the synthetic market, else the estimate from these days.

    Estimates are kept for the life of the process. Raises InputError for no day and for more than one instrument.
    """
    names = {day.partition.instrument_id for day in days}
    if not days:
        raise InputError("the reactive world needs at least one day, got none")
    if all(day.instrument.synthetic for day in days):
        return published_tables()
    if len(names) > 1:
        raise InputError(f"days of {', '.join(sorted(names))}: the reactive world is one instrument's")
    from training.market.reactive.fit import fit_reactive

    key = tuple((day.partition, len(day.book.ts_ns), int(day.book.ts_ns[-1])) for day in days)
    if key not in _FITTED:
        _FITTED[key] = fit_reactive(days).parameters
    return _FITTED[key]


def build_world(
    days: Sequence["MarketDay"],
    episodes: int,
    parameters: QueueReactiveParameters,
    latency_ns: int | None = None,
    strength: float = 0.0,
) -> World:
    """Room for `episodes` markets that take arrival prices, sessions and latency from `days`; see `World`."""
    info = np.zeros(len(days), WORLD_DAY_DTYPE)
    for name, lengths in (
        ("row", [len(day.book.ts_ns) for day in days]),
        ("window", [len(day.windows) for day in days]),
    ):
        ends = np.cumsum(lengths)
        info[f"{name}_lo"], info[f"{name}_hi"] = ends - lengths, ends
    for i, day in enumerate(days):
        own = SNAPSHOT_NS if day.instrument.snapshot_data else day.instrument.latency_ns
        info[i]["latency_ns"] = own if latency_ns is None else latency_ns
    depth = min(max(day.book.bid_px.shape[1] for day in days), parameters.limit.shape[0])
    markets = new_markets(episodes)
    prepare(markets, parameters, strength, 0, 1)
    return World(
        parameters,
        info,
        np.concatenate([day.book.ts_ns for day in days]).astype(np.int64),
        np.concatenate([np.where(_two_sided(day), day.book.bid_px[:, 0], 0) for day in days]).astype(np.int32),
        np.concatenate([np.array(day.windows, np.int64).reshape(-1, 2) for day in days]),
        markets,
        np.zeros(episodes, SEEN_DTYPE),
        np.zeros((episodes, 4, depth), np.int32),
        np.zeros((episodes, features.BOOK + 4 * depth)),
        np.zeros((episodes, features.BARS_AND_SUMS, features.COLUMNS)),
        np.zeros((episodes, _feature_count()), np.float32),
        np.zeros((2, 1)),
        np.zeros(2),
    )


def _two_sided(day: "MarketDay") -> NDArray[np.bool_]:
    book = day.book
    return (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0) & (book.ask_px[:, 0] > book.bid_px[:, 0])


def _feature_count() -> int:
    from feature_repo.pipeline.definitions import FEATURES

    return len(FEATURES)


@kernel
def _start_batch(world, states, indices, parents, record, base, numbers, fills, fill_count):
    for j in range(len(indices)):
        i = indices[j]
        if not start_episode(world, i, states[i], parents[j], record[j], base, numbers[j], fills, fill_count):
            return j
    return -1


@kernel
def _submit_batch(states, now_ns, instructions):
    for i in range(len(states)):
        state, order = states[i], instructions[i]
        if state.done == 0 and order.send == 1:
            submit(state, now_ns[i], order.rest_px, order.rest_lots, order.cross_lots, order.beyond, 0)


@kernel
def _advance_batch(world, states, until_ns, fills, fill_count):
    for i in range(len(states)):
        state = states[i]
        if state.done == 0:
            advance_episode(world, i, state, until_ns[i], np.int64(NO_LIMIT), i, fills, fill_count)
            if state.filled == state.lots:
                state.done = 1


@kernel
def _complete_batch(world, states, fills, fill_count):
    for i in range(len(states)):
        if states[i].done == 0:
            complete_episode(world, i, states[i], i, fills, fill_count)


@kernel
def _best(world, states, out):
    for i in range(len(states)):
        out[0, i], out[1, i], out[2, i], out[3, i] = best_prices(world, i, states[i])


class ReactiveEngine:
    """N episodes, each in a reactive market of its own, stepped together; as `training.market.engine.Engine`.

    A market is known by its number and the world's `market_seed`: equal pairs give the same market, event by event, up
    to the first own message that meets it. From there on the markets of two policies go apart, since rates and random
    draws depend on queues that differ: they share what came before, and nothing can be shared after.
    """

    def __init__(
        self,
        days: Sequence["MarketDay"],
        episodes: int,
        latency_ns: int | None = None,
        fill_capacity: int = 1,
        strength: float = 0.0,
        market_seed: int = 0,
        parameters: QueueReactiveParameters | None = None,
    ) -> None:
        """Make room for `episodes` and `fill_capacity` recorded fills; `parameters` default to `model_of(days)`.

        `strength` is that of the planted signal. Raises InputError as `model_of` and `state.prepare`.
        """
        model = model_of(days) if parameters is None else parameters
        self.world = build_world(days, episodes, model, latency_ns, strength)
        self.states: NDArray[np.void] = np.zeros(episodes, EPISODE_DTYPE)
        self.states["done"], self.states["slot"] = 1, np.arange(episodes)
        self.base = np.uint64(np.random.SeedSequence(market_seed).generate_state(1, np.uint64)[0])
        self.fill_rows = np.zeros(fill_capacity, FILL_DTYPE)
        self.fill_count = np.zeros(1, np.int64)

    def start(
        self,
        parents: NDArray[np.void],
        record: NDArray[np.int64] | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        """Start `parents` (PARENT_DTYPE) in markets `numbers` (0 to N - 1 by default); `record` 1 keeps their fills.

        Raises ParentError where a session window has no room for a parent, no two-sided book stood at its arrival, or a
        day index is unknown.
        """
        rows = np.ascontiguousarray(parents, dtype=PARENT_DTYPE)
        if len(rows) != len(self.states):
            raise ParentError(f"{len(rows)} parents for {len(self.states)} episodes: their numbers must agree")
        unknown = (rows["day"] < 0) | (rows["day"] >= len(self.world.days))
        if unknown.any():
            raise ParentError(f"parent on day index {rows['day'][unknown][0]}; there are {len(self.world.days)} days")
        flags = np.zeros(len(rows), np.int64) if record is None else np.asarray(record, np.int64)
        chosen = np.arange(len(rows)) if numbers is None else np.asarray(numbers, np.int64)
        where = np.arange(len(rows))
        failed = _start_batch(
            self.world, self.states, where, rows, flags, self.base, chosen, self.fill_rows, self.fill_count
        )
        if failed >= 0:
            start = int(rows[failed]["start_ns"])
            raise ParentError(
                f"parent from {start} ns (day {rows[failed]['day']}): no session window with room for it, or no "
                "two-sided book before it"
            )

    def submit(self, now_ns: NDArray[np.int64], instructions: NDArray[np.void]) -> None:
        """Send one message per unfinished episode (INSTRUCTION_DTYPE, `(N,)`), decided at `now_ns (N,) int64`."""
        _submit_batch(self.states, now_ns, checked_instructions(instructions))

    def advance(self, until_ns: NDArray[np.int64]) -> None:
        """Play each unfinished episode up to `until_ns (N,) int64`; the filled ones are done."""
        _advance_batch(self.world, self.states, until_ns, self.fill_rows, self.fill_count)

    def complete(self) -> None:
        """Forced completion of every unfinished episode at its horizon."""
        _complete_batch(self.world, self.states, self.fill_rows, self.fill_count)

    def fills(self) -> NDArray[np.void]:
        """Fills of recorded episodes in time order within each; raises InputError where the buffer was too small."""
        count = int(self.fill_count[0])
        if count > len(self.fill_rows):
            raise InputError(f"{count} fills exceed the buffer of {len(self.fill_rows)}: record fewer parents")
        return self.fill_rows[:count].copy()

    def traded(self) -> NDArray[np.int64]:
        """Lots that others traded with one another since the arrival, `(N,) int64`."""
        return self.world.seen["traded"].copy()

    def planted(self) -> NDArray[np.float64]:
        """The signal of each market's present second, clipped to [-1, 1], `(N,)`; at strength 0 it drives nothing."""
        return np.clip(self.world.markets["signal"], -1.0, 1.0)

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Own price, own size, opposite price and size at the best, each `(N,) int64`; 0 where a side is empty."""
        out = np.zeros((4, len(self.states)), np.int64)
        _best(self.world, self.states, out)
        return out[0], out[1], out[2], out[3]
