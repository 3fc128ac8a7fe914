"""`shortfall bench features`: what the whole feature set costs, one event at a time and in batch, on one core."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    `compute_features`. Both are in time of one core (the thread's processor time), so that what else runs on the
    machine counts little; beside them stands the wall clock. Both compute every feature: a flat volume curve stands for
    earlier days. Kernels are compiled before the clock starts; each figure is the median of REPEATS runs, taken in
    turn. Raises InputError where `data` holds no AIG quotes.
    """
    from feature_repo.pipeline.kernels import FEATURES

    books = {"": synthetic_day()}
    if data is not None:
        books[f", {SYMBOL}"] = lean_day(data)
    rows = []
    for name, (book, windows) in books.items():
        core, wall = measure(book, windows)
        met = core.event_us <= INCREMENTAL_TARGET_US, core.batch >= BATCH_TARGET
        rows += [
            Row(f"incremental us per event{name}", core.event_us, "us", INCREMENTAL_TARGET_US, met[0]),
            Row(f"batch events/s{name}", core.batch, "events/s", BATCH_TARGET, met[1]),
            Row(f"incremental us per event{name}, wall clock", wall.event_us, "us"),
            Row(f"batch events/s{name}, wall clock", wall.batch, "events/s"),
            Row(f"events{name}", len(book), "rows"),
        ]
    rows.append(Row("features", len(FEATURES), "features"))
    return result(rows)


class Speed(NamedTuple):
    """Microseconds an event one at a time, events per second in batch."""

    event_us: float
    batch: float


def measure(book: "Book", windows: Windows, repeats: int = REPEATS) -> tuple[Speed, Speed]:
    """Medians in time of one core, and on the wall clock."""
    from feature_repo.pipeline.kernels import compute_features

    curve = flat_curve(book, windows)
    live, events = _live(book, windows, curve)
    work = live, lambda: compute_features(book, windows, curve)
    seconds: tuple[list[tuple[float, float]], ...] = ([], [])
    for number in range(repeats + 1):
        for call, found in zip(work, seconds, strict=True):
            core_s, wall_s = time.thread_time(), time.perf_counter()
            call()
            if number > 0:  # the first run compiles
                found.append((time.thread_time() - core_s, time.perf_counter() - wall_s))
    each, batch = ([statistics.median(clock) for clock in zip(*found, strict=True)] for found in seconds)
    core, wall = (Speed(1e6 * each[clock] / events, len(book) / batch[clock]) for clock in (0, 1))
    return core, wall


def _live(book: "Book", windows: Windows, curve: "VolumeCurve") -> tuple[Callable[[], None], int]:
    """A run over the first LIVE_EVENTS rows of the first window as a feed brings them, and how many these are."""
    import numpy as np

    from feature_repo.pipeline.kernels import NS, FeatureState

    (opens, closes), *_ = windows
    first, last = (int(np.searchsorted(book.ts_ns, moment, side="right")) for moment in (opens, closes))
    part = slice(first, min(last, first + LIVE_EVENTS))
    levels = list(np.stack([book.bid_px[part], book.bid_sz[part], book.ask_px[part], book.ask_sz[part]], axis=1))
    columns = (book.ts_ns[part].tolist(), levels, book.trade_sz[part].tolist(), book.trade_side[part].tolist())
    if not levels:
        raise InputError("the first session window holds no book row to measure with")

    def run_once() -> None:
        state = FeatureState(windows, book.depth, curve)
        state.open_window()
        on_row, second = state.on_row, opens + NS
        for ts_ns, row, lots, side in zip(*columns, strict=True):
            while second < ts_ns:
                state.close_bar(second)
                second += NS
            on_row(ts_ns, row, lots, side)

    return run_once, len(levels)


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
