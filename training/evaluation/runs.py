"""Plays every policy of an evaluation: the headline, the efficient frontier, the strata, the other markets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.progress import Progress, no_progress
from training.evaluation.config import EvaluationConfig
from training.evaluation.oracle import Oracle, tune_oracle
from training.evaluation.players import BundlePolicy, settings_for
from training.evaluation.scene import Scene
from training.evaluation.sensitivity import judge_setting, settings_of, unavailable
from training.evaluation.statistics import ClusterBootstrap, Comparison, cluster_labels, compare
from training.evaluation.strata import plan_strata
from training.evaluation.tca import ORDER_DTYPE
from training.evaluation.tuning import TunedBaselines, TuningGrid, tune_baselines, untuned_baselines
from training.execution.clairvoyant import ORACLE

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.execution.config import ExecutionConfig
    from training.execution.policies import ModelPolicy, Policy
    from training.market.day import MarketDay

Orders = dict[str, NDArray[np.void]]
ByInstrument = "Mapping[str, Policy | ModelPolicy]"
SIZED = ("twap_market", "twap_passive", "vwap_market", "carry", "imbalance_rule")
"""Baselines whose parameters mean the same at every size and horizon: those that the strata and other markets play."""


@dataclass(frozen=True)
class Cast:
    """Who plays: models are one policy for all instruments, baselines were tuned for each."""

    models: "dict[str, ModelPolicy]"
    seeds: "list[ModelPolicy]"
    tuned: TunedBaselines
    oracle: Oracle | None = None  # of the synthetic market; it plays, and is compared with nobody
    baselines: "dict[str, dict[str, Policy | ModelPolicy]]" = field(default_factory=dict)

    def names(self) -> list[str]:
        """Every policy, models first."""
        return [*self.models, *self.baselines, *([ORACLE] if self.oracle else [])]

    def policy(self, name: str) -> Any:
        """The policy of this name, or one for each instrument."""
        if self.oracle is not None and name == ORACLE:
            return self.oracle.rules
        return self.models.get(name) or self.baselines[name]


def cast(
    scene: Scene,
    bundles: "Mapping[str, Bundle]",
    seed_bundles: "Sequence[Bundle]",
    calibration: Mapping[str, Mapping[str, float]],
    config: EvaluationConfig,
    progress: Progress = no_progress,
    planted: Mapping[str, Any] | None = None,
) -> Cast:
    """Tune the baselines on the validation days; InputError where a bundle takes the name of one.

    `planted` are the options of a synthetic market: the rule that sees its signal plays too.
    """
    models: dict[str, ModelPolicy] = {name: BundlePolicy(name, bundle) for name, bundle in bundles.items()}
    seeds: list[ModelPolicy] = [BundlePolicy(config.agent, bundle) for bundle in seed_bundles]
    oracle = None
    if planted is not None:
        known = sorted({day.partition.instrument_id for day in scene.days})
        oracle = tune_oracle([] if config.untuned else scene.validation, scene.execution, planted, known)
    if config.untuned:
        return _cast(models, seeds, untuned_baselines(scene.days, scene.execution, config.seed), oracle)
    tuned = tune_baselines(
        scene.validation,
        scene.execution,
        config.seed,
        grid=TuningGrid.full() if config.wide_tuning else TuningGrid(),
        agent=models.get(config.agent),
        calibration=calibration,
        risk_aversion=config.risk_aversion,
        progress=progress,
    )
    return _cast(models, seeds, tuned, oracle)


def _cast(
    models: "dict[str, ModelPolicy]", seeds: "list[ModelPolicy]", tuned: TunedBaselines, oracle: Oracle | None
) -> Cast:
    baselines: dict[str, dict[str, Policy | ModelPolicy]] = {}
    for key, policies in tuned.policies.items():
        for policy in policies:
            baselines.setdefault(policy.name, {})[key] = policy
    clash = sorted({*baselines, ORACLE} & set(models))
    if clash:
        raise InputError(f"policy {clash[0]} is the name of a baseline: give the bundle another name")
    return Cast(models, seeds, tuned, oracle, baselines)


def play(
    policy: Any,
    days: "Sequence[MarketDay]",
    parents: NDArray[np.void],
    execution: "ExecutionConfig",
    record: Sequence[int] = (),
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """ORDER_DTYPE rows and the fills of the recorded parents; `policy` may be one for each instrument, by its id."""
    from training.execution.run import run_policy

    names = np.array([days[int(day)].partition.instrument_id for day in parents["day"]])
    if not isinstance(policy, Mapping) and execution.world == "reactive":  # a reactive market is one instrument's
        policy = dict.fromkeys(np.unique(names).tolist(), policy)
    if not isinstance(policy, Mapping):
        ran = run_policy(policy, days, parents, settings_for(policy, execution), record=record)
        return as_orders(ran.rows), ran.fills
    orders = np.zeros(len(parents), ORDER_DTYPE)
    fills = []
    for key in np.unique(names):
        chosen = np.flatnonzero(names == key)
        kept = [int(np.flatnonzero(chosen == index)[0]) for index in record if index in chosen]
        own_days, own = of_instrument(days, parents[chosen], str(key))
        one = policy[str(key)]
        ran = run_policy(one, own_days, own, settings_for(one, execution), record=kept)
        orders[chosen] = as_orders(ran.rows)
        found = ran.fills.copy()
        found["episode"] = chosen[found["episode"]]
        fills.append(found)
    return orders, np.concatenate(fills)


def of_instrument(
    days: "Sequence[MarketDay]", parents: NDArray[np.void], key: str
) -> "tuple[list[MarketDay], NDArray[np.void]]":
    """The days of instrument `key`, and its `parents` with their `day` counted among those."""
    places = [index for index, day in enumerate(days) if day.partition.instrument_id == key]
    own = parents.copy()
    own["day"] = np.searchsorted(places, parents["day"])
    return [days[index] for index in places], own


def as_orders(rows: NDArray[np.void]) -> NDArray[np.void]:
    """RESULT_DTYPE rows as the analysis takes them."""
    orders = np.zeros(len(rows), ORDER_DTYPE)
    for name in ORDER_DTYPE.names or ():
        orders[name] = rows[name]
    return orders


def run_all(
    scene: Scene,
    players: Cast,
    record: Mapping[str, Sequence[int]],
    progress: Progress = no_progress,
) -> tuple[Orders, Orders, NDArray[np.float64] | None]:
    """Headline orders of every policy, fills of the recorded parents, and costs (S, N) of the agents of all seeds."""
    total = len(players.names()) + len(players.seeds)
    orders: Orders = {}
    fills: Orders = {}
    for done, name in enumerate(players.names()):
        progress(done, total, "policies")
        orders[name], found = play(
            players.policy(name), scene.days, scene.parents, scene.execution, record.get(name, ())
        )
        if name in record:
            fills[name] = found
    costs = []
    for done, policy in enumerate(players.seeds):
        progress(len(players.names()) + done, total, "policies")
        costs.append(play(policy, scene.days, scene.parents, scene.execution)[0]["is_bps"])
    progress(total, total, "policies")
    return orders, fills, np.array(costs) if len(costs) > 1 else None


def run_frontier(scene: Scene, players: Cast, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Mean and SD of the cost of the Almgren-Chriss schedule for each risk aversion of the configuration."""
    from training.execution.baselines import AlmgrenChriss

    points: list[dict[str, Any]] = []
    if not players.tuned.calibration:
        return points
    for aversion in config.frontier:
        schedules = {
            key: AlmgrenChriss(risk_aversion=aversion, **measured)
            for key, measured in players.tuned.calibration.items()
        }
        costs = play(schedules, scene.days, scene.parents, scene.execution)[0]["is_bps"]
        points.append({"risk_aversion": aversion, "mean_is_bps": float(costs.mean()), "sd": float(costs.std(ddof=1))})
    return points


def _few(players: Cast, config: EvaluationConfig) -> dict[str, Any]:
    """The policies that strata and other markets play: the models, those of SIZED, and every opponent."""
    wanted = {*SIZED, *players.tuned.opponents.values(), config.reference}
    known = {name: policy for name, policy in players.baselines.items() if name in wanted}
    return {**{name: m for name, m in players.models.items() if name in (config.agent, config.champion)}, **known}


def run_strata(
    scene: Scene, players: Cast, config: EvaluationConfig, progress: Progress = no_progress
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Figures of each size and horizon, and its comparisons of the agent with each instrument's opponent."""
    from training.execution.parents import parent_grid

    strata = plan_strata(scene.days, scene.execution, config, scene.impact_missing)
    few = _few(players, config)
    rows: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for done, stratum in enumerate(strata):
        progress(done, len(strata), "strata")
        row: dict[str, Any] = {**stratum.facts(), "policies": {}, "n": 0, "comparisons": []}
        rows.append(row)
        if stratum.execution is None:
            continue
        try:
            parents = parent_grid(scene.days, stratum.execution)
            orders = {name: play(who, scene.days, parents, stratum.execution)[0] for name, who in few.items()}
        except InputError as error:
            row.update(counted=False, why_not=str(error))
            continue
        first = next(iter(orders.values()))
        row["n"] = len(first)
        row["policies"] = {
            name: {key: float(found[key].mean()) for key in ("is_bps", "passive_share", "completion")}
            for name, found in orders.items()
        }
        labels, _ = cluster_labels(first["start_ns"], first["date"])
        for key in np.unique(first["instrument_id"]):
            opponent, here = players.tuned.opponents.get(str(key)), first["instrument_id"] == key
            if opponent is None or config.agent not in orders:
                continue
            bootstrap = ClusterBootstrap(labels[here], np.random.default_rng(config.seed), config.draws)
            a, b = orders[config.agent]["is_bps"][here], orders[opponent]["is_bps"][here]
            row["comparisons"].append(len(comparisons))
            comparisons.append(
                compare(a, b, bootstrap, a=config.agent, b=opponent, alpha=config.alpha, instrument=str(key))
            )
    if strata:
        progress(len(strata), len(strata), "strata")
    return rows, comparisons


def run_sensitivities(
    scene: Scene, players: Cast, config: EvaluationConfig, progress: Progress = no_progress
) -> list[dict[str, Any]]:
    """The declared comparisons in every other market; those that these days cannot be played in say why."""
    settings = settings_of(scene.execution)
    wanted = {*players.tuned.opponents.values(), config.reference}
    few = {name: who for name, who in _few(players, config).items() if name == config.agent or name in wanted}
    names = np.array([scene.days[int(day)].partition.instrument_id for day in scene.parents["day"]])
    dates = [scene.days[int(day)].partition.date for day in scene.parents["day"]]
    labels, _ = cluster_labels(scene.parents["start_ns"], dates)
    rows = []
    for done, setting in enumerate(settings):
        progress(done, len(settings), "markets")
        row: dict[str, Any] = {"name": setting.name, "decides": setting.decides, "available": True, "why_not": ""}
        try:
            costs = {n: play(who, scene.days, scene.parents, setting.execution)[0]["is_bps"] for n, who in few.items()}
        except InputError as error:
            rows.append({**row, **unavailable(error)})
            continue
        rng = np.random.default_rng(config.seed)
        opponents = players.tuned.opponents
        judged = judge_setting(costs, names, config.agent, opponents, labels, rng, config.draws, config.alpha)
        rows.append({**row, "means": {n: float(c.mean()) for n, c in costs.items()}, "by_instrument": judged})
    progress(len(settings), len(settings), "markets")
    return rows
