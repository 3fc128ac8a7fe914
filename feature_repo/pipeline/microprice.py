"""The microprice of Stoikov (2018): where the mid is expected to settle, given queue imbalance and spread.

"The micro-price: a high-frequency estimator of future prices", Quantitative Finance 18(12). The book's state x is an
imbalance bucket and a spread in ticks; the adjustment is G* = sum over k of B^k G1 with G1 = (1 - Q)^-1 R K and
B = (1 - Q)^-1 T : Q moves between states while the mid stands, R K is the mean first move of the mid, T
the state after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book

IMBALANCE_BUCKETS, SPREADS = 10, 5
MAX_GAP_NS = 10_000_000_000
"""Two rows further apart are no transition: a break, a halt or a hole lies between them."""
LONGEST_MOVE_TICKS = 5.0
"""Larger moves of the mid between two rows are no transition of the small-tick chain, but a jump."""
MAX_STEPS = 1_000
TOLERANCE_TICKS = 1e-9


@dataclass(frozen=True)
class MicropriceTable:
    """`adjustment (I, S) float64`: microprice - mid in ticks by bucket of qb / (qb + qa) and spread 1..S ticks.

    Wider spreads read the last column. It is antisymmetric: buckets i and I - 1 - i differ in sign alone.
    """

    adjustment: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = self.adjustment.shape
        if self.adjustment.dtype != np.float64 or len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
            raise InputError(f"a microprice table is (I >= 2, S >= 1) float64, got {shape} {self.adjustment.dtype}")
        if not np.isfinite(self.adjustment).all():
            raise InputError("a microprice table holds values that are not finite; fit it again")


def default_table(buckets: int = IMBALANCE_BUCKETS, spreads: int = SPREADS) -> MicropriceTable:
    """The weighted mid at the bucket centres: (I - 1/2) times the spread; in force where nothing has been fitted."""
    share = (np.arange(buckets) + 0.5) / buckets - 0.5
    return MicropriceTable(share[:, None] * np.arange(1, spreads + 1, dtype=np.float64))


def fit_microprice(books: Sequence[Book], buckets: int = IMBALANCE_BUCKETS, spreads: int = SPREADS) -> MicropriceTable:
    """Estimate the table from books, which must be of days earlier than those it is used on.

    Every transition counts twice, as it was and mirrored, which makes the estimate antisymmetric and the sum converge
    (Stoikov 2018, section 3). Each state gets one further transition that ends the chain, so that a state hardly ever
    seen adjusts little. Raises InputError where the books hold no transition between two-sided rows.
    """
    states = buckets * spreads
    stay, move = np.zeros((states, states)), np.zeros((states, states))
    jump = np.zeros(states)
    for book in books:
        before, after, change = _transitions(book, buckets, spreads)
        moved = change != 0.0
        mirrored = (_mirror(before, buckets, spreads), _mirror(after, buckets, spreads), -1.0)
        for one, other, sign in ((before, after, 1.0), mirrored):
            stay += _count(one[~moved], other[~moved], states)
            move += _count(one[moved], other[moved], states)
            jump += sign * np.bincount(one, weights=change, minlength=states)
    if not (stay.any() or move.any()):
        raise InputError("no two rows with two-sided books follow each other: give books of earlier days")
    weight = stay.sum(axis=1) + move.sum(axis=1) + 1.0
    first = np.eye(states) - stay / weight[:, None]
    step = np.linalg.solve(first, np.column_stack([jump / weight, move / weight[:, None]]))
    adjustment, further = step[:, 0].copy(), step[:, 0]
    for _ in range(MAX_STEPS):
        further = step[:, 1:] @ further
        adjustment += further
        if np.abs(further).max() < TOLERANCE_TICKS:
            break
    table = adjustment.reshape(buckets, spreads)
    return MicropriceTable(0.5 * (table - table[::-1]))  # rounding of the solver apart, this changes nothing


def _transitions(
    book: Book, buckets: int, spreads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """States before and after each change of the best `(n,) int64`, and the mid's change `(n,) float64` in ticks."""
    bid, ask = book.bid_px[:, 0].astype(np.int64), book.ask_px[:, 0].astype(np.int64)
    qb, qa = book.bid_sz[:, 0].astype(np.float64), book.ask_sz[:, 0].astype(np.float64)
    good = book.two_sided
    share = qb / np.where(good, qb + qa, 1.0)
    bucket = np.minimum((share * buckets).astype(np.int64), buckets - 1)
    state = bucket * spreads + np.clip(ask - bid, 1, spreads) - 1
    change = 0.5 * np.diff((bid + ask).astype(np.float64))
    same = (np.diff(bid) == 0) & (np.diff(ask) == 0) & (np.diff(qb) == 0.0) & (np.diff(qa) == 0.0)
    use = good[1:] & good[:-1] & ~same & (np.diff(book.ts_ns) <= MAX_GAP_NS) & (np.abs(change) <= LONGEST_MOVE_TICKS)
    return state[:-1][use], state[1:][use], change[use]


def _mirror(state: NDArray[np.int64], buckets: int, spreads: int) -> NDArray[np.int64]:
    """The state in a market whose bids and asks change places."""
    return (buckets - 1 - state // spreads) * spreads + state % spreads


def _count(before: NDArray[np.int64], after: NDArray[np.int64], states: int) -> NDArray[np.float64]:
    pairs = np.bincount(before * states + after, minlength=states * states)
    return pairs.reshape(states, states).astype(np.float64)
