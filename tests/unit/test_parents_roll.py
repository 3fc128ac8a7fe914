"""The journal of parents over days: what is open goes on in the next file, whatever is killed while it is made."""

import json
import os
import shutil
from contextlib import suppress

import numpy as np
import pytest
from ems_world import ACCOUNT, NS, Ems, policy, request
from market_fixtures import make_day, open_ns, random_rows

import serving.parents.journal as journal_module
from serving.journal import JournalError
from serving.parents.audit import export, main, replay, state_hash, verify
from serving.parents.journal import BEFORE_ROLLS, DAY_NS, DiskError, ParentsJournal, file_name, files
from serving.parents.records import Opened, Session
from training.market.venue.depth_world import DepthWorld

START = open_ns() + 120 * NS
DAY = make_day(random_rows(np.random.default_rng(3), 1500, step_ns=NS))
TOMORROW = DAY_NS + START


@pytest.fixture(scope="module")
def world():
    """Parents that ended, that work with an order open, and that wait; a challenger's decisions beside them."""
    found = Ems(
        DepthWorld(DAY), DAY.instrument, lambda seen, mask: 1 if mask[1] else 0, policy(), start_ns=open_ns(),
        challenger=policy("b" * 64, 2), shadow=lambda seen, mask: 0,
    )  # fmt: skip
    for asked in (request("done", 40, horizon_ns=60 * NS, start_ns=START), request("works", start_ns=START),
                  request("waits", start_ns=START + 300 * NS)):  # fmt: skip
        found.core.submit(asked, 1)
    found.run(START + 90 * NS, NS // 10)
    done, works, waits = found.core.state.parents.values()
    assert done.is_ended and works.open_children and works.filled and waits.phase.name == "WAITING"
    return found


@pytest.fixture
def folder(world, tmp_path):
    journal, _ = ParentsJournal.open(tmp_path)
    journal.append(world.records)
    journal.close()
    return tmp_path


def standing(state):
    """All that a state remembers but its times and the feed's session."""
    plain = {**vars(state), "utc_ns": 0, "rolled_ns": 0, "session": ""}
    return {**plain, "children": list(state.children), "orders": {key: c.key for key, c in state.orders.items()}}


def rolled(folder, *times):
    journal, state = ParentsJournal.open(folder)
    for utc_ns in times:
        journal.roll(state, utc_ns)
    return journal, state


def test_next_file_begins_with_all_that_is_open_and_the_chain_goes_on(world, folder):
    journal, state = rolled(folder, TOMORROW)
    state.apply(opened := Opened(utc_ns=TOMORROW + 1, birth="b1"))
    journal.append([opened])
    journal.close()
    assert [path.name for path in files(folder)] == [file_name(1), file_name(2)]
    again, found = ParentsJournal.open(folder)
    again.close()
    assert state_hash(found) == state_hash(state) and found.utc_ns == TOMORROW + 1
    assert standing(found) == standing(world.core.state) == standing(state)
    said = verify(folder)
    assert said["records"] == len(world.records) + 2 == again.sequence
    assert said["kinds"]["Snapshot"] == 1 and not said["torn_bytes"]
    lines = [json.loads(line) for line in export(folder)]
    assert [line["sequence"] for line in lines] == list(range(1, len(world.records) + 3))
    assert {line["file"] for line in lines} == {file_name(1), file_name(2)}
    assert [item["phase"] for item in replay(folder)["parents"]] == ["ended", "working", "waiting"]


def test_parent_goes_on_from_a_snapshot_as_if_nothing_had_been(folder):
    journal, state = rolled(folder, TOMORROW)
    journal.close()
    _, state = ParentsJournal.open(folder)
    ems = Ems(DepthWorld(DAY), DAY.instrument, lambda seen, mask: 0, policy(), start_ns=START + 90 * NS)
    ems.core = ems.new_core(state)
    ems.settle()
    works = state.find(ACCOUNT, "works")
    assert works.plan.version == 1 and works.open_children
    assert {item.order_id for item in works.open_children} == {
        number for (_, number), child in state.orders.items() if child.is_open
    }
    assert ems.core.submit(request("works", start_ns=START), 2) is works  # the same order again
    assert ems.core.submit(request("new"), 2).number == 4


def test_parent_is_forgotten_at_the_second_roll_after_its_end_and_its_number_is_never_given_again(folder):
    journal, state = rolled(folder, TOMORROW, TOMORROW + DAY_NS)
    assert [parent.parent_id for parent in state.parents.values()] == ["works", "waits"]
    assert state.find(ACCOUNT, "done") is None and state.taken == 3
    assert {item.number for item in state.shadows} == {2}
    journal.close()
    assert verify(folder)["kinds"]["Snapshot"] == 2


def test_journal_is_due_when_the_day_is_over_and_there_is_room(folder, monkeypatch):
    journal, _ = ParentsJournal.open(folder)
    assert not journal.is_due(DAY_NS - 1) and journal.is_due(DAY_NS)
    monkeypatch.setattr(journal_module, "MIN_FREE_BYTES", 2**62)
    assert not journal.is_due(DAY_NS)
    journal.close()


class Killed(BaseException):
    """The process ends here."""


class Killing:
    """The calls of `os` that a roll makes; the one of number `at` is the last, done, half done or not."""

    CALLS = ("open", "write", "fsync", "rename", "close")

    def __init__(self, at, how):
        self.left, self.how = at, how

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.CALLS:
            return real

        def call(*arguments):
            self.left -= 1
            if self.left:
                return real(*arguments)
            if self.how == "half" and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            elif self.how == "done":
                real(*arguments)
            raise Killed(name)

        return call


@pytest.mark.parametrize("how", ["not", "half", "done"])
def test_kill_at_any_point_of_a_roll_leaves_a_journal_to_go_on_from(folder, tmp_path_factory, monkeypatch, how):
    reached, sizes = [], set()
    for at in range(1, 20):
        copy = tmp_path_factory.mktemp("kill") / "parents"
        shutil.copytree(folder, copy)
        journal, state = ParentsJournal.open(copy)
        with monkeypatch.context() as patched:
            patched.setattr(journal_module, "os", Killing(at, how))
            patched.setattr("serving.journal.os", journal_module.os)
            try:
                journal.roll(state, TOMORROW)
            except Killed as killed:
                reached.append(str(killed))
            else:
                break
        for descriptor in (journal._file, journal._lock):
            with suppress(OSError):
                os.close(descriptor)
        again, found = ParentsJournal.open(copy)
        again.append([Opened(utc_ns=TOMORROW, birth=found.birth)])
        again.close()
        sizes.add(len(files(copy)))
        assert standing(found) == standing(state)
        assert verify(copy)["torn_bytes"] == 0 and not list(copy.glob(".*"))
    assert {"write", "fsync", "rename"} <= set(reached) and sizes == {1, 2}


@pytest.mark.parametrize("broken", ["write", "fsync", "rename"])
def test_disk_that_refuses_a_new_file_ends_the_writer_and_the_old_file_stands(folder, monkeypatch, broken):
    journal, state = ParentsJournal.open(folder)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, full)
        with pytest.raises(DiskError, match="refused a new file of the journal of parents"):
            journal.roll(state, TOMORROW)
    for again in (lambda: journal.append([Session(utc_ns=1, session="x")]), lambda: journal.roll(state, TOMORROW)):
        with pytest.raises(DiskError, match="No space left"):
            again()
    journal.close()
    assert ParentsJournal.open(folder)[1].snapshot(TOMORROW) == state.snapshot(TOMORROW)


def test_file_between_that_is_missing_and_one_that_was_changed_are_found(folder):
    rolled(folder, TOMORROW, TOMORROW + DAY_NS)[0].close()
    second = folder / file_name(2)
    raw = second.read_bytes()
    second.unlink()
    with pytest.raises(JournalError, match="one between the first and the last is missing"):
        ParentsJournal.open(folder)
    second.write_bytes(raw.replace(b'"parent_id":"works"', b'"parent_id":"worms"', 1))
    with pytest.raises(JournalError, match="the line was changed"):
        verify(folder)
    second.write_bytes(raw)
    (folder / file_name(1)).unlink()  # put away: what follows stands by itself
    assert verify(folder)["files"] == [file_name(2), file_name(3)]


def test_snapshot_that_is_not_its_past_is_found_although_its_hash_is_right(folder):
    journal, state = ParentsJournal.open(folder)
    state.parents[2].lots += 1
    journal.roll(state, TOMORROW)
    journal.close()
    with pytest.raises(JournalError, match="the snapshot is not what the lines before lead to"):
        verify(folder)


def test_journal_of_one_file_that_grew_becomes_the_first(folder):
    (folder / file_name(1)).rename(folder / BEFORE_ROLLS)
    before = verify(folder)["last_hash"]
    rolled(folder, TOMORROW)[0].close()
    assert [path.name for path in files(folder)] == [file_name(1), file_name(2)]
    assert verify(folder)["last_hash"] != before and not (folder / BEFORE_ROLLS).exists()
    (folder / BEFORE_ROLLS).write_text("")
    with pytest.raises(JournalError, match="is of another journal"):
        ParentsJournal.open(folder)


def test_command_reads_without_writing_and_says_what_is_wrong(folder, capfdbinary):
    rolled(folder, TOMORROW)[0].close()
    before = {path: path.read_bytes() for path in files(folder)}
    for what in ("verify", "replay", "export"):
        assert main([what, str(folder)]) == 0
    assert {path: path.read_bytes() for path in files(folder)} == before
    files(folder)[1].write_bytes(before[files(folder)[1]][:-50])
    assert main(["verify", str(folder)]) == 1 and b"error: " in capfdbinary.readouterr().err
    assert main(["read", str(folder)]) == main([]) == 2
