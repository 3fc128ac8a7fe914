"""A head start for PPO: the module imitates a rule and learns what the rule's states are worth."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.execution.agent_config import AgentConfig
from training.execution.ppo import Policy, deterministic_torch

if TYPE_CHECKING:
    from training.execution.env_runner import EnvFactory
    from training.execution.rl_module import ExecutionModule

Rows = dict[str, NDArray[Any]]


def random_policy(generator: np.random.Generator) -> Policy:
    """Uniform over the allowed actions."""

    def act(observation: NDArray[np.float32], action_mask: NDArray[np.float32]) -> NDArray[np.int64]:
        return (generator.random(action_mask.shape) * (action_mask > 0.5)).argmax(axis=1)

    return act


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
    """Mean and scale, both (D,) float32, of `observations` (M, D); a column that hardly varies has scale 1."""
    mean = observations.mean(axis=0, dtype=np.float64)
    scale = observations.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)


def imitate(module: "ExecutionModule", rows: Rows, config: AgentConfig, seed: int) -> None:
    """Fit `module` in place to a rule's rows from `roll_out`: its actions, and what its states were worth.

    The target keeps `1 - warm_start_confidence` for the other allowed actions, so that PPO still has something to try.
    """
    import torch
    from torch.nn import functional

    with deterministic_torch(seed):
        observation, mask = (torch.from_numpy(rows[name]) for name in ("observation", "action_mask"))
        target = torch.from_numpy(_soft_target(rows["action"], rows["action_mask"], config.warm_start_confidence))
        to_go = torch.from_numpy(rows["to_go"].astype(np.float32))
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
        for _ in range(config.warm_start_epochs):
            for index in torch.randperm(len(target)).split(512):
                logits = module.masked_logits(observation[index], mask[index])
                value = module.compute_values({"obs": {"observation": observation[index]}})
                known = torch.isfinite(to_go[index])
                loss = functional.cross_entropy(logits, target[index])
                if bool(known.any()):
                    loss = loss + 0.1 * functional.smooth_l1_loss(value[known], to_go[index][known])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


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
