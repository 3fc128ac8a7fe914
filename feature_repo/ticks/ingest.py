"""Writes what a reader yields as bronze: one Parquet file a partition, and a manifest of every input."""

import errno
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DiskFullError, InputError
from feature_repo.lake import Partition
from feature_repo.parts import Part, Parts, file_sha256, parts_or_scratch, write_index
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import save_instruments
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount, Reader
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag
from feature_repo.ticks.standing import STANDING_FILE, StandingBook, StandingTracker, read_standing, write_standing

ROW_GROUP_ROWS = 262_144
"""Rows of a Parquet row group; fixed, so that equal events give equal bytes however the reader batches them."""

EVENTS_FILE = "events.parquet"
BRONZE_BYTES_PER_INPUT_BYTE = 4
"""Zipped CSV grows to 3.2 times its size, vendor Parquet to 1.8 times."""


def ingest(
    request: IngestRequest, out_dir: Path, progress: Progress = no_progress, parts: Parts | None = None
) -> dict[str, Any]:
    """Read what `request` asks for into `out_dir`: partitions of `events.parquet`, `manifest.json`, `instruments.json`.

    A partition found in `parts` is not read again. Where a feed goes on from the day before (`plan.previous`), that day
    is read first for its standing book, though it be outside the request.

    Returns `{"source", "vendor_rows", "rows", "inputs": [{"path", "sha256", "bytes", "vendor_rows"}], "partitions":
    [{"venue", "symbol", "date", "rows", "vendor_rows", "skipped_rows", "carried_rows"}]}`: `skipped_rows` are vendor
    rows that give no event (the manifest has the reasons), `carried_rows` events handed on from the day before. Equal
    inputs give equal bytes. Raises InputError for anything wrong with the input, an empty session included, and
    DiskFullError where the disk fills.
    """
    reader = get_reader(request.source)
    plans = reader.plan(request)
    planned = {plan.partition.instrument_id for plan in plans}
    try:
        save_instruments([item for item in reader.instruments(request) if item.instrument_id in planned], out_dir)
        with parts_or_scratch(parts, out_dir) as store:
            read: dict[Partition, Part] = {}
            made: dict[str, Part] = {}
            for done, plan in enumerate(plans):
                progress(done, len(plans), "symbol-days")
                read[plan.partition] = _read_part(reader, request, plan, store, made)
                for file in (EVENTS_FILE, STANDING_FILE):
                    if (read[plan.partition].folder / file).is_file():
                        read[plan.partition].link(file, plan.partition.folder(out_dir) / file)
        progress(len(plans), len(plans), "symbol-days")
        write_index({partition: part.key for partition, part in read.items()}, out_dir)
        return _write_manifest(request, plans, {item: part.summary for item, part in read.items()}, out_dir)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(out_dir).free
        needed = BRONZE_BYTES_PER_INPUT_BYTE * sum(path.stat().st_size for plan in plans for path in plan.inputs)
        wanted = f"; these inputs need about {needed:,} bytes" if needed else ""
        raise DiskFullError(
            f"{out_dir}: disk full while writing bronze, {free:,} bytes free{wanted}; free space there and run again"
        ) from error


def _read_part(
    reader: Reader, request: IngestRequest, plan: PartitionPlan, parts: Parts, made: dict[str, Part]
) -> Part:
    """The part of a plan, after those of the days that it goes on from, oldest first; `made` are this run's by key."""
    chain = [plan]
    while chain[-1].previous is not None:
        chain.append(chain[-1].previous)
    chain.reverse()
    keys: list[str] = []
    for item in chain:
        content = [(path.name, file_sha256(path)) for path in item.inputs]
        partition, before = vars(item.partition), keys[-1] if keys else ""
        keys.append(
            parts.key(source=request.source, partition=partition, inputs=content, options=item.options, previous=before)
        )
    # Of a chain only the newest part that is there is needed: its standing book holds all that went before.
    first = max((at for at, key in enumerate(keys) if key in made or parts.find(key) is not None), default=0)
    part: Part | None = None
    for item, key in zip(chain[first:], keys[first:], strict=True):
        opening = read_standing(part.folder) if part is not None else None
        part = made.get(key) or parts.build(key, partial(_write_partition, reader, item, opening))
        made[key] = part
    assert part is not None  # a chain holds its own plan
    return part


def _write_manifest(
    request: IngestRequest, plans: list[PartitionPlan], summaries: dict[Partition, dict[str, Any]], out_dir: Path
) -> dict[str, Any]:
    """Account for every input; refuse two inputs of equal content. Gives the summary."""
    inputs: dict[Path, dict[str, Any]] = {}
    seen: dict[str, Path] = {}  # input by sha256
    for plan in plans:
        for path in plan.inputs:
            rows = summaries[plan.partition]["counted"].get(path.name, 0)
            item = _describe(path, request.data, rows)
            twin = seen.setdefault(item["sha256"], path)
            if twin != path:
                raise InputError(f"{path}: the same bytes as {twin}; one of them is a copy under a wrong name")
            # A file of many symbols is read once for each of them: each reading counts all of its rows.
            inputs[path] = max(inputs.get(path, item), item, key=lambda entry: entry["vendor_rows"])
    columns = ("rows", "vendor_rows", "skipped_rows", "carried_rows")
    partitions = [
        {**vars(plan.partition), **{name: summaries[plan.partition][name] for name in columns}} for plan in plans
    ]
    summary = {
        "source": request.source,
        "vendor_rows": sum(item["vendor_rows"] for item in partitions),
        "rows": sum(item["rows"] for item in partitions),
        "inputs": sorted(inputs.values(), key=lambda item: item["path"]),
        "partitions": partitions,
    }
    detail = {
        name: {"/".join(vars(item).values()): found[name] for item, found in summaries.items()}
        for name in ("counted", "skipped")
    }
    manifest = {**summary, **detail, "options": {**request.options, **_common_options(plans)}}
    (out_dir / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return summary


def _require_rows(plan: PartitionPlan, rows: int, count: ReadCount) -> None:
    """Refuse a session without events, and one of whose files none was read."""
    empty = [str(path) for path in plan.inputs if not count.vendor_rows.get(path.name)]
    if rows == 0 or empty:
        named = ", ".join(empty) or plan.partition.instrument_id
        raise InputError(
            f"{named}: empty session, no row for {plan.partition.date}; fetch the file again or leave this day out "
            "of --from/--to"
        )


def _write_partition(reader: Reader, plan: PartitionPlan, opening: StandingBook | None, folder: Path) -> dict[str, Any]:
    """Write a partition's events in row groups of a fixed size, and the book that stands at their end; gives counts."""
    count, tracker = ReadCount(), StandingTracker()
    rows = carried = 0
    with pq.ParquetWriter(folder / EVENTS_FILE, EVENT_SCHEMA, compression="zstd") as writer:
        for group in _regroup(reader.read(plan, count, opening)):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
            carried += int(np.count_nonzero(group.column("flags").to_numpy() & int(Flag.CARRIED)))
            for batch in group.to_batches():
                tracker.add(batch)
    _require_rows(plan, rows, count)
    standing = tracker.standing()
    if standing is not None:
        write_standing(standing, folder)
    return {
        "rows": rows,
        "vendor_rows": count.total,
        "skipped_rows": sum(sum(reasons.values()) for reasons in count.skipped.values()),
        "carried_rows": carried,
        "counted": count.vendor_rows,
        "skipped": count.skipped,
    }


def _regroup(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.num_rows
        while held >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(waiting, EVENT_SCHEMA)
            yield table.slice(0, ROW_GROUP_ROWS)
            waiting = table.slice(ROW_GROUP_ROWS).to_batches()
            held -= ROW_GROUP_ROWS
    if held:
        yield pa.Table.from_batches(waiting, EVENT_SCHEMA)


def _describe(path: Path, data: Path | None, vendor_rows: int) -> dict[str, Any]:
    shown = path.relative_to(data) if data is not None and path.is_relative_to(data) else Path(path.name)
    return {
        "path": shown.as_posix(),
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "vendor_rows": vendor_rows,
    }


def _common_options(plans: list[PartitionPlan]) -> dict[str, Any]:
    """Options that the reader filled in itself and that hold for every partition alike."""
    first = dict(plans[0].options)
    return {key: value for key, value in first.items() if all(plan.options.get(key) == value for plan in plans)}
