import json
from pathlib import Path

import pytest

from feature_repo.errors import InputError
from training.evaluation.sources import read_curves, read_skill


def test_curves_when_written_by_training_then_validated_points_of_each_seed(tmp_path: Path) -> None:
    rows = [
        {"update": 0, "env_steps": 0, "validation_bps": 2.5},
        {"update": 1, "env_steps": 100, "validation_bps": None},
        {"update": 2, "env_steps": 200, "validation_bps": 1.5},
    ]
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({"seeds": [{"seed": 7, "curve": rows}, {"seed": 8, "curve": []}]}))
    assert read_curves(path) == {"seed 7": ([0, 200], [2.5, 1.5])}


def test_skill_when_written_by_the_signal_then_a_row_a_horizon(tmp_path: Path) -> None:
    row = {"r2": 0.01, "ci_low": None, "ci_high": None, "ic": 0.1, "n": 9, "verdict": "not established", "p": 0.5}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"skill_before_test": {"10": row}, "skill_test": {"10": row, "30": row}}))
    found = read_skill(path)
    assert [(item["horizon_s"], item["days"]) for item in found] == [
        ("10", "before the test"), ("10", "test days"), ("30", "test days"),
    ]  # fmt: skip
    assert "p" not in found[0] and found[0]["r2"] == 0.01


def test_sources_when_absent_then_empty(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "none.json") == {} and read_skill(None) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"seeds": [{"curve": 3}]}', '{"seeds": 4}'])
def test_curves_when_file_is_not_of_this_form_then_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curves.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"curves\.json"):
        read_curves(path)


@pytest.mark.parametrize("text", ["{", "7", '{"skill_test": [1]}', '{"skill_test": {"10": {}}}'])
def test_skill_when_file_is_not_of_this_form_then_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        read_skill(path)
