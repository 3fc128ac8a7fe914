"""The market of Almgren and Chriss (2000): linear impact, no book, where the best schedule is known in closed form.

With time in horizons, quantity in parents, prices in bps of the arrival price and above zero against the parent, n_k
being what trades in step k of N, tau = 1 / N, x_k what is open after it and xi_k standard normal,

    price    S_k = S_(k-1) + sigma sqrt(tau) xi_k + gamma n_k          (eq. 1, permanent impact)
    paid     S_(k-1) + eta n_k / tau                                  (eq. 2, temporary impact)
    E = gamma / 2 + (eta - gamma tau / 2) sum n_k^2 / tau,   V = sigma^2 tau sum x_k^2      (eqs. 4, 5)

and E + lambda V is least for x_k = sinh(kappa (1 - k tau)) / sinh(kappa) (eq. 18). It is the place to find out whether
an agent learns what is optimal, and whether a schedule's cost is computed right.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from feature_repo.errors import InputError

Floats = NDArray[np.float64]
Observation = dict[str, NDArray[np.float32]]
MOVE_LIMIT_BPS = 1000.0
OBSERVATION_NAMES = ("open_share", "time_left", "mid_move_bps")


@dataclass(frozen=True)
class LinearMarket:
    """One linear market; costs and risk are per parent and horizon.

    Raises InputError for values that are negative or not finite, and where gamma leaves no temporary impact.
    """

    sigma_bps: float = 8.0  # volatility over the horizon
    gamma_bps: float = 0.5  # permanent: move of the price that the whole parent causes
    eta_bps: float = 1.5  # temporary: cost of trading the whole parent evenly over the horizon
    risk_aversion: float = 0.1  # lambda, 1 / bps
    slices: int = 10  # N

    def __post_init__(self) -> None:
        """Refuse a market without an optimum."""
        values = (self.sigma_bps, self.gamma_bps, self.eta_bps, self.risk_aversion)
        if not all(np.isfinite(value) and value >= 0 for value in values):
            raise InputError(f"sigma_bps, gamma_bps, eta_bps, risk_aversion {values}: give finite values from 0 up")
        if self.slices < 1:
            raise InputError(f"slices {self.slices} must be at least 1")
        if self.eta_less <= 0:
            limit = 0.5 * self.gamma_bps / self.slices
            raise InputError(f"eta_bps {self.eta_bps} must exceed gamma_bps / (2 slices) = {limit:g}")

    @staticmethod
    def with_kappa(kappa: float, **values: Any) -> "LinearMarket":
        """The market whose risk aversion makes kappa x horizon equal to `kappa`; other fields as given."""
        base = LinearMarket(**{**values, "risk_aversion": 0.0})
        tau = 1.0 / base.slices
        if not (np.isfinite(kappa) and kappa >= 0 and base.sigma_bps > 0):
            raise InputError(f"kappa {kappa} and sigma_bps {base.sigma_bps}: give kappa from 0 up, sigma above 0")
        aversion = 2.0 * base.eta_less * (np.cosh(kappa * tau) - 1.0) / (tau * base.sigma_bps) ** 2
        return LinearMarket(**{**values, "risk_aversion": float(aversion)})

    @property
    def eta_less(self) -> float:
        """Temporary impact less half the permanent one of a step: eta~."""
        return self.eta_bps - 0.5 * self.gamma_bps / self.slices

    @property
    def kappa(self) -> float:
        """Kappa x horizon of the discrete optimum (eq. 17)."""
        tau = 1.0 / self.slices
        return float(np.arccosh(1.0 + 0.5 * self.risk_aversion * (tau * self.sigma_bps) ** 2 / self.eta_less) / tau)

    def optimal_open_shares(self) -> Floats:
        """x_0 .. x_N of the optimum, `(N + 1,)`."""
        done, kappa = np.linspace(0, 1, self.slices + 1), self.kappa
        if kappa < 1e-6:
            return 1.0 - done
        return np.exp(-kappa * done) * np.expm1(-2 * kappa * (1 - done)) / np.expm1(-2 * kappa)

    def optimum_bps(self) -> tuple[float, float]:
        """E in bps and V in bps^2 of the optimum by their closed forms (eq. 20)."""
        kappa, tau = self.kappa, 1.0 / self.slices
        if kappa < 1e-6:
            return self.moments_bps(self.optimal_open_shares())
        square = np.sinh(kappa) ** 2
        mean = (
            np.tanh(0.5 * kappa * tau) * (tau * np.sinh(2 * kappa) + 2 * np.sinh(kappa * tau)) / (2 * tau**2 * square)
        )
        spread = tau * np.sinh(kappa) * np.cosh(kappa * (1 - tau)) - np.sinh(kappa * tau)
        variance = 0.5 * self.sigma_bps**2 * spread / (square * np.sinh(kappa * tau))
        return float(0.5 * self.gamma_bps + self.eta_less * mean), float(variance)

    def objective_bps(self) -> float:
        """E + lambda V of the optimum, bps."""
        mean, variance = self.optimum_bps()
        return mean + self.risk_aversion * variance

    def moments_bps(self, open_shares: Floats) -> tuple[float, float]:
        """E and V of any schedule x_0 .. x_N `(N + 1,)` fixed in advance (eqs. 4, 5)."""
        tau = 1.0 / self.slices
        traded = -np.diff(open_shares)
        mean = 0.5 * self.gamma_bps + self.eta_less * float((traded**2).sum()) / tau
        return mean, self.sigma_bps**2 * tau * float((open_shares[1:] ** 2).sum())

    def simulate(self, open_shares: Floats, rng: np.random.Generator, paths: int) -> Floats:
        """Costs in bps of `paths` parents that follow the schedule `(N + 1,)`, step by step, `(paths,) float64`.

        Antithetic pairs: the second half of the paths has the moves of the first with their signs changed.
        """
        tau = 1.0 / self.slices
        half = rng.standard_normal((paths - paths // 2, self.slices))
        moves = np.concatenate([half, -half[: paths // 2]])
        price, cost = np.zeros(paths), np.zeros(paths)
        for k in range(self.slices):
            share = open_shares[k] - open_shares[k + 1]
            cost += share * (price + self.eta_bps * share / tau)
            price += self.sigma_bps * np.sqrt(tau) * moves[:, k] + self.gamma_bps * share
        return cost


def observation_space() -> spaces.Dict:
    """`{"observation": Box (3,) float32, "action_mask": Box (1,) float32}`."""
    low = np.array([0.0, 0.0, -MOVE_LIMIT_BPS], np.float32)
    high = np.array([1.0, 1.0, MOVE_LIMIT_BPS], np.float32)
    mask = spaces.Box(0.0, 1.0, (1,), np.float32)
    return spaces.Dict({"observation": spaces.Box(low, high, dtype=np.float32), "action_mask": mask})


class _Paths:
    """N parents at work, in arrays."""

    def __init__(self, market: LinearMarket, count: int) -> None:
        self.market = market
        self.open, self.price, self.cost, self.risk = (np.zeros(count) for _ in range(4))
        self.step = np.zeros(count, np.int64)

    def start(self, where: NDArray[np.bool_]) -> None:
        self.open[where], self.step[where] = 1.0, 0
        self.price[where] = self.cost[where] = self.risk[where] = 0.0

    def trade(self, actions: Floats, noise: Floats, where: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Rewards `(N,)` of one step in the parents `where`, and which of them ended."""
        market, tau = self.market, 1.0 / self.market.slices
        wanted = 0.5 * (np.clip(np.nan_to_num(actions, nan=-1.0), -1.0, 1.0) + 1.0)
        last = self.step == market.slices - 1
        share = np.where(last, self.open, wanted * self.open) * where
        paid = self.price + market.eta_bps * share / tau
        move = np.where(where, market.sigma_bps * np.sqrt(tau) * noise + market.gamma_bps * share, 0.0)
        before = self.cost + self.open * self.price
        self.cost += share * paid
        self.open -= share
        self.price += move
        risk = market.sigma_bps**2 * tau * self.open**2 * where
        self.risk += risk
        self.step += where
        reward = before - (self.cost + self.open * self.price) - market.risk_aversion * risk
        return reward * where, last & where

    def observe(self) -> Observation:
        """Observations of all parents."""
        left = 1.0 - self.step / self.market.slices
        move = np.clip(self.price, -MOVE_LIMIT_BPS, MOVE_LIMIT_BPS)
        out = np.stack([self.open, left, move], axis=1).astype(np.float32)
        return {"observation": out, "action_mask": np.ones((len(out), 1), np.float32)}


class LinearImpactEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Work one parent in a LinearMarket.

    Episode. N steps; in the last one all that is open trades. It terminates then and is never truncated.

    | observation | unit | bounds |
    | --- | --- | --- |
    | open_share | of the parent | 0, 1 |
    | time_left | of the horizon | 0, 1 |
    | mid_move_bps | price less arrival price, own permanent impact included; above zero is worse | -1000, 1000 |

    `action_mask` is 1: nothing is masked (policies of the other environments expect one).

    Action: Box (1,) from -1 to 1; (action + 1) / 2 of what is open trades in this step. Values beyond are clipped, one
    that is not a number trades nothing.

    Reward, bps: minus the change of the shortfall with the open part marked at the price, less risk_aversion x sigma^2
    tau x_k^2. The undiscounted sum is -(cost + lambda V) of the path, whose mean for a schedule fixed in advance is
    -(E + lambda V): the best is `LinearMarket.optimal_open_shares`, its value `-LinearMarket.objective_bps()`. After
    the last step `info` holds `is_bps` (the cost) and `risk` (V of the path).
    """

    metadata = {"render_modes": []}

    def __init__(self, market: LinearMarket | None = None, seed: int | None = None) -> None:
        """A parent in `market`; `seed` starts the generator of the moves."""
        self.market = market or LinearMarket()
        self.observation_space = observation_space()
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._paths = _Paths(self.market, 1)
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a parent."""
        super().reset(seed=seed)
        self._paths.start(np.ones(1, bool))
        return self._seen(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Trade, let the price move, and observe; a finished parent earns 0."""
        running = self._paths.step < self.market.slices
        noise = self.np_random.standard_normal(1)
        reward, ended = self._paths.trade(np.asarray(action, float).reshape(1), noise, running)
        info = {"is_bps": float(self._paths.cost[0]), "risk": float(self._paths.risk[0])} if ended[0] else {}
        return self._seen(), float(reward[0]), not running[0] or bool(ended[0]), False, info

    def _seen(self) -> Observation:
        return {name: values[0] for name, values in self._paths.observe().items()}


class LinearImpactVectorEnv(VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """`num_envs` episodes of LinearImpactEnv side by side, batched; autoreset is Gymnasium's NEXT_STEP.

    Infos hold, where episodes ended, `(N,)` arrays of LinearImpactEnv's infos with Gymnasium's `_name` masks.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, market: LinearMarket | None = None, num_envs: int = 64, seed: int | None = None) -> None:
        """`num_envs` parents in `market`; `seed` starts the one generator of the moves."""
        if num_envs < 1:
            raise InputError(f"num_envs {num_envs} must be at least 1")
        self.market, self.num_envs = market or LinearMarket(), num_envs
        self.single_observation_space = observation_space()
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._paths = _Paths(self.market, num_envs)
        self._ended = np.zeros(num_envs, bool)
        self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every parent anew; an int `seed` (of a list, the first) seeds the generator."""
        first = seed[0] if isinstance(seed, list) else seed
        if first is not None:
            self._np_random, self._np_random_seed = seeding.np_random(first)
        self._paths.start(np.ones(self.num_envs, bool))
        self._ended[:] = False
        return self._paths.observe(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step the parents that run and start anew those that ended in the step before."""
        noise = self.np_random.standard_normal(self.num_envs)
        rewards, ended = self._paths.trade(np.asarray(actions, float).reshape(self.num_envs), noise, ~self._ended)
        infos: dict[str, Any] = {}
        if ended.any():
            for name, values in (("is_bps", self._paths.cost), ("risk", self._paths.risk)):
                infos[name], infos[f"_{name}"] = np.where(ended, values, 0.0), ended.copy()
        self._paths.start(self._ended)
        self._ended = ended
        return self._paths.observe(), rewards, ended.copy(), np.zeros(self.num_envs, bool), infos
