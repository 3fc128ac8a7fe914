"""A features folder of the synthetic market without the pipeline: the same kernels, one process, seconds."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.lake import Partition
from feature_repo.pipeline.book_tasks import features_table
from feature_repo.pipeline.books import build_book, write_book
from feature_repo.pipeline.kernels import compute_features
from feature_repo.ticks.batches import event_batch
from feature_repo.ticks.instruments import save_instruments
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events

DATE = "2025-01-06"


def synthetic_features(folder: Path, hours: float, seed: int = 7, strength: float = 0.6, date: str = DATE) -> Partition:
    """Write one clean day of SYN1 below `folder` as the features stage would; gives its partition."""
    options = {"seed": seed, "days": 250, "hours": hours, "strength": strength, "symbols": 20, "dirt": 0}
    request = IngestRequest("synthetic", symbols=("SYN1",), options=options)
    instrument = SyntheticReader().instruments(request)[0]
    partition = Partition(instrument.venue, instrument.symbol, date)
    events = clean_events(SyntheticOptions.parse(options), partition)
    book, _ = build_book(pa.Table.from_batches([event_batch(events.slice(0, len(events)), 0)]), instrument.depth)
    place = partition.folder(folder)
    place.mkdir(parents=True)
    write_book(book, place / "book.parquet")
    features = features_table(partition, *compute_features(book, instrument.session_ns(date), None))
    pq.write_table(features, place / "features.parquet")
    save_instruments([instrument], folder)
    return partition
