"""The execution environment: one parent order at work on a replayed day, for Gymnasium."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_NAMES, OBSERVATION_SIZE, observation_bounds
from training.execution.actions import observe_batch, step_batch, step_settings
from training.execution.config import ExecutionConfig
from training.execution.parents import ParentOrder, ParentSampler, check_parents
from training.market.day import MarketDay, load_market_days
from training.market.engine import Engine

Observation = dict[str, NDArray[Any]]


def observation_space() -> spaces.Dict:
    """`{"observation": Box (D,) float32, "action_mask": Box (4,) float32}`."""
    low, high = observation_bounds()
    mask = spaces.Box(0.0, 1.0, (len(ACTION_NAMES),), np.float32)
    return spaces.Dict({"observation": spaces.Box(low, high, dtype=np.float32), "action_mask": mask})


class ExecutionEnv(gym.Env[Observation, np.int64]):
    """Work one parent order over its horizon.

    Episode. `reset` draws a parent (a day uniformly, then an arrival second in its session windows, then a side) or
    takes `options={"parent": ParentOrder(...)}`. A decision is due every `decision_interval_s`; at the horizon what
    remains is swept by force. The episode terminates when the parent is filled, by that sweep at the latest; it is
    never truncated.

    Observation: `observation` (D,) float32, unnormalised, and `action_mask` (4,) float32 with 1 for what is possible.

    | element | unit | bounds |
    | --- | --- | --- |
    | remaining_fraction | lots open / parent lots | 0, 1 |
    | time_left_fraction | time to the horizon / horizon | 0, 1 |
    | due_slices | lots that the even schedule wants by the end of this slice, in slices | -4, 8 |
    | resting | 1 while an own order rests | 0, 1 |
    | queue_ahead_share | lots ahead / (lots ahead + own resting lots) | 0, 1 |
    | rest_distance_ticks | ticks from the resting price to the own best price | -20, 20 |
    | mid_move_bps | mid since arrival, bps, side-signed (above zero: worse) | -200, 200 |
    | spread_ticks | ticks; 50 where a side is empty | 0, 50 |
    | opposite_queue_share | opposite / (opposite + own) lots at the best | 0, 1 |
    | own_queue_share | own / (opposite + own) lots at the best | 0, 1 |
    | due_to_opposite_size | lots due / lots at the opposite best | 0, 10 |
    | market features | as `feature_repo.pipeline.kernels.SIGNAL_V1`, the directional ones side-signed | -1e6, 1e6 |
    | forecast_10s_bps, _30s_, _60s_ | mid move forecast, bps, side-signed; 0 where missing | -100, 100 |
    | forecast_missing | 1: no model older than the day | 0, 1 |

    Market features and forecasts are the last row stamped at or before the decision.

    Actions, Discrete(4); `due` is min(remaining, TWAP schedule `ahead_slices` slices ahead - filled):

    | action | message |
    | --- | --- |
    | 0 wait | cancel what rests |
    | 1 place | rest `due` lots at the own best price of the decision |
    | 2 improve | rest `due` lots one tick inside the spread; masked where the spread is one tick |
    | 3 cross | take `due` lots from the visible book at once (IOC) |

    Placing again at the same price keeps the queue place; lots added to it join the back. A masked action is played as
    wait and counted.

    Reward, bps of the parent's arrival value: minus the change of the shortfall with the open lots marked at the mid.
    The undiscounted sum is minus the implementation shortfall, fees included. `risk_aversion` > 0 also subtracts
    risk_aversion x (open share x mid move of the step in bps)^2. After the last step `info` holds `is_bps`, `risk`,
    `passive_share`, `masked` and `extrapolated_lots`.

    Raises InputError for no days, settings that no session window has room for, a parent that its day cannot hold, and
    values that are not finite.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, days: Sequence[MarketDay], config: ExecutionConfig | None = None, seed: int | None = None
    ) -> None:
        """Episodes over `days`; `seed` starts the generator that draws parents."""
        self.config = config or ExecutionConfig()
        self.observation_space = observation_space()
        self.action_space = spaces.Discrete(len(ACTION_NAMES))
        self._days = list(days)
        self._sampler = ParentSampler(self._days, self.config)
        self._engine = Engine(self._days, 1, self.config.latency_ns, self.config.fill_model)
        self._settings = step_settings(self.config)
        self._rewards = np.zeros(1)
        if seed is not None:
            self._np_random, self._np_random_seed = gym.utils.seeding.np_random(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a drawn parent, or the one in `options["parent"]`."""
        super().reset(seed=seed)
        parent = (options or {}).get("parent")
        if isinstance(parent, ParentOrder):
            rows = parent.row()
            check_parents(self._days, rows, self.config)
            if parent.horizon_ns != self.config.horizon_ns:
                wanted = self.config.horizon_ns
                raise InputError(f"parent horizon {parent.horizon_ns} ns is not the environment's {wanted} ns")
        else:
            rows = self._sampler.draw(self.np_random, 1)
        self._engine.start(rows)
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act, play one decision interval, and observe."""
        actions = np.array([action], np.int64)
        engine = self._engine
        step_batch(
            engine.tape, engine.states, actions, self._settings, engine.taken_px, engine.taken_lots,
            engine.fill_rows, engine.fill_count, self._rewards,
        )  # fmt: skip
        state = engine.states[0]
        done = bool(state["done"])
        info = episode_info(state) if done else {}
        return self._observe(), float(self._rewards[0]), done, False, info

    def _observe(self) -> Observation:
        out = np.zeros((1, OBSERVATION_SIZE), np.float32)
        mask = np.zeros((1, len(ACTION_NAMES)), np.float32)
        checked_observe(self._engine, self._settings, out, mask)
        return {"observation": out[0], "action_mask": mask[0]}


def checked_observe(engine: Engine, settings: Any, out: NDArray[np.float32], mask: NDArray[np.float32]) -> None:
    """Write all observations and masks; raises InputError naming the first element that is not finite."""
    episode, element = observe_batch(engine.tape, engine.states, settings, out, mask)
    if episode >= 0:
        start = int(engine.states[episode]["start_ns"])
        raise InputError(f"observation {OBSERVATION_NAMES[element]} is not finite or unknown (parent from {start} ns)")


def episode_info(state: NDArray[np.void]) -> dict[str, float]:
    """What the last step of an episode reports."""
    return {
        "is_bps": float(state["mark_bps"]),
        "risk": float(state["penalty"]),
        "passive_share": float(state["passive_lots"] / state["lots"]),
        "masked": float(state["masked"]),
        "extrapolated_lots": float(state["extrapolated_lots"]),
    }


def env_creator(env_config: dict[str, Any]) -> gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]:
    """Environment from plain values, for registries and workers: a vector environment where `num_envs` is given.

    Keys: `features_dir`, `forecasts_dir` (optional), `partitions` [(venue, symbol, date), ...], `execution` (fields of
    ExecutionConfig, optional), `seed` (optional), `num_envs` (optional).
    """
    from training.execution.vector_env import ExecutionVectorEnv

    forecasts = env_config.get("forecasts_dir")
    days = load_market_days(
        Path(env_config["features_dir"]),
        Path(forecasts) if forecasts else None,
        [Partition(*item) for item in env_config["partitions"]],
    )
    config = ExecutionConfig.from_dict(dict(env_config.get("execution", {})))
    if "num_envs" in env_config:
        return ExecutionVectorEnv(days, config, int(env_config["num_envs"]), env_config.get("seed"))
    return ExecutionEnv(days, config, env_config.get("seed"))
