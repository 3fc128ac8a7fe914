from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reader_files import write_zip

from feature_repo.errors import InputError
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.lean_forex import LeanForexReader
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side

HOUR_MS, HOUR_NS = 3_600_000, 3_600_000_000_000
CLOSE_UTC = 21 * HOUR_MS  # 17:00 in New York in summer
ROWS = ("1000,1.38694,1.38705", "2000,1.38692,1.38706")


def forex_file(data, day, rows=ROWS, venue="oanda", symbol="eurusd"):
    write_zip(data / "forex" / venue / "tick" / symbol / f"{day}_quote.zip", rows)
    return data


def request(data, **options):
    return IngestRequest("lean-forex", data, **options)


def read(data, **options):
    (plan,) = LeanForexReader().plan(request(data, **options))
    count = ReadCount()
    return pa.Table.from_batches(list(LeanForexReader().read(plan, count)), EVENT_SCHEMA).to_pydict(), count


def refusal(data, **options):
    with pytest.raises(InputError) as caught:
        read(data, **options)
    return str(caught.value)


def quotes(events):
    return list(zip(events["side"], events["price_ticks"], strict=True))


def test_reader_forex_when_a_row_is_read_then_both_sides_are_quoted_without_a_size(tmp_path):
    events, count = read(forex_file(tmp_path, "20140507", ROWS[:1]))
    assert quotes(events) == [(Side.BUY, 138_694), (Side.SELL, 138_705)]
    assert events["kind"] == [Kind.QUOTE, Kind.QUOTE] and events["size"] == [1, 1]
    assert events["flags"] == [Flag.NO_SIZE, Flag.NO_SIZE]
    assert set(np.array(events["ts_event_ns"], "datetime64[ns]")) == {np.datetime64("2014-05-07T00:00:01", "ns")}
    assert count.vendor_rows == {"20140507_quote.zip": 1} and not count.skipped


def test_reader_forex_when_prices_move_then_the_side_that_makes_room_goes_first(tmp_path):
    rows = ["1,1.00000,1.00010", "2,1.00020,1.00030", "3,0.99980,0.99990", "4,0.99980,1.00000"]
    events, _ = read(forex_file(tmp_path, "20140507", rows))
    assert [side for side, _ in quotes(events)] == [
        *(Side.BUY, Side.SELL, Side.SELL, Side.BUY, Side.BUY, Side.SELL, Side.BUY, Side.SELL)
    ]
    book = {}
    for side, price in quotes(events):
        book[side] = price
        assert len(book) < 2 or book[Side.BUY] < book[Side.SELL]


def test_reader_forex_when_the_vendor_crosses_or_locks_then_the_rows_stay_for_cleaning(tmp_path):
    events, _ = read(forex_file(tmp_path, "20140507", ["1,1.00010,1.00000", "2,1.00010,1.00010"]))
    assert len(events["side"]) == 4


@pytest.mark.parametrize(
    ("symbol", "row", "ticks", "sub_tick"),
    [
        ("eurusd", "1,1.386945,1.38705", 138_695, True),
        ("eurusd", "1,1.3869449,1.38705", 138_694, True),
        ("eurusd", "1,1.4,1.5", 140_000, False),
        ("usdjpy", "1,102.345,102.350", 102_345, False),
        ("usdjpy", "1,102.3456,102.350", 102_346, True),
    ],
)
def test_reader_forex_when_a_price_has_other_decimals_then_the_nearest_tick_says_so(
    tmp_path, symbol, row, ticks, sub_tick
):
    events, _ = read(forex_file(tmp_path, "20140507", [row], symbol=symbol))
    assert events["price_ticks"][0] == ticks
    assert bool(events["flags"][0] & Flag.SUB_TICK) == sub_tick


@pytest.mark.parametrize(("venue", "hours"), [("oanda", 0), ("fxcm", 5)])
@pytest.mark.parametrize("day", ["20140507", "20140108"])
def test_reader_forex_when_a_file_is_of_a_venue_then_its_midnight_is_that_venue_s_all_year(tmp_path, venue, hours, day):
    events, _ = read(forex_file(tmp_path, day, venue=venue))
    midnight = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}", "ns").astype(np.int64)
    assert events["ts_event_ns"][0] == midnight + hours * HOUR_NS + 1_000_000_000


def test_reader_forex_when_new_york_closes_then_the_next_row_is_of_the_next_trading_day(tmp_path):
    rows = [f"{CLOSE_UTC - 1},1.1,1.2", f"{CLOSE_UTC},1.3,1.4"]
    for day in ("20140506", "20140507"):
        forex_file(tmp_path, day, rows)
    events, count = read(tmp_path, date_from="2014-05-07")
    assert [price for _, price in quotes(events)] == [
        130_000,
        140_000,
        110_000,
        120_000,
    ]  # Tuesday's tail, then its own
    assert count.vendor_rows == {"20140506_quote.zip": 2, "20140507_quote.zip": 2}
    assert count.elsewhere == {"20140506_quote.zip": 1, "20140507_quote.zip": 1} and count.total == 2


def test_reader_forex_when_winter_comes_then_the_close_is_an_hour_later_in_utc(tmp_path):
    events, count = read(forex_file(tmp_path, "20140108", [f"{22 * HOUR_MS - 1},1.1,1.2", f"{22 * HOUR_MS},1.3,1.4"]))
    assert len(events["side"]) == 2
    assert count.elsewhere == {"20140108_quote.zip": 1} and count.total == 1


def test_reader_forex_when_a_week_begins_then_monday_opens_with_sunday_evening(tmp_path):
    for day in ("20140502", "20140504", "20140505"):
        forex_file(tmp_path, day, [f"{CLOSE_UTC - 3 * HOUR_MS},1.1,1.2", f"{CLOSE_UTC + 1},1.3,1.4"])
    plans = LeanForexReader().plan(request(tmp_path))
    assert [plan.partition.date for plan in plans] == ["2014-05-02", "2014-05-05"]
    assert [path.name[:8] for path in plans[1].inputs] == ["20140502", "20140504", "20140505"]
    events, _ = read(tmp_path, date_from="2014-05-05")
    # after Friday's close, two hours before Sunday's open, after it, and on Monday: nothing falls between two days
    assert len(events["side"]) == 8


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2014-05-05", "2014-05-04T21:00", "2014-05-05T21:00"),  # a Monday: open on Sunday
        ("2014-05-07", "2014-05-06T21:00", "2014-05-07T21:00"),
        ("2014-01-08", "2014-01-07T22:00", "2014-01-08T22:00"),
        ("2014-03-10", "2014-03-09T21:00", "2014-03-10T21:00"),  # clocks went forward on Sunday morning
    ],
)
def test_reader_forex_when_an_instrument_is_asked_for_then_its_day_is_new_york_s(tmp_path, day, opens, closes):
    (item,) = LeanForexReader().instruments(request(forex_file(tmp_path, "20140507")))
    assert item.session_ns(day) == [tuple(int(np.datetime64(t, "ns").astype(np.int64)) for t in (opens, closes))]
    assert (item.instrument_id, item.currency, item.lot_size, item.depth) == ("OANDA:EURUSD", "USD", 1.0, 1)
    assert item.tick_size == pytest.approx(1e-5, rel=1e-12)


def test_reader_forex_when_two_venues_quote_one_symbol_then_both_or_the_named_one_is_read(tmp_path):
    forex_file(forex_file(tmp_path, "20140507"), "20140507", venue="fxcm")

    def planned(*symbols):
        return [plan.partition.instrument_id for plan in LeanForexReader().plan(request(tmp_path, symbols=symbols))]

    assert planned() == planned("eurusd") == ["FXCM:EURUSD", "OANDA:EURUSD"]
    assert planned("OANDA:EURUSD") == ["OANDA:EURUSD"]


def test_reader_forex_when_a_symbol_is_absent_then_lists_what_is_there(tmp_path):
    assert "symbol GBPUSD is not in" in refusal(forex_file(tmp_path, "20140507"), symbols=("GBPUSD",))


def test_reader_forex_when_a_venue_s_clock_is_unknown_then_refuses_it(tmp_path):
    message = refusal(forex_file(tmp_path, "20140507", venue="dukascopy"))
    assert "DUKASCOPY" in message and "known: FXCM, OANDA" in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1000,1.38694", "2 columns, 3 wanted"),
        ("1000,NaN,1.38705", "bid is 'NaN'"),
        ("1000,1.38694,", "ask is ''"),
        ("1000,1.38694,1e300", "ask is '1e300'"),
        ("1000,1.38694,99999999999", "ask is '99999999999'"),
        ("-1,1.38694,1.38705", "ms is '-1'"),
        ("99999999,1.38694,1.38705", "ms is '99999999'"),
    ],
)
def test_reader_forex_when_a_line_is_bad_then_names_file_line_and_value(tmp_path, row, said):
    message = refusal(forex_file(tmp_path, "20140507", [ROWS[0], row]))
    assert "20140507_quote.zip: line 2: " in message and said in message


def test_reader_forex_when_the_real_days_are_read_then_every_row_is_two_quotes_of_one_day(real_data, tmp_path):
    summary = ingest(request(real_data / "lean"), tmp_path)
    rows = {
        venue: sum(item["vendor_rows"] for item in summary["inputs"] if f"/{venue}/" in item["path"])
        for venue in ("oanda", "fxcm")
    }
    assert rows == {"oanda": 321_559, "fxcm": 675_401}
    assert summary["rows"] == 2 * sum(rows.values())
    for item in summary["partitions"]:
        assert item["rows"] == 2 * (item["vendor_rows"] - item["skipped_rows"])
    assert len(summary["partitions"]) == 2 * 7


def test_reader_forex_when_the_real_dealers_are_compared_then_fxcm_is_the_crossed_one(real_data: Path):
    crossed = {}
    for plan in LeanForexReader().plan(request(real_data / "lean")):
        table = pa.Table.from_batches(list(LeanForexReader().read(plan, ReadCount())), EVENT_SCHEMA)
        side, price = table["side"].to_numpy(), table["price_ticks"].to_numpy()
        bid, ask = price[side == Side.BUY], price[side == Side.SELL]  # in rows, as each row gives one of each
        crossed.setdefault(plan.partition.venue, []).append(bid > ask)
        assert not np.any(table["flags"].to_numpy() & int(Flag.SUB_TICK))
    share = {venue: np.concatenate(parts).mean() for venue, parts in crossed.items()}
    assert share["OANDA"] == 0.0
    assert share["FXCM"] == pytest.approx(0.10, abs=0.005)


def test_reader_forex_when_the_real_clocks_are_read_then_both_dealers_fall_silent_over_the_weekend(real_data: Path):
    friday = np.datetime64("2014-05-02T21:00", "ns").astype(np.int64)
    for venue, silent in (("OANDA", 48), ("FXCM", 46)):  # FXCM quotes before the open
        plans = LeanForexReader().plan(
            request(real_data / "lean", symbols=(f"{venue}:EURUSD",), date_from="2014-05-02", date_to="2014-05-05")
        )
        before, after = (
            pa.Table.from_batches(list(LeanForexReader().read(plan, ReadCount())), EVENT_SCHEMA)[
                "ts_event_ns"
            ].to_numpy()
            for plan in plans
        )
        assert friday - HOUR_NS / 12 < before[-1] < friday  # in the last five minutes
        assert friday + silent * HOUR_NS <= after[0] < friday + silent * HOUR_NS + HOUR_NS / 12
