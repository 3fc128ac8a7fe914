"""The features stage writes leaves beside books that are known order by order, and the simulator finds them."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from order_events import table

from feature_repo.lake import list_partitions
from feature_repo.pipeline.build import build_features
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from feature_repo.pipeline.leaves import EXECUTE, HALT, LEAVES_FILE, load_leaves
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from training.market.day import load_market_day
from training.market.engine import Engine
from training.market.tape import NoQueuesError


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clean synthetic day of three minutes, order by order."""
    folder = tmp_path_factory.mktemp("silver")
    ingest(IngestRequest("synthetic", options={"days": 1, "hours": 0.05, "dirt": 0.0}), folder)
    return folder


@pytest.mark.spark
def test_features_of_order_data_when_built_twice_then_leaves_are_those_of_the_kernel_and_equal(silver, spark, tmp_path):
    (partition,) = list_partitions(silver, "events.parquet")
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_features(silver, tmp_path / name, spark)
        written.append((partition.folder(tmp_path / name) / LEAVES_FILE).read_bytes())
    assert written[0] == written[1]
    events = pq.ParquetFile(partition.folder(silver) / "events.parquet").read()
    expected = LeafBuilder(load_instruments(silver)["SYN:SYN1"].depth).add(events)
    assert load_leaves(tmp_path / "one", partition).tobytes() == expected.tobytes()
    day = load_market_day(tmp_path / "one", None, partition)
    assert day.leaves is not None and np.sum(day.leaves["kind"] == EXECUTE) > 20 and not len(day.halts)
    assert len(Engine([day], 1, fill_model="fifo").tape.leaves) == len(expected)


@pytest.mark.spark
def test_features_of_depth_data_then_have_leaves_for_halts_alone(silver, spark, tmp_path):
    depth = tmp_path / "silver"
    shutil.copytree(silver, depth)
    (partition,) = list_partitions(depth, "events.parquet")
    path = partition.folder(depth) / "events.parquet"
    start = pq.ParquetFile(path).read().column("ts_event_ns")[0].as_py()
    last = int(Flag.LAST)
    rows = []
    for k in range(170):
        now, bid = start + k * 1_000_000_000, 10_000 + k % 3
        rows += [
            (now, Kind.CLEAR, 0, 0, 0),
            (now, Kind.LEVEL, Side.BUY, bid, 5),
            (now, Kind.LEVEL, Side.SELL, bid + 1, 5, 0, last),
        ]
        rows += [(now, Kind.HALT, 0, 0, 0)] * (k == 60)
    pq.write_table(table(*rows).cast(EVENT_SCHEMA), path)
    (tmp_path / "out").mkdir()
    build_features(depth, tmp_path / "out", spark)
    day = load_market_day(tmp_path / "out", None, partition)
    assert day.leaves is None
    assert day.halts.tolist() == [[start + 60 * 10**9, start + 61 * 10**9]]
    assert (load_leaves(tmp_path / "out", partition)["kind"] >= HALT).all()
    with pytest.raises(NoQueuesError, match=f"{partition.instrument_id} {partition.date}: fill model fifo needs"):
        Engine([day], 1, fill_model="fifo")
