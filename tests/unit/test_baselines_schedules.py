from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import NS, make_day, open_ns

from feature_repo.errors import InputError
from training.execution.baselines import (
    AlmgrenChriss,
    Carry,
    ExposureMatched,
    ImbalanceRule,
    Immediate,
    Pov,
    SubmitAndLeave,
    TwapMarket,
    TwapPassive,
    VwapMarket,
    schedule_exposure,
)
from training.execution.config import ExecutionConfig
from training.execution.parents import ParentOrder
from training.execution.run import run_policy
from training.market.day import with_history

T0 = open_ns()
CONFIG = ExecutionConfig(lots=100, decision_interval_s=60)
START = T0 + 300 * NS


def still_day(bid_sz=1000, ask_sz=1000, trade=None, date="2024-01-02"):
    opens = open_ns(date)
    rows = [(opens + k * NS, [(100, bid_sz)], [(101, ask_sz)], trade) for k in range(7200)]
    rows[-1] = (rows[-1][0], rows[-1][1], rows[-1][2], (101, 5000, 1))
    return make_day(rows, date=date)


def run(policy, day, config=CONFIG, side=1):
    return run_policy(policy, [day], ParentOrder(0, side, 100, START, 600 * NS).row(), config, record=[0])


def by_slice(fills):
    return np.bincount((fills["ts_ns"] - START) // (60 * NS), weights=fills["lots"], minlength=10)[:10].tolist()


def test_twap_market_sends_equal_slices_and_pays_half_the_spread():
    result = run(TwapMarket(), still_day())
    assert by_slice(result.fills) == [10.0] * 10
    half_spread_bps = 1e4 * 0.5 / 100.5
    assert result.rows["is_bps"][0] == pytest.approx(half_spread_bps)
    assert result.rows["spread_bps"][0] == pytest.approx(half_spread_bps)


def test_immediate_takes_all_at_arrival_plus_latency():
    fills = run(Immediate(), still_day()).fills
    assert fills["ts_ns"].tolist() == [START + 10_000_000] and fills["lots"].tolist() == [100]


def test_twap_passive_when_never_filled_then_crosses_each_slice_at_its_end():
    result = run(TwapPassive(), still_day())
    assert by_slice(result.fills) == [0.0] + [10.0] * 9
    assert result.rows["completion"][0] == pytest.approx(0.9)


def test_carry_when_never_filled_then_is_swept_at_the_horizon():
    result = run(Carry(), still_day())
    assert result.rows["completion"][0] == 0 and len(result.fills) == 1


def test_carry_when_the_queue_trades_then_earns_the_half_spread():
    result = run(Carry(), still_day(bid_sz=5, trade=(100, 20, -1)))
    assert result.rows["passive_share"][0] == 1
    assert result.rows["is_bps"][0] == pytest.approx(-1e4 * 0.5 / 100.5)


@pytest.mark.parametrize(("ask_sz", "crosses"), [(100, True), (400, False)])
def test_imbalance_rule_crosses_only_a_thin_opposite_queue(ask_sz, crosses):
    rows = run(ImbalanceRule(0.2), still_day(bid_sz=1000, ask_sz=ask_sz)).rows
    assert (rows["completion"][0] == 1) == crosses


def test_vwap_follows_the_curve_of_earlier_days_and_never_its_own():
    earlier = still_day(date="2024-01-01")
    heavy = np.zeros(7200, np.int32)
    heavy[300:600], heavy[600:900] = 30, 10  # the parent's ten minutes: 3 to 1
    earlier.book.trade_sz[:], earlier.book.trade_px[:] = heavy, 100
    today = with_history(still_day(trade=(100, 7, 0)), [earlier])
    slices = by_slice(run(VwapMarket(), today).fills)
    assert sum(slices[:5]) == 75 and sum(slices[5:]) == 25
    assert today.adv_lots == heavy.sum() and today.history_days == 1


def test_volume_history_when_a_day_is_not_earlier_then_is_refused():
    with pytest.raises(InputError, match="not earlier"):
        with_history(still_day(), [still_day()])


def test_almgren_chriss_matches_the_closed_form_and_turns_into_twap_without_risk_aversion():
    policy = AlmgrenChriss(risk_aversion=0.3, eta_bps=2.0, gamma_bps=0.4, sigma_bps=9.0)
    tau = 0.1
    wanted = np.arccosh(1 + 0.5 * tau**2 * 0.3 * 81.0 / (2.0 - 0.02)) / tau
    assert policy.kappa(10) == pytest.approx(wanted)
    open_shares = [policy.open_share(k / 10, 10) for k in range(11)]
    np.testing.assert_allclose(open_shares, np.sinh(wanted * (1 - np.arange(11) / 10)) / np.sinh(wanted), atol=1e-12)
    assert by_slice(run(AlmgrenChriss(risk_aversion=0.0), still_day()).fills) == [10.0] * 10
    front = by_slice(run(policy, still_day()).fills)
    assert sum(front) == 100 and all(a >= b - 1 for a, b in zip(front, front[1:], strict=False)) and front[0] > 20


def test_almgren_chriss_when_permanent_impact_leaves_none_temporary_then_says_so():
    with pytest.raises(InputError, match="eta_bps"):
        AlmgrenChriss(eta_bps=0.01, gamma_bps=1.0).kappa(10)


def test_fees_are_charged_by_kind_of_fill():
    taker = run(TwapMarket(), still_day(), replace(CONFIG, taker_fee_bps=0.5)).rows
    maker = run(Carry(), still_day(bid_sz=5, trade=(100, 20, -1)), replace(CONFIG, maker_fee_bps=-0.2)).rows
    assert taker["fees_bps"][0] == pytest.approx(0.5 * 101 / 100.5)
    assert maker["fees_bps"][0] == pytest.approx(-0.2 * 100 / 100.5)


def test_submit_and_leave_rests_the_whole_parent_once_where_it_was_told():
    result = run(SubmitAndLeave(-1), still_day(bid_sz=5, trade=(99, 30, -1)))
    assert result.rows["orders"][0] == 1 and set(result.fills["price_ticks"]) == {99}
    assert result.rows["passive_share"][0] == 1


def test_submit_and_leave_when_it_reaches_the_opposite_price_then_takes_it():
    result = run(SubmitAndLeave(1), still_day())
    assert result.fills["price_ticks"].tolist() == [101] and result.rows["passive_share"][0] == 0


def test_submit_and_leave_when_the_price_never_comes_then_is_swept_at_the_horizon():
    result = run(SubmitAndLeave(-1), still_day())
    assert result.rows["completion"][0] == 0 and result.rows["orders"][0] == 2


def test_pov_takes_its_share_of_what_has_traded_and_no_more():
    fills = run(Pov(0.1), still_day(trade=(101, 2, 1))).fills  # 120 lots a slice, none before the first decision
    assert by_slice(fills)[:5] == [0.0, 12.0, 12.0, 12.0, 12.0]


def test_pov_when_later_trades_change_then_earlier_orders_stay():
    quiet, busy = still_day(trade=(101, 2, 1)), still_day(trade=(101, 2, 1))
    busy.book.trade_sz[601:] *= 50  # after the parent's sixth decision
    early = [run(Pov(0.1), day).fills for day in (quiet, busy)]
    before = [fills[fills["ts_ns"] <= START + 301 * NS] for fills in early]
    assert len(before[0]) == 5 and before[0].tobytes() == before[1].tobytes()
    assert by_slice(early[1])[6] > by_slice(early[0])[6]


def test_resting_order_when_it_is_alone_at_its_price_then_stays_there():
    rows = []
    for k in range(7200):  # the bid of others falls away below ours for a while, the ask above stays
        bid = 99 if 400 <= k < 450 else 100
        rows.append((T0 + k * NS, [(bid, 1000)], [(102, 1000)], (100, 400, -1) if k == 440 else None))
    result = run(Carry(substeps=60), make_day(rows))
    assert result.fills["price_ticks"][0] == 100 and result.fills["ts_ns"][0] == T0 + 440 * NS
    assert result.fills["lots"][0] == 30  # all that was due: the queue ahead was gone


@pytest.mark.parametrize("ahead", [0, 2])
def test_carry_rests_what_is_due_as_many_slices_ahead_as_it_was_told(ahead):
    day = still_day(bid_sz=5, trade=(100, 20, -1))
    assert by_slice(run(Carry(ahead=ahead), day).fills)[0] == 10 * (1 + ahead)


@pytest.mark.parametrize("kappa2", [-2.0, 0.0, 4.0, 100.0])
def test_exposure_matched_finds_the_trajectory_of_a_given_exposure(kappa2):
    wanted = schedule_exposure(kappa2, 10)
    found = ExposureMatched(wanted, 10)
    assert schedule_exposure(found.kappa2, 10) == pytest.approx(wanted, abs=1e-9)
    lots = by_slice(run(found, still_day()).fills)
    assert sum(lots) == 100
    if kappa2 == 0:
        assert lots == [10.0] * 10
    else:
        assert (lots[0] > lots[-1]) == (kappa2 > 0)


def test_exposure_matched_when_no_trajectory_carries_as_much_then_takes_the_latest_one():
    assert schedule_exposure(ExposureMatched(1.0, 10).kappa2, 10) > schedule_exposure(-2.4, 10)
    with pytest.raises(InputError, match="exposure 1.5"):
        ExposureMatched(1.5, 10)
