import errno
import hashlib
import json

import pyarrow.parquet as pq
import pytest
from reader_files import QUOTES, TRADES, lean_day, shfe_columns, shfe_file

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition, list_partitions
from feature_repo.ticks import ingest as ingest_module
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.instruments import load_instruments
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.registry import get_reader, reader_names
from feature_repo.ticks.schema import EVENT_SCHEMA


def folder(path):
    path.mkdir()
    return path


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_ingest_when_day_is_good_then_bronze_and_manifest_account_for_every_row(tmp_path):
    data, out = lean_day(tmp_path / "lean"), folder(tmp_path / "out")
    summary = ingest(IngestRequest("lean", data, ("aig",), options={"note": 7}), out)
    partition = Partition("US", "AIG", "2013-10-07")
    assert list_partitions(out, "events.parquet") == [partition]
    table = pq.read_table(partition.folder(out) / "events.parquet", partitioning=None)
    assert table.schema.remove_metadata() == EVENT_SCHEMA
    assert (summary["vendor_rows"], summary["rows"], table.num_rows) == (4, 4, 4)
    assert summary["partitions"] == [
        {"venue": "US", "symbol": "AIG", "date": "2013-10-07", "rows": 4, "vendor_rows": 4}
        | {"skipped_rows": 0, "carried_rows": 0}
    ]
    quotes = data / "equity/usa/tick/aig/20131007_quote.zip"
    assert summary["inputs"][0] == {
        "path": "equity/usa/tick/aig/20131007_quote.zip",
        "sha256": hashlib.sha256(quotes.read_bytes()).hexdigest(),
        "bytes": quotes.stat().st_size,
        "vendor_rows": 3,
    }
    manifest = json.loads((out / "manifest.json").read_text())
    counted = {"US/AIG/2013-10-07": {"20131007_quote.zip": 3, "20131007_trade.zip": 1}}
    skipped = {"US/AIG/2013-10-07": {}}
    assert manifest == {**summary, "counted": counted, "skipped": skipped, "options": {"note": 7}}
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert list(load_instruments(out)) == ["US:AIG"]


@pytest.mark.parametrize("source", ["lean", "shfe"])
def test_ingest_when_run_twice_from_other_places_then_bytes_are_identical(tmp_path, source):
    results = []
    for name in ("a", "b"):
        data = tmp_path / name
        if source == "lean":
            lean_day(data), lean_day(data, "bac", quotes=QUOTES[::-1], trades=TRADES * 2)
        else:
            shfe_file(data, shfe_columns([1, 5, 9], [30_000.0, 150_010.0, 270_060.0]))
        out = folder(tmp_path / f"out-{name}")
        summary = ingest(IngestRequest(source, data), out)
        results.append((summary, contents(out)))
    assert results[0] == results[1]


def test_ingest_when_reader_batches_differ_then_bytes_do_not(tmp_path, monkeypatch):
    data = tmp_path / "shfe"
    volume = list(range(1, 3_001))
    shfe_file(data, shfe_columns(volume, [30_000.0 * v for v in volume]))
    files = []
    for rows in (100, 8_192):
        monkeypatch.setattr("feature_repo.ticks.shfe.BATCH_ROWS", rows)
        monkeypatch.setattr(ingest_module, "ROW_GROUP_ROWS", 5_000)
        out = folder(tmp_path / f"out-{rows}")
        ingest(IngestRequest("shfe", data), out)
        files.append(contents(out))
    assert files[0] == files[1]
    groups = pq.ParquetFile(next((tmp_path / "out-100").rglob("events.parquet"))).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [5_000] * 7 + [1_000]


def test_ingest_when_running_then_progress_reaches_the_number_of_symbol_days(tmp_path):
    seen = []
    lean_day(tmp_path / "lean", "bac", quotes=QUOTES[:2], trades=TRADES * 2)
    ingest(
        IngestRequest("lean", lean_day(tmp_path / "lean")), folder(tmp_path / "out"), lambda *call: seen.append(call)
    )
    assert seen[0] == (0, 2, "symbol-days") and seen[-1] == (2, 2, "symbol-days")


@pytest.mark.parametrize(("empty", "name"), [("quotes", "quote"), ("trades", "trade")])
def test_ingest_when_file_has_no_row_then_empty_session_names_file(tmp_path, empty, name):
    data = lean_day(tmp_path / "lean", **{empty: []})
    with pytest.raises(InputError, match=rf"20131007_{name}\.zip: empty session, no row for 2013-10-07"):
        ingest(IngestRequest("lean", data), folder(tmp_path / "out"))


def test_ingest_when_file_is_a_copy_of_another_day_then_names_both(tmp_path):
    data = lean_day(tmp_path / "lean")
    source = data / "equity/usa/tick/aig"
    lean_day(data, day="20131008", quotes=QUOTES[:2])
    (source / "20131008_trade.zip").write_bytes((source / "20131007_trade.zip").read_bytes())
    with pytest.raises(InputError, match=r"20131008_trade\.zip: the same bytes as .*20131007_trade\.zip"):
        ingest(IngestRequest("lean", data), folder(tmp_path / "out"))


def test_ingest_when_disk_fills_then_one_error_names_place_and_space(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ingest_module, "_write_partition", full)
    out = folder(tmp_path / "out")
    with pytest.raises(ShortfallError, match="disk full") as caught:
        ingest(IngestRequest("lean", lean_day(tmp_path / "lean")), out)
    assert str(out) in str(caught.value) and "bytes free" in str(caught.value) and "need about" in str(caught.value)
    assert caught.value.exit_code != 0


def test_ingest_when_another_system_error_comes_then_it_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(ingest_module, "_write_partition", denied)
    with pytest.raises(PermissionError):
        ingest(IngestRequest("lean", lean_day(tmp_path / "lean")), folder(tmp_path / "out"))


def test_ingest_when_source_is_unknown_then_lists_readers(tmp_path):
    with pytest.raises(InputError, match="source 'nasdaq' is unknown; readers: binance, .*, lean, .*, shfe, synthetic"):
        ingest(IngestRequest("nasdaq", tmp_path), folder(tmp_path / "out"))


def test_ingest_when_package_adds_a_reader_then_registry_finds_it(monkeypatch):
    class Point:
        name = "mine"

        def load(self):
            return lambda: "my reader"

    monkeypatch.setattr("feature_repo.ticks.registry.entry_points", lambda group: [Point()])
    assert get_reader("mine") == "my reader"
    assert "mine" in reader_names()


def test_ingest_when_a_day_is_added_then_only_it_is_read(tmp_path, monkeypatch):
    from feature_repo.parts import Parts
    from feature_repo.ticks.lean import LeanReader

    data, parts, read = lean_day(tmp_path / "lean"), Parts(tmp_path / "parts"), []
    original = LeanReader.read

    def noted(self, plan, count, opening=None):
        read.append(plan.partition.symbol)
        return original(self, plan, count, opening)

    monkeypatch.setattr(LeanReader, "read", noted)
    first = ingest(IngestRequest("lean", data), folder(tmp_path / "one"), parts=parts)
    lean_day(data, "bac", quotes=QUOTES[::-1], trades=TRADES * 2)
    both = ingest(IngestRequest("lean", data), folder(tmp_path / "two"), parts=parts)
    assert read == ["AIG", "BAC"] and both["partitions"][0] == first["partitions"][0]
    whole = ingest(IngestRequest("lean", data), folder(tmp_path / "three"))
    assert whole == both
    fresh, kept = contents(tmp_path / "three"), contents(tmp_path / "two")
    assert fresh.keys() == kept.keys()
    assert all(fresh[name] == kept[name] for name in fresh)


def test_ingest_when_an_input_fails_then_no_part_of_it_is_left(tmp_path):
    from feature_repo.parts import Parts

    data = lean_day(tmp_path / "lean", quotes=[*QUOTES, "34200500,abc,1,0,0,P,0,0"])
    with pytest.raises(InputError, match="line 4"):
        ingest(IngestRequest("lean", data), folder(tmp_path / "out"), parts=Parts(tmp_path / "parts"))
    assert not [path for path in (tmp_path / "parts").rglob("*") if path.is_file()]
