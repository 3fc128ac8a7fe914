import numpy as np
import pytest

from feature_repo.errors import InputError
from training.signals.skill import measure_skill

NS = 1_000_000_000


def market(rows: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecasts, moves and times; a forecast explains `share` of each move's variance."""
    rng = np.random.default_rng(seed)
    forecast = rng.normal(0.0, np.sqrt(share), (rows, 2)) if share else rng.normal(0.0, 0.1, (rows, 2))
    noise = rng.normal(0.0, np.sqrt(1.0 - share), (rows, 2))
    moves = (forecast if share else 0.0) + noise
    return forecast.astype(np.float32), moves.astype(np.float32), np.arange(rows, dtype=np.int64) * 10 * NS


def test_skill_when_signal_is_planted_then_is_established_with_its_size_inside_the_interval():
    forecasts, moves, ts = market(20_000, 0.04)

    for found in measure_skill(forecasts, moves, ts, np.random.default_rng(1), 999):
        assert found.established and found.verdict == "established"
        assert found.ci_low < 0.04 < found.ci_high
        assert found.r2 == pytest.approx(0.04, abs=0.008)
        assert found.ic_low < 0.2 < found.ic_high
        assert found.n == 20_000 and found.clusters == 112


@pytest.mark.parametrize("seed", range(5))
def test_skill_when_there_is_only_noise_then_is_not_established(seed):
    forecasts, moves, ts = market(20_000, 0.0, seed)

    for found in measure_skill(forecasts, moves, ts, np.random.default_rng(1), 999):
        assert not found.established and found.verdict == "not established"
        assert found.r2 < 0.0


def test_skill_when_forecast_is_worse_than_zero_beyond_doubt_then_is_not_established():
    forecasts, moves, ts = market(20_000, 0.04)

    found = measure_skill(-forecasts, moves, ts, np.random.default_rng(1), 999)[0]

    assert found.p < 0.05 and found.ci_high < 0.0
    assert not found.established


def test_skill_when_forecast_is_always_zero_then_has_no_gain_and_no_claim():
    _, moves, ts = market(5_000, 0.04)

    found = measure_skill(np.zeros_like(moves), moves, ts, np.random.default_rng(1), 999)[0]

    assert (found.r2, found.p, found.ic, found.established) == (0.0, 1.0, 0.0, False)


def test_skill_when_rows_lie_in_one_half_hour_then_claims_nothing_and_has_no_bounds():
    forecasts, moves, _ = market(500, 0.5)

    found = measure_skill(forecasts, moves, np.arange(500, dtype=np.int64), np.random.default_rng(1), 999)[0]

    assert found.r2 > 0.3 and not found.established
    assert found.as_json()["ci_low"] is None and found.as_json()["ci_high"] is None


def test_skill_when_moves_are_unknown_then_counts_the_known_ones():
    forecasts, moves, ts = market(5_000, 0.04)
    moves[:1_000, 0] = np.nan

    first, second = measure_skill(forecasts, moves, ts, np.random.default_rng(1), 999)

    assert (first.n, second.n) == (4_000, 5_000)


def test_skill_when_no_move_is_known_or_price_stood_still_then_claims_nothing():
    forecasts, moves, ts = market(100, 0.04)
    moves[:, 0], moves[:, 1] = np.nan, 0.0

    for found in measure_skill(forecasts, moves, ts, np.random.default_rng(1), 999):
        assert (found.r2, found.p, found.established) == (0.0, 1.0, False)


def test_skill_when_a_forecast_is_not_finite_or_shapes_differ_then_is_refused():
    forecasts, moves, ts = market(100, 0.04)

    with pytest.raises(InputError, match="do not fit"):
        measure_skill(forecasts[:, :1], moves, ts, np.random.default_rng(1))
    forecasts[3, 0] = np.inf
    with pytest.raises(InputError, match="1 forecasts are not finite"):
        measure_skill(forecasts, moves, ts, np.random.default_rng(1))
