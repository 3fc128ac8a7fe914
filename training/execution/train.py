"""The train_agent stage: from features and forecasts to a policy bundle, its untrained twin and the learning curves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.progress import Progress, no_progress
from training.execution.agent_config import AgentConfig
from training.execution.bundling import Provenance, write_agent_bundle
from training.execution.crossing import Stopwatch, first_below, twap_passive_bps, write_times
from training.execution.local_ray import local_ray
from training.execution.ppo import Trained, Update, Weights, new_module, train_policy, weights_of
from training.execution.static_rule import static_rule
from training.execution.warm_start import (
    best_rule,
    continuous_rule,
    fit_normaliser,
    imitate,
    random_policy,
    roll_out,
    start_from,
)
from training.execution.world import ExecutionWorld, Validation, open_worlds
from training.tracking import SILENT, Tracker, tracking_run

CHECKPOINTS = ".checkpoints"
"""Folder in `out_dir` that is there while the training runs."""


Outcome = tuple[Trained, Weights, dict[str, float]]
"""What a seed came to, its weights before any training, and validation figures of others, bps."""


def train_agent(
    features_dir: Path,
    forecasts_dir: Path | None,
    out_dir: Path,
    config: AgentConfig,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train one agent a seed on `config.train_days` and write the one that is best on the validation days.

    Writes `bundle/` (the chosen seed), `seeds/<seed>/` (the best of each), `bundle_untrained/` (the chosen seed as
    initialised), `curves.json` and `times.json` into `out_dir`. Equal inputs and configuration give equal bytes of all
    but the times. An interrupted training starts again from its seed, or, with `config.checkpoint_every`, goes on from
    the checkpoints in `out_dir`: both end with those bytes. Test days are never read. Returns what was trained and its
    validation figures, in bps of implementation shortfall.
    Raises InputError where a day is absent or unusable, or where the training diverged.
    """
    clock = Stopwatch()
    if not config.signals:
        forecasts_dir = None
    training, validation = open_worlds(features_dir, forecasts_dir, config)
    done_before = 0

    def report(update: Update) -> None:
        clock.mark()
        progress(min(done_before + update.env_steps, total), total, "env steps")

    facts = {**config.as_content(), "data_fingerprint": training.fingerprint()}
    total = len(config.seeds) * config.updates * config.batch_steps
    candidates: list[dict[str, float]] = []
    if len(config.candidates) > 1:
        config, candidates = _compete(features_dir, forecasts_dir, config, (training, validation))
        training, validation = open_worlds(features_dir, forecasts_dir, config, (training, validation))
    passive_bps = twap_passive_bps(validation)
    outcomes: list[Outcome] = []
    with (
        local_ray(config.ray_cpus, config.ray_address),
        tracking_run(config.tracking_uri, config.experiment, "train_agent", facts) as tracker,
    ):
        for seed in config.seeds:
            checkpoint = out_dir / CHECKPOINTS / f"seed_{seed}.pickle"
            clock.begin(seed, checkpoint.exists())
            outcomes.append(train_seed(training, validation, config, seed, report, checkpoint, tracker))
            done_before += config.updates * config.batch_steps
        times = clock.times([trained.curve for trained, _, _ in outcomes], passive_bps)
        for row in times["seeds"]:
            own = {name: value for name, value in row.items() if name != "seed" and value is not None}
            tracker.log({f"seed_{row['seed']}/{name}": float(value) for name, value in own.items()}, config.updates)
    progress(total, total, "env steps")
    # The first of equals wins, so that the choice does not depend on anything but the scores.
    trained, untrained, marks = min(outcomes, key=lambda outcome: outcome[0].best_validation_bps)
    below = first_below(trained.curve, passive_bps)
    for name in ("bundle", "bundle_untrained", "seeds"):  # of an attempt that was killed while it wrote
        shutil.rmtree(out_dir / name, ignore_errors=True)
    provenance = Provenance(config, trained.seed, training.fingerprint(), training.feature_names, forecasts_dir)
    steps = _steps_of(trained)
    write_agent_bundle(out_dir / "bundle", trained.weights, provenance, env_steps=steps)
    for other, _, _ in outcomes:
        made = replace(provenance, seed=other.seed)
        write_agent_bundle(out_dir / "seeds" / str(other.seed), other.weights, made, env_steps=_steps_of(other))
    write_agent_bundle(out_dir / "bundle_untrained", untrained, provenance, env_steps=0)
    _write_curves(out_dir / "curves.json", config, validation, trained, outcomes, candidates, passive_bps)
    write_times(out_dir, times)
    shutil.rmtree(out_dir / CHECKPOINTS, ignore_errors=True)
    return {
        "seed": trained.seed,
        "seeds": len(outcomes),
        "ahead_slices": training.execution.ahead_slices,
        "decisions_per_slice": training.execution.decisions_per_slice,
        "env_steps": sum(outcome[0].curve[-1].env_steps for outcome in outcomes),
        "best_env_steps": steps,
        "validation_bps": round(trained.best_validation_bps, 4),
        **{f"validation_{name}_bps": round(value, 4) for name, value in marks.items()},
        "validation_twap_passive_bps": round(passive_bps, 4),
        "below_twap_passive_at_env_steps": None if below is None else below.env_steps,
        "validation_parents": len(validation.parents),
    }


def _compete(
    features_dir: Path, forecasts_dir: Path | None, config: AgentConfig, opened: tuple[ExecutionWorld, Validation]
) -> tuple[AgentConfig, list[dict[str, float]]]:
    """`config` with the candidate whose best static rule costs least on the validation days, and all costs, bps.

    The first of equals wins.
    """
    costs: list[dict[str, float]] = []
    for ahead, pace in config.candidates:
        training, validation = open_worlds(features_dir, forecasts_dir, config.with_candidate(ahead, pace), opened)
        cost = best_rule(validation.mean_is_bps, training.execution)[1]
        costs.append({"ahead_slices": ahead, "decisions_per_slice": pace, "rule_bps": cost})
    best = min(costs, key=lambda row: row["rule_bps"])
    return config.with_candidate(int(best["ahead_slices"]), int(best["decisions_per_slice"])), costs


def train_seed(
    training: ExecutionWorld,
    validation: Validation,
    config: AgentConfig,
    seed: int,
    report: Callable[[Update], None],
    checkpoint: Path,
    tracker: Tracker = SILENT,
) -> Outcome:
    """One seed: its outcome, its weights before any training, and validation figures of the rule and of those.

    Metrics are logged under the checkpoint's name.
    """
    from training.execution.ppo import greedy

    continuous = training.execution.actions == "continuous"
    rule = continuous_rule(static_rule) if continuous else static_rule
    imitated, imitated_bps = best_rule(validation.mean_is_bps, training.execution)
    half = config.normaliser_steps // 2
    drawing = random_policy(np.random.default_rng([seed, 1]), continuous)
    explored = roll_out(training.make_env, drawing, half, config, seed)
    ruled = roll_out(training.make_env, imitated, max(half, config.warm_start_steps), config, seed + 1)
    mean, scale = fit_normaliser(np.concatenate([explored["observation"], ruled["observation"][:half]]))
    make = partial(new_module, *training.spaces(), mean, scale, config, seed)
    untrained, module = make(), make()
    if config.fine_tune_from is not None:
        start_from(module, Path(config.fine_tune_from))
        played = roll_out(training.make_env, greedy(module), config.warm_start_steps, config, seed + 2)
        imitate(module, played, config, seed, values_only=True)
    elif config.warm_start:
        imitate(module, ruled, config, seed)
    marks = {
        "rule": validation.mean_is_bps(rule),
        "imitated": imitated_bps,
        "untrained": validation.mean_is_bps(greedy(untrained)),
    }

    def on_update(update: Update) -> None:
        report(update)
        metrics = {name: value for name, value in asdict(update).items() if value is not None and name != "update"}
        tracker.log({f"{checkpoint.stem}/{name}": float(value) for name, value in metrics.items()}, update.update)

    trained = train_policy(training, module, validation.mean_is_bps, config, seed, on_update, checkpoint)
    return trained, weights_of(untrained), marks


def _crossing(trained: Trained, passive_bps: float) -> dict[str, Any] | None:
    """Where the validation cost was below TWAP passive's for the first time; None where it never was."""
    row = first_below(trained.curve, passive_bps)
    if row is None:
        return None
    return {"update": row.update, "env_steps": row.env_steps, "validation_bps": row.validation_bps}


def _steps_of(trained: Trained) -> int:
    """Environment steps that the chosen weights had seen."""
    return next(row.env_steps for row in trained.curve if row.update == trained.best_update)


def _write_curves(
    path: Path,
    config: AgentConfig,
    validation: Validation,
    chosen: Trained,
    outcomes: list[Outcome],
    candidates: list[dict[str, float]],
    passive_bps: float,
) -> None:
    """All curves and the choice, as data: no times, no paths."""
    content = {
        "config": config.as_content(),
        "chosen_seed": chosen.seed,
        "candidates": candidates,
        "validation": {
            "days": list(validation.days),
            "parents": len(validation.parents),
            "days_are_trained_on": validation.days_are_trained_on,
            "twap_passive_bps": passive_bps,
        },
        "seeds": [
            {
                "seed": trained.seed,
                "best_update": trained.best_update,
                "best_validation_bps": trained.best_validation_bps,
                "below_twap_passive": _crossing(trained, passive_bps),
                "validation_of_others_bps": marks,
                "curve": [asdict(row) for row in trained.curve],
            }
            for trained, _, marks in outcomes
        ],
    }
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
