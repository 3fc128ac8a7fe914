"""The journal of parents: one writer, every record in order, durable before anything that rests on it is sent or said.

A file of lines as `serving.journal` has them: JSON with `sequence`, `previous` (the hash of the line before), `hash`,
so that `serving.journal.Journal.read` checks it. Here it is kept open, written a group at a time with one fdatasync,
and locked. The first failure of the disk is the last thing that this writer does: what a failed sync left behind
nobody knows, so the process must start again and read.
"""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from serving.journal import GENESIS, Journal, JournalError, record_hash, sync_folder
from serving.parents.records import Record, decode_record, encode_record
from serving.parents.state import State

FILE = "parents.jsonl"
MIN_FREE_BYTES = 16 * 2**20
"""Below this a disk counts as full: no new parent is taken, those at work are worked to their end."""


class LockedError(RuntimeError):
    """Another process writes this journal."""


class DiskError(RuntimeError):
    """The journal cannot be written; nothing of the group counts, now or ever after."""


class ParentsJournal:
    """Made by `open`, which replays what is there."""

    def __init__(self, folder: Path, lock: int, descriptor: int, sequence: int, previous: str, size: int) -> None:
        self.folder, self.sequence = folder, sequence
        self.failed = ""
        self.torn = ""  # where a torn tail was set aside
        self._lock, self._file, self._previous, self._size = lock, descriptor, previous, size

    @classmethod
    def open(cls, folder: Path) -> tuple["ParentsJournal", State]:
        """Take the journal and replay it; what a crash tore off is set aside, it was never acted on.

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
        path = folder / FILE
        content = Journal(path).read()
        state = State()
        for line in content.records:
            try:
                state.apply(decode_record(orjson.dumps(line["record"])))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(
                    f"{path}:{line['sequence']}: cannot follow the lines before ({error!r}); restore it from a copy"
                ) from error
        torn = ""
        if content.torn_tail:
            aside = folder / f"{FILE}.torn-{len(content.records) + 1}"
            aside.write_bytes(content.torn_tail)
            torn = str(aside)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if content.torn_tail:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(content.torn_tail))
            os.fsync(descriptor)
        if is_new:
            sync_folder(folder)
        previous = content.records[-1]["hash"] if content.records else GENESIS
        size = os.fstat(descriptor).st_size
        journal = cls(folder, lock, descriptor, len(content.records), previous, size)
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
            line = {"sequence": sequence, "previous": previous, "record": orjson.loads(encode_record(record))}
            line["hash"] = previous = record_hash(line)
            lines.append(orjson.dumps(line) + b"\n")
        content = b"".join(lines)
        try:
            written = os.write(self._file, content)
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fdatasync(self._file)
        except OSError as error:
            self.failed = f"the disk refused the journal of parents: {error}"
            with suppress(OSError):  # else the next start sets the torn group aside
                os.ftruncate(self._file, self._size)
            raise DiskError(self.failed) from error
        self.sequence, self._previous, self._size = sequence, previous, self._size + len(content)

    def is_full(self) -> bool:
        """Whether so little space is left that no new parent may be taken."""
        try:
            space = os.statvfs(self.folder)
        except OSError:
            return True
        return space.f_bavail * space.f_frsize < MIN_FREE_BYTES

    def close(self) -> None:
        """Let go of file and lock."""
        os.close(self._file)
        os.close(self._lock)
        self.failed = self.failed or "the journal was closed"
