"""Every sample source passes the gate by its documented limits, before cleaning took out more than the off-hours."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.lake import list_partitions
from feature_repo.pipeline.accounting import ACCOUNTING_SCHEMA
from feature_repo.pipeline.quality import validate
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments, save_instruments
from feature_repo.ticks.reader import IngestRequest


def as_silver(bronze: Path, silver: Path) -> None:
    """The rows of each session in time order, accounted for as cleaning would."""
    silver.mkdir()
    instruments, accounts = load_instruments(bronze), []
    for partition in list_partitions(bronze, "events.parquet"):
        table = pq.read_table(partition.folder(bronze) / "events.parquet", partitioning=None)
        ts = table["ts_event_ns"].to_numpy()
        inside = np.zeros(len(ts), bool)
        for opens, closes in instruments[partition.instrument_id].session_ns(partition.date):
            inside |= (ts >= opens) & (ts < closes)
        kept = table.filter(pa.array(inside)).sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])
        partition.folder(silver).mkdir(parents=True)
        pq.write_table(kept, partition.folder(silver) / "events.parquet")
        counts = {"kept": len(kept), "out_of_session": len(ts) - len(kept)}
        accounts += [{**vars(partition), "rule": rule, "rows": rows} for rule, rows in counts.items()]
    pq.write_table(pa.Table.from_pylist(accounts, schema=ACCOUNTING_SCHEMA), silver / "accounting.parquet")
    save_instruments(list(instruments.values()), silver)


@pytest.mark.parametrize(
    ("source", "folder", "chosen", "partitions", "dataset"),
    [
        ("lean", "lean", {"symbols": ("BAC",), "date_to": "2013-10-07"}, 1, "quotes"),
        ("lean-forex", "lean", {"date_to": "2014-05-05"}, 6, "quotes"),
        ("shfe", "shfe", {}, 3, "snapshots"),
        ("lobster", "lobster", {}, 1, "orders"),
        ("binance", "binance", {}, 7, "depth"),
        ("bitstamp", "bitstamp", {}, 1, "orders"),
        ("databento", "databento", {}, 2, "orders"),
    ],
)
def test_gate_when_a_sample_source_is_held_to_it_then_no_day_is_set_aside(
    tmp_path, real_data, source, folder, chosen, partitions, dataset
):
    bronze, out = tmp_path / "bronze", tmp_path / "out"
    bronze.mkdir()
    out.mkdir()
    ingest(IngestRequest(source, real_data / folder, **chosen), bronze)
    as_silver(bronze, tmp_path / "silver")
    summary = validate(tmp_path / "silver", out)
    report = json.loads((out / "validation.json").read_text())
    failed = [(check["column"], check["unexpected"]) for check in report["checks"] if not check["success"]]
    assert (summary["excluded"], failed) == ([], [])
    assert (summary["partitions"], {row["dataset"] for row in report["partitions"]}) == (partitions, {dataset})
    agreement = [row["quote_agreement_share"] for row in report["partitions"] if row["quote_agreement_share"]]
    assert agreement == ([1.0] * 6 if source == "binance" else [])  # every comparable best quote of the perpetuals
