"""Each cleaning rule on a small hand-made day: what it catches, and what it must leave alone."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import DiskFullError, InputError, ShortfallError
from feature_repo.lake import Partition
from feature_repo.parts import Parts
from feature_repo.pipeline import cleaning
from feature_repo.pipeline.cleaning import clean
from feature_repo.pipeline.spark_io import write_single
from feature_repo.ticks.instruments import Instrument, SessionWindow, save_instruments
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side, schema_problem
from flows.bench.polars_rules import clean_polars

pytestmark = pytest.mark.spark

DATE = "2024-01-03"
DAY = Partition("V", "S", DATE)
WINDOWS = (SessionWindow("10:00:00", "11:00:00"), SessionWindow("12:00:00", "13:00:00"))
INSTRUMENT = Instrument("V", "S", 0.01, 1, "USD", "UTC", WINDOWS, 5, False, 1_000_000)
OPEN_NS = INSTRUMENT.session_ns(DATE)[0][0]
MS = 1_000_000
FIELDS = EVENT_SCHEMA.names


def event(at_ms, kind, side=Side.NONE, price=0, size=0, order_id=0, flags=0):
    stamp = OPEN_NS + int(at_ms * MS)
    return {
        "ts_event_ns": stamp,
        "ts_recv_ns": stamp,
        "kind": int(kind),
        "side": int(side),
        "price_ticks": price,
        "size": size,
        "order_id": order_id,
        "flags": int(flags),
    }


def trade(at_ms, price, size=100, **more):
    return event(at_ms, Kind.TRADE, Side.NONE, price, size, **more)


def bid(at_ms, price, size=100, **more):
    return event(at_ms, Kind.QUOTE, Side.BUY, price, size, **more)


def ask(at_ms, price, size=100, **more):
    return event(at_ms, Kind.QUOTE, Side.SELL, price, size, **more)


def snapshot(at_ms, bids, asks, last=True):
    """CLEAR, then levels best first; `bids` and `asks` are (price, size)."""
    levels = [
        event(at_ms, Kind.LEVEL, side, price, size, flags=index)
        for side, prices in ((Side.BUY, bids), (Side.SELL, asks))
        for index, (price, size) in enumerate(prices)
    ]
    if last:
        levels[-1]["flags"] |= int(Flag.LAST)
    return [event(at_ms, Kind.CLEAR), *levels]


def write_bronze(root: Path, days: dict[Partition, list[dict]]) -> Path:
    for partition, rows in days.items():
        folder = partition.folder(root)
        folder.mkdir(parents=True)
        rows = [{**row, "sequence": number} for number, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), folder / "events.parquet")
    save_instruments([INSTRUMENT], root)
    return root


@pytest.fixture
def clean_day(spark, tmp_path):
    """Cleans one list of events; returns {sequence: rule} of what was quarantined."""

    def run(rows):
        partition = Partition("V", "S", DATE)
        bronze = write_bronze(tmp_path / "bronze", {partition: rows})
        out = tmp_path / "silver"
        out.mkdir()
        summary = clean(bronze, out, spark)
        kept = pq.read_table(partition.folder(out) / "events.parquet", partitioning=None)
        caught = pq.read_table(partition.folder(out / "quarantine") / "events.parquet", partitioning=None)
        assert schema_problem(kept.schema) == ""
        assert sorted(kept["sequence"].to_pylist() + caught["sequence"].to_pylist()) == list(range(len(rows)))
        assert summary["rows_in"] == len(rows) == summary["rows_kept"] + summary["rows_quarantined"]
        by_sequence = {row["sequence"]: row for row in kept.to_pylist() + caught.to_pylist()}
        for number, row in enumerate(rows):  # nothing is altered on the way
            assert {name: by_sequence[number][name] for name in row} == row
        return dict(zip(caught["sequence"].to_pylist(), caught["rule"].to_pylist(), strict=True))

    return run


def calm_quotes(start_ms=0, count=60, price=5000, step_ms=10):
    """A quiet market that oscillates by a tick, bid and ask in turn."""
    rows = []
    for i in range(count):
        wave = i // 2 % 2
        make, level = (bid, price + wave) if i % 2 == 0 else (ask, price + 2 + wave)
        rows.append(make(start_ms + i * step_ms, level))
    return rows


def calm_trades(start_ms=0, count=60, price=5000, step_ms=10):
    return [trade(start_ms + i * step_ms, price + i % 3) for i in range(count)]


def test_clean_when_the_day_is_sound_then_nothing_is_quarantined(clean_day):
    assert clean_day(calm_quotes() + calm_trades(start_ms=1000)) == {}


def test_exact_duplicate_when_quote_repeats_then_second_goes_and_equal_prints_stay(clean_day):
    rows = calm_quotes(count=20)
    rows += [dict(rows[-1])] + [trade(500, 5001), trade(500, 5001), trade(500, 5001)]
    assert clean_day(rows) == {20: "exact_duplicate"}


def test_exact_duplicate_when_order_message_repeats_apart_then_second_goes(clean_day):
    rows = [event(i, Kind.ADD, Side.BUY, 5000 - i, 10, order_id=i + 1) for i in range(10)]
    rows += [event(20, Kind.ADD, Side.SELL, 5010, 5, order_id=50), event(20, Kind.ADD, Side.SELL, 5011, 5, order_id=51)]
    rows += [dict(rows[10]), event(30, Kind.CANCEL, Side.SELL, 5010, 5, order_id=50)]
    assert clean_day(rows) == {12: "exact_duplicate"}


def test_out_of_session_when_outside_windows_then_caught_and_the_open_itself_is_in(clean_day):
    hour_ms = 3_600_000
    rows = [
        trade(-1, 5000),
        trade(0, 5000),
        trade(hour_ms - 1, 5000),
        trade(hour_ms, 5000),
        trade(2 * hour_ms, 5000),
        trade(3 * hour_ms, 5000),
    ]
    assert clean_day(rows) == {0: "out_of_session", 3: "out_of_session", 5: "out_of_session"}


def test_out_of_order_when_one_row_runs_backwards_then_it_alone_goes(clean_day):
    rows = calm_trades(count=40)
    rows.insert(20, trade(5, 5001))
    assert clean_day(rows) == {20: "out_of_order"}


def test_out_of_order_when_one_clock_runs_ahead_then_the_rest_of_the_day_stays(clean_day):
    rows = calm_trades(count=400)
    rows.insert(100, trade(600_000, 5001))
    assert clean_day(rows) == {100: "out_of_order"}


def test_out_of_order_when_a_late_block_arrives_then_only_the_block_goes(clean_day):
    rows = calm_trades(count=400)
    rows[200:200] = [trade(500 + i, 5000 + i % 2) for i in range(40)]
    assert clean_day(rows) == dict.fromkeys(range(200, 240), "out_of_order")


def test_non_positive_when_price_or_size_is_bad_then_named_and_empty_side_stays(clean_day):
    rows = calm_quotes(count=20)
    rows += [
        trade(300, 0),
        trade(300, -5),
        trade(300, 5000, size=0),
        bid(300, 5000, size=0),
        bid(301, 0, size=0),
        ask(302, 0, size=10),
        bid(303, 5000, size=0, flags=Flag.NO_SIZE),
        event(304, Kind.HALT),
        {**ask(305, 0, size=0), "side": 0},  # names no side, so it must not empty one
    ]
    assert clean_day(rows) == {
        28: "no_side",
        20: "non_positive_price",
        21: "non_positive_price",
        22: "non_positive_size",
        23: "non_positive_size",
        25: "non_positive_price",
    }


def test_suspicious_when_vendor_flags_the_row_then_it_goes(clean_day):
    rows = calm_trades(count=10) + [trade(200, 5001, flags=Flag.SUSPICIOUS)]
    assert clean_day(rows) == {10: "suspicious"}


@pytest.mark.parametrize("place", [0, 1, 30, 58])
def test_outlier_when_one_trade_spikes_anywhere_in_the_day_then_it_alone_goes(clean_day, place):
    rows = calm_trades()
    rows[place] = trade(place * 10, 5500)
    assert clean_day(rows) == {place: "outlier_price"}


def test_outlier_when_the_market_jumps_and_stays_then_nothing_goes(clean_day):
    rows = calm_trades(count=40) + calm_trades(start_ms=400, count=40, price=4600)
    assert clean_day(rows) == {}


def test_outlier_when_bad_quote_is_resized_then_the_whole_run_goes(clean_day):
    rows = calm_quotes()
    at = rows[29]["ts_event_ns"] - OPEN_NS
    rows[30:30] = [bid(at / MS, 2000, size=size) for size in (1, 2, 3)]
    assert clean_day(rows) == {30: "outlier_price", 31: "outlier_price", 32: "outlier_price"}


def test_crossed_when_other_side_follows_within_grace_then_both_stay(clean_day):
    rows = calm_quotes(count=20) + [bid(300, 5005), ask(350, 5007)] + calm_quotes(start_ms=400, count=20, price=5005)
    assert clean_day(rows) == {}


def test_crossed_when_it_stands_beyond_grace_then_the_crossing_quotes_go(clean_day):
    rows = calm_quotes(count=20)
    rows += [bid(300, 5005), bid(310, 5005, size=7), ask(320, 5003, size=9), ask(600, 5007), bid(610, 5005)]
    assert clean_day(rows) == {20: "crossed_book", 21: "crossed_book"}


def test_locked_when_it_stands_beyond_its_longer_grace_then_the_locking_quote_goes(clean_day):
    rows = calm_quotes(count=20)
    assert rows[-1]["price_ticks"] == 5003
    rows += [bid(300, 5003), ask(900, 5004), bid(1000, 5004), ask(2500, 5005), bid(2600, 5003)]
    assert clean_day(rows) == {22: "locked_book"}


BIDS, ASKS = [(5000, 10), (4999, 20)], [(5001, 10), (5002, 20)]


def test_snapshot_when_crossed_locked_or_broken_then_it_goes_whole(clean_day):
    rows = []
    for i in range(12):
        rows += snapshot(500 * i, BIDS, ASKS)
    rows += snapshot(6000, [(5001, 5), (5000, 1)], [(5001, 5), (5002, 5)])  # 60..64
    rows += snapshot(6500, [(5002, 5), (5000, 1)], [(5001, 5), (5003, 5)])  # 65..69
    rows += snapshot(7000, BIDS, ASKS, last=False)  # 70..74
    rows += snapshot(7500, BIDS, [(5001, -1), (5002, 5)])  # 75..79
    rows += snapshot(8000, BIDS, [(0, 0), (0, 0)])  # an empty side is a state of the market
    expected = dict.fromkeys(range(60, 65), "locked_book") | dict.fromkeys(range(65, 70), "crossed_book")
    expected |= dict.fromkeys(range(70, 75), "broken_snapshot") | dict.fromkeys(range(75, 80), "non_positive_size")
    assert clean_day(rows) == expected


def test_snapshot_when_repeated_or_outlying_then_it_goes_whole_and_trades_stay(clean_day):
    rows = []
    for i in range(12):
        rows += [*snapshot(500 * i, BIDS, ASKS), trade(500 * i, 5000 + i % 2)]
    rows += snapshot(5500, BIDS, ASKS) + snapshot(6000, [(50, 5), (49, 1)], ASKS)  # 72..76, 77..81
    assert clean_day(rows)[77] == "outlier_price"


def test_repeated_snapshot_when_all_rows_come_twice_then_second_goes(clean_day):
    rows = []
    for i in range(4):
        rows += snapshot(500 * i, BIDS, ASKS)
    rows += snapshot(1500, BIDS, ASKS)
    assert clean_day(rows) == dict.fromkeys(range(20, 25), "exact_duplicate")


def test_orders_when_add_is_absurd_then_it_goes_and_its_life_is_orphaned(clean_day):
    rows = [event(i, Kind.ADD, Side.BUY, 5000 - i, 10, order_id=i + 1) for i in range(10)]
    rows += [trade(20 + i, 5000, size=1, order_id=1) for i in range(5)]
    rows += [event(30, Kind.ADD, Side.SELL, 1_999_999, 10, order_id=90)]
    rows += [event(31, Kind.CANCEL, Side.SELL, 1_999_999, 10, order_id=90)]
    rows += [event(32, Kind.ADD, Side.SELL, 6000, 10, order_id=91)]
    assert clean_day(rows) == {15: "outlier_price", 16: "orphan"}


def test_several_rules_when_one_event_breaks_them_then_first_of_the_order_counts(clean_day):
    rows = calm_trades(count=20) + [trade(-5000, 0, size=0, flags=Flag.SUSPICIOUS), trade(300, 0, size=0)]
    assert clean_day(rows) == {20: "out_of_session", 21: "non_positive_price"}


def test_clean_when_no_row_is_fit_then_names_the_partition(clean_day):
    with pytest.raises(InputError, match=r"V:S 2024-01-03: none of 2 rows .*out_of_session 2"):
        clean_day([trade(-10, 5000), trade(-5, 5000)])


def test_clean_when_a_partition_is_empty_then_names_it(clean_day):
    with pytest.raises(InputError, match="V:S has no event on 2024-01-03"):
        clean_day([])


def test_clean_when_folder_holds_nothing_then_says_so(spark, tmp_path):
    with pytest.raises(InputError, match="no partition"):
        clean(tmp_path, tmp_path / "out", spark)


def test_clean_when_file_is_truncated_then_names_it(spark, tmp_path):
    partition = Partition("V", "S", DATE)
    bronze = write_bronze(tmp_path / "bronze", {partition: calm_trades()})
    path = partition.folder(bronze) / "events.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"events\.parquet: not a readable event file"):
        clean(bronze, tmp_path / "out", spark)


def test_clean_when_a_page_of_the_file_is_damaged_then_names_it(spark, tmp_path):
    bronze = write_bronze(tmp_path / "bronze", {DAY: calm_trades(count=2000)})
    path = DAY.folder(bronze) / "events.parquet"
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"events\.parquet: not a readable event file"):
        clean(bronze, tmp_path, spark)


def test_clean_when_the_disk_is_full_then_says_so(spark, tmp_path, monkeypatch):
    def full(frame, path):
        raise RuntimeError("java.io.IOException: No space left on device")

    bronze = write_bronze(tmp_path / "bronze", {DAY: calm_trades()})
    monkeypatch.setattr(cleaning, "write_single", full)
    with pytest.raises(DiskFullError, match=r"disk full while cleaning V:S 2024-01-03, [\d,]+ bytes free"):
        clean(bronze, tmp_path, spark)


def test_clean_when_a_sequence_stands_twice_then_names_it(spark, tmp_path):
    bronze = write_bronze(tmp_path / "bronze", {DAY: calm_trades()})
    path = DAY.folder(bronze) / "events.parquet"
    table = pq.read_table(path, partitioning=None)
    numbers = [7 if number == 8 else number for number in range(len(table))]
    pq.write_table(table.set_column(2, EVENT_SCHEMA.field("sequence"), pa.array(numbers, pa.int64())), path)
    with pytest.raises(InputError, match="sequence 7 stands twice"):
        clean(bronze, tmp_path, spark)


def test_clean_when_a_row_is_lost_on_the_way_then_nothing_is_published(spark, tmp_path, monkeypatch):
    bronze = write_bronze(tmp_path / "bronze", {DAY: calm_trades()})
    monkeypatch.setattr(cleaning, "write_single", lambda frame, path: write_single(frame.limit(59), path))
    with pytest.raises(ShortfallError, match=r"60 rows came in but 59 kept \+ 0 quarantined"):
        clean(bronze, tmp_path, spark)
    assert not list(tmp_path.glob("venue=*")) and not (tmp_path / ".parts").exists()


def test_clean_when_parts_are_kept_then_a_second_run_needs_no_spark_and_own_rules_make_another_part(spark, tmp_path):
    bronze = write_bronze(tmp_path / "bronze", {DAY: [*calm_quotes(), bid(700, 5000), bid(710, 5000)]})
    parts, idle = Parts(tmp_path / "parts"), SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
    for name in "abc":
        (tmp_path / name).mkdir()
    first = clean(bronze, tmp_path / "a", spark, parts=parts)
    assert clean(bronze, tmp_path / "b", idle, parts=parts) == first  # nothing is read or written again
    own = tmp_path / "own.yaml"
    own.write_text("venues: {V: {on: [stale_repeat]}}\n")
    assert clean(bronze, tmp_path / "c", spark, parts=parts, rules_file=own)["by_rule"] == {"stale_repeat": 1}
    assert first["by_rule"] == {} and len(list(parts.root.iterdir())) == 2
    assert (tmp_path / "a/parts.json").read_text() != (tmp_path / "c/parts.json").read_text()


def test_clean_when_depth_updates_are_missing_then_the_hole_is_listed_and_kept_rows_are_sorted(spark, tmp_path):
    def depth(at_ms, price, flags=Flag.LAST):
        return event(at_ms, Kind.DEPTH, Side.BUY, price, 5, flags=flags)

    rows = [event(0, Kind.CLEAR), depth(0, 5000), *(depth(10 + i, 4990 - i) for i in range(9))]
    rows += [event(15, Kind.CLEAR, size=4, flags=Flag.GAP), depth(30, 4980), event(40, Kind.CLEAR), depth(40, 5000)]
    bronze, out = write_bronze(tmp_path / "bronze", {DAY: rows}), tmp_path / "silver"
    out.mkdir()
    summary = clean(bronze, out, spark)
    assert summary["by_rule"] == {"sequence_gap": 1} and summary["holes"] == 1
    hole = {"sequence": 11, "from_ns": OPEN_NS + 15 * MS, "until_ns": OPEN_NS + 40 * MS, "missing": 4, "rows_lost": 1}
    where = {"venue": "V", "symbol": "S", "date": DATE}
    assert pq.read_table(out / "holes.parquet").to_pylist() == [where | hole]
    kept = pq.read_table(DAY.folder(out) / "events.parquet", partitioning=None)
    assert kept.select(["ts_event_ns", "sequence"]).to_pylist() == sorted(
        kept.select(["ts_event_ns", "sequence"]).to_pylist(), key=lambda row: tuple(row.values())
    )
    text = (out / "accounting.md").read_text()
    assert f"| V | S | {DATE} | 15 | 14 | 1 | 1 | 1 |" in text and "* sequence_gap: a DEPTH update" in text


def test_clean_when_the_same_rules_run_in_polars_then_every_rule_catches_as_many(spark, tmp_path):
    dirty = [*calm_quotes(count=200), *calm_trades(2000, 120), bid(3300, 9000), dict(bid(3300, 9000)), ask(3310, 4990)]
    dirty += [trade(3400, 5000, 10**8), trade(3400, -1), trade(3401, 5000, flags=Flag.LATE), bid(3500, 5003)]
    dirty += [
        ask(9000, 5004),
        bid(9001, 5004, flags=Flag.SUB_TICK),
        trade(9002, 5002, flags=Flag.SUSPICIOUS),
        trade(5, 5000),
    ]
    bronze, (ours, theirs) = write_bronze(tmp_path / "bronze", {DAY: dirty}), (tmp_path / "ours", tmp_path / "theirs")
    ours.mkdir()
    found = clean(bronze, ours, spark)["by_rule"]
    assert {rule: rows for rule, rows in clean_polars(bronze, theirs).items() if rows} == found
    assert len(found) >= 7


def test_write_single_when_the_frame_has_two_partitions_then_refuses(spark, tmp_path):
    with pytest.raises(ShortfallError, match="wrote 2 files"):
        write_single(spark.range(10, numPartitions=2), tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_clean_when_run_twice_with_other_parallelism_then_same_bytes(spark, tmp_path):
    rows, day_ns = calm_quotes() + calm_trades(600), 86_400_000 * MS
    days = {
        Partition("V", "S", f"2024-01-0{day}"): [
            {**row, "ts_event_ns": row["ts_event_ns"] + (day - 3) * day_ns} for row in rows
        ]
        for day in (2, 3, 4)
    }
    bronze = write_bronze(tmp_path / "bronze", days)
    contents = []
    before = spark.conf.get("spark.sql.shuffle.partitions")
    try:
        for name, shuffle in (("a", "1"), ("b", "7")):
            spark.conf.set("spark.sql.shuffle.partitions", shuffle)
            out = tmp_path / name
            out.mkdir()
            clean(bronze, out, spark)
            contents.append({p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert contents[0] == contents[1]
    accounting = {"accounting.parquet", "accounting.json", "accounting.md", "holes.parquet"}
    assert accounting | {"instruments.json", "parts.json"} <= contents[0].keys()
    assert len(contents[0]) == 6 + 2 * len(days)
