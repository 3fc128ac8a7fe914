"""One prepared trading day for the simulator: book, features, forecasts, aligned, and what earlier days tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, load_instruments
from serving.contracts.observation import FORECAST_HORIZONS_S, FORECAST_NAMES

if TYPE_CHECKING:
    from feature_repo.pipeline.books import Book
    from training.market.impact import ImpactParameters

BUCKET_NS = 300_000_000_000  # the volume curve's resolution, 5 minutes


@dataclass(frozen=True)
class MarketDay:
    """Everything that an episode on one day may see or meet; arrays are shared and never written.

    `features (M, F) float32` and `forecasts (M, H) float32, bps` have one row per `feature_ns (M,) int64`;
    `forecast_missing (M,) float32` is 1 where no model was old enough. Rows without a valid book are left out, so that
    the row in force at t is the last one with `feature_ns <= t`.
    """

    instrument: Instrument
    partition: Partition
    book: "Book"
    feature_names: tuple[str, ...]
    feature_ns: NDArray[np.int64]
    features: NDArray[np.float32]
    horizons_s: tuple[int, ...]
    forecasts: NDArray[np.float32]
    forecast_missing: NDArray[np.float32]
    windows: tuple[tuple[int, int], ...]  # session windows, [open_ns, close_ns)
    adv_lots: float = 0.0  # mean daily volume of earlier days; of this day where there is none earlier
    curve: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # earlier days' share of volume per bucket
    history_days: int = 0  # earlier days behind adv_lots and curve; 0: none, the curve is flat
    leaves: NDArray[np.void] | None = None  # LEAF_DTYPE, what left its queue; None: not known order by order
    halts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))  # (H, 2) ns, from and to
    impact: "ImpactParameters | None" = None  # how the price reacts to own trades in the world "impact"; None: unknown

    @property
    def volume_lots(self) -> int:
        """Lots traded on this day."""
        return int(self.book.trade_sz.astype(np.int64).sum())

    def tick_bps(self) -> float:
        """One tick in bps of the day's first two-sided mid."""
        both = (self.book.bid_sz[:, 0] > 0) & (self.book.ask_sz[:, 0] > 0)
        if not both.any():
            raise InputError(f"{self.partition.instrument_id} {self.partition.date}: no two-sided book all day")
        first = int(np.argmax(both))
        return 2e4 / (int(self.book.bid_px[first, 0]) + int(self.book.ask_px[first, 0]))

    def bucket_edges(self) -> NDArray[np.int64]:
        """Starts of the 5-minute buckets of all session windows in time order, `(B,) int64` ns."""
        return np.concatenate([np.arange(opens, closes, BUCKET_NS, dtype=np.int64) for opens, closes in self.windows])

    def bucket_volume(self) -> NDArray[np.float64]:
        """Lots traded in each bucket of this day, `(B,) float64`: for later days' curves, never for this day's own."""
        traded = self.book.trade_sz > 0
        where = np.searchsorted(self.bucket_edges(), self.book.ts_ns[traded], side="right") - 1
        weights = self.book.trade_sz[traded].astype(np.float64)
        volume = np.bincount(np.maximum(where, 0), weights=weights, minlength=len(self.bucket_edges()))
        return volume.astype(np.float64)


def load_market_day(features_dir: Path, forecasts_dir: Path | None, partition: Partition) -> MarketDay:
    """Read book, features and (where `forecasts_dir` is given) forecasts of one partition.

    Raises InputError where a file is absent, columns are missing, rows do not agree, time runs backwards, or no feature
    row is valid.
    """
    from feature_repo.pipeline.books import load_book
    from feature_repo.pipeline.kernels import SIGNAL_V1
    from feature_repo.pipeline.leaves import HALT, halts_of, load_leaves

    instruments = load_instruments(features_dir)
    if partition.instrument_id not in instruments:
        raise InputError(f"{features_dir}/instruments.json does not name {partition.instrument_id}; run ingest again")
    instrument = instruments[partition.instrument_id]
    names = SIGNAL_V1
    path = partition.folder(features_dir) / "features.parquet"
    table = _read(path, ("ts_ns", *names, "book_valid"))
    feature_ns = table["ts_ns"].astype(np.int64)
    features = np.column_stack([table[name] for name in names]).astype(np.float32)
    forecasts, missing = _forecasts(forecasts_dir, partition, feature_ns)
    finite = np.asarray(np.isfinite(features).all(axis=1) & np.isfinite(forecasts).all(axis=1))
    if not finite.all():
        raise InputError(f"{path}: {int((~finite).sum())} of {len(finite)} rows are not finite; build features again")
    valid = np.asarray(table["book_valid"] != 0, bool)
    if not valid.any():
        raise InputError(f"{path}: no row of {len(valid)} has a valid book; the day cannot be traded")
    book = load_book(features_dir, partition)
    if np.any(np.diff(book.ts_ns) < 0) or np.any(np.diff(feature_ns) <= 0):
        raise InputError(f"{path.parent}: time runs backwards in the book or its features; build them again")
    leaves = load_leaves(features_dir, partition)
    return MarketDay(
        instrument=instrument,
        partition=partition,
        book=book,
        feature_names=names,
        feature_ns=feature_ns[valid],
        features=np.ascontiguousarray(features[valid]),
        horizons_s=FORECAST_HORIZONS_S,
        forecasts=np.ascontiguousarray(forecasts[valid]),
        forecast_missing=missing[valid],
        windows=tuple(instrument.session_ns(partition.date)),
        leaves=leaves if np.any(leaves["kind"] < HALT) else None,
        halts=halts_of(leaves),
    )


def load_market_days(
    features_dir: Path, forecasts_dir: Path | None, partitions: Sequence[Partition], impact: bool = False
) -> list[MarketDay]:
    """Days of `partitions` in their order, each with ADV and volume curve of its instrument's earlier days on disk.

    Earlier days are all partitions of the instrument in `features_dir` dated before it, whether asked for or not. With
    `impact` each carries the impact calibrated on them too (`impact_calibration.with_earlier_impact`).
    """
    from feature_repo.lake import list_partitions

    known = list_partitions(features_dir, "book.parquet")
    loaded: dict[Partition, MarketDay] = {}

    def day_of(partition: Partition) -> MarketDay:
        if partition not in loaded:
            loaded[partition] = load_market_day(features_dir, forecasts_dir, partition)
        return loaded[partition]

    days = []
    for partition in partitions:
        same = [p for p in known if p.instrument_id == partition.instrument_id and p.date < partition.date]
        earlier = [day_of(p) for p in same]
        day = with_history(day_of(partition), earlier)
        if impact:
            from training.market.impact_calibration import with_earlier_impact

            day = with_earlier_impact(day, earlier)
        days.append(day)
    return days


def with_history(day: MarketDay, earlier: Sequence[MarketDay]) -> MarketDay:
    """`day` with the mean daily volume and the mean share of volume per bucket of `earlier` days.

    Raises InputError where one of them is not earlier. Without any, ADV is the day's own volume (it sizes parents only)
    and the curve is flat; `history_days` 0 says so.
    """
    late = [other.partition.date for other in earlier if other.partition.date >= day.partition.date]
    if late:
        raise InputError(f"day {late[0]} is not earlier than {day.partition.date}: its volume must not be known there")
    buckets = len(day.bucket_edges())
    shares = [_resampled(other.bucket_volume(), buckets) for other in earlier if other.volume_lots > 0]
    if not shares:
        return replace(day, adv_lots=float(day.volume_lots), curve=np.full(buckets, 1.0 / buckets), history_days=0)
    adv = float(np.mean([other.volume_lots for other in earlier if other.volume_lots > 0]))
    return replace(day, adv_lots=adv, curve=np.mean(shares, axis=0), history_days=len(shares))


def volume_curve(days: Sequence[MarketDay]) -> NDArray[np.float64]:
    """Mean share of a day's volume in each 5-minute bucket over `days`, `(B,) float64`, sums to 1."""
    if not days:
        raise InputError("a volume curve needs at least one earlier day, got none")
    buckets = len(days[-1].bucket_edges())
    return np.asarray(np.mean([_resampled(day.bucket_volume(), buckets) for day in days], axis=0))


def _resampled(volume: NDArray[np.float64], buckets: int) -> NDArray[np.float64]:
    """Shares of volume on `buckets` buckets; a day of another length (half day) counts by its place from the open."""
    shares = np.zeros(buckets)
    count = min(buckets, len(volume))
    shares[:count] = volume[:count]
    total = shares.sum()
    return shares / total if total > 0 else np.full(buckets, 1.0 / buckets)


def _read(path: Path, columns: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not readable ({error}); build features again") from error
    absent = [name for name in columns if name not in table.column_names]
    if absent:
        raise InputError(f"{path}: columns {', '.join(absent)} are missing; build features again")
    return {name: table[name].to_numpy() for name in columns}


def _forecasts(
    forecasts_dir: Path | None, partition: Partition, feature_ns: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = len(feature_ns)
    if forecasts_dir is None:
        return np.zeros((rows, len(FORECAST_NAMES)), np.float32), np.ones(rows, np.float32)
    import pyarrow.parquet as pq

    path = partition.folder(forecasts_dir) / "forecasts.parquet"
    try:
        present = pq.read_schema(path).names
    except OSError as error:
        raise InputError(f"{path}: no forecasts for this day ({error}); train the signal on it first") from error
    absent = [name for name in FORECAST_NAMES if name not in present]
    if absent:
        raise InputError(f"{path}: no {', '.join(absent)}: policies see those horizons; train the signal with them")
    table = _read(path, ("ts_ns", *FORECAST_NAMES, "forecast_missing"))
    if not np.array_equal(table["ts_ns"], feature_ns):
        raise InputError(f"{path}: its rows do not match the {rows} feature rows; train the signal again")
    values = np.column_stack([table[name] for name in FORECAST_NAMES]).astype(np.float32)
    return values, table["forecast_missing"].astype(np.float32)
