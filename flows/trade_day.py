"""The day that `shortfall trade` works: which day, whose policy, which parents, and the market behind them."""

from dataclasses import dataclass, replace
from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import flow
from pydantic import Field

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from flows.backtest import apply_bundle_signal
from flows.champions import ensure_champion, open_registry
from flows.data import run_data_stages
from flows.ids import lake
from flows.infra import stop_spark
from flows.ingest import planned_dates
from flows.lake import StageResult
from flows.params import DataParams, IngestParams

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay

NS = 1_000_000_000
SYNTHETIC_DAYS = 250
PARENTS_MAX = 2_000
GAP_S = 60
"""Between the horizons of parents of one side and the arrival of the first one of the other, in a symbol."""


class TradeParams(IngestParams):
    """What to trade, on which day, and how fast."""

    date: Date | None = Field(None, description="Session to trade; the first that the champion never saw where empty")
    rules: str | None = Field(None, description="YAML file of cleaning rules by venue; empty: the platform's own")
    gates: str | None = Field(None, description="YAML file of gate limits by venue; empty: the platform's own")
    parents: int | None = Field(None, ge=1, le=PARENTS_MAX, description="Parents to work; empty: the whole grid")
    together: int = Field(2, ge=1, le=50, description="Parents of a symbol that work at once, all of one side")
    pace: Literal["lockstep", "real"] = Field("lockstep", description="lockstep: as fast as all follow; real: by clock")
    speed: float = Field(60.0, gt=0, le=1_000, description="pace real: seconds of the day for one of the clock")


@dataclass(frozen=True)
class TradeDay:
    """Everything that is known before the first process starts."""

    source: str
    date: str
    synthetic: bool
    features: Path
    stages: list[StageResult]
    version: int
    bundle: "Bundle"
    config: "ExecutionConfig"  # of the parents, and of the environment that they are compared with
    days: "list[MarketDay]"  # one a symbol
    parents: NDArray[np.void]  # PARENT_DTYPE, in order of their arrival

    def instrument_of(self, row: np.void) -> Any:
        """The instrument of a parent."""
        return self.days[int(row["day"])].instrument


def prepare(params: TradeParams) -> TradeDay:
    """Champion (bundle 0 where there is none), day, features and parents. Raises InputError for what cannot be had."""
    ensure_champion(params.source)
    standing = open_registry(params.source).load_champion()
    assert standing is not None
    version, bundle = standing
    date = choose_date(params, bundle.metadata)
    stages = traded_data_flow(_data_params(params, date), str(bundle.folder) if bundle.signal_onnx else None)
    of = {item.stage: item.id for item in stages}
    features = lake().folder("features", of["features"])
    config = _config(bundle.metadata)
    days = _load_days(
        features, lake().folder("apply_signal", of["apply_signal"]) if "apply_signal" in of else None, date
    )
    parents = parents_of(days, config, params.parents, params.together)
    synthetic = all(day.instrument.synthetic for day in days)
    return TradeDay(params.source, date, synthetic, features, stages, version, bundle, config, days, parents)


@flow(name="traded-data")
def traded_data_flow(params: DataParams, bundle: str | None = None) -> list[StageResult]:
    """Ticks to features, and the forecasts of a bundle's signal model on them where one is named."""
    try:
        stages = run_data_stages(params)
    finally:
        stop_spark()
    return stages if bundle is None else [*stages, apply_bundle_signal(bundle, stages[-1].id)]


def known_days(metadata: Any) -> list[str]:
    """Days that a bundle's policy or its signal model learned from."""
    return sorted({*metadata["training_days"], *(metadata.get("signal_spec") or {}).get("train_days", [])})


def choose_date(params: TradeParams, metadata: Any) -> str:
    """The session to trade: the one asked for, else the first after all that the champion knows, else the last."""
    wide = params.model_copy(update={"synthetic_days": SYNTHETIC_DAYS})
    there = sorted(set(planned_dates(IngestParams(**wide.model_dump(include=set(IngestParams.model_fields))))))
    if not there:
        raise InputError(f"source {params.source}: no session day in {params.data or 'the synthetic market'}")
    seen = known_days(metadata)
    if params.date is not None:
        date = params.date.isoformat()
        if date not in there:
            raise InputError(f"date {date} is not among the {len(there)} sessions, {there[0]} to {there[-1]}")
        if date in seen:
            raise InputError(f"date {date} is one that the champion learned from; trade one after {seen[-1]}")
        return date
    fresh = [date for date in there if date > (seen[-1] if seen else "")]
    if not fresh:
        raise InputError(f"no session after {seen[-1]}, the last that the champion learned from; give more data")
    return fresh[0] if params.source == "synthetic" else fresh[-1]


def _data_params(params: TradeParams, date: str) -> DataParams:
    plain = params.model_dump(include=set(DataParams.model_fields) - {"force", "until"})
    return DataParams(
        **{**plain, "date_from": date, "date_to": date, "synthetic_days": SYNTHETIC_DAYS, "force": []},
    )


def _config(metadata: Any) -> "ExecutionConfig":
    """The parents that the champion was made for, in the market of the recorded day and without fees."""
    from training.execution.config import ExecutionConfig

    made_for = ExecutionConfig.from_dict(dict(metadata["execution"]))
    return replace(made_for, world="replay", maker_fee_bps=0.0, taker_fee_bps=0.0, risk_aversion=0.0)


def _load_days(features: Path, forecasts: Path | None, date: str) -> "list[MarketDay]":
    """The market days of every symbol, with `forecasts` where the champion sees some."""
    from training.market.day import load_market_days

    found = [item for item in list_partitions(features, "features.parquet") if item.date == date]
    if not found:
        raise InputError(f"no symbol of {date} passed the data gate; see its Data Docs")
    _require_symbols(found)
    return load_market_days(features, forecasts, found)


def _require_symbols(partitions: list[Partition]) -> None:
    symbols = [item.symbol for item in partitions]
    twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if twice:
        raise InputError(f"symbol {twice[0]} is traded at several venues that day; choose by --symbols or another day")


def parents_of(
    days: "list[MarketDay]", config: "ExecutionConfig", most: int | None, together: int = 1
) -> NDArray[np.void]:
    """Buys and sells of each symbol in turn over the day, `together` of a side at once; or `most` of them, evenly.

    Those of a side meet each other no more than their environments do. Those of the other side wait until all are done:
    the EMS keeps own orders apart, which an environment, that knows one parent, does not.
    """
    from training.execution.parents import parent_grid

    every_s = config.horizon_s + GAP_S if together == 1 else -(-config.horizon_s // together)
    grid = parent_grid(days, replace(config, start_every_s=every_s))
    chosen = []
    for index in range(len(days)):
        mine = grid[grid["day"] == index]
        sides = _sides(np.unique(mine["start_ns"]).tolist(), config.horizon_s, together)
        chosen.append(mine[[sides.get(int(row["start_ns"])) == int(row["side"]) for row in mine]])
    parents = np.concatenate(chosen)
    parents = parents[np.lexsort((parents["day"], parents["start_ns"]))]
    wanted = min(most or PARENTS_MAX, len(parents))
    return parents[np.unique(np.linspace(0, len(parents) - 1, wanted).astype(np.int64))]


def _sides(starts: list[int], horizon_s: int, together: int) -> dict[int, int]:
    """The side of each start that a parent is given, the first buys: `together` of a side, then the other side's."""
    sides: dict[int, int] = {}
    side, left, free_ns = -1, 0, 0
    for start_ns in starts:
        if not left and start_ns >= free_ns:
            side, left = -side, together
        if left:
            sides[start_ns], left = side, left - 1
            free_ns = start_ns + (horizon_s + GAP_S) * NS
    return sides
