"""Books for the feature tests: random, by hand, and real days read in place."""

from pathlib import Path

import numpy as np

from feature_repo.pipeline.books import Book, build_book
from feature_repo.pipeline.kernels import FEATURES, NS, FeatureState, Grid

OPEN = 1_000_000 * NS
EVERY_SECOND = Grid()


def random_book(seed: int, seconds: int, depth: int = 3, price: int = 1000) -> Book:
    """Three rows a second from two seconds before OPEN on, traded in a third of them."""
    rng = np.random.default_rng(seed)
    rows = seconds * 3
    ts_ns = np.sort(OPEN - 2 * NS + rng.integers(0, (seconds + 4) * NS, rows))
    bid = price + np.cumsum(rng.integers(-1, 2, rows))
    ask = bid + rng.integers(1, 4, rows)
    levels = np.arange(depth)
    sizes = rng.integers(1, 90, (2, rows, depth))
    traded = rng.random(rows) < 0.3
    return Book(
        ts_ns,
        (bid[:, None] - levels).astype(np.int32),
        sizes[0].astype(np.int32),
        (ask[:, None] + levels).astype(np.int32),
        sizes[1].astype(np.int32),
        np.where(traded, bid, 0).astype(np.int32),
        np.where(traded, rng.integers(1, 20, rows), 0).astype(np.int32),
        np.where(traded, rng.choice([-1, 0, 1], rows), 0).astype(np.int8),
    )


def tiny_book(rows: list[tuple]) -> Book:
    """Rows are (seconds after OPEN, bid, bid size, ask, ask size, traded lots, aggressor); one level."""
    ts, bid, qb, ask, qa, lots, side = (np.array(column) for column in zip(*rows, strict=True))
    column = [values[:, None].astype(np.int32) for values in (bid, qb, ask, qa)]
    traded_at = np.where(lots > 0, bid, 0).astype(np.int32)
    return Book((OPEN + ts * NS).astype(np.int64), *column, traded_at, lots.astype(np.int32), side.astype(np.int8))


def window(seconds: int) -> list[tuple[int, int]]:
    """One session window from OPEN on."""
    return [(OPEN, OPEN + seconds * NS)]


def by_name(features: np.ndarray, row: int) -> dict[str, float]:
    """One feature vector as {name: value}."""
    return dict(zip(FEATURES, features[row].tolist(), strict=True))


def replayed(book: Book, windows, earlier=None, grid: Grid = EVERY_SECOND, microprice=None):
    """As `compute_features`, but through FeatureState row by row, as serving would."""
    live = FeatureState(windows, book.depth, earlier, grid, microprice)
    packed = np.stack([book.bid_px, book.bid_sz, book.ask_px, book.ask_sz], axis=1)
    stamps, vectors, valid, row = [], [], [], 0

    def feed(until: int) -> None:
        nonlocal row
        while row < len(book) and book.ts_ns[row] <= until:
            now = int(book.ts_ns[row])
            if live.on_row(now, packed[row], int(book.trade_sz[row]), int(book.trade_side[row])):
                close(now)
            row += 1

    def close(now: int) -> None:
        vector, whole = live.close_bar(now)
        stamps.append(now)
        vectors.append(vector)
        valid.append(whole)

    for opens, closes in windows:
        feed(opens)
        live.open_window()
        if grid.kind == "time":
            for now in range(opens + grid.step * NS, closes + 1, grid.step * NS):
                feed(now)
                close(now)
        feed(closes)
    return np.array(stamps, np.int64), np.array(vectors, np.float32), np.array(valid, np.int8)


def real_book(source: str, folder: Path, symbol: str, day: str) -> tuple[Book, list[tuple[int, int]]]:
    """The book of a real day within its session windows, and the windows; nothing is copied."""
    import pyarrow as pa

    from feature_repo.ticks.reader import IngestRequest, ReadCount
    from feature_repo.ticks.registry import get_reader
    from feature_repo.ticks.schema import EVENT_SCHEMA

    reader, request = get_reader(source), IngestRequest(source, folder, (symbol,), day, day)
    (instrument,) = [item for item in reader.instruments(request) if item.symbol == symbol]
    (plan,) = reader.plan(request)
    events = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
    ts_ns, windows = events.column("ts_event_ns").to_numpy(), instrument.session_ns(day)
    inside = np.any([(ts_ns >= opens) & (ts_ns < closes) for opens, closes in windows], axis=0)
    events = events.filter(pa.array(inside)).sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])
    return build_book(events, instrument.depth)[0], windows
