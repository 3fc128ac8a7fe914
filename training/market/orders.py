"""The plain layouts that the market engine works on: messages, episodes, parents, fills. Integers throughout."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError


class FillKind(IntEnum):
    """How lots were filled (stored as int8)."""

    PASSIVE = 1  # a resting order of ours was met
    AGGRESSIVE = 2  # we took displayed lots, or asked for more than was displayed
    FORCED = 3  # the sweep that completes a parent at its horizon


FILL_MODELS = ("conservative", "expected", "optimistic", "fifo")
"""How an own resting order moves up in its queue; `resting` says how each does."""

TAKEN_CAPACITY = 64
"""Price levels per episode whose taken lots are remembered; levels that the market left free their place."""

PARENT_DTYPE = np.dtype(
    [
        ("day", np.int64),  # index into the list of days
        ("side", np.int64),  # 1 buys, -1 sells
        ("lots", np.int64),
        ("start_ns", np.int64),
        ("horizon_ns", np.int64),
    ]
)
"""Parent orders as rows, the form in which samplers, engine and results exchange them."""

INSTRUCTION_DTYPE = np.dtype(
    [
        ("send", np.int64),  # 0: send nothing, a resting order stays as it is
        ("rest_px", np.int64),  # price in ticks of the order that shall rest after this instruction
        ("rest_lots", np.int64),  # its lots; 0: nothing rests (an order that rests now is cancelled)
        ("cross_lots", np.int64),  # lots to take at once from the opposite side before the rest is placed
        ("beyond", np.int64),  # 1: what the visible book lacks is taken from the documented extrapolation
    ]
)
"""One message to the venue: cancel/replace the resting order and, where `cross_lots` > 0, an IOC with it."""


def checked_instructions(instructions: NDArray[np.void]) -> NDArray[np.void]:
    """INSTRUCTION_DTYPE `(N,)` as the kernels read it; InputError for negative lots or a resting price below a tick."""
    rows = np.ascontiguousarray(instructions, dtype=INSTRUCTION_DTYPE)
    bad = (rows["rest_lots"] < 0) | (rows["cross_lots"] < 0) | ((rows["rest_lots"] > 0) & (rows["rest_px"] < 1))
    bad &= rows["send"] == 1
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"message {i}: rest {rows['rest_lots'][i]} lots at {rows['rest_px'][i]} ticks, cross "
            f"{rows['cross_lots'][i]}: lots must not be negative, a price is 1 tick at least"
        )
    return rows


EPISODE_DTYPE = np.dtype(
    [
        (name, np.int64)
        for name in (
            # the parent and where its day lies on the tape
            *("day", "side", "lots", "start_ns", "end_ns"),
            "close_ns",  # end of its session window: nothing is played from there on
            *("row", "row_lo", "row_hi", "latency_ns", "next_row_arrival"),
            # its place among the episodes; 1 where its market reacts to own trades; ticks by which the book has moved
            # (`reaction`): rest_px and the ledger of taken lots are in the book's prices, all else has the shift in it
            *("slot", "reacts", "shift"),
            "arrival_mid2",  # twice the mid at arrival, ticks
            # accounts: lots, and sums of price_ticks * lots
            *("filled", "passive_lots", "aggressive_lots", "forced_lots", "extrapolated_lots"),
            *("passive_cost", "aggressive_cost", "forced_cost"),
            # parts of the shortfall, sums of half ticks * lots: their total is 2 * side * (price - arrival) * lots
            *("spread2", "timing2", "impact2"),
            "orders",  # messages that placed or replaced an order
            "refused",  # messages that met a halt or an unknown book
            # divergence from history, lots: of historical executions that our resting order got in place of others, of
            # displayed lots that crossed it, of historical executions that wanted lots which we had taken
            *("made_lots", "met_lots", "rerouted_lots"),
            # what rests, all at one price; rest_lots 0: nothing. Its last back_lots were added later, behind more queue
            *("rest_px", "rest_lots", "rest_ahead", "back_lots", "back_ahead"),
            *("rest_part", "back_part"),  # 2^-16 lots that the queue ahead is shorter than rest_ahead, back_ahead
            *("rest_ns", "back_ns"),  # when they joined
            *("rest_shown", "rest_unseen"),  # displayed there (-1: not visible), lots traded there since that changed
            "waits",  # 1: the book is unknown, what rests joins again when it stands
            "leaf",  # the next leaf of the day that what rests has not met
            # the message in flight; pend_ns 0: none
            *("pend_ns", "pend_rest_px", "pend_rest_lots", "pend_cross_lots", "pend_beyond", "pend_forced"),
            "pend_filled",  # lots filled passively while it was in flight
            "taken_count",  # used entries of this episode's ledger of taken lots
            *("step", "masked", "done", "record"),
            *("now_ns", "feature"),  # the decision's time; the feature row in force then, feature_lo - 1: none
        )
    ]
    + [("mark_bps", np.float64), ("penalty", np.float64), ("last_mid2", np.int64)],
    align=True,
)
"""One episode: a parent at work. `engine` alone writes it; environments add step, masked, done, now_ns, feature,
mark_bps and penalty."""

FILL_DTYPE = np.dtype(
    [
        ("episode", np.int64),
        ("ts_ns", np.int64),
        ("price_ticks", np.int64),
        ("lots", np.int64),
        ("kind", np.int64),  # FillKind
    ]
)
"""One fill, kept for episodes whose `record` is 1."""
