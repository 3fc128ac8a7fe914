from binance_files import SPOT, diff, lines, quote, snapshot, spot_diff, stream, trade
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

LEVELS = [("100.0", "1.000"), ("99.9", "0.500")], [("100.1", "2.000"), ("100.3", "0.001")]
USDM_MESSAGES = [
    trade(),
    diff(5, 8, *LEVELS),
    quote(8),
    diff(8, 12, [("99.8", "3")], [("100.3", "0")]),
    snapshot(10, *LEVELS),
    trade(maker=False, X="INSURANCE_FUND"),
    diff(12, 13, [("99.7", "3")]),
    stream("markPrice@1s", {"E": 1, "p": "100.0"}),
    diff(15, 17, [("99.7", "4")], [("100.2", "1")]),
    quote(17),
]
SPOT_MESSAGES = [
    spot_diff(4, 6, [("99.99", "2")]),
    trade(),
    quote(6),
    spot_diff(6, 9),
    spot_diff(11, 12, [("99.99", "0")]),
]
DAYS = {
    "usdm_btcusdt_20230404.dat.gz": lines(USDM_MESSAGES, 1_680_652_790_000_000),
    "usdm_btcusdt_20230405.dat.gz": lines([diff(17, 19, [("99.7", "5")]), quote(19), trade()]),
}


@FUZZ
@given(st.data())
def test_reader_binance_when_a_day_is_damaged_then_it_is_read_whole_or_refused_by_name(tmp_path, data):
    check_reader_survives("binance", DAYS, container="gzip", tmp=tmp_path, data=data)


@FUZZ
@given(st.data(), st.sampled_from([{"clock": "exchange"}, {"tick_size": "0.01", "lot_size": "0.00000001"}]))
def test_reader_binance_when_spot_is_damaged_then_it_is_read_whole_or_refused_by_name(tmp_path, data, options):
    check_reader_survives(
        "binance", {SPOT: lines(SPOT_MESSAGES)}, container="gzip", tmp=tmp_path, data=data, options=options
    )


@FUZZ
@given(st.data())
def test_reader_binance_when_steps_are_told_by_a_damaged_file_then_read_whole_or_refused_by_name(tmp_path, data):
    messages = [stream("trade", {"p": f"0.1{k}00", "q": "3.0", "m": True}, symbol="DOGEUSDT") for k in range(9)]
    check_reader_survives("binance", {"usdm_dogeusdt_20230405.gz": lines(messages)}, tmp=tmp_path, data=data)
