"""`shortfall simulate` refuses in one sentence, before any work."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "simulate", *arguments],
        capture_output=True,
        text=True,
        env={"SHORTFALL_LAKE": str(tmp_path / "lake"), "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "replay", "--report", "no/such/folder/out.html"], "is not there; make it first"),
        (["--world", "replay", "--report", "."], "is a folder; name a file"),
        (["--world", "replay", "--seed", "-1"], "seed"),
        (["--world", "impact", "--synthetic-days", "1"], "synthetic_days"),
    ],
)
def test_simulate_when_an_option_is_wrong_then_names_it_and_exits_2(arguments, message, tmp_path):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr and "Traceback" not in done.stderr


def test_simulate_when_the_world_is_unknown_or_missing_then_shows_the_usage_and_exits_2(tmp_path):
    for arguments in (["--world", "moon"], []):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2 and "Usage" in done.stderr and "--world" in done.stderr
