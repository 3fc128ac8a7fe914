import databento_dbn as dbn
import pytest
from dbn_file import header, mbo, mbp, utc
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

NOON = utc("12:00:00")


def _orders() -> bytes:
    snapshot = dbn.F_SNAPSHOT | dbn.F_BAD_TS_RECV
    records = [mbo("A", "B", 99 - k, k + 1, 5 + k, utc("00:00:00"), snapshot) for k in range(8)]
    records.append(bytes(dbn.SystemMsg(NOON, "heartbeat")))
    for k in range(12):
        ts, order = NOON + 100 * k, 20 + k
        records += [mbo("A", "A", 101 + k, 4, order, ts), mbo("T", "B", 101, 1, 3, ts + 1, 0)]
        records += [mbo("F", "A", 101 + k, 1, order, ts + 1, 0), mbo("M", "A", 101 + k, 3, order, ts + 1)]
        records += [mbo("M", "A", 102 + k, 3, order, ts + 2), mbo("C", "A", 102 + k, 3, order, ts + 3)]
    records += [mbo("A", "A", 103, 1, 90 + k, utc("22:30:00") + k) for k in range(4)]
    return header() + b"".join([*records, mbo("T", "B", 103, 1, 0, utc("23:00:00"))])


def _prices(schema: dbn.Schema, kind: type, levels: int) -> bytes:
    depth = [(99.75 - 0.25 * k, 10 + k, 100.25 + 0.25 * k, 20 + k) for k in range(levels)]
    records = [mbp(kind, "ACMT"[k % 4], "BAN"[k % 3], 100 + k, 2, NOON + k, depth or None) for k in range(12)]
    return header(schema) + b"".join(records)


FILES = {
    "mbo": _orders(),
    "mbp-10": _prices(dbn.Schema.MBP_10, dbn.MBP10Msg, 10),
    "mbp-1": _prices(dbn.Schema.MBP_1, dbn.MBP1Msg, 1),
    "trades": _prices(dbn.Schema.TRADES, dbn.TradeMsg, 0),
}


@pytest.mark.parametrize("container", [None, "zstd"])
@FUZZ
@given(data=st.data(), schema=st.sampled_from(sorted(FILES)))
def test_databento_when_a_file_is_damaged_then_events_or_an_error_that_names_it(container, schema, tmp_path, data):
    name = "esh4-20240110.dbn" + (".zst" if container else "")
    check_reader_survives("databento", {name: FILES[schema]}, container=container, tmp=tmp_path, data=data)
