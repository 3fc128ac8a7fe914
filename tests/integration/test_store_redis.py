"""The Feast store with a real Redis server online: the same answers as SQLite, shared, and never set back."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import ShortfallError
from feature_repo.lake import Partition
from feature_repo.pipeline.kernels import FEATURES
from feature_repo.pipeline.online import online_features, open_store, push
from feature_repo.pipeline.store import materialize

pytestmark = pytest.mark.services
REPO = Path(__file__).resolve().parents[2]
NS, START_S, ROWS = 1_000_000_000, 1_736_155_800, 40
NAMES = [*FEATURES, "book_valid"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def redis(tmp_path) -> Iterator[dict]:
    """An empty Redis of this test alone on loopback, which writes nothing to disk; gives the online store's options."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on PATH: install Redis to test the online store that clusters use")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                pytest.fail(f"redis-server ended with {process.returncode}: {(tmp_path / 'redis.log').read_text()}")
            time.sleep(0.05)
        yield {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
    finally:
        process.terminate()
        process.wait(timeout=20)


def rows(symbol: str, start_s: int, seed: int, count: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(seed)
    ts_us = (start_s + np.arange(count, dtype=np.int64)) * 1_000_000
    columns = {
        "event_timestamp": pa.array(ts_us, pa.timestamp("us", tz="UTC")),
        "instrument_id": pa.array([f"SYN:{symbol}"] * count),
        **{name: rng.standard_normal(count).astype(np.float32) for name in FEATURES},
        "book_valid": np.ones(count, np.int8),
    }
    return pa.table(columns)


def write(root: Path, symbol: str, date: str, table: pa.Table) -> dict:
    """Write a day; gives its newest row's features."""
    folder = Partition("SYN", symbol, date).folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "features.parquet")
    return {name: table[name][-1].as_py() for name in NAMES}


def build(tmp_path: Path, name: str, **options) -> tuple[Path, dict]:
    out = tmp_path / name
    out.mkdir()
    return out, materialize(tmp_path / "features", out, **options)


def values(store, symbol: str, at_s: int) -> dict:
    return online_features(store, "signal_v2", [f"SYN:{symbol}"], at_s * NS)[f"SYN:{symbol}"]["values"]


def test_store_when_redis_is_online_then_full_incremental_and_push_agree_with_parquet(tmp_path, redis):
    features, next_s = tmp_path / "features", START_S + 86_400
    first = {
        symbol: write(features, symbol, "2025-01-06", rows(symbol, START_S, seed)) for seed, symbol in enumerate("AB")
    }
    out, summary = build(tmp_path, "one", online_store=redis)
    assert summary["mode"] == {"microstructure": "full"} and summary["compared"] == 2 * len(NAMES)
    assert not (out / "online_store.db").exists()
    store = open_store(out, redis)
    assert {symbol: values(store, symbol, START_S + ROWS - 1) for symbol in "AB"} == first
    assert values(store, "A", START_S + ROWS + 5)["rv_60s"] is None  # past the time to live

    second = write(features, "A", "2025-01-07", rows("A", next_s, 7))
    after, summary = build(tmp_path, "two", online_store=redis, previous=out)
    assert summary["mode"] == {"microstructure": "incremental"} and summary["new_rows"] == ROWS
    store = open_store(after, redis)
    assert values(store, "A", next_s + ROWS - 1) == second and values(store, "B", START_S + ROWS - 1) == first["B"]

    live = rows("A", next_s + ROWS, 8, 2)
    assert push(store, "microstructure", live) == {"written": 2, "stale": 0}
    assert push(store, "microstructure", live.slice(0, 1)) == {"written": 0, "stale": 1}
    newest = {name: live[name][-1].as_py() for name in NAMES}
    assert values(store, "A", next_s + ROWS + 1) == newest
    # The store is shared: building it anew sets no live value back, and is no fault of it.
    _, summary = build(tmp_path, "three", online_store=redis)
    assert summary["compared"] == len(NAMES)  # of B; what stands for A is later than any Parquet row
    assert values(store, "A", next_s + ROWS + 1) == newest


def test_store_when_redis_was_emptied_or_a_day_was_recomputed_then_every_instrument_is_brought_back(tmp_path, redis):
    import redis as client

    features = tmp_path / "features"
    first = {
        symbol: write(features, symbol, "2025-01-06", rows(symbol, START_S, seed)) for seed, symbol in enumerate("AB")
    }
    out, _ = build(tmp_path, "one", online_store=redis)
    host, port = redis["connection_string"].split(":")
    client.Redis(host=host, port=int(port)).flushall()
    again, summary = build(tmp_path, "two", online_store=redis, previous=out)
    assert summary["compared"] == 2 * len(NAMES)
    assert {symbol: values(open_store(again, redis), symbol, START_S + ROWS - 1) for symbol in "AB"} == first
    changed = write(features, "B", "2025-01-06", rows("B", START_S, 99))  # same times, other values
    third, _ = build(tmp_path, "three", online_store=redis, previous=again)
    assert values(open_store(third, redis), "B", START_S + ROWS - 1) == changed
    assert values(open_store(third, redis), "A", START_S + ROWS - 1) == first["A"]


def test_store_when_redis_does_not_answer_then_names_it_without_its_password(tmp_path):
    write(tmp_path / "features", "A", "2025-01-06", rows("A", START_S, 0))
    port = free_port()
    with pytest.raises(ShortfallError, match=rf"online store redis at 127\.0\.0\.1:{port}:") as caught:
        build(tmp_path, "one", online_store={"type": "redis", "connection_string": f"127.0.0.1:{port},password=secret"})
    assert "secret" not in str(caught.value)


def test_feast_apply_when_run_with_the_cluster_file_then_registers_in_sql_and_redis(tmp_path, redis):
    write(tmp_path / "features", "A", "2025-01-06", rows("A", START_S, 0))
    out, _ = build(tmp_path, "one")
    (out / "forecasts").mkdir()
    environment = {
        **os.environ,
        "SHORTFALL_FEAST_REGISTRY_URL": f"sqlite:///{tmp_path / 'registry.sql'}",  # as Postgres, through SQLAlchemy
        "SHORTFALL_REDIS": redis["connection_string"],
        "SHORTFALL_FEATURES_PATH": str(out / "microstructure"),
        "SHORTFALL_FORECASTS_PATH": str(out / "forecasts"),
    }
    feast = Path(sys.executable).with_name("feast")
    command = [feast, "-c", "feature_repo", "-f", "feature_repo/feature_store.k8s.yaml"]
    for action in (["apply", "--skip-source-validation"], ["feature-services", "list"]):
        done = subprocess.run(
            [*command, *action], cwd=REPO, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    for name in ("execution_v1", "signal_v1", "signal_v2"):
        assert name in done.stdout
