"""A head start: the module imitates a rule and learns what the rule's states are worth."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.execution.agent_config import AgentConfig
from training.execution.config import ExecutionConfig
from training.execution.ppo import Policy, deterministic_torch
from training.execution.static_rule import THIN_SHARE, static_rule

if TYPE_CHECKING:
    from torch import Tensor

    from training.execution.env_runner import EnvFactory
    from training.execution.ppo import ActingModule

Rows = dict[str, NDArray[Any]]

MARGIN_BPS = 0.2
"""Lead that imitation gives the value of the rule's action, in the reward's unit."""

THIN_SHARES = (0.0, 0.05, 0.1, THIN_SHARE)
"""Thresholds of the rules that compete to be imitated; at 0 it rests throughout. How often crossing pays depends on how
often one may decide: every two seconds there is nearly always a queue that is thin for a moment."""

KEEP_TICKS = (0, 1, 2)
"""Ticks by which the best price may move away before those rules follow it; others than 0 compete where waiting leaves
what rests. A price that has moved by a tick often comes back, to an order that has kept its place in the queue."""

CHASES_BPS = (0.0, 0.05, 0.1, 0.2)
"""Forecasts of the next ten seconds from which the best of those rules improves on the price where the spread is wide:
the market is about to leave, and a new level has no queue yet."""

SHUT_OUT = 1e12
"""Scale of a column that a policy shall not see."""

AS_CONTINUOUS = np.array([(-1.0, 0.0), (1.0, 0.1), (1.0, 0.25), (1.0, 0.75)], np.float32)
"""Share and aggressiveness that do what each discrete action does: nothing, at the best price, inside, across."""


def random_policy(generator: np.random.Generator, continuous: bool = False) -> Policy:
    """Uniform over the allowed actions, or over the box."""

    def act(observation: NDArray[np.float32], action_mask: NDArray[np.float32]) -> NDArray[Any]:
        if continuous:
            return generator.uniform(-1.0, 1.0, (len(observation), AS_CONTINUOUS.shape[1])).astype(np.float32)
        return (generator.random(action_mask.shape) * (action_mask > 0.5)).argmax(axis=1)

    return act


def continuous_rule(rule: Policy) -> Policy:
    """A rule of discrete actions in the continuous set."""

    def act(observation: NDArray[np.float32], action_mask: NDArray[np.float32]) -> NDArray[Any]:
        return AS_CONTINUOUS[rule(observation, action_mask)]

    return act


def best_rule(judge: Callable[[Policy], float], execution: ExecutionConfig) -> tuple[Policy, float]:
    """The static rule that `judge` gives the lowest cost, and that cost, bps; the first of equals wins.

    Those of every threshold of THIN_SHARES compete, where waiting keeps what rests with each of KEEP_TICKS; then the
    best of them with each of CHASES_BPS.
    """
    keeps = KEEP_TICKS if execution.wait_keeps and execution.actions == "discrete" else KEEP_TICKS[:1]
    adapt = continuous_rule if execution.actions == "continuous" else _as_it_is
    settings: list[dict[str, Any]] = [{"thin_share": s, "keep_ticks": k} for k in keeps for s in THIN_SHARES]
    costs = [judge(adapt(partial(static_rule, **chosen))) for chosen in settings]
    best = settings[int(np.argmin(costs))]
    settings += [{**best, "chase_bps": chase} for chase in CHASES_BPS]
    costs += [judge(adapt(partial(static_rule, **chosen))) for chosen in settings[len(costs) :]]
    winner = int(np.argmin(costs))
    return adapt(partial(static_rule, **settings[winner])), costs[winner]


def _as_it_is(rule: Policy) -> Policy:
    return rule


def roll_out(make_env: "EnvFactory", policy: Policy, steps: int, config: AgentConfig, seed: int) -> Rows:
    """About `steps` environment steps under `policy`: `observation` (M, D), `action_mask` (M, A), `action` (M,), and
    `to_go` (M,), the undiscounted reward from there to the episode's end, NaN where the episode was not over yet.
    """
    from training.execution.env_runner import resets_in_next_step

    env = make_env(config.num_envs, seed)
    try:
        skips = resets_in_next_step(env)
        state, _ = env.reset(seed=seed)
        ended = np.zeros(config.num_envs, dtype=bool)
        rows: list[Rows] = []
        for _ in range(-(-steps // config.num_envs)):
            row = {name: value.copy() for name, value in state.items()}
            row["action"] = policy(row["observation"], row["action_mask"])
            row["valid"] = ~ended
            state, reward, terminated, truncated, _ = env.step(row["action"])
            row |= {"reward": np.asarray(reward, dtype=np.float64), "done": terminated | truncated}
            ended = (row["done"] & row["valid"]) if skips else np.zeros_like(ended)
            rows.append(row)
    finally:
        env.close()
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    columns["to_go"] = _to_go(columns["reward"], columns["done"], columns["valid"])
    valid = columns["valid"]
    return {name: columns[name][valid] for name in ("observation", "action_mask", "action", "to_go")}


def fit_normaliser(observations: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale, both (D,) float32, of `observations` (M, D).

    A column that never varied, e.g. forecasts where there are none, is shut out by a scale that leaves nothing of it:
    nothing was learned of it, and a policy must not act on it where it does vary.
    """
    mean = observations.mean(axis=0, dtype=np.float64)
    scale = observations.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, SHUT_OUT).astype(np.float32)


def imitate(module: "ActingModule", rows: Rows, config: AgentConfig, seed: int, values_only: bool = False) -> None:
    """Fit `module` in place to a rule's rows from `roll_out`: its actions, and what its states were worth.

    Discrete: cross entropy to a target that keeps `1 - warm_start_confidence` for the other allowed actions, so that
    PPO still has something to try. Continuous: likelihood of the rule's action, and entropy for the same reason. Action
    values: the rule's action is worth what followed and leads the others by a margin (Hester et al. 2018, eq. 1).
    `values_only` leaves the policy as it is and fits the value function alone; a Q module has none of its own.
    """
    import torch

    from training.execution.rl_module import QModule

    loss_of = _q_loss if isinstance(module, QModule) else _actor_critic_loss
    with deterministic_torch(seed):
        columns = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in rows.items()}
        columns["to_go"] = columns["to_go"].float()
        columns["target"] = torch.from_numpy(_targets(rows, config))
        fitted = module.value if values_only else module
        optimiser = torch.optim.Adam(fitted.parameters(), lr=1e-3)
        for _ in range(config.warm_start_epochs):
            for index in torch.randperm(len(columns["target"])).split(512):
                loss = loss_of(module, {name: value[index] for name, value in columns.items()}, values_only)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def start_from(module: "ActingModule", folder: Path) -> None:
    """Give `module` the policy and the normaliser of a bundle; its value function stays as it is.

    Raises InputError where the bundle's policy is not of this module's kind or size.
    """
    import torch

    from serving.contracts.bundle import load_bundle
    from training.execution.export import policy_weights

    found = policy_weights(load_bundle(folder).policy_onnx)
    own = module.state_dict()
    wanted = {name for name in own if name.startswith(("policy.", "normaliser."))}
    for name in sorted(wanted | set(found)):
        theirs, ours = (tuple(have[name].shape) if name in have else None for have in (found, own))
        if theirs != ours:
            raise InputError(
                f"{folder}: its weight {name} has shape {theirs}, this training's {ours}: give its settings"
            )
    module.load_state_dict({name: torch.from_numpy(value) for name, value in found.items()}, strict=False)


def _targets(rows: Rows, config: AgentConfig) -> NDArray[Any]:
    """What imitation aims at: distributions (M, A), or the rule's own continuous actions (M, K)."""
    if rows["action"].ndim > 1:
        return rows["action"].astype(np.float32)
    return _soft_target(rows["action"], rows["action_mask"], config.warm_start_confidence)


def _actor_critic_loss(module: Any, rows: dict[str, "Tensor"], values_only: bool) -> "Tensor":
    import torch
    from torch.nn import functional

    value = module.compute_values({"obs": {"observation": rows["observation"]}})
    known = torch.isfinite(rows["to_go"])
    critic = functional.smooth_l1_loss(value[known], rows["to_go"][known]) if bool(known.any()) else 0.0 * value.sum()
    if values_only:
        return critic
    inputs = module._forward({"obs": rows})["action_dist_inputs"]
    if rows["action"].dim() == 1:
        return functional.cross_entropy(inputs, rows["target"]) + 0.1 * critic
    logp, entropy = module.judge(inputs, rows["target"].clamp(-0.9, 0.9))
    return -(logp + 0.2 * entropy).mean() + 0.1 * critic


def _q_loss(module: Any, rows: dict[str, "Tensor"], values_only: bool) -> "Tensor":
    import torch
    from torch.nn import functional

    values = module.masked_logits(rows["observation"], rows["action_mask"])
    chosen = rows["action"][:, None]
    taken = values.gather(1, chosen).squeeze(1)
    lead = torch.full_like(values, MARGIN_BPS).scatter(1, chosen, 0.0)
    behind = ((values + lead).amax(dim=1) - taken).mean()
    known = torch.isfinite(rows["to_go"])
    worth = functional.smooth_l1_loss(taken[known], rows["to_go"][known]) if bool(known.any()) else 0.0 * taken.sum()
    return worth + behind


def _soft_target(action: NDArray[np.int64], mask: NDArray[np.float32], confidence: float) -> NDArray[np.float32]:
    """Target distribution (M, A): `confidence` on the action, the rest even over the other allowed ones."""
    chosen = np.zeros(mask.shape, dtype=np.float32)
    chosen[np.arange(len(action)), action] = 1.0
    others = (mask > 0.5) * (1.0 - chosen)
    count = others.sum(axis=1, keepdims=True)
    spread = np.divide(others, count, out=np.zeros_like(others), where=count > 0)
    share = np.where(count > 0, confidence, 1.0)
    return (share * chosen + (1.0 - share) * spread).astype(np.float32)


def _to_go(reward: NDArray[np.float64], done: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Reward to go (T, N), NaN after the last end of an episode that the rows still saw."""
    total = np.full(reward.shape[1], np.nan)
    result = np.empty_like(reward)
    for t in reversed(range(len(reward))):
        total = np.where(done[t] & valid[t], 0.0, total) + np.where(valid[t], reward[t], 0.0)
        result[t] = total
    return result
