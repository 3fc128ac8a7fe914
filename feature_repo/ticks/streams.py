"""Opens a vendor's file, compressed or not, as one stream of its content; damage and bombs become an InputError.

What a file is, its first bytes say: gzip (RFC 1952), bzip2, xz, zstd (RFC 8878), zip; whatever else is plain. Members
or frames that follow one another are one content. Unlike Python's `bz2.open` and `lzma.open`, which end silently at
bytes that open no further member, bytes left over are damage: nothing of a file is skipped unsaid.
All but zstd always carry a checksum; a zstd frame does where its writer put one, else damage may pass for content.
"""

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from feature_repo.errors import InputError

BOMB_FREE_BYTES = 256 << 20
BOMB_RATIO = 200
"""Content may grow to BOMB_FREE_BYTES, or to BOMB_RATIO times the file: the samples of all vendors grow 4 to 13 times,
deflate ends at 1,032 times, and bzip2, xz and zstd at tens of thousands. Small content harms nobody."""
XZ_MEMORY_BYTES = 256 << 20
"""`xz -9` needs 65 MiB; a file may name a dictionary of 4 GiB."""
_CHUNK = 1 << 20
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, pa.ArrowException, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, OSError, ValueError, OverflowError, LookupError, MemoryError),
)


class _Source(Protocol):
    """What gives the content: at most `size` bytes a call, none at its end."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def open_stream(path: Path) -> IO[bytes]:
    """The content of `path`, decompressed while it is read; a context manager.

    Reading and opening raise InputError that names the file, the offset in the content, and the reason: a file that is
    absent, damaged, cut off, not what its suffix says, grows beyond the limit, or (zip) does not hold exactly one file.
    """
    try:
        source = _open_source(path)
    except _DAMAGE as error:
        raise InputError(f"{path}: not readable ({_reason(error)}); fetch the file again") from error
    return io.BufferedReader(_Checked(source, path), _CHUNK)


class _Checked(io.RawIOBase):
    """Counts what a source gives, so that damage is told with its place and growth is limited."""

    def __init__(self, source: _Source, path: Path) -> None:
        self._source, self._path, self._offset = source, path, 0
        self._limit = max(BOMB_FREE_BYTES, BOMB_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._source.read(len(view))
        except _DAMAGE as error:
            raise InputError(
                f"{self._path}: damaged after byte {self._offset:,} of its content ({_reason(error)}); "
                "fetch the file again"
            ) from error
        self._offset += len(data)
        if self._offset > self._limit:
            raise InputError(
                f"{self._path}: its {self._path.stat().st_size:,} bytes grow beyond {self._limit:,} bytes of content, "
                "no ticks do; fetch the file again, or decompress it first if it is right"
            )
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


class _Members:
    """Content of a file of one or more compressed members; zero bytes may follow, as tapes and tar write them."""

    def __init__(self, path: Path, new: Callable[[], Any]) -> None:
        self._file, self._new = path.open("rb"), new
        self._decoder: Any = new()
        self._tail, self._started, self._ended = b"", True, False

    def read(self, size: int, /) -> bytes:
        while not self._ended:
            if self._decoder.eof:
                self._next_member()
                continue
            needs = getattr(self._decoder, "needs_input", not self._tail)
            chunk = self._tail or (self._file.read(_CHUNK) if needs else b"")
            data: bytes = self._decoder.decompress(chunk, size)
            if needs and not chunk and not data and not self._decoder.eof:
                raise EOFError("it is cut off")
            self._tail = getattr(self._decoder, "unconsumed_tail", b"")
            if data:
                return data
        return b""

    def _next_member(self) -> None:
        """Begin the member that follows, past zero bytes; at the end of the file there is none."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest:
            chunk = self._file.read(_CHUNK)
            if not chunk:
                self._ended = True
                return
            rest = chunk.lstrip(b"\0")
        self._decoder, self._tail = self._new(), rest

    def close(self) -> None:
        self._file.close()


class _ZipMember:
    """Content of the one file in a zip."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        try:
            members = [item for item in self._archive.infolist() if not item.is_dir()]
            if len(members) != 1:
                raise InputError(f"{path}: holds {len(members)} files, exactly one is wanted")
            if members[0].compress_type not in _ZIP_METHODS:
                raise InputError(
                    f"{path}: compressed by zip method {members[0].compress_type}; stored (0), deflated (8) and "
                    "bzip2 (12) are read, pack it again"
                )
            self._member = self._archive.open(members[0])
        except BaseException:
            self._archive.close()
            raise
        self._missing = members[0].file_size

    def read(self, size: int, /) -> bytes:
        data = self._member.read(size)
        self._missing -= len(data)
        if not data and self._missing:  # where the checksum too was overwritten by zeros, Python sees an empty file
            raise EOFError(f"{self._missing:,} bytes of the content that it announces are missing")
        return data

    def close(self) -> None:
        self._member.close()
        self._archive.close()


def _open_source(path: Path) -> _Source:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return _Members(path, lambda: zlib.decompressobj(wbits=31))
    if head.startswith(b"BZh"):
        return _Members(path, bz2.BZ2Decompressor)
    if head == b"\xfd7zXZ\x00":
        return _Members(path, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES))
    if head.startswith(b"\x28\xb5\x2f\xfd") or (
        head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5
    ):  # or a skippable frame
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _ZipMember(path)
    if path.suffix.lower() in _SUFFIXES:
        found = f"starts with bytes {head.hex(' ')}" if head else "is empty"
        raise InputError(f"{path}: {found}, so it is no {path.suffix} file; fetch the file again")
    return path.open("rb", buffering=0)


def _reason(error: BaseException) -> str:
    """What is wrong, in the library's words; a system's error without the path, which the message names already."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
