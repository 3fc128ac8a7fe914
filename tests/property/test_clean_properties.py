"""What holds of cleaning whatever the events: every row once, time in order, and the same verdicts from other code."""

import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.lake import Partition
from feature_repo.pipeline import price_rules
from feature_repo.pipeline.judge import judge, to_events
from feature_repo.pipeline.rules import RULES, CleanLimits
from feature_repo.pipeline.venue_rules import VenueRules, default_rules
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow, save_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from flows.bench.polars_rules import clean_polars

DATE = "2024-01-03"
INSTRUMENT = Instrument("US", "S", 0.01, 1, "USD", "UTC", (SessionWindow("10:00:00", "11:00:00"),), 1, False, 1)
OPEN_NS = INSTRUMENT.session_ns(DATE)[0][0]
NAMES = list(RULES)
SEEDS = st.integers(0, 2**32 - 1)


def quotes_and_trades(seed: int, rows: int = 600) -> pa.Table:
    """A walking market of quotes and trades with faults of every kind that quotes and trades can have."""
    rng = np.random.default_rng(seed)
    ts = OPEN_NS + np.cumsum(rng.choice([0, 1, 20, 120, 600], rows)) * 1_000_000 - 2_000_000_000
    kind = np.where(rng.random(rows) < 0.3, int(Kind.TRADE), int(Kind.QUOTE))
    side = np.where(kind == Kind.TRADE, 0, rng.choice([int(Side.BUY), int(Side.SELL)], rows))
    walk = 5000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], rows))
    price = walk - side * rng.choice([-1, 0, 1, 1, 1, 1, 1, 2], rows)
    size = rng.integers(1, 500, rows) * 10

    def some(share: float) -> np.ndarray:
        return rng.random(rows) < share

    price = np.where(some(0.01), rng.choice([0, -3, 2500, 5200, 9000], rows), price)
    size = np.where(some(0.01), rng.choice([0, -1, 10**8], rows), size)
    size = np.where(price == 0, 0, size)
    side = np.where(some(0.005), 0, side)
    kind = np.where(some(0.003), int(Kind.HALT), kind)
    flags = np.where(
        some(0.03), rng.choice([int(flag) for flag in Flag if flag not in (Flag.CARRIED, Flag.RESYNC)], rows), 0
    )
    ts = ts + np.where(some(0.01), rng.choice([-5_000, -900, 400, 30_000], rows) * 1_000_000, 0)
    recv = ts + 5_000_000 - np.where(some(0.01), 2_000_000_000, 0)
    columns = (ts, recv, np.arange(rows), kind, side, price, size, np.zeros(rows), flags)
    table = pa.table({name: pa.array(c.astype(np.int64)) for name, c in zip(EVENT_SCHEMA.names, columns, strict=True)})
    again = np.sort(np.concatenate([np.arange(rows), rng.integers(0, rows, 5)]))  # rows that come twice
    table = table.take(pa.array(again))
    return table.set_column(2, "sequence", pa.array(np.arange(len(again)))).cast(EVENT_SCHEMA)


def anything(seed: int, rows: int) -> pa.Table:
    """Rows of any kind, side and flag, with numbers near and far."""
    rng = np.random.default_rng(seed)
    far = np.array([-(2**40), -1, 0, 1, 2**40])

    def number(near: np.ndarray) -> np.ndarray:
        return np.where(rng.random(rows) < 0.05, rng.choice(far, rows), near)

    ts = OPEN_NS + number(np.cumsum(rng.integers(0, 50, rows)) * 1_000_000)
    price, size = number(5000 + rng.integers(-3, 4, rows)), number(rng.integers(0, 5, rows))
    flags = rng.choice([0, 0, 0, *(int(flag) for flag in Flag)], rows)
    kinds, sides = rng.integers(1, 10, rows), rng.integers(-1, 2, rows)
    columns = (ts, number(ts), np.arange(rows), kinds, sides, price, size, rng.integers(0, 8, rows), flags)
    arrays = {name: pa.array(c.astype(np.int64)) for name, c in zip(EVENT_SCHEMA.names, columns, strict=True)}
    return pa.table(arrays).cast(EVENT_SCHEMA)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS, rows=st.integers(1, 300), tolerance_ms=st.sampled_from([0, 100]), off=st.sets(st.sampled_from(NAMES))
)
def test_judge_when_given_anything_then_each_row_is_judged_once_and_kept_time_runs_forward(
    seed: int, rows: int, tolerance_ms: int, off: set[str]
) -> None:
    events = to_events(anything(seed, rows))
    limits = replace(CleanLimits(), backward_tolerance_ns=tolerance_ms * 1_000_000)
    rules = VenueRules(frozenset(RULES) - off, limits)
    found = judge(events, rules, INSTRUMENT.session_ns(DATE), [])
    assert len(np.unique(found.sequence)) == len(found.sequence) <= rows
    assert np.isin(found.sequence, events.sequence).all()
    used = {NAMES[number - 1] for number in found.rule.tolist()}
    assert used <= rules.on
    kept = ~np.isin(events.sequence, found.sequence)
    exempt = (events.flags & int(Flag.CARRIED | Flag.RESYNC | Flag.GAP)) != 0
    times = events.ts[kept & ~exempt]
    assert found.in_order == bool((np.diff(events.ts[kept]) >= 0).all())
    if "out_of_order" in rules.on:
        assert (np.maximum.accumulate(times) - times <= limits.backward_tolerance_ns).all() if len(times) else True
    if "out_of_session" in rules.on and len(times):
        opens, closes = INSTRUMENT.session_ns(DATE)[0]
        assert opens <= times.min() and times.max() < closes
    assert not np.isin(events.sequence[(events.flags & int(Flag.CARRIED)) != 0], found.sequence).any()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_rules_when_written_again_in_polars_then_every_row_has_the_same_verdict(seed: int) -> None:
    table = quotes_and_trades(seed)
    partition = Partition("US", "S", DATE)
    found = judge(to_events(table), default_rules().of("US"), INSTRUMENT.session_ns(DATE), [])
    with tempfile.TemporaryDirectory() as folder:
        bronze, out = Path(folder, "bronze"), Path(folder, "out")
        partition.folder(bronze).mkdir(parents=True)
        pq.write_table(table, partition.folder(bronze) / "events.parquet")
        save_instruments([INSTRUMENT], bronze)
        counts = clean_polars(bronze, out)
        theirs = pq.read_table(partition.folder(out / "quarantine") / "events.parquet", partitioning=None)
        kept = pq.read_table(partition.folder(out) / "events.parquet", partitioning=None)
    ours = {int(s): NAMES[r - 1] for s, r in zip(found.sequence, found.rule, strict=True)}
    assert dict(zip(theirs["sequence"].to_pylist(), theirs["rule"].to_pylist(), strict=True)) == ours
    assert sum(counts.values()) == len(ours) and kept.num_rows + theirs.num_rows == table.num_rows


def naive_outliers(price: list[int], limits: CleanLimits) -> list[bool]:
    """The rule as its text says it, one price at a time, with NumPy's own mean and deviation."""
    found = []
    for i, value in enumerate(price):
        near = (price[max(0, i - limits.outlier_neighbours) : i], price[i + 1 : i + 1 + limits.outlier_neighbours])
        sides = [sorted(p for p in side if p > 0) for side in near]
        trimmed = [np.array(side[1:-1], float) for side in sides if len(side) >= limits.outlier_min_neighbours]
        if value <= 0 or not trimmed:
            found.append(False)
            continue
        gamma = max(limits.outlier_gamma_ticks, trimmed[0].mean() * limits.outlier_gamma_bps * 1e-4)
        bound = limits.outlier_sds * min(side.std() for side in trimmed) + gamma
        offs = [value - side.mean() for side in trimmed]
        found.append(all(off > bound for off in offs) or all(off < -bound for off in offs))
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 4900, 4995, 4999, 5000, 5001, 5002, 5010, 5030, 9000]), max_size=80))
def test_outliers_when_compared_with_the_rules_own_words_then_equal(price: list[int]) -> None:
    found = price_rules.outliers(np.array(price, np.int64), 20, 5, 3.0, 25.0, 8)
    assert found.tolist() == naive_outliers(price, CleanLimits())


def local_hours(zone: str, windows: tuple[SessionWindow, ...]) -> Instrument:
    return Instrument("V", "S", 0.01, 1, "USD", zone, windows, 1, False, 1)


@given(day=st.dates(date(2015, 1, 1), date(2026, 12, 31)), second=st.integers(0, 86_399))
def test_session_when_clocks_change_then_new_york_still_trades_from_half_past_nine_to_four(
    day: date, second: int
) -> None:
    zone = ZoneInfo("America/New_York")
    windows = local_hours("America/New_York", (SessionWindow("09:30:00", "16:00:00"),)).session_ns(day.isoformat())
    moment = datetime(day.year, day.month, day.day, 5, tzinfo=UTC) + timedelta(seconds=second)
    local = moment.astimezone(zone)
    open_, close = (9, 30), (16, 0)
    wanted = local.date() == day and open_ <= (local.hour, local.minute) < close
    stamp = int(moment.timestamp()) * NS
    assert any(a <= stamp < b for a, b in windows) == wanted
    assert sum(b - a for a, b in windows) == 6.5 * 3600 * NS


def test_session_when_summer_time_begins_and_ends_then_the_open_moves_by_an_hour_in_utc() -> None:
    new_york = local_hours("America/New_York", (SessionWindow("09:30:00", "16:00:00"),))
    chicago = local_hours("America/Chicago", (SessionWindow("08:30:00", "15:00:00"),))
    for before, after, hours in (("2024-03-08", "2024-03-11", (14, 13)), ("2024-11-01", "2024-11-04", (13, 14))):
        for day, hour in ((before, hours[0]), (after, hours[1])):
            for instrument in (new_york, chicago):  # Chicago opens at the same moment: one zone west, one hour earlier
                opens = datetime.fromtimestamp(instrument.session_ns(day)[0][0] / NS, UTC)
                assert (opens.date().isoformat(), opens.hour, opens.minute) == (day, hour, 30)


def test_session_when_it_spans_the_night_of_the_change_then_it_is_an_hour_shorter_or_longer() -> None:
    globex = local_hours("America/Chicago", (SessionWindow("17:00:00", "16:00:00", days_before=1),))
    hours = {day: sum(b - a for a, b in globex.session_ns(day)) / NS / 3600 for day in ("2024-03-07", "2024-11-05")}
    assert hours == {"2024-03-07": 23.0, "2024-11-05": 23.0}
    saturday_night = local_hours("America/Chicago", (SessionWindow("20:00:00", "04:00:00"),))
    assert sum(b - a for a, b in saturday_night.session_ns("2024-03-09")) == 7 * 3600 * NS
    assert sum(b - a for a, b in saturday_night.session_ns("2024-11-02")) == 9 * 3600 * NS


def test_session_when_friday_night_trades_then_it_belongs_to_monday() -> None:
    windows = (SessionWindow("21:00:00", "23:00:00", days_before=1), SessionWindow("09:00:00", "15:00:00"))
    rebar = local_hours("Asia/Shanghai", windows)
    nights = {
        day: datetime.fromtimestamp(rebar.session_ns(day)[0][0] / NS, UTC) for day in ("2025-06-09", "2025-06-10")
    }
    assert nights["2025-06-09"] == datetime(2025, 6, 6, 13, tzinfo=UTC)  # Friday 21:00 in Shanghai
    assert nights["2025-06-10"] == datetime(2025, 6, 9, 13, tzinfo=UTC)
    trade = np.array([int(nights["2025-06-09"].timestamp()) * NS + 1])
    row = {name: [0] for name in EVENT_SCHEMA.names} | {"ts_event_ns": trade, "ts_recv_ns": trade}
    row |= {"kind": [int(Kind.TRADE)], "price_ticks": [3000], "size": [1]}
    events = to_events(pa.table(row).cast(EVENT_SCHEMA))
    for day, rules in (("2025-06-09", []), ("2025-06-06", ["out_of_session"]), ("2025-06-10", ["out_of_session"])):
        found = judge(events, default_rules().of("SHFE"), rebar.session_ns(day), [])
        assert [NAMES[number - 1] for number in found.rule] == rules
