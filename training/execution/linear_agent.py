"""An RLlib agent in the linear-impact world, where the best schedule is known: does the learner find optima at all?

PPO with continuous actions, the platform's own runner and learner, on `training.market.linear_world`. Nothing is
imitated and no rule is told: the agent starts from a random network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from training.execution.agent_config import AgentConfig
from training.market.linear_world import LinearImpactVectorEnv, LinearMarket

if TYPE_CHECKING:
    from training.execution.ppo import Policy, Update

KAPPAS = (0.5, 2.0, 5.0)
"""Kappa x horizon at which the agent is measured: from nearly even to most of it at once."""
PATHS = 4_096
"""Parents over which a policy that looks at the price is averaged."""


@dataclass(frozen=True)
class LinearOutcome:
    """One training: its objective and the closed form's, bps, and what the greedy policy leaves open on average."""

    kappa: float
    seed: int
    objective_bps: float
    optimum_bps: float
    twap_bps: float  # objective of the even schedule
    open_shares: tuple[float, ...]  # x_0 .. x_N, mean over parents
    env_steps: int

    @property
    def gap(self) -> float:
        """How much more than the optimum it costs, as a share of the optimum."""
        return self.objective_bps / self.optimum_bps - 1.0


class LinearWorld:
    """The linear market as a training asks for a world: one kind of parent, nothing to mix."""

    variants: tuple[Any, ...] = ()

    def __init__(self, market: LinearMarket) -> None:
        """Environments of `market`."""
        self.market = market

    def make_env(self, num_envs: int, seed: int) -> LinearImpactVectorEnv:
        """A vector environment; an `EnvFactory`."""
        return LinearImpactVectorEnv(self.market, num_envs, seed)

    def with_variants(self, count: int) -> Self:
        """Itself."""
        return self


def linear_config(env_steps: int = 600_000) -> AgentConfig:
    """Settings of `train_agent`'s PPO for parents of a few decisions whose rewards are noise for the most part."""
    return AgentConfig(
        env_steps=env_steps,
        num_envs=512,
        batch_steps=16_384,
        minibatch_steps=2_048,
        epochs=8,
        hidden=(32, 32),
        learning_rate=3e-3,
        entropy_start=0.002,
        entropy_end=0.0,
        validation_every=1_000_000,
        execution={"actions": "continuous"},
    )


def expected_objective_bps(
    market: LinearMarket, policy: "Policy", paths: int = PATHS
) -> tuple[float, NDArray[np.float64]]:
    """E + lambda V of a greedy policy, bps, and its mean open shares `(N + 1,)`.

    The price's own moves are a martingale that costs nothing on average whatever is done (Almgren and Chriss 2000, eq.
    4), so they are left out of the cost: the figure is exact where the policy does not look at the price, and an
    average over `paths` of its reactions where it does.
    """
    env = LinearImpactVectorEnv(market, paths, seed=0)
    state, _ = env.reset(seed=0)
    shares = [np.ones(paths)]
    for _ in range(market.slices):
        action = np.asarray(policy(state["observation"], state["action_mask"]), np.float64).reshape(paths)
        last = len(shares) == market.slices
        traded = shares[-1] if last else np.clip(0.5 * (action + 1.0), 0.0, 1.0) * shares[-1]
        shares.append(shares[-1] - traded)
        state, *_ = env.step(action[:, None].astype(np.float32))
    found = np.stack(shares)
    costs = [market.moments_bps(found[:, path]) for path in range(paths)]
    objective = np.mean([mean + market.risk_aversion * variance for mean, variance in costs])
    return float(objective), found.mean(axis=1)


def train_linear(
    kappa: float, seed: int, config: AgentConfig | None = None, report: "Callable[[Update], None] | None" = None
) -> LinearOutcome:
    """Train one agent where kappa x horizon is `kappa`; the last policy counts, none is chosen. Ray must be running."""
    from training.execution.ppo import new_module, train_policy

    chosen = config or linear_config()
    market = LinearMarket.with_kappa(kappa)
    world = LinearWorld(market)
    env = world.make_env(1, 0)
    # Bounds of the observation, by hand: shares are in [0, 1], moves of the size of the volatility.
    mean = np.array([0.5, 0.5, 0.0], np.float32)
    scale = np.array([0.5, 0.5, market.sigma_bps], np.float32)
    module = new_module(env.single_observation_space, env.single_action_space, mean, scale, chosen, seed)
    steps = 0
    shares: NDArray[np.float64] = np.zeros(0)
    objective = np.inf

    def validate(policy: "Policy") -> float:
        nonlocal objective, shares
        objective, shares = expected_objective_bps(market, policy)
        return objective

    def on_update(update: "Update") -> None:
        nonlocal steps
        steps = update.env_steps
        if report is not None:
            report(update)

    train_policy(world, module, validate, chosen, seed, on_update, None)
    even = np.linspace(1.0, 0.0, market.slices + 1)
    twap_mean, twap_variance = market.moments_bps(even)
    return LinearOutcome(
        kappa, seed, objective, market.objective_bps(), twap_mean + market.risk_aversion * twap_variance,
        tuple(float(value) for value in shares), steps,
    )  # fmt: skip
