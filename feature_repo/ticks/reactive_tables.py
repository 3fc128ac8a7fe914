"""The queue-reactive model as tables: how often each kind of event meets a level whose queue has a given length.

One structure serves the generator of the synthetic market, which reads its published tables here, and the reactive
world of the simulator, which reads published or estimated ones (Huang, Lehalle and Rosenbaum 2015, section 2).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVELS = 6  # price levels a side that orders arrive at in the published model
MOST_UNITS = 512  # longest queue of the published tables, in orders


class MarketParameters(NamedTuple):
    """Published parameters of the synthetic market; rates are per second at activity 1."""

    attempts: float = 0.12  # attacks on a best queue: each uses it up, and half of them move the price
    trades: float = 0.7  # market orders that leave the best queue standing, both sides together
    trade_lots: float = 6.0  # mean size of a market order (geometric)
    adds_best: float = 0.6  # limit orders at the best price, a side, at the typical queue
    adds_deep: float = 0.22  # the same at each deeper level
    cancels_best: float = 0.05  # per order resting at the best price
    cancels_deep: float = 0.025  # per order resting deeper
    order_lots: float = 6.0  # mean size of a limit order (geometric)
    refill: float = 6.0  # arrivals at an empty level are this many times more frequent
    typical_orders: float = 12.0  # orders at a level from which on arrivals are at their base rate
    gap_s: float = 0.8  # mean time that the spread stays open after an attack
    traded_share: float = 0.6  # part of an attacked queue that trades; the rest is cancelled
    signal_relaxation_s: float = 6.0  # of the planted signal
    flow_tilt: float = 4.0 / 3.0  # tilt of the order flow per unit of strength
    max_flow_tilt: float = 0.8  # and never more than this
    activity_sd: float = 0.6  # of log activity
    activity_relaxation_s: float = 120.0
    u_shape: float = 0.9  # activity at open and close over noon, less one


class QueueReactiveParameters(NamedTuple):
    """Intensities and sizes of a queue-reactive market; numba takes it whole.

    Rates are per second at activity 1 and a side. Level 0 is the best price; a queue's length counts units: orders
    where `by_orders` is 1, else its lots over `unit_lots`, rounded up. Tables end at a length that longer queues share.
    Sizes are geometric with the stated mean where the quantile table beside it is empty.
    """

    limit: NDArray[np.float64]  # (L, N + 1) limit orders at a level, by the length that they meet
    cancel: NDArray[np.float64]  # (L, N + 1) cancels at a level; what would empty a best queue is void
    market: NDArray[np.float64]  # (N + 1,) market orders that leave the best queue that they meet standing
    depletion: NDArray[np.float64]  # (N + 1,) ends of a best queue, while the spread is one tick
    closing: float  # ends of an open spread; activity does not change it
    follow: float  # theta: probability that the other side follows, so that the reference price has moved
    traded_share: float  # part of a depleted queue that trades; the rest is cancelled
    by_orders: int
    unit_lots: float
    limit_lots: float
    cancel_lots: float  # read where `by_orders` is 0: there a cancel takes lots, not one of the orders
    market_lots: float
    limit_sizes: NDArray[np.int32]  # (L, Q) quantiles of the size in lots, equally probable; Q = 0: geometric
    cancel_sizes: NDArray[np.int32]  # (L, Q)
    market_sizes: NDArray[np.int32]  # (1, Q)
    refill_least: int  # a queue that closes the spread has this many orders or units and
    refill_more: float  # a Poisson number with this mean more
    opening_least: NDArray[np.int64]  # (L,) the same for the queues of the opening book
    opening_more: NDArray[np.float64]
    enters: int  # 1: a price that comes within the tables' levels has a queue as at the opening; 0: it is empty
    revealed: NDArray[np.int32]  # (Q,) quantiles of the lots behind a depleted queue, where deeper levels are unknown
    signal_relaxation_s: float
    flow_tilt: float
    max_flow_tilt: float
    activity_sd: float
    activity_relaxation_s: float
    u_shape: float

    def tilt(self, strength: float) -> float:
        """Tilt of the order flow at a planted signal of 1, for the `strength` of the signal."""
        return min(self.max_flow_tilt, self.flow_tilt * strength)


def published_tables(parameters: MarketParameters | None = None) -> QueueReactiveParameters:
    """The synthetic market's tables, (6, 513) by level and orders.

    Arrivals fall from `refill` times their base rate at an empty level to it at `typical_orders`; every order is
    cancelled at the same rate; market orders and depletions come however long the queue is.
    """
    p = parameters or MarketParameters()
    orders = np.arange(MOST_UNITS + 1, dtype=np.float64)
    thin = 1.0 + (p.refill - 1.0) * np.maximum(0.0, 1.0 - orders / p.typical_orders)
    adds = [p.adds_best] + [p.adds_deep] * (LEVELS - 1)
    cancels = [p.cancels_best] + [p.cancels_deep] * (LEVELS - 1)
    return QueueReactiveParameters(
        limit=np.array([rate * thin for rate in adds]),
        cancel=np.array([rate * orders for rate in cancels]),
        market=np.full(MOST_UNITS + 1, p.trades / 2),
        depletion=np.full(MOST_UNITS + 1, p.attempts / 2),
        closing=1.0 / p.gap_s,
        follow=0.5,
        traded_share=p.traded_share,
        by_orders=1,
        unit_lots=p.order_lots,
        limit_lots=p.order_lots,
        cancel_lots=p.order_lots,
        market_lots=p.trade_lots,
        limit_sizes=np.zeros((LEVELS, 0), np.int32),
        cancel_sizes=np.zeros((LEVELS, 0), np.int32),
        market_sizes=np.zeros((1, 0), np.int32),
        refill_least=3,
        refill_more=p.typical_orders / 2,
        opening_least=np.full(LEVELS, 4),
        opening_more=np.full(LEVELS, p.typical_orders - 4),
        enters=0,
        revealed=np.zeros(0, np.int32),
        signal_relaxation_s=p.signal_relaxation_s,
        flow_tilt=p.flow_tilt,
        max_flow_tilt=p.max_flow_tilt,
        activity_sd=p.activity_sd,
        activity_relaxation_s=p.activity_relaxation_s,
        u_shape=p.u_shape,
    )
