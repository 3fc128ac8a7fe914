"""Batches of a CSV or Parquet file with the columns that a mapping names; a wrong value is told with row and column."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from feature_repo.errors import InputError
from feature_repo.ticks.instruments import NS
from feature_repo.ticks.mapped_spec import MAPPING_FILE, OTHERS, FileSpec, TimeSpec
from feature_repo.ticks.streams import open_stream

MAX_NS, MAX_UNITS = 2**62, 10**12
"""Times from 1823 to 2116; prices and sizes up to 10^12 ticks or lots, where doubles still tell them apart."""
BATCH_ROWS, BLOCK_BYTES = 65_536, 4 << 20
_LINE_BYTES = 1 << 16
_NS_PER = {"s": NS, "ms": 10**6, "us": 10**3, "ns": 1}
_TEXT = pa.dictionary(pa.int32(), pa.string())
_CSV_ERROR = re.compile(r"In CSV column #(\d+): Row #(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Rows:
    """Some rows of a file: their numbers, counted from 1 without a header line, and their columns."""

    path: Path
    numbers: np.ndarray
    batch: pa.RecordBatch

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.numbers)

    def where(self, keep: np.ndarray) -> "Rows":
        """The rows at which `keep` is true."""
        if keep.all():
            return self
        return Rows(self.path, self.numbers[keep], self.batch.filter(pa.array(keep)))

    def refuse(self, at: int, column: str, wanted: str) -> NoReturn:
        """Raise InputError about the value of a column."""
        value = str(self.batch.column(column)[at].as_py())
        raise InputError(
            f"{self.path}: row {self.numbers[at]}: {column} is {value[:60]!r}, {wanted}; see {MAPPING_FILE}"
        )

    def texts(self, column: str) -> tuple[list[str], np.ndarray]:
        """Distinct values of a column as text, and which of them each row has."""
        values = self._filled(column, "a value is wanted")
        if not pa.types.is_dictionary(values.type):
            values = values.cast(pa.string()).dictionary_encode()
        return [str(value) for value in values.dictionary.to_pylist()], values.indices.to_numpy()

    def codes(self, column: str, meaning: dict[str, int]) -> np.ndarray:
        """`(n,) int64` meaning of a column's values; refuses one that has none."""
        texts, index = self.texts(column)
        known = [meaning.get(text, meaning.get(OTHERS)) for text in texts]
        unknown = [at for at, value in enumerate(known) if value is None]
        bad = np.flatnonzero(np.isin(index, unknown))
        if len(bad):
            self.refuse(int(bad[0]), column, f"one of {sorted(meaning)} is wanted")
        return np.array([value or 0 for value in known], np.int64)[index]

    def integers(self, column: str) -> np.ndarray:
        """`(n,) int64`, exact."""
        values = self._filled(column, "a whole number is wanted")
        if not pa.types.is_integer(values.type):
            raise InputError(f"{self.path}: column {column!r} holds {values.type}, whole numbers are wanted")
        if pa.types.is_uint64(values.type):
            beyond = np.flatnonzero(values.to_numpy() > np.uint64(2**63 - 1))
            if len(beyond):
                self.refuse(int(beyond[0]), column, f"at most {2**63 - 1} is wanted")
        return values.cast(pa.int64()).to_numpy()

    def units(self, column: str, per_unit: Fraction) -> tuple[np.ndarray, np.ndarray]:
        """`(n,) int64` nearest ticks or lots (half goes up), and `(n,) bool` whether a value lies between two."""
        values = self._filled(column, "a number is wanted")
        over, under = per_unit.numerator, per_unit.denominator
        exact = self.integers(column) if pa.types.is_integer(values.type) else None
        plain = values.cast(pa.float64(), safe=False).to_numpy()
        numbers = plain * over / under
        bad = np.flatnonzero(~(np.abs(numbers) < MAX_UNITS))
        if len(bad):
            self.refuse(int(bad[0]), column, f"a number below {float(MAX_UNITS / per_unit):g} is wanted")
        if exact is not None and under < MAX_NS and np.all(np.abs(plain) * over < MAX_NS):
            return (exact * over + under // 2) // under, exact * over % under != 0
        nearest = np.rint(numbers)
        between = np.abs(numbers - nearest) > 1e-6 + 4e-16 * np.abs(numbers)
        return np.where(between, np.floor(numbers + 0.5), nearest).astype(np.int64), between

    def times(self, spec: TimeSpec, day: str) -> np.ndarray:
        """`(n,) int64` UTC nanoseconds; `day` is the session date, whose midnight numbers may count from."""
        values = self._filled(spec.column, "a time is wanted")
        if spec.unit == "iso":
            ns = self._moments(values, spec)
        else:
            ns = self._counted(values, spec)
            if spec.since == "midnight":
                midnight = datetime.combine(date.fromisoformat(day), time(), ZoneInfo(str(spec.timezone)))
                ns = ns + int(midnight.timestamp()) * NS
        bad = np.flatnonzero(np.abs(ns) >= MAX_NS)
        if len(bad):
            self.refuse(int(bad[0]), spec.column, "a time from 1823 to 2116 is wanted")
        return ns

    def _filled(self, column: str, wanted: str) -> pa.Array:
        values = self.batch.column(column)
        if pa.types.is_dictionary(values.type) and values.dictionary.null_count:
            values = values.dictionary_decode()
        if values.null_count:
            self.refuse(values.is_null().index(True).as_py(), column, wanted)
        return values

    def _counted(self, values: pa.Array, spec: TimeSpec) -> np.ndarray:
        """Nanoseconds of numbers in a unit: exact for whole and decimal ones, the nearest for doubles."""
        factor = _NS_PER[spec.unit]
        if pa.types.is_decimal128(values.type) and 10**values.type.scale == factor:
            low, high = np.frombuffer(values.buffers()[1], np.int64).reshape(-1, 2)[values.offset :][: len(values)].T
            bad = np.flatnonzero((high != low >> 63) | (np.abs(low) >= MAX_NS))
            if len(bad):
                self.refuse(int(bad[0]), spec.column, f"a time in {spec.unit} is wanted")
            return np.ascontiguousarray(low)
        if not (
            pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
        ):
            raise InputError(
                f"{self.path}: column {spec.column!r} holds {values.type}, unit: {spec.unit} wants numbers"
            )
        rough = values.cast(pa.float64(), safe=False).to_numpy()
        bad = np.flatnonzero(~(np.abs(rough) < MAX_NS / factor))
        if len(bad):
            self.refuse(int(bad[0]), spec.column, f"a time in {spec.unit} is wanted")
        if pa.types.is_integer(values.type):
            return values.cast(pa.int64()).to_numpy() * factor
        return np.rint(rough * factor).astype(np.int64)

    def _moments(self, values: pa.Array, spec: TimeSpec) -> np.ndarray:
        """UTC nanoseconds of time stamps; the zone of local ones may not have them, or have them twice."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = self._cast(values, pa.timestamp("ns", None if spec.timezone else "UTC"), spec.column)
        if not pa.types.is_timestamp(values.type):
            raise InputError(f"{self.path}: column {spec.column!r} holds {values.type}, unit: iso wants time stamps")
        if values.type.tz is None and spec.timezone is None:
            raise InputError(f"{self.path}: column {spec.column!r} names no time zone; give timezone in {MAPPING_FILE}")
        values = self._cast(values, pa.timestamp("ns", values.type.tz), spec.column)
        if values.type.tz is None:
            zone = spec.timezone
            try:
                values = pc.assume_timezone(values, zone)
            except pa.ArrowInvalid:
                wanted = f"a time that {zone} has once is wanted"
                self._first_bad(lambda value: pc.assume_timezone(value, zone), values, spec.column, wanted)
        return values.cast(pa.int64()).to_numpy()

    def _cast(self, values: pa.Array, kind: pa.DataType, column: str) -> pa.Array:
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            zone = "with" if kind.tz else "without"
            wanted = f"a time from 1823 to 2116 {zone} a time zone is wanted"
            self._first_bad(lambda value: value.cast(kind), values, column, wanted)

    def _first_bad(self, convert: Any, values: pa.Array, column: str, wanted: str) -> NoReturn:
        for at in range(len(values)):
            try:
                convert(values.slice(at, 1))
            except pa.ArrowInvalid:
                self.refuse(at, column, wanted)
        raise InputError(f"{self.path}: column {column!r} is not readable as time stamps")


def table_rows(path: Path, spec: FileSpec, columns: list[str] | None = None) -> Iterator[Rows]:
    """Rows of a file, batch by batch; `columns` are all that the spec names unless said otherwise.

    Raises InputError that names file, row and column where a file is damaged, lacks a column, or holds what the column
    cannot.
    """
    kinds = _column_kinds(spec)
    wanted = {name: kinds[name] for name in columns or kinds}
    first = 1
    for batch in (_parquet if spec.is_parquet else _csv)(path, spec, wanted):
        if batch.num_rows:
            yield Rows(path, np.arange(first, first + batch.num_rows), batch)
        first += batch.num_rows


def _column_kinds(spec: FileSpec) -> dict[str, pa.DataType]:
    """Arrow type that a CSV column is read as."""
    kinds: dict[str, pa.DataType] = {}
    for item in (spec.time, spec.received):
        if item is not None and item.unit == "iso":
            kinds[item.column] = pa.timestamp("ns", None if item.timezone else "UTC")
        elif item is not None:
            digits = len(str(_NS_PER[item.unit])) - 1
            kinds[item.column] = pa.decimal128(28, digits) if digits else pa.int64()
    for role, name in spec.columns.items():
        kinds[name] = {"side": _TEXT, "action": _TEXT, "condition": _TEXT, "order_id": pa.int64()}.get(
            role, pa.float64()
        )
    for column in (spec.symbol_column, spec.date_column):
        if column is not None:
            kinds[column] = _TEXT
    return kinds


def _csv(path: Path, spec: FileSpec, kinds: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    with open_stream(path) as stream:
        names = list(spec.header) if isinstance(spec.header, tuple) else _header(stream, path, spec)
        _require_columns(path, kinds, names)
        try:
            yield from csv.open_csv(
                stream,
                read_options=csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES, use_threads=False),
                parse_options=csv.ParseOptions(delimiter=spec.separator, quote_char='"' if spec.quoted else False),
                convert_options=csv.ConvertOptions(
                    column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            found = _CSV_ERROR.match(str(error))
            if found and int(found[1]) < len(names):
                said = f"row {found[2]}: column {names[int(found[1])]!r}: {found[3][:300]}"
            else:
                said = f"not readable as CSV ({str(error)[:300]})"
            raise InputError(f"{path}: {said}; fetch the file again, or correct {MAPPING_FILE}") from error


def _header(stream: IO[bytes], path: Path, spec: FileSpec) -> list[str]:
    line = stream.readline(_LINE_BYTES)
    if len(line) == _LINE_BYTES:
        raise InputError(f"{path}: line 1 is longer than {_LINE_BYTES:,} bytes, names of columns are wanted")
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    return text.replace('"', "").split(spec.separator) if spec.quoted else text.split(spec.separator)


def _require_columns(path: Path, kinds: dict[str, pa.DataType], names: list[str]) -> None:
    for name in kinds:
        if names.count(name) != 1:
            said = "no column" if name not in names else "more than one column"
            raise InputError(
                f"{path}: {said} {name!r}, which {MAPPING_FILE} names; there: {', '.join(names)[:500] or 'none'}"
            )


def _parquet(path: Path, spec: FileSpec, kinds: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            _require_columns(path, kinds, names)
            for name in kinds:
                found = file.schema_arrow.field(name).type
                if not _readable(found, kinds[name]):
                    raise InputError(f"{path}: column {name!r} holds {found}, which is not read as {kinds[name]}")
            for batch in file.iter_batches(BATCH_ROWS, columns=list(kinds)):
                batch.validate(full=True)  # Arrow takes text from the file as it is, and fails where it is used
                yield batch
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); fetch the file again") from error


def _readable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a Parquet column's type can stand for what a mapping wants; times are looked at when they are read."""
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    if types.is_dictionary(wanted):
        texts = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_date)
        return any(check(found) for check in texts)
    if wanted == pa.int64():
        return types.is_integer(found) or types.is_timestamp(found)
    if wanted == pa.float64():
        return types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    return not types.is_nested(found)
