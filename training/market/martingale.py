"""A market in which nothing can be known: the mid is a random walk; trades, sizes and times are drawn apart from it.

Whatever a policy does there, its fills marked to the mid after the fill have a timing cost of zero in the mean: with q
the lots filled so far, sum of M dq = M_T q_T - sum of q dM, whose last term is the gain of a bet on a martingale. The
proof needs that the whole parent is filled and that a fill says nothing of the next move; it holds for resting orders
too. A pipeline that finds skill here has a leak, and a fill engine that finds a timing cost looks ahead or behind.
"""

from dataclasses import dataclass

import numpy as np

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.books import Book
from feature_repo.pipeline.kernels import SIGNAL_V1, compute_features
from feature_repo.ticks.instruments import Instrument, SessionWindow
from serving.contracts.observation import FORECAST_HORIZONS_S
from training.market.day import MarketDay, with_history

NS = 1_000_000_000
DEPTH = 3


@dataclass(frozen=True)
class MartingaleOptions:
    """One day of the market; events are a Poisson stream."""

    hours: float = 2.0
    events_per_s: float = 5.0
    move_share: float = 0.1  # of the events: the whole book moves a tick, up or down with equal chance
    trade_share: float = 0.4  # of the events: a trade at a best price, bought or sold with equal chance
    spread_ticks: int = 2
    mean_trade_lots: float = 20.0
    mean_level_lots: float = 60.0
    start_ticks: int = 10_000
    informed: float = 0.0  # share of the moves that a trade of their direction goes before: above 0, fills are informed

    def __post_init__(self) -> None:
        """Refuse a market without events or prices."""
        shares = (self.move_share, self.trade_share, self.informed)
        if not all(0 <= share <= 1 for share in shares) or self.move_share + self.trade_share > 1:
            raise InputError(f"move_share, trade_share, informed {shares}: from 0 to 1, the first two together too")
        positive = (self.hours, self.events_per_s, self.spread_ticks, self.mean_trade_lots, self.mean_level_lots)
        if min(positive) <= 0 or self.hours > 12:
            raise InputError(f"hours, events_per_s, spread, mean lots {positive}: above 0, hours 12 at most")


def martingale_day(
    rng: np.random.Generator,
    options: MartingaleOptions = MartingaleOptions(),  # noqa: B008 - frozen
    date: str = "2024-01-02",
) -> MarketDay:
    """One day; the same state of `rng` gives the same bytes. Orders arrive 10 ms after they are sent."""
    closes = 10 * 3600 + round(options.hours * 3600)
    window = SessionWindow("10:00:00", f"{closes // 3600:02d}:{closes // 60 % 60:02d}:{closes % 60:02d}")
    instrument = Instrument(
        venue="MARTINGALE", symbol="M", tick_size=0.01, lot_size=1, currency="USD", timezone="UTC",
        windows=(window,), depth=DEPTH, snapshot_data=False, latency_ns=10_000_000,
    )  # fmt: skip
    windows = list(instrument.session_ns(date))
    book = martingale_book(rng, options, *windows[0])
    stamps, features, valid = compute_features(book, windows)
    whole = valid != 0
    stamps, features = stamps[whole], np.ascontiguousarray(features[whole, : len(SIGNAL_V1)])
    day = MarketDay(
        instrument=instrument,
        partition=Partition(instrument.venue, instrument.symbol, date),
        book=book,
        feature_names=SIGNAL_V1,
        feature_ns=stamps,
        features=features,
        horizons_s=FORECAST_HORIZONS_S,
        forecasts=np.zeros((len(stamps), len(FORECAST_HORIZONS_S)), np.float32),
        forecast_missing=np.ones(len(stamps), np.float32),
        windows=tuple(windows),
    )
    return with_history(day, [])


def martingale_book(rng: np.random.Generator, options: MartingaleOptions, open_ns: int, close_ns: int) -> Book:
    """The book from `open_ns` to `close_ns`: sizes of all levels are drawn anew at every event, apart from all else."""
    most = max(2, rng.poisson((close_ns - open_ns) / NS * options.events_per_s))
    ts_ns = np.sort(rng.integers(open_ns, close_ns, most))
    ts_ns[0] = open_ns  # the first event opens the book
    kind = rng.random(most)
    move = np.where(kind < options.move_share, rng.choice([-1, 1], most), 0)
    trade = np.where((kind >= options.move_share) & (kind < options.move_share + options.trade_share), 1, 0)
    side = trade * rng.choice([-1, 1], most)
    move[0] = side[0] = 0
    announced = np.flatnonzero((move[1:] != 0) & (rng.random(most - 1) < options.informed) & (move[:-1] == 0))
    side[announced] = np.where(announced > 0, move[announced + 1], 0)
    bid = np.maximum(options.start_ticks + np.cumsum(move), DEPTH + 1).astype(np.int32)
    ask = bid + options.spread_ticks
    levels = np.arange(DEPTH, dtype=np.int32)

    def lots(mean: float, shape: tuple[int, ...]) -> np.ndarray:
        return rng.geometric(min(1.0, 1.0 / mean), shape).astype(np.int32)

    traded = lots(options.mean_trade_lots, (most,)) * (side != 0)
    return Book(
        ts_ns.astype(np.int64),
        bid[:, None] - levels,
        lots(options.mean_level_lots, (most, DEPTH)),
        ask[:, None] + levels,
        lots(options.mean_level_lots, (most, DEPTH)),
        np.where(side > 0, ask, np.where(side < 0, bid, 0)).astype(np.int32),
        traded.astype(np.int32),
        side.astype(np.int8),
    )
