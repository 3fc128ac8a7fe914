"""The `mapping.yaml` of the mapped reader as a checked model; `mapped.py` explains and shows it."""

import re
from datetime import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from feature_repo.errors import InputError
from feature_repo.ticks.instruments import Instrument, SessionWindow

MAPPING_FILE = "mapping.yaml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""Venues and symbols become folder names."""
OTHERS = "*"
"""In a map of a column's values: what all values mean that are not listed."""
_MAX_BYTES, _MAX_DEPTH = 1 << 18, 10
_PLACEHOLDERS = {"{symbol}": r"(?P<symbol>[^/]+)", "{date}": r"(?P<date>\d{4}-\d{2}-\d{2}|\d{8})"}
_ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # kind: required, optional
    "quotes": (("bid", "ask"), ("bid_size", "ask_size")),
    "trades": (("price", "size"), ("side", "order_id", "condition")),
    "orders": (("action", "order_id", "side", "price", "size"), ("condition",)),
}
Unit = Annotated[Decimal, Field(gt=0, lt=10**9, max_digits=24, decimal_places=12)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_max_length=1_000)


class WindowSpec(_Strict):
    """One trading window of a session date, local time."""

    open: str = Field(description="HH:MM:SS")
    close: str = Field(description="HH:MM:SS, exclusive")
    days_before: int = Field(0, ge=0, le=7, description="1 where it opens the evening before")
    skips_weekends: bool = Field(True, description="whether days_before counts weekdays only")

    @field_validator("open", "close", mode="before")
    @classmethod
    def _clock(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 86_400:
            return f"{value // 3600:02}:{value // 60 % 60:02}:{value % 60:02}"  # YAML reads 17:30:00 as 63000 seconds
        return value

    @field_validator("open", "close")
    @classmethod
    def _is_time(cls, value: str) -> str:
        if not re.fullmatch(r"\d{2}:\d{2}:\d{2}", value):
            raise ValueError("a time HH:MM:SS is wanted")
        time.fromisoformat(value)
        return value


class InstrumentSpec(_Strict):
    """Facts of the instruments; those of one symbol may differ."""

    venue: str = Field(pattern=f"^{NAME.pattern}$", description="name of the venue, a folder name")
    tick_size: Unit = Field(description="currency per price tick")
    lot_size: Unit = Field(Decimal(1), description="units per lot")
    currency: str = Field(pattern=r"^[A-Z0-9]{2,12}$", description="what prices are in")
    timezone: str = Field(description="IANA name of the venue's local time")
    windows: tuple[WindowSpec, ...] = Field(min_length=1, max_length=24, description="trading windows, local time")
    depth: int = Field(1, ge=1, le=1_000, description="visible levels a side")
    latency_ms: float = Field(10.0, ge=0, le=60_000, description="decision to venue, in milliseconds")

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        return _zone_name(value)


class SymbolSpec(_Strict):
    """What of one symbol differs from `instrument`."""

    tick_size: Unit | None = None
    lot_size: Unit | None = None
    currency: str | None = Field(None, pattern=r"^[A-Z0-9]{2,12}$")
    depth: int | None = Field(None, ge=1, le=1_000)


class TimeSpec(_Strict):
    """Where a time stands and how it is written."""

    column: str
    unit: Literal["iso", "s", "ms", "us", "ns"] = Field(description="ISO 8601 text or a timestamp column, or a number")
    since: Literal["epoch", "midnight"] = Field("epoch", description="what a number counts from")
    timezone: str | None = Field(None, description="of midnight, or of times that name no zone themselves")

    @model_validator(mode="after")
    def _fits(self) -> "TimeSpec":
        if self.timezone is not None:
            _zone_name(self.timezone)
        if self.unit == "iso" and self.since != "epoch":
            raise ValueError("since: midnight is for numbers, not for unit: iso")
        if self.unit != "iso" and (self.timezone is None) == (self.since == "midnight"):
            raise ValueError("numbers since midnight need a timezone, numbers since the epoch are UTC and take none")
        return self


class FileSpec(_Strict):
    """Files of one kind and what their columns mean."""

    path: str = Field(description="relative; {symbol}, {date} and * stand for parts of a name")
    kind: Literal["quotes", "trades", "orders"]
    time: TimeSpec
    received: TimeSpec | None = Field(None, description="when the row was received")
    columns: dict[str, str] = Field(description="column of each role of the kind")
    price_unit: Unit = Field(Decimal(1), description="currency per unit of the price columns")
    size_unit: Unit = Field(Decimal(1), description="units per unit of the size columns")
    sides: dict[str, Literal["buy", "sell", "none"]] = Field({}, description="meaning of the side column")
    trade_side: Literal["aggressor", "resting"] = Field("aggressor", description="whose side a trade's is")
    actions: dict[str, Literal["add", "cancel", "replace", "trade", "clear", "halt", "skip"]] = Field({})
    conditions: dict[str, tuple[Literal["late", "odd_lot", "cancelled", "derived", "hidden", "suspicious"], ...]] = (
        Field({}, description="flags of the condition column's values")
    )
    symbol: str | None = Field(None, pattern=f"^{NAME.pattern}$", description="where the path does not name it")
    symbol_column: str | None = None
    date_column: str | None = Field(None, description="session date, YYYY-MM-DD or YYYYMMDD")
    header: bool | tuple[str, ...] = Field(True, description="of CSV: whether line 1 names columns; or their names")
    separator: str = Field(",", min_length=1, max_length=1)
    quoted: bool = Field(False, description="of CSV: whether fields may stand in double quotes")

    @field_validator("sides", "actions", "conditions", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(key).lower() if isinstance(key, bool) else str(key): item for key, item in value.items()}

    @field_validator("path")
    @classmethod
    def _is_inside(cls, value: str) -> str:
        rest = value
        for placeholder in _PLACEHOLDERS:
            if value.count(placeholder) > 1:
                raise ValueError(f"{placeholder} stands there more than once")
            rest = rest.replace(placeholder, "")
        if not value or "{" in rest or "}" in rest:
            raise ValueError("the placeholders are {symbol} and {date}")
        if "\0" in value or "**" in value or any(part in ("", ".", "..") for part in value.split("/")):
            raise ValueError("a path inside of the data folder is wanted, without //, ., .. or **")
        return value

    @field_validator("header")
    @classmethod
    def _has_names(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if value is False or value == ():
            raise ValueError("without a header line give the names of the columns")
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a name stands there twice")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> "FileSpec":
        required, optional = _ROLES[self.kind]
        missing = [role for role in required if role not in self.columns]
        unknown = [role for role in self.columns if role not in (*required, *optional)]
        if missing or unknown:
            raise ValueError(
                f"columns of {self.kind}: missing {missing}, unknown {unknown}; "
                f"roles: {', '.join((*required, *optional))}"
            )
        if ("bid_size" in self.columns) != ("ask_size" in self.columns):
            raise ValueError("columns of quotes: give both bid_size and ask_size, or neither")
        for key, role in (("sides", "side"), ("actions", "action"), ("conditions", "condition")):
            if bool(getattr(self, key)) != (role in self.columns):
                raise ValueError(f"{key} and the column {role} belong together: give both or neither")
        used = [self.time.column, *self.columns.values(), self.symbol_column, self.date_column]
        used += [self.received.column] if self.received else []
        twice = {name for name in used if name is not None and used.count(name) > 1}
        if twice:
            raise ValueError(f"column {min(twice)!r} has more than one role")
        named = ("{symbol}" in self.path) + (self.symbol is not None) + (self.symbol_column is not None)
        if named != 1:
            raise ValueError("name the symbol once: by {symbol} in path, by symbol, or by symbol_column")
        if ("{date}" in self.path) + (self.date_column is not None) != 1:
            raise ValueError("name the session date once: by {date} in path or by date_column")
        return self

    @property
    def is_parquet(self) -> bool:
        """Whether the files are Parquet; all others are CSV, compressed or not."""
        return self.path.lower().endswith((".parquet", ".pq"))

    @property
    def glob(self) -> str:
        """Pattern of the paths below the data folder."""
        return self.path.replace("{symbol}", "*").replace("{date}", "*")

    def match(self, path: str) -> re.Match[str] | None:
        """Match of a relative path, with groups `symbol` and `date` where the path names them."""
        parts = re.split(r"(\{symbol\}|\{date\}|\*)", self.path)
        pattern = "".join(_PLACEHOLDERS.get(part, "[^/]*" if part == "*" else re.escape(part)) for part in parts)
        return re.fullmatch(pattern, path)


class Mapping(_Strict):
    """A whole `mapping.yaml`."""

    instrument: InstrumentSpec
    symbols: dict[str, SymbolSpec] = {}
    files: tuple[FileSpec, ...] = Field(min_length=1, max_length=100)

    def ticks_per_unit(self, symbol: str, file: FileSpec) -> Fraction:
        """Price ticks per unit of a price column."""
        return Fraction(file.price_unit) / Fraction(self._fact(symbol, "tick_size"))

    def lots_per_unit(self, symbol: str, file: FileSpec) -> Fraction:
        """Lots per unit of a size column."""
        return Fraction(file.size_unit) / Fraction(self._fact(symbol, "lot_size"))

    def instrument_of(self, symbol: str) -> Instrument:
        """Static facts of a symbol."""
        spec = self.instrument
        return Instrument(
            spec.venue,
            symbol,
            float(self._fact(symbol, "tick_size")),
            float(self._fact(symbol, "lot_size")),
            self._fact(symbol, "currency"),
            spec.timezone,
            tuple(SessionWindow(**window.model_dump()) for window in spec.windows),
            self._fact(symbol, "depth"),
            False,
            round(spec.latency_ms * 1e6),
        )

    def _fact(self, symbol: str, name: str) -> Any:
        own = getattr(self.symbols[symbol], name) if symbol in self.symbols else None
        return getattr(self.instrument, name) if own is None else own


_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built so: ten times as fast


class _Loader(_SafeLoader):  # type: ignore[misc,valid-type]
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(name, str | int | float | bool) and (name in seen or seen.add(name)):  # type: ignore[func-returns-value]
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def load_mapping(path: Path) -> Mapping:
    """Read and check a `mapping.yaml`; raises InputError that names the file, each wrong key and its value."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES:,} bytes, no mapping is")
        text = content.decode()
        _require_plain(text, path)
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the mapped reader wants it beside the data") from error
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds {type(raw).__name__}, the keys instrument and files are wanted")
    try:
        return Mapping.model_validate(raw)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'mapping'}: {item['msg'].removeprefix('Value error, ')}"
            + (f" (it is {_shown(item['input'])})" if item["type"] != "missing" else "")
            for item in error.errors(include_url=False, include_context=False)[:5]
        ]
        raise InputError(f"{path}: {'; '.join(problems)}") from error


def _require_plain(text: str, path: Path) -> None:
    """Refuse what makes a small YAML file large or slow: aliases, and nesting that no mapping has."""
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path}: YAML aliases (*name) are not read; write the values out")
        if depth > _MAX_DEPTH:
            raise InputError(f"{path}: nested more than {_MAX_DEPTH} deep, no mapping is")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # an integer of too many digits
        return type(value).__name__


def _zone_name(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("an IANA time zone such as Europe/Berlin is wanted") from error
    return value
