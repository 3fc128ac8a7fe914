"""`shortfall bench features`: what the whole feature set costs, one event at a time and in batch, on one core."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InputError
from feature_repo.ticks.reader import IngestRequest
from flows.bench.machine import Row, result

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book
    from feature_repo.pipeline.volume_curve import VolumeCurve

SEED, DEPTH = 7, 5
REPEATS = 7
LIVE_EVENTS = 50_000
INCREMENTAL_TARGET_US = 2.0
BATCH_TARGET = 5e6
SYMBOL = "AIG"

Windows = list[tuple[int, int]]


def run(data: Path | None = None) -> dict[str, Any]:
    """Measure on a day of the seeded synthetic market, and on the first AIG day of the Lean folder `data` where given.

    An event is a book row: a change or a trade. `incremental us per event` is the time of `FeatureState.on_row` called
    from Python, with the closes of the seconds that pass meanwhile; `batch events/s` is book rows over the time of
    `compute_features`. Both compute every feature: a flat volume curve stands for earlier days. Kernels are compiled
    before the clock starts; each figure is the median of REPEATS runs, taken in turn. Raises InputError where `data`
    holds no AIG quotes.
    """
    from feature_repo.pipeline.kernels import FEATURES

    books = {"": synthetic_day()}
    if data is not None:
        books[f", {SYMBOL}"] = lean_day(data)
    rows = []
    for name, (book, windows) in books.items():
        live_us, batch, slow = measure(book, windows)
        rows += [
            Row(
                f"incremental us per event{name}",
                live_us,
                "us",
                INCREMENTAL_TARGET_US,
                live_us <= INCREMENTAL_TARGET_US,
            ),
            Row(f"batch events/s{name}", batch, "events/s", BATCH_TARGET, batch >= BATCH_TARGET),
            Row(f"close us per bar{name}", slow, "us"),
            Row(f"events{name}", len(book), "rows"),
        ]
    rows.append(Row("features", len(FEATURES), "features"))
    return result(rows)


def measure(book: "Book", windows: Windows, repeats: int = REPEATS) -> tuple[float, float, float]:
    """Microseconds an event one at a time, events per second in batch, microseconds a close; medians."""
    from feature_repo.pipeline.kernels import compute_features

    curve = flat_curve(book, windows)
    live = _live(book, windows, curve)
    live()
    compute_features(book, windows, curve)
    each, batch, closes = [], [], []
    for _ in range(repeats):
        seconds, events, closing, bars = live()
        each.append(1e6 * seconds / events)
        closes.append(1e6 * closing / bars)
        start = time.perf_counter()
        compute_features(book, windows, curve)
        batch.append(len(book) / (time.perf_counter() - start))
    return statistics.median(each), statistics.median(batch), statistics.median(closes)


def _live(book: "Book", windows: Windows, curve: "VolumeCurve") -> Callable[[], tuple[float, int, float, int]]:
    """A run over the first LIVE_EVENTS rows as a feed brings them: seconds in all, events, seconds closing, bars."""
    import numpy as np

    from feature_repo.pipeline.kernels import NS, FeatureState

    (opens, closes), *_ = windows
    first, last = (int(np.searchsorted(book.ts_ns, moment, side="right")) for moment in (opens, closes))
    part = slice(first, min(last, first + LIVE_EVENTS))
    levels = list(np.stack([book.bid_px[part], book.bid_sz[part], book.ask_px[part], book.ask_sz[part]], axis=1))
    columns = (book.ts_ns[part].tolist(), levels, book.trade_sz[part].tolist(), book.trade_side[part].tolist())
    if not levels:
        raise InputError("the first session window holds no book row to measure with")

    def run_once() -> tuple[float, int, float, int]:
        state = FeatureState(windows, book.depth, curve)
        state.open_window()
        on_row, second, closing, bars = state.on_row, opens + NS, 0.0, 0
        start = time.perf_counter()
        for ts_ns, row, lots, side in zip(*columns, strict=True):
            while second < ts_ns:
                before = time.perf_counter()
                state.close_bar(second)
                closing += time.perf_counter() - before
                second += NS
                bars += 1
            on_row(ts_ns, row, lots, side)
        return time.perf_counter() - start, len(levels), closing, max(bars, 1)

    return run_once


def flat_curve(book: "Book", windows: Windows) -> "VolumeCurve":
    """A usual day that trades evenly what this day trades: for the cost of reading it, not for its values."""
    import numpy as np

    from feature_repo.pipeline.volume_curve import VolumeCurve, buckets_of

    buckets = buckets_of(sum(closes - opens for opens, closes in windows))
    return VolumeCurve(np.full(buckets, 1.0 / buckets), float(book.trade_sz.sum(dtype=np.int64)), 1)


def synthetic_day() -> tuple["Book", Windows]:
    """Book of five levels of one day of the seeded synthetic market, and its session windows."""
    import pyarrow as pa

    from feature_repo.pipeline.books import build_book
    from feature_repo.ticks.batches import event_batch
    from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events

    reader, request = SyntheticReader(), IngestRequest("synthetic", options={"days": 1, "seed": SEED, "dirt": 0.0})
    (plan,), (instrument,) = reader.plan(request), reader.instruments(request)
    events = clean_events(SyntheticOptions.parse(plan.options), plan.partition)
    book, _ = build_book(pa.Table.from_batches([event_batch(events, 0)]), DEPTH)
    return book, instrument.session_ns(plan.partition.date)


def lean_day(data: Path) -> tuple["Book", Windows]:
    """Book of the first AIG day below a Lean folder, within its session, and its session windows."""
    import numpy as np
    import pyarrow as pa

    from feature_repo.pipeline.books import build_book
    from feature_repo.ticks.reader import ReadCount
    from feature_repo.ticks.registry import get_reader
    from feature_repo.ticks.schema import EVENT_SCHEMA

    reader, request = get_reader("lean"), IngestRequest("lean", data, (SYMBOL,))
    plans = sorted(reader.plan(request), key=lambda plan: plan.partition.date)
    if not plans:
        raise InputError(f"{data}: no day of {SYMBOL}; give --data the folder that holds equity/usa/tick")
    plan = plans[0]
    instrument = next(item for item in reader.instruments(request) if item.symbol == SYMBOL)
    events = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
    windows = instrument.session_ns(plan.partition.date)
    ts_ns = events.column("ts_event_ns").to_numpy()
    inside = np.any([(ts_ns >= opens) & (ts_ns < closes) for opens, closes in windows], axis=0)
    events = events.filter(pa.array(inside)).sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])
    return build_book(events, instrument.depth)[0], windows
