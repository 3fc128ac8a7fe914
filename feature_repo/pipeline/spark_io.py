"""Reads event files with Spark in the order of the file, and writes a frame as one Parquet file with its own writer.

Spark's writer makes a folder of part files with names drawn at random. Here a frame becomes one file under the name it
is asked for: one task writes one part, which is moved into place once it is whole. The part's bytes depend on the rows
alone, so equal frames give equal files.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.errors import ShortfallError
from feature_repo.ticks.schema import EVENT_SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WRITER_OPTIONS = {
    "compression": "zstd",
    # Of a column with several encodings Spark's writer names them in an order drawn anew in each Java process (a hash
    # set of enums). Pages of version 2 without dictionaries have one encoding each, and the delta encoding of integers
    # suits times and numbers that rise.
    "parquet.writer.version": "PARQUET_2_0",
    "parquet.enable.dictionary": "false",
    "parquet.block.row.count.limit": "262144",  # a reader that goes by row groups holds little at a time
}
"""How Spark's Parquet writer is set: equal rows give equal bytes, in this process and in any other."""

ONE_SPLIT = {
    # A split is at most the smaller of the first and of (all bytes / the second): so a file is one split, and one task
    # reads it from its first row to its last. Spark takes several splits of one task by size, not by place.
    "spark.sql.files.maxPartitionBytes": str(1 << 50),
    "spark.sql.files.minPartitionNum": "1",
}
"""Settings under which Spark reads a file in its own order."""


def read_events(spark: SparkSession, path: Path) -> DataFrame:
    """The events of one Parquet file (EVENT_SCHEMA's columns), in the file's order, in one partition."""
    for name, value in ONE_SPLIT.items():
        if spark.conf.get(name, "") != value:
            spark.conf.set(name, value)
    return spark.read.parquet(str(path)).select(*EVENT_SCHEMA.names)


def write_single(frame: DataFrame, path: Path) -> None:
    """Write `frame`, which must have one partition, as the Parquet file `path` (zstd) in the frame's order.

    The folder of `path` is made where it is absent; the file is there only once it is whole. Columns are written as
    nullable, whatever the frame says: Spark does so. Raises ShortfallError where the frame gave more than one file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        frame.write.options(**WRITER_OPTIONS).parquet(str(scratch / "out"))
        files = sorted((scratch / "out").glob("part-*.parquet"))
        if len(files) != 1:
            raise ShortfallError(f"{path}: Spark wrote {len(files)} files, one was wanted; coalesce the frame to one")
        files[0].rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
