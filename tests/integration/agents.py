"""A market of two made-up days and a tiny training, shared by the tests of agents."""

import numpy as np
import pytest

from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, SessionWindow
from training.execution.agent_config import AgentConfig

DAYS = ("2024-01-02", "2024-01-03")
INSTRUMENT = Instrument(
    "TEST", "AAA", 0.01, 1.0, "USD", "UTC", (SessionWindow("09:00:00", "11:00:00"),), 2, False, 10_000_000, True
)
TINY = AgentConfig(
    train_days=DAYS,
    env_steps=2_048,
    num_envs=32,
    batch_steps=1_024,
    minibatch_steps=256,
    epochs=1,
    normaliser_steps=1_024,
    warm_start_steps=1_024,
    warm_start_epochs=1,
    validation_every=1,
    validation_parents=32,
    execution={"horizon_s": 300, "lots": 60},
)


def random_walk_day(partition, seed):
    """A book of two levels, one row a second, whose mid walks by ticks, with trades at the best prices."""
    from feature_repo.pipeline.books import Book
    from feature_repo.pipeline.kernels import SIGNAL_V1
    from training.market.day import MarketDay, with_history

    rng = np.random.default_rng(seed)
    ((opens, closes),) = INSTRUMENT.session_ns(partition.date)
    ts = np.arange(opens, closes, 1_000_000_000)
    mid = 10_000 + np.cumsum(rng.integers(-1, 2, len(ts)))
    levels = np.arange(2)
    bid, ask = (mid[:, None] - levels).astype(np.int32), (mid[:, None] + 1 + levels).astype(np.int32)
    sizes = [rng.integers(10, 200, (len(ts), 2)).astype(np.int32) for _ in range(2)]
    side = rng.choice([-1, 0, 1], len(ts)).astype(np.int8)
    trade_px = np.where(side > 0, ask[:, 0], np.where(side < 0, bid[:, 0], 0)).astype(np.int32)
    trade_sz = np.where(side != 0, rng.integers(1, 80, len(ts)), 0).astype(np.int32)
    book = Book(ts, bid, sizes[0], ask, sizes[1], trade_px, trade_sz, side)
    features = rng.normal(size=(len(ts), len(SIGNAL_V1))).astype(np.float32)
    forecasts, missing = np.zeros((len(ts), 3), np.float32), np.ones(len(ts), np.float32)
    names, spans = tuple(SIGNAL_V1), tuple(INSTRUMENT.session_ns(partition.date))
    day = MarketDay(INSTRUMENT, partition, book, names, ts, features, (10, 30, 60), forecasts, missing, spans)
    return with_history(day, [])


@pytest.fixture
def features_dir(tmp_path, monkeypatch):
    """A features dataset by name, whose days are made in memory."""
    for date in DAYS:
        folder = Partition("TEST", "AAA", date).folder(tmp_path / "features")
        folder.mkdir(parents=True)
        for name in ("book.parquet", "features.parquet"):
            (folder / name).write_bytes(f"{date} {name}".encode())

    def load(features, forecasts, partitions, *_):
        return [random_walk_day(item, int(item.date[-2:])) for item in partitions]

    monkeypatch.setattr("training.market.day.load_market_days", load)
    return tmp_path / "features"


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    from training.execution.local_ray import local_ray

    with local_ray(1):
        yield


def train(features_dir, out, config=TINY, progress=None):
    from training.execution.train import train_agent

    out.mkdir(exist_ok=True)
    return train_agent(features_dir, None, out, config, progress or (lambda done, total, unit: None))
