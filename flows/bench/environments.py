"""What an environment step and a reactive event cost: rows of `shortfall bench simulator`."""

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flows.bench.machine import Row

if TYPE_CHECKING:
    import pyarrow as pa

    from training.execution.config import ExecutionConfig
    from training.execution.vector_env import ExecutionVectorEnv
    from training.market.day import MarketDay

SEED, REPEATS, DEPTH = 7, 7, 5
ROWS_A_STEP, SLICES = 100, 20
WIDTH = 1024
VECTOR_STEPS, SINGLE_STEPS = 100, 10_000  # in one run: steps of all episodes side by side, and of the single one
REACTIVE_SECONDS = 3_600
VECTOR_TARGET, SINGLE_TARGET, REACTIVE_TARGET = 200_000, 50_000, 10e6


def environment_rows(events: "pa.Table", repeats: int = REPEATS) -> list[Row]:
    """`vector env steps/s` and `single env steps/s` on the synthetic day of `events`, and what the figures rest on.

    The decision interval is such that a step plays ROWS_A_STEP rows of the book on average. Actions are drawn uniformly
    from the four beforehand; observations and resets are within the clock, and a step that only resets is not counted.
    Each figure is steps over the thread's processor time, the median of `repeats` runs. `bytes per book row` is what
    the environments' one copy of the day costs: 40 bytes, and 16 for each level behind the best.
    """
    from training.execution.vector_env import ExecutionVectorEnv

    day = synthetic_market_day(events)
    config = hundred_row_config(day)
    env = ExecutionVectorEnv([day], config, WIDTH, SEED)
    mixed = statistics.median(vector_rates(env, 4, repeats))
    resting = statistics.median(vector_rates(env, 1, repeats))
    single = statistics.median(single_rates(day, config, repeats))
    interval_rows = len(day.book.ts_ns) * config.interval_ns / (int(day.book.ts_ns[-1]) - int(day.book.ts_ns[0]))
    return [
        Row("vector env steps/s", mixed, "steps/s", VECTOR_TARGET, mixed >= VECTOR_TARGET),
        Row("vector env steps/s, always resting", resting, "steps/s"),
        Row("single env steps/s", single, "steps/s", SINGLE_TARGET, single >= SINGLE_TARGET),
        Row("book rows a step", interval_rows, "rows"),
        Row("bytes per book row", env.bytes_per_row, "bytes"),
        Row("vector env width", WIDTH, "episodes"),
    ]


def vector_rates(env: "ExecutionVectorEnv", actions: int, repeats: int) -> list[float]:
    """Steps per second of each run; `actions` 4 draws from all, 1 always places."""
    rng = np.random.default_rng(SEED)
    shape = (VECTOR_STEPS, env.num_envs)
    drawn = rng.integers(0, actions, shape) if actions > 1 else np.ones(shape, np.int64)
    env.reset(seed=SEED)
    rates = []
    for turn in range(repeats + 1):
        steps, ended = 0, np.zeros(env.num_envs, bool)
        start = time.thread_time()
        for row in drawn:
            steps += env.num_envs - int(ended.sum())
            _, _, ended, _, _ = env.step(row)
        if turn > 0:  # the first turn compiles, and lets the episodes fall out of step
            rates.append(steps / (time.thread_time() - start))
    return rates


def single_rates(day: "MarketDay", config: "ExecutionConfig", repeats: int) -> list[float]:
    """Steps per second of each run of the single environment, stepped from Python as an agent would."""
    from training.execution.env import ExecutionEnv

    env = ExecutionEnv([day], config, SEED)
    actions = np.random.default_rng(SEED).integers(0, 4, SINGLE_STEPS).tolist()
    env.reset(seed=SEED)
    rates = []
    for turn in range(repeats + 1):
        start = time.thread_time()
        for action in actions:
            if env.step(action)[2]:
                env.reset()
        if turn > 0:
            rates.append(SINGLE_STEPS / (time.thread_time() - start))
    return rates


def reactive_rows(repeats: int = REPEATS) -> list[Row]:
    """`reactive events/s`: the queue-reactive market of the published parameters, played without own orders."""
    from feature_repo.ticks.reactive_tables import published_tables
    from training.market.reactive.kernel import open_market, play
    from training.market.reactive.state import NS, market_seed, new_markets, prepare

    tables, markets = published_tables(), new_markets(1)
    prepare(markets, tables, 0.0, 0, REACTIVE_SECONDS * NS)

    def run() -> int:
        open_market(tables, markets[0], market_seed(SEED, 0), 0, 10_000)
        return int(play(tables, markets[0], REACTIVE_SECONDS * NS))

    rate = statistics.median(_rates(run, repeats))
    return [Row("reactive events/s", rate, "events/s", REACTIVE_TARGET, rate >= REACTIVE_TARGET)]


def _rates(run: Callable[[], int], repeats: int) -> list[float]:
    """What each call of `run` did, per second of the thread's processor time; the first call compiles."""
    rates = []
    for turn in range(repeats + 1):
        start = time.thread_time()
        count = run()
        if turn > 0:
            rates.append(count / (time.thread_time() - start))
    return rates


def hundred_row_config(day: "MarketDay") -> "ExecutionConfig":
    """Parents of SLICES decisions whose interval spans ROWS_A_STEP rows of `day` on average."""
    from training.execution.config import NS, ExecutionConfig

    span_s = (int(day.book.ts_ns[-1]) - int(day.book.ts_ns[0])) / NS
    horizon_s = round(SLICES * ROWS_A_STEP * span_s / len(day.book.ts_ns))
    return ExecutionConfig(horizon_s=horizon_s, decision_interval_s=horizon_s / SLICES)


def synthetic_market_day(events: "pa.Table") -> "MarketDay":
    """The day of `simulator.synthetic_events` as the market engine takes it: book, features, and no forecasts."""
    from feature_repo.pipeline.books import build_book
    from feature_repo.pipeline.kernels import SIGNAL_V1, compute_features
    from feature_repo.ticks.reader import IngestRequest
    from feature_repo.ticks.synthetic import SyntheticReader
    from serving.contracts.observation import FORECAST_HORIZONS_S
    from training.market.day import MarketDay, with_history

    reader, request = SyntheticReader(), IngestRequest("synthetic", options={"days": 1, "seed": SEED, "dirt": 0.0})
    (plan,), (instrument,) = reader.plan(request), reader.instruments(request)
    windows = instrument.session_ns(plan.partition.date)
    book, _ = build_book(events, DEPTH)
    ts_ns, features, valid = compute_features(book, windows)
    kept = valid != 0
    rows = int(kept.sum())
    day = MarketDay(
        instrument=instrument, partition=plan.partition, book=book, feature_names=SIGNAL_V1, feature_ns=ts_ns[kept],
        features=np.ascontiguousarray(features[kept, : len(SIGNAL_V1)]), horizons_s=FORECAST_HORIZONS_S,
        forecasts=np.zeros((rows, len(FORECAST_HORIZONS_S)), np.float32),
        forecast_missing=np.ones(rows, np.float32), windows=tuple(windows),
    )  # fmt: skip
    return with_history(day, [])
