"""Small hand-made market days for tests of the engine, the environments and the baselines."""

from types import SimpleNamespace

import numpy as np

from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, SessionWindow
from serving.contracts.observation import FORECAST_HORIZONS_S, MARKET_NAMES
from training.market.day import MarketDay, with_history

NS = 1_000_000_000


def instrument(depth=3, snapshot=False, latency_ns=10_000_000):
    return Instrument(
        venue="TEST", symbol="T", tick_size=0.01, lot_size=1, currency="USD", timezone="UTC",
        windows=(SessionWindow("10:00:00", "12:00:00"),), depth=depth, snapshot_data=snapshot, latency_ns=latency_ns,
    )  # fmt: skip


def make_book(rows, depth=3):
    """Rows are (ts_ns, bids [(px, sz), ...], asks [...], trade (px, sz, side) or None)."""
    count = len(rows)
    book = SimpleNamespace(ts_ns=np.array([row[0] for row in rows], np.int64))
    for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"):
        setattr(book, name, np.zeros((count, depth), np.int32))
    book.trade_px, book.trade_sz = np.zeros(count, np.int32), np.zeros(count, np.int32)
    book.trade_side = np.zeros(count, np.int8)
    for i, (_, bids, asks, trade) in enumerate(rows):
        for name, levels in (("bid", bids), ("ask", asks)):
            for k, (px, sz) in enumerate(levels):
                getattr(book, f"{name}_px")[i, k], getattr(book, f"{name}_sz")[i, k] = px, sz
        if trade:
            book.trade_px[i], book.trade_sz[i], book.trade_side[i] = trade
    return book


def make_day(rows, depth=3, snapshot=False, latency_ns=10_000_000, date="2024-01-02", features=None):
    item = instrument(depth, snapshot, latency_ns)
    windows = tuple(item.session_ns(date))
    seconds = np.arange(windows[0][0], windows[0][1], NS, dtype=np.int64)
    if features is None:
        features = np.zeros((len(seconds), len(MARKET_NAMES)), np.float32)
    day = MarketDay(
        instrument=item, partition=Partition("TEST", "T", date), book=make_book(rows, depth),
        feature_names=MARKET_NAMES, feature_ns=seconds, features=features, horizons_s=FORECAST_HORIZONS_S,
        forecasts=np.zeros((len(seconds), len(FORECAST_HORIZONS_S)), np.float32),
        forecast_missing=np.ones(len(seconds), np.float32), windows=windows,
    )  # fmt: skip
    return with_history(day, [])


def open_ns(date="2024-01-02"):
    return instrument().session_ns(date)[0][0]


def random_rows(rng, count=4000, depth=3, step_ns=2 * NS, start_mid=1000):
    """A random but sane book: spread 1 to 3 ticks, random sizes and trades on either side, mid a random walk."""
    ts, rows, bid = open_ns(), [], start_mid
    for _ in range(count):
        bid = max(50, bid + int(rng.integers(-1, 2)) * int(rng.random() < 0.2))
        spread = 1 + int(rng.integers(0, 3)) * int(rng.random() < 0.3)
        ask = bid + spread
        bids = [(bid - k, int(rng.integers(1, 60))) for k in range(depth)]
        asks = [(ask + k, int(rng.integers(1, 60))) for k in range(depth)]
        trade = None
        if rng.random() < 0.5:
            side = int(rng.integers(-1, 2))
            px = ask if side > 0 else bid if side < 0 else int(rng.choice([bid, ask]))
            trade = (px, int(rng.integers(1, 80)), side)
        rows.append((ts, bids, asks, trade))
        ts += int(rng.integers(0, 2 * step_ns))
    return rows
