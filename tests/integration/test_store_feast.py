"""The Feast store: what goes online is what Parquet holds, wherever it is moved, and history never looks ahead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition
from feature_repo.pipeline.kernels import FEATURES, SIGNAL_V1
from feature_repo.pipeline.online import copy_store, feature_names, online_features, open_store, push
from feature_repo.pipeline.store import historical_sample_agrees, materialize

REPO = Path(__file__).resolve().parents[2]
NS = 1_000_000_000
START_S = 1_736_155_800
ROWS = 300


DAY, NEXT_DAY = "2025-01-06", "2025-01-07"


def table(symbol: str, seed: int, names: tuple[str, ...], start_s: int = START_S) -> pa.Table:
    rng = np.random.default_rng(seed)
    ts_ns = (start_s + np.arange(ROWS, dtype=np.int64)) * NS
    columns = {
        "event_timestamp": pa.array(ts_ns // 1000, pa.timestamp("us", tz="UTC")),
        "ts_ns": ts_ns,
        "instrument_id": [f"SYN:{symbol}"] * ROWS,
    }
    columns |= {name: rng.standard_normal(ROWS).astype(np.float32) for name in names}
    return pa.table(columns)


def write(root: Path, symbol: str, file: str, content: pa.Table, date: str = DAY) -> None:
    folder = Partition("SYN", symbol, date).folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, folder / file)


def add(datasets: tuple[Path, Path], symbol: str, seed: int, date: str, start_s: int) -> None:
    features, forecasts = datasets
    content = table(symbol, seed, FEATURES, start_s).append_column("book_valid", pa.array(np.ones(ROWS, np.int8)))
    write(features, symbol, "features.parquet", content, date)
    forecast = table(symbol, seed + 90, tuple(f"forecast_{h}s_bps" for h in (10, 30, 60)), start_s)
    forecast = forecast.append_column("forecast_missing", pa.array(np.zeros(ROWS, np.int8)))
    forecast = forecast.append_column("model_version", pa.array(["abc"] * ROWS))
    write(forecasts, symbol, "forecasts.parquet", forecast, date)


def add_day(datasets: tuple[Path, Path], symbol: str, seed: int, seconds: int = 0) -> None:
    add(datasets, symbol, seed, NEXT_DAY, START_S + 86_400 + seconds)


def live_rows(symbol: str, count: int) -> pa.Table:
    """Rows that follow the stored day second by second."""
    content = table(symbol, 50, FEATURES, START_S + ROWS).append_column("book_valid", pa.array(np.ones(ROWS, np.int8)))
    return content.slice(0, count).drop_columns(["ts_ns"])


@pytest.fixture
def datasets(tmp_path) -> tuple[Path, Path]:
    folders = tmp_path / "features", tmp_path / "forecasts"
    for seed, symbol in enumerate(("SYN1", "SYN2")):
        add(folders, symbol, seed, DAY, START_S)
    return folders


def materialized(tmp_path, datasets, name="work", **options) -> tuple[Path, dict]:
    out = tmp_path / name
    out.mkdir()
    return out, materialize(datasets[0], out, datasets[1], **options)


def newest(dataset: Path, symbol: str, date: str = DAY, file: str = "features.parquet") -> dict:
    path = Partition("SYN", symbol, date).folder(dataset) / file
    return pq.ParquetFile(path).read().slice(ROWS - 1, 1).to_pylist()[0]


def test_materialize_when_done_then_a_moved_store_serves_the_newest_values(datasets, tmp_path):
    out, summary = materialized(tmp_path, datasets)
    assert summary == {
        "views": ["microstructure", "forecasts"],
        "rows": 4 * ROWS,
        "new_rows": 4 * ROWS,
        "mode": {"microstructure": "full", "forecasts": "full"},
        "compared": 2 * (len(FEATURES) + 1) + 2 * 5,
    }
    moved = tmp_path / "published"
    out.rename(moved)
    online = (
        open_store(moved)
        .get_online_features(
            features=["microstructure:spread_ticks", "forecasts:model_version"],
            entity_rows=[{"instrument_id": "SYN:SYN1"}, {"instrument_id": "SYN:NONE"}],
        )
        .to_dict()
    )
    assert online["spread_ticks"] == [newest(datasets[0], "SYN1")["spread_ticks"], None]
    assert online["model_version"] == ["abc", None]
    rng = np.random.default_rng(1)
    decisions = START_S * NS + rng.integers(-10 * NS, (ROWS + 20) * NS, 60)
    assert historical_sample_agrees(moved, "SYN:SYN1", np.unique(decisions)) > 0
    with pytest.raises(InputError, match="holds no microstructure rows of SYN:NONE"):
        historical_sample_agrees(moved, "SYN:NONE", decisions)


def test_online_features_when_asked_by_service_then_each_version_gives_its_own_and_honours_time(datasets, tmp_path):
    out, _ = materialized(tmp_path, datasets)
    store = open_store(out)
    last = (START_S + ROWS - 1) * NS
    for service, names in (
        ("signal_v1", [*SIGNAL_V1, "book_valid"]),
        ("signal_v2", [*FEATURES, "book_valid"]),
        ("execution_v1", [*SIGNAL_V1, "book_valid", *feature_names("forecasts")]),
    ):
        row = newest(datasets[0], "SYN1") | newest(datasets[1], "SYN1", file="forecasts.parquet")
        own = store.get_online_features(
            features=store.get_feature_service(service), entity_rows=[{"instrument_id": "SYN:SYN1"}]
        ).to_dict()
        assert {name: own[name] for name in names} == {name: [row[name]] for name in names}
        for late_ns in (0, 5 * NS):  # the time to live is five seconds
            got = online_features(store, service, ["SYN:SYN1", "SYN:NONE"], last + late_ns)
            assert got["SYN:SYN1"]["values"] == {name: row[name] for name in names}
            assert set(got["SYN:SYN1"]["event_ns"].values()) == {last}
            assert set(got["SYN:NONE"]["values"].values()) == {None}
        # Feast's own read gives all of these: too old by a nanosecond, and stamped after the decision.
        for decision_ns in (last + 5 * NS + 1, last - 1):
            got = online_features(store, service, ["SYN:SYN1"], decision_ns)["SYN:SYN1"]
            assert set(got["values"].values()) == {None} and set(got["event_ns"].values()) == {None}
    with pytest.raises(InputError, match="'signal_v9' is unknown; there are: execution_v1, signal_v1, signal_v2"):
        online_features(store, "signal_v9", ["SYN:SYN1"], last)


def test_history_when_asked_by_service_then_no_value_is_late_or_from_after_the_decision(datasets, tmp_path):
    for symbol in ("SYN1", "SYN2"):  # a feature that says when it was known
        path = Partition("SYN", symbol, DAY).folder(datasets[0]) / "features.parquet"
        content = pq.ParquetFile(path).read()
        at = content.column_names.index("spread_ticks")
        content = content.set_column(at, "spread_ticks", pa.array(np.arange(ROWS, dtype=np.float32)))
        pq.write_table(content, path)
    out, _ = materialized(tmp_path, datasets)
    offsets = np.unique(np.random.default_rng(2).integers(-8 * NS, (ROWS + 8) * NS, 80)) // 1000 * 1000
    asked = pd.DataFrame(
        {"instrument_id": "SYN:SYN2", "event_timestamp": pd.to_datetime(START_S * NS + offsets, utc=True)}
    )
    store = open_store(out)
    got = store.get_historical_features(entity_df=asked, features=store.get_feature_service("execution_v1")).to_df()
    known = got.set_index("event_timestamp").reindex(asked["event_timestamp"])["spread_ticks"].to_numpy(np.float64)
    there = ~np.isnan(known)
    age_ns = offsets - known * NS
    assert np.all(age_ns[there] >= 0) and np.all(age_ns[there] <= 5 * NS)
    current = (offsets >= 0) & (offsets <= (ROWS - 1 + 5) * NS)
    assert np.array_equal(there, current) and 0 < there.sum() < len(there)
    assert np.array_equal(known[there], np.minimum(offsets[there] // NS, ROWS - 1))


def test_materialize_when_a_day_is_new_then_only_it_is_read_and_the_previous_store_stays(
    datasets, tmp_path, monkeypatch
):
    from feature_repo.pipeline import store as module

    before, _ = materialized(tmp_path, datasets, "before")
    bytes_before = {path: path.read_bytes() for path in before.iterdir() if path.is_file()}
    add_day(datasets, "SYN1", 7)
    read = []
    genuine = module._read
    monkeypatch.setattr(module, "_read", lambda path: read.append(path) or genuine(path))
    after, summary = materialized(tmp_path, datasets, "after", previous=before)
    assert [path.parent.name for path in read] == [f"date={NEXT_DAY}"] * 2
    assert summary["mode"] == {"microstructure": "incremental", "forecasts": "incremental"}
    assert (summary["rows"], summary["new_rows"]) == (6 * ROWS, 2 * ROWS)
    assert {path: path.read_bytes() for path in before.iterdir() if path.is_file()} == bytes_before
    assert not list(after.glob(".newest-*"))
    later = (START_S + 86_400 + ROWS - 1) * NS
    got = online_features(open_store(after), "signal_v1", ["SYN:SYN1", "SYN:SYN2"], later)
    assert got["SYN:SYN1"]["values"]["rv_60s"] == newest(datasets[0], "SYN1", NEXT_DAY)["rv_60s"]
    assert got["SYN:SYN2"]["values"]["rv_60s"] is None  # of the day before: past its time to live
    kept = online_features(open_store(after), "signal_v1", ["SYN:SYN2"], (START_S + ROWS - 1) * NS)
    assert kept["SYN:SYN2"]["values"]["rv_60s"] == newest(datasets[0], "SYN2")["rv_60s"]
    again, summary = materialized(tmp_path, datasets, "again", previous=after)
    assert summary["mode"] == {"microstructure": "unchanged", "forecasts": "unchanged"} and summary["new_rows"] == 0
    # SYN2's day comes late: older than what was last materialized, and still the newest of its instrument
    add_day(datasets, "SYN2", 8, seconds=-60)
    late, summary = materialized(tmp_path, datasets, "late", previous=again)
    assert summary["mode"]["microstructure"] == "full" and summary["new_rows"] == 2 * ROWS
    got = online_features(open_store(late), "signal_v1", ["SYN:SYN2"], later - 60 * NS)
    assert got["SYN:SYN2"]["values"]["rv_60s"] == newest(datasets[0], "SYN2", NEXT_DAY)["rv_60s"]


def test_materialize_when_the_previous_store_cannot_be_gone_on_from_then_starts_anew_or_says_so(datasets, tmp_path):
    before, _ = materialized(tmp_path, datasets, "before")
    index = json.loads((before / "views.json").read_text())
    index["views"]["microstructure"]["features"].pop()
    (before / "views.json").write_text(json.dumps(index))
    _, summary = materialized(tmp_path, datasets, "other", previous=before)
    assert summary["mode"]["microstructure"] == "full" and summary["new_rows"] == 4 * ROWS
    (before / "views.json").write_text("[]")
    with pytest.raises(InputError, match=r"views\.json: not a store of materialize to go on from"):
        materialized(tmp_path, datasets, "bad", previous=before)


def test_push_when_rows_are_live_then_they_stand_online_and_older_ones_do_not(datasets, tmp_path):
    published, _ = materialized(tmp_path, datasets)
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    own = tmp_path / "own"
    own.mkdir()
    copy_store(published, own)
    store = open_store(own)
    live = live_rows("SYN1", 3)
    assert push(store, "microstructure", live, offline_dir=own) == {"written": 3, "stale": 0}
    last = (START_S + ROWS + 2) * NS
    wanted = live.slice(2, 1).to_pylist()[0]
    got = online_features(store, "signal_v2", ["SYN:SYN1"], last)["SYN:SYN1"]
    assert got["values"] == {name: wanted[name] for name in [*FEATURES, "book_valid"]}
    assert got["event_ns"] == {"microstructure": last}
    assert push(store, "microstructure", live.slice(0, 2), offline_dir=own) == {"written": 0, "stale": 2}
    assert online_features(store, "signal_v2", ["SYN:SYN1"], last)["SYN:SYN1"] == got
    decisions = np.array([(START_S + ROWS + 1) * NS + 500_000_000, last])
    assert historical_sample_agrees(own, "SYN:SYN2", decisions) > 0
    asked = pd.DataFrame({"instrument_id": "SYN:SYN1", "event_timestamp": pd.to_datetime(decisions, utc=True)})
    history = store.get_historical_features(entity_df=asked, features=["microstructure:rv_60s"]).to_df()
    assert history.sort_values("event_timestamp")["rv_60s"].tolist() == live["rv_60s"].to_pylist()[1:]
    assert {path: path.read_bytes() for path in published.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop_columns(["rv_60s"]), "rows pushed to microstructure: no column 'rv_60s'"),
        (lambda t: t.set_column(2, "spread_ticks", t["spread_ticks"].cast("float64")), "holds double, wanted float"),
        (lambda t: pa.concat_tables([t, t]), r"two rows of SYN:SYN1 at \d+ ns"),
    ],
)
def test_push_when_rows_are_spoilt_then_refuses_them_all(datasets, tmp_path, spoil, message):
    out = tmp_path / "work"
    out.mkdir()
    with pytest.raises(InputError, match=message):
        push(open_store(out), "microstructure", spoil(live_rows("SYN1", 2)))


@pytest.mark.parametrize(
    ("online_store", "message"),
    [
        ({"type": "memcached"}, "online_store.type is 'memcached'; wanted sqlite or redis"),
        ({"type": "redis"}, "redis needs connection_string"),
        ({"type": "sqlite", "path": "x"}, "online_store.path is unknown for sqlite"),
    ],
)
def test_open_store_when_the_online_store_is_misnamed_then_says_what_there_is(tmp_path, online_store, message):
    with pytest.raises(InputError, match=message):
        open_store(tmp_path, online_store)


def test_materialize_when_online_differs_then_names_feature_and_both_values(datasets, tmp_path, monkeypatch):
    from feature_repo.pipeline import store

    genuine = store._fill

    def fill(view, *rest):
        mode = genuine(view, *rest)
        view.newest = {name: {**row, "rv_60s": 7.0} for name, row in view.newest.items()}
        return mode

    monkeypatch.setattr(store, "_fill", fill)
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
        (
            lambda t: t.set_column(2, "instrument_id", pa.array(["SYN:SYN1"] * ROWS)),
            "rows of SYN:SYN1, wanted SYN:SYN2",
        ),
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
        "SHORTFALL_FEATURES_PATH": str(out / "microstructure"),
        "SHORTFALL_FORECASTS_PATH": str(out / "forecasts"),
    }
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [feast, "-c", "feature_repo", "apply"], cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("microstructure", "forecasts", "execution_v1", "signal_v1", "signal_v2"):
        assert name in done.stdout
