"""The few things that the journal asks of a disk: few enough that a test can put a bad disk in its place."""

import fcntl
import mmap
import os
from pathlib import Path
from typing import Protocol

SMALL_BYTES = 4_096


class LockedError(RuntimeError):
    """Another process holds the journal."""


class AppendFile(Protocol):
    """A file that grows."""

    def write(self, content: bytes) -> None:
        """Add all of `content`, not yet durable.

        Raises OSError where the disk refuses; a part may have been written.
        """

    def sync(self) -> None:
        """Return once everything written is durable. Raises OSError."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes and sync. Raises OSError."""

    def close(self) -> None:
        """Let go of the file."""


class Disk(Protocol):
    """A folder of the journal."""

    def lock(self) -> None:
        """Become the only writer for as long as the process lives. Raises LockedError."""

    def unlock(self) -> None:
        """Stop being the writer."""

    def names(self) -> list[str]:
        """The files, sorted."""

    def read(self, name: str) -> bytes | mmap.mmap:
        """A file's whole content. Raises OSError."""

    def put(self, name: str, content: bytes) -> None:
        """Create or replace a file, whole or not at all, and durable on return. Raises OSError."""

    def append_to(self, name: str) -> AppendFile:
        """Open an existing file at its end. Raises OSError."""

    def free_bytes(self) -> int:
        """What can still be written."""


class _RealFile:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, content: bytes) -> None:
        written = os.write(self._descriptor, content)
        while written < len(content):
            written += os.write(self._descriptor, content[written:])

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class RealDisk:
    """A folder of this machine. The lock is `flock` on a file in it: the kernel lets go when the process dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = None

    def lock(self) -> None:
        """See Disk."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise LockedError(f"another process writes the journal in {self.folder}") from error
        self._lock = descriptor

    def unlock(self) -> None:
        """See Disk."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self) -> list[str]:
        """See Disk."""
        return sorted(os.listdir(self.folder))

    def read(self, name: str) -> bytes | mmap.mmap:
        """See Disk."""
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            if size <= SMALL_BYTES:  # the epoch is read before each group: by one call
                return os.read(descriptor, SMALL_BYTES)
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)

    def put(self, name: str, content: bytes) -> None:
        """See Disk."""
        temporary = self.folder / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def append_to(self, name: str) -> AppendFile:
        """See Disk."""
        return _RealFile(self.folder / name)

    def free_bytes(self) -> int:
        """See Disk."""
        space = os.statvfs(self.folder)
        return space.f_bavail * space.f_frsize
