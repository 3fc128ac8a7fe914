"""The gate on features: computed ones pass; values, stamps and columns that no definition gives stop the run."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_books import OPEN, random_book

from feature_repo.errors import GateFailedError, InputError
from feature_repo.lake import Partition
from feature_repo.parts import Parts
from feature_repo.pipeline import feature_gate
from feature_repo.pipeline.definitions import DEFINITIONS
from feature_repo.pipeline.feature_gate import lowest_and_highest, validate_features
from feature_repo.pipeline.kernels import FEATURES, compute_features
from feature_repo.ticks.instruments import Instrument, SessionWindow, save_instruments

INSTRUMENT = Instrument("V", "S", 0.01, 1, "USD", "UTC", (SessionWindow("10:00:00", "10:10:00"),), 3, False, 1)
DAYS = ("2024-01-02", "2024-01-03")


def features_of(date: str, seed: int) -> pa.Table:
    windows = INSTRUMENT.session_ns(date)
    book = random_book(seed, 600)
    book = type(book)(book.ts_ns + (windows[0][0] - OPEN), *list(vars(book).values())[1:])
    ts_ns, values, valid = compute_features(book, windows)
    columns = {
        "event_timestamp": pa.array(ts_ns // 1000, pa.timestamp("us", tz="UTC")),
        "ts_ns": ts_ns,
        "instrument_id": pa.array(["V:S"] * len(ts_ns)),
    }
    columns |= {name: np.ascontiguousarray(values[:, at]) for at, name in enumerate(FEATURES)}
    return pa.table({**columns, "book_valid": valid})


@pytest.fixture(scope="module")
def days() -> dict[str, pa.Table]:
    return {date: features_of(date, seed) for seed, date in enumerate(DAYS)}


def run(tmp_path: Path, days: dict[str, pa.Table], **options) -> tuple[dict, dict]:
    root, out = tmp_path / "features", tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    for date, table in days.items():
        folder = Partition("V", "S", date).folder(root)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / "features.parquet")
    save_instruments([INSTRUMENT], root)
    out.mkdir()
    summary = validate_features(root, out, **options)
    return summary, json.loads((out / "validation.json").read_text())


def replaced(table: pa.Table, name: str, row: int, value) -> pa.Table:
    values = table[name].to_numpy().copy()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


def test_gate_when_features_are_computed_then_every_value_is_within_its_definition(tmp_path, days, monkeypatch):
    profiled = []
    genuine = feature_gate._profile
    monkeypatch.setattr(feature_gate, "_profile", lambda *args: profiled.append(args) or genuine(*args))
    parts = Parts(tmp_path / "parts")
    summary, report = run(tmp_path, days, parts=parts)
    assert summary["success"] and summary["excluded"] == [] and summary["partitions"] == 2 == len(profiled)
    assert {row["grid_share"] for row in report["partitions"]} == {1.0}
    assert all(row["book_valid_share"] > 0.9 for row in report["partitions"])
    assert run(tmp_path, days, parts=parts)[1] == report and len(profiled) == 2
    tenth = days[DAYS[0]]["rv_60s"].to_numpy()
    assert tenth.max() > 0  # the features of the fixture are no zeros


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: replaced(t, "rv_60s", 5, np.nan), r"not_finite failed in V:S 2024-01-03: observed 1.*at most 0"),
        (lambda t: replaced(t, "ofi_1s", 5, np.inf), "not_finite failed"),
        (lambda t: replaced(t, "imbalance_l1", 5, -1.01), r"out_of_range failed in V:S 2024-01-03: observed 1"),
        (lambda t: replaced(t, "rv_10s", 5, -0.5), "out_of_range failed"),
        (lambda t: replaced(t, "time_of_day", 5, 1.5), "out_of_range failed"),
        (lambda t: t.take([*range(6), 5, *range(7, t.num_rows)]), "stamps_not_rising failed"),
        (lambda t: t.slice(0, 599), r"grid_share failed .*observed 0\.998"),
        (lambda t: t.drop_columns(["rv_60s"]), "schema_problem failed .*rv_60s is missing"),
        (
            lambda t: t.set_column(t.column_names.index("rv_60s"), "rv_60s", pa.array([None] * len(t), pa.float32())),
            "empty_values failed .*observed 600",
        ),
        (lambda t: t.slice(0, 0), "rows failed .*observed 0"),
    ],
)
def test_gate_when_a_feature_is_not_of_its_definition_then_stops_the_run_by_name(tmp_path, days, spoil, message):
    with pytest.raises(GateFailedError, match=message):
        run(tmp_path, {**days, DAYS[1]: spoil(days[DAYS[1]])})


def test_gate_when_a_value_is_out_of_range_then_the_report_names_the_feature(tmp_path, days):
    with pytest.raises(GateFailedError):
        run(tmp_path, {**days, DAYS[1]: replaced(days[DAYS[1]], "imbalance_l1", 5, -1.01)})
    (report,) = tmp_path.glob("out*/validation.json")
    assert [row["where"] for row in json.loads(report.read_text())["partitions"]] == ["", "imbalance_l1"]


def test_gate_when_a_day_has_hardly_a_book_then_sets_it_aside(tmp_path, days):
    table = days[DAYS[1]]
    valid = pa.array(np.arange(len(table)) < 200).cast(pa.int8())
    table = table.set_column(table.column_names.index("book_valid"), "book_valid", valid)
    summary, _ = run(tmp_path, {**days, DAYS[1]: table})
    wanted = {"venue": "V", "symbol": "S", "date": DAYS[1], "expectation": "book_valid_share", "rows": 600}
    assert summary["success"] and summary["excluded"] == [wanted]


def test_gate_when_the_folder_holds_no_features_then_says_so(tmp_path):
    with pytest.raises(InputError, match=r"no features\.parquet below it"):
        validate_features(tmp_path, tmp_path / "out")


def test_ranges_when_read_off_the_definitions_then_signed_shares_are_even_and_rates_not_negative():
    found = {feature.name: lowest_and_highest(feature) for feature in DEFINITIONS}
    share = pytest.approx(1, abs=1e-4)
    assert found["imbalance_l1"] == (pytest.approx(-1, abs=1e-4), share) and found["vpin"] == (0, share)
    assert found["rv_10s"] == (0, np.inf) and found["return_10s"] == (-np.inf, np.inf)
    assert found["kyle_lambda_60s"] == (-np.inf, np.inf) and found["volume_curve_known"] == (0, share)
