"""The journal of parents: what was written is there, what was torn off is set aside, what was changed is refused."""

import json
import os

import pytest

from serving.journal import JournalError
from serving.parents.journal import DiskError, LockedError, ParentsJournal, file_name
from serving.parents.records import Changed, Opened, Session, Taken


def taken(number=1, utc_ns=5):
    return Taken(
        utc_ns=utc_ns, number=number, parent_id=f"p{number}", account="main", strategy="agent", symbol="T", venue="V",
        side=1, lots=10, horizon_ns=10**9, start_ns=0, source="http", trader="ada",
    )  # fmt: skip


def written(folder, *groups):
    journal, _ = ParentsJournal.open(folder)
    for group in groups:
        journal.append(group)
    journal.close()
    return folder / file_name(1)


def reopened(folder):
    journal, state = ParentsJournal.open(folder)
    journal.close()
    return journal, state


def test_records_come_back_in_order_and_the_writer_goes_on_behind_them(tmp_path):
    written(tmp_path, [Opened(utc_ns=1, birth="b"), taken()], [Changed(utc_ns=6, number=1, lots=20)])
    written(tmp_path, [taken(2, 9)])
    journal, state = reopened(tmp_path)
    assert journal.sequence == 4 and state.birth == "b" and state.parents[1].lots == 20
    assert state.find("main", "p2").number == 2 and state.utc_ns == 9


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_torn_tail_is_set_aside_and_nothing_before_it_is_lost(tmp_path, cut):
    path = written(tmp_path, [Opened(utc_ns=1, birth="b")], [taken()])
    raw = path.read_bytes()
    path.write_bytes(raw[:-cut])
    journal, state = ParentsJournal.open(tmp_path)
    assert not state.parents and state.birth == "b" and os.path.exists(journal.torn)
    journal.append([taken()])
    journal.close()
    assert list(reopened(tmp_path)[1].parents) == [1]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"lots":10', b'"lots":11'), (b'"account":"main"', b'"account":"mine"'), (b'"sequence":2', b'"sequence":3')],
)
def test_line_that_was_changed_is_refused(tmp_path, old, new):
    path = written(tmp_path, [Opened(utc_ns=1, birth="b")], [taken()], [Session(utc_ns=9, session="s")])
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    with pytest.raises(JournalError, match="restore it from a copy"):
        ParentsJournal.open(tmp_path)
    path.write_bytes(raw)
    reopened(tmp_path)  # the lock was let go


def test_record_that_cannot_follow_is_refused_although_its_hash_is_right(tmp_path):
    written(tmp_path, [Opened(utc_ns=1, birth="b"), taken(2)])
    with pytest.raises(JournalError, match="cannot follow the lines before"):
        ParentsJournal.open(tmp_path)


def test_second_writer_is_locked_out(tmp_path):
    journal, _ = ParentsJournal.open(tmp_path)
    with pytest.raises(LockedError, match="another process writes"):
        ParentsJournal.open(tmp_path)
    journal.close()
    reopened(tmp_path)


@pytest.mark.parametrize("broken", ["write", "fdatasync"])
def test_disk_that_refuses_once_is_never_written_again(tmp_path, monkeypatch, broken):
    journal, _ = ParentsJournal.open(tmp_path)
    journal.append([Opened(utc_ns=1, birth="b")])

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, full)
        with pytest.raises(DiskError, match="No space left"):
            journal.append([taken()])
    with pytest.raises(DiskError, match="No space left"):
        journal.append([taken()])
    journal.close()
    assert not reopened(tmp_path)[1].parents


def test_half_written_group_counts_as_far_as_it_is_whole(tmp_path):
    path = written(tmp_path, [Opened(utc_ns=1, birth="b")], [taken(1), taken(2), taken(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    journal, state = reopened(tmp_path)
    assert list(state.parents) == [1, 2] and journal.sequence == 3
    assert json.loads(path.read_bytes().splitlines()[-1])["sequence"] == 3
