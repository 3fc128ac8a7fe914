"""The data gate: sound silver passes, each kind of fault stops the run and is named."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import GateFailedError, InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.accounting import partition_account, write_accounting
from feature_repo.pipeline.quality import validate
from feature_repo.ticks.instruments import Instrument, SessionWindow, save_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind, Side

INSTRUMENT = Instrument("V", "S", 0.01, 1, "USD", "UTC", (SessionWindow("10:00:00", "11:00:00"),), 5, False, 1)
MINUTE_NS = 60_000_000_000


def quotes(date: str, count: int = 240) -> list[dict]:
    """Bid and ask in turn, four a minute over the hour."""
    opens = INSTRUMENT.session_ns(date)[0][0]
    step = 60 * MINUTE_NS // count
    return [
        {
            "ts_event_ns": opens + i * step, "ts_recv_ns": opens + i * step, "sequence": i, "kind": int(Kind.QUOTE),
            "side": int(Side.BUY if i % 2 == 0 else Side.SELL), "price_ticks": 5000 + i % 2, "size": 100,
            "order_id": 0, "flags": 0,
        }
        for i in range(count)
    ]  # fmt: skip


def write_silver(root: Path, days: dict[str, list[dict]], quarantined: dict[str, int] | None = None) -> Path:
    root.mkdir()
    accounts = []
    for date, rows in days.items():
        partition = Partition("V", "S", date)
        partition.folder(root).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), partition.folder(root) / "events.parquet")
        bad = quarantined or {}
        accounts.append(partition_account(partition, len(rows) + sum(bad.values()), {"kept": len(rows), **bad}))
    write_accounting(accounts, root)
    save_instruments([INSTRUMENT], root)
    return root


@pytest.fixture
def gate(tmp_path):
    """Validates silver made of the given days; returns the summary and validation.json."""

    def run(days, quarantined=None, name="a"):
        silver = write_silver(tmp_path / f"silver_{name}", days, quarantined)
        out = tmp_path / f"out_{name}"
        out.mkdir()
        return validate(silver, out), json.loads((out / "validation.json").read_text())

    return run


def test_gate_when_silver_is_sound_then_passes_and_builds_docs(gate, tmp_path):
    days = {f"2024-01-0{day}": quotes(f"2024-01-0{day}") for day in (2, 3, 4)}
    summary, report = gate(days)
    assert summary == {
        "success": True,
        "expectations": len(report["checks"]),
        "failed": 0,
        "data_docs": "data_docs/index.html",
    }
    assert report["partitions"][2]["rows_to_trailing_median"] == 1.0
    assert (tmp_path / "out_a" / "data_docs" / "index.html").is_file()
    assert {check["suite"] for check in report["checks"]} == {"partitions", "events"}
    gate(days, name="b")  # neither the time nor the place of a run is in its result
    assert (tmp_path / "out_a/validation.json").read_bytes() == (tmp_path / "out_b/validation.json").read_bytes()


def changed(rows, number, **values):
    return [{**row, **values} if i == number else row for i, row in enumerate(rows)]


DAY = "2024-01-02"


@pytest.mark.parametrize(
    ("rows", "quarantined", "column", "seen"),
    [
        (quotes(DAY)[:120], {}, "session_coverage", None),  # half the hour is just enough
        (quotes(DAY)[:100], {}, "session_coverage", "0.41"),
        (quotes(DAY, 60), {}, "rows", "60"),
        (quotes(DAY), {"outlier_price": 20}, "quarantine_share", "0.07"),
        (quotes(DAY), {"out_of_session": 20}, "quarantine_share", None),  # extended hours are no fault of the data
        (quotes(DAY), {"out_of_session": 500}, "out_of_session_share", "0.67"),
        (changed(quotes(DAY), 7, price_ticks=-4), {}, "bad_prices", "1"),
        (changed(quotes(DAY), 7, size=0), {}, "bad_sizes", "1"),
        (changed(quotes(DAY), 7, kind=99), {}, "bad_kinds", "1"),
        (changed(quotes(DAY), 7, side=0), {}, "bad_sides", "1"),
        (changed(quotes(DAY), 7, ts_event_ns=quotes(DAY)[6]["ts_event_ns"] - 5), {}, "backward_step_ns", "5"),
        (changed(quotes(DAY), 239, ts_event_ns=quotes(DAY)[0]["ts_event_ns"] + 60 * MINUTE_NS), {},
         "rows_outside_session", "1"),
        ([{**row, "price_ticks": 5000} for row in quotes(DAY)], {}, "positive_spread_share", "0.0"),
    ],
)  # fmt: skip
def test_gate_when_a_day_breaks_a_limit_then_names_expectation_partition_and_value(
    gate, tmp_path, rows, quarantined, column, seen
):
    if seen is None:
        assert gate({DAY: rows}, quarantined)[0]["failed"] == 0
        return
    with pytest.raises(GateFailedError, match=rf"partitions\.{column} failed in V:S {DAY}.*observed {seen}.*allowed"):
        gate({DAY: rows}, quarantined)
    report = json.loads((tmp_path / "out_a" / "validation.json").read_text())
    failed = [check["column"] for check in report["checks"] if not check["success"]]
    assert column in failed and not report["success"] and report["failed"] == len(failed)
    assert (tmp_path / "out_a" / "data_docs" / "index.html").is_file()


def test_gate_when_a_day_shrinks_against_its_trailing_days_then_names_the_day(gate):
    days = {f"2024-01-0{day}": quotes(f"2024-01-0{day}", 2400) for day in (2, 3)}
    days["2024-01-04"] = quotes("2024-01-04", 240)
    with pytest.raises(GateFailedError, match=r"rows_to_trailing_median failed in V:S 2024-01-04: observed 0\.1"):
        gate(days)


def test_gate_when_a_column_is_missing_then_names_it(tmp_path):
    silver = write_silver(tmp_path / "silver", {DAY: quotes(DAY)})
    path = Partition("V", "S", DAY).folder(silver) / "events.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["size"]), path)
    (tmp_path / "out").mkdir()
    with pytest.raises(GateFailedError, match=r"schema_problem failed in V:S 2024-01-02.*missing \['size'\]"):
        validate(silver, tmp_path / "out")


def test_gate_when_accounting_is_absent_then_says_to_clean_again(tmp_path):
    silver = write_silver(tmp_path / "silver", {DAY: quotes(DAY)})
    (silver / "accounting.parquet").unlink()
    with pytest.raises(InputError, match=r"accounting\.parquet.*run clean again"):
        validate(silver, tmp_path / "out")


def test_gate_when_folder_is_empty_then_says_so(tmp_path):
    with pytest.raises(InputError, match="no partition"):
        validate(tmp_path, tmp_path / "out")
