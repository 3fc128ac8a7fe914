import pytest
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st

DAY = "ABC_2012-06-21_34200000_57600000"


def _sample() -> dict[str, bytes]:
    """Orders that come to a book of two levels, trade and go, so that levels leave the file's sight and return."""
    messages, rows = [], []
    levels = {-1: {10_100: 5, 10_200: 7}, 1: {10_000: 5, 9_900: 7}}
    orders: list[tuple[int, int, int]] = []
    for i in range(90):
        side = -1 if i % 2 else 1
        if i % 3 < 2 or not orders:
            price = (10_100 + 100 * (i % 5 // 2)) if side < 0 else (10_000 - 100 * (i % 7 // 2))
            what, lots = 1, i % 4 + 1
            orders.append((side, price, lots))
        else:
            side, price, lots = orders.pop(0)
            what = 3 if i % 2 else 4
        levels[side][price] = levels[side].get(price, 0) + (lots if what == 1 else -lots)
        if i % 11 == 0:
            messages.append(f"{34_200 + i}.{i:09d},5,0,10,10050,{side}")
        else:
            messages.append(f"{34_200 + i}.{i:09d},{what},{1_000 + i},{lots},{price},{side}")
        asks = sorted((p, s) for p, s in levels[-1].items() if s)[:2]
        bids = sorted(((p, s) for p, s in levels[1].items() if s), reverse=True)[:2]
        asks += [(9_999_999_999, 0)] * (2 - len(asks))
        bids += [(-9_999_999_999, 0)] * (2 - len(bids))
        rows.append(",".join(f"{a},{s},{b},{z}" for (a, s), (b, z) in zip(asks, bids, strict=True)))
    return {
        f"{DAY}_message_2.csv": "".join(f"{line}\n" for line in messages).encode(),
        f"{DAY}_orderbook_2.csv": "".join(f"{line}\n" for line in rows).encode(),
    }


FILES = _sample()


@pytest.mark.parametrize("container", [None, "gzip"])
@FUZZ
@given(data=st.data())
def test_lobster_when_a_file_is_damaged_then_events_or_an_error_that_names_it(container, tmp_path, data):
    # Where the two files no longer go together either may be named: nobody can tell which one is damaged.
    check_reader_survives("lobster", FILES, container=container, tmp=tmp_path, data=data, may_blame=FILES)
