import numpy as np
import pytest

from feature_repo.pipeline.books import Book
from training.signals.dataset import consecutive_valid, mid_moves_bps, mid_ticks, window_numbers

NS = 1_000_000_000


def seconds(*values: float) -> np.ndarray:
    return np.array([int(value * NS) for value in values], dtype=np.int64)


def test_move_is_from_last_book_row_at_or_before_each_end():
    book = seconds(100, 104.5, 105, 105, 110.2)
    mids = np.array([1000.0, 1001.0, 1002.0, 1003.0, 990.0])

    found = mid_moves_bps(seconds(100, 105), book, mids, [(100 * NS, 200 * NS)], [5, 10])

    # At 105 s two rows share the time stamp: the last of them is the state; the row at 110.2 s is later than 110 s.
    np.testing.assert_allclose(found[0], [30.0, 30.0], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.0, 1e4 * (990 / 1003 - 1)], rtol=1e-5)


def test_move_when_it_would_end_after_its_window_then_is_missing():
    book, mids = seconds(100, 300), np.array([1000.0, 1100.0])
    spans = [(100 * NS, 120 * NS), (300 * NS, 400 * NS)]

    found = mid_moves_bps(seconds(110, 111, 300), book, mids, spans, [10])

    assert found[0, 0] == 0.0  # ends exactly at the close
    assert np.isnan(found[1, 0])
    assert found[2, 0] == 0.0  # the second window starts from its own book


def test_move_when_window_has_no_book_row_yet_then_is_missing():
    book, mids = seconds(50, 105), np.array([900.0, 1000.0])

    found = mid_moves_bps(seconds(101, 106), book, mids, [(100 * NS, 200 * NS)], [1])

    assert np.isnan(found[0, 0])  # the row at 50 s is of no window
    assert found[1, 0] == 0.0


def test_move_when_an_end_has_no_mid_then_is_missing():
    book, mids = seconds(100, 103), np.array([1000.0, np.nan])

    found = mid_moves_bps(seconds(100, 102, 104), book, mids, [(100 * NS, 200 * NS)], [1, 5])

    np.testing.assert_array_equal(np.isnan(found), [[False, True], [True, True], [True, True]])


def test_mid_when_a_side_is_empty_or_book_is_locked_or_crossed_then_is_missing():
    bid, ask = [10, 10, 10, 11, 12, 0], [11, 0, 11, 11, 11, 2]
    bid_size, ask_size = [1, 1, 0, 1, 1, 0], [1, 0, 1, 1, 1, 1]
    levels = (np.array(column, np.int32)[:, None] for column in (bid, bid_size, ask, ask_size))
    book = Book(seconds(*range(6)), *levels, np.zeros(6, np.int32), np.zeros(6, np.int32), np.zeros(6, np.int8))

    np.testing.assert_array_equal(mid_ticks(book), [10.5] + [np.nan] * 5)


def test_window_numbers_when_outside_all_windows_then_minus_one():
    found = window_numbers(seconds(5, 10, 20, 25, 30), [(10 * NS, 20 * NS), (30 * NS, 40 * NS)])

    assert found.tolist() == [-1, 0, 0, -1, 1]


@pytest.mark.parametrize(
    ("times", "valid", "numbers", "expected"),
    [
        ([0, 1, 2, 3], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]),
        ([0, 1, 3, 4, 5], [1, 1, 1, 1, 1], [0] * 5, [0, 0, 0, 0, 1]),  # a second is missing
        ([0, 1, 2, 3, 4], [1, 0, 1, 1, 1], [0] * 5, [0, 0, 0, 0, 1]),  # a row is not valid
        ([0, 1, 2, 3, 4], [1] * 5, [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]),  # another session window starts
        ([0, 1, 2], [1, 1, 1], [-1, -1, -1], [0, 0, 0]),  # no session window
    ],
)
def test_forecastable_needs_a_run_of_valid_seconds_of_one_window(times, valid, numbers, expected):
    found = consecutive_valid(seconds(*times), np.array(valid, bool), np.array(numbers), window=3)

    assert found.astype(int).tolist() == expected


def test_forecastable_when_there_is_no_row_then_is_empty():
    assert len(consecutive_valid(seconds(), np.zeros(0, bool), np.zeros(0, np.int64), window=3)) == 0
