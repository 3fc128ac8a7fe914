"""Baselines with their parameters chosen on the validation days, and the opponent that is declared there.

Every instrument has its own parameters. What counts is the mean implementation shortfall over the validation parents,
the first of equals wins. The best of all tuned baselines is the opponent of the pre-registered comparison.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.progress import Progress, no_progress
from training.evaluation.calibration import calibrate
from training.evaluation.players import settings_for

if TYPE_CHECKING:
    from training.execution.config import ExecutionConfig
    from training.execution.policies import ModelPolicy, Policy
    from training.market.day import MarketDay

Params = dict[str, Any]
UNTUNED_OPPONENT = "imbalance_rule"
"""Opponent where no day before the test days is there to choose one on: the rule that the first champion follows."""
EXPOSURE_PARENTS = 200  # validation parents whose fills are kept to measure the agent's exposure


@dataclass(frozen=True)
class TuningGrid:
    """What is tried. Decisions a slice that do not divide its length in nanoseconds are left out."""

    substeps: tuple[int, ...] = (1, 6, 15)
    ahead: tuple[int, ...] = (0, 1, 4, 20)
    """Both as wide as what the quick agent may do: a baseline that is slower or shorter in the queue is no opponent."""

    thresholds: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4)
    offsets: tuple[int, ...] = (-1, 0, 1)
    participation: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Rates of POV, in multiples of the parent's share of the volume that earlier days traded in its horizon."""

    @classmethod
    def full(cls) -> "TuningGrid":
        """A wide grid, for a long night."""
        return cls(
            substeps=(1, 2, 4, 6, 12, 15, 30, 120),
            ahead=(0, 1, 2, 4, 8, 20),
            thresholds=(0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
            offsets=(-2, -1, 0, 1, 2),  # farther away the day's drift decides, not the rule
            participation=(0.25, 0.5, 1.0, 1.5, 2.0, 4.0),
        )


@dataclass(frozen=True)
class Trial:
    """One baseline with one set of parameters on the validation parents."""

    policy: str
    params: Params
    mean_is_bps: float
    sd_bps: float
    chosen: bool = False


@dataclass(frozen=True)
class TunedBaselines:
    """By instrument: the tuned policies, what was tried, and the validation-best one."""

    policies: "dict[str, list[Policy | ModelPolicy]]"
    trials: dict[str, list[Trial]]
    opponents: dict[str, str]
    days: tuple[str, ...]
    parents: dict[str, int]
    calibration: dict[str, dict[str, float]]
    exposure: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON-able: days, parents, every trial, the choice and the opponent of each instrument."""
        return {
            "days": list(self.days),
            "by_instrument": {
                key: {
                    "opponent": self.opponents[key],
                    "parents": self.parents[key],
                    "agent_exposure": self.exposure.get(key),
                    "chosen": {
                        trial.policy: {**trial.params, "mean_is_bps": trial.mean_is_bps}
                        for trial in trials
                        if trial.chosen
                    },
                    "trials": [asdict(trial) for trial in trials],
                }
                for key, trials in self.trials.items()
            },
        }


def tune_baselines(
    days_of_validation: "Sequence[MarketDay]",
    config: "ExecutionConfig",
    seed: int,
    *,
    grid: TuningGrid | None = None,
    agent: "ModelPolicy | None" = None,
    calibration: Mapping[str, Mapping[str, float]] | None = None,
    risk_aversion: float = 0.01,
    progress: Progress = no_progress,
) -> TunedBaselines:
    """Choose every baseline's parameters on `days_of_validation`, for each instrument by itself.

    `agent`, where given, is run too, to match an Almgren-Chriss schedule to its exposure; its cost is not looked at.
    `calibration` gives volatility and impact by instrument, measured on the validation days where it is not given.
    `risk_aversion` is a wish and not tuned. Raises InputError where no parent fits on a day.
    """
    from training.execution.parents import parent_grid

    grid = grid or TuningGrid()
    by_instrument: dict[str, list[MarketDay]] = {}
    for day in days_of_validation:
        by_instrument.setdefault(day.partition.instrument_id, []).append(day)
    tuned = TunedBaselines({}, {}, {}, tuple(sorted({d.partition.date for d in days_of_validation})), {}, {})
    for done, (key, days) in enumerate(by_instrument.items()):
        progress(done, len(by_instrument), "instruments tuned")
        parents = parent_grid(days, config)
        measured = dict((calibration or {}).get(key) or calibrate(days, config))
        if agent is not None:
            tuned.exposure[key] = mean_exposure(agent, days, parents, config)
        candidates = _candidates(days, parents, config, grid, seed, measured, risk_aversion, tuned.exposure.get(key))
        trials = [try_policy(name, params, policy, days, parents, config) for name, params, policy in candidates]
        tuned.trials[key] = [trial for trial, _ in _choose(trials)]
        tuned.policies[key] = [policy for trial, policy in _choose(trials) if trial.chosen]
        best = min((t for t in tuned.trials[key] if t.chosen), key=lambda t: t.mean_is_bps)
        tuned.opponents[key], tuned.parents[key], tuned.calibration[key] = best.policy, len(parents), measured
    progress(len(by_instrument), len(by_instrument), "instruments tuned")
    return tuned


def untuned_baselines(days: "Sequence[MarketDay]", config: "ExecutionConfig", seed: int) -> TunedBaselines:
    """Every baseline with its default parameters for the instruments of `days`, whose market is not looked at.

    For days that nothing earlier is known of. The opponent is UNTUNED_OPPONENT, declared here for all of them.
    """
    from training.execution.baselines import default_policies

    keys = sorted({day.partition.instrument_id for day in days})
    policies: dict[str, list[Policy | ModelPolicy]] = {key: list(default_policies(config, seed)) for key in keys}
    return TunedBaselines(policies, {}, dict.fromkeys(keys, UNTUNED_OPPONENT), (), {}, {})


Candidate = tuple[str, Params, Any]


def _candidates(
    days: "Sequence[MarketDay]",
    parents: NDArray[np.void],
    config: "ExecutionConfig",
    grid: TuningGrid,
    seed: int,
    measured: Mapping[str, float],
    risk_aversion: float,
    exposure: float | None,
) -> Iterator[Candidate]:
    """Every baseline with every set of its parameters."""
    from training.execution import baselines as b
    from training.execution.policies import RandomPolicy

    yield "immediate", {}, b.Immediate()
    yield "random", {"seed": seed}, RandomPolicy(seed)
    yield "twap_market", {}, b.TwapMarket()
    yield "vwap_market", {}, b.VwapMarket()
    paces = [n for n in grid.substeps if config.interval_ns % n == 0]
    for n in paces:
        yield "twap_passive", {"substeps": n}, b.TwapPassive(n)
    for offset in grid.offsets:
        yield "submit_and_leave", {"offset_ticks": offset}, b.SubmitAndLeave(offset)
    for n in paces:
        for ahead in grid.ahead:
            yield "carry", {"substeps": n, "ahead": ahead}, b.Carry(n, ahead)
            for threshold in grid.thresholds:
                params = {"threshold": threshold, "substeps": n, "ahead": ahead}
                yield "imbalance_rule", params, b.ImbalanceRule(threshold, n, ahead)
    usual = usual_participation(days, parents)
    for multiple in grid.participation:
        rate = float(np.clip(multiple * usual, 1e-6, 1.0))
        for n in paces:
            yield "pov", {"rate": rate, "substeps": n}, b.Pov(rate, n)
    ac = {"risk_aversion": risk_aversion, **measured}
    yield "almgren_chriss", ac, b.AlmgrenChriss(**ac)
    if exposure is not None:
        yield "ac_matched", {"exposure": exposure}, b.ExposureMatched(exposure, config.slices)


def usual_participation(days: "Sequence[MarketDay]", parents: NDArray[np.void]) -> float:
    """Mean parent's share of the lots that an average earlier day trades in a horizon of average volume."""
    shares = []
    for index, day in enumerate(days):
        here = parents[parents["day"] == index]
        session_ns = sum(closes - opens for opens, closes in day.windows)
        shares.append(here["lots"] * session_ns / (here["horizon_ns"] * max(day.adv_lots, 1.0)))
    return float(np.concatenate(shares).mean())


def try_policy(
    name: str,
    params: Params,
    policy: Any,
    days: "Sequence[MarketDay]",
    parents: NDArray[np.void],
    config: "ExecutionConfig",
) -> tuple[Trial, Any]:
    """One policy on the validation parents, and the policy."""
    from training.execution.run import run_policy

    costs = run_policy(policy, days, parents, settings_for(policy, config)).rows["is_bps"]
    return Trial(name, params, float(costs.mean()), float(costs.std())), policy


def _choose(trials: Sequence[tuple[Trial, Any]]) -> list[tuple[Trial, Any]]:
    """The trials with the best of each baseline marked; the first of equals wins."""
    best: dict[str, int] = {}
    for index, (trial, _) in enumerate(trials):
        if trial.policy not in best or trial.mean_is_bps < trials[best[trial.policy]][0].mean_is_bps:
            best[trial.policy] = index
    chosen = set(best.values())
    return [
        (Trial(t.policy, t.params, t.mean_is_bps, t.sd_bps, index in chosen), policy)
        for index, (t, policy) in enumerate(trials)
    ]


def mean_exposure(
    policy: "Policy | ModelPolicy", days: "Sequence[MarketDay]", parents: NDArray[np.void], config: "ExecutionConfig"
) -> float:
    """Mean over parents and their horizons of the squared share still open, from the fills; in [0, 1]."""
    from training.execution.run import run_policy

    # Evenly over the grid, so that every part of the day counts alike.
    some = parents[np.unique(np.linspace(0, len(parents) - 1, min(len(parents), EXPOSURE_PARENTS)).astype(np.int64))]
    fills = run_policy(policy, days, some, settings_for(policy, config), record=range(len(some))).fills
    found = []
    for index, parent in enumerate(some):
        own = fills[fills["episode"] == index]
        at = np.clip((own["ts_ns"] - int(parent["start_ns"])) / int(parent["horizon_ns"]), 0.0, 1.0)
        left = 1.0 - np.concatenate([[0], np.cumsum(own["lots"])]) / int(parent["lots"])
        found.append(float(np.diff(np.concatenate([[0.0], at, [1.0]])) @ (left * left)))
    return float(np.clip(np.mean(found), 0.0, 1.0))
