import pytest

from feature_repo.errors import InputError
from training.evaluation.splits import Splits
from training.signals.config import SignalConfig
from training.signals.walkforward import plan_folds

DAYS = tuple(f"2024-03-{day:02d}" for day in range(4, 12))


def splits(test_days: int) -> Splits:
    return Splits(DAYS[:-test_days], DAYS[-test_days:])


def test_folds_when_refitted_daily_then_each_learns_from_all_earlier_days():
    folds = plan_folds(splits(1), min_train_days=1, refit_days=1)

    assert [fold.forecast_days for fold in folds] == [(day,) for day in DAYS[1:]]
    assert all(fold.train_days == DAYS[: DAYS.index(fold.forecast_days[0])] for fold in folds)


@pytest.mark.parametrize("refit_days", [1, 2, 3, 50])
@pytest.mark.parametrize("test_days", [1, 2, 3])
@pytest.mark.parametrize("min_train_days", [1, 4])
def test_folds_when_test_days_come_then_one_model_of_all_training_days_serves_them(
    refit_days, test_days, min_train_days
):
    folds = plan_folds(splits(test_days), min_train_days, refit_days)

    assert folds[-1].train_days == DAYS[:-test_days]
    assert folds[-1].forecast_days == DAYS[-test_days:]
    forecast = [day for fold in folds for day in fold.forecast_days]
    assert forecast == list(DAYS[min_train_days:])  # every day once, in time order
    assert all(max(fold.train_days) < min(fold.forecast_days) for fold in folds)


def test_folds_when_training_days_are_too_few_then_says_so():
    with pytest.raises(InputError, match="2 training days before 2024-03-06, fewer than min_train_days 3"):
        plan_folds(Splits(DAYS[:2], DAYS[2:3]), min_train_days=3, refit_days=1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"horizons_s": ()}, "at least one horizon"),
        ({"horizons_s": (30, 10)}, "must rise"),
        ({"max_epochs": 0}, "max_epochs is 0: it must be from 1"),
        ({"validation_share": 0.9}, "validation_share is 0.9"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_config_when_a_value_is_out_of_range_then_names_it(setting, message):
    with pytest.raises(InputError, match=message):
        SignalConfig(**setting)


def test_profiles_differ_in_effort_and_tracking_is_no_content():
    assert SignalConfig.quick().max_epochs < SignalConfig.full().max_epochs
    assert SignalConfig(tracking_uri="sqlite:///x.db").as_content() == SignalConfig().as_content()
