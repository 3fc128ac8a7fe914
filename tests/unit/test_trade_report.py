import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.lake import StageResult
from flows.trade_backtest import Backtest
from flows.trade_live import LiveParent, compare, read_live
from flows.trade_report import RunFacts, sentences, summarise, table_rows, write_report
from serving.contracts.decisions import Denied
from serving.contracts.orders import ChildOrder
from serving.parents.journal import ParentsJournal
from serving.parents.orders import Plan
from serving.parents.records import Answered, Began, Decided, Ended, Opened, Sent, Taken

FILLS = [(1_000, 100, 5), (2_000, 101, 5)]
ENV = Backtest(
    rows=np.array([(1.5,), (-0.5,)], [("is_bps", "f8")]),
    fills=[FILLS, [(1_500, 99, 10)]],
    seen=[],
    acted=[np.array([1, 3]), np.array([0, 1])],
)


def live(parent_id, side, is_bps, fills, decisions, how="filled", fallback="", denials=0):
    tca = {"is_bps": is_bps, "passive_share": 0.5, "spread_bps": is_bps, "impact_bps": 0.0, "timing_bps": 0.0}
    return LiveParent(parent_id, "SYN1", side, 10, 1_000_000_000, how, fallback, 10, tca, fills, decisions, denials)


def day(synthetic=True):
    return SimpleNamespace(
        source="synthetic", synthetic=synthetic, date="2025-01-06", version=3,
        days=[SimpleNamespace(instrument=SimpleNamespace(symbol="SYN1"))],
        bundle=SimpleNamespace(kind="static", sha256="a" * 64),
        config=SimpleNamespace(fill_model="conservative", lots=10, horizon_s=600),
        stages=[StageResult("features", "f00d", True, 0.0, {})], features=Path("features/f00d"),
    )  # fmt: skip


def facts(pace="lockstep"):
    return RunFacts(pace, 61.0, 23_400.0, 1, {"venue": 0, "gateway": 0}, [], {"venue": 20.5})


def rows(second):
    return compare({"p0": live("p0", 1, 1.5, FILLS, [(0, (1.0,)), (1, (0.0,))]), "p1": second}, ENV, 2)


SAME = live("p1", -1, -0.5, [(1_500, 99, 10)], [(0, (3.0,)), (1, (1.0,))])


def test_compare_when_everything_agrees_then_both_parents_are_the_same():
    found = summarise(day(), rows(SAME), facts())
    assert (found["same_parents"], found["same_decisions"], found["decisions"]) == (2, 4, 4)
    assert found["live_mean_is_bps"] == found["backtest_mean_is_bps"] == pytest.approx(0.5)
    assert found["difference_bps"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    "second, same_fills, same_decisions",
    [
        (live("p1", -1, -0.5, [(1_500, 98, 10)], [(0, (3.0,)), (1, (1.0,))]), False, 2),
        (live("p1", -1, -0.5, [(1_500, 99, 10)], [(0, (2.0,)), (1, (1.0,))]), True, 1),
        (live("p1", -1, -0.5, [(1_500, 99, 10)], [(0, (3.0,)), (9, (1.0,))]), True, 1),
    ],
)
def test_compare_when_a_fill_or_a_decision_differs_then_the_parent_is_not_the_same(second, same_fills, same_decisions):
    found = rows(second)
    assert (found[1].same_fills, found[1].same_decisions, found[1].is_same) == (same_fills, same_decisions, False)
    assert summarise(day(), found, facts())["same_parents"] == 1


def test_summary_when_a_parent_is_not_done_then_it_is_counted_and_costs_nothing():
    found = summarise(day(), rows(live("p1", -1, None, [], [], how="", fallback="late")), facts())
    assert found["parents"] == {"asked": 2, "filled": 1, "fallback": 1, "not_done": 1}
    assert found["live_mean_is_bps"] == pytest.approx(1.5)


def test_sentences_when_paced_by_the_clock_then_claim_no_equality():
    text = " ".join(sentences(summarise(day(), rows(SAME), facts("real"))))
    assert "equals" not in text and "by the clock" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_report_then_holds_every_parent_and_says_synthetic_of_what_is(tmp_path, synthetic):
    found = summarise(day(synthetic), rows(SAME), facts())
    page = write_report(tmp_path, day(synthetic), rows(SAME), found).read_text()
    assert ("SYNTHETIC" in page) == synthetic
    assert "p0 SYN1" in page and "p1 SYN1" in page and "a" * 64 in page
    assert json.loads((tmp_path / "trade.json").read_text())["rows"][1]["live_is_bps"] == -0.5


def test_table_when_fills_differ_then_they_are_marked():
    _, body = table_rows(rows(live("p1", -1, None, [(1, 1, 1)], [], how="")))
    assert body[0][9] == "2" and body[1][9] == "1 *" and body[1][5] == "–" and body[1][4] == "not done"


def test_read_live_then_gives_what_the_journal_of_the_parents_says(tmp_path):
    journal, _ = ParentsJournal.open(tmp_path)
    head = {"key": "b-1/1", "strategy": "agent", "account": "main", "algorithm": "a", "trader": "t", "sent_ns": 1}
    order = ChildOrder(
        **head, venue="SYN", symbol="SYN1", side="buy", type="limit", price_ticks=100, lots=5, tif="day",
        reduce_only=False,
    )  # fmt: skip
    journal.append(
        [
            Opened(utc_ns=1, birth="b"),
            Taken(
                utc_ns=2, number=1, parent_id="p0", account="main", strategy="agent", symbol="SYN1", venue="SYN",
                side=1, lots=10, horizon_ns=100, start_ns=0, source="http", trader="t",
            ),
            Began(utc_ns=3, number=1, market_ns=50, mid2=201, plan=Plan(version=1, sha256="a" * 64)),
            Decided(
                utc_ns=4, number=1, step=0, market_ns=50, seen="", mask=(1, 1, 0, 1), action=(1.0,), order=(100, 5, 0)
            ),
            Sent(utc_ns=5, number=1, market_ns=50, request=order),
            Answered(utc_ns=6, decision=Denied(control="collar", message="too far", key="b-1/1"), market_ns=50),
            Ended(utc_ns=7, number=1, market_ns=150, how="expired", tca={"is_bps": 2.0}),
        ]
    )  # fmt: skip
    journal.close()
    found = read_live(tmp_path)["p0"]
    assert (found.how, found.denials, found.decisions, found.fills) == ("expired", 1, [(0, (1.0,))], [])
    assert (found.began_ns, found.tca) == (50, {"is_bps": 2.0})
