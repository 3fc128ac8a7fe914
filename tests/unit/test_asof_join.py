"""The as-of join never looks ahead and finds the newest value that was known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.pipeline.asof import asof_index

TIMES = st.lists(st.integers(0, 50), max_size=30)


def slow(decision: int, features: list[int], max_age: int | None) -> int:
    best = -1
    for row, stamp in enumerate(features):
        if stamp <= decision and (max_age is None or decision - stamp <= max_age):
            best = row
    return best


@given(TIMES, TIMES.map(sorted), st.none() | st.integers(0, 20))
def test_asof_when_compared_with_a_slow_search_then_agrees_and_never_looks_ahead(decisions, features, max_age):
    found = asof_index(np.array(decisions, np.int64), np.array(features, np.int64), max_age)
    assert found.tolist() == [slow(decision, features, max_age) for decision in decisions]
    for decision, row in zip(decisions, found, strict=True):
        assert row == -1 or features[row] <= decision


def test_asof_when_features_are_not_sorted_then_names_the_row():
    with pytest.raises(InputError, match="row 2 is stamped 3"):
        asof_index(np.array([1]), np.array([1, 5, 3]))


def test_asof_when_age_is_negative_then_refuses():
    with pytest.raises(InputError, match="max_age_ns is -1"):
        asof_index(np.array([1]), np.array([1]), -1)
