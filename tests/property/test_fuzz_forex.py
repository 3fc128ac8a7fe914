from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

FILES = {
    f"forex/{venue}/tick/eurusd/{day}_quote.zip": "".join(
        f"{1_000 * i + at},1.3{at}{i % 10}{i % 7},1.3{at}{i % 10}9\n" for i in range(50)
    ).encode()
    for at, (venue, day) in enumerate((("oanda", "20140506"), ("oanda", "20140507"), ("fxcm", "20140507")))
}


@FUZZ
@given(st.data())
def test_reader_forex_when_a_file_is_damaged_then_it_is_read_whole_or_refused_by_name(tmp_path, data):
    check_reader_survives("lean-forex", FILES, container="zip", tmp=tmp_path, data=data)
