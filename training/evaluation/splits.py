"""Which days train and which days test, in time order, and how much time must lie between the two.

A training sample decides at t, looks back over the features' window and forward over its label. A test sample looks
back too. The two share no moment of the market when `t + label + look-back <= test start`: the embargo is the longest
label plus the look-back (the purging and embargo of Lopez de Prado 2018, "Advances in Financial Machine Learning",
chapter 7, for samples that only ever lie before the test).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument


@dataclass(frozen=True)
class Splits:
    """Session dates (ISO) in time order: every training day lies before every test day.

    `validation_days` are the last of the training days: they choose (a checkpoint, a baseline's parameters) and teach
    nothing, except where there is one training day in all, which then does both.
    """

    train_days: tuple[str, ...]
    test_days: tuple[str, ...]
    validation_days: tuple[str, ...] = ()

    @property
    def days(self) -> tuple[str, ...]:
        """All days in time order."""
        return self.train_days + self.test_days

    @property
    def teaching_days(self) -> tuple[str, ...]:
        """Training days that do not validate; all of them where there is only one."""
        rest = tuple(day for day in self.train_days if day not in self.validation_days)
        return rest or self.train_days


def split_days(
    partitions: Iterable[Partition], test_days: int, validation_days: int = 0, all_test: bool = False
) -> Splits:
    """The last `test_days` session dates test, all earlier ones train; whole days, over all instruments alike.

    The last `validation_days` of the training days, fewer where one must be left to teach, validate. With `all_test`
    every day may test, none left to train on.

    Raises InputError where no day is left to train or to test on.
    """
    days = sorted({item.date for item in partitions})
    if test_days < 1:
        raise InputError(f"test_days is {test_days}: at least one day must be held out for the test")
    if not days:
        raise InputError("no session day at all: nothing to train or test on; check the data folder and --from/--to")
    if all_test and test_days == len(days):
        return Splits((), tuple(days))
    if len(days) == 1:
        raise InputError(f"one day {days[0]}: no day left to test on; widen --from/--to")
    if test_days >= len(days):
        raise InputError(
            f"test_days {test_days} leaves no day to train on: there are {len(days)} days, {days[0]} to {days[-1]}; "
            f"hold out {len(days) - 1} or fewer, or widen --from/--to"
        )
    train = tuple(days[:-test_days])
    judging = min(validation_days, max(len(train) - 1, 1))
    return Splits(train, tuple(days[-test_days:]), train[-judging:] if judging > 0 else ())


def embargo_ns(lookback_ns: int, longest_label_ns: int) -> int:
    """Time that must lie between the last training decision and the first test decision; raises InputError below 0."""
    if lookback_ns < 0 or longest_label_ns < 0:
        raise InputError(f"look-back {lookback_ns} ns and label {longest_label_ns} ns must not be negative")
    return lookback_ns + longest_label_ns


def embargo_end_ns(test_start_ns: int, embargo_ns: int) -> int:
    """Last moment at which a training sample may decide: its label and the first test look-back end up apart."""
    return test_start_ns - embargo_ns


def day_start_ns(partitions: Iterable[Partition], instruments: Mapping[str, Instrument], day: str) -> int:
    """First moment of `day`, int64 ns UTC: when the earliest session window of any of its instruments opens.

    A futures trading day starts with the night session, on the evening before. Raises InputError where no partition
    is of that day, or where an instrument is unknown.
    """
    starts = []
    for item in partitions:
        if item.date == day:
            instrument = instruments.get(item.instrument_id)
            if instrument is None:
                raise InputError(f"{item.instrument_id} of {day} is not in instruments.json; run ingest again")
            starts.append(instrument.session_ns(day)[0][0])
    if not starts:
        raise InputError(f"no partition is of day {day}")
    return min(starts)


def last_decision_ns(
    partitions: Iterable[Partition], instruments: Mapping[str, Instrument], first_test_day: str, embargo_ns: int
) -> int:
    """Last moment at which a sample of any earlier day may decide when `first_test_day` is tested, int64 ns UTC."""
    return embargo_end_ns(day_start_ns(partitions, instruments, first_test_day), embargo_ns)
