import pytest
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st
from itch_file import ItchFile, clock


def _day() -> bytes:
    noon = clock("12:00:00")
    day = ItchFile().system("O", clock("03:00:00")).directory(3, "ABC").directory(4, "XYZ")
    day.order(3, "ABC", clock("09:00:00"), 1, "B", 100, 250_000).order(4, "XYZ", noon, 2, "S", 100, 10_000)
    for i in range(10, 25):
        day.order(3, "ABC", noon + i, i, "BS"[i % 2], i, 250_000 + 100 * (2 * (i % 2) - 1)).executed(3, noon + i, i, 2)
        day.replace(3, noon + i, i, 100 + i, 9, 250_000).cancel(3, noon + i, 100 + i, 1).delete(3, noon + i, 100 + i)
    day.hidden(3, "ABC", noon, 5, 250_050).cross(3, "ABC", noon, 5, 250_000).broken(3, noon, 1)
    day.executed_at(3, noon, 1, 5, 249_900).action(3, "ABC", "H", noon).notices(3, "ABC", noon)
    return day.system("C", clock("20:00:00")).content()


FILES = {"01302019.NASDAQ_ITCH50": _day()}


@pytest.mark.parametrize("container", [None, "gzip"])
@FUZZ
@given(data=st.data())
def test_itch_when_a_file_is_damaged_then_events_or_an_error_that_names_it(container, tmp_path, data):
    check_reader_survives("itch", FILES, container=container, tmp=tmp_path, data=data)
