"""What is known of an instrument before its first tick: units, sessions and how its data meets an order."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from feature_repo.errors import InputError

NS = 1_000_000_000


@dataclass(frozen=True)
class SessionWindow:
    """One continuous trading window of a session date, in the venue's local time."""

    open: str  # "HH:MM:SS"
    close: str  # "HH:MM:SS", exclusive
    days_before: int = 0  # 1 for a night session that opens the evening before the trading day
    skips_weekends: bool = True  # whether days_before counts weekdays only; a forex Monday opens on Sunday


@dataclass(frozen=True)
class Instrument:
    """Static facts of one symbol at one venue; travels beside the data as `instruments.json`."""

    venue: str
    symbol: str
    tick_size: float  # currency per price tick
    lot_size: float  # units per lot (1 share for US equities, 10 t for SHFE rebar)
    currency: str
    timezone: str  # IANA name of the venue's local time
    windows: tuple[SessionWindow, ...]
    depth: int  # visible levels per side in the reconstructed book
    snapshot_data: bool  # True: an order meets the next snapshot; False: the state at decision + latency
    latency_ns: int  # order latency (decision to venue); ignored for snapshot data
    synthetic: bool = False

    @property
    def instrument_id(self) -> str:
        """Join key in the feature store, `VENUE:SYMBOL`."""
        return f"{self.venue}:{self.symbol}"

    def session_ns(self, session_date: str) -> list[tuple[int, int]]:
        """Trading windows of ISO `session_date` as `[(open_ns, close_ns), ...]`, int64 UTC, in time order."""
        zone = ZoneInfo(self.timezone)
        day = date.fromisoformat(session_date)
        spans = []
        for window in self.windows:
            local_day = _days_before(day, window.days_before, window.skips_weekends)
            opens = datetime.combine(local_day, time.fromisoformat(window.open), zone)
            closes = datetime.combine(local_day, time.fromisoformat(window.close), zone)
            if window.close <= window.open:  # the window crosses midnight
                closes = datetime.combine(local_day + timedelta(days=1), time.fromisoformat(window.close), zone)
            spans.append((_to_ns(opens), _to_ns(closes)))
        return sorted(spans)


def _days_before(day: date, count: int, skips_weekends: bool) -> date:
    while count > 0:
        day -= timedelta(days=1)
        if not skips_weekends or day.weekday() < 5:
            count -= 1
    return day


def _to_ns(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * NS


def save_instruments(instruments: list[Instrument], folder: Path) -> None:
    """Write `instruments.json` into `folder`, sorted by id so that equal content gives equal bytes."""
    rows = [asdict(item) for item in sorted(instruments, key=lambda item: item.instrument_id)]
    (folder / "instruments.json").write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


def load_instruments(folder: Path) -> dict[str, Instrument]:
    """Read `instruments.json` of a dataset, keyed by `VENUE:SYMBOL`.

    Raises InputError where the file is absent or not of this form.
    """
    path = folder / "instruments.json"
    try:
        rows = json.loads(path.read_text())
        items = [Instrument(**{**row, "windows": tuple(SessionWindow(**w) for w in row["windows"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a readable instruments file ({error}); run ingest again") from error
    return {item.instrument_id: item for item in items}
