"""Reader of Binance websocket dumps, spot and USD-M perpetuals: lines `<local receive time> <JSON as received>`.

Files are `{spot|usdm}_{symbol}_{YYYYMMDD}[.dat][.gz]`. The receive time is in microseconds (16 digits) or nanoseconds
(19). Read are the streams `trade`, `bookTicker` and `depth@...`, and order book snapshots as REST gives them; other
streams (`markPrice`) are counted as skipped. A trade that is no MARKET trade (`X`: INSURANCE_FUND, ADL, NA) sets no
price: DERIVED. `feature_repo.ticks.binance_chain` tells how the depth stream is kept whole.

Time. `ts_event_ns` is the local receive time, as `ts_recv_ns` is: the moment when a trading system knew. Three things
speak against the exchange's transaction time T. (1) Files are cut at midnight of the local clock: by T the last 3 to 5
messages of the 2024-07-18 files, the last depth diff among them, lie in the next day, and the book is not handed on.
(2) Streams overtake each other: in the order of receipt T runs back for 0.5 to 5.3% of a file's messages, by up to 56
ms and once 2.2 s; 14 to 176 of them are depth diffs, whose quarantine would break the book. (3) A feature at T would
know what came up to 3 s later. The receive time never runs back in these files. Its clock lies behind the exchange's
by 1.52 s in 2024, and by up to 28 ms in 2023 on USD-M, which matters only beside another venue's data. For that the
option `clock: exchange` gives T (E where there is no T), held so that it never runs back; `ts_recv_ns` is then 1.5 s
less in 2024.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns, event_batch
from feature_repo.ticks.binance_chain import DepthChain
from feature_repo.ticks.binance_lines import DECIMALS, Grid, LineParser
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow
from feature_repo.ticks.reader import IngestRequest, Option, PartitionPlan, ReadCount
from feature_repo.ticks.selection import choose_days, choose_symbols, data_folder, iso_date
from feature_repo.ticks.standing import StandingBook

VENUES = {"spot": "BINANCE", "usdm": "BINANCE-USDM"}
VISIBLE_LEVELS, LATENCY_NS = 10, 10_000_000
KNOWN_STEPS = {
    ("BINANCE", "BTCUSDT"): ("0.01", "0.00001"),
    ("BINANCE-USDM", "BTCUSDT"): ("0.1", "0.001"),
    ("BINANCE-USDM", "ETHUSDT"): ("0.01", "0.001"),
}
"""Tick and lot size by Binance's exchangeInfo (PRICE_FILTER, LOT_SIZE). Of other symbols they are the decimals that the
first lines of the oldest file use. A price that is finer later on is SUB_TICK, a traded size an error."""
BELIEVED_NS = 60 * NS
"""By the exchange's clock: a time farther from the receive time than the usual difference and this is not believed."""
_QUOTES = (
    "USDT",
    "USDC",
    "FDUSD",
    "BUSD",
    "TUSD",
    "DAI",
    "BTC",
    "ETH",
    "BNB",
    "EUR",
    "TRY",
    "BRL",
    "JPY",
    "GBP",
    "AUD",
)
_FILE_NAME = re.compile(r"(spot|usdm)_([A-Za-z0-9]+)_(\d{8})(\.dat)?(\.(gz|bz2|xz|zst|zip))?")
_HINT = "the folder that holds {spot|usdm}_SYMBOL_YYYYMMDD.gz"
_OPTIONS = ("clock", "tick_size", "lot_size")
Key = tuple[str, str]  # venue, symbol


class BinanceReader:
    """Binance spot and USD-M perpetuals, around the clock in UTC."""

    name = "binance"

    def plan(self, request: IngestRequest) -> list[PartitionPlan]:
        """One partition for each file; `previous` is the calendar day before of the same market, where it is there."""
        folder = data_folder(request, _HINT)
        clock = _clock(request)
        files = _files(folder)
        symbols = choose_symbols(request, {symbol for _, symbol in files}, folder)
        keys = [key for key in files if key[1] in symbols]
        in_range = choose_days(request, {day: day for key in keys for day in files[key]}, ", ".join(symbols))
        if request.symbols:  # a symbol that is asked for by name must have a day of its own
            for symbol in symbols:
                choose_days(request, {day: day for key in keys if key[1] == symbol for day in files[key]}, symbol)
        plans = []
        for key in keys:
            options: dict[str, Option] = {"clock": clock, **_steps(request, key, files[key], len(keys))}
            plan: PartitionPlan | None = None
            for day, path in files[key].items():
                before = (date.fromisoformat(day) - timedelta(days=1)).isoformat()
                goes_on = plan is not None and plan.partition.date == before
                plan = PartitionPlan(Partition(*key, day), (path,), options, plan if goes_on else None)
                if day in in_range:
                    plans.append(plan)
        return plans

    def instruments(self, request: IngestRequest) -> list[Instrument]:
        """Facts of what `plan` gives; the currency is the quote asset that the symbol ends with."""
        day = (SessionWindow("00:00:00", "00:00:00"),)
        plans = {(plan.partition.venue, plan.partition.symbol): plan for plan in self.plan(request)}
        return [
            Instrument(venue, symbol, tick, lot, _currency(symbol), "UTC", day, VISIBLE_LEVELS, False, LATENCY_NS)
            for (venue, symbol), plan in sorted(plans.items())
            for tick, lot in [(float(plan.options["tick_size"]), float(plan.options["lot_size"]))]
        ]

    def read(
        self, plan: PartitionPlan, count: ReadCount, opening: StandingBook | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Trades, best quotes and depth as received; `opening` goes before the first diff, where that follows it."""
        (path,) = plan.inputs
        spot = plan.partition.venue == VENUES["spot"]
        grid = Grid(_units(plan.options["tick_size"], "tick_size"), _units(plan.options["lot_size"], "lot_size"))
        chain = DepthChain(spot, opening, partial(count.skip, path.name))
        clock = _ExchangeClock() if plan.options["clock"] == "exchange" else None
        sequence = 0
        for chunk in LineParser(path, plan.partition.symbol, spot, grid).chunks(count):
            events = chain.link(chunk)
            events = replace(events, ts_event_ns=events.ts_recv_ns if clock is None else clock.times(events))
            if len(events):
                yield event_batch(events, sequence)
            sequence += len(events)
        if not sequence:
            reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in count.skipped.get(path.name, {}).items())
            raise InputError(
                f"{path}: empty session, no event of {plan.partition.symbol} in {count.total:,} lines"
                f"{f' ({reasons})' if reasons else ''}; fetch the file again or leave this day out of --from/--to"
            )


class _ExchangeClock:
    """The exchange's time, never running back; where a message gives none, the usual difference tells it."""

    def __init__(self) -> None:
        self._latest = 0
        self._usual: int | None = None  # exchange less receive time, ns

    def times(self, events: EventColumns) -> np.ndarray:
        """Times of the events of a chunk, whose `ts_event_ns` are the exchange's (0: none); int64 ns."""
        given, recv = events.ts_event_ns, events.ts_recv_ns
        ahead = given - recv
        if self._usual is None and np.any(given):
            self._usual = int(np.median(ahead[given > 0]))
        usual = self._usual or 0
        # A time that is wrong must not hold back all later ones: it counts for nothing.
        believed = np.where(np.abs(ahead - usual) <= BELIEVED_NS, given, 0)
        times = np.maximum.accumulate(np.maximum(np.where(given > 0, believed, recv + usual), self._latest))
        self._latest = int(times[-1]) if len(times) else self._latest
        return times


def _files(folder: Path) -> dict[Key, dict[str, Path]]:
    """Files by venue and symbol, and by day; all sorted."""
    found: dict[Key, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE_NAME.fullmatch(path.name)
        if not match or not path.is_file():
            continue
        days = found.setdefault((VENUES[match[1]], match[2].upper()), {})
        twin = days.setdefault(iso_date(match[3], path), path)
        if twin != path:
            raise InputError(f"{path}: the same market and day as {twin}; remove one of them")
    return {key: dict(sorted(found[key].items())) for key in sorted(found)}


def _clock(request: IngestRequest) -> str:
    """Option `clock`; raises InputError for another option or value."""
    unknown = sorted(set(request.options) - set(_OPTIONS))
    if unknown:
        raise InputError(f"source {request.source} has no option {unknown[0]}; there: {', '.join(_OPTIONS)}")
    clock = str(request.options.get("clock", "receive"))
    if clock not in ("receive", "exchange"):
        raise InputError(f"option clock is {clock}; receive (the default) and exchange are there")
    return clock


def _steps(request: IngestRequest, key: Key, days: dict[str, Path], markets: int) -> dict[str, Option]:
    """Tick and lot size as decimal text: given, known, or told by the oldest file."""
    given = {name: str(request.options[name]) for name in _OPTIONS[1:] if name in request.options}
    if given and markets > 1:
        raise InputError(
            f"option {next(iter(given))} holds for one market, {markets} are asked for; name one by symbol"
        )
    steps = dict(zip(_OPTIONS[1:], KNOWN_STEPS.get(key, ()), strict=False)) | given
    if len(steps) < 2:
        path = next(iter(days.values()))
        parser = LineParser(path, key[1], key[0] == VENUES["spot"], Grid(1, 1))
        seen = [format(Decimal(1).scaleb(-places), "f") for places in parser.sample_decimals()]
        steps = dict(zip(_OPTIONS[1:], seen, strict=True)) | steps
    for name, text in steps.items():
        _units(text, name)
    return dict(steps)


def _units(step: Option, name: str) -> int:
    """A step size in units of 1e-8."""
    try:
        units = Decimal(str(step)).scaleb(DECIMALS)
        whole = int(units)
    except (InvalidOperation, ValueError, OverflowError):
        units, whole = Decimal(0), 0
    if whole != units or not 0 < whole < 2**62:
        raise InputError(f"option {name} is {step}; a positive multiple of 1e-{DECIMALS} is wanted")
    return whole


def _currency(symbol: str) -> str:
    for quote in _QUOTES:
        if symbol.endswith(quote) and symbol != quote:
            return quote
    raise InputError(f"symbol {symbol} ends with no quote asset that is known; there: {', '.join(_QUOTES)}")
