"""The synthetic market's generator: a seeded order-by-order queue-reactive book around a reference price.

The model of Huang, Lehalle and Rosenbaum (2015) with the tables of `reactive_tables`: limit orders, cancels, market
orders and attacks that use up a best queue arrive with intensities that depend on the level and the queue they meet;
then the reference price moves with a probability, or the queue is refilled. What is planted, and what is not, stands in
docs/synthetic.md with formulas.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.ticks.reactive_tables import LEVELS, MOST_UNITS, MarketParameters, published_tables
from feature_repo.ticks.schema import Flag, Kind, Side

NS = 1_000_000_000
ADD, CANCEL, TRADE = int(Kind.ADD), int(Kind.CANCEL), int(Kind.TRADE)
BUY, SELL, LAST = int(Side.BUY), int(Side.SELL), int(Flag.LAST)

RING = 64  # slots of the ladder; a price's slot is price mod RING
KEPT_LEVELS = 13  # a side; orders that the price leaves further behind are cancelled
QUEUE = MOST_UNITS  # most orders at one price
KIND, SIDE, PRICE, SIZE, ORDER, FLAGS, TS = 0, 1, 2, 3, 4, 5, 6
"""Columns of the generator's output."""
_BID, _ASK, _GAP, _ORDERS, _COUNT, _NOW = 0, 1, 2, 3, 4, 5
"""State of the simulation: best prices in ticks; +1 or -1 while the ask or bid is used up and the spread open; orders
and rows so far; ns since the open."""
_STEP_NS = 1_000  # between the events of one burst


def latent_path(seed: int, day: int, seconds: int, relaxation_s: float) -> NDArray[np.float64]:
    """The planted signal of a day, one value a second, `(seconds,) float64` in [-1, 1].

    s = clip(x), x a stationary Gaussian AR(1) with unit variance and relaxation time `relaxation_s`.
    """
    rng = np.random.default_rng([seed, day, 1])
    return np.clip(_ar1(rng, seconds, relaxation_s), -1.0, 1.0)


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


class _Ladder(NamedTuple):
    """Resting orders, first in first out: `ids, sizes (2, RING, QUEUE)`, `heads (2, RING)` orders each; bids are 0."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    heads: NDArray[np.int64]


def generate_day(
    seed: int, day: int, seconds: int, reference: int, strength: float, parameters: MarketParameters
) -> NDArray[np.int64]:
    """Events of a day, `(n, 7) int64` in the columns KIND .. TS; TS is ns since the open, rising.

    `reference` is the best bid at the open in ticks. The first rows are the opening book at TS 0, the last of them
    flagged LAST.
    """
    signal = latent_path(seed, day, seconds, parameters.signal_relaxation_s)
    activity = activity_path(seed, day, seconds, parameters)
    tables = published_tables(parameters)
    tilt = tables.tilt(strength)
    shape = (2, RING, QUEUE)
    ladder = _Ladder(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape[:2], np.int64))
    state = np.array([reference, reference + 1, 0, 0, 0, 0], np.int64)
    rng = np.random.default_rng([seed, day, 3])
    rows = _simulate(rng, state, ladder, strength * signal, tilt * signal, activity, tables)
    return rows[rows[:, TS] < seconds * NS]  # the last burst may run past the close


@njit(cache=True)
def _simulate(rng, state, ladder, lean, tilt, activity, p):
    """All events of a day; `lean` moves the price and `tilt` the flow, one value of each a second."""
    out = np.empty((1 << 18, 7), np.int64)
    out = _open_book(rng, out, state, ladder, p)
    seconds = len(activity)
    weight = np.zeros(4 * LEVELS)
    while True:
        second = state[_NOW] // NS
        if second >= seconds:
            break
        speed = activity[second]
        bids, asks = ladder.heads[0, state[_BID] % RING], ladder.heads[1, state[_ASK] % RING]
        closing = p.closing if state[_GAP] != 0 else 0.0
        attacking = speed * (p.depletion[bids] + p.depletion[asks]) if state[_GAP] == 0 else 0.0
        trading = speed * (p.market[bids] + p.market[asks])
        total = closing + attacking + trading + speed * _weigh(weight, state, ladder, tilt[second], p)
        step = np.int64(-np.log(1.0 - rng.random()) / total * 1e9) + _STEP_NS
        if (state[_NOW] + step) // NS > second:  # rates change at the next second: draw again from there (memoryless)
            state[_NOW] = (second + 1) * NS
            continue
        state[_NOW] += step
        pick = rng.random() * total
        if pick < closing:
            out = _close_gap(rng, out, state, ladder, lean[second], p)
        elif pick < closing + attacking:
            out = _attack(rng, out, state, ladder, lean[second], p)
        elif pick < closing + attacking + trading:
            out = _trade_within(rng, out, state, ladder, tilt[second], p)
        else:
            out = _limit_or_cancel(rng, out, state, ladder, weight, (pick - closing - attacking - trading) / speed, p)
    return out[: state[_COUNT]]


@njit(cache=True)
def _open_book(rng, out, state, ladder, p):
    """The opening book at time 0; its last order is flagged LAST."""
    for level in range(LEVELS):
        for b in range(2):
            for _ in range(p.opening_least[level] + rng.poisson(p.opening_more[level])):
                out = _join(rng, out, state, ladder, b, _price(state, b, level), p.limit_lots)
    out[state[_COUNT] - 1, FLAGS] = LAST
    return out


@njit(cache=True)
def _weigh(weight, state, ladder, tilt, p):
    """Fill `weight (4 LEVELS,)` with the intensities of limit orders, then of cancels, by level and side; their sum."""
    total = 0.0
    for level in range(LEVELS):
        for b in range(2):
            orders = ladder.heads[b, _price(state, b, level) % RING]
            toward = tilt if b == 0 else -tilt
            arrive = p.limit[level, orders] * (1.0 + toward)
            leave = p.cancel[level, orders] * (1.0 - toward)
            weight[2 * level + b] = arrive
            weight[2 * LEVELS + 2 * level + b] = leave
            total += arrive + leave
    return total


@njit(cache=True)
def _attack(rng, out, state, ladder, lean, p):
    """Use up a best queue: part of it trades, the rest is cancelled, and the spread opens."""
    up = rng.random() < _ask_share(state, ladder, p.depletion, lean)
    b = 1 if up else 0
    price = _price(state, b, 0)
    slot = price % RING
    lots = max(1, int(p.traded_share * ladder.sizes[b, slot, : ladder.heads[b, slot]].sum()))
    out = _hit(out, state, ladder, b, price, lots)
    out = _cancel_all(out, state, ladder, b, price)
    state[_ASK if up else _BID] += 1 if up else -1
    state[_GAP] = 1 if up else -1
    return out


@njit(cache=True)
def _close_gap(rng, out, state, ladder, lean, p):
    """End an attack: the other side follows, so that the price has moved, or the used-up side comes back."""
    gap = state[_GAP]
    follows = rng.random() < p.follow * (1.0 + lean * gap)
    b = 0 if (gap > 0) == follows else 1  # side on which the new best queue stands
    state[_ASK if b else _BID] += -1 if b else 1
    for _ in range(p.refill_least + rng.poisson(p.refill_more)):
        out = _join(rng, out, state, ladder, b, _price(state, b, 0), p.limit_lots)
        state[_NOW] += _STEP_NS
    state[_GAP] = 0
    for side in range(2):  # before their slots of the ladder are needed again
        for level in range(KEPT_LEVELS, RING // 2):
            out = _cancel_all(out, state, ladder, side, _price(state, side, level))
    return out


@njit(cache=True)
def _trade_within(rng, out, state, ladder, tilt, p):
    """A market order that leaves the best queue standing."""
    b = 1 if rng.random() < _ask_share(state, ladder, p.market, tilt) else 0
    price = _price(state, b, 0)
    slot = price % RING
    queued = ladder.sizes[b, slot, : ladder.heads[b, slot]].sum()
    return _hit(out, state, ladder, b, price, min(_geometric(rng, p.market_lots), queued - 1))


@njit(cache=True)
def _limit_or_cancel(rng, out, state, ladder, weight, pick, p):
    """One limit order or one cancel, the one that `pick` falls on in `weight`; a best queue keeps one order."""
    chosen = len(weight) - 1
    for i in range(len(weight)):
        pick -= weight[i]
        if pick < 0.0:
            chosen = i
            break
    b, level = chosen % 2, (chosen % (2 * LEVELS)) // 2
    price = _price(state, b, level)
    if chosen < 2 * LEVELS:
        return _join(rng, out, state, ladder, b, price, p.limit_lots)
    orders = ladder.heads[b, price % RING]
    if orders > (1 if level == 0 else 0):
        out = _cancel(out, state, ladder, b, price, int(rng.random() * orders))
    return out


@njit(cache=True)
def _ask_share(state, ladder, rates, tilt):
    """Probability that an event at a best queue meets the ask's; `rates (N + 1,)` by the orders of a queue."""
    asks = rates[ladder.heads[1, state[_ASK] % RING]] * (1.0 + tilt)
    bids = rates[ladder.heads[0, state[_BID] % RING]] * (1.0 - tilt)
    return asks / (asks + bids)


@njit(cache=True)
def _price(state, b, level):
    return state[_ASK] + level if b else state[_BID] - level


@njit(cache=True)
def _geometric(rng, mean):
    """Size of an order: geometric from 1 on."""
    return 1 + int(np.log(1.0 - rng.random()) / np.log(1.0 - 1.0 / mean))


@njit(cache=True)
def _emit(out, state, kind, side, price, size, order):
    """Write one row at the present time; a full table is doubled."""
    count = state[_COUNT]
    if count == out.shape[0]:
        grown = np.empty((2 * out.shape[0], out.shape[1]), np.int64)
        grown[:count] = out
        out = grown
    row = out[count]
    row[KIND], row[SIDE], row[PRICE], row[SIZE] = kind, side, price, size
    row[ORDER], row[FLAGS], row[TS] = order, 0, state[_NOW]
    state[_COUNT] += 1
    return out


@njit(cache=True)
def _join(rng, out, state, ladder, b, price, mean_lots):
    """A new order at the back of a price's queue; none where the queue is full."""
    slot, size = price % RING, _geometric(rng, mean_lots)
    place = ladder.heads[b, slot]
    if place == QUEUE:
        return out
    state[_ORDERS] += 1
    ladder.ids[b, slot, place], ladder.sizes[b, slot, place] = state[_ORDERS], size
    ladder.heads[b, slot] += 1
    return _emit(out, state, ADD, SELL if b else BUY, price, size, state[_ORDERS])


@njit(cache=True)
def _drop(ladder, b, slot, place):
    """Remove the order at `place` of a price's queue; the ones behind move up."""
    left = ladder.heads[b, slot] - 1
    for k in range(place, left):
        ladder.ids[b, slot, k], ladder.sizes[b, slot, k] = ladder.ids[b, slot, k + 1], ladder.sizes[b, slot, k + 1]
    ladder.heads[b, slot] = left


@njit(cache=True)
def _cancel(out, state, ladder, b, price, place):
    slot = price % RING
    side, lots, order = SELL if b else BUY, ladder.sizes[b, slot, place], ladder.ids[b, slot, place]
    out = _emit(out, state, CANCEL, side, price, lots, order)
    _drop(ladder, b, slot, place)
    return out


@njit(cache=True)
def _cancel_all(out, state, ladder, b, price):
    while ladder.heads[b, price % RING] > 0:
        out = _cancel(out, state, ladder, b, price, 0)
        state[_NOW] += _STEP_NS
    return out


@njit(cache=True)
def _hit(out, state, ladder, b, price, lots):
    """A market order of `lots` meets the front of a queue: a TRADE for each resting order."""
    slot = price % RING
    while lots > 0 and ladder.heads[b, slot] > 0:
        fill = min(lots, ladder.sizes[b, slot, 0])
        out = _emit(out, state, TRADE, BUY if b else SELL, price, fill, ladder.ids[b, slot, 0])
        state[_NOW] += _STEP_NS
        lots -= fill
        ladder.sizes[b, slot, 0] -= fill
        if ladder.sizes[b, slot, 0] == 0:
            _drop(ladder, b, slot, 0)
    return out
