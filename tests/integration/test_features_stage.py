"""The features stage in Spark: a row a second, equal bytes twice, the vendor's best quotes, refusals by name."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.parts import INDEX_FILE, Parts
from feature_repo.pipeline.books import build_book, load_book
from feature_repo.pipeline.build import build_features
from feature_repo.pipeline.kernels import FEATURES, compute_features
from feature_repo.pipeline.volume_curve import DayVolume, VolumeCurve
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clean days of three minutes each."""
    folder = tmp_path_factory.mktemp("silver")
    options = {"days": 2, "hours": 0.05, "dirt": 0.0}
    ingest(IngestRequest("synthetic", options=options), folder)
    return folder


@pytest.mark.spark
def test_build_features_when_done_twice_then_a_row_a_second_and_equal_bytes(silver, spark, tmp_path):
    outputs = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        summary = build_features(silver, out, spark)
        assert summary["rows"] == 2 * 180 and summary["features"] == list(FEATURES)
        assert [part["rows"] for part in summary["partitions"]] == [180, 180]
        assert all(part["unknown_order"] == 0 for part in summary["partitions"])
        outputs.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert outputs[0] == outputs[1]
    table = pq.ParquetFile(tmp_path / "one" / next(p for p in outputs[0] if p.name == "features.parquet")).read()
    assert table.column("book_valid").to_numpy().all()
    assert np.all(np.diff(table.column("ts_ns").to_numpy()) == 1_000_000_000)
    stamps = table.column("event_timestamp").cast("int64").to_numpy() * 1000
    assert np.array_equal(stamps, table.column("ts_ns").to_numpy())


@pytest.mark.spark
def test_build_features_when_done_in_spark_then_equals_the_kernels_on_the_whole_day(silver, spark, tmp_path):
    build_features(silver, tmp_path, spark)
    instrument = load_instruments(silver)["SYN:SYN1"]
    volumes: list[DayVolume] = []
    for partition in list_partitions(silver, "events.parquet"):
        windows = instrument.session_ns(partition.date)
        book, _ = build_book(pq.ParquetFile(partition.folder(silver) / "events.parquet").read(), instrument.depth)
        stored = load_book(tmp_path, partition)
        for field in fields(book):
            ours, theirs = getattr(book, field.name), getattr(stored, field.name)
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), field.name
        curve = VolumeCurve.from_days(volumes, partition.date)
        ts_ns, features, valid = compute_features(book, windows, curve)
        table = pq.ParquetFile(partition.folder(tmp_path) / "features.parquet").read()
        assert table.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
        assert np.array_equal(table.column("ts_ns").to_numpy(), ts_ns)
        assert np.array_equal(table.column("book_valid").to_numpy(), valid)
        for i, name in enumerate(FEATURES):
            assert np.array_equal(table.column(name).to_numpy(), features[:, i]), name
        volumes.append(DayVolume.from_book(partition.date, book, windows))
    assert volumes[0].lots.sum() > 0


@pytest.mark.spark
def test_build_features_when_a_day_comes_then_only_that_day_is_done(silver, spark, tmp_path):
    parts = Parts(tmp_path / "parts")
    first, second = list_partitions(silver, "events.parquet")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        out.mkdir()
    before = build_features(silver, outs[0], spark, parts=parts, excluded=frozenset({second}))
    assert [item["date"] for item in before["partitions"]] == [first.date]
    assert not second.folder(outs[0]).exists()
    kept = {path: path.stat().st_mtime_ns for path in parts.root.rglob("*.parquet")}
    after = build_features(silver, outs[1], spark, parts=parts)
    assert [item["curve_days"] for item in after["partitions"]] == [0, 1]
    assert after["partitions"][0] == before["partitions"][0]
    assert len(kept) == 3 and all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert len(list(parts.root.rglob("*.parquet"))) == 6  # book, leaves and features of each
    assert not list(parts.root.rglob(".*"))
    index = json.loads((outs[1] / INDEX_FILE).read_text())
    assert len(index) == 2 and len(set(index.values())) == 2
    with pytest.raises(InputError, match="the gate set every one of its 2 symbol-days aside"):
        build_features(silver, tmp_path, spark, excluded=frozenset({first, second}))


@pytest.mark.spark
def test_build_features_when_silver_is_damaged_then_names_the_file(silver, spark, tmp_path):
    broken = tmp_path / "silver"
    shutil.copytree(silver, broken)
    path = sorted(broken.rglob("events.parquet"))[0]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for at in range(2_000, len(whole) - 4_000, 50):  # the pages, not the footer
        damaged[at] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=f"{path}: damaged, Spark cannot read it"):
        build_features(broken, tmp_path, spark)
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=f"{path}: not a readable event file"):
        build_features(broken, tmp_path, spark)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match=f"{path}: not the event schema: missing"):
        build_features(broken, tmp_path, spark)


@pytest.mark.spark
def test_build_features_when_a_book_never_has_two_sides_then_names_symbol_and_day(silver, spark, tmp_path):
    broken = tmp_path / "silver"
    broken.mkdir()
    (broken / "instruments.json").write_bytes((silver / "instruments.json").read_bytes())
    for partition in list_partitions(silver, "events.parquet"):
        events = pq.ParquetFile(partition.folder(silver) / "events.parquet").read()
        if partition.date == "2025-01-07":
            kind, side = events.column("kind").to_numpy(), events.column("side").to_numpy()
            events = events.filter((kind == int(Kind.ADD)) & (side == 1))
        partition.folder(broken).mkdir(parents=True)
        pq.write_table(events.cast(EVENT_SCHEMA), partition.folder(broken) / "events.parquet")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="SYN:SYN1 2025-01-07: the book never has two sides"):
        build_features(broken, out, spark)


@pytest.mark.spark
def test_book_when_built_from_real_depth_then_shows_the_vendors_best_quotes(real_data, spark, tmp_path):
    bronze, out = tmp_path / "bronze", tmp_path / "features"
    bronze.mkdir()
    out.mkdir()
    ingest(IngestRequest("shfe", real_data / "shfe", date_from="2025-06-05", date_to="2025-06-05"), bronze)
    (partition,) = list_partitions(bronze, "events.parquet")
    build_features(bronze, out, spark)
    book = load_book(out, partition)
    snapshots = book.trade_sz == 0
    vendor = pq.read_table(real_data / "shfe" / "rb_20250605.parquet")
    for name, ours in (("bid1", book.bid_px), ("askSize1", book.ask_sz), ("bid5", book.bid_px)):
        level = 4 if name.endswith("5") else 0
        theirs = vendor.column(name).to_numpy()
        # A snapshot that changes nothing gives no row: compare runs of equal vendor rows once.
        assert set(np.unique(ours[snapshots, level])) == set(np.unique(theirs[np.isfinite(theirs)]).astype(np.int64))
    assert len(book.ts_ns[snapshots]) <= vendor.num_rows
    features = pq.ParquetFile(partition.folder(out) / "features.parquet").read()
    assert features.num_rows == 20_700 and features.column("book_valid").to_numpy().mean() > 0.999
