"""Search for training settings with Ray Tune: each trial is one short training, judged on the validation days."""

import contextlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.execution.agent_config import AgentConfig


def search(
    features_dir: Path, forecasts_dir: Path | None, config: AgentConfig, trials: int, seed: int
) -> list[dict[str, Any]]:
    """Try `trials` settings drawn at random and return them with their validation cost in bps, best first.

    Drawn are learning rate, last entropy weight, slices ahead of the schedule, and confidence of the warm start; a
    trial trains the first of `config.seeds`. Trials that fall behind the median of the others are stopped early. The
    test days are not read. The same arguments draw the same settings; which of them are stopped depends on time.
    """
    from ray import tune
    from ray.tune.schedulers import MedianStoppingRule

    from training.execution.local_ray import local_ray

    space = {
        "learning_rate": tune.loguniform(1e-4, 3e-3),
        "entropy_end": tune.loguniform(1e-4, 1e-2),
        "ahead_slices": tune.choice([0, 1, 2, 4]),
        "warm_start_confidence": tune.uniform(0.5, 0.95),
    }

    def objective(chosen: dict[str, Any]) -> None:
        _trial(features_dir, forecasts_dir, applied(config, chosen))

    # The reporter that Tune has by default prints to standard output, which belongs to the command's answer.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    with (
        local_ray(max(1, config.ray_cpus), config.ray_address),
        tempfile.TemporaryDirectory() as results,
        contextlib.redirect_stdout(sys.stderr),
    ):
        tuner = tune.Tuner(
            objective,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="validation_bps",
                mode="min",
                num_samples=trials,
                scheduler=MedianStoppingRule(grace_period=2),
                search_alg=tune.search.basic_variant.BasicVariantGenerator(random_state=seed),
            ),
            run_config=tune.RunConfig(storage_path=results, verbose=0),
        )
        found = tuner.fit()
    rows = [
        {**{name: result.config[name] for name in space}, "validation_bps": result.metrics.get("best_bps")}
        for result in found
        if result.metrics and result.error is None and result.config
    ]
    return sorted((row for row in rows if row["validation_bps"] is not None), key=lambda row: row["validation_bps"])


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
