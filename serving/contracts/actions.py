"""What an action asks of the venue: the discrete and the continuous set as orders, shared by training and serving.

An order here is `(rest_px, rest_lots, cross_lots)`: what shall rest after it, and what is taken at once from the
visible book (IOC, no price limit). All three 0 cancels what rests. Integers in ticks and lots; both sets are mirror
symmetric.
"""

import numpy as np
from numba import njit

from serving.contracts.observation import CROSS, IMPROVE, WAIT, action_allowed

ACTION_SETS = ("discrete", "continuous")
CONTINUOUS_NAMES = ("share", "aggressiveness")
CONTINUOUS_LOW, CONTINUOUS_HIGH = -1.0, 1.0

CROSS_FROM = 0.5
"""Aggressiveness from which the lots are taken at once instead of resting."""
BEHIND_TICKS = 4
"""Ticks behind the own best price at which aggressiveness -1 rests."""


@njit(cache=True)
def discrete_order(
    action: int, side: int, due: int, own_px: int, own_sz: int, opp_px: int, opp_sz: int, rest_px: int, rest_lots: int,
    wait_keeps: bool = False,
) -> tuple[int, int, int, bool]:  # fmt: skip
    """The order of a discrete action, and whether the action was impossible and played as WAIT.

    WAIT cancels what rests, or leaves it as it stands with `wait_keeps`; PLACE rests the `due` lots at the own best
    price, IMPROVE one tick inside the spread, CROSS takes them. The best price is that of the others: an own order that
    rests alone at a better one is the best there is, and PLACE leaves it where it is instead of giving up the front of
    the queue.
    """
    possible = action_allowed(action, due, own_px, own_sz, opp_px, opp_sz)
    if not possible or action == WAIT:
        return (rest_px, rest_lots, 0, not possible) if wait_keeps and rest_lots > 0 else (0, 0, 0, not possible)
    if action == CROSS:
        return 0, 0, due, False
    if action == IMPROVE:
        return own_px + side, due, 0, False
    alone = rest_lots > 0 and side * (rest_px - own_px) > 0
    return (rest_px if alone else own_px), due, 0, False


@njit(cache=True)
def continuous_order(
    share: float, aggressiveness: float, side: int, due: int, own_px: int, own_sz: int, opp_px: int, opp_sz: int
) -> tuple[int, int, int, bool]:
    """The order of a continuous action, and whether it had to be clamped to what is possible.

    | value | meaning |
    | --- | --- |
    | share -1 .. 1 | lots = (share + 1) / 2 of the lots due, rounded to the nearest; 0 lots cancel what rests |
    | aggressiveness -1 .. 0 | rest BEHIND_TICKS x -aggressiveness ticks, rounded, behind the own best price |
    | 0 .. CROSS_FROM | rest inside the spread: aggressiveness / CROSS_FROM of its ticks, rounded down |
    | CROSS_FROM .. 1 | take the lots at once |

    Clamped: a value beyond its bounds goes to the bound; one that is not a number cancels; crossing with nobody
    opposite rests at the own best price; resting with an empty own side cancels. A price never falls below one tick.
    """
    if np.isnan(share) or np.isnan(aggressiveness):
        return 0, 0, 0, True
    clamped = max(abs(share), abs(aggressiveness)) > CONTINUOUS_HIGH
    share = min(max(share, CONTINUOUS_LOW), CONTINUOUS_HIGH)
    aggressiveness = min(max(aggressiveness, CONTINUOUS_LOW), CONTINUOUS_HIGH)
    lots = int(np.floor(due * (share + 1.0) / 2.0 + 0.5))
    if lots <= 0:
        return 0, 0, 0, clamped
    if aggressiveness >= CROSS_FROM:
        if opp_sz > 0:
            return 0, 0, lots, clamped
        aggressiveness, clamped = 0.0, True
    if own_sz <= 0:
        return 0, 0, 0, True
    if aggressiveness < 0.0:
        ticks = -int(np.floor(0.5 - BEHIND_TICKS * aggressiveness))
    else:
        spread = side * (opp_px - own_px) if opp_sz > 0 else 0
        ticks = max(0, min(int(np.floor(spread * aggressiveness / CROSS_FROM)), spread - 1))
    return max(1, own_px + side * ticks), lots, 0, clamped
