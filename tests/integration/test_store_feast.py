"""The Feast store: what goes online is what Parquet holds, wherever it is moved, and history never looks ahead."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition
from feature_repo.pipeline.kernels import FEATURES
from feature_repo.pipeline.store import historical_sample_agrees, materialize, open_store

REPO = Path(__file__).resolve().parents[2]
NS = 1_000_000_000
START_S = 1_736_155_800
ROWS = 300


def table(symbol: str, seed: int, names: tuple[str, ...]) -> pa.Table:
    rng = np.random.default_rng(seed)
    ts_ns = (START_S + np.arange(ROWS, dtype=np.int64)) * NS
    columns = {
        "event_timestamp": pa.array(ts_ns // 1000, pa.timestamp("us", tz="UTC")),
        "ts_ns": ts_ns,
        "instrument_id": [f"SYN:{symbol}"] * ROWS,
    }
    columns |= {name: rng.standard_normal(ROWS).astype(np.float32) for name in names}
    return pa.table(columns)


def write(root: Path, symbol: str, file: str, content: pa.Table) -> None:
    folder = Partition("SYN", symbol, "2025-01-06").folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, folder / file)


@pytest.fixture
def datasets(tmp_path) -> tuple[Path, Path]:
    features, forecasts = tmp_path / "features", tmp_path / "forecasts"
    for seed, symbol in enumerate(("SYN1", "SYN2")):
        content = table(symbol, seed, FEATURES).append_column("book_valid", pa.array(np.ones(ROWS, np.int8)))
        write(features, symbol, "features.parquet", content)
        forecast = table(symbol, seed + 9, tuple(f"forecast_{h}s_bps" for h in (10, 30, 60)))
        forecast = forecast.append_column("forecast_missing", pa.array(np.zeros(ROWS, np.int8)))
        write(forecasts, symbol, "forecasts.parquet", forecast.append_column("model_version", pa.array(["abc"] * ROWS)))
    return features, forecasts


def test_materialize_when_done_then_a_moved_store_serves_the_newest_values(datasets, tmp_path):
    out = tmp_path / "work"
    out.mkdir()
    summary = materialize(datasets[0], out, datasets[1])
    assert summary == {
        "views": ["microstructure", "forecasts"],
        "rows": 4 * ROWS,
        "compared": 2 * (len(FEATURES) + 1) + 2 * 5,
    }
    moved = tmp_path / "published"
    out.rename(moved)
    newest = pq.read_table(moved / "microstructure.parquet").slice(ROWS - 1, 1).to_pylist()[0]
    online = (
        open_store(moved)
        .get_online_features(
            features=["microstructure:spread_ticks", "forecasts:model_version"],
            entity_rows=[{"instrument_id": "SYN:SYN1"}, {"instrument_id": "SYN:NONE"}],
        )
        .to_dict()
    )
    assert online["spread_ticks"] == [newest["spread_ticks"], None]
    assert online["model_version"] == ["abc", None]
    rng = np.random.default_rng(1)
    decisions = START_S * NS + rng.integers(-10 * NS, (ROWS + 20) * NS, 60)
    assert historical_sample_agrees(moved, "SYN:SYN1", np.unique(decisions)) > 0


def test_materialize_when_online_differs_then_names_feature_and_both_values(datasets, tmp_path, monkeypatch):
    from feature_repo.pipeline import store

    genuine = store._newest_rows
    monkeypatch.setattr(store, "_newest_rows", lambda path: [{**row, "rv_60s": 7.0} for row in genuine(path)])
    out = tmp_path / "work"
    out.mkdir()
    with pytest.raises(ShortfallError, match=r"SYN:SYN1 microstructure\.rv_60s: the online store holds .*row 7\.0"):
        materialize(datasets[0], out)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop_columns(["rv_60s"]), "no column 'rv_60s'"),
        (lambda t: t.set_column(3, "spread_ticks", pa.array([np.nan] * ROWS, pa.float32())), "'spread_ticks' holds"),
        (lambda t: t.set_column(3, "spread_ticks", pa.array(["x"] * ROWS)), "holds string, wanted float"),
        (lambda t: t.set_column(3, "spread_ticks", pa.array([None] * ROWS, pa.float32())), "empty values"),
        (lambda t: t.slice(0, 0), "holds no row"),
        (lambda t: t.set_column(3, "spread_ticks", t["spread_ticks"].cast("float64")), "holds double, wanted float"),
        (lambda t: t.set_column(0, "event_timestamp", t["ts_ns"]), "'event_timestamp' holds int64"),
        (lambda t: t.set_column(2, "instrument_id", t["ts_ns"]), "'instrument_id' holds int64, wanted string"),
    ],
)
def test_materialize_when_features_are_spoilt_then_names_file_and_column(datasets, tmp_path, spoil, message):
    path = Partition("SYN", "SYN2", "2025-01-06").folder(datasets[0]) / "features.parquet"
    pq.write_table(spoil(pq.ParquetFile(path).read()), path)
    out = tmp_path / "work"
    out.mkdir()
    with pytest.raises(InputError, match=message) as caught:
        materialize(datasets[0], out)
    assert "symbol=SYN2" in str(caught.value)


def test_feast_apply_when_run_from_the_shell_then_registers_every_definition(datasets, tmp_path):
    out = tmp_path / "work"
    out.mkdir()
    materialize(datasets[0], out, datasets[1])
    environment = {
        **os.environ,
        "SHORTFALL_FEAST_REGISTRY": str(tmp_path / "registry.db"),
        "SHORTFALL_FEAST_ONLINE": str(tmp_path / "online.db"),
        "SHORTFALL_FEATURES_PATH": str(out / "microstructure.parquet"),
        "SHORTFALL_FORECASTS_PATH": str(out / "forecasts.parquet"),
    }
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [feast, "-c", "feature_repo", "apply"], cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("microstructure", "forecasts", "execution_v1", "signal_v1", "signal_v2"):
        assert name in done.stdout
