"""What a parent order cost, from its fills: the sums and the parts that training, evaluation and serving report alike.

Implementation shortfall (Perold 1988) against the mid at the arrival, in bps of the arrival value, above zero a cost:

| part | of each fill |
| --- | --- |
| timing | the mid at the fill against the arrival mid |
| spread | the price, for what was taken the best price of the moment, against the mid at the fill |
| impact | of what was taken: the price beyond the best price of the moment |
| fees | as the venue charged them |

Sums are integers, twice the ticks where a mid is in them, so that fills may come in any order and be taken back.
"""

from collections.abc import Sequence
from typing import NamedTuple


class FillMark(NamedTuple):
    """A fill and the market that it met; `mid2` is twice the mid, `best_ticks` the opposite best (taken lots only)."""

    price_ticks: int
    lots: int
    fee: int  # minor units of currency
    mid2: int
    best_ticks: int
    passive: bool  # it rested when it was filled


class CostSums:
    """Running sums over the fills of one parent, `side` 1 buys and -1 sells."""

    __slots__ = ("arrival_mid2", "cost", "fee", "filled", "impact2", "passive_lots", "side", "spread2", "timing2")

    def __init__(self, side: int, arrival_mid2: int) -> None:
        self.side, self.arrival_mid2 = side, arrival_mid2
        self.filled = self.cost = self.passive_lots = self.fee = 0
        self.spread2 = self.timing2 = self.impact2 = 0

    def add(self, fill: FillMark, sign: int = 1) -> None:
        """Count a fill; with `sign` -1 take one back."""
        side, lots = self.side, sign * fill.lots
        self.filled += lots
        self.cost += fill.price_ticks * lots
        self.fee += sign * fill.fee
        self.timing2 += side * (fill.mid2 - self.arrival_mid2) * lots
        if fill.passive:
            self.passive_lots += lots
            self.spread2 += side * (2 * fill.price_ticks - fill.mid2) * lots
        else:
            self.spread2 += side * (2 * fill.best_ticks - fill.mid2) * lots
            self.impact2 += side * 2 * (fill.price_ticks - fill.best_ticks) * lots


class Shortfall(NamedTuple):
    """Cost in bps of the arrival value of the lots that it covers; the four parts sum to `is_bps`."""

    is_bps: float
    spread_bps: float
    impact_bps: float
    timing_bps: float
    fees_bps: float
    passive_share: float  # of the lots, filled while resting


def shortfall(sums: CostSums, tick_value: float) -> Shortfall | None:
    """The shortfall of what was filled; None where nothing was. `tick_value`: minor units a lot and tick."""
    if sums.filled <= 0 or sums.arrival_mid2 <= 0:
        return None
    value2 = float(sums.filled * sums.arrival_mid2)
    fees = 2e4 * sums.fee / (tick_value * value2) if tick_value > 0 else 0.0
    spread, impact, timing = (1e4 * part / value2 for part in (sums.spread2, sums.impact2, sums.timing2))
    loss2 = sums.side * (2 * sums.cost - sums.filled * sums.arrival_mid2)
    return Shortfall(1e4 * loss2 / value2 + fees, spread, impact, timing, fees, sums.passive_lots / sums.filled)


def sweep_cost(levels: Sequence[tuple[int, int]], side: int, lots: int, mid2: int) -> tuple[int, int]:
    """Ticks times lots that `lots` cost now from the opposite `levels` (price, lots; best first), and lots beyond them.

    What the levels lack is priced one tick apart behind the deepest one, each of the mean visible level's size; where
    none shows, from the first price beyond the mid: the charge of the environment for what is left at a horizon.
    """
    cost, left, price = 0, lots, 0
    for price, size in levels:
        take = min(left, size)
        cost, left = cost + take * price, left - take
        if not left:
            return cost, 0
    if not levels:
        price = mid2 // 2 if side > 0 else (mid2 + 1) // 2
    size = max(1, sum(size for _, size in levels) // len(levels)) if levels else 1
    beyond = left
    while left:
        price = max(1, price + side)
        take = left if price == 1 else min(left, size)
        cost, left = cost + take * price, left - take
    return cost, beyond
