import numpy as np
import pyarrow.parquet as pq

from feature_repo.lake import Partition
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.schema import Kind


def column(out, partition, name):
    path = partition.folder(out) / "events.parquet"
    return pq.read_table(path, columns=[name], partitioning=None).column(name).to_numpy()


def outside(out, partition):
    ts = column(out, partition, "ts_event_ns")
    spans = load_instruments(out)[partition.instrument_id].session_ns(partition.date)
    return ts[~np.any([(ts >= opens) & (ts < closes) for opens, closes in spans], axis=0)]


def test_ingest_when_real_aig_day_is_read_then_every_row_is_an_event_in_time_order(tmp_path, real_data):
    request = IngestRequest("lean", real_data / "lean", ("AIG",), "2013-10-07", "2013-10-07")
    summary = ingest(request, tmp_path)
    partition = Partition("US", "AIG", "2013-10-07")
    kind, ts = column(tmp_path, partition, "kind"), column(tmp_path, partition, "ts_event_ns")
    assert {item["path"][-9:]: item["vendor_rows"] for item in summary["inputs"]} == {
        "quote.zip": np.sum(kind == Kind.QUOTE),
        "trade.zip": np.sum(kind == Kind.TRADE),
    }
    assert summary["vendor_rows"] == summary["rows"] == 1_105_286
    assert np.all(np.diff(ts) >= 0)
    assert len(outside(tmp_path, partition)) < 1_000  # before the open and after the close


def test_ingest_when_real_shfe_days_are_read_then_night_sessions_lie_in_their_windows(tmp_path, real_data):
    summary = ingest(IngestRequest("shfe", real_data / "shfe"), tmp_path)
    assert {item["date"]: item["vendor_rows"] for item in summary["partitions"]} == {
        "2025-06-05": 41_201,
        "2025-06-06": 41_230,
        "2025-06-09": 41_273,
    }
    spans = load_instruments(tmp_path)["SHFE:rb2510"]
    for item in summary["partitions"]:
        partition = Partition(item["venue"], item["symbol"], item["date"])
        stray = np.unique(outside(tmp_path, partition))
        # What lies outside is the call auction's result a minute before an open, and the last snapshot at each close.
        edges = np.array([edge for span in spans.session_ns(partition.date) for edge in span])
        away_ns = np.abs(stray[:, None] - edges[None, :]).min(axis=1)
        assert len(stray) <= 7 and np.all(away_ns < 61_000_000_000)
        night = spans.session_ns(partition.date)[0]
        ts = column(tmp_path, partition, "ts_event_ns")
        assert np.sum((ts >= night[0]) & (ts < night[1])) > 100_000
