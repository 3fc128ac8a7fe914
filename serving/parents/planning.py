"""From what an action asks for to requests: never more in the market, whatever fills meanwhile, than the parent lacks.

A target is `(rest_px, rest_lots, cross_lots)` of `serving.contracts.actions`. One order rests at most; a change of it
is a replace, whose total counts its fills, so that lots that fill while it is on its way are not asked for again.
Taking while an order rests is a cancel and an immediate order together where the parent has room for both, as the
environment sends them in one message; where it has not, the resting order itself is replaced to a price that takes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from serving.parents.orders import Child, Parent


class Place(NamedTuple):
    """A new order: one that rests at a price, or one that takes what there is at once, immediate or cancel."""

    price_ticks: int  # 0: at any price
    lots: int
    takes: bool = False


class Move(NamedTuple):
    """A resting order gets another price and total size, lots filled included; `crossing`: to take."""

    child: Child
    price_ticks: int
    lots: int
    crossing: bool


class Withdraw(NamedTuple):
    """What is left of an order is cancelled."""

    child: Child


Step = Place | Move | Withdraw


def steps(
    parent: Parent,
    target: tuple[int, int, int],
    opposite: Sequence[tuple[int, int]],
    *,
    may_move: bool = True,
) -> list[Step]:
    """Requests that bring the parent's orders to `target`; `opposite` are the levels that it can take from.

    Without `may_move` (another strategy takes over) a resting order is only ever cancelled.
    """
    rest_px, rest_lots, cross_lots = target
    rest = parent.resting
    if cross_lots > 0:
        return _cross(parent, rest, cross_lots, opposite, may_move)
    if rest_lots > 0 and may_move:
        if rest is None:
            lots = min(rest_lots, parent.free)
            return [Place(rest_px, lots)] if lots > 0 else []
        if not rest.is_settled:
            return []  # the answer to what was asked before is on its way
        lots = min(rest_lots, parent.free + rest.exposed)
        if (rest_px, lots) == (rest.price_ticks, rest.exposed) or lots <= 0:
            return []
        return [Move(rest, rest_px, rest.filled + lots, False)]
    return withdraw(rest)


def withdraw(rest: Child | None) -> list[Step]:
    """Cancel an order, unless that was asked for."""
    return [Withdraw(rest)] if rest is not None and not rest.cancel_key else []


def _cross(
    parent: Parent, rest: Child | None, lots: int, opposite: Sequence[tuple[int, int]], may_move: bool
) -> list[Step]:
    free = min(lots, parent.free)
    if rest is None:
        return [Place(0, free, True)] if free > 0 else []
    if not may_move or not rest.is_settled or lots <= parent.free:
        return [*withdraw(rest), *([Place(0, free, True)] if free > 0 else [])]
    if not opposite:
        return withdraw(rest)
    return [Move(rest, opposite[-1][0], rest.filled + min(lots, parent.free + rest.exposed), True)]
