import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, SessionWindow
from training.evaluation.splits import Splits, day_start_ns, embargo_end_ns, embargo_ns, last_decision_ns, split_days

NS = 1_000_000_000


def partitions(*dates: str, symbol: str = "AAA") -> list[Partition]:
    return [Partition("SIM", symbol, date) for date in dates]


def instrument(*windows: SessionWindow, zone: str = "UTC", symbol: str = "AAA") -> Instrument:
    return Instrument("SIM", symbol, 0.01, 1, "USD", zone, windows, 5, False, 10_000_000)


def test_split_when_days_are_shuffled_then_last_in_time_test():
    found = split_days(partitions("2024-03-06", "2024-03-04", "2024-03-05"), 1)

    assert found == Splits(("2024-03-04", "2024-03-05"), ("2024-03-06",))
    assert found.days == ("2024-03-04", "2024-03-05", "2024-03-06")


def test_split_when_days_validate_then_they_are_the_last_of_the_training_days():
    days = partitions("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07")

    found = split_days(days, 1, validation_days=1)

    assert found.train_days == ("2024-03-04", "2024-03-05", "2024-03-06")
    assert found.validation_days == ("2024-03-06",) and found.test_days == ("2024-03-07",)
    assert found.teaching_days == ("2024-03-04", "2024-03-05")
    assert split_days(days, 1, validation_days=9).teaching_days == ("2024-03-04",)


def test_split_when_one_day_is_left_to_train_then_it_teaches_and_validates():
    found = split_days(partitions("2024-03-04", "2024-03-05"), 1, validation_days=1)

    assert found.validation_days == found.teaching_days == ("2024-03-04",)


def test_split_when_two_symbols_share_days_then_each_day_counts_once():
    both = partitions("2024-03-04", "2024-03-05") + partitions("2024-03-05", "2024-03-06", symbol="BBB")

    assert split_days(both, 2) == Splits(("2024-03-04",), ("2024-03-05", "2024-03-06"))


def test_split_when_there_is_one_day_then_says_how_to_get_another():
    with pytest.raises(InputError) as caught:
        split_days(partitions("2013-10-07"), 1)

    assert str(caught.value) == "one day 2013-10-07: no day left to test on; widen --from/--to"


def test_split_when_all_days_are_held_out_then_names_the_limit():
    with pytest.raises(
        InputError, match="test_days 3 leaves no day to train on: there are 3 days.*hold out 2 or fewer"
    ):
        split_days(partitions("2024-03-04", "2024-03-05", "2024-03-06"), 3)


@pytest.mark.parametrize("count", [0, -1])
def test_split_when_no_day_is_held_out_then_is_refused(count):
    with pytest.raises(InputError, match=f"test_days is {count}"):
        split_days(partitions("2024-03-04", "2024-03-05"), count)


def test_split_when_there_is_no_day_then_is_refused():
    with pytest.raises(InputError, match="no session day at all"):
        split_days([], 1)


def test_embargo_is_look_back_plus_longest_label():
    assert embargo_ns(300 * NS, 60 * NS) == 360 * NS
    assert embargo_end_ns(1_000 * NS, 360 * NS) == 640 * NS
    with pytest.raises(InputError, match="must not be negative"):
        embargo_ns(-1, 0)


def test_day_start_when_a_night_session_opens_the_trading_day_then_is_the_evening_before():
    night = SessionWindow("21:00:00", "23:00:00", days_before=1)
    rebar = instrument(SessionWindow("09:00:00", "15:00:00"), night, zone="Asia/Shanghai")
    days = partitions("2024-03-04", "2024-03-05")  # Monday and Tuesday

    start = day_start_ns(days, {rebar.instrument_id: rebar}, "2024-03-05")

    assert start == rebar.session_ns("2024-03-05")[0][0]
    assert rebar.session_ns("2024-03-04")[-1][1] < start < rebar.session_ns("2024-03-05")[1][0]


def test_last_decision_when_two_instruments_open_apart_then_the_earlier_counts():
    early = instrument(SessionWindow("08:00:00", "16:00:00"))
    late = instrument(SessionWindow("10:00:00", "16:00:00"), symbol="BBB")
    days = partitions("2024-03-04", "2024-03-05") + partitions("2024-03-05", symbol="BBB")
    known = {item.instrument_id: item for item in (early, late)}

    found = last_decision_ns(days, known, "2024-03-05", 360 * NS)

    assert found == early.session_ns("2024-03-05")[0][0] - 360 * NS


def test_day_start_when_day_or_instrument_is_unknown_then_is_refused():
    with pytest.raises(InputError, match="no partition is of day 2024-03-09"):
        day_start_ns(partitions("2024-03-04"), {}, "2024-03-09")
    with pytest.raises(InputError, match="SIM:AAA of 2024-03-04 is not in instruments.json"):
        day_start_ns(partitions("2024-03-04"), {}, "2024-03-04")
