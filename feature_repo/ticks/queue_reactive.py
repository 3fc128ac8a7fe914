"""The synthetic market's generator: a seeded order-by-order queue-reactive book around a reference price.

In the spirit of Huang, Lehalle and Rosenbaum (2015): limit orders, cancels and market orders arrive with intensities
that depend on the queue they meet, and the reference price moves when a best queue is used up. What is planted, and
what is not, stands in docs/synthetic.md with formulas.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.schema import Flag, Kind, Side

NS = 1_000_000_000
ADD, CANCEL, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.TRADE)
BUY, SELL, LAST = int(Side.BUY), int(Side.SELL), int(Flag.LAST)

LEVELS = 6  # price levels a side that orders arrive at
RING = 64  # slots of the ladder; a price's slot is price mod RING
QUEUE = 512  # most orders at one price
KIND, SIDE, PRICE, SIZE, ORDER, FLAGS, TS = 0, 1, 2, 3, 4, 5, 6
"""Columns of the generator's output."""


@dataclass(frozen=True)
class MarketParameters:
    """Published parameters of the synthetic market; rates are per second at activity 1."""

    attempts: float = 0.12  # attacks on a best queue: each uses it up, and half of them move the price
    trades: float = 0.7  # market orders that leave the best queue standing, both sides together
    trade_lots: float = 6.0  # mean size of a market order (geometric)
    adds_best: float = 0.33  # limit orders at the best price, a side, at the typical queue
    adds_deep: float = 0.22  # the same at each deeper level
    cancels: float = 0.025  # per resting order
    order_lots: float = 6.0  # mean size of a limit order (geometric)
    refill: float = 6.0  # arrivals at an empty level are this many times more frequent
    typical_orders: float = 12.0  # orders at a level from which on arrivals are at their base rate
    gap_s: float = 0.8  # mean time that the spread stays open after an attack
    traded_share: float = 0.6  # part of an attacked queue that trades; the rest is cancelled
    signal_relaxation_s: float = 10.0  # of the planted signal
    flow_tilt: float = 5.0  # tilt of the order flow per unit of strength, at most 0.8 in all
    activity_sd: float = 0.6  # of log activity
    activity_relaxation_s: float = 120.0
    u_shape: float = 0.9  # activity at open and close over noon, less one


def latent_path(seed: int, day: int, seconds: int, relaxation_s: float) -> NDArray[np.float64]:
    """The planted signal of a day, one value a second, `(seconds,) float64` in [-1, 1].

    s = clip(x / 2), x a stationary Gaussian AR(1) with unit variance and relaxation time `relaxation_s`.
    """
    rng = np.random.default_rng([seed, day, 1])
    return np.clip(_ar1(rng, seconds, relaxation_s) / 2.0, -1.0, 1.0)


def activity_path(seed: int, day: int, seconds: int, parameters: MarketParameters) -> NDArray[np.float64]:
    """Multiplier of every rate, one value a second: a U-shaped day times lognormal clusters with mean 1."""
    rng = np.random.default_rng([seed, day, 2])
    clusters = np.exp(
        parameters.activity_sd * _ar1(rng, seconds, parameters.activity_relaxation_s) - parameters.activity_sd**2 / 2
    )
    place = np.linspace(-1.0, 1.0, seconds)
    shape = 1.0 + parameters.u_shape * place**2
    return clusters * shape / (1.0 + parameters.u_shape / 3.0)


def _ar1(rng: np.random.Generator, length: int, relaxation_s: float) -> NDArray[np.float64]:
    phi = np.exp(-1.0 / relaxation_s)
    noise = rng.standard_normal(length)
    return _filter(phi, np.sqrt(1.0 - phi * phi), noise)


@njit(cache=True)
def _filter(phi, scale, noise):
    path = np.empty_like(noise)
    path[0] = noise[0]
    for i in range(1, noise.shape[0]):
        path[i] = phi * path[i - 1] + scale * noise[i]
    return path


def generate_day(
    seed: int, day: int, seconds: int, reference: int, strength: float, parameters: MarketParameters
) -> NDArray[np.int64]:
    """Events of a day, `(n, 7) int64` in the columns KIND .. TS; TS is ns since the open, rising.

    `reference` is the best bid at the open in ticks. The first rows are the opening book at TS 0, the last of them
    flagged LAST.
    """
    signal = latent_path(seed, day, seconds, parameters.signal_relaxation_s)
    activity = activity_path(seed, day, seconds, parameters)
    rates = np.array(
        [
            parameters.attempts,
            parameters.trades,
            parameters.trade_lots,
            parameters.adds_best,
            parameters.adds_deep,
            parameters.cancels,
            parameters.order_lots,
            parameters.refill,
            parameters.typical_orders,
            parameters.gap_s,
            parameters.traded_share,
            min(0.8, parameters.flow_tilt * strength),
        ]
    )
    rng = np.random.default_rng([seed, day, 3])
    return _simulate(rng, seconds, reference, strength, signal, activity, rates)


@njit(cache=True)
def _geometric(rng, mean):
    """Size of an order: geometric from 1 on."""
    return 1 + int(np.log(1.0 - rng.random()) / np.log(1.0 - 1.0 / mean))


@njit(cache=True)
def _emit(out, count, kind, side, price, size, order, flags, ts):
    if count == out.shape[0]:
        grown = np.empty((2 * out.shape[0], out.shape[1]), np.int64)
        grown[:count] = out
        out = grown
    row = out[count]
    row[KIND], row[SIDE], row[PRICE], row[SIZE] = kind, side, price, size
    row[ORDER], row[FLAGS], row[TS] = order, flags, ts
    return out


@njit(cache=True)
def _push(ids, sizes, heads, b, slot, order, size):
    """Append to a price's queue; False where it is full."""
    n = heads[b, slot]
    if n == ids.shape[2]:
        return False
    ids[b, slot, n], sizes[b, slot, n] = order, size
    heads[b, slot] = n + 1
    return True


@njit(cache=True)
def _drop(ids, sizes, heads, b, slot, place):
    """Remove the order at `place` of a price's queue; the ones behind move up."""
    n = heads[b, slot] - 1
    for k in range(place, n):
        ids[b, slot, k], sizes[b, slot, k] = ids[b, slot, k + 1], sizes[b, slot, k + 1]
    heads[b, slot] = n


@njit(cache=True)
def _hit(out, count, ids, sizes, heads, b, price, lots, ts):
    """A market order of `lots` meets the front of a queue (b: 0 bids, 1 asks): a TRADE for each order, 1 us apart."""
    slot = price % RING
    while lots > 0 and heads[b, slot] > 0:
        fill = min(lots, sizes[b, slot, 0])
        out = _emit(out, count, TRADE, SELL if b == 0 else BUY, price, fill, ids[b, slot, 0], 0, ts)
        count += 1
        ts += 1_000
        lots -= fill
        sizes[b, slot, 0] -= fill
        if sizes[b, slot, 0] == 0:
            _drop(ids, sizes, heads, b, slot, 0)
    return out, count, ts


@njit(cache=True)
def _simulate(rng, seconds, reference, strength, signal, activity, rates):
    attempts, trades, trade_lots, adds_best, adds_deep, cancels = rates[:6]
    order_lots, refill, typical, gap_s, traded_share, tilt = rates[6:12]
    out = np.empty((1 << 18, 7), np.int64)
    ids, sizes = np.zeros((2, RING, QUEUE), np.int64), np.zeros((2, RING, QUEUE), np.int64)
    heads = np.zeros((2, RING), np.int64)
    count, order, ts = 0, 0, np.int64(0)
    bid, ask = reference, reference + 1
    for level in range(LEVELS):
        for b in range(2):
            price = bid - level if b == 0 else ask + level
            for _ in range(4 + rng.poisson(typical - 4)):
                order += 1
                size = _geometric(rng, order_lots)
                if _push(ids, sizes, heads, b, price % RING, order, size):
                    out = _emit(out, count, ADD, BUY if b == 0 else SELL, price, size, order, 0, ts)
                    count += 1
    out[count - 1, FLAGS] = LAST
    end = np.int64(seconds) * NS
    weight = np.zeros(4 * LEVELS)
    gap = 0  # +1 or -1 while the ask or bid is used up and the spread open
    while True:
        second = min(int(ts // NS), seconds - 1)
        s, speed = signal[second], activity[second]
        total = 0.0
        for level in range(LEVELS):
            for b in range(2):
                price = bid - level if b == 0 else ask + level
                orders = heads[b, price % RING]
                base = (adds_best if level == 0 else adds_deep) * (1.0 + tilt * s * (1.0 if b == 0 else -1.0))
                base *= 1.0 + (refill - 1.0) * max(0.0, 1.0 - orders / typical)
                weight[2 * level + b] = base
                weight[2 * LEVELS + 2 * level + b] = cancels * orders
                total += base + cancels * orders
        total = speed * (total + trades + (attempts if gap == 0 else 0.0)) + (1.0 / gap_s if gap != 0 else 0.0)
        step = np.int64(-np.log(1.0 - rng.random()) / total * 1e9) + 1_000
        if (ts + step) // NS > ts // NS:  # the rates change at the next second: draw again from there (memoryless)
            ts = (ts // NS + 1) * NS
            if ts >= end:
                break
            continue
        ts += step
        pick = rng.random() * total
        if gap != 0:
            pick -= 1.0 / gap_s
            if pick < 0.0:  # the gap closes: the price follows through, or the used-up side comes back
                follow = rng.random() < 0.5 * (1.0 + strength * s * gap)
                if follow:
                    bid, ask = (bid + 1, ask) if gap > 0 else (bid, ask - 1)
                else:
                    bid, ask = (bid, ask - 1) if gap > 0 else (bid + 1, ask)
                joined = 0 if (gap > 0) == follow else 1  # side on which the new best queue stands
                price = bid if joined == 0 else ask
                for _ in range(3 + rng.poisson(typical / 2)):
                    order += 1
                    size = _geometric(rng, order_lots)
                    if _push(ids, sizes, heads, joined, price % RING, order, size):
                        out = _emit(out, count, ADD, BUY if joined == 0 else SELL, price, size, order, 0, ts)
                        count += 1
                        ts += 1_000
                gap = 0
                out, count, ts = _forget_far(out, count, ids, sizes, heads, bid, ask, ts)
                continue
        else:
            pick -= speed * attempts
            if pick < 0.0:  # an attack uses up a best queue
                up = rng.random() < 0.5 * (1.0 + strength * s)
                b = 1 if up else 0
                price = ask if up else bid
                slot = price % RING
                queued = 0
                for k in range(heads[b, slot]):
                    queued += sizes[b, slot, k]
                out, count, ts = _hit(out, count, ids, sizes, heads, b, price, max(1, int(traded_share * queued)), ts)
                while heads[b, slot] > 0:
                    out = _emit(
                        out, count, CANCEL, BUY if b == 0 else SELL, price, sizes[b, slot, 0], ids[b, slot, 0], 0, ts
                    )
                    count += 1
                    ts += 1_000
                    _drop(ids, sizes, heads, b, slot, 0)
                gap = 1 if up else -1
                if up:
                    ask += 1
                else:
                    bid -= 1
                continue
        pick -= speed * trades
        if pick < 0.0:  # a market order that leaves the best queue standing
            buys = rng.random() < 0.5 * (1.0 + tilt * s)
            b, price = (1, ask) if buys else (0, bid)
            queued = 0
            for k in range(heads[b, price % RING]):
                queued += sizes[b, price % RING, k]
            lots = min(_geometric(rng, trade_lots), queued - 1)
            out, count, ts = _hit(out, count, ids, sizes, heads, b, price, lots, ts)
            continue
        pick /= speed
        chosen = 4 * LEVELS - 1
        for i in range(4 * LEVELS):
            pick -= weight[i]
            if pick < 0.0:
                chosen = i
                break
        adds = chosen < 2 * LEVELS
        b = chosen % 2
        level = (chosen % (2 * LEVELS)) // 2
        price = bid - level if b == 0 else ask + level
        slot = price % RING
        if adds:
            order += 1
            size = _geometric(rng, order_lots)
            if _push(ids, sizes, heads, b, slot, order, size):
                out = _emit(out, count, ADD, BUY if b == 0 else SELL, price, size, order, 0, ts)
                count += 1
        elif heads[b, slot] > 1 or (level > 0 and heads[b, slot] > 0):
            place = int(rng.random() * heads[b, slot])
            out = _emit(
                out, count, CANCEL, BUY if b == 0 else SELL, price, sizes[b, slot, place], ids[b, slot, place], 0, ts
            )
            count += 1
            _drop(ids, sizes, heads, b, slot, place)
    return out[:count]


@njit(cache=True)
def _forget_far(out, count, ids, sizes, heads, bid, ask, ts):
    """Cancel orders that the price has left more than twelve levels behind, before their slot is needed again."""
    for b in range(2):
        for level in range(13, RING // 2):
            price = bid - level if b == 0 else ask + level
            slot = price % RING
            while heads[b, slot] > 0:
                out = _emit(
                    out, count, CANCEL, BUY if b == 0 else SELL, price, sizes[b, slot, 0], ids[b, slot, 0], 0, ts
                )
                count += 1
                ts += 1_000
                _drop(ids, sizes, heads, b, slot, 0)
    return out, count, ts
