"""Made-up rollouts that several tests share."""

import numpy as np

from serving.contracts.observation import ACTION_NAMES, OBSERVATION_SIZE
from training.execution.rollout import Rollout

ACTIONS = len(ACTION_NAMES)


def made_up(length=37, n=5, same_step=False, seed=0, width=OBSERVATION_SIZE):
    """Columns with episodes that end either way, and after each end a row that only resets unless `same_step`."""
    rng = np.random.default_rng(seed)
    terminated, truncated = (rng.random((length, n)) < 0.08 for _ in range(2))
    truncated &= ~terminated
    valid = np.ones((length, n), bool)
    last = []
    for t in range(1, length):
        if not same_step:
            valid[t] = ~((terminated | truncated)[t - 1] & valid[t - 1])
    terminated &= valid
    truncated &= valid
    if same_step:
        for t, column in np.argwhere(truncated):
            last.append((int(t), int(column), rng.normal(size=width).astype(np.float32), np.ones(ACTIONS, np.float32)))
    return Rollout(
        observation=rng.normal(size=(length + 1, n, width)).astype(np.float32),
        action_mask=np.ones((length + 1, n, ACTIONS), np.float32),
        actions=rng.integers(0, ACTIONS, (length, n)),
        logp=rng.normal(-1.0, 0.1, (length, n)).astype(np.float32),
        rewards=np.where(valid, rng.normal(size=(length, n)), 0.0).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        chosen=valid,
        started=rng.integers(0, 9, n),
        last_seen=tuple(last),
    )
