"""What the reactive market shows: book rows of the form that the pipeline builds from a vendor's events."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from feature_repo.ticks.instruments import Instrument
from feature_repo.ticks.reactive_tables import QueueReactiveParameters
from training.market.queues import kernel
from training.market.reactive.kernel import next_event, open_market
from training.market.reactive.ladder import SLOT, own_at, price_at
from training.market.reactive.state import NS, REACH, market_seed, new_markets, prepare

if TYPE_CHECKING:
    from training.market.reactive.fit import ReactiveFit

CHUNK = 1 << 16
DEFAULT_DATE = "2025-01-06"


@kernel
def show(m, levels):
    """Write the visible book, own lots included, into `levels (4, K) int32`; True where it changed.

    Rows: bid prices, bid lots, ask prices, ask lots, best first, 0 where there is no level.
    """
    depth, changed = levels.shape[1], False
    for b in range(2):
        k = 0
        for level in range(REACH):
            price = price_at(m, b, level)
            if price < 1 or k == depth:
                break
            lots = m.lots[b, price & SLOT] + own_at(m, b, price)
            if lots > 0:
                if levels[2 * b, k] != price or levels[2 * b + 1, k] != lots:
                    levels[2 * b, k], levels[2 * b + 1, k] = price, lots
                    changed = True
                k += 1
        while k < depth:
            if levels[2 * b + 1, k] != 0:
                changed = True
            levels[2 * b, k] = levels[2 * b + 1, k] = 0
            k += 1
    return changed


@kernel
def play_rows(p, m, until_ns, levels, ts_ns, books, trades):
    """Play up to `until_ns` or until the output is full; rows written. One for each visible change and each trade.

    `levels` holds the last row. `ts_ns (C,)`, `books (C, 4, K)`, `trades (C, 3)`: price, lots, aggressor.
    """
    rows = 0
    while rows < ts_ns.shape[0]:
        if not next_event(p, m, until_ns):
            break
        if show(m, levels) or m.trade_lots > 0:
            ts_ns[rows] = m.now_ns
            for i in range(4):
                for k in range(levels.shape[1]):
                    books[rows, i, k] = levels[i, k]
            if m.trade_lots > 0:
                trades[rows, 0], trades[rows, 1], trades[rows, 2] = m.trade_px, m.trade_lots, m.trade_side
            rows += 1
    return rows


def simulate_book(
    model: "QueueReactiveParameters | ReactiveFit",
    instrument: Instrument,
    seed: int,
    seconds: int,
    *,
    strength: float = 0.0,
    bid: int | None = None,
    date: str = DEFAULT_DATE,
) -> Book:
    """Rows of `seconds` of the market without own orders, from the open of the instrument's first session window.

    `model` are tables or a fit; `bid` is the best bid at the open in ticks (default: a fit's own reference, 10,000 for
    tables); `strength` that of the planted signal. Equal arguments give equal bytes. The first row is the opening book.
    Raises InputError for a session of no length and where `model` knows fewer levels than it needs.
    """
    if seconds < 1:
        raise InputError(f"a session of {seconds} s is too short: ask for at least 1")
    parameters = model if isinstance(model, QueueReactiveParameters) else model.parameters
    reference = bid if bid is not None else getattr(model, "reference_ticks", 10_000)
    depth = min(instrument.depth, parameters.limit.shape[0])
    open_ns = instrument.session_ns(date)[0][0]
    markets = new_markets(1)
    prepare(markets, parameters, strength, open_ns, seconds * NS)
    open_market(parameters, markets[0], market_seed(seed, 0), open_ns, reference)
    levels = np.zeros((4, depth), np.int32)
    show(markets[0], levels)
    parts = [(np.array([open_ns]), levels[None].copy(), np.zeros((1, 3), np.int64))]
    while True:
        part = (np.zeros(CHUNK, np.int64), np.zeros((CHUNK, 4, depth), np.int32), np.zeros((CHUNK, 3), np.int64))
        rows = play_rows(parameters, markets[0], open_ns + seconds * NS, levels, *part)
        parts.append(tuple(column[:rows] for column in part))  # type: ignore[arg-type]
        if rows < CHUNK:
            break
    return _book(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _book(ts_ns: NDArray[np.int64], books: NDArray[np.int32], trades: NDArray[np.int64]) -> Book:
    bid_px, bid_sz, ask_px, ask_sz = (np.ascontiguousarray(books[:, i]) for i in range(4))
    px, lots, side = (trades[:, i] for i in range(3))
    trade_side = side.astype(np.int8)
    return Book(ts_ns, bid_px, bid_sz, ask_px, ask_sz, px.astype(np.int32), lots.astype(np.int32), trade_side)
