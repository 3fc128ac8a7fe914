"""Which forecasts a policy sees: the stored ones in pure replay, none where own orders have moved the market."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from market_folders import synthetic_folders

from feature_repo.lake import list_partitions
from serving.contracts.observation import CROSS, FORECAST_NAMES, OBSERVATION_NAMES, WAIT
from training.execution.config import ExecutionConfig
from training.execution.parents import parent_grid
from training.execution.policies import ModelPolicy
from training.execution.run import run_policy
from training.market.day import load_market_days
from training.market.impact import ImpactParameters

CONFIG = ExecutionConfig(lots=60, horizon_s=300, start_every_s=300)
COLUMNS = [OBSERVATION_NAMES.index(name) for name in FORECAST_NAMES]
MISSING = OBSERVATION_NAMES.index("forecast_missing")
IMPACT = ImpactParameters(200.0, (400.0, 300.0), (3.0, 40.0), 0.2, 100.0, 4000.0)
UNKNOWN_S = 900  # seconds at the start of the first day that no model forecast


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Days as every stage loads them, and the forecasts that the signal stage stored: no two rows are alike."""
    root = tmp_path_factory.mktemp("stored")
    _, features = synthetic_folders(root, days=2, hours=0.75)
    rng, rows = np.random.default_rng(0), []
    for number, item in enumerate(list_partitions(features, "features.parquet")):
        stamps = pq.read_table(item.folder(features) / "features.parquet", columns=["ts_ns"])["ts_ns"].to_numpy()
        missing = ((np.arange(len(stamps)) < UNKNOWN_S) & (number == 0)).astype(np.int8)
        values = rng.normal(0, 1, (len(stamps), len(FORECAST_NAMES))).astype(np.float32) * (1 - missing)[:, None]
        columns = {"ts_ns": stamps, **{name: values[:, k] for k, name in enumerate(FORECAST_NAMES)}}
        item.folder(root / "forecasts").mkdir(parents=True)
        pq.write_table(
            pa.table({**columns, "forecast_missing": missing}),
            item.folder(root / "forecasts") / "forecasts.parquet",
        )
        rows.append((stamps, values, missing))
    days = load_market_days(features, root / "forecasts", list_partitions(features, "features.parquet"))
    return [replace(day, impact=IMPACT) for day in days], rows


def seen_under(action, days, config):
    """Forecasts (K, N, H) and flags (K, N) of every decision while all parents do `action`, and the parents."""
    parents, seen = parent_grid(days, config), []

    def act(observation, mask):
        seen.append(observation)
        return np.where(mask[:, action] > 0.5, action, WAIT)

    run_policy(ModelPolicy("watch", act), days, parents, config)
    found = np.stack(seen)
    return found[:, :, COLUMNS], found[:, :, MISSING], parents


def expected_of(rows, parents, steps, config):
    """What was stored for the last whole second up to each decision, side-signed."""
    forecasts, flags = np.zeros((steps, len(parents), len(FORECAST_NAMES))), np.zeros((steps, len(parents)))
    for n, parent in enumerate(parents):
        stamps, values, missing = rows[parent["day"]]
        for k in range(steps):
            now = int(parent["start_ns"]) + k * config.pause_ns
            row = np.searchsorted(stamps, now, side="right") - 1
            forecasts[k, n], flags[k, n] = parent["side"] * values[row], missing[row]
    return forecasts, flags


def test_forecasts_in_pure_replay_are_those_stored_for_the_second_whatever_was_traded(stored):
    days, rows = stored
    for action in (WAIT, CROSS):
        found, flags, parents = seen_under(action, days, CONFIG)
        wanted, missing = expected_of(rows, parents, CONFIG.slices, CONFIG)
        running = len(found)  # crossing parents end early: they have been compared as long as they ran
        np.testing.assert_allclose(found, wanted[:running], rtol=1e-6)
        np.testing.assert_array_equal(flags, missing[:running])
        assert 0.0 < missing.mean() < 1.0


def test_forecasts_where_own_trades_moved_the_market_are_flagged_missing_from_then_on(stored):
    days, rows = stored
    config = replace(CONFIG, world="impact")
    untouched, flags, parents = seen_under(WAIT, days, config)
    wanted, missing = expected_of(rows, parents, config.slices, config)
    np.testing.assert_allclose(untouched, wanted, rtol=1e-6)  # nobody traded: it is still history
    np.testing.assert_array_equal(flags, missing)
    moved, flags, _ = seen_under(CROSS, days, config)
    np.testing.assert_allclose(moved[0], wanted[0], rtol=1e-6)
    assert (flags[1:] == 1.0).all() and (moved[1:] == 0.0).all()


def test_forecasts_in_the_reactive_world_are_missing_throughout(stored):
    days, _ = stored
    found, flags, _ = seen_under(WAIT, days, replace(CONFIG, world="reactive"))
    assert (flags == 1.0).all() and (found == 0.0).all()
