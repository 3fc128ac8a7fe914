"""Episodes stepped together in one compiled call, resets included: what the environments and `run_policy` stand on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import InputError
from serving.contracts.actions import CONTINUOUS_NAMES
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_NAMES, OBSERVATION_SIZE
from training.execution.actions import begin_decisions, observe, step_episode, step_settings
from training.execution.config import ExecutionConfig
from training.execution.parents import check_parents, draw_parent, parent_table
from training.execution.streams import new_stream
from training.market.day import MarketDay
from training.market.engine import Engine, start_episode
from training.market.orders import PARENT_DTYPE
from training.market.queues import kernel

_ZERO = np.int64(0)  # a literal 0 would have numba compile the whole step once more
NO_FAULT, NO_BOOK = -1, -2  # what is wrong with an episode; 0 and more: the element of the observation that is


@kernel
def start_drawn(tape, states, parents, table, stream, settings, out, masks):
    """Draw and start a parent in every episode, and observe; `(episode, fault)` of the first fault."""
    for i in range(len(states)):
        draw_parent(table, stream, parents[i])
        if not start_episode(tape, states[i], parents[i], _ZERO):
            return i, NO_BOOK
        begin_decisions(tape, states[i])
    return observe_batch(tape, states, settings, out, masks)


@kernel
def begin_batch(tape, states):
    """`begin_decisions` for every episode."""
    for i in range(len(states)):
        begin_decisions(tape, states[i])


@kernel
def observe_batch(tape, states, settings, out, masks):
    """`observe` for every episode; `(episode, fault)` of the first fault."""
    for i in range(len(states)):
        bad = observe(tape, states[i], settings, out[i], masks[i])
        if bad >= 0:
            return i, bad
    return 0, NO_FAULT


@kernel
def act_batch(tape, states, actions, settings, taken_px, taken_lots, fills, fill_count):
    """`step_episode` for every unfinished episode; finished ones keep their state."""
    for i in range(len(states)):
        if states[i].done == 0:
            step_episode(tape, states[i], actions[i], settings, taken_px[i], taken_lots[i], i, fills, fill_count)


@kernel
def step_batch(
    tape, states, parents, table, stream, actions, settings, taken_px, taken_lots, fills, fill_count,
    rewards, terminated, out, masks,
):  # fmt: skip
    """Act, play and observe in every episode; one that ended in the step before is reset instead, with reward 0.

    `(episode, fault)` of the first fault.
    """
    for i in range(len(states)):
        state = states[i]
        if state.done == 1:
            draw_parent(table, stream, parents[i])
            if not start_episode(tape, state, parents[i], _ZERO):
                return i, NO_BOOK
            begin_decisions(tape, state)
            rewards[i] = 0.0
        else:
            rewards[i] = step_episode(
                tape, state, actions[i], settings, taken_px[i], taken_lots[i], i, fills, fill_count
            )
        terminated[i] = state.done == 1
        bad = observe(tape, state, settings, out[i], masks[i])
        if bad >= 0:
            return i, bad
    return 0, NO_FAULT


@kernel
def step_one(tape, states, actions, settings, taken_px, taken_lots, fills, fill_count, out, mask):
    """Act, play and observe in the only episode: `(reward, done, fault)`; a finished one earns 0."""
    state, reward = states[0], 0.0
    if state.done == 0:
        reward = step_episode(tape, state, actions[0], settings, taken_px[0], taken_lots[0], _ZERO, fills, fill_count)
    return reward, state.done == 1, observe(tape, state, settings, out, mask)


def episode_infos(states: NDArray[np.void]) -> dict[str, NDArray[np.float64]]:
    """What the last step of an episode reports, `(N,)` each; the class docstring of ExecutionEnv gives the units."""
    lots = np.maximum(states["lots"], 1)
    return {
        "is_bps": states["mark_bps"].copy(),
        "risk": states["penalty"].copy(),
        "passive_share": states["passive_lots"] / lots,
        "completion": 1.0 - states["forced_lots"] / lots,
        "extrapolated_share": states["extrapolated_lots"] / lots,
        "masked": states["masked"].astype(np.float64),
        "refused": states["refused"].astype(np.float64),
    }


class Stepper:
    """N episodes over shared days, their parents given or drawn; every method is one compiled call.

    Drawn parents come from one stream of integers in the order of the episodes, so that equal seeds give equal bytes.
    """

    def __init__(
        self,
        days: Sequence[MarketDay],
        config: ExecutionConfig,
        episodes: int,
        fill_capacity: int = 1,
        draws: bool = True,
    ) -> None:
        """Lay out `days`; `fill_capacity` is the room for recorded fills. Without `draws` all parents are given.

        Raises InputError where parents are to be drawn and no day has room for one.
        """
        scale = config.impact_scale if config.world == "impact" else None
        self.engine = Engine(days, episodes, config.latency_ns, config.fill_model, fill_capacity, scale)
        self.parents = np.zeros(episodes, PARENT_DTYPE)
        """The parents at work, or worked last."""
        self._days, self._config = list(days), config
        self._settings = step_settings(config)
        self._table = parent_table(self._days, config) if draws else None
        self._stream = np.zeros(1, np.uint64)
        self._continuous = config.actions == "continuous"
        self._actions = np.zeros((episodes, len(CONTINUOUS_NAMES) if self._continuous else 1))
        engine = self.engine
        self._ledger = engine.taken_px, engine.taken_lots, engine.fill_rows, engine.fill_count

    def seed(self, rng: np.random.Generator) -> None:
        """Start the stream of drawn parents anew where `rng` says."""
        self._stream = new_stream(rng)

    def draw(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Start every episode with a drawn parent: observations `(N, D)` and masks `(N, 4)`, fresh arrays."""
        out, masks = self._rows()
        engine = self.engine
        episode, fault = start_drawn(
            engine.tape, engine.states, self.parents, self._table, self._stream, self._settings, out, masks
        )
        self._check(episode, fault)
        return out, masks

    def start(
        self,
        parents: NDArray[np.void],
        record: NDArray[np.int64] | None = None,
        markets: NDArray[np.int64] | None = None,
    ) -> None:
        """Start every episode with its given parent; InputError where a day cannot hold one, or its horizon differs.

        `markets (N,)` number the markets that they meet in the reactive world; history is one, and takes none.
        """
        check_parents(self._days, parents, self._config)
        self._check_horizon(parents)
        if markets is not None:
            raise InputError(f"world {self._config.world!r} has one market, history; numbered ones are the reactive's")
        self.engine.start(parents, record=record)
        self.parents[:] = parents
        begin_batch(self.engine.tape, self.engine.states)

    def observe(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Observations `(N, D)` and masks `(N, 4)` of the present, fresh arrays; InputError for one not finite."""
        out, masks = self._rows()
        self._check(*observe_batch(self.engine.tape, self.engine.states, self._settings, out, masks))
        return out, masks

    def act(self, actions: ArrayLike) -> None:
        """Act in every unfinished episode and play up to the next decision."""
        engine = self.engine
        act_batch(engine.tape, engine.states, self._rows_of(actions), self._settings, *self._ledger)

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
        """Act, play and observe; episodes that ended in the step before draw a parent and start instead, reward 0.

        Fresh arrays: observations `(N, D)`, masks `(N, 4)`, rewards `(N,)` and which episodes ended `(N,)`.
        """
        engine, (out, masks) = self.engine, self._rows()
        rewards, terminated = np.empty(len(out)), np.empty(len(out), np.bool_)
        episode, fault = step_batch(
            engine.tape, engine.states, self.parents, self._table, self._stream, self._rows_of(actions),
            self._settings, *self._ledger, rewards, terminated, out, masks,
        )  # fmt: skip
        self._check(episode, fault)
        return out, masks, rewards, terminated

    def step_one(self, action: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], float, bool]:
        """`step` of the only episode, without the reset: observation `(D,)`, mask `(4,)`, reward, whether it ended."""
        self._set_one(action)
        out, mask = np.empty(OBSERVATION_SIZE, np.float32), np.empty(len(ACTION_NAMES), np.float32)
        engine = self.engine
        reward, done, fault = step_one(
            engine.tape, engine.states, self._actions, self._settings, *self._ledger, out, mask
        )
        if fault != NO_FAULT:
            self._check(0, fault)
        return out, mask, reward, done

    def _rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(self.parents)
        return np.empty((count, OBSERVATION_SIZE), np.float32), np.empty((count, len(ACTION_NAMES)), np.float32)

    def _rows_of(self, actions: ArrayLike) -> NDArray[np.float64]:
        """Actions as rows of float64, `(N,)` of the discrete and `(N, 2)` of the continuous set."""
        given = np.asarray(actions)
        wanted = self._actions.shape[: 2 if self._continuous else 1]
        if given.shape != wanted:
            raise InputError(f"{self._config.actions} actions have shape {given.shape}, wanted {wanted}")
        self._actions[:] = given.reshape(self._actions.shape)
        return self._actions

    def _set_one(self, action: Any) -> None:
        """Take the only episode's action: a number of the discrete set, two of the continuous one."""
        if self._continuous and np.shape(action) != self._actions.shape[1:]:
            raise InputError(f"continuous action has shape {np.shape(action)}, wanted {self._actions.shape[1:]}")
        self._actions[0] = action

    def _check_horizon(self, parents: NDArray[np.void]) -> None:
        wanted = self._config.horizon_ns
        other = parents["horizon_ns"] != wanted
        if other.any():
            raise InputError(
                f"parent horizon {parents['horizon_ns'][other][0]} ns is not the environment's {wanted} ns"
            )

    def _check(self, episode: int, fault: int) -> None:
        if fault == NO_FAULT:
            return
        start = int(self.parents[episode]["start_ns"])
        if fault == NO_BOOK:
            raise InputError(f"no two-sided book stands at {start} ns: start later")
        raise InputError(f"observation {OBSERVATION_NAMES[fault]} is not finite or unknown (parent from {start} ns)")
