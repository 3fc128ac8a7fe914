"""A second, deliberately plain simulator: best quotes on a grid of half seconds, one order at a time, nothing shared.

It exists to be compared with the market engine. It knows only the best price of each side and the trades of each step;
it walks no book, remembers nothing that was taken, and steps through time instead of events.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.market.day import MarketDay

STEP_NS = 500_000_000
TWAP_MARKET, TWAP_PASSIVE, CARRY, IMBALANCE = 0, 1, 2, 3
_CHUNKS = 64  # orders that were added at one price, first come first


class StepMarket(NamedTuple):
    """One session window: state at each grid time `(T,)`, and the trades between one grid time and the next."""

    first_ns: int
    bid_px: NDArray[np.int64]
    bid_sz: NDArray[np.int64]
    ask_px: NDArray[np.int64]
    ask_sz: NDArray[np.int64]
    trade_at: NDArray[np.int64]  # (T + 1,): trades trade_at[i] to trade_at[i + 1] fell after time i - 1, up to time i
    trade_px: NDArray[np.int64]
    trade_sz: NDArray[np.int64]
    trade_side: NDArray[np.int64]


class Prints(NamedTuple):
    """Trades in time order, `(P,) int64` each; side 0: nobody says who was the aggressor."""

    ts_ns: NDArray[np.int64]
    price_ticks: NDArray[np.int64]
    lots: NDArray[np.int64]
    side: NDArray[np.int64]


def book_prints(day: MarketDay) -> Prints:
    """The trades that the platform's own book knows: those that met a displayed queue."""
    book = day.book
    traded = book.trade_sz > 0
    columns = (book.trade_px, book.trade_sz, book.trade_side)
    return Prints(book.ts_ns[traded], *(column[traded].astype(np.int64) for column in columns))


def step_market(day: MarketDay, prints: Prints, opens: int, closes: int) -> StepMarket:
    """The session window from `opens` to `closes` (ns) with these trades."""
    book = day.book
    grid = np.arange(opens, closes, STEP_NS, dtype=np.int64)
    grid = grid[grid >= int(book.ts_ns[0])]
    row = np.searchsorted(book.ts_ns, grid, side="right") - 1
    bounds = np.searchsorted(prints.ts_ns, grid, side="right")
    trade_at = np.concatenate([bounds[:1], bounds])
    bid_px, bid_sz = book.bid_px[row, 0].astype(np.int64), book.bid_sz[row, 0].astype(np.int64)
    ask_px, ask_sz = book.ask_px[row, 0].astype(np.int64), book.ask_sz[row, 0].astype(np.int64)
    trades = (prints.price_ticks, prints.lots, prints.side)
    return StepMarket(int(grid[0]), bid_px, bid_sz, ask_px, ask_sz, trade_at, *trades)


@njit(cache=True)
def work(market, start, side, lots, slices, slice_steps, rule, threshold, rest_delay, log):
    """Shortfall in bps, passive share, filled lots and rows of `log` of one parent from grid index `start`.

    `log (L, 4) float64` takes the first L fills: step, price in ticks, lots, 1 for one at rest.

    A crossing decided at step i meets the best price of step i + 1; an order to rest joins the back of the queue shown
    at step i + `rest_delay`. A resting order advances by trades at its price, by trades through it, and by what the
    queue shrinks to; it fills whole where the opposite best price reaches it.
    """
    own_px, own_sz = (market.bid_px, market.bid_sz) if side > 0 else (market.ask_px, market.ask_sz)
    opp_px, opp_sz = (market.ask_px, market.ask_sz) if side > 0 else (market.bid_px, market.bid_sz)
    arrival = 0.5 * (own_px[start] + opp_px[start])
    chunk_lots = np.zeros(_CHUNKS, np.int64)
    chunk_ahead = np.zeros(_CHUNKS, np.int64)
    chunks, price = 0, 0
    filled, passive, cost = 0, 0, 0.0
    logged = 0
    cross, want_px, want_lots = 0, -1, 0  # in flight: lots to take, and what shall rest where (-1: as it is)
    steps = slices * slice_steps
    for k in range(steps + 2):
        i = start + k
        if chunks > 0:
            got = 0
            for t in range(market.trade_at[i], market.trade_at[i + 1]):
                if market.trade_side[t] != side:
                    through = side * (price - market.trade_px[t])
                    got += _trade(chunk_lots, chunk_ahead, chunks, through, market.trade_sz[t])
            for j in range(chunks):
                if own_px[i] == price:
                    chunk_ahead[j] = min(chunk_ahead[j], own_sz[i])
                elif side * (price - own_px[i]) > 0:
                    chunk_ahead[j] = 0
                if side * (opp_px[i] - price) <= 0:
                    got += chunk_lots[j]
                    chunk_lots[j] = 0
            filled, passive, cost = filled + got, passive + got, cost + got * price
            logged = _note(log, logged, k, price, got, 1)
            want_lots = max(0, want_lots - got)  # what was filled meanwhile comes off the order in flight
        if cross > 0:
            take = min(cross, lots - filled)
            filled, cost, cross = filled + take, cost + take * opp_px[i], 0
            logged = _note(log, logged, k, opp_px[i], take, 0)
        if rest_delay > 0 and want_px >= 0:
            open_lots = min(want_lots, lots - filled)
            price, chunks = _rest(chunk_lots, chunk_ahead, chunks, price, want_px, open_lots, own_px[i], own_sz[i])
        if filled == lots or k > steps:
            break
        want_px = -1
        if k == steps:
            cross, want_px, want_lots = lots - filled, own_px[i], 0
        elif rule == TWAP_MARKET:
            if k % slice_steps == 0:
                cross = _scheduled(lots, k // slice_steps, slices) - filled
        else:
            due = max(0, _scheduled(lots, k // slice_steps, slices) - filled)
            want_px, want_lots = own_px[i], due
            if chunks > 0 and side * (price - own_px[i]) > 0:
                want_px = price  # nobody else is left at our price, so it is the best one
            if rule == TWAP_PASSIVE and k % slice_steps == 0:
                cross = max(0, _scheduled(lots, k // slice_steps - 1, slices) - filled)
                want_lots = due - cross
            if rule == IMBALANCE and opp_sz[i] < threshold * (opp_sz[i] + own_sz[i]):
                cross, want_lots = due, 0
        if rest_delay == 0 and want_px >= 0:
            price, chunks = _rest(chunk_lots, chunk_ahead, chunks, price, want_px, want_lots, own_px[i], own_sz[i])
    return 1e4 * side * (cost / lots - arrival) / arrival, passive / lots, filled, logged


@njit(cache=True)
def _note(log, logged, step, price, lots, at_rest):
    if lots > 0 and logged < len(log):
        log[logged, 0], log[logged, 1], log[logged, 2], log[logged, 3] = step, price, lots, at_rest
        logged += 1
    return logged


@njit(cache=True)
def _scheduled(lots, step, slices):
    return lots * min(max(step + 1, 0), slices) // slices


@njit(cache=True)
def _trade(chunk_lots, chunk_ahead, chunks, through, size):
    """Lots of ours that a trade of `size` fills; `through` ticks beyond our price (0: at it, below: short of it)."""
    if through < 0:
        return 0
    got = 0
    for j in range(chunks):
        ahead = 0 if through > 0 else chunk_ahead[j]
        hit = min(chunk_lots[j], max(0, size - got - ahead))
        chunk_ahead[j] = max(0, ahead - (size - got))
        chunk_lots[j] -= hit
        got += hit
    return got


@njit(cache=True)
def _rest(chunk_lots, chunk_ahead, chunks, price, want_px, want_lots, own_px, own_sz):
    """Let `want_lots` rest at `want_px`: what rests there already keeps its place, what is new joins the back."""
    if want_px != price:
        chunks = 0
    there = 0
    for j in range(chunks):
        there += chunk_lots[j]
    for j in range(chunks - 1, -1, -1):  # fewer lots: the last to come leave first
        away = min(chunk_lots[j], max(0, there - want_lots))
        chunk_lots[j] -= away
        there -= away
    if there == 0:
        chunks = 0
    if want_lots > there:
        j = min(chunks, _CHUNKS - 1)
        chunk_lots[j] = want_lots - there
        chunk_ahead[j] = own_sz if want_px == own_px else 0
        chunks = j + 1
    return want_px, chunks
