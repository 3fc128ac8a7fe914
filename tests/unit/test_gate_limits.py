"""The gate's limits: the platform's file is whole, an own file lies over it, and a wrong one is refused by name."""

import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.feature_gate import FEATURE_COLUMNS
from feature_repo.pipeline.gates import QUARANTINE, STOP, load_gates
from feature_repo.pipeline.profiling import DATASETS
from feature_repo.pipeline.suites import PROFILE_COLUMNS


def own(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def limits(gates, partition, dataset="quotes"):
    return {limit.column: limit for limit in gates.limits(gates.scope(partition), dataset)}


def test_gates_when_loaded_then_every_limit_is_of_a_column_and_says_why():
    gates = load_gates()
    overrides = [limit for part in (gates.venues, gates.instruments) for own in part.values() for limit in own.values()]
    for limit in [*gates.expectations.values(), *overrides]:
        assert limit.reason and limit.severity in (STOP, QUARANTINE)
    # no figure is taken and not judged, and none judged that is not taken
    judged = {name for name, limit in gates.expectations.items() if "features" not in limit.datasets}
    assert judged | {"partition", "dataset", "schema_problem", "book_fault"} == set(PROFILE_COLUMNS)
    judged = {limit.column for limit in gates.limits("NOWHERE", "features")}
    assert judged | {"partition", "schema_problem", "rows", "where"} == set(FEATURE_COLUMNS)
    assert all(gates.limits("NOWHERE", dataset) for dataset in DATASETS)


def test_gates_when_venue_is_unknown_then_the_strict_defaults_hold():
    gates = load_gates()
    unknown, known = limits(gates, Partition("NEW", "X", "2024-01-02")), limits(gates, Partition("FXCM", "EURUSD", "x"))
    assert unknown["crossed_share"].max == gates.expectations["crossed_share"].max < known["crossed_share"].max
    assert unknown["session_coverage"] == known["session_coverage"]
    assert "holes" not in unknown and "holes" in limits(gates, Partition("NEW", "X", "x"), "depth")


def test_gates_when_an_own_file_is_given_then_it_lies_over_the_platforms_key_by_key(tmp_path):
    path = own(
        tmp_path,
        "trailing: {days: 20}\n"
        "lawful_rules: []\n"
        "expectations: {rows: {min: 5}}\n"
        "venues: {FXCM: {rows: {max: 9, severity: stop, reason: r}}}\n"
        "instruments: {'FXCM:EURUSD': {rows: {max: 7, reason: s}}}\n",
    )
    gates, default = load_gates(path), load_gates()
    assert gates.trailing.days == 20 and gates.trailing.min_days == default.trailing.min_days
    assert gates.lawful_rules == frozenset()
    rows = limits(gates, Partition("FXCM", "EURUSD", "x"))["rows"]
    assert (rows.min, rows.max, rows.severity, rows.reason) == (5, 7, STOP, "s")
    assert limits(gates, Partition("FXCM", "USDJPY", "x"))["rows"].max == 9
    other = limits(gates, Partition("US", "AIG", "x"))
    assert (other["rows"].min, other["rows"].max) == (5, None)
    assert limits(gates, Partition("FXCM", "EURUSD", "x"))["crossed_share"] == default.venues["FXCM"]["crossed_share"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds list, wanted a mapping"),
        ("venues: [", "not a readable YAML file of gates"),
        ("\x00", "not a readable YAML file of gates"),
        ("limits: {}", "section 'limits' is unknown; sections: trailing, sample"),
        ("venues: 3", "section 'venues' holds 3, wanted a mapping"),
        ("expectations: {rowz: {min: 1}}", "expectations.rowz is unknown; there are: nulls"),
        ("expectations: {rows: 3}", "expectations.rows holds 3"),
        ("expectations: {rows: {least: 3}}", "expectations.rows.least is unknown; keys: min, max"),
        ("expectations: {rows: {min: many}}", "expectations.rows.min is 'many', wanted a number"),
        ("expectations: {rows: {min: .nan}}", "expectations.rows.min is nan, wanted a number"),
        ("expectations: {rows: {min: true}}", "expectations.rows.min is True, wanted a number"),
        ("expectations: {rows: {min: null}}", "expectations.rows has neither min nor max"),
        ("expectations: {rows: {min: 9, max: 3}}", "expectations.rows: min 9 exceeds max 3"),
        ("expectations: {rows: {severity: warn}}", "severity is 'warn', wanted stop or quarantine"),
        ("expectations: {rows: {datasets: [candles]}}", r"datasets is \['candles'\], wanted some of depth, features"),
        ("venues: {V: {rows: {min: 3}}}", "venues.V.rows gives no reason"),
        ("venues: {V: {rowz: {min: 3, reason: r}}}", "venues.V.rowz is no expectation"),
        ("venues: {V: 3}", "venues.V holds 3, wanted a mapping"),
        ("instruments: {V: {}}", "instruments.V: not of the form VENUE:SYMBOL"),
        ("trailing: {days: 0}", "trailing.days is 0, wanted a whole number from 1 on"),
        ("trailing: {weeks: 2}", "section 'trailing' holds .*weeks; wanted days, min_days"),
        ("trailing: {days: 1}", "trailing.min_days is 2, more than trailing.days 1"),
        ("lawful_rules: all", "lawful_rules 'all' is no list"),
    ],
)
def test_gates_when_an_own_file_is_wrong_then_names_file_key_and_what_is_allowed(tmp_path, text, message):
    path = own(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_gates(path)
    assert str(path) in str(caught.value)


def test_gates_when_an_own_file_is_absent_then_says_so(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: not a readable YAML file"):
        load_gates(tmp_path / "none.yaml")
