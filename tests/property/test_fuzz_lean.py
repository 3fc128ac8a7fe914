from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st
from reader_files import OPEN_MS

FOLDER = "equity/usa/tick/aig/20131007"
QUOTES = "".join(
    f"{OPEN_MS + 3 * i},{500_000 + i % 5 * 100},{i + 1},0,0,P,1,0\n"
    if i % 2
    else f"{OPEN_MS + 3 * i},0,0,500600,7,Q,1,0\n"
    for i in range(60)
)
TRADES = "".join(f"{OPEN_MS + 7 * i},{500_000 + i % 3 * 50},{i + 1},{'PD'[i % 2]},00000001,0\n" for i in range(25))
FILES = {f"{FOLDER}_quote.zip": QUOTES.encode(), f"{FOLDER}_trade.zip": TRADES.encode()}


@FUZZ
@given(st.data())
def test_reader_lean_when_a_file_is_damaged_then_it_is_read_whole_or_refused_by_name(tmp_path, data):
    check_reader_survives("lean", FILES, container="zip", tmp=tmp_path, data=data)
