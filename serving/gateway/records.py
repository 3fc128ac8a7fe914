"""The bytes of the journal: records that are chained by hash, in groups that are on disk whole or not at all.

A file is the magic, then records. A record is a header and a payload (JSON of an event):

| bytes | field | |
| --- | --- | --- |
| 4 | length | of the payload |
| 4 | checksum | CRC-32 of the payload |
| 8 | sequence | 1, 2, 3, ... over all files |
| 8 | epoch | of the writer: grows with every process that took the journal |
| 8 | group | the sequence of the group's first record |
| 4 | count | how many records the group has |
| 16 | previous | BLAKE2b-128 of the record before, header and payload; zeros before the first |
| 4 | header checksum | CRC-32 of the header so far |

Integers are little-endian. A group is written and synced at once, and the next one only after it: so the last group may
be torn by a crash, and no other can be. Torn means cut short, or with a sector of the disk that was never written and
reads as zeros (no payload holds any). What is whole and wrong was changed after it was written: that is no tear, and
nothing starts from it, since it may have been acknowledged.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

MAGIC = b"SFGWJ001"
GENESIS = bytes(16)
_FIELDS = struct.Struct("<IIQQQI16s")
HEADER_BYTES = _FIELDS.size + 4
PAYLOAD_MAX = 2**31 - 1
SECTOR = 512


class CorruptError(RuntimeError):
    """The journal does not hold what was written. Nothing may start from it."""


class JournalError(RuntimeError):
    """The journal cannot be written: the disk refused, or another writer took over. Nothing uncommitted counts."""


class Record(NamedTuple):
    """One record as it stands in a file."""

    sequence: int
    epoch: int
    group: int
    records: int  # of the group
    previous: bytes
    payload: bytes
    hash: bytes
    end: int  # offset behind it


class Scan(NamedTuple):
    """Where the whole groups of a file end, and what follows them: nothing, or a torn group."""

    end: int
    sequence: int  # of the last whole record
    epoch: int
    hash: bytes


def pack(sequence: int, epoch: int, group: int, count: int, previous: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A record's bytes and its hash."""
    fields = _FIELDS.pack(len(payload), zlib.crc32(payload), sequence, epoch, group, count, previous)
    raw = fields + zlib.crc32(fields).to_bytes(4, "little") + payload
    return raw, hashlib.blake2b(raw, digest_size=16).digest()


def _header_at(content: bytes | mmap, offset: int) -> tuple[int, int, int, int, int, int, bytes] | None:
    """The fields of a sound header at `offset`, or None."""
    fields = content[offset : offset + _FIELDS.size]
    checksum = content[offset + _FIELDS.size : offset + HEADER_BYTES]
    if len(checksum) < 4 or zlib.crc32(fields) != int.from_bytes(checksum, "little"):
        return None
    return _FIELDS.unpack(fields)


def read_at(content: bytes | mmap, offset: int) -> Record | None:
    """The sound record at `offset`, or None."""
    header = _header_at(content, offset)
    if header is None:
        return None
    length, checksum, sequence, epoch, group, count, previous = header
    end = offset + HEADER_BYTES + length
    if length == 0 or length > PAYLOAD_MAX or end > len(content):
        return None
    raw = content[offset:end]
    payload = raw[HEADER_BYTES:]
    if zlib.crc32(payload) != checksum:
        return None
    return Record(sequence, epoch, group, count, previous, payload, hashlib.blake2b(raw, digest_size=16).digest(), end)


def groups(content: bytes | mmap, name: str, after: Scan | None, is_last: bool) -> Iterator[list[Record]]:
    """The whole groups of a file. `after` is how the file before ended, None where that is not known.

    A torn last group is left out, in the last file only. Raises CorruptError for everything else that is not as
    written.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise CorruptError(f"{name} does not begin as a journal does")
    offset, last = len(MAGIC), after
    while offset < len(content):
        found = _group_at(content, offset, name, last)
        if found is None:
            if not is_last:
                raise CorruptError(f"{name}, byte {offset}: a bad record in a file that was closed")
            _check_torn(content, offset, name, last.sequence + 1 if last else 1)
            return
        yield found
        end = found[-1]
        offset, last = end.end, Scan(end.end, end.sequence, end.epoch, end.hash)


def _group_at(content: bytes | mmap, offset: int, name: str, last: Scan | None) -> list[Record] | None:
    found: list[Record] = []
    while not found or len(found) < found[0].records:
        record = read_at(content, offset)
        if record is None:
            return None
        _check_follows(record, found, last, f"{name}, byte {offset}")
        found.append(record)
        offset = record.end
        last = Scan(record.end, record.sequence, record.epoch, record.hash)
    return found


def _check_follows(record: Record, group: list[Record], last: Scan | None, where: str) -> None:
    if last is not None:
        if record.sequence != last.sequence + 1 or record.previous != last.hash:
            raise CorruptError(f"{where}: record {record.sequence} does not follow record {last.sequence}")
        if record.epoch < last.epoch:
            raise CorruptError(
                f"{where}: record {record.sequence} is of writer {record.epoch}, after writer {last.epoch} came"
            )
    first = group[0] if group else record
    if record.group != first.sequence or record.records != first.records or record.records < 1:
        raise CorruptError(f"{where}: record {record.sequence} does not belong to its group")


def _check_torn(content: bytes | mmap, start: int, name: str, sequence: int) -> None:
    """Raise CorruptError unless what begins at `start` can be the group that a crash tore."""
    place = start
    while (record := read_at(content, place)) is not None:
        place = record.end
    header = _header_at(content, place)
    end = place + HEADER_BYTES + (header[0] if header else 0)
    if end <= len(content) and not _lost_sector(content, start, end):
        raise CorruptError(f"{name}, byte {place}: what stands there is whole and wrong: it was changed on the disk")
    for offset in range(place + 1, len(content) - HEADER_BYTES + 1):
        later = _header_at(content, offset)
        if later is not None and later[4] > sequence and read_at(content, offset) is not None:
            raise CorruptError(
                f"{name}, byte {place}: the group of record {sequence} is bad, and record {later[2]} follows in another"
            )


def _lost_sector(content: bytes | mmap, start: int, end: int) -> bool:
    """Whether a sector that has bytes between two offsets reads as zeros from `start` on."""
    sector = start - start % SECTOR
    while sector < end:
        part = content[max(sector, start) : sector + SECTOR]
        if part and not any(part):
            return True
        sector += SECTOR
    return False
