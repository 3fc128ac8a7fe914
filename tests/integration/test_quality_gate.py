"""The data gate: sound silver passes; faults of the data set their symbol-day aside, those of cleaning stop the run."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import GateFailedError, InputError
from feature_repo.lake import Partition
from feature_repo.parts import Parts
from feature_repo.pipeline.accounting import ACCOUNTING_SCHEMA
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
            "side": int(Side.BUY if i % 2 == 0 else Side.SELL), "price_ticks": 5000 + i % 2, "size": 100 + i // 2 % 2,
            "order_id": 0, "flags": 0,
        }
        for i in range(count)
    ]  # fmt: skip


def write_silver(root: Path, days: dict[str, list[dict]], quarantined: dict[str, dict[str, int]] | None = None) -> Path:
    root.mkdir()
    accounts = []
    for date, rows in days.items():
        partition = Partition("V", "S", date)
        partition.folder(root).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), partition.folder(root) / "events.parquet")
        counts = {"kept": len(rows), **(quarantined or {}).get(date, {})}
        accounts += [{"venue": "V", "symbol": "S", "date": date, "rule": rule, "rows": n} for rule, n in counts.items()]
    pq.write_table(pa.Table.from_pylist(accounts, schema=ACCOUNTING_SCHEMA), root / "accounting.parquet")
    save_instruments([INSTRUMENT], root)
    return root


@pytest.fixture
def gate(tmp_path):
    """Validates silver made of the given days; returns the summary and validation.json."""

    def run(days, quarantined=None, name="a", **options):
        silver = write_silver(tmp_path / f"silver_{name}", days, quarantined)
        out = tmp_path / f"out_{name}"
        out.mkdir()
        return validate(silver, out, **options), json.loads((out / "validation.json").read_text())

    return run


def test_gate_when_silver_is_sound_then_passes_and_builds_docs(gate, tmp_path):
    days = {f"2024-01-0{day}": quotes(f"2024-01-0{day}") for day in (2, 3, 4)}
    summary, report = gate(days)
    assert summary == {
        "success": True,
        "expectations": len(report["checks"]),
        "failed": 0,
        "data_docs": "data_docs/index.html",
        "partitions": 3,
        "excluded": [],
    }
    assert report["partitions"][2]["rows_to_trailing_median"] == 1.0
    assert (tmp_path / "out_a" / "data_docs" / "index.html").is_file()
    assert {check["suite"] for check in report["checks"]} == {"quotes V", "events of quotes"}
    assert {check["severity"] for check in report["checks"]} == {"critical", "warning"}
    gate(days, name="b")  # neither the time nor the place of a run is in its result
    for file in ("validation.json", "validation.md", "excluded.json"):
        assert (tmp_path / "out_a" / file).read_bytes() == (tmp_path / "out_b" / file).read_bytes()
    docs = [path.read_text() for path in (tmp_path / "out_a" / "data_docs" / "validations").rglob("*.html")]
    assert any("Sets the symbol-day aside" in page and "Stops the run" in page for page in docs)


def changed(rows, number, **values):
    return [{**row, **values} if i == number else row for i, row in enumerate(rows)]


DAY, SOUND = "2024-01-02", "2023-12-29"


@pytest.mark.parametrize(
    ("rows", "column", "seen"),
    [
        (changed(quotes(DAY), 7, price_ticks=-4), "bad_prices", "1"),
        (changed(quotes(DAY), 7, size=0), "bad_sizes", "1"),
        (changed(quotes(DAY), 7, kind=99), "bad_kinds", "1"),
        (changed(quotes(DAY), 7, side=0), "bad_sides", "1"),
        (changed(quotes(DAY), 7, ts_event_ns=quotes(DAY)[6]["ts_event_ns"] - 5), "backward_step_ns", "5"),
        (changed(quotes(DAY), 7, ts_event_ns=quotes(DAY)[6]["ts_event_ns"], sequence=6), "repeated_sequences", "1"),
        (
            changed(quotes(DAY), 239, ts_event_ns=quotes(DAY)[0]["ts_event_ns"] + 60 * MINUTE_NS),
            "rows_outside_session",
            "1",
        ),
    ],
)
def test_gate_when_cleaning_let_a_fault_through_then_stops_the_run_by_name(gate, tmp_path, rows, column, seen):
    stopped = rf"quotes V\.{column} failed in V:S {DAY}: observed {seen}, allowed at most 0"
    with pytest.raises(GateFailedError, match=stopped):
        gate({SOUND: quotes(SOUND), DAY: rows})
    report = json.loads((tmp_path / "out_a" / "validation.json").read_text())
    assert column in [check["column"] for check in report["checks"] if not check["success"]]
    assert not report["success"] and stopped.split(" failed")[0].replace("\\", "") in report["stops"][0]
    assert (tmp_path / "out_a" / "data_docs" / "index.html").is_file()
    assert "Stopped the run" in (tmp_path / "out_a" / "validation.md").read_text()


@pytest.mark.parametrize(
    ("rows", "quarantined", "column"),
    [
        (quotes(DAY)[:120], {}, None),  # half the hour is just enough
        (quotes(DAY)[:100], {}, "session_coverage"),
        (quotes(DAY, 60), {}, "rows"),
        (quotes(DAY), {"outlier_price": 20}, "quarantine_share"),
        (quotes(DAY), {"out_of_session": 20}, None),  # extended hours are no fault of the data
        (quotes(DAY), {"out_of_session": 500}, "out_of_session_share"),
        ([{**row, "price_ticks": 5000} for row in quotes(DAY)], {}, "positive_spread_share"),
        ([{**row, "price_ticks": 5000 - row["side"] * -1} for row in quotes(DAY)], {},
         "positive_spread_share,crossed_share"),
        ([{**row, "side": 1} for row in quotes(DAY)], {}, "book_known_share"),
    ],
)  # fmt: skip
def test_gate_when_a_day_breaks_a_limit_then_sets_that_day_aside_and_goes_on(gate, tmp_path, rows, quarantined, column):
    silver = write_silver(tmp_path / "silver", {SOUND: quotes(SOUND), DAY: rows}, {DAY: quarantined})
    out = tmp_path / "out"
    out.mkdir()
    summary = validate(silver, out)
    wanted = [] if column is None else [
        {"venue": "V", "symbol": "S", "date": DAY, "expectation": column, "rows": len(rows)}
    ]  # fmt: skip
    assert summary["success"] and summary["excluded"] == wanted
    assert json.loads((out / "excluded.json").read_text()) == wanted
    report = json.loads((out / "validation.json").read_text())
    assert report["excluded"] == wanted and report["failed"] == len(column.split(",") if column else [])
    if column:
        assert re.search(rf"\| V \| S \| {DAY} \| {column} \| {len(rows)} \|", (out / "validation.md").read_text())


def test_gate_when_every_day_is_set_aside_then_stops_the_run(gate):
    days = {DAY: quotes(DAY)[:100], SOUND: quotes(SOUND)[:100]}
    with pytest.raises(GateFailedError, match=r"no symbol-day of 2 is left: quotes V\.session_coverage.*observed 0\.4"):
        gate(days)


def test_gate_when_rules_set_lawful_rows_aside_then_they_are_no_fault(gate):
    summary, report = gate({DAY: quotes(DAY)}, {DAY: {"stale_repeat": 240, "trade_condition": 60, "outlier_price": 5}})
    row = report["partitions"][0]
    assert summary["excluded"] == []
    assert row["quarantine_share"] == 5 / 245 and row["lawful_share"] == 300 / 545


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda rows: rows[::10], "rows_to_trailing_median"),
        (lambda rows: [{**row, "price_ticks": row["price_ticks"] * 10} for row in rows], "price_to_trailing_median"),
        (lambda rows: [{**row, "size": row["size"] * 100} for row in rows], "size_distance"),
        (lambda rows: [{**row, "price_ticks": 5000 - 40 * (row["side"] > 0)} for row in rows], "spread_distance"),
    ],
)
def test_gate_when_a_day_differs_from_its_trailing_days_then_sets_it_aside(gate, change, column):
    days = {f"2024-01-0{day}": quotes(f"2024-01-0{day}", 2400) for day in (2, 3, 4)}
    days["2024-01-04"] = change(days["2024-01-04"])
    summary, _ = gate(days)
    (only,) = summary["excluded"]
    assert only["date"] == "2024-01-04" and column in only["expectation"].split(",")


def test_gate_when_a_day_is_new_then_only_that_day_is_profiled(gate, tmp_path, monkeypatch):
    from feature_repo.pipeline import quality

    profiled = []
    genuine = quality.profile_partition
    monkeypatch.setattr(quality, "profile_partition", lambda *a: profiled.append(a[2]) or genuine(*a))
    parts = Parts(tmp_path / "parts", "code")
    days = {f"2024-01-0{day}": quotes(f"2024-01-0{day}") for day in (2, 3)}
    gate(days, parts=parts)
    days["2024-01-04"] = quotes("2024-01-04")
    summary, kept = gate(days, name="b", parts=parts)
    assert profiled == ["2024-01-02", "2024-01-03", "2024-01-04"] and summary["partitions"] == 3
    assert kept == gate(days, name="c")[1]
    assert not (tmp_path / "out_c" / ".parts").exists()


def test_gate_when_an_own_file_changes_a_limit_then_it_holds_for_its_venue_and_instrument(gate, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "venues: {V: {session_coverage: {min: 0.3, reason: a test}, rows: {min: 1000, reason: a test}}}\n"
        "instruments: {'V:S': {rows: {min: 10, severity: stop, reason: a test}}}\n"
    )
    days = {SOUND: quotes(SOUND), DAY: quotes(DAY)[:100]}
    summary, report = gate(days, gates_file=own)
    assert summary["excluded"] == [] and {check["suite"] for check in report["checks"]} >= {"quotes V:S"}
    days[DAY] = quotes(DAY)[:5]
    with pytest.raises(
        GateFailedError, match=r"quotes V:S\.rows failed in V:S 2024-01-02: observed 5, allowed at least 10"
    ):
        gate(days, name="b", gates_file=own)


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
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"accounting\.parquet.*run clean again"):
        validate(silver, tmp_path / "out")


def test_gate_when_folder_is_empty_then_says_so(tmp_path):
    with pytest.raises(InputError, match="no partition"):
        validate(tmp_path, tmp_path / "out")
