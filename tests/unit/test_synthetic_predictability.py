from pathlib import Path

import numpy as np
import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from feature_repo.ticks.predictability import (
    HORIZONS_S,
    Sample,
    main,
    mid_moves,
    shfe_samples,
    synthetic_samples,
    walk_forward,
)

NS = 1_000_000_000


def sample(rng: np.random.Generator, slope: float, rows: int = 20_000) -> Sample:
    x = rng.standard_normal((rows, 1))
    moves = slope * x + rng.standard_normal((rows, len(HORIZONS_S)))
    return Sample(x, moves, np.arange(rows) // 100)


def test_walk_forward_when_the_relation_is_known_then_r2_is_found_within_its_interval() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5**2 / (0.5**2 + 1.0)
    for skill in walk_forward([sample(rng, 0.5) for _ in range(4)]):
        assert skill.low < truth < skill.high
        assert skill.high - skill.low < 0.05
        assert skill.rows == 40_000  # the second half of the days


def test_walk_forward_when_the_relation_turns_on_the_last_day_then_it_is_not_seen_before() -> None:
    rng = np.random.default_rng(2)
    for skill in walk_forward([sample(rng, 0.5), sample(rng, -0.5)]):
        assert skill.high < 0.0  # a fit that had seen the last day would do better than this


def test_walk_forward_when_there_is_one_day_then_message_says_two_are_needed() -> None:
    with pytest.raises(InputError, match="at least 2"):
        walk_forward([sample(np.random.default_rng(3), 0.0)])


def test_mid_moves_when_the_horizon_leaves_the_window_then_there_is_none() -> None:
    ts_ns = np.array([0, 5 * NS, 25 * NS])
    bid, size = np.array([[100], [101], [103]], np.int32), np.ones((3, 1), np.int32)
    none, side = np.zeros(3, np.int32), np.zeros(3, np.int8)
    book = Book(ts_ns, bid, size, bid + 1, size, none, none, side)
    moves = mid_moves(book, np.array([1 * NS, 20 * NS, 31 * NS]), [(0, 30 * NS), (30 * NS, 100 * NS)])
    assert moves[0, 0] == pytest.approx(1e4 * np.log(101.5 / 100.5))
    assert moves[1, 0] == pytest.approx(1e4 * np.log(103.5 / 101.5))  # the close itself still counts
    assert np.isnan(moves[0, 1]) and np.isnan(moves[1, 1])
    assert moves[2, 1] == 0.0 and moves[2, 2] == 0.0


def test_command_prints_a_row_for_each_source_and_refuses_an_absent_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--days", "2", "--strength", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:26].strip() for line in lines[1:]] == [
        "synthetic 1, latent signal",
        "synthetic 1, with activity",
        "synthetic 1, visible",
        "synthetic 0, latent signal",
        "synthetic 0, with activity",
        "synthetic 0, visible",
    ]
    assert main(["--days", "2", "--shfe", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err


@pytest.mark.slow
def test_default_strength_when_measured_beside_shfe_then_it_shows_no_more(real_data: Path) -> None:
    real = walk_forward(list(shfe_samples(real_data / "shfe")))
    assert [round(100 * skill.r2, 2) for skill in real] == pytest.approx([9.86, 3.05, 0.99], abs=0.02)  # the docs' row
    _, visible = synthetic_samples({"days": 20})
    for planted, seen in zip(walk_forward(visible), real, strict=True):
        assert planted.r2 <= seen.r2
