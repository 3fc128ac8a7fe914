"""Episodes in the reactive world stepped together: the decision of `actions`, a market of its own for each parent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.contracts.actions import CONTINUOUS_NAMES
from serving.contracts.observation import (
    ACTION_NAMES,
    FORECAST_NAMES,
    MARKET_NAMES,
    OBSERVATION_SIZE,
    finish_observation,
)
from training.execution.actions import PRIVATE_SIZE, earned, message_of, observe_private, step_settings
from training.execution.config import ExecutionConfig
from training.execution.parents import check_parents, draw_parent, parent_table
from training.execution.stepping import NO_BOOK, NO_FAULT, Stepper
from training.execution.streams import next_bits
from training.market.day import MarketDay
from training.market.orders import PARENT_DTYPE
from training.market.queues import kernel
from training.market.reactive.episode import (
    NO_LIMIT,
    advance_episode,
    best_prices,
    complete_episode,
    start_episode,
    submit,
)
from training.market.reactive.world import ReactiveEngine

MARKET_SIZE, FORECASTS = len(MARKET_NAMES), len(FORECAST_NAMES)


@kernel
def observe(world, i, state, settings, forecasts, out, mask):
    """Write observation `(D,)` and mask `(4,)` of the episode's present; returns a bad element's index or -1.

    Market features are those of the last whole second of the simulated feed; forecasts are missing.
    """
    own_px, own_sz, opp_px, opp_sz = best_prices(world, i, state)
    observe_private(state, settings, own_px, own_sz, opp_px, opp_sz, world.seen[i].mid2, out, mask)
    limits = settings.limits
    return finish_observation(
        out, PRIVATE_SIZE, world.features[i, :MARKET_SIZE], forecasts, np.float32(1.0), state.side,
        limits[0], limits[1], limits[2],
    )  # fmt: skip


@kernel
def step_episode(world, i, state, action, settings, fills, fill_count):
    """Act, play up to the next decision, complete by force at the horizon; returns the reward in bps."""
    open_share = (state.lots - state.filled) / state.lots
    own_px, own_sz, opp_px, opp_sz = best_prices(world, i, state)
    rest_px, rest_lots, cross_lots = message_of(state, action, settings, own_px, own_sz, opp_px, opp_sz)
    if rest_lots > 0 or cross_lots > 0 or state.rest_lots > 0 or state.pend_ns > 0:
        submit(state, state.now_ns, rest_px, rest_lots, cross_lots, 0, 0)
    until_ns, until_rows = state.now_ns + settings.pause_ns, np.int64(NO_LIMIT)
    if settings.every_events > 0:
        until_ns, until_rows = state.end_ns, world.seen[i].rows + settings.every_events
    advance_episode(world, i, state, until_ns, until_rows, i, fills, fill_count)
    if settings.every_events > 0 and world.seen[i].rows >= until_rows:
        until_ns = min(world.markets[i].now_ns, state.end_ns)
    state.step += 1
    state.now_ns = until_ns
    if state.filled == state.lots:
        state.done = 1
        state.rest_lots = state.pend_ns = 0
    elif until_ns >= state.end_ns:
        complete_episode(world, i, state, i, fills, fill_count)
    return earned(state, world.seen[i].mid2, open_share, settings)


@kernel
def _start_drawn(world, i, state, parents, table, stream, base, fills, fill_count):
    draw_parent(table, stream, parents[i])
    number = np.int64(next_bits(stream) >> np.uint64(1))
    return start_episode(world, i, state, parents[i], 0, base, number, fills, fill_count)


@kernel
def start_drawn(world, states, parents, table, stream, base, fills, fill_count):
    """Draw and start a parent in every episode, in new markets; `(episode, fault)` of the first fault."""
    for i in range(len(states)):
        if not _start_drawn(world, i, states[i], parents, table, stream, base, fills, fill_count):
            return i, NO_BOOK
    return 0, NO_FAULT


@kernel
def observe_batch(world, states, settings, forecasts, out, masks):
    """`observe` for every episode; `(episode, fault)` of the first fault."""
    for i in range(len(states)):
        bad = observe(world, i, states[i], settings, forecasts, out[i], masks[i])
        if bad >= 0:
            return i, bad
    return 0, NO_FAULT


@kernel
def act_batch(world, states, actions, settings, fills, fill_count):
    """`step_episode` for every unfinished episode; finished ones keep their state."""
    for i in range(len(states)):
        if states[i].done == 0:
            step_episode(world, i, states[i], actions[i], settings, fills, fill_count)


@kernel
def step_batch(
    world, states, parents, table, stream, base, actions, settings, forecasts, fills, fill_count,
    rewards, terminated, out, masks,
):  # fmt: skip
    """Act, play and observe in every episode; one that ended in the step before starts in a new market, reward 0.

    `(episode, fault)` of the first fault.
    """
    for i in range(len(states)):
        state = states[i]
        if state.done == 1:
            if not _start_drawn(world, i, state, parents, table, stream, base, fills, fill_count):
                return i, NO_BOOK
            rewards[i] = 0.0
        else:
            rewards[i] = step_episode(world, i, state, actions[i], settings, fills, fill_count)
        terminated[i] = state.done == 1
        bad = observe(world, i, state, settings, forecasts, out[i], masks[i])
        if bad >= 0:
            return i, bad
    return 0, NO_FAULT


class ReactiveStepper(Stepper):
    """`Stepper` in the reactive world.

    A market is known by its number and the configuration's `market_seed`. Drawn parents meet markets whose numbers come
    from the stream of the draws; given parents meet markets 0 to N - 1 or those asked for, whatever the environment's
    seed: given to two policies, they are the same markets.
    """

    engine: ReactiveEngine  # type: ignore[assignment]

    def __init__(
        self,
        days: Sequence[MarketDay],
        config: ExecutionConfig,
        episodes: int,
        fill_capacity: int = 1,
        draws: bool = True,
    ) -> None:
        """As `Stepper`; the model is `training.market.reactive.world.model_of(days)`."""
        self.engine = ReactiveEngine(
            days, episodes, config.latency_ns, fill_capacity, config.signal_strength, config.market_seed
        )
        self.parents = np.zeros(episodes, PARENT_DTYPE)
        self._days, self._config = list(days), config
        self._settings = step_settings(config)
        self._table = parent_table(self._days, config) if draws else None
        self._stream = np.zeros(1, np.uint64)
        self._continuous = config.actions == "continuous"
        self._actions = np.zeros((episodes, len(CONTINUOUS_NAMES) if self._continuous else 1))
        self._forecasts = np.zeros(FORECASTS, np.float32)
        self._record = self.engine.fill_rows, self.engine.fill_count

    @property
    def markets(self) -> NDArray[np.int64]:
        """Numbers `(N,)` of the markets that the parents met."""
        return self.engine.world.seen["number"].copy()

    def draw(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Start every episode with a drawn parent in a new market: observations `(N, D)` and masks `(N, 4)`."""
        engine = self.engine
        found = start_drawn(
            engine.world, engine.states, self.parents, self._table, self._stream, engine.base, *self._record
        )  # fmt: skip
        self._check(*found)
        return self.observe()

    def start(
        self,
        parents: NDArray[np.void],
        record: NDArray[np.int64] | None = None,
        markets: NDArray[np.int64] | None = None,
    ) -> None:
        """Start every episode with its given parent, in `markets` (numbers, 0 to N - 1 by default)."""
        check_parents(self._days, parents, self._config)
        self._check_horizon(parents)
        self.engine.start(parents, record, markets)
        self.parents[:] = parents

    def observe(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Observations `(N, D)` and masks `(N, 4)` of the present, fresh arrays; InputError for one not finite."""
        out, masks = self._rows()
        engine = self.engine
        self._check(*observe_batch(engine.world, engine.states, self._settings, self._forecasts, out, masks))
        return out, masks

    def act(self, actions: ArrayLike) -> None:
        """Act in every unfinished episode and play up to the next decision."""
        engine = self.engine
        act_batch(engine.world, engine.states, self._rows_of(actions), self._settings, *self._record)

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
        """Act, play and observe; episodes that ended in the step before start anew; as `Stepper.step`."""
        engine, (out, masks) = self.engine, self._rows()
        rewards, terminated = np.empty(len(out)), np.empty(len(out), np.bool_)
        found = step_batch(
            engine.world, engine.states, self.parents, self._table, self._stream, engine.base,
            self._rows_of(actions), self._settings, self._forecasts, *self._record, rewards, terminated, out, masks,
        )  # fmt: skip
        self._check(*found)
        return out, masks, rewards, terminated

    def step_one(self, action: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], float, bool]:
        """`step` of the only episode, without the reset: observation `(D,)`, mask `(4,)`, reward, whether it ended."""
        self._set_one(action)
        out, mask = np.empty(OBSERVATION_SIZE, np.float32), np.empty(len(ACTION_NAMES), np.float32)
        engine, state, reward = self.engine, self.engine.states[0], 0.0
        if state["done"] == 0:
            reward = step_episode(engine.world, 0, state, self._actions[0], self._settings, *self._record)
        fault = observe(engine.world, 0, state, self._settings, self._forecasts, out, mask)
        if fault != NO_FAULT:
            self._check(0, fault)
        return out, mask, reward, bool(state["done"] == 1)
