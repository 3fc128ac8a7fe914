"""The days that a venue plays: of the synthetic market, recorded or reactive, or of a lake."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument
from serving.wire.fix_numbers import Scale
from training.market.messages import pack_messages
from training.market.order_replay import ReplaySettings
from training.market.venue.order_world import OrderWorld
from training.market.venue.world import World

REACTIVE_BID = 10_000
"""Best bid at which a reactive day begins: 100 of currency."""


class Listing(NamedTuple):
    """A symbol of the venue: its facts and the market behind it."""

    instrument: Instrument
    world: World

    @property
    def scale(self) -> Scale:
        """How its prices and quantities are written in FIX."""
        return Scale.of(repr(self.instrument.tick_size), repr(self.instrument.lot_size))


def synthetic_listings(
    symbols: Sequence[str],
    date: str,
    hours: float,
    seed: int,
    strength: float,
    latency_ns: int | None = None,
    reactive: bool = False,
) -> dict[str, Listing]:
    """Symbols SYN1, SYN2 ... on one day of the synthetic market, clean; latency is the instrument's by default.

    With `reactive` the same market is made as the venue goes, and answers own orders.

    Raises InputError for a symbol or a day that the market does not have.
    """
    import pyarrow as pa

    from feature_repo.ticks.batches import event_batch
    from feature_repo.ticks.reader import IngestRequest
    from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events

    options = {"seed": seed, "days": 250, "hours": hours, "strength": strength, "symbols": 20, "dirt": 0}
    parsed, reader = SyntheticOptions.parse(options), SyntheticReader()
    request = IngestRequest("synthetic", symbols=tuple(symbols), options=options)
    days = {plan.partition.date for plan in reader.plan(request)}
    if date not in days:
        raise InputError(f"day {date} is not one of the synthetic market's, {min(days)} to {max(days)}")
    listings = {}
    for instrument in reader.instruments(request):
        partition = Partition(instrument.venue, instrument.symbol, date)
        if reactive:
            listings[instrument.symbol] = Listing(instrument, _reactive(instrument, date, seed, strength, latency_ns))
            continue
        events = clean_events(parsed, partition)
        table = pa.Table.from_batches([event_batch(events.slice(0, len(events)), 0)])
        listings[instrument.symbol] = _listing(instrument, partition, table, "refuse", latency_ns)
    return listings


def silver_listings(
    silver_dir: Path, symbols: Sequence[str], date: str, latency_ns: int | None = None
) -> dict[str, Listing]:
    """Symbols of one day of cleaned order-by-order events; latency is the instrument's by default.

    Raises InputError where the folder lacks a symbol or the day, or its data are not order by order.
    """
    import pyarrow.parquet as pq

    from feature_repo.lake import list_partitions
    from feature_repo.ticks.instruments import load_instruments

    instruments = load_instruments(silver_dir)
    listings = {}
    there = [item for item in list_partitions(silver_dir, "events.parquet") if item.date == date]
    for symbol in symbols:
        found = [item for item in there if item.symbol == symbol]
        if len(found) != 1:
            raise InputError(f"{silver_dir}: {len(found)} partitions of {symbol} on {date}, one is wanted")
        instrument = instruments[found[0].instrument_id]
        table = pq.read_table(found[0].folder(silver_dir) / "events.parquet")
        listings[symbol] = _listing(instrument, found[0], table, "count", latency_ns)
    return listings


def depth_listings(
    features_dir: Path,
    symbols: Sequence[str],
    date: str,
    latency_ns: int | None = None,
    fill_model: str = "conservative",
) -> dict[str, Listing]:
    """Symbols of one day of a features folder, by the fill rules of training; latency is the instrument's by default.

    Raises InputError where the folder lacks a symbol or the day, or the fill model is unknown.
    """
    from feature_repo.lake import list_partitions
    from training.market.day import load_market_day
    from training.market.orders import FILL_MODELS
    from training.market.venue.depth_world import DepthWorld

    if fill_model not in FILL_MODELS:
        raise InputError(f"fill_model {fill_model!r} is none of {', '.join(FILL_MODELS)}")
    there = [item for item in list_partitions(features_dir, "book.parquet") if item.date == date]
    listings = {}
    for symbol in symbols:
        found = [item for item in there if item.symbol == symbol]
        if len(found) != 1:
            raise InputError(f"{features_dir}: {len(found)} partitions of {symbol} on {date}, one is wanted")
        day = load_market_day(features_dir, None, found[0])
        listings[symbol] = Listing(day.instrument, DepthWorld(day, latency_ns, fill_model))
    return listings


def _reactive(instrument: Instrument, date: str, seed: int, strength: float, latency_ns: int | None) -> World:
    from feature_repo.ticks.reactive_tables import published_tables
    from training.market.venue.reactive_world import ReactiveWorld

    windows = tuple(instrument.session_ns(date))
    number = int(instrument.symbol.removeprefix("SYN")) + 1000 * windows[0][0] // (86_400 * 10**9)
    latency = instrument.latency_ns if latency_ns is None else latency_ns
    return ReactiveWorld(published_tables(), windows, instrument.depth, latency, REACTIVE_BID, seed, number, strength)


def _listing(instrument: Instrument, partition: Partition, table: Any, unknown: str, latency_ns: int | None) -> Listing:
    day = pack_messages(table, f"{partition.instrument_id} {partition.date}", unknown=unknown)
    settings = ReplaySettings(order_latency_ns=instrument.latency_ns if latency_ns is None else latency_ns)
    windows = tuple(instrument.session_ns(partition.date))
    return Listing(instrument, OrderWorld(day, windows, instrument.depth, settings))
