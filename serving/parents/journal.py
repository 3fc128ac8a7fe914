"""The journal of parents: one writer, every record in order, durable before anything that rests on it is sent or said.

Lines as `serving.journal` has them: JSON with `sequence`, `previous` (the hash of the line before), `hash`. Files roll
by the day (UTC), each but the first beginning with a snapshot of the state; the chain goes on from file to file. A file
appears whole under its name or not at all, so that a crash at any point of a roll leaves the old file or the new one to
go on from. The first failure of the disk is the last thing that this writer does: what a failed sync left behind
nobody knows, so the process must start again and read.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from serving.journal import GENESIS, Journal, JournalContent, JournalError, record_hash, sync_folder
from serving.parents.records import Record, Snapshot, decode_record, encode_record
from serving.parents.state import State

BEFORE_ROLLS = "parents.jsonl"
"""The one file of a journal that was begun before journals rolled; it becomes the first one."""
DAY_NS = 86_400 * 10**9
MIN_FREE_BYTES = 16 * 2**20
"""Below this a disk counts as full: no new parent is taken, those at work are worked to their end."""


class LockedError(RuntimeError):
    """Another process writes this journal."""


class DiskError(RuntimeError):
    """The journal cannot be written; nothing of the group counts, now or ever after."""


def file_name(number: int) -> str:
    """The name of the journal's file `number`, 1 being the first."""
    return f"parents-{number:08d}.jsonl"


def files(folder: Path) -> list[Path]:
    """The journal's files in order. Raises JournalError where one is missing between two."""
    found = sorted(folder.glob("parents-*.jsonl"))
    old = folder / BEFORE_ROLLS
    if not found:
        return [old] if old.exists() else []
    first = _number(found[0])
    if [path.name for path in found] != [file_name(first + place) for place in range(len(found))]:
        names = ", ".join(path.name for path in found)
        raise JournalError(f"{folder}: the journal's files are {names}: one between the first and the last is missing")
    if old.exists():
        raise JournalError(f"{old} stands beside {found[0].name}: one of them is of another journal")
    return found


def records(folder: Path) -> Iterator[tuple[Path, dict[str, Any], Record]]:
    """Every line of every file with its record, the chain checked across them. Raises JournalError."""
    last = None
    names = files(folder)
    for path in names:
        content = _read(path, last)
        if content.torn_tail and path != names[-1]:
            raise JournalError(f"{path}: {content.torn_tail_message}, but another file follows; restore it from a copy")
        for line in content.records:
            yield path, line, _decoded(path, line)
            last = line
    if last is None and names and names[0].name not in (file_name(1), BEFORE_ROLLS):
        raise JournalError(f"{names[0]} holds no snapshot; restore it from a copy")


def replay_file(path: Path) -> tuple[State, JournalContent]:
    """The state that one file leads to, and what it holds. Raises JournalError."""
    content, state = _read(path, None), State()
    if not content.records and path.name not in (file_name(1), BEFORE_ROLLS):
        raise JournalError(f"{path} holds no snapshot; restore it from a copy")
    for line in content.records:
        follow(state, path, line, _decoded(path, line))
    return state, content


def follow(state: State, path: Path, line: dict[str, Any], record: Record) -> None:
    """Apply a record that was read. Raises JournalError where it cannot follow the ones before."""
    try:
        state.apply(record)
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(
            f"{path}:{line['sequence']}: cannot follow the lines before ({error!r}); restore it from a copy"
        ) from error


class ParentsJournal:
    """Made by `open`, which replays what is there."""

    def __init__(self, path: Path, lock: int, descriptor: int, sequence: int, previous: str, day: int) -> None:
        self.path, self.sequence = path, sequence
        self.failed = ""
        self.torn = ""  # where a torn tail was set aside
        self._lock, self._file, self._previous, self._day = lock, descriptor, previous, day
        self._size = os.fstat(descriptor).st_size

    @classmethod
    def open(cls, folder: Path) -> tuple["ParentsJournal", State]:
        """Take the journal and replay its last file; what a crash tore off is set aside, it was never acted on.

        Raises LockedError, serving.journal.JournalError where it is not what was written, OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise LockedError(f"another process writes the journal in {folder}") from error
        try:
            return cls._open(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _open(cls, folder: Path, lock: int) -> tuple["ParentsJournal", State]:
        for partial in folder.glob(".parents-*.partial"):  # of a roll that did not come to its end
            partial.unlink()
        names = files(folder)
        if names and names[0].name == BEFORE_ROLLS:
            names = [names[0].rename(folder / file_name(1))]
            sync_folder(folder)
        path = names[-1] if names else folder / file_name(1)
        state, content = replay_file(path)
        torn = ""
        if content.torn_tail:
            aside = folder / f"{path.name}.torn-{_last(content)[0] + 1}"
            aside.write_bytes(content.torn_tail)
            torn = str(aside)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if content.torn_tail:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(content.torn_tail))
            os.fsync(descriptor)
        if not names:
            sync_folder(folder)
        first = content.records[0]["record"]["utc_ns"] // DAY_NS if content.records else -1
        journal = cls(path, lock, descriptor, *_last(content), first)
        journal.torn = torn
        return journal, state

    def append(self, records: Sequence[Record]) -> None:
        """Make a group durable. Raises DiskError, this time and ever after, where that cannot be."""
        if self.failed:
            raise DiskError(self.failed)
        if not records:
            return
        lines, sequence, previous = [], self.sequence, self._previous
        for record in records:
            sequence += 1
            line, previous = _line(sequence, previous, record)
            lines.append(line)
        content = b"".join(lines)
        try:
            _write(self._file, content)
            os.fdatasync(self._file)
        except OSError as error:
            self.failed = f"the disk refused the journal of parents: {error}"
            with suppress(OSError):  # else the next start sets the torn group aside
                os.ftruncate(self._file, self._size)
            raise DiskError(self.failed) from error
        self.sequence, self._previous, self._size = sequence, previous, self._size + len(content)
        if self._day < 0:
            self._day = records[0].utc_ns // DAY_NS

    def is_due(self, utc_ns: int) -> bool:
        """Whether the file is of an earlier day, and there is room for another."""
        return 0 <= self._day < utc_ns // DAY_NS and not self.failed and not self.is_full()

    def roll(self, state: State, utc_ns: int) -> None:
        """Go on in a new file that begins with a snapshot of `state`, of which nothing may be unwritten.

        Parents that ended before the last roll are forgotten, in `state` too. Raises DiskError.
        """
        if self.failed:
            raise DiskError(self.failed)
        snapshot = state.snapshot(utc_ns)
        line, digest = _line(self.sequence + 1, self._previous, snapshot)
        path = self.path.with_name(file_name(_number(self.path) + 1))
        partial = path.with_name(f".{path.stem}.partial")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            try:
                _write(descriptor, line)
                os.fsync(descriptor)
                os.rename(partial, path)
                sync_folder(path.parent)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            self.failed = f"the disk refused a new file of the journal of parents: {error}"
            raise DiskError(self.failed) from error
        os.close(self._file)
        self._file, self.path = descriptor, path
        self.sequence, self._previous, self._size = self.sequence + 1, digest, len(line)
        self._day = snapshot.utc_ns // DAY_NS
        state.apply(snapshot)

    def is_full(self) -> bool:
        """Whether so little space is left that no new parent may be taken."""
        try:
            space = os.statvfs(self.path.parent)
        except OSError:
            return True
        return space.f_bavail * space.f_frsize < MIN_FREE_BYTES

    def close(self) -> None:
        """Let go of file and lock."""
        os.close(self._file)
        os.close(self._lock)
        self.failed = self.failed or "the journal was closed"


def _number(path: Path) -> int:
    try:
        return int(path.stem.partition("-")[2])
    except ValueError as error:
        raise JournalError(f"{path} is no file of the journal of parents") from error


def _read(path: Path, last: dict[str, Any] | None) -> JournalContent:
    """A file behind line `last`; without one it goes on behind whatever its first line names."""
    journal = Journal(path)
    if last is None and path.name not in (file_name(1), BEFORE_ROLLS):
        with path.open("rb") as file:
            try:
                last = orjson.loads(file.readline())
                last = {"sequence": int(last["sequence"]) - 1, "hash": str(last["previous"])}
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{path} does not begin with a snapshot ({error!r})") from error
    content = journal.read() if last is None else journal.read(last["sequence"], last["hash"])
    if path.name not in (file_name(1), BEFORE_ROLLS) and content.records:
        line = content.records[0]
        if not isinstance(_decoded(path, line), Snapshot):
            raise JournalError(f"{path}:{line['sequence']}: the file does not begin with a snapshot")
    return content


def _decoded(path: Path, line: dict[str, Any]) -> Record:
    try:
        return decode_record(orjson.dumps(line["record"]))
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{path}:{line['sequence']}: no record ({error!r}); restore it from a copy") from error


def _last(content: JournalContent) -> tuple[int, str]:
    return (content.records[-1]["sequence"], content.records[-1]["hash"]) if content.records else (0, GENESIS)


def _line(sequence: int, previous: str, record: Record) -> tuple[bytes, str]:
    line = {"sequence": sequence, "previous": previous, "record": orjson.loads(encode_record(record))}
    line["hash"] = record_hash(line)
    return orjson.dumps(line) + b"\n", line["hash"]


def _write(descriptor: int, content: bytes) -> None:
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])
