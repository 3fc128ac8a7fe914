"""A stage's output is there whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feature_repo.errors import DiskFullError, GateFailedError, InputError
from flows.lake import Lake, SupersededError, code_digest, fingerprint


def write_value(value: str):
    def work(folder: Path) -> dict:
        (folder / "value.txt").write_text(value)
        return {"value": value}

    return work


def refuse(_folder: Path) -> dict:
    raise AssertionError("the stage was done again")


def test_run_when_output_is_there_then_skips_and_returns_its_summary(tmp_path):
    lake = Lake(tmp_path)
    first = lake.run("clean", "a", write_value("one"))
    second = lake.run("clean", "a", refuse)
    assert not first.skipped and second.skipped
    assert second.summary == {"value": "one"}


def test_run_when_work_fails_then_publishes_nothing_and_starts_afresh(tmp_path):
    lake = Lake(tmp_path)

    def half(folder: Path) -> dict:
        (folder / "half.txt").write_text("half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        lake.run("clean", "a", half)
    assert lake.summary("clean", "a") is None
    assert not lake.folder("clean", "a").exists()
    lake.run("clean", "a", write_value("whole"))
    assert sorted(path.name for path in lake.folder("clean", "a").iterdir()) == ["_stage.json", "value.txt"]


def test_run_when_stage_keeps_parts_then_goes_on_in_its_work_folder(tmp_path):
    lake = Lake(tmp_path)

    def first(folder: Path) -> dict:
        (folder / "fold-1").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lake.run("train_signal", "a", first, keeps_parts=True)

    def second(folder: Path) -> dict:
        assert (folder / "fold-1").read_text() == "done"
        return {}

    assert not lake.run("train_signal", "a", second, keeps_parts=True).skipped


def test_run_when_forced_then_replaces_the_output(tmp_path):
    lake = Lake(tmp_path)
    lake.run("clean", "a", write_value("one"))
    result = lake.run("clean", "a", write_value("two"), force=True)
    assert not result.skipped
    assert (lake.folder("clean", "a") / "value.txt").read_text() == "two"


def test_run_when_forced_work_fails_then_the_earlier_output_stands(tmp_path):
    lake = Lake(tmp_path)
    lake.run("clean", "a", write_value("one"))

    def broken(_folder: Path) -> dict:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        lake.run("clean", "a", broken, force=True)
    assert (lake.folder("clean", "a") / "value.txt").read_text() == "one"


def test_run_when_disk_fills_then_says_where_and_leaves_no_part(tmp_path):
    lake = Lake(tmp_path)
    lake.run("ingest", "a", write_value("one"))

    def fill(folder: Path) -> dict:
        (folder / "part").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFullError, match=r"disk full while writing stage clean .*free space there") as caught:
        lake.run("clean", "a", fill)
    assert str(tmp_path) in str(caught.value) and caught.value.exit_code == 2
    assert not [path for path in (tmp_path / ".work").iterdir() if path.is_dir()]
    assert (lake.folder("ingest", "a") / "value.txt").read_text() == "one"


def test_run_when_gate_fails_then_keeps_the_evidence_apart(tmp_path):
    lake = Lake(tmp_path)

    def gate(folder: Path) -> dict:
        (folder / "validation.json").write_text("{}")
        raise GateFailedError("spread")

    for _ in range(2):
        with pytest.raises(GateFailedError):
            lake.run("validate", "a", gate)
    assert (tmp_path / "failed" / "validate-a" / "validation.json").is_file()
    assert lake.summary("validate", "a") is None


def test_run_when_killed_in_the_middle_then_the_next_attempt_starts_clean(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from flows.lake import Lake
        def work(folder):
            (folder / "part").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        Lake(Path({str(tmp_path)!r})).run("clean", "a", work)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    lake = Lake(tmp_path)
    assert lake.summary("clean", "a") is None
    lake.run("clean", "a", write_value("whole"))
    assert not (lake.folder("clean", "a") / "part").exists()


def test_run_when_two_attempts_live_then_one_works_and_the_other_skips(tmp_path):
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from flows.lake import Lake
        def work(folder):
            time.sleep(0.5)
            return {{}}
        print(Lake(Path({str(tmp_path)!r})).run("clean", "a", work).skipped)
        """
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["False", "True"]


@pytest.mark.parametrize("keeps_parts", [False, True])
@pytest.mark.parametrize("when", ["at work", "before it publishes"])
def test_run_when_the_lock_was_lost_to_another_attempt_then_only_that_one_publishes(
    tmp_path, monkeypatch, keeps_parts, when
):
    """As on a shared volume whose server gave the lock of a lost node to the next one, while the node still lives."""
    monkeypatch.setattr("flows.lake.fcntl.flock", lambda handle, how: None)
    lake, started, other_done = Lake(tmp_path), threading.Event(), threading.Event()

    def old(folder: Path) -> dict:
        (folder / "part").write_text("old")
        started.set()
        assert other_done.wait(20)
        if when == "at work":
            (folder / "value.txt").write_text("old")
        return {"value": "old"}

    def new(folder: Path) -> dict:
        assert (folder / "part").exists() == keeps_parts
        return write_value("new")(folder)

    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(lake.run, "train_agent", "a", old, keeps_parts=keeps_parts)
        assert started.wait(20)
        assert lake.run("train_agent", "a", new, keeps_parts=keeps_parts).summary == {"value": "new"}
        other_done.set()
        with pytest.raises(SupersededError, match="another attempt took over"):
            lost.result()
    assert (lake.folder("train_agent", "a") / "value.txt").read_text() == "new"
    assert lake.summary("train_agent", "a") == {"value": "new"}


def test_run_when_another_attempt_published_meanwhile_then_its_output_stands_and_is_the_result(tmp_path):
    lake = Lake(tmp_path)

    def slow(folder: Path) -> dict:
        (tmp_path / "clean" / "a").mkdir(parents=True)
        (tmp_path / "clean" / "a" / "_stage.json").write_text('{"summary": {"value": "theirs"}}')
        return write_value("mine")(folder)

    result = lake.run("clean", "a", slow)
    assert result.skipped and result.summary == {"value": "theirs"}
    assert not (lake.folder("clean", "a") / "value.txt").exists()


def test_run_when_the_forced_work_was_taken_over_then_the_earlier_output_stands(tmp_path):
    lake = Lake(tmp_path)
    lake.run("clean", "a", write_value("one"))

    def taken(folder: Path) -> dict:
        shutil.rmtree(folder)
        return {}

    with pytest.raises(SupersededError):
        lake.run("clean", "a", taken, force=True)
    assert (lake.folder("clean", "a") / "value.txt").read_text() == "one"


def test_run_when_the_volume_has_no_locks_then_refused(tmp_path, monkeypatch):
    def refuse_lock(handle, how) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("flows.lake.fcntl.flock", refuse_lock)
    with pytest.raises(InputError, match="volume with file locks"):
        Lake(tmp_path).run("clean", "a", refuse)


def test_fingerprint_when_any_input_changes_then_changes():
    base = fingerprint("clean", params={"a": 1}, code="x")
    assert base == fingerprint("clean", code="x", params={"a": 1})
    others = {
        fingerprint("clean", params={"a": 2}, code="x"),
        fingerprint("clean", params={"a": 1}, code="y"),
        fingerprint("ingest", params={"a": 1}, code="x"),
    }
    assert base not in others and len(others) == 3


def test_code_digest_when_packages_differ_then_differs():
    assert code_digest("flows") != code_digest("serving")
    assert code_digest("flows/lake.py") == code_digest("flows/lake.py")


def test_result_of_run_when_never_noted_then_names_the_file(tmp_path):
    from feature_repo.errors import ShortfallError

    lake = Lake(tmp_path)
    result = lake.run("clean", "a", write_value("one"))
    lake.note_run("run-1", result)
    assert lake.result_of_run("run-1") == result
    with pytest.raises(ShortfallError, match=r"run-2\.json"):
        lake.result_of_run("run-2")
