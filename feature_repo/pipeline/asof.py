"""The backward as-of join that training uses: the newest value that was known when a decision was taken."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError


def asof_index(
    decision_ns: NDArray[np.int64], feature_ns: NDArray[np.int64], max_age_ns: int | None = None
) -> NDArray[np.int64]:
    """Row of the newest feature stamped at or before each decision, `(n,) int64`; -1 where there is none.

    `feature_ns (m,) int64` must rise; of equal stamps the last row counts. Older than `max_age_ns` is missing.
    Raises InputError where the features are not sorted or the age is negative.
    """
    if np.any(np.diff(feature_ns) < 0):
        row = int(np.flatnonzero(np.diff(feature_ns) < 0)[0]) + 1
        raise InputError(
            f"features are not sorted in time: row {row} is stamped {feature_ns[row]}, before row {row - 1}"
        )
    if max_age_ns is not None and max_age_ns < 0:
        raise InputError(f"max_age_ns is {max_age_ns}, the limit is 0 or more")
    found = np.searchsorted(feature_ns, decision_ns, side="right").astype(np.int64) - 1
    if max_age_ns is not None and len(feature_ns):
        stale = decision_ns - feature_ns[np.maximum(found, 0)] > max_age_ns
        found[stale] = -1
    return found
