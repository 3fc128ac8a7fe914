from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from synthetic_features import synthetic_features

from feature_repo.errors import InputError
from flows.trade_day import GAP_S, TradeParams, choose_date, known_days, parents_of
from training.execution.config import NS, ExecutionConfig
from training.market.day import load_market_days

SHORT = {"horizon_s": 120, "decision_interval_s": 10, "first_start_s": 120}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    return load_market_days(root, None, [synthetic_features(root, hours=0.4)])


def metadata(*training, signal=()):
    return {"training_days": list(training), "signal_spec": {"train_days": list(signal)} if signal else None}


def test_known_days_then_are_those_of_policy_and_signal_model():
    assert known_days(metadata("2025-01-07", signal=("2025-01-06", "2025-01-07"))) == ["2025-01-06", "2025-01-07"]
    assert known_days({"training_days": []}) == []


def test_choose_date_when_the_champion_learned_nothing_then_is_the_first_session_of_the_synthetic_market():
    assert choose_date(TradeParams(), metadata()) == "2025-01-06"


def test_choose_date_when_the_champion_learned_from_days_then_is_the_first_after_all_of_them():
    assert choose_date(TradeParams(), metadata("2025-01-06", signal=("2025-01-10",))) == "2025-01-13"


@pytest.mark.parametrize(
    "asked, learned, says",
    [(date(2025, 1, 5), (), "is not among"), (date(2025, 1, 6), ("2025-01-06",), "learned from")],
)
def test_choose_date_when_the_day_cannot_be_traded_then_says_why(asked, learned, says):
    with pytest.raises(InputError, match=says):
        choose_date(TradeParams(date=asked), metadata(*learned))


def test_parents_then_buy_and_sell_in_turn_and_never_two_of_a_symbol_at_once(days):
    config = ExecutionConfig(**SHORT)
    parents = parents_of(days, config, None)
    assert len(parents) >= 5
    assert parents["side"].tolist() == [1 if i % 2 == 0 else -1 for i in range(len(parents))]
    gaps = np.diff(parents["start_ns"])
    assert (gaps >= (config.horizon_s + GAP_S) * NS).all()


@pytest.mark.parametrize("together", [2, 3])
def test_parents_when_several_work_together_then_they_are_of_one_side_and_the_other_waits_for_all(days, together):
    config = ExecutionConfig(**SHORT)
    parents = parents_of(days, config, None, together)
    horizon_ns, most = config.horizon_s * NS, 0
    assert len(parents) > len(parents_of(days, config, None))
    for row in parents:
        beside = parents[np.abs(parents["start_ns"] - row["start_ns"]) < horizon_ns]
        assert set(beside["side"]) == {row["side"]}
        begun = beside[beside["start_ns"] <= row["start_ns"]]
        most = max(most, len(begun))
    assert most == together
    turns = np.flatnonzero(np.diff(parents["side"]))
    assert (np.diff(parents["start_ns"])[turns] >= horizon_ns + GAP_S * NS).all() and len(turns) >= 2


def test_parents_when_two_symbols_trade_then_each_has_its_own_turns(days):
    other = replace(days[0], instrument=replace(days[0].instrument, symbol="SYN2"))
    parents = parents_of([days[0], other], ExecutionConfig(**SHORT), None)
    assert (np.diff(parents["start_ns"]) >= 0).all()
    for index in (0, 1):
        sides = parents["side"][parents["day"] == index]
        assert (sides[::2] == 1).all() and (sides[1::2] == -1).all()


@pytest.mark.parametrize("most", [1, 3])
def test_parents_when_fewer_are_asked_for_then_they_spread_over_the_day(days, most):
    whole, some = (parents_of(days, ExecutionConfig(**SHORT), count) for count in (None, most))
    assert len(some) == most and some[0] == whole[0]
    if most > 1:
        assert some[-1] == whole[-1]
