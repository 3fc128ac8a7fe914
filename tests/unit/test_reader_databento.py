import databento_dbn as dbn
import numpy as np
import pyarrow as pa
import pytest
from dbn_file import ESH4, ESM4, header, mbo, mbp, px, utc, write

from feature_repo.errors import InputError
from feature_repo.pipeline.books import build_book
from feature_repo.ticks import databento_kernel as kernel
from feature_repo.ticks import databento_records
from feature_repo.ticks.databento import DatabentoReader
from feature_repo.ticks.databento_files import read_metadata, rest_ns
from feature_repo.ticks.databento_records import RecordStream
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.schema import EVENT_SCHEMA, Flag, Kind, Side
from feature_repo.ticks.streams import open_stream

NOON = utc("12:00:00")
SNAPSHOT = dbn.F_SNAPSHOT | dbn.F_BAD_TS_RECV
LEVELS = [(99.75 - 0.25 * k, 10 + k, 100.25 + 0.25 * k, 20 + k) for k in range(10)]


def read(folder, symbols=(), **options):
    reader, count = DatabentoReader(), ReadCount()
    (plan,) = reader.plan(IngestRequest("databento", folder, tuple(symbols), options=options))
    return pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA), count


def rows(table, *names):
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def events(folder, records, *names, head=None, **options):
    """Columns of the events before the session's end (16:00 in Chicago)."""
    table, _ = read(write(folder, head or header(), *records), **options)
    return [row[1:] for row in rows(table, "ts_event_ns", *names) if row[0] < utc("22:00:00")]


def refusal(folder, symbols=(), **options):
    with pytest.raises(InputError) as caught:
        read(folder, symbols, **options)
    return str(caught.value)


def test_databento_when_flags_are_named_in_the_kernel_then_they_are_the_librarys():
    ours = (kernel.F_LAST, kernel.F_TOB, kernel.F_SNAPSHOT, kernel.F_MAYBE_BAD_BOOK)
    assert ours == (dbn.F_LAST, dbn.F_TOB, dbn.F_SNAPSHOT, dbn.F_MAYBE_BAD_BOOK)


def test_databento_when_orders_change_then_only_fewer_lots_keep_their_place(tmp_path):
    records = [
        mbo("A", "B", 100, 10, 1, NOON),
        mbo("M", "B", 100, 7, 1, NOON + 1),  # fewer
        mbo("M", "B", 100, 9, 1, NOON + 2),  # more
        mbo("M", "B", 100.25, 9, 1, NOON + 3),  # another price
        mbo("M", "B", 100.25, 9, 1, NOON + 4),  # nothing but its place
        mbo("C", "B", 100.25, 4, 1, NOON + 5),
        mbo("C", "B", 100.25, 5, 1, NOON + 6),
        mbo("M", "A", 101, 2, 8, NOON + 7),  # unknown: it is new
    ]
    assert events(tmp_path, records, "kind", "side", "price_ticks", "size", "order_id", "flags") == [
        (Kind.ADD, Side.BUY, 400, 10, 1, Flag.LAST),
        (Kind.CANCEL, Side.BUY, 400, 3, 1, Flag.LAST),
        (Kind.REPLACE, Side.BUY, 400, 9, 1, Flag.LAST),
        (Kind.REPLACE, Side.BUY, 401, 9, 1, Flag.LAST),
        (Kind.REPLACE, Side.BUY, 401, 9, 1, Flag.LAST),
        (Kind.CANCEL, Side.BUY, 401, 4, 1, Flag.LAST),
        (Kind.CANCEL, Side.BUY, 401, 5, 1, Flag.LAST),
        (Kind.ADD, Side.SELL, 404, 2, 8, Flag.LAST),
    ]


def test_databento_when_an_order_is_filled_then_its_lots_leave_once(tmp_path):
    records = [
        mbo("A", "A", 100, 10, 1, NOON),
        mbo("T", "B", 100, 4, 77, NOON + 1, 0),
        mbo("F", "A", 100, 4, 1, NOON + 1, 0),
        mbo("M", "A", 100, 6, 1, NOON + 1),
        mbo("T", "B", 100, 6, 78, NOON + 2, 0),
        mbo("F", "A", 100, 6, 1, NOON + 2, 0),
        mbo("C", "A", 100, 6, 1, NOON + 2),
    ]
    table, count = read(write(tmp_path, header(), *records))
    assert rows(table.slice(0, 5), "kind", "side", "size", "order_id", "flags") == [
        (Kind.ADD, Side.SELL, 10, 1, Flag.LAST),
        (Kind.TRADE, Side.BUY, 4, 0, 0),
        (Kind.CANCEL, Side.SELL, 4, 1, Flag.LAST),
        (Kind.TRADE, Side.BUY, 6, 0, 0),
        (Kind.CANCEL, Side.SELL, 6, 1, Flag.LAST),
    ]
    assert count.skipped == {"esh4.mbo.dbn": {"fill (F): the cancel or modify that follows takes the lots": 2}}
    book, counts = build_book(table, 1)
    assert counts.unknown_order == counts.oversized == 0
    assert book.ask_sz[:, 0].tolist() == [10, 10, 6, 6, 0, 0][: len(book)]


def test_databento_when_an_iceberg_shows_its_next_part_then_it_goes_to_the_back(tmp_path):
    records = [
        mbo("A", "A", 100, 5, 1, NOON),
        mbo("F", "A", 100, 5, 1, NOON + 1, 0),
        mbo("M", "A", 100, 3, 1, NOON + 1),  # fewer than 5, but more than the 0 that the fill left
    ]
    assert events(tmp_path, records, "kind", "size")[1:] == [(Kind.REPLACE, 3)]


def test_databento_when_a_file_opens_with_a_snapshot_then_it_is_one_book_made_at_midnight(tmp_path):
    made, yesterday = utc("00:00:00"), utc("00:00:00") - 10**15
    records = [mbo("A", "B", 99 - k, k + 1, 5 + k, yesterday, SNAPSHOT, recv=made) for k in range(3)]
    records.append(mbo("A", "A", 101, 4, 9, NOON))
    table, _ = read(write(tmp_path, header(), *records))
    assert rows(table.slice(0, 5), "kind", "ts_event_ns", "size", "flags") == [
        (Kind.CLEAR, made, 0, 0),
        (Kind.ADD, made, 1, 0),
        (Kind.ADD, made, 2, 0),
        (Kind.ADD, made, 3, Flag.LAST),  # as no record after it is of the snapshot
        (Kind.ADD, NOON, 4, Flag.LAST),
    ]


@pytest.mark.parametrize("chunk", [56, 57, 100, 300])
def test_databento_when_chunks_end_anywhere_then_events_are_the_same(tmp_path, monkeypatch, chunk):
    records = [mbo("A", "B", 99 - k, k + 1, 5 + k, NOON - 5, SNAPSHOT, recv=NOON - 5) for k in range(4)]
    for k in range(20):
        records += [mbo("A", "A", 101 + k, 4, 20 + k, NOON + k), mbo("T", "B", 101, 1, 3, NOON + k, 0)]
        records += [mbo("F", "A", 101 + k, 1, 20 + k, NOON + k, 0), mbo("M", "A", 101 + k, 3, 20 + k, NOON + k)]
    write(
        tmp_path,
        header(),
        *records,
        mbo("A", "A", 103, 1, 2, utc("22:30:00")),
        mbo("N", "N", None, 0, 0, utc("23:00:01")),
    )
    whole, count = read(tmp_path)
    monkeypatch.setattr(databento_records, "CHUNK_BYTES", chunk)
    again, recount = read(tmp_path)
    assert again.equals(whole) and recount == count


def test_databento_when_a_clear_comes_then_the_book_is_unknown_and_orders_are_forgotten(tmp_path):
    records = [mbo("A", "B", 99, 1, 5, NOON), mbo("R", "N", None, 0, 0, NOON + 1), mbo("C", "B", 99, 1, 5, NOON + 2)]
    assert events(tmp_path, records, "kind", "flags", "price_ticks") == [
        (Kind.ADD, Flag.LAST, 396),
        (Kind.CLEAR, Flag.LAST, 0),
        (Kind.CANCEL, Flag.LAST | Flag.SUSPICIOUS, 396),
    ]


def test_databento_when_the_channel_lost_messages_then_a_gap_is_told_once(tmp_path):
    bad = dbn.F_LAST | dbn.F_MAYBE_BAD_BOOK
    records = [mbo("A", "B", 99, 1, 5 + k, NOON + k, bad if k else dbn.F_LAST) for k in range(3)]
    assert events(tmp_path, records, "kind", "flags", "size") == [
        (Kind.ADD, Flag.LAST, 1),
        (Kind.CLEAR, Flag.GAP, 0),
        (Kind.ADD, Flag.LAST, 1),
        (Kind.ADD, Flag.LAST, 1),
    ]


def test_databento_when_orders_gather_in_the_rest_then_they_open_the_next_session_oldest_first(tmp_path):
    records = [
        mbo("A", "B", 99, 1, 5, NOON),
        mbo("A", "A", 98, 2, 6, utc("22:30:00")),  # crosses
        mbo("M", "B", 98.5, 1, 5, utc("22:31:00")),
        mbo("A", "A", 101, 3, 7, utc("22:32:00")),
        mbo("C", "A", 98, 2, 6, utc("22:59:59")),
        mbo("T", "B", 101, 1, 0, utc("23:00:00")),
    ]
    table, count = read(write(tmp_path, header(), *records))
    closes, opens = utc("22:00:00"), utc("23:00:00")
    assert rows(table, "kind", "ts_event_ns", "price_ticks", "order_id", "flags") == [
        (Kind.ADD, NOON, 396, 5, Flag.LAST),
        (Kind.CLEAR, closes, 0, 0, Flag.LAST),
        (Kind.CLEAR, opens, 0, 0, Flag.CARRIED),
        (Kind.ADD, opens, 394, 5, Flag.CARRIED),
        (Kind.ADD, opens, 404, 7, Flag.CARRIED | Flag.LAST),
        (Kind.TRADE, opens, 404, 0, Flag.LAST),
    ]
    assert count.skipped["esh4.mbo.dbn"] == {"before the open, folded into the opening book": 4}


@pytest.mark.parametrize(
    ("symbol", "day", "hours"),
    [("ESH4", "2024-01-10", (22, 23)), ("6EU4", "2024-07-10", (21, 22)), ("ES.c.0", "2024-07-10", (21, 22))],
)
def test_databento_when_summer_comes_then_chicagos_rest_is_an_hour_earlier_in_utc(tmp_path, symbol, day, hours):
    write(tmp_path, header())
    file = read_metadata(tmp_path / "esh4.mbo.dbn")
    assert rest_ns(file, symbol, day) == tuple(utc(f"{hour}:00:00", day) for hour in hours)
    assert rest_ns(file, "ESH4-ESM4", day) == () == rest_ns(file, "ZCH4", day)


def test_databento_when_the_receive_time_is_bad_then_the_event_time_stands_for_it(tmp_path):
    records = [mbo("A", "B", 99, 1, 5, NOON, dbn.F_LAST | dbn.F_BAD_TS_RECV, recv=NOON - 9)]
    records += [mbo("A", "B", 99, 1, 6, NOON, recv=dbn.UNDEF_TIMESTAMP), mbo("A", "B", 99, 1, 7, NOON)]
    assert events(tmp_path, records, "ts_recv_ns") == [(NOON,), (NOON,), (NOON + 1000,)]


def test_databento_when_a_venue_tells_only_its_best_quote_then_quotes(tmp_path):
    tob = dbn.F_LAST | dbn.F_TOB
    records = [mbo("A", "B", 99, 5, 0, NOON, tob), mbo("A", "A", None, 0, 0, NOON, tob)]
    found = events(
        tmp_path, records, "kind", "side", "price_ticks", "size", head=header(dataset="XCIS.TRADESBBO"), tick_size=0.01
    )
    assert found == [(Kind.QUOTE, Side.BUY, 9900, 5), (Kind.QUOTE, Side.SELL, 0, 0)]


def test_databento_when_mbp_10_is_read_then_snapshots_and_trades(tmp_path):
    records = [
        mbp(dbn.MBP10Msg, "A", "B", 99.75, 10, NOON, LEVELS),
        mbp(dbn.MBP10Msg, "T", "A", 99.75, 3, NOON + 1, LEVELS),
        mbp(dbn.MBP10Msg, "C", "B", 99.75, 10, NOON + 2, [(0, 0, *LEVELS[0][2:]), *[(0, 0, 0, 0)] * 9]),
    ]
    table, _ = read(write(tmp_path, header(dbn.Schema.MBP_10), *records, name="x.mbp-10.dbn.zst"))
    kinds = table.column("kind").to_pylist()
    assert kinds == [Kind.CLEAR] + [Kind.LEVEL] * 20 + [Kind.TRADE, Kind.CLEAR, Kind.LEVEL]
    assert rows(table.slice(19), "side", "price_ticks", "size", "flags") == [
        (Side.BUY, 390, 19, 9),
        (Side.SELL, 410, 29, 9 | Flag.LAST),
        (Side.SELL, 399, 3, Flag.LAST),
        (Side.NONE, 0, 0, 0),
        (Side.SELL, 401, 20, Flag.LAST),
    ]
    book, _ = build_book(table, 10)
    assert book.bid_px[0].tolist() == [round(4 * bid) for bid, *_ in LEVELS]


@pytest.mark.parametrize("schema", [dbn.Schema.MBP_1, dbn.Schema.TBBO])
def test_databento_when_best_quotes_are_read_then_the_sides_that_changed(tmp_path, schema):
    quotes = [(99.75, 10, 100, 20), (99.75, 10, 100, 20), (99.75, 10, 100, 18), (0, 0, 100, 18)]
    records = [mbp(dbn.MBP1Msg, "ATCC"[k], "B", 100, 2, NOON + k, [quotes[k]]) for k in range(4)]
    records.append(mbp(dbn.MBP1Msg, "M", "A", 100, 2, NOON + 9, [quotes[3]]))
    table, count = read(write(tmp_path, header(schema), *records, name="x.dbn"))
    assert rows(table, "kind", "side", "price_ticks", "size", "flags") == [
        (Kind.QUOTE, Side.BUY, 399, 10, 0),
        (Kind.QUOTE, Side.SELL, 400, 20, Flag.LAST),
        (Kind.TRADE, Side.BUY, 400, 2, Flag.LAST),
        (Kind.QUOTE, Side.SELL, 400, 18, Flag.LAST),
        (Kind.QUOTE, Side.BUY, 0, 0, Flag.LAST),
    ]
    assert count.skipped == {"x.dbn": {"changes nothing that is shown": 1}}


def test_databento_when_trades_are_read_then_the_side_is_the_aggressors(tmp_path):
    records = [mbp(dbn.TradeMsg, "T", side, 100.3, 2, NOON) for side in "BAN"]
    table, _ = read(write(tmp_path, header(dbn.Schema.TRADES), *records, name="x.dbn"))
    assert rows(table, "kind", "side", "price_ticks", "flags") == [
        (Kind.TRADE, side, 401, Flag.LAST | Flag.SUB_TICK) for side in (Side.BUY, Side.SELL, Side.NONE)
    ]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_databento_when_records_are_of_other_kinds_then_they_are_skipped_by_reason(tmp_path, version):
    raw = dbn.SType.RAW_SYMBOL
    others = [
        bytes(dbn.SystemMsg(NOON, "heartbeat")),
        bytes(dbn.SymbolMappingMsg(1, ESH4, NOON, raw, "ESH4", raw, "ESH4", NOON, NOON)),
        bytes(dbn.StatusMsg(1, ESH4, NOON, NOON)),
        mbo("A", "B", 1, 1, 1, NOON, instrument=ESM4),
    ]
    head = header(symbols={"ESH4": ESH4, "ESM4": ESM4}, version=version)
    table, count = read(write(tmp_path, head, *others, mbo("A", "B", 99, 1, 1, NOON)), ["ESH4"])
    assert table.column("price_ticks").to_pylist() == [396, 0]
    assert count.skipped["esh4.mbo.dbn"] == {
        "record type 0x12: status": 1,
        "record type 0x16: symbol mapping": 1,
        "record type 0x17: system": 1,
    }
    assert count.vendor_rows == {"esh4.mbo.dbn": 5} and count.elsewhere == {"esh4.mbo.dbn": 1}


def test_databento_when_records_end_with_their_sending_time_then_they_are_longer(tmp_path):
    record = mbo("A", "B", 99, 1, 1, NOON)
    sent = bytes([record[0] + 2]) + record[1:] + bytes(8)
    assert events(tmp_path, [sent, sent], "price_ticks", head=header(ts_out=True)) == [(396,), (396,)]


def test_databento_when_a_file_spans_days_then_each_that_has_records_is_a_partition(tmp_path):
    days = ["2024-01-10", "2024-01-12"]  # and nothing on the 11th
    records = [mbo("A", "B", 99, 1, 5 + k, utc("12:00:00", day)) for k, day in enumerate(days)]
    write(tmp_path, header(days=3), *records)
    reader, tables = DatabentoReader(), []
    plans = reader.plan(IngestRequest("databento", tmp_path))
    assert [plan.partition.date for plan in plans] == days
    for plan in plans:
        count = ReadCount()
        tables.append(pa.Table.from_batches(list(reader.read(plan, count)), EVENT_SCHEMA))
        assert count.elsewhere == {"esh4.mbo.dbn": 1} and count.total == 1 and not count.skipped
    assert rows(tables[0], "kind", "order_id", "flags")[0] == (Kind.ADD, 5, Flag.LAST)
    assert rows(tables[1], "kind", "order_id", "flags", "ts_event_ns") == [
        (Kind.CLEAR, 0, Flag.CARRIED, utc("00:00:00", days[1])),
        (Kind.ADD, 5, Flag.CARRIED | Flag.LAST, utc("00:00:00", days[1])),
        (Kind.ADD, 6, Flag.LAST, utc("12:00:00", days[1])),
        (Kind.CLEAR, 0, Flag.LAST, utc("22:00:00", days[1])),
    ]


def test_databento_when_trades_span_days_then_each_day_has_its_own(tmp_path):
    days = ["2024-01-10", "2024-01-11"]
    records = [mbp(dbn.TradeMsg, "T", "B", 99, k + 1, utc("12:00:00", day)) for k, day in enumerate(days)]
    write(tmp_path, header(dbn.Schema.TRADES, days=2), *records, name="x.dbn")
    reader = DatabentoReader()
    for k, plan in enumerate(reader.plan(IngestRequest("databento", tmp_path))):
        table = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
        assert table.column("size").to_pylist() == [k + 1]


def test_databento_when_no_file_holds_a_record_then_refused(tmp_path):
    assert "no record of ESH4" in refusal(write(tmp_path, header(days=2)))


def test_databento_when_metadata_have_no_end_then_the_name_tells_the_day(tmp_path):
    records = [mbo("A", "B", 99, 1, 5, NOON)]
    write(tmp_path, header(end=False), *records)
    assert "neither its metadata nor its name" in refusal(tmp_path)
    (tmp_path / "esh4.mbo.dbn").rename(tmp_path / "glbx-20240110.dbn")
    table, _ = read(tmp_path)
    assert table.column("ts_event_ns")[0].as_py() == NOON


def test_databento_when_two_venues_share_an_instrument_then_one_must_be_chosen(tmp_path):
    write(tmp_path, header(), *[mbo("A", "B", 99, 1, k, NOON, publisher=k) for k in (1, 2)])
    assert "publishers 1, 2" in refusal(tmp_path)
    table, count = read(tmp_path, publisher=2)
    assert table.column("order_id").to_pylist()[0] == 2
    assert count.skipped == {"esh4.mbo.dbn": {"another publisher's record": 1}}


def test_databento_when_the_tick_is_not_known_then_prices_tell_it_or_the_option(tmp_path):
    head = header(symbols={"XYZ": ESH4}, dataset="XEUR.EOBI")
    few = [mbo("A", "B", 99 + 0.05 * k, 1, 1 + k, NOON) for k in range(3)]
    write(tmp_path, head, *few)
    assert "set the option tick_size" in refusal(tmp_path)
    assert read(tmp_path, tick_size=0.5)[0].column("price_ticks").to_pylist() == [198, 198, 198]
    write(tmp_path, head, *[mbo("A", "B", 99 + 0.05 * k, 1, 1 + k, NOON) for k in range(40)])
    (instrument,) = DatabentoReader().instruments(IngestRequest("databento", tmp_path))
    assert instrument.tick_size == 0.05
    assert instrument.session_ns("2024-01-10") == [(utc("00:00:00"), utc("00:00:00", "2024-01-11"))]


def test_databento_when_two_schemas_hold_one_day_then_one_must_be_chosen(tmp_path):
    write(tmp_path, header(), mbo("A", "B", 99, 1, 5, NOON))
    write(tmp_path, header(dbn.Schema.TRADES), mbp(dbn.TradeMsg, "T", "B", 99, 2, NOON), name="esh4.trades.dbn")
    assert "set the option schema" in refusal(tmp_path)
    assert read(tmp_path, schema="trades")[0].column("kind").to_pylist() == [Kind.TRADE]


@pytest.mark.parametrize(
    ("head", "records", "told"),
    [
        (header(), [mbo("A", "B", 99, 1, 5, NOON)[:-3]], "byte 360 of its content: the file is cut off"),
        (
            header(),
            [b"\x0d" + mbo("A", "B", 99, 1, 5, NOON)[1:]],
            "of type 160 is 52 bytes long, type 160 has 56,",
        ),
        (header(), [bytes(56)], "of type 0 is 0 bytes long"),
        (header(), [mbo("A", "B", 99, 1, 5, NOON).replace(b"AB", b"?B")], "its action is none of"),
        (header(), [mbo("A", "B", 99, 1, 5, NOON).replace(b"AB", b"A?")], "its side is none of"),
        (header(), [mbo("A", "B", 99, 1, 5, NOON, dbn.F_MBP)], "it is a price level, not an order"),
        (header(), [mbo("A", "B", 99, 1, 5, 2**63, recv=2**63)], "beyond the year 2262"),
        (header(dbn.Schema.OHLCV_1S), [], "holds schema ohlcv-1s"),
        (header(None), [], "holds schema None"),
        (header()[:50], [], "its metadata are not readable"),
        (b"CSV", [], "does not start as a DBN file"),
        (header(symbols={}), [], "no symbol mapping"),
        (header(symbols={"6E/6J": 5}), [], "symbol '6E/6J'"),
        (header(days=1000), [], "spans 1000 days"),
    ],
)
def test_databento_when_a_file_is_damaged_or_of_another_kind_then_it_is_told(tmp_path, head, records, told):
    message = refusal(write(tmp_path, head, *records))
    assert "esh4.mbo.dbn" in message and told in message


@pytest.mark.parametrize(
    "options", [{"tick": 1}, {"schema": "mbp"}, {"tick_size": 0}, {"tick_size": "big"}, {"publisher": 1.5}]
)
def test_databento_when_an_option_is_wrong_then_it_is_named(tmp_path, options):
    write(tmp_path, header(), mbo("A", "B", 99, 1, 5, NOON))
    assert next(iter(options)) in refusal(tmp_path, **options)


def test_databento_when_the_real_file_is_read_then_columns_are_those_of_databentos_decoder(real_data):
    path = real_data / "databento" / "esh4-glbx-mdp3-20231225.mbo.dbn.zst"
    file = read_metadata(path)
    with open_stream(path) as content:
        records = dbn.DBNDecoder().write_and_decode(content.read())[1:]
    stream = RecordStream(path, file.layout, file.instruments["ESH4", "2023-12-25"], file.start)
    with open_stream(path) as content:
        content.read(file.start)
        raw = np.concatenate([found.raw for found in stream.records(content)])
    assert len(raw) == len(records) == 68_792
    for ours, theirs in (("ts_event",) * 2, ("ts_recv",) * 2, ("order_id",) * 2, ("price",) * 2, ("size",) * 2):
        assert raw[ours].tolist() == [getattr(record, theirs) for record in records]
    assert raw["flags"].tolist() == [int(record.flags) for record in records]
    for name in ("action", "side"):
        assert bytes(raw[name]).decode() == "".join(str(getattr(record, name)) for record in records)


def test_databento_when_the_real_days_are_ingested_then_books_are_whole(tmp_path, real_data):
    import pyarrow.parquet as pq

    from feature_repo.lake import Partition

    summary = ingest(IngestRequest("databento", real_data / "databento"), tmp_path)
    assert summary["vendor_rows"] == 77_517
    found = {item["date"]: item for item in summary["partitions"]}
    assert (found["2023-12-24"]["rows"], found["2023-12-24"]["skipped_rows"]) == (8_727, 0)
    second = found["2023-12-25"]
    assert (second["rows"], second["skipped_rows"], second["carried_rows"]) == (70_361, 7_296, 8_863)
    # Besides the records: three CLEAR events, of the snapshot, the session's end, and the opening book (carried).
    assert second["rows"] - second["carried_rows"] - 2 + second["skipped_rows"] == second["vendor_rows"]
    table = pq.read_table(
        Partition("GLBX", "ESH4", "2023-12-25").folder(tmp_path) / "events.parquet", partitioning=None
    )
    book, counts = build_book(table, 10)
    assert counts.unknown_order == counts.oversized == 0
    both = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0)
    # The last row of a moment is the state after a whole message (F_LAST).
    settled = both & np.append(np.diff(book.ts_ns) > 0, True)
    assert np.all(book.ask_px[settled, 0] > book.bid_px[settled, 0])
    assert np.sum(settled) > 20_000
    assert px(0.25) == 250_000_000
