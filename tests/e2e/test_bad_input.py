"""Bad input ends a night with one clear message, a non-zero exit, and every earlier output untouched."""

import pytest
from night import TINY, content
from reader_files import lean_day

pytestmark = [pytest.mark.e2e]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "lean", "--data", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--source", "lean"], "give --data"),
        (["--source", "lien"], "source 'lien' is unknown; readers: binance, bitstamp"),
        (["--symbols", "AIG"], "symbol AIG is not in the synthetic market; there: SYN1"),
        (["--from", "2025-01-06", "--to", "2025-01-06"], "no day left to test on"),
        (["--from", "2031-01-06"], "no day of SYN1 from 2031-01-06"),
        (["--profile", "none.yaml"], "profile 'none.yaml'"),
    ],
)
def test_nightly_when_input_is_bad_then_says_so_once_and_touches_nothing(tiny_night, shell, arguments, message):
    before = content(tiny_night.lake)
    done = shell.run(tiny_night.lake, *TINY, *arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("error: ") == 1 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert content(tiny_night.lake) == before


def test_nightly_when_a_line_is_truncated_then_names_file_and_line(tiny_night, shell, tmp_path):
    before = content(tiny_night.lake)
    good = "34200100,494100,300,0,0,Q,1,0"
    lean_day(tmp_path, "aig", "20131007", quotes=[good, "34200200,0,0,4942"])
    lean_day(tmp_path, "aig", "20131008", quotes=[good])
    done = shell.run(tiny_night.lake, "--source", "lean", "--data", str(tmp_path))
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("error: ") == 1 and "20131007_quote.zip: line 2: 4 columns, 8 wanted" in done.stderr
    assert "Traceback" not in done.stderr
    assert content(tiny_night.lake) == before


def test_nightly_when_a_zip_is_unreadable_then_names_it(tiny_night, shell, tmp_path):
    lean_day(tmp_path, "aig", "20131007")
    lean_day(tmp_path, "aig", "20131008")
    broken = tmp_path / "equity" / "usa" / "tick" / "aig" / "20131008_trade.zip"
    broken.write_bytes(broken.read_bytes()[:40])
    done = shell.run(tiny_night.lake, "--source", "lean", "--data", str(tmp_path))
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("error: ") == 1 and "20131008_trade.zip" in done.stderr
