"""Silver and features of the synthetic market as folders, made by the kernels of the stages without Spark."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.lake import list_partitions
from feature_repo.pipeline.book_tasks import features_table
from feature_repo.pipeline.books import build_book, write_book
from feature_repo.pipeline.kernels import compute_features
from feature_repo.pipeline.leaf_kernel import LeafBuilder
from feature_repo.pipeline.leaves import LEAVES_FILE, leaves_table
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.reader import IngestRequest


def synthetic_folders(root: Path, days: int, hours: float, **options: float) -> tuple[Path, Path]:
    """Folders of silver (a market without dirt is clean as it comes) and of features below `root`."""
    silver, features = root / "silver", root / "features"
    silver.mkdir()
    features.mkdir()
    ingest(IngestRequest("synthetic", options={"days": days, "hours": hours, "dirt": 0.0, **options}), silver)
    instruments = load_instruments(silver)
    shutil.copy(silver / "instruments.json", features)
    for item in list_partitions(silver, "events.parquet"):
        instrument, folder = instruments[item.instrument_id], item.folder(features)
        folder.mkdir(parents=True)
        events = pq.read_table(item.folder(silver) / "events.parquet", partitioning=None)
        book, _ = build_book(events, instrument.depth)
        write_book(book, folder / "book.parquet")
        pq.write_table(leaves_table(LeafBuilder(instrument.depth).add(events)), folder / LEAVES_FILE)
        values = compute_features(book, instrument.session_ns(item.date))
        pq.write_table(features_table(item, *values), folder / "features.parquet")
    return silver, features
