"""The execution environment: one parent order at work on a replayed day, for Gymnasium."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from serving.contracts.actions import CONTINUOUS_HIGH, CONTINUOUS_LOW, CONTINUOUS_NAMES
from serving.contracts.observation import ACTION_NAMES, observation_bounds
from training.execution.config import ExecutionConfig
from training.execution.parents import ParentOrder
from training.execution.steppers import make_stepper
from training.execution.stepping import episode_infos
from training.market.day import MarketDay, load_market_days

Observation = dict[str, NDArray[Any]]
Action = Any  # np.int64 of the discrete set, (2,) float32 of the continuous one


def observation_space() -> spaces.Dict:
    """`{"observation": Box (D,) float32, "action_mask": Box (4,) float32}`."""
    low, high = observation_bounds()
    mask = spaces.Box(0.0, 1.0, (len(ACTION_NAMES),), np.float32)
    return spaces.Dict({"observation": spaces.Box(low, high, dtype=np.float32), "action_mask": mask})


def action_space(config: ExecutionConfig) -> spaces.Space[Any]:
    """`Discrete(4)`, or `Box (2,) float32` where the configuration asks for continuous actions."""
    if config.actions == "discrete":
        return spaces.Discrete(len(ACTION_NAMES))
    return spaces.Box(CONTINUOUS_LOW, CONTINUOUS_HIGH, (len(CONTINUOUS_NAMES),), np.float32)


class ExecutionEnv(gym.Env[Observation, Action]):
    """Work one parent order over its horizon.

    Episode. `reset` draws a parent (a day uniformly, then an arrival second in its session windows, then a side) or
    takes `options={"parent": ParentOrder(...)}`. Decisions come at the arrival and then

    | setting | the next decision |
    | --- | --- |
    | decision_interval_s | after so many seconds, once in each slice; `decisions_per_slice` times, evenly, if above 1 |
    | decision_every_events | where given, after so many book rows instead; rows of one time stamp are one moment |

    The horizon is cut into slices of `decision_interval_s` on both grids. At the horizon what remains is swept by
    force: through the visible book, and beyond it through levels one tick apart behind the deepest visible one, each of
    the mean visible level's size (`extrapolated_share` tells how much). The episode terminates when the parent is
    filled, by that sweep at the latest; it is never truncated.

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
    | forecast_10s_bps, forecast_30s_bps, forecast_60s_bps | mid move, bps, side-signed; 0 where missing | -100, 100 |
    | forecast_missing | 1: no model older than the day | 0, 1 |

    Market features and forecasts are the last row stamped at or before the decision.

    Actions. `due` is min(remaining, even schedule `ahead_slices` slices ahead - filled), never below 0. With
    `actions` discrete, Discrete(4):

    | action | message |
    | --- | --- |
    | 0 wait | cancel what rests; with `wait_keeps` leave it as it stands |
    | 1 place | rest `due` lots at the own best price of the decision, or where an own order stands alone before it |
    | 2 improve | rest `due` lots one tick inside the spread; masked where the spread is one tick |
    | 3 cross | take `due` lots from the visible book at once (IOC) |

    With `actions` continuous, Box (2,) float32 in [-1, 1] (the constants are those of `serving.contracts.actions`):

    | element | value | message |
    | --- | --- | --- |
    | share | -1 to 1 | work (share + 1) / 2 of `due`, to the nearest lot; 0 lots: cancel what rests |
    | aggressiveness | -1 to 0 | rest 4 to 0 ticks behind the own best price (BEHIND_TICKS), to the nearest tick |
    | aggressiveness | 0 to 0.5 | rest inside the spread, by twice this share of it, rounded down to a tick |
    | aggressiveness | 0.5 to 1 | take the lots from the visible book at once (IOC), from CROSS_FROM on |

    Placing again at the same price keeps the queue place; lots added to it join the back. A discrete action that is
    masked is played as wait; a continuous one is clamped: to its bounds, to resting at the own best price where nobody
    is opposite, to cancelling where the own side is empty or a value is not a number. `masked` counts both.

    Reward, bps of the parent's arrival value: minus the change of the shortfall with the open lots marked at the mid.
    The undiscounted sum is minus the implementation shortfall, fees included. `risk_aversion` > 0 also subtracts
    risk_aversion x (open share x mid move of the step in bps)^2. After the last step `info` holds

    | info | unit |
    | --- | --- |
    | is_bps | implementation shortfall, bps, fees included |
    | risk | sum of (open share x mid move of the step in bps)^2 |
    | passive_share | lots filled while resting / parent lots |
    | completion | lots filled before the forced sweep / parent lots |
    | extrapolated_share | lots priced beyond the visible book / parent lots |
    | masked | actions that were masked or clamped |
    | refused | messages that met a halt or an unknown book: what rests stays, a cancel is carried out |

    In the world `impact` own fills displace the book against the parent (`training.market.reaction`): prices seen, sent
    and paid have the displacement in them, and so has the mid that marks the open lots. From the first displacement of
    an episode on, market features are those of the displaced stream and forecasts are missing.

    In the world `reactive` each episode has a market of its own that its orders change (`training.market.reactive`): a
    queue-reactive book with the published tables for synthetic days and tables estimated from `days` for others, which
    opens 70 s before the arrival around the day's best bid. Market features are made from that market's feed, in which
    own orders show; forecasts are missing. What the visible book lacks at the horizon is taken from the market's deeper
    levels first. `fill_model` does not apply: own orders stand in the queues. An order more than 12 ticks behind its
    best price is refused and counted, and what rested is gone.

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
        self.action_space = action_space(self.config)
        self._stepper = make_stepper(days, self.config, 1)
        self._np_random, self._np_random_seed = seeding.np_random(seed)
        self._stepper.seed(self._np_random)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a drawn parent, or `options["parent"]`, in the reactive world in its market `options["market"]`."""
        super().reset(seed=seed)
        if seed is not None:
            self._stepper.seed(self.np_random)
        parent, market = (options or {}).get("parent"), (options or {}).get("market")
        if parent is not None and not isinstance(parent, ParentOrder):
            raise InputError(f"option parent is {parent!r}; give a ParentOrder, or none to draw one")
        if parent is not None:
            self._stepper.start(parent.row(), markets=None if market is None else np.array([market], np.int64))
            out, mask = self._stepper.observe()
        else:
            out, mask = self._stepper.draw()
        return {"observation": out[0], "action_mask": mask[0]}, {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act, play up to the next decision, and observe."""
        out, mask, reward, done = self._stepper.step_one(action)
        ended = episode_infos(self._stepper.engine.states).items() if done else ()
        info = {name: float(column[0]) for name, column in ended}
        return {"observation": out, "action_mask": mask}, reward, done, False, info


def env_creator(env_config: dict[str, Any]) -> gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]:
    """Environment from plain values, for registries and workers: a vector environment where `num_envs` is given.

    Keys: `features_dir`, `forecasts_dir` (optional), `partitions` [(venue, symbol, date), ...], `execution` (fields of
    ExecutionConfig, optional), `seed` (optional), `num_envs` (optional).
    """
    from training.execution.vector_env import ExecutionVectorEnv

    forecasts = env_config.get("forecasts_dir")
    config = ExecutionConfig.from_dict(dict(env_config.get("execution", {})))
    days = load_market_days(
        Path(env_config["features_dir"]),
        Path(forecasts) if forecasts else None,
        [Partition(*item) for item in env_config["partitions"]],
        config.world == "impact",
    )
    if "num_envs" in env_config:
        return ExecutionVectorEnv(days, config, int(env_config["num_envs"]), env_config.get("seed"))
    return ExecutionEnv(days, config, env_config.get("seed"))
