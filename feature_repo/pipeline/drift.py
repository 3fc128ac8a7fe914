"""How far a symbol's day lies from the days before it: rows, price level, and the distributions of its events."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.pipeline.book_scan import BINS
from feature_repo.pipeline.gates import Trailing

DISTANCES: dict[str, str] = {
    "size_distance": "size",
    "trade_size_distance": "trade_size",
    "step_distance": "step",
    "spread_distance": "spread",
}
"""Column of the profile table, and the histogram that it compares."""

COLUMNS = ("rows_to_trailing_median", "price_to_trailing_median", *DISTANCES)


class History:
    """The last days of one symbol; give it the days in time order.

    A day that the gate sets aside still counts as history. The medians do not follow one odd day, or two of five, but
    they follow a change that lasts: it is set aside for half the trailing days, and then it is what is usual.
    """

    def __init__(self, trailing: Trailing) -> None:
        """Start without a day."""
        self._trailing = trailing
        self._days: deque[tuple[int, dict[str, NDArray[np.int64]]]] = deque(maxlen=trailing.days)
        self._dates: deque[date] = deque(maxlen=trailing.days)

    def compare(self, day_iso: str, rows: int | None, histograms: dict[str, list[int]]) -> dict[str, float | None]:
        """COLUMNS of a day, None where there is too little to compare with; then the day joins the history."""
        found: dict[str, float | None] = dict.fromkeys(COLUMNS)
        if not rows:
            return found
        today = date.fromisoformat(day_iso)
        while self._dates and (today - self._dates[0]).days > self._trailing.max_age_days:
            self._dates.popleft()
            self._days.popleft()
        day = {name: _padded(counts) for name, counts in histograms.items()}
        if len(self._days) >= self._trailing.min_days:
            found["rows_to_trailing_median"] = rows / float(np.median([known for known, _ in self._days]))
            prices = [price for _, known in self._days if (price := median_value(known["price"]))]
            price = median_value(day["price"])
            if price and len(prices) >= self._trailing.min_days:
                found["price_to_trailing_median"] = price / float(np.median(prices))
            for column, name in DISTANCES.items():
                found[column] = self._distance(name, day[name])
        self._days.append((rows, day))
        self._dates.append(today)
        return found

    def _distance(self, name: str, counts: NDArray[np.int64]) -> float | None:
        least = self._trailing.min_observations
        earlier = [known[name] for _, known in self._days if known[name].sum() >= least]
        if counts.sum() < least or len(earlier) < self._trailing.min_days:
            return None
        return distance(counts, earlier)


def distance(counts: NDArray[np.int64], earlier: Sequence[NDArray[np.int64]]) -> float:
    """Kolmogorov-Smirnov distance, 0 to 1, of a histogram `(B,)` to the pointwise median of the earlier days' ones.

    The median of distribution functions is one itself; unlike the pooled sample it ignores a minority of odd days. The
    distance is an effect size: with a million events a day a test's p-value refuses every day.
    """
    reference = np.median([np.cumsum(known) / known.sum() for known in earlier], axis=0)
    return float(np.abs(np.cumsum(counts) / counts.sum() - reference).max())


def median_value(counts: NDArray[np.int64]) -> float | None:
    """Median of what `book_scan.bins_of` put into bins, in steps within the bin by its share of the count."""
    total = int(counts.sum())
    if not total:
        return None
    below = np.cumsum(counts)
    at = int(np.searchsorted(below, 0.5 * total))
    within = (0.5 * total - (below[at] - counts[at])) / counts[at]
    return float(2.0 ** ((at - 1 + within) / 4.0)) if at else 0.0


def _padded(counts: Any) -> NDArray[np.int64]:
    values = np.zeros(BINS, np.int64)
    values[: len(counts)] = counts
    return values
