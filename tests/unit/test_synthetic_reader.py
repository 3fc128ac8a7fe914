from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind
from feature_repo.ticks.synthetic import (
    DIRT_KINDS,
    SyntheticOptions,
    SyntheticReader,
    clean_events,
    dirty_rows,
    latent_signal,
    with_dirt,
)

DAY = Partition("SYN", "SYN1", "2025-01-07")


def read(options: dict[str, float], day: str = DAY.date) -> tuple[pa.Table, ReadCount]:
    reader, count = SyntheticReader(), ReadCount()
    plan = reader.plan(IngestRequest("synthetic", date_from=day, date_to=day, options=options))[0]
    return pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA), count


def same(one: EventColumns, other: EventColumns) -> bool:
    return all(np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(EventColumns))


def test_synthetic_when_seed_is_the_same_then_ingest_writes_the_same_bytes(tmp_path: Path) -> None:
    request = IngestRequest("synthetic", options={"days": 2, "hours": 0.1, "seed": 3})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ingest(request, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5  # two days, manifest, instruments, parts
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_synthetic_when_seed_symbol_or_day_differs_then_events_differ() -> None:
    options = {"hours": 0.1, "days": 3}
    base, _ = read(options)
    assert not base.equals(read({**options, "seed": 8})[0])
    assert not base.column("price_ticks").equals(read(options, "2025-01-08")[0].column("price_ticks"))
    parsed = SyntheticOptions.parse({"hours": 0.1, "symbols": 2})
    first, second = (clean_events(parsed, Partition("SYN", name, DAY.date)) for name in ("SYN1", "SYN2"))
    assert not np.array_equal(first.ts_event_ns, second.ts_event_ns)


def test_synthetic_when_one_day_is_asked_for_then_it_equals_that_day_of_the_whole_run() -> None:
    reader = SyntheticReader()
    request = IngestRequest("synthetic", options={"hours": 0.1, "days": 3})
    plans = reader.plan(request)
    assert [plan.partition.date for plan in plans] == ["2025-01-06", "2025-01-07", "2025-01-08"]
    whole = {plan.partition.date: list(reader.read(plan, ReadCount())) for plan in plans}
    alone, _ = read({"hours": 0.1, "days": 3})
    assert alone.equals(pa.Table.from_batches(whole["2025-01-07"], EVENT_SCHEMA))


def test_synthetic_when_dirt_is_taken_out_then_the_clean_events_are_left_exactly() -> None:
    options = SyntheticOptions.parse({"hours": 0.2, "dirt": 0.01})
    clean = clean_events(options, DAY)
    dirty, injected = with_dirt(options, DAY, clean), dirty_rows(options, DAY, clean)
    assert tuple(injected) == DIRT_KINDS
    where = np.concatenate([rows.where for rows in injected.values()])
    order = np.argsort(where, kind="stable")
    places = where[order] + np.arange(len(where))  # each row put in before moves the later ones by one
    kept = np.delete(np.arange(len(dirty)), places)
    assert same(dirty.take(kept), clean)
    assert not same(dirty, clean)


def test_synthetic_when_read_then_the_count_gives_each_kind_of_dirt() -> None:
    table, count = read({"hours": 0.2, "dirt": 0.01})
    clean, _ = read({"hours": 0.2, "dirt": 0.0})
    each = int(0.01 * len(clean))
    assert each > 10
    assert count.vendor_rows == {"generated": len(clean), **dict.fromkeys(DIRT_KINDS, each)}
    assert count.total == len(table) == len(clean) + each * len(DIRT_KINDS)


def test_synthetic_dirt_is_what_its_name_says() -> None:
    options = SyntheticOptions.parse({"hours": 0.2, "dirt": 0.005})
    clean = clean_events(options, DAY)
    rows = dirty_rows(options, DAY, clean)
    open_ns, close_ns = (
        SyntheticReader().instruments(IngestRequest("synthetic", options={"hours": 0.2}))[0].session_ns(DAY.date)[0]
    )
    assert same(rows["duplicate"].events, clean.take(rows["duplicate"].where - 1))
    late = rows["late"]
    assert np.all(late.events.ts_event_ns < clean.ts_event_ns[late.where - 1])
    assert np.all(rows["out_of_session"].events.ts_event_ns >= close_ns)
    assert np.all(rows["zero_price"].events.price_ticks == 0)
    assert np.all(rows["outlying_price"].events.price_ticks > 1.3 * clean.price_ticks[1:].max())
    assert np.all((clean.ts_event_ns >= open_ns) & (clean.ts_event_ns < close_ns))


def test_synthetic_session_opens_with_clear_and_a_flagged_book() -> None:
    table, _ = read({"hours": 0.1})
    kind = table.column("kind").to_numpy()
    last = np.flatnonzero(table.column("flags").to_numpy() & int(Flag.LAST))
    assert kind[0] == Kind.CLEAR
    assert len(last) == 1
    assert np.all(kind[1 : last[0] + 1] == Kind.ADD)
    assert len(np.unique(table.column("price_ticks").to_numpy()[1 : last[0] + 1])) == 12  # six levels a side
    assert np.all(np.diff(table.column("sequence").to_numpy()) == 1)


def test_synthetic_instrument_says_synthetic_and_its_window_matches_the_hours() -> None:
    item = SyntheticReader().instruments(IngestRequest("synthetic", options={"hours": 0.5}))[0]
    assert item.synthetic
    assert [(window.open, window.close) for window in item.windows] == [("09:30:00", "10:00:00")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 1.5}, "strength is 1.5, it must be a number from 0 to 1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"days": 0}, "days is 0, it must be a number from 1 to 250"),
        ({"days": 2.5}, "days is 2.5, it must be a whole number"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"speed": 2}, "option 'speed' is unknown; options: seed, days"),
    ],
)
def test_synthetic_when_an_option_is_wrong_then_message_names_value_and_limits(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SyntheticReader().plan(IngestRequest("synthetic", options=options))


def test_synthetic_when_symbol_day_or_folder_is_not_there_then_message_says_what_is() -> None:
    reader = SyntheticReader()
    with pytest.raises(InputError, match="symbol SYN9 is not in the synthetic market; there: SYN1"):
        reader.plan(IngestRequest("synthetic", symbols=("SYN9",)))
    with pytest.raises(InputError, match="there: 2025-01-06, 2025-01-07"):
        reader.plan(IngestRequest("synthetic", date_from="2026-01-01", options={"days": 2}))
    with pytest.raises(InputError, match="leave --data somewhere out"):
        reader.plan(IngestRequest("synthetic", data=Path("somewhere")))


def test_latent_signal_is_the_one_that_drives_the_day_whatever_the_strength() -> None:
    ts_ns, signal = latent_signal({"hours": 0.5}, DAY)
    again = latent_signal({"hours": 0.5, "strength": 0.0}, DAY)[1]
    assert ts_ns.shape == signal.shape == (1800,)
    assert np.array_equal(signal, again)
    assert signal.min() >= -1.0 and signal.max() <= 1.0 and signal.std() > 0.5
