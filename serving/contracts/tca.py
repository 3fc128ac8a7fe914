"""What a parent order cost, from its fills: the sums and the parts that training, evaluation and serving report alike.

Implementation shortfall (Perold 1988) against the mid at the arrival, in bps of the arrival value, above zero a cost:

| part | of each fill |
| --- | --- |
| timing | the mid at the fill against the arrival mid |
| spread | the price, for what was taken the best price of the moment, against the mid at the fill |
| impact | of what was taken: the price beyond the best price of the moment |
| fees | as the venue charged them |

Sums are integers, twice the ticks where a mid is in them, so that fills may come in any order and be taken back.

The formulas stand here once, as functions of numbers: training's kernels compile them (`training.market.fills`,
`training.market.engine`), its reports apply them to whole columns, serving calls them as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


def fill_parts(
    side: int, arrival_mid2: int, price_ticks: int, lots: int, mid2: int, best_ticks: int, passive: bool
) -> tuple[int, int, int]:
    """Timing, spread and impact of a fill, each twice the ticks times lots; `best_ticks` of taken lots only."""
    timing2 = side * (mid2 - arrival_mid2) * lots
    if passive:
        return timing2, side * (2 * price_ticks - mid2) * lots, 0 * lots
    return timing2, side * (2 * best_ticks - mid2) * lots, side * 2 * (price_ticks - best_ticks) * lots


def lost2(side: Any, paid2: Any, lots: Any, arrival_mid2: Any) -> Any:
    """Twice the ticks times lots that `lots` cost beyond the arrival mid, for which twice `paid2` was paid."""
    return side * (paid2 - lots * arrival_mid2)


def in_bps(part2: Any, value2: Any) -> Any:
    """A cost (twice the ticks times lots) in bps of the arrival value (the same, as a float)."""
    return 1e4 * part2 / value2


def last_before_beyond(mid2: int, side: int) -> int:
    """Where a side shows nothing: the price one tick before the first one beyond the mid."""
    return mid2 // 2 if side > 0 else (mid2 + 1) // 2


def next_beyond(price_ticks: int, side: int) -> int:
    """The price of the level that is assumed behind this one; none falls below a tick."""
    return max(1, price_ticks + side)


class FillMark(NamedTuple):
    """A fill and the market that it met; `mid2` is twice the mid, `best_ticks` the opposite best (taken lots only)."""

    price_ticks: int
    lots: int
    fee: int  # minor units of currency
    mid2: int
    best_ticks: int
    passive: bool  # it rested when it was filled


@dataclass(slots=True)
class CostSums:
    """Running sums over the fills of one parent, `side` 1 buys and -1 sells."""

    side: int
    arrival_mid2: int
    filled: int = 0
    cost: int = 0  # ticks times lots
    passive_lots: int = 0
    fee: int = 0
    spread2: int = 0
    timing2: int = 0
    impact2: int = 0

    def add(self, fill: FillMark, sign: int = 1) -> None:
        """Count a fill; with `sign` -1 take one back."""
        lots = sign * fill.lots
        self.filled += lots
        self.cost += fill.price_ticks * lots
        self.fee += sign * fill.fee
        self.passive_lots += lots if fill.passive else 0
        timing2, spread2, impact2 = fill_parts(
            self.side, self.arrival_mid2, fill.price_ticks, lots, fill.mid2, fill.best_ticks, fill.passive
        )
        self.timing2 += timing2
        self.spread2 += spread2
        self.impact2 += impact2


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
    spread, impact, timing = (in_bps(part, value2) for part in (sums.spread2, sums.impact2, sums.timing2))
    whole = in_bps(lost2(sums.side, 2 * sums.cost, sums.filled, sums.arrival_mid2), value2) + fees
    return Shortfall(whole, spread, impact, timing, fees, sums.passive_lots / sums.filled)


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
        price = last_before_beyond(mid2, side)
    size = max(1, sum(size for _, size in levels) // len(levels)) if levels else 1
    beyond = left
    while left:
        price = next_beyond(price, side)
        take = left if price == 1 else min(left, size)
        cost, left = cost + take * price, left - take
    return cost, beyond
