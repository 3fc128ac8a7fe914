"""Number columns of a vendor's CSV as exact int64, batch by batch; whatever is wrong is told with its line."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.streams import open_stream

BLOCK_BYTES = 1 << 20
_LINE_BYTES = 1 << 16
"""A longer line is no row of numbers; it is not read further."""


@dataclass(frozen=True)
class Column:
    """One column: a whole number, a decimal number times 10^decimals, or one of some words (as its index)."""

    name: str
    low: int = 0
    high: int = 2**53  # of the number as it is returned
    decimals: int = 0  # most digits after the point; more are refused, never rounded
    words: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        """What the fast parser makes of the column."""
        if self.words:
            return pa.string()
        return pa.decimal128(18, self.decimals) if self.decimals else pa.int64()

    @property
    def wanted(self) -> str:
        """The values that the column takes, in words."""
        if self.words:
            return f"one of {', '.join(self.words)}"
        if not self.decimals:
            return f"a whole number from {self.low} to {self.high}"
        scale = 10**self.decimals
        return (
            f"a number with at most {self.decimals} decimals from {self.low / scale:.15g} to {self.high / scale:.15g}"
        )

    def accepts(self, text: str) -> bool:
        """Whether a field's text is a value of the column."""
        if self.words:
            return text in self.words
        pattern = rf"-?\d{{1,18}}(\.\d{{0,{self.decimals}}})?" if self.decimals else r"-?\d{1,19}"
        return bool(re.fullmatch(pattern, text, re.ASCII)) and self.low <= Decimal(text).scaleb(self.decimals) <= (
            self.high
        )


class CsvBatch(NamedTuple):
    """Rows of a file: the number of the first (from 0) and the columns by name, each `(n,) int64`."""

    first_row: int
    columns: dict[str, NDArray[np.int64]]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def slice(self, start: int, stop: int | None = None) -> "CsvBatch":
        """Rows from `start` up to `stop`."""
        return CsvBatch(self.first_row + start, {name: values[start:stop] for name, values in self.columns.items()})


def csv_batches(path: Path, columns: Sequence[Column], header: bool = False) -> Iterator[CsvBatch]:
    """Batches of a CSV, plain or compressed; none where it holds no row.

    With `header` the first line must name the columns. Raises InputError that names file, line, value and what is
    wanted where a line does not have the columns or a value is not one of its column.
    """
    first_row = 0
    types = {column.name: column.arrow_type for column in columns}
    try:
        with open_stream(path) as stream:
            if header:
                _require_header(stream, path, columns)
            reader = csv.open_csv(
                stream,
                read_options=csv.ReadOptions(column_names=list(types), block_size=BLOCK_BYTES, use_threads=False),
                convert_options=csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
                parse_options=csv.ParseOptions(quote_char=False, newlines_in_values=False),
            )
            for batch in reader:
                values = {column.name: _int64(batch.column(column.name), column) for column in columns}
                if any(_outside(values[column.name], column) for column in columns):
                    raise _refusal(path, columns, header, "a value is out of range")
                if batch.num_rows:
                    yield CsvBatch(first_row, values)
                first_row += batch.num_rows
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise _refusal(path, columns, header, str(error)) from error


def _int64(values: pa.Array, column: Column) -> NDArray[np.int64]:
    if column.words:
        index = pc.fill_null(pc.index_in(values, pa.array(column.words)), -1)
        return index.to_numpy(zero_copy_only=False).astype(np.int64)
    if column.decimals:
        scale = pa.scalar(Decimal(10**column.decimals), pa.decimal128(19, 0))
        values = pc.multiply(values, scale).cast(pa.int64())
    return values.to_numpy(zero_copy_only=False)


def _outside(values: NDArray[np.int64], column: Column) -> bool:
    low, high = (0, len(column.words) - 1) if column.words else (column.low, column.high)
    return len(values) > 0 and bool(values.min() < low or values.max() > high)


def _require_header(stream: IO[bytes], path: Path, columns: Sequence[Column]) -> None:
    found = stream.readline(_LINE_BYTES).decode("utf-8", "replace").rstrip("\r\n")
    names = ",".join(column.name for column in columns)
    if found != names:
        raise InputError(f"{path}: line 1: {found[:80]!r} is not the header {names!r}")


def _refusal(path: Path, columns: Sequence[Column], header: bool, reason: str) -> InputError:
    """Names the first line that does not have the columns; looked for once the fast parser has refused the file."""
    with open_stream(path) as stream:
        found = next(_bad_lines(stream, columns, int(header)), f"not readable as CSV ({reason})")
    return InputError(f"{path}: {found}; fetch the file again")


def _bad_lines(stream: IO[bytes], columns: Sequence[Column], skipped: int) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: stream.readline(_LINE_BYTES), b""), start=1):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if number <= skipped or not text:
            continue  # the fast parser skips empty lines too
        fields = text.split(",")
        if len(fields) != len(columns):
            yield f"line {number}: {len(fields)} columns, {len(columns)} wanted: {text[:80]!r}"
            return
        for column, value in zip(columns, fields, strict=True):
            if not column.accepts(value):
                yield f"line {number}: {column.name} is {value[:40]!r}, {column.wanted} is wanted"
                return
