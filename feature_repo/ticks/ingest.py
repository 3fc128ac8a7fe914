"""Writes what a reader yields as bronze: one Parquet file a partition, and a manifest of every input."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DiskFullError, InputError
from feature_repo.lake import Partition
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.instruments import save_instruments
from feature_repo.ticks.reader import IngestRequest, PartitionPlan, ReadCount
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA

ROW_GROUP_ROWS = 262_144
"""Rows of a Parquet row group; fixed, so that equal events give equal bytes however the reader batches them."""


BRONZE_BYTES_PER_INPUT_BYTE = 4
"""Zipped CSV grows to 3.2 times its size, vendor Parquet to 1.8 times."""


def ingest(request: IngestRequest, out_dir: Path, progress: Progress = no_progress) -> dict[str, Any]:
    """Read what `request` asks for into `out_dir`: partitions of `events.parquet`, `manifest.json`, `instruments.json`.

    Returns `{"source", "vendor_rows", "rows", "inputs": [{"path", "sha256", "bytes", "vendor_rows"}], "partitions":
    [{"venue", "symbol", "date", "rows", "vendor_rows"}]}`. The same inputs give the same bytes. Raises InputError for
    anything wrong with the input, an empty session included, and DiskFullError where the disk fills.
    """
    reader = get_reader(request.source)
    plans = reader.plan(request)
    planned = {plan.partition.instrument_id for plan in plans}
    partitions: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    counted: dict[str, dict[str, int]] = {}  # rows by input, or by what a generator made, of each partition
    seen: dict[str, Path] = {}  # input by sha256
    try:
        save_instruments([item for item in reader.instruments(request) if item.instrument_id in planned], out_dir)
        for done, plan in enumerate(plans):
            progress(done, len(plans), "symbol-days")
            count = ReadCount()
            rows = _write_partition(plan.partition, reader.read(plan, count), out_dir)
            _require_rows(plan, rows, count)
            partitions.append({**vars(plan.partition), "rows": rows, "vendor_rows": count.total})
            counted["/".join(vars(plan.partition).values())] = count.vendor_rows
            for path in plan.inputs:
                item = _describe(path, request.data, count)
                twin = seen.setdefault(item["sha256"], path)
                if twin != path:
                    raise InputError(f"{path}: the same bytes as {twin}; one of them is a copy under a wrong name")
                inputs.append(item)
        progress(len(plans), len(plans), "symbol-days")
        summary = {
            "source": request.source,
            "vendor_rows": sum(item["vendor_rows"] for item in partitions),
            "rows": sum(item["rows"] for item in partitions),
            "inputs": sorted(inputs, key=lambda item: item["path"]),
            "partitions": partitions,
        }
        manifest = {**summary, "counted": counted, "options": {**request.options, **_common_options(plans)}}
        (out_dir / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(out_dir).free
        needed = BRONZE_BYTES_PER_INPUT_BYTE * sum(path.stat().st_size for plan in plans for path in plan.inputs)
        wanted = f"; these inputs need about {needed:,} bytes" if needed else ""
        raise DiskFullError(
            f"{out_dir}: disk full while writing bronze, {free:,} bytes free{wanted}; free space there and run again"
        ) from error
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


def _write_partition(partition: Partition, batches: Iterator[pa.RecordBatch], out_dir: Path) -> int:
    """Write a partition's events in row groups of a fixed size, numbering them; gives their count."""
    folder = partition.folder(out_dir)
    folder.mkdir(parents=True)
    rows = 0
    with pq.ParquetWriter(folder / "events.parquet", EVENT_SCHEMA, compression="zstd") as writer:
        for group in _regroup(batches):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


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


def _describe(path: Path, data: Path | None, count: ReadCount) -> dict[str, Any]:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    shown = path.relative_to(data) if data is not None and path.is_relative_to(data) else Path(path.name)
    return {
        "path": shown.as_posix(),
        "sha256": digest,
        "bytes": path.stat().st_size,
        "vendor_rows": count.vendor_rows.get(path.name, 0),
    }


def _common_options(plans: list[PartitionPlan]) -> dict[str, Any]:
    """Options that the reader filled in itself and that hold for every partition alike."""
    first = dict(plans[0].options)
    return {key: value for key, value in first.items() if all(plan.options.get(key) == value for plan in plans)}
