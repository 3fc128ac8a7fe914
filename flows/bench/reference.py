"""`shortfall bench baselines`: the passive baselines on real days beside an independent check's figures.

The check: a conservative queue (join the back, advance by trades at the price and by what the queue shrinks to),
crossing one 500 ms step after the decision, 200-lot or 200-share parents over ten minutes in ten slices, both sides, no
fees. Its settings are played by the market engine under the platform's rules, and by a second simulator that shares
nothing with it (`step_market`), under those rules and under the two that would explain the check's figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from flows.bench.machine import Row, result
from flows.bench.step_market import (
    CARRY,
    IMBALANCE,
    STEP_NS,
    TWAP_MARKET,
    TWAP_PASSIVE,
    Prints,
    book_prints,
    step_market,
    work,
)

if TYPE_CHECKING:
    from feature_repo.lake import Partition
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay

RULES = {"twap_market": TWAP_MARKET, "twap_passive": TWAP_PASSIVE, "carry": CARRY, "imbalance_rule": IMBALANCE}
THRESHOLD, LOTS, HORIZON_S, SLICE_S, EVERY_S = 0.2, 200, 600, 60, 60
CHECK = {
    ("rb2510", "2025-06-05"): (1.69, 0.53, 0.31, 0.65),
    ("rb2510", "2025-06-06"): (1.68, 0.42, 0.21, 0.55),
    ("rb2510", "2025-06-09"): (1.68, 0.53, 0.42, 0.79),
    ("AIG", "2013-10-07"): (1.04, 0.61, 0.59, 0.57),
    ("AIG", "2013-10-08"): (1.06, 0.60, 0.59, 0.55),
    ("AIG", "2013-10-09"): (1.07, 0.81, 0.81, 0.66),
    ("BAC", "2013-10-07"): (3.61, 2.07, 0.88, 0.66),
    ("BAC", "2013-10-08"): (3.63, 1.60, 0.71, 0.54),
    ("BAC", "2013-10-09"): (3.62, 1.29, 0.31, 0.55),
}
"""The check's mean shortfall in bps by symbol and day, in the order of RULES."""
ENGINE, STEPS, AT_ONCE, AS_CHECK = "engine", "steps", "steps, rest at once", "steps, rest at once, all prints"


@dataclass(frozen=True)
class Played:
    """One policy of one simulator on one day: cost and passive share of each parent, (N,)."""

    simulator: str
    policy: str
    costs: NDArray[np.float64]
    passive: NDArray[np.float64]
    error_bps: float  # standard error, clustered by half hour


def run(data: Path, start_every_s: int = EVERY_S) -> dict[str, Any]:
    """Play every day of CHECK that lies below `data` (its folders `shfe` and `lean`); InputError where none does.

    Prepares the days in the lake where they are not there yet. `rows` gives each figure with the check's beside it as
    its target; `tables` holds everything by day and simulator; `episodes` the orders whose cost differs most.
    """
    rows, tables, episodes = [], [], []
    for features, silver in _prepared(data):
        for day in _days(features):
            key = day.partition.symbol, day.partition.date
            if key not in CHECK:
                continue
            played, parents = play_day(day, silver, start_every_s)
            wanted = dict(zip(RULES, CHECK[key], strict=True))
            for item in played:
                name = f"{key[0]} {key[1]} {item.policy}, {item.simulator}"
                rows.append(Row(name, float(item.costs.mean()), "bps", wanted[item.policy]))
            tables.append({"symbol": key[0], "date": key[1], "check": wanted, "played": _table(played)})
            episodes.append(_episode(day, silver, parents, played))
    if not rows:
        raise InputError(f"{data}: holds none of the days {', '.join(' '.join(key) for key in CHECK)}")
    return {**result(rows), "tables": tables, "episodes": episodes, "notes": notes(tables)}


def play_day(day: "MarketDay", silver: Path, start_every_s: int) -> tuple[list[Played], NDArray[np.void]]:
    """Every policy by every simulator, on the same parents."""
    from training.execution.config import ExecutionConfig
    from training.execution.parents import parent_grid

    config = ExecutionConfig(
        lots=LOTS,
        horizon_s=HORIZON_S,
        decision_interval_s=SLICE_S,
        start_every_s=start_every_s,
        latency_ns=None if day.instrument.snapshot_data else STEP_NS,
    )
    parents = parent_grid([day], config)
    played = _by_engine(day, parents, config)
    lit = book_prints(day)
    played += _by_steps(STEPS, day, lit, parents, rest_delay=1)
    played += _by_steps(AT_ONCE, day, lit, parents, rest_delay=0)
    if not day.instrument.snapshot_data:
        played += _by_steps(AS_CHECK, day, _all_prints(silver, day.partition), parents, rest_delay=0)
    return played, parents


def _by_engine(day: "MarketDay", parents: NDArray[np.void], config: "ExecutionConfig") -> list[Played]:
    from training.execution.baselines import Carry, ImbalanceRule, TwapMarket, TwapPassive
    from training.execution.policies import Policy
    from training.execution.run import run_policy

    pace = SLICE_S * 1_000_000_000 // STEP_NS  # resting orders follow the best price at every step
    policies: list[Policy] = [TwapMarket(), TwapPassive(pace), Carry(pace), ImbalanceRule(THRESHOLD, pace)]
    found = []
    for policy in policies:
        orders = run_policy(policy, [day], parents, config).rows
        found.append(_played(ENGINE, policy.name, orders["is_bps"], orders["passive_share"], parents))
    return found


def _by_steps(
    simulator: str, day: "MarketDay", prints: Prints, parents: NDArray[np.void], rest_delay: int
) -> list[Played]:
    found = []
    for policy, rule in RULES.items():
        outcome = np.array([row[:2] for row, _ in _orders_by_steps(day, prints, parents, rule, rest_delay)])
        found.append(_played(simulator, policy, outcome[:, 0], outcome[:, 1], parents))
    return found


def _orders_by_steps(
    day: "MarketDay", prints: Prints, parents: NDArray[np.void], rule: int, rest_delay: int
) -> list[tuple[tuple[float, float, int, int], NDArray[np.float64]]]:
    """What `work` says of each parent, and its fills."""
    markets = [step_market(day, prints, opens, closes) for opens, closes in day.windows]
    found = []
    for parent in parents:
        window = max(i for i, (opens, _) in enumerate(day.windows) if opens <= parent["start_ns"])
        market = markets[window]
        start = (int(parent["start_ns"]) - market.first_ns) // STEP_NS
        log = np.zeros((256, 4))
        steps = SLICE_S * 1_000_000_000 // STEP_NS
        slices = HORIZON_S // SLICE_S
        done = work(market, start, int(parent["side"]), LOTS, slices, steps, rule, THRESHOLD, rest_delay, log)
        found.append((done, log[: done[3]]))
    return found


def _played(
    simulator: str, policy: str, costs: NDArray[np.float64], passive: NDArray[np.float64], parents: NDArray[np.void]
) -> Played:
    from training.evaluation.statistics import HALF_HOUR_NS, ClusterBootstrap

    bootstrap = ClusterBootstrap(parents["start_ns"] // HALF_HOUR_NS, np.random.default_rng(0), 99)
    return Played(simulator, policy, costs, passive, bootstrap.interval(costs).error)


def _all_prints(silver: Path, partition: "Partition") -> Prints:
    """Every print of the tape, off-exchange ones too, with no aggressor."""
    import pyarrow.parquet as pq

    from feature_repo.ticks.schema import Kind

    table = pq.read_table(partition.folder(silver) / "events.parquet")
    columns = {name: table[name].to_numpy() for name in ("ts_event_ns", "price_ticks", "size", "kind")}
    trades = columns["kind"] == int(Kind.TRADE)
    ts_ns, price, lots = (columns[name][trades].astype(np.int64) for name in ("ts_event_ns", "price_ticks", "size"))
    return Prints(ts_ns, price, lots, np.zeros(len(ts_ns), np.int64))


def _table(played: Sequence[Played]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for item in played:
        found.setdefault(item.simulator, {})[item.policy] = {
            "mean_is_bps": float(item.costs.mean()),
            "error_bps": item.error_bps,
            "passive_share": float(item.passive.mean()),
        }
    return found


def _episode(day: "MarketDay", silver: Path, parents: NDArray[np.void], played: Sequence[Played]) -> dict[str, Any]:
    """The carry order whose cost differs most between the platform's rules and the check's, and its fills in both."""
    carry = {item.simulator: item.costs for item in played if item.policy == "carry"}
    other = AS_CHECK if AS_CHECK in carry else AT_ONCE
    index = int(np.argmax(carry[STEPS] - carry[other]))
    prints = {STEPS: book_prints(day), AT_ONCE: book_prints(day)}
    if other == AS_CHECK:
        prints[AS_CHECK] = _all_prints(silver, day.partition)
    fills = {}
    for simulator, delay in ((STEPS, 1), (other, 0)):
        ((_, log),) = _orders_by_steps(day, prints[simulator], parents[index : index + 1], CARRY, delay)
        names = ("step", "price_ticks", "lots", "at_rest")
        fills[simulator] = [dict(zip(names, (int(value) for value in row), strict=True)) for row in log]
    parent = parents[index]
    return {
        "symbol": day.partition.symbol,
        "date": day.partition.date,
        "side": int(parent["side"]),
        "start_ns": int(parent["start_ns"]),
        "cost_bps": {name: float(costs[index]) for name, costs in carry.items()},
        "fills": fills,
    }


def notes(tables: Sequence[dict[str, Any]]) -> list[str]:
    """One line a symbol and simulator: mean distance to the check over days and passive policies, bps."""
    lines = []
    for symbol in dict.fromkeys(table["symbol"] for table in tables):
        ours = [table for table in tables if table["symbol"] == symbol]
        for simulator in ours[0]["played"]:
            off = [
                table["played"][simulator][policy]["mean_is_bps"] - table["check"][policy]
                for table in ours
                for policy in RULES
                if policy != "twap_market"
            ]
            lines.append(
                f"{symbol}, {simulator}: {np.mean(off):+.3f} bps from the check on average over the passive policies, "
                f"{min(off):+.3f} to {max(off):+.3f}"
            )
    return lines


def _days(features: Path) -> "list[MarketDay]":
    from feature_repo.lake import list_partitions
    from training.market.day import load_market_days

    return load_market_days(features, None, list_partitions(features, "features.parquet"))


def _prepared(data: Path) -> list[tuple[Path, Path]]:
    """Folders of features and of silver for each source that is there."""
    from flows.data import data_flow
    from flows.ids import lake
    from flows.params import DataParams

    found = []
    for source, symbols in (("shfe", ["rb"]), ("lean", ["AIG", "BAC"])):
        if not (data / source).is_dir():
            continue
        report = data_flow(DataParams(source=source, data=str(data / source), symbols=symbols))
        ids = {stage["name"]: stage["id"] for stage in report["stages"]}
        found.append((lake().folder("features", ids["features"]), lake().folder("clean", ids["clean"])))
    return found
