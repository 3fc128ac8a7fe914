"""Checkpoints of a training: all that its further course depends on, in one file that is there whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InputError

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm


def save_checkpoint(path: Path, algorithm: "Algorithm", content: dict[str, Any], mark: int) -> None:
    """Write the algorithm's state and `content`, then begin fresh episodes that follow from `mark`, as loading does."""
    state: dict[str, Any] = {"content": content, "mark": mark, "algorithm": algorithm.get_state()}
    state["runners"] = algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.progress())
    if algorithm.local_replay_buffer is not None:
        state["replay"] = algorithm.local_replay_buffer.get_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as handle:
        pickle.dump(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)
    _restart(algorithm, mark)


def load_checkpoint(path: Path, algorithm: "Algorithm") -> dict[str, Any]:
    """Put `algorithm` where `save_checkpoint` left it and return its `content`.

    The file is one's own, below the lake's work folder. Raises InputError where it cannot be read.
    """
    try:
        state = pickle.loads(path.read_bytes())
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); delete it to start again") from error
    algorithm.set_state(state["algorithm"])
    runners = state["runners"]
    group = algorithm.env_runner_group
    group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)
    # Runners come in the order of their numbers, the local one first where it samples.
    group.foreach_env_runner(
        lambda runner: runner.set_progress(runners[min(len(runners) - 1, runner.worker_index or 0)])
    )
    if algorithm.local_replay_buffer is not None:
        algorithm.local_replay_buffer.set_state(state["replay"])
    _restart(algorithm, state["mark"])
    content: dict[str, Any] = state["content"]
    return content


def _restart(algorithm: "Algorithm", mark: int) -> None:
    algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.restart(mark))
