"""What the metadata of a DBN file say of its content, and what is known of its instruments besides."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import databento_dbn as dbn
import numpy as np

from feature_repo.errors import InputError
from feature_repo.ticks.databento_records import Layout, RecordStream
from feature_repo.ticks.instruments import NS
from feature_repo.ticks.reader import IngestRequest
from feature_repo.ticks.selection import iso_date
from feature_repo.ticks.streams import open_stream

SCHEMAS = {"mbo": 10, "mbp-10": 10, "mbp-1": 1, "tbbo": 1, "trades": 1}
"""Schemas that are read, and the visible levels of their books."""
MAX_DAYS = 400
TICK_RECORDS, TICK_PRICES = 20_000, 20
"""A tick size is inferred from at most so many records with at least so many different prices."""
CME_TICKS = {
    **{"ES": 0.25, "MES": 0.25, "NQ": 0.25, "MNQ": 0.25, "RTY": 0.1, "M2K": 0.1, "YM": 1.0, "MYM": 1.0},
    **{"CL": 0.01, "MCL": 0.01, "NG": 0.001, "HO": 0.0001, "RB": 0.0001, "GC": 0.1, "MGC": 0.1, "SI": 0.005},
    **{"HG": 0.0005, "6E": 0.00005, "6B": 0.0001, "6J": 0.0000005, "6A": 0.00005, "6C": 0.00005},
    **{"ZT": 1 / 256, "ZF": 1 / 128, "ZN": 1 / 64, "ZB": 1 / 32, "UB": 1 / 32, "TN": 1 / 64},
}
"""Tick of outright futures that trade from 17:00 to 16:00 in Chicago, by root (CME's contract specifications)."""
_US_EQUITIES = re.compile(r"(XNAS|XNYS|XASE|ARCX|XBOS|XPSX|XCHI|XCIS|BATS|BATY|EDGA|EDGX|IEXG|MEMX|EPRL|DBEQ|EQUS)\..+")
_OUTRIGHT = re.compile(r"([A-Z0-9]{1,3}?)(?:[FGHJKMNQUVXZ]\d{1,2}|\.[cnv]\.\d+)")
_SYMBOL = re.compile(r"[ -.0-~]{1,71}")  # printable, and no slash: it names a folder


@dataclass(frozen=True)
class DbnFile:
    """What the metadata of a DBN file says."""

    path: Path
    dataset: str
    schema: str
    ts_out: bool
    start: int  # first byte of the records
    days: tuple[str, ...]
    instruments: dict[tuple[str, str], int]  # by symbol and day

    @property
    def layout(self) -> Layout:
        """How its records look."""
        return Layout.of(self.schema, self.ts_out)


def read_metadata(path: Path) -> DbnFile:
    """Metadata of a file; raises InputError where it is damaged or the file is of no schema that is read."""
    with open_stream(path) as stream:
        head = stream.read(8)
        if head[:3] != b"DBN" or len(head) < 8:
            raise InputError(f"{path}: does not start as a DBN file; fetch it again")
        head += stream.read(int.from_bytes(head[4:8], "little"))
    try:
        found = dbn.Metadata.decode(head)
        schema, dataset, kind = str(found.schema), str(found.dataset), str(found.stype_out)
        mappings, span, ts_out = found.mappings, (found.start, found.end), bool(found.ts_out)
        instruments = {
            (symbol, item["start_date"], item["end_date"]): int(item["symbol"])
            for symbol, items in mappings.items()
            for item in items
            if item["symbol"]
        }
    except (dbn.DBNError, ValueError, OverflowError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its metadata are not readable ({error}); fetch the file again") from error
    if schema not in SCHEMAS:
        raise InputError(f"{path}: holds schema {schema}; read are {', '.join(SCHEMAS)}")
    if kind != "instrument_id" or not re.fullmatch(r"[A-Z0-9.]{1,16}", dataset):
        raise InputError(f"{path}: dataset {dataset!r} with symbols as {kind}; instrument ids are wanted (stype_out)")
    days = _days(path, *span)
    known = {
        (symbol, day): number
        for (symbol, start, end), number in instruments.items()
        for day in days
        if start <= date.fromisoformat(day) < end
    }
    wrong = sorted(symbol for symbol, _ in known if not _SYMBOL.fullmatch(symbol))
    if wrong or not known:
        what = f"symbol {wrong[0][:80]!r}" if wrong else f"no symbol mapping for {days[0]} to {days[-1]}"
        raise InputError(f"{path}: its metadata give {what}; ask for the data by symbols without a slash")
    return DbnFile(path, dataset, schema, ts_out, len(head), days, known)


def _days(path: Path, start: int, end: int | None) -> tuple[str, ...]:
    """UTC days of a file: from its metadata, or of its name where they give no end."""
    if end is None or end >= np.iinfo(np.int64).max:
        match = re.search(r"(?<!\d)(\d{8})(?!\d)", path.name)
        if match is None:
            raise InputError(f"{path}: neither its metadata nor its name tell its day; name it ...-YYYYMMDD.dbn")
        return (iso_date(match.group(1), path),)
    first, last = start // (86_400 * NS), max(start, end - 1) // (86_400 * NS)
    if last - first >= MAX_DAYS:
        raise InputError(f"{path}: spans {last - first + 1} days, more than {MAX_DAYS}; fetch it split by day")
    return tuple((date(1970, 1, 1) + timedelta(days=number)).isoformat() for number in range(first, last + 1))


def tick_units(file: DbnFile, symbol: str, day: str, request: IngestRequest) -> int:
    """Tick size in 1e-9: the option, what is known of the instrument, else from the first prices."""
    root = _OUTRIGHT.fullmatch(symbol)
    tick = float(request.options.get("tick_size", 0))
    if not tick and file.dataset.startswith("GLBX.") and root is not None:
        tick = CME_TICKS.get(root.group(1), 0.0)
    if not tick and _US_EQUITIES.fullmatch(file.dataset):
        tick = 0.01
    if tick:
        return round(tick * 1e9)
    prices: set[int] = set()
    seen = 0
    stream = RecordStream(file.path, file.layout, file.instruments[symbol, day], file.start)
    with open_stream(file.path) as content:
        content.read(file.start)
        for records in stream.records(content):
            prices.update(np.unique(records.price[: TICK_RECORDS - seen]).tolist())
            seen += len(records.price)
            if seen >= TICK_RECORDS:
                break
    prices.discard(0)
    if len(prices) < TICK_PRICES:
        raise InputError(
            f"{file.path}: {len(prices)} different prices of {symbol} among its first records, {TICK_PRICES} are "
            "wanted to tell the tick size; set the option tick_size, or ask for --symbols without it"
        )
    return int(np.gcd.reduce(np.array(sorted(prices), np.int64)))


def held_days(file: DbnFile, symbol: str) -> set[str]:
    """Days of which a file of several holds records of the symbol: it has no weekends; of one day, that day."""
    if len(file.days) == 1:
        return set(file.days)
    found: set[int] = set()
    for instrument in {number for (name, _), number in file.instruments.items() if name == symbol}:
        stream = RecordStream(file.path, file.layout, instrument, file.start)
        with open_stream(file.path) as content:
            content.read(file.start)
            for records in stream.records(content):
                found.update(np.unique(records.recv_ns // (86_400 * NS)).tolist())
    return {(date(1970, 1, 1) + timedelta(days=number)).isoformat() for number in found} & set(file.days)


def rest_ns(file: DbnFile, symbol: str, day: str) -> tuple[int, ...]:
    """When CME's session ends and the next one opens on a UTC day; nothing for other instruments."""
    root = _OUTRIGHT.fullmatch(symbol)
    if not file.dataset.startswith("GLBX.") or root is None or root.group(1) not in CME_TICKS:
        return ()
    ends, opens = (
        datetime.combine(date.fromisoformat(day), time(hour), ZoneInfo("America/Chicago")) for hour in (16, 17)
    )
    return int(ends.timestamp()) * NS, int(opens.timestamp()) * NS
