"""`shortfall trade` as a user runs it: a day to its report; and no process left behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.spark]
SHORT = ("--synthetic-hours", "0.45")
NAMES = {"venue", "decide", "gateway", "parents"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


def start(lake, *arguments):
    program = Path(sys.executable).with_name("shortfall")
    environment = {**os.environ, "SHORTFALL_LAKE": str(lake)}
    return subprocess.Popen(
        [program, "trade", *SHORT, *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def serving(process):
    """The serving processes that a run has started: by name."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:  # it has ended meanwhile
            continue
        if len(words) > 2 and words[1] == "-m" and words[2].startswith(("serving.", "training.market.venue")):
            found[words[2].rsplit(".", 1)[1]] = child
    return found


def until_trading(process, seconds=240):
    """Wait until all four are there and the parents' port is open; gives them."""
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        found = serving(process)
        if set(found) == NAMES and any(c.status == "LISTEN" for c in found["parents"].net_connections()):
            return found
        time.sleep(0.2)


def test_trade_when_run_on_a_fresh_lake_then_bundle_zero_works_the_day_and_equals_its_backtest(lake):
    process = start(lake, "--json")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    found = json.loads(out)
    assert (found["policy"]["kind"], found["policy"]["version"], found["synthetic"]) == ("static", 1, True)
    asked = found["parents"]["asked"]
    assert found["parents"] == {"asked": asked, "filled": asked, "fallback": 0, "not_done": 0} and asked >= 2
    assert found["same_parents"] == asked and found["same_decisions"] == found["decisions"] > 0
    assert found["processes"] == dict.fromkeys(NAMES, 0) and found["killed"] == []
    page = Path(found["report"]).read_text()
    assert "SYNTHETIC" in page and all(f"p{number} SYN1" in page for number in range(asked))
    rows = json.loads((Path(found["report"]).parent / "trade.json").read_text())["rows"]
    assert [row["parent_id"] for row in rows] == [f"p{number}" for number in range(asked)]
    assert f"{asked}/{asked} parents done" in err  # it showed how far it was


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_trade_when_interrupted_then_stops_every_process_in_order(lake, number):
    process = start(lake, "--pace", "real", "--speed", "1")
    children = until_trading(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "every process has ended" in err
    assert not any(child.is_running() for child in children.values())


def test_trade_when_the_gateway_dies_then_says_so_and_stops_the_others(lake):
    process = start(lake, "--pace", "real", "--speed", "1")
    children = until_trading(process)
    children["gateway"].kill()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1 and "error: gateway ended with exit code -9" in err
    assert not any(child.is_running() for child in children.values())


def test_trade_when_the_day_is_unknown_then_ends_with_2_before_anything_starts(lake):
    process = start(lake, "--date", "2025-01-05")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "date 2025-01-05 is not among" in err
