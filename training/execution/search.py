"""Search for training settings with Ray Tune: each trial is one short training, judged on the validation days."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.execution.agent_config import AgentConfig

if TYPE_CHECKING:
    from ray.tune import Tuner

NAME = "search"
"""Folder of a search below the one that it is given."""
DRAWN = ("learning_rate", "entropy_end", "ahead_slices", "warm_start_confidence")


def search(
    features_dir: Path,
    forecasts_dir: Path | None,
    config: AgentConfig,
    trials: int,
    seed: int,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Try `trials` settings drawn at random and return them with their validation cost in bps, best first.

    Drawn are learning rate, last entropy weight, slices ahead of the schedule, and confidence of the warm start; a
    trial trains the first of `config.seeds`. Trials in the worse half after a quarter and a half of the
    steps are stopped there (Li et al. 2020, "A system for massively parallel hyperparameter tuning"). The
    test days are not read. The same arguments draw the same settings; which of them are stopped depends on time.
    A search that was killed goes on from what it left in `folder`: finished trials are not done again, the others start
    anew. Without a folder nothing is left.
    """
    from training.execution.local_ray import local_ray

    steps = config.updates * config.batch_steps

    def objective(chosen: dict[str, Any]) -> None:
        _trial(features_dir, forecasts_dir, applied(config, chosen))

    # The reporter that Tune has by default prints to standard output, which belongs to the command's answer.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # what a kill may lose of the search's state
    with (
        local_ray(max(1, config.ray_cpus), config.ray_address),
        tempfile.TemporaryDirectory() as temporary,
        contextlib.redirect_stdout(sys.stderr),
    ):
        found = _tuner(objective, (folder or Path(temporary)).absolute(), steps, trials, seed).fit()
    rows = [
        {**{name: result.config[name] for name in DRAWN}, "validation_bps": result.metrics.get("best_bps")}
        for result in found
        if result.metrics and result.error is None and result.config
    ]
    return sorted((row for row in rows if row["validation_bps"] is not None), key=lambda row: row["validation_bps"])


def _tuner(objective: "Callable[[dict[str, Any]], None]", folder: Path, steps: int, trials: int, seed: int) -> "Tuner":
    """A search in `folder` among trainings of `steps` environment steps, or the search that was left there."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    if tune.Tuner.can_restore(folder / NAME):
        return tune.Tuner.restore(str(folder / NAME), objective, resume_unfinished=True, restart_errored=True)
    return tune.Tuner(
        objective,
        param_space={
            "learning_rate": tune.loguniform(1e-4, 3e-3),
            "entropy_end": tune.loguniform(1e-4, 1e-2),
            "ahead_slices": tune.choice([0, 1, 2, 4]),
            "warm_start_confidence": tune.uniform(0.5, 0.95),
        },
        tune_config=tune.TuneConfig(
            metric="validation_bps",
            mode="min",
            num_samples=trials,
            # Never pauses a trial: one that goes on after a pause begins anew, since trials leave no checkpoints.
            scheduler=ASHAScheduler(
                time_attr="env_steps", max_t=2 * steps, grace_period=max(1, steps // 4), reduction_factor=2
            ),
            reuse_actors=True,
            search_alg=tune.search.basic_variant.BasicVariantGenerator(random_state=seed),
        ),
        run_config=tune.RunConfig(name=NAME, storage_path=str(folder), verbose=0),
    )


def applied(config: AgentConfig, chosen: dict[str, Any]) -> AgentConfig:
    """`config` with the drawn settings, one seed and no log."""
    values = dict(chosen)
    execution = {**config.execution, "ahead_slices": values.pop("ahead_slices")}
    return replace(config, **values, execution=execution, seeds=config.seeds[:1], tracking_uri=None, checkpoint_every=0)


def _trial(features_dir: Path, forecasts_dir: Path | None, config: AgentConfig) -> None:
    """One training in a worker of Ray Tune; reports every validation."""
    from ray import tune

    from training.execution.ppo import Update
    from training.execution.train import train_seed
    from training.execution.world import open_worlds

    best = float("inf")

    def report(update: Update) -> None:
        nonlocal best
        if update.validation_bps is not None:
            best = min(best, update.validation_bps)
            tune.report({"validation_bps": update.validation_bps, "best_bps": best, "env_steps": update.env_steps})

    training, validation = open_worlds(features_dir, forecasts_dir, config)
    with tempfile.TemporaryDirectory() as folder:
        train_seed(training, validation, config, config.seeds[0], report, checkpoint=Path(folder) / "none")
