"""Own orders do not meet: what a parent wants to send is held against the open orders of the parents of the other side.

The gateway's `self_match` would deny it; that is the last line, not the daily way. A buy and a sell of one symbol may
work at once while neither reaches the other: what would rest where it meets the other waits for the next decision, and
what takes is priced before the other's order, immediate or cancel, or waits where nothing is shown before it. Who must
complete now, its horizon being over, asks the resting order in its way to step back.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from serving.parents.orders import Child, Parent, Stage
from serving.parents.planning import Move, Place, Step, Withdraw
from serving.parents.state import State

MEETS = "it would meet an open order of our own on the other side"
_ANY = 2**62


class Apart(NamedTuple):
    """What may be sent of a plan; `short` where it is less than was wanted, or at another price."""

    steps: list[Step]
    short: bool


def keep_apart(state: State, parent: Parent, plan: Sequence[Step], opposite: Sequence[tuple[int, int]]) -> Apart:
    """A plan without what meets an own order; all of it, or none where its order must wait.

    `opposite` are the levels that the parent can take from, best first.
    """
    wanted = list(plan)
    if all(isinstance(step, Withdraw) for step in wanted):
        return Apart(wanted, False)
    side = parent.side
    wall = min((side * price for _, child in _others(state, parent) for price in _prices(child, -side)), default=_ANY)
    found: list[Step] = []
    for step in wanted:
        if isinstance(step, Withdraw) or not _meets(step, side, wall):
            found.append(step)
            continue
        before = [price for price, _ in opposite if side * price < wall]
        if not _takes(step) or not before:
            return Apart([], True)
        found.append(step._replace(price_ticks=before[-1]))
    return Apart(found, found != wanted)


def in_the_way(state: State, parent: Parent, opposite: Sequence[tuple[int, int]]) -> list[tuple[Parent, Child]]:
    """Orders of other parents that rest where the parent takes, and are not being cancelled."""
    reach = max((parent.side * price for price, _ in opposite), default=_ANY)
    return [
        (other, child)
        for other, child in _others(state, parent)
        if child.kind == "rest" and child.stage is not Stage.UNANSWERED and not child.cancel_key
        and any(parent.side * price <= reach for price in _prices(child, -parent.side))
    ]  # fmt: skip


def _others(state: State, parent: Parent) -> Iterator[tuple[Parent, Child]]:
    for other in state.at_work.values():
        if other.side == -parent.side and (other.venue, other.symbol) == (parent.venue, parent.symbol):
            for child in other.open_children:
                yield other, child


def _prices(child: Child, side: int) -> list[int]:
    """At which an open order of `side` may trade: a change that is not answered may stand or not."""
    prices = [child.price_ticks or side * _ANY]
    return prices if child.replace is None else [*prices, child.replace.price_ticks]


def _takes(step: Place | Move) -> bool:
    return step.crossing if isinstance(step, Move) else step.takes


def _meets(step: Place | Move, side: int, wall: int) -> bool:
    """Whether a price, any for an order at the market, reaches the nearest own order (`side` times its price)."""
    return wall < _ANY if not step.price_ticks else side * step.price_ticks >= wall
