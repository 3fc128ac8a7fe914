import pytest
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

HEADER = "id,timestamp,exchange.timestamp,price,volume,action,direction"
MIDNIGHT_MS = 1_430_524_800_000


def _sample() -> bytes:
    """Orders around midnight UTC: placed, moved, traded, cancelled, and one from before the file."""
    lines = [HEADER]
    for i in range(60):
        at = MIDNIGHT_MS + 2_000 * (i - 40)
        bid, ask, placed = 2 * i + 10, 2 * i + 11, at // 1_000 * 1_000
        lines += [
            f"{bid},{at},{placed},235.{i + 10},{(i + 1) * 10**7},created,bid",
            f"{ask},{at + 3},{placed},235.{i + 20},{(i + 2) * 10**7},created,ask",
        ]
        if i % 3 == 0:
            lines.append(f"{bid},{at + 50},{placed},235.{i + 21},{(i + 1) * 10**7},changed,bid")
            lines.append(f"{bid},{at + 60},{placed},235.{i + 21},0,deleted,bid")
            lines.append(f"{ask},{at + 62},{placed},235.{i + 20},{10**7},changed,ask")
        if i % 4 == 0:
            lines.append(f"{ask},{at + 900},{placed},235.{i + 20},{10**7},deleted,ask")
    lines.append(f"3,{MIDNIGHT_MS + 50_000},{MIDNIGHT_MS},200.00,5000,deleted,bid")
    return "".join(f"{line}\n" for line in lines).encode()


FILES = {"orders.csv": _sample()}


@pytest.mark.parametrize("container", [None, "xz"])
@FUZZ
@given(data=st.data())
def test_bitstamp_when_the_file_is_damaged_then_events_or_an_error_that_names_it(container, tmp_path, data):
    check_reader_survives("bitstamp", FILES, container=container, tmp=tmp_path, data=data)
