import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from flows.backtest import BacktestParams, thin_days, unseen_days, with_hindsight

DAYS = ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]


def judged(training_days, signal_days=(), dates=DAYS, **params):
    metadata = {"training_days": list(training_days), "signal_spec": {"train_days": list(signal_days)}}
    return unseen_days(metadata, dates, BacktestParams(bundle="b", **params))


def test_backtest_when_no_days_are_asked_for_then_judges_on_all_that_the_bundle_does_not_know():
    assert judged(DAYS[:2]) == DAYS[2:]
    assert judged(DAYS[:1], signal_days=DAYS[:3]) == DAYS[3:]


def test_backtest_when_every_day_is_new_then_the_first_one_tunes_the_baselines():
    assert judged(["2023-12-29"]) == DAYS[1:]
    assert judged([]) == DAYS[1:]
    assert judged([], dates=DAYS[:1]) == DAYS[:1], "one day alone is judged on with baselines that are not tuned"


def test_backtest_when_days_are_asked_for_then_takes_the_last_ones_among_the_unknown():
    assert judged(DAYS[:1], test_days=2) == DAYS[2:]
    assert judged(DAYS[:3], test_days=2) == DAYS[3:]


@pytest.mark.parametrize("known, dates", [(DAYS, DAYS), (DAYS[:1], DAYS[:1]), ([DAYS[0], "2025-01-01"], DAYS)])
def test_backtest_when_no_day_is_left_then_says_which_the_bundle_knows(known, dates):
    with pytest.raises(InputError, match="no day to judge on among 2024-01-02"):
        judged(known, dates=dates)


def test_backtest_when_the_data_end_before_all_that_the_bundle_knows_then_judges_on_them_and_says_so():
    known = {"training_days": ["2025-01-01"]}
    assert judged(["2025-01-01"]) == DAYS[1:]
    assert judged(["2025-01-01"], dates=DAYS[:1]) == DAYS[:1]
    assert with_hindsight(known, DAYS[1:]) and not with_hindsight(known, ["2025-01-02"])
    assert not with_hindsight({"training_days": []}, DAYS)


def test_backtest_when_a_day_traded_less_than_a_parent_then_leaves_it_out(tmp_path):
    partitions = [Partition("GLBX", "ESH4", day) for day in DAYS[:2]]
    for item, lots in zip(partitions, ([0, 0], [150, 60]), strict=True):
        item.folder(tmp_path).mkdir(parents=True)
        pq.write_table(pa.table({"trade_sz": pa.array(lots, pa.int32())}), item.folder(tmp_path) / "book.parquet")
    assert thin_days(tmp_path, partitions, 200) == DAYS[:1]
    assert thin_days(tmp_path, partitions, 211) == DAYS[:2]
    assert thin_days(tmp_path, partitions, None) == []
