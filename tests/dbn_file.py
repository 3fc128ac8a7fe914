"""Writes DBN files for tests with Databento's own library, so that the reader's layouts are checked against it."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import databento_dbn as dbn
import pyarrow as pa

NS = 1_000_000_000
DAY = "2024-01-10"
ESH4, ESM4 = 17077, 5602
ACTIONS = {letter: dbn.Action.from_str(letter) for letter in "ACFMNRT"}
SIDES = {letter: dbn.Side.from_str(letter) for letter in "ABN"}


def utc(clock: str, day: str = DAY) -> int:
    """Nanoseconds of a time of day, UTC, on `day`."""
    return int(datetime.fromisoformat(f"{day}T{clock}+00:00").timestamp()) * NS


def px(price: float) -> int:
    """A price in units of 1e-9."""
    return round(price * 10**9)


@dataclass
class _Interval:
    start_date: date
    end_date: date
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: list[_Interval]


def header(
    schema: dbn.Schema | None = dbn.Schema.MBO,
    symbols: dict[str, int] | None = None,
    *,
    dataset: str = "GLBX.MDP3",
    days: int = 1,
    version: int = 3,
    ts_out: bool = False,
    end: bool = True,
) -> bytes:
    """Metadata of a file of `days` days from DAY on."""
    first = date.fromisoformat(DAY)
    numbers = {"ESH4": ESH4} if symbols is None else symbols
    span = (first, first + timedelta(days=days))
    start, stop = (int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) * NS for d in span)
    return dbn.Metadata(
        *(dataset, start, dbn.SType.RAW_SYMBOL, dbn.SType.INSTRUMENT_ID, schema, list(numbers), [], []),
        [_Mapping(name, [_Interval(*span, str(number))]) for name, number in numbers.items()],
        end=stop if end else None,
        ts_out=ts_out,
        version=version,
    ).encode()


def mbo(
    action: str,
    side: str,
    price: float | None,
    size: int,
    order: int,
    ts: int,
    flags: int = dbn.F_LAST,
    *,
    instrument: int = ESH4,
    publisher: int = 1,
    recv: int | None = None,
) -> bytes:
    """One record of mbo."""
    cost = dbn.UNDEF_PRICE if price is None else px(price)
    received = ts + 1000 if recv is None else recv
    return bytes(
        dbn.MBOMsg(publisher, instrument, ts, order, cost, size, ACTIONS[action], SIDES[side], received, flags)
    )


def mbp(
    kind: type,
    action: str,
    side: str,
    price: float,
    size: int,
    ts: int,
    levels: list[tuple[float, int, float, int]] | None = None,
    flags: int = dbn.F_LAST,
) -> bytes:
    """One record of trades, mbp-1 or mbp-10; levels are (bid price, bid size, ask price, ask size), price 0: none."""
    common = (1, ESH4, ts, px(price), size, ACTIONS[action], SIDES[side], 0, ts + 1000, flags)
    if levels is None:
        return bytes(kind(*common))
    pairs = [
        dbn.BidAskPair(*(px(price) if price else dbn.UNDEF_PRICE for price in (bid, ask)), bid_size, ask_size, 1, 1)
        for bid, bid_size, ask, ask_size in levels
    ]
    return bytes(kind(*common, levels=pairs[0] if kind is dbn.MBP1Msg else pairs))


def write(folder: Path, head: bytes, *records: bytes, name: str = "esh4.mbo.dbn") -> Path:
    """A file of these records, packed where the name ends with .zst; gives the folder."""
    content = head + b"".join(records)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pa.Codec("zstd").compress(content).to_pybytes() if name.endswith(".zst") else content)
    return folder
