"""The features stage: clean events to book states, and those to feature values, one Spark task a partition each."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.parts import Part, Parts, parts_or_scratch, read_index, write_index
from feature_repo.pipeline.book_tasks import BOOK_FILE, FEATURES_FILE, make_book, make_features, make_leaves
from feature_repo.pipeline.kernels import FEATURE_UNITS, FEATURE_WINDOW_NS, FEATURES, NS
from feature_repo.pipeline.leaves import LEAVES_FILE
from feature_repo.pipeline.volume_curve import DayVolume, VolumeCurve
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import Instrument, load_instruments, save_instruments
from feature_repo.ticks.schema import schema_problem

EVENTS_FILE = "events.parquet"
CURVE_DAYS = 5
"""Trailing days of the same symbol, in the dataset, that the usual volume of a day is learned from."""


@dataclass(frozen=True)
class _Day:
    """One partition that the stage works on."""

    partition: Partition
    events: Path
    events_key: str
    instrument: Instrument

    @property
    def facts(self) -> dict[str, Any]:
        """What the results depend on beside the events."""
        return {"partition": vars(self.partition), "instrument": asdict(self.instrument)}


def build_features(
    silver_dir: Path,
    out_dir: Path,
    spark: Any,
    progress: Progress = no_progress,
    parts: Parts | None = None,
    excluded: frozenset[Partition] = frozenset(),
) -> dict[str, Any]:
    """Write `book.parquet` and `features.parquet` for each partition, `feature_spec.json`, `instruments.json`.

    Partitions known order by order, or with a halt, have `leaves.parquet` too (`feature_repo.pipeline.leaves`).

    Books come first, for a day's features use the volume curve of up to CURVE_DAYS earlier days of the same symbol. A
    partition found in `parts` is not done again; one in `excluded` (set aside by the gate) is left out.

    Returns `{"rows", "book_rows", "features", "partitions": [{venue, symbol, date, rows, book_rows, curve_days,
    unknown_order, ...}]}`, the last ones being the counts of `BookCounts`. Raises InputError naming the symbol and day
    whose book never has two sides, or whose events cannot be replayed.
    """
    days = _plan(silver_dir, excluded)
    instruments = {day.instrument.instrument_id: day.instrument for day in days}
    save_instruments(list(instruments.values()), out_dir)
    spec = {"features": FEATURE_UNITS, "window_ns": FEATURE_WINDOW_NS, "grid_ns": NS, "dtype": "float32"}
    (out_dir / "feature_spec.json").write_text(json.dumps(spec, indent=1) + "\n")
    with parts_or_scratch(parts, out_dir) as store:
        jobs = {day: partial(_book_part, day, spark, store) for day in days}
        books = _run(jobs, spark, lambda done: progress(done, 2 * len(days), "books and features"))
        jobs = {day: partial(_features_part, day, books, spark, store) for day in days}
        made = _run(jobs, spark, lambda done: progress(len(days) + done, 2 * len(days), "books and features"))
        jobs = {day: partial(_leaves_part, day, books[day], spark, store) for day in days if _has_leaves(books[day])}
        leaves = _run(jobs, spark, lambda done: None)
        for day, part in leaves.items():
            part.link(LEAVES_FILE, day.partition.folder(out_dir) / LEAVES_FILE)
        for day in days:
            books[day].link(BOOK_FILE, day.partition.folder(out_dir) / BOOK_FILE)
            made[day].link(FEATURES_FILE, day.partition.folder(out_dir) / FEATURES_FILE)
    write_index({day.partition: part.key for day, part in made.items()}, out_dir)
    results = [
        {
            **vars(day.partition),
            **made[day].summary,
            "book_rows": books[day].summary["rows"],
            **books[day].summary["counts"],
        }
        for day in days
    ]
    return {
        "rows": sum(item["rows"] for item in results),
        "book_rows": sum(item["book_rows"] for item in results),
        "features": list(FEATURES),
        "partitions": results,
    }


def _plan(silver_dir: Path, excluded: frozenset[Partition]) -> list[_Day]:
    """The partitions to work on, sorted; raises InputError where there is none or one is no event file."""
    instruments = load_instruments(silver_dir)
    found = list_partitions(silver_dir, EVENTS_FILE)
    if not found:
        raise InputError(f"{silver_dir}: no {EVENTS_FILE} below it; run the clean stage again")
    partitions = [partition for partition in found if partition not in excluded]
    if not partitions:
        raise InputError(f"{silver_dir}: the gate set every one of its {len(found)} symbol-days aside; none is left")
    keys = read_index(silver_dir, EVENTS_FILE, partitions)
    days = []
    for partition in partitions:
        path = partition.folder(silver_dir) / EVENTS_FILE
        if partition.instrument_id not in instruments:
            raise InputError(f"{path}: instruments.json knows no {partition.instrument_id}; run ingest again")
        try:
            problem = schema_problem(pq.read_schema(path))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not a readable event file ({error}); run the clean stage again") from error
        if problem:
            raise InputError(f"{path}: not the event schema: {problem}")
        days.append(_Day(partition, path, keys[partition], instruments[partition.instrument_id]))
    return days


def _run(jobs: Mapping[_Day, Callable[[], Part]], spark: Any, done: Callable[[int], None]) -> dict[_Day, Part]:
    """Run every job, as many at once as Spark has cores; the first failure ends it and is raised."""
    at_once = max(1, min(len(jobs), spark.sparkContext.defaultParallelism))
    made: dict[_Day, Part] = {}
    done(0)
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        waiting = {pool.submit(job): day for day, job in jobs.items()}
        try:
            for future in as_completed(waiting):
                made[waiting[future]] = future.result()
                done(len(made))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def _book_part(day: _Day, spark: Any, parts: Parts) -> Part:
    """The book of one partition; its summary has `rows`, `counts` and `volume`, the lots by bucket of the session."""
    key = parts.key(part="book", events=day.events_key, **day.facts)
    return parts.build(key, partial(make_book, spark, day.events, day.partition, day.instrument))


def _has_leaves(book: Part) -> bool:
    return bool(book.summary["orders"] or book.summary["halts"])


def _leaves_part(day: _Day, book: Part, spark: Any, parts: Parts) -> Part:
    """What left the queues of one partition; its summary has `rows`."""
    key = parts.key(part="leaves", book=book.key, **day.facts)
    by_order = book.summary["orders"] > 0
    return parts.build(key, partial(make_leaves, spark, day.events, day.partition, day.instrument, by_order))


def _features_part(day: _Day, books: Mapping[_Day, Part], spark: Any, parts: Parts) -> Part:
    """The features of one partition, with the volume curve of the days before it."""
    before = _days_before(day, list(books))
    volumes = [DayVolume(item.partition.date, np.array(books[item].summary["volume"], np.int64)) for item in before]
    curve = VolumeCurve.from_days(volumes, day.partition.date)
    key = parts.key(part="features", book=books[day].key, earlier=[books[item].key for item in before], **day.facts)
    book = books[day].folder / BOOK_FILE
    return parts.build(key, partial(make_features, spark, book, day.partition, day.instrument, curve))


def _days_before(day: _Day, days: Sequence[_Day]) -> list[_Day]:
    """The newest CURVE_DAYS days of the same symbol before `day`, oldest first."""
    mine = day.partition
    same = [item for item in days if item.partition.instrument_id == mine.instrument_id]
    earlier = [item for item in same if item.partition.date < mine.date]
    return sorted(earlier, key=lambda item: item.partition.date)[-CURVE_DAYS:]
