from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feature_repo.lake import Partition
from feature_repo.pipeline.cleaning import clean
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import EVENT_SCHEMA
from feature_repo.ticks.synthetic import DIRT_KINDS, SyntheticOptions, clean_events, dirty_rows

DAY = Partition("SYN", "SYN1", "2025-01-06")
RULES = {
    "duplicate": {"exact_duplicate"},
    "late": {"out_of_order", "out_of_session"},  # the latter where it falls before the open
    "out_of_session": {"out_of_session"},
    "zero_price": {"non_positive_price"},
    "outlying_price": {"outlier_price"},
}


@pytest.mark.spark
def test_cleaning_when_the_synthetic_market_is_dirty_then_it_takes_out_the_added_rows_and_no_other(
    tmp_path: Path, spark: Any
) -> None:
    options = {"days": 1, "hours": 0.3, "dirt": 1e-3}
    bronze, silver = tmp_path / "bronze", tmp_path / "silver"
    bronze.mkdir()
    silver.mkdir()
    ingest(IngestRequest("synthetic", options=options), bronze)
    clean(bronze, silver, spark)

    market = clean_events(SyntheticOptions.parse(options), DAY)
    kept = pq.read_table(DAY.folder(silver) / "events.parquet", partitioning=None)
    assert kept.num_rows == len(market)
    for name in set(EVENT_SCHEMA.names) - {"sequence"}:
        assert (kept.column(name).to_numpy() == getattr(market, name)).all(), name

    added = dirty_rows(SyntheticOptions.parse(options), DAY, market)
    caught = pq.read_table(DAY.folder(silver / "quarantine") / "events.parquet", partitioning=None)
    rules = caught.column("rule").to_pylist()
    each = len(added["duplicate"].events)
    assert each > 5 and len(rules) == each * len(DIRT_KINDS)
    for kind in ("duplicate", "zero_price", "outlying_price"):
        assert sum(rule in RULES[kind] for rule in rules) == each, kind
    assert sum(rule in RULES["late"] for rule in rules) == 2 * each  # late and out-of-session rows
