"""The ledger of test days: a day opened twice is on record as such."""

from pathlib import Path

import pytest

from flows import ledger
from flows.lake import Lake

DAYS, BUNDLES = ["2024-01-04"], {"agent": "abc"}


@pytest.fixture(autouse=True)
def own_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ledger, "lake", lambda: Lake(tmp_path))
    return tmp_path


def test_ledger_when_a_day_is_opened_by_another_evaluation_then_it_was_opened_before():
    assert ledger.open_test_days("first", ["X:A"], DAYS, BUNDLES) == {DAYS[0]: 0}
    assert ledger.open_test_days("second", ["X:A", "X:B"], DAYS, BUNDLES) == {DAYS[0]: 1}
    assert ledger.open_test_days("third", ["X:A"], ["2024-01-04", "2024-01-05"], BUNDLES) == {
        "2024-01-04": 2,
        "2024-01-05": 0,
    }
    assert [entry["evaluation"] for entry in ledger.read_ledger()] == ["first", "second", "third"]


def test_ledger_when_an_evaluation_is_done_again_then_it_is_written_down_and_says_the_same():
    ledger.open_test_days("first", ["X:A"], DAYS, BUNDLES)
    before = ledger.open_test_days("second", ["X:A"], DAYS, BUNDLES)
    ledger.open_test_days("third", ["X:A"], DAYS, BUNDLES)
    assert ledger.open_test_days("second", ["X:A"], DAYS, BUNDLES) == before == {DAYS[0]: 1}
    assert len(ledger.read_ledger()) == 4


def test_ledger_when_another_instrument_was_tested_on_that_day_then_it_is_fresh():
    ledger.open_test_days("first", ["X:A"], DAYS, BUNDLES)
    assert ledger.open_test_days("second", ["X:B"], DAYS, BUNDLES) == {DAYS[0]: 0}


def test_ledger_when_a_crash_cut_a_line_short_then_the_others_still_count(own_lake: Path):
    ledger.open_test_days("first", ["X:A"], DAYS, BUNDLES)
    with (own_lake / ledger.FILE).open("a") as file:
        file.write('{"evaluation": "cu')
    assert ledger.open_test_days("second", ["X:A"], DAYS, BUNDLES) == {DAYS[0]: 1}
    assert ledger.open_test_days("third", ["X:A"], DAYS, BUNDLES) == {DAYS[0]: 2}
