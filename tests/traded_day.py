"""A short synthetic day ready to be traded through the processes, without the data pipeline."""

from dataclasses import replace

from synthetic_features import synthetic_features

from flows.champions import open_registry
from flows.lake import StageResult
from flows.settings import settings
from flows.trade_day import TradeDay, TradeParams, parents_of
from serving.contracts.bundle import load_bundle
from training.execution.config import ExecutionConfig
from training.market.day import load_market_days

SOURCE = "test"


def traded_day(lake, folder, hours, forecasts=None):
    """A TradeDay with the bundle of `folder` as champion; the lake is the one of the settings."""
    settings.cache_clear()
    registry = open_registry(SOURCE)
    version = registry.register(folder, {})
    registry.promote(version, "for a test", force=True)
    bundle = load_bundle(folder)
    features = lake / "features"
    partition = synthetic_features(features, hours)
    config = replace(ExecutionConfig.from_dict(dict(bundle.metadata["execution"])), world="replay")
    day = load_market_days(features, None if forecasts is None else forecasts(bundle, features), [partition])[0]
    stages = [StageResult("features", "by-hand", False, 0.0, {})]
    parents = parents_of([day], config, None, together=2)
    return TradeDay(SOURCE, partition.date, True, features, stages, version, bundle, config, [day], parents)


def params(**changes):
    return TradeParams(source=SOURCE, **changes)
