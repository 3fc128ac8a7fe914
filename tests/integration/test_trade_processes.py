import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from gateway_served import Served

from flows.trade_desk import Desk, why_not_ready
from flows.trade_processes import ProcessFailedError, Team, free_ports

READY = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('{\"http\": 7}'); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY
FAILS = "import sys; print('no such book', file=sys.stderr); sys.exit(3)"


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Modules that a team can start by name."""
    for name, code in (("ready_one", READY), ("deaf_one", DEAF), ("failing_one", FAILS)):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def start(team, name, module):
    ready = team.folder / f"{name}.json"
    team.start(name, module, [str(ready)], {}, ready)


def test_team_when_left_then_no_process_is_there_any_more(scripts):
    with Team(scripts / "run") as team:
        start(team, "a", "ready_one")
        start(team, "b", "ready_one")
        assert team.wait_ready("a") == team.wait_ready("b") == {"http": 7}
        pids = [worker.pid for worker in team.workers.values()]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert team.codes() == {"a": -signal.SIGTERM, "b": -signal.SIGTERM}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_team_when_the_work_raises_then_no_process_is_there_any_more(scripts, error):
    with pytest.raises(error), Team(scripts / "run") as team:
        start(team, "a", "ready_one")
        team.wait_ready("a")
        raise error
    assert not psutil.pid_exists(team.workers["a"].pid)


def test_team_when_a_process_fails_then_says_which_and_what_it_said_last(scripts):
    with (
        pytest.raises(ProcessFailedError, match=r"(?s)b ended with exit code 3.*no such book"),
        Team(scripts / "run") as team,
    ):
        start(team, "a", "ready_one")
        team.wait_ready("a")
        start(team, "b", "failing_one")
        team.wait_ready("b")
    assert not psutil.pid_exists(team.workers["a"].pid)


def test_team_when_a_process_dies_while_it_works_then_check_says_so(scripts):
    with Team(scripts / "run") as team:
        start(team, "a", "ready_one")
        team.wait_ready("a")
        team.check()
        os.kill(team.workers["a"].pid, signal.SIGKILL)
        team.workers["a"].process.wait()
        with pytest.raises(ProcessFailedError, match="a ended with exit code -9"):
            team.check()


def test_team_when_a_process_does_not_end_then_it_is_killed_and_that_is_told(scripts, monkeypatch):
    monkeypatch.setattr("flows.trade_processes.STOP_S", 0.3)
    with Team(scripts / "run") as team:
        start(team, "a", "deaf_one")
        team.wait_ready("a")
    assert team.killed == ["a"] and not psutil.pid_exists(team.workers["a"].pid)


def test_team_when_a_process_is_silent_then_it_is_not_waited_for_for_ever(scripts):
    with (
        pytest.raises(ProcessFailedError, match=r"did not come up within 0\.2 s"),
        Team(scripts / "run", start_s=0.2) as team,
    ):
        ready = team.folder / "never.json"
        team.start("a", "ready_one", [str(team.folder / "other.json")], {}, ready)
        team.wait_ready("a")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with their parent")
def test_team_when_whoever_started_it_is_killed_then_its_processes_end_too(scripts):
    code = (
        "import pathlib, sys, time\nfrom flows.trade_processes import Team\n"
        "with Team(pathlib.Path(sys.argv[1])) as team:\n"
        "    ready = team.folder / 'a.json'\n"
        "    team.start('a', 'ready_one', [str(ready)], {}, ready)\n"
        "    team.wait_ready('a')\n    print(team.workers['a'].pid, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(scripts / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
        deadline = time.monotonic() + 20
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_free_ports_then_are_different():
    assert len(set(free_ports(20))) == 20


def test_gateway_that_serves_and_is_halted_is_not_ready_to_trade(tmp_path):
    with Served(tmp_path, limits=True) as served:
        token = served.files.admin_tokens["mon"]
        desk = Desk("", "", "", "", served.base, token, tmp_path, tmp_path)
        assert why_not_ready(desk).startswith("halted: ")
        served.gateway.state.halted = ""
        assert why_not_ready(desk) == ""
        served.gateway.broken = "planted"
        assert why_not_ready(desk) == "planted"
    assert why_not_ready(desk)
