"""The features stage in Spark: a row a second, equal bytes twice, the vendor's best quotes, refusals by name."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.pipeline.books import load_book
from feature_repo.pipeline.build import build_features, build_partition
from feature_repo.pipeline.kernels import FEATURES
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


def test_book_when_built_from_real_depth_then_shows_the_vendors_best_quotes(real_data, tmp_path):
    bronze, out = tmp_path / "bronze", tmp_path / "features"
    bronze.mkdir()
    out.mkdir()
    ingest(IngestRequest("shfe", real_data / "shfe", date_from="2025-06-05", date_to="2025-06-05"), bronze)
    (partition,) = list_partitions(bronze, "events.parquet")
    build_partition(bronze, out, partition, load_instruments(bronze)[partition.instrument_id])
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
