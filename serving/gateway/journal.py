"""The gateway's journal: one writer, every event in order, durable before anything that rests on it is said or sent.

`append` puts an event into the present group, `commit` writes the group and syncs it; what was not committed never
happened. The first failure of the disk is the last thing this writer does: after a failed sync nobody knows what is on
the disk, so the process must start again and read. Files roll by the day, each beginning with a snapshot of the state.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from serving.gateway.disk import AppendFile, Disk
from serving.gateway.events import Event, Opened, Snapshot, decode_event, encode_event
from serving.gateway.records import GENESIS, MAGIC, CorruptError, Record, Scan, groups, pack
from serving.gateway.records import JournalError as JournalError
from serving.gateway.state import State

EPOCH = "epoch"
MIN_FREE_BYTES = 64 * 2**20
"""Below this a disk counts as full: what is left is for cancels, fills and kills."""


def file_name(number: int) -> str:
    """The name of the journal's file `number`, 1 being the first."""
    return f"journal-{number:08d}.bin"


def files(disk: Disk) -> list[str]:
    """The journal's files in order. Raises CorruptError where one is missing between two."""
    names = [name for name in disk.names() if name.startswith("journal-") and name.endswith(".bin")]
    if names:
        first = int(names[0][8:-4])
        wanted = [file_name(first + place) for place in range(len(names))]
        if names != wanted:
            raise CorruptError(
                f"the journal's files are {', '.join(names)}: one between the first and the last is missing"
            )
    return names


class Journal:
    """The writer. Made by `Journal.open`, which also reads what is there."""

    def __init__(self, disk: Disk, name: str, epoch: int, scan: Scan) -> None:
        self.disk, self.name, self.epoch = disk, name, epoch
        self.sequence, self.durable = scan.sequence, scan.end
        self.failed = ""  # why nothing can be written any more
        self.torn: str | None = None  # where a torn tail was set aside
        self._hash = scan.hash
        self._pending: list[bytes] = []
        self._file: AppendFile = disk.append_to(name)

    @classmethod
    def open(cls, disk: Disk, utc_ns: int) -> tuple["Journal", State]:
        """Take the journal, replay its last file, set a torn tail aside, and record that a new writer is here.

        Raises LockedError where another process has it, CorruptError where it is not what was written, JournalError
        where the disk refuses.
        """
        disk.lock()
        try:
            names = files(disk)
            if not names:
                disk.put(file_name(1), MAGIC)
                names = [file_name(1)]
            state, scan = replay_file(disk, names[-1])
            epoch = max(state.epoch, read_epoch(disk)) + 1
            disk.put(EPOCH, str(epoch).encode())
            torn = _set_aside(disk, names[-1], scan)
            journal = cls(disk, names[-1], epoch, scan)
            journal.torn = torn
            event = Opened(utc_ns=max(utc_ns, state.utc_ns), epoch=epoch)
            state.apply(event)
            journal.append(event)
            journal.commit()
        except OSError as error:
            disk.unlock()
            raise JournalError(f"the journal cannot be opened: {error}") from error
        except BaseException:
            disk.unlock()
            raise
        return journal, state

    @property
    def has_pending(self) -> bool:
        """Whether `commit` has anything to write."""
        return bool(self._pending)

    def append(self, event: Event) -> None:
        """Add an event to the group. Raises JournalError after a failure."""
        if self.failed:
            raise JournalError(self.failed)
        self._pending.append(encode_event(event))

    def commit(self) -> None:
        """Make the group durable. Raises JournalError, this time and ever after, where that cannot be."""
        if self.failed:
            raise JournalError(self.failed)
        if not self._pending:
            return
        try:
            self._check_fence()
            content, digest = self._group()
            self._file.write(content)
            self._file.sync()
        except OSError as error:
            self._fail(f"the disk refused the journal: {error}")
        self.durable += len(content)
        self.sequence += len(self._pending)
        self._hash = digest
        self._pending.clear()

    def drop_pending(self) -> None:
        """Forget the group that was not committed: nothing of it was acknowledged."""
        self._pending.clear()

    def roll(self, state: State, utc_ns: int) -> None:
        """Go on in a new file that begins with a snapshot of `state`. Raises JournalError."""
        self.commit()
        encoded = state.encoded()
        event = Snapshot(utc_ns=utc_ns, state=msgspec.Raw(encoded), state_hash=state.hash())
        record, digest = pack(self.sequence + 1, self.epoch, self.sequence + 1, 1, self._hash, encode_event(event))
        name = file_name(int(self.name[8:-4]) + 1)
        try:
            self._check_fence()
            self.disk.put(name, MAGIC + record)
            file = self.disk.append_to(name)
        except OSError as error:
            self._fail(f"the disk refused a new file of the journal: {error}")
        self._file.close()
        self._file, self.name = file, name
        self.sequence, self.durable, self._hash = self.sequence + 1, len(MAGIC) + len(record), digest

    def is_full(self) -> bool:
        """Whether so little space is left that new orders must stop."""
        try:
            return self.disk.free_bytes() < MIN_FREE_BYTES
        except OSError:
            return True

    def close(self) -> None:
        """Let go of the file and the lock. What is pending is lost: it was never acknowledged."""
        self._file.close()
        self.disk.unlock()
        self.failed = self.failed or "the journal was closed"

    def _group(self) -> tuple[bytes, bytes]:
        parts, digest, first = [], self._hash, self.sequence + 1
        for place, payload in enumerate(self._pending):
            raw, digest = pack(first + place, self.epoch, first, len(self._pending), digest, payload)
            parts.append(raw)
        return b"".join(parts), digest

    def _check_fence(self) -> None:
        raw = bytes(self.disk.read(EPOCH)[:])  # it is there, or this writer would not be: no need to list the folder
        if raw != b"%d" % self.epoch:
            epoch = raw[:32].decode("ascii", "replace")
            self._fail(f"writer {epoch} took the journal over from writer {self.epoch}", clean=False)

    def _fail(self, reason: str, clean: bool = True) -> None:
        self.failed = reason
        self._pending.clear()
        if clean:  # leave no half group behind, if the disk lets us; the next start would set it aside anyway
            with contextlib.suppress(OSError):
                self._file.truncate(self.durable)
        raise JournalError(reason)


def read_epoch(disk: Disk) -> int:
    """The epoch of the latest writer, 0 before the first.

    Raises CorruptError where the file says nothing of the kind.
    """
    if EPOCH not in disk.names():
        return 0
    raw = bytes(disk.read(EPOCH)[:])
    if not raw.isdigit():
        raise CorruptError(f"the file {EPOCH} holds {raw[:32]!r}, not a number")
    return int(raw)


def replay_file(disk: Disk, name: str) -> tuple[State, Scan]:
    """The state that one file leads to, and where its whole groups end. Raises CorruptError."""
    state = State()
    content = disk.read(name)
    scan = Scan(len(MAGIC), 0, 0, GENESIS)
    first = name == file_name(1)
    for group in groups(content, name, scan if first else None, is_last=True):
        for record in group:
            if scan.sequence == 0 and not first and not isinstance(_decode(record, name), Snapshot):
                raise CorruptError(f"{name} does not begin with a snapshot")
            _apply(state, record, name)
            scan = Scan(record.end, record.sequence, record.epoch, record.hash)
    if not first and scan.sequence == 0:
        raise CorruptError(f"{name} holds no snapshot")
    return state, scan


def records(disk: Disk) -> Iterator[tuple[str, Record]]:
    """Every record of every file with its file's name, the chain checked across them. Raises CorruptError."""
    names = files(disk)
    last: Scan | None = Scan(0, 0, 0, GENESIS) if names[:1] == [file_name(1)] else None
    for name in names:
        for group in groups(disk.read(name), name, last, is_last=name == names[-1]):
            for record in group:
                yield name, record
                last = Scan(record.end, record.sequence, record.epoch, record.hash)


def _decode(record: Record, name: str) -> Event:
    try:
        return decode_event(record.payload)
    except ValueError as error:
        raise CorruptError(f"{name}: record {record.sequence} is no event: {error}") from error


def _apply(state: State, record: Record, name: str) -> None:
    try:
        state.apply(_decode(record, name))
    except (ValueError, KeyError, ArithmeticError) as error:
        raise CorruptError(f"{name}: record {record.sequence} cannot follow the ones before: {error!r}") from error


def _set_aside(disk: Disk, name: str, scan: Scan) -> str | None:
    content = disk.read(name)
    if len(content) == scan.end:
        return None
    aside = f"torn-{scan.sequence + 1}-{len(content) - scan.end}-{name}"
    disk.put(aside, bytes(content[scan.end :]))
    file = disk.append_to(name)
    file.truncate(scan.end)
    file.close()
    return aside
