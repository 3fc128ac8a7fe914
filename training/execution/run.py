"""Run one policy over many parents in lockstep and account for every lot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contracts.tca import in_bps, lost2
from training.execution.config import ExecutionConfig
from training.execution.policies import DecisionBatch, ModelPolicy, Policy, RandomPolicy
from training.execution.steppers import make_stepper
from training.market.day import MarketDay
from training.market.engine import Engine
from training.market.reactive.world import ReactiveEngine

RESULT_DTYPE = np.dtype(
    [
        ("instrument_id", "U48"),
        ("date", "U10"),
        ("start_ns", np.int64),
        ("side", np.int8),
        ("quantity_lots", np.int64),
        ("is_bps", np.float64),  # implementation shortfall, fees included
        ("spread_bps", np.float64),  # fills against the mid at the fill, up to the best price
        ("impact_bps", np.float64),  # beyond the best price of the fill
        ("timing_bps", np.float64),  # mid at the fill against the arrival mid
        ("fees_bps", np.float64),
        ("passive_share", np.float64),  # of the parent's lots, filled while resting
        ("completion", np.float64),  # of the parent's lots, filled before the forced sweep
        ("extrapolated_share", np.float64),  # of the parent's lots, filled beyond the visible book
        ("filled_lots", np.int64),
        ("orders", np.int64),
        ("masked", np.int64),
        ("day", np.int64),
        ("passive_cost", np.int64),  # sums of price_ticks * lots
        ("aggressive_cost", np.int64),
        ("forced_cost", np.int64),
        # how far the parent's market left history, lots
        ("taken_lots", np.int64),  # displayed lots that it took
        ("made_lots", np.int64),  # historical executions that its resting orders got in place of others
        ("met_lots", np.int64),  # displayed lots that came to meet its resting orders
        ("rerouted_lots", np.int64),  # historical executions that wanted lots which it had taken
        ("refused", np.int64),  # messages that met a halt or an unknown book
    ]
)
"""One row per parent, in the order of the parents."""

DIVERGENCE = ("taken_lots", "made_lots", "met_lots", "rerouted_lots", "refused")

FILLS_PER_PARENT = 4096  # room in the fill record for each recorded parent


@dataclass(frozen=True)
class RunResult:
    """`rows` RESULT_DTYPE `(N,)`; `fills` FILL_DTYPE of the recorded parents, `episode` being the parent's index.

    `world` and `fill_model` name the market that it was; in the reactive one own orders stand in the queues, and no
    model of fills applies.
    """

    policy: str
    rows: NDArray[np.void]
    fills: NDArray[np.void]
    fill_model: str
    world: str

    @property
    def divergence(self) -> dict[str, int]:
        """How far the parents' markets left history, summed over them: lots, and messages refused."""
        return {name: int(self.rows[name].sum()) for name in DIVERGENCE}


def run_policy(
    policy: Policy | ModelPolicy,
    days: Sequence[MarketDay],
    parents: NDArray[np.void],
    config: ExecutionConfig,
    record: Sequence[int] = (),
) -> RunResult:
    """Work all `parents` (PARENT_DTYPE) with `policy`; `record` lists parents whose fills are kept.

    All policies meet the same book, latency and fill model; parents do not see each other. In the reactive world parent
    i meets market i of `config.market_seed`, the same for every policy up to its first own message there. Raises
    InputError for parents that their day cannot hold.
    """
    count = len(parents)
    stepper = make_stepper(days, config, count, max(1, FILLS_PER_PARENT * len(record)), draws=False)
    engine = stepper.engine
    flags = np.zeros(count, np.int64)
    flags[list(record)] = 1
    stepper.start(parents, flags)
    if isinstance(policy, RandomPolicy):
        policy.restart()
    if isinstance(policy, ModelPolicy):
        while not (engine.states["done"] == 1).all():
            stepper.act(policy.act(*stepper.observe()))
    else:
        _run_messages(policy, engine, days, config)
    engine.complete()
    return RunResult(policy.name, results(engine, days, config), engine.fills(), config.fill_model, config.world)


def _run_messages(
    policy: Policy, engine: Engine | ReactiveEngine, days: Sequence[MarketDay], config: ExecutionConfig
) -> None:
    starts = engine.states["start_ns"].copy()
    pause = config.interval_ns // policy.substeps
    for step in range(config.slices):
        for substep in range(policy.substeps):
            now = starts + step * config.interval_ns + substep * pause
            engine.submit(now, policy.decide(_batch(engine, days, config, step, substep, now)))
            last = substep == policy.substeps - 1
            engine.advance(starts + (step + 1) * config.interval_ns if last else now + pause)


def _batch(
    engine: Engine | ReactiveEngine,
    days: Sequence[MarketDay],
    config: ExecutionConfig,
    step: int,
    substep: int,
    now: NDArray[np.int64],
) -> DecisionBatch:
    states = engine.states
    own_px, own_sz, opp_px, opp_sz = engine.best()
    names = ("day", "side", "lots", "filled", "start_ns", "arrival_mid2", "rest_px", "rest_lots", "rest_ahead")
    columns = {name: states[name].copy() for name in names}
    columns["rest_px"] += states["shift"]
    simulated = engine if isinstance(engine, ReactiveEngine) else None
    return DecisionBatch(
        days=days, config=config, step=step, substep=substep, now_ns=now,
        own_px=own_px, own_sz=own_sz, opp_px=opp_px, opp_sz=opp_sz, **columns,
        traded=simulated.traded() if simulated else None, planted=simulated.planted() if simulated else None,
    )  # fmt: skip


def results(engine: Engine | ReactiveEngine, days: Sequence[MarketDay], config: ExecutionConfig) -> NDArray[np.void]:
    """RESULT_DTYPE rows of finished episodes; the four parts sum to `is_bps` up to rounding of floats."""
    states = engine.states
    rows = np.zeros(len(states), RESULT_DTYPE)
    rows["instrument_id"] = [days[i].partition.instrument_id for i in states["day"]]
    rows["date"] = [days[i].partition.date for i in states["day"]]
    for name in ("start_ns", "side", "orders", "masked", "day", "passive_cost", "aggressive_cost", "forced_cost"):
        rows[name] = states[name]
    lots = states["lots"]
    rows["quantity_lots"], rows["filled_lots"] = lots, states["filled"]
    value2 = (lots * states["arrival_mid2"]).astype(np.float64)
    taken = states["aggressive_cost"] + states["forced_cost"]
    loss2 = lost2(states["side"], 2 * (states["passive_cost"] + taken), lots, states["arrival_mid2"])
    rows["fees_bps"] = 2 * (config.maker_fee_bps * states["passive_cost"] + config.taker_fee_bps * taken) / value2
    rows["is_bps"] = in_bps(loss2, value2) + rows["fees_bps"]
    for part in ("spread", "impact", "timing"):
        rows[f"{part}_bps"] = in_bps(states[f"{part}2"], value2)
    rows["passive_share"] = states["passive_lots"] / lots
    rows["completion"] = 1.0 - states["forced_lots"] / lots
    rows["extrapolated_share"] = states["extrapolated_lots"] / lots
    rows["taken_lots"] = states["aggressive_lots"] + states["forced_lots"] - states["extrapolated_lots"]
    for name in ("made_lots", "met_lots", "rerouted_lots", "refused"):
        rows[name] = states[name]
    return rows
