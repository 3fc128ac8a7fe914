"""An append-only journal of JSON lines: hash-chained, flushed to disk before it returns, honest about a torn tail."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import ShortfallError

GENESIS = "0" * 64
"""The `previous` of the first record."""

Record = dict[str, Any]


class JournalError(ShortfallError):
    """The journal's content is not what was appended: a changed, missing or foreign line."""


def canonical_json(value: object) -> bytes:
    """The one encoding of a JSON value that is hashed and signed: sorted keys, no spaces, no NaN; UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def record_hash(record: Record) -> str:
    """sha256 (hex) of a record without its own `hash`."""
    return hashlib.sha256(canonical_json({key: value for key, value in record.items() if key != "hash"})).hexdigest()


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds: its whole records, and what a crash left after them."""

    records: tuple[Record, ...]
    torn_tail: bytes  # bytes after the last whole line; empty in a sound journal

    @property
    def torn_tail_message(self) -> str | None:
        """One sentence about the torn tail, or None where there is none."""
        if not self.torn_tail:
            return None
        return (
            f"the line after record {len(self.records)} was cut off by a crash ({len(self.torn_tail)} bytes): "
            "it was never acknowledged and is left out"
        )


class Journal:
    """One file of records `{"sequence", "previous", ..., "hash"}`; `previous` is the hash of the record before.

    A record counts once its line ends in a newline. A write that a crash cut short leaves a tail without one: readers
    leave it out and report it, the next append sets it aside in `<name>.torn-<sequence>` and records that it did.
    One writer at a time: the caller holds a lock.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read or created yet."""
        self.path = path

    def read(self, last: int = 0, previous: str = GENESIS) -> JournalContent:
        """All whole records, their chain verified; it goes on behind record `last`, whose hash was `previous`.

        Raises JournalError naming the line where a record is unreadable, out of sequence or not what was hashed.
        """
        raw = self.path.read_bytes() if self.path.exists() else b""
        whole, newline, tail = raw.rpartition(b"\n")
        records: list[Record] = []
        for number, line in enumerate(whole.split(b"\n") if newline else [], start=last + 1):
            record = self._parse(line, number)
            if record.get("sequence") != number or record.get("previous") != previous:
                raise JournalError(
                    f"{self.path}:{number}: chain broken: sequence {record.get('sequence')} after {number - 1}, "
                    f"previous {str(record.get('previous'))[:16]}, expected {previous[:16]}; restore it from a copy"
                )
            actual = record_hash(record)
            if record.get("hash") != actual:
                raise JournalError(
                    f"{self.path}:{number}: record hash {str(record.get('hash'))[:16]}, content gives {actual[:16]}; "
                    "the line was changed: restore it from a copy"
                )
            previous = actual
            records.append(record)
        return JournalContent(tuple(records), tail)

    def append(self, fields: Record) -> Record:
        """Add one record with `fields` (no `sequence`, `previous`, `hash`) and return it once it is on disk.

        Raises JournalError when the existing content is unsound, OSError when the disk refuses; then nothing counts
        as appended.
        """
        content = self.read()
        if content.torn_tail:
            content = self._set_tail_aside(content)
        return self._write(content.records, fields)

    def _write(self, records: tuple[Record, ...], fields: Record) -> Record:
        record: Record = {
            **fields,
            "sequence": len(records) + 1,
            "previous": records[-1]["hash"] if records else GENESIS,
        }
        record["hash"] = record_hash(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            line = canonical_json(record) + b"\n"
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.path.parent)
        return record

    def _set_tail_aside(self, content: JournalContent) -> JournalContent:
        aside = self.path.with_name(f"{self.path.name}.torn-{len(content.records) + 1}")
        aside.write_bytes(content.torn_tail)
        with open(self.path, "r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) - len(content.torn_tail))
            os.fsync(file.fileno())
        note = self._write(content.records, {"action": "tail_repaired", "reason": content.torn_tail_message})
        return JournalContent((*content.records, note), b"")

    def _parse(self, line: bytes, number: int) -> Record:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise JournalError(f"{self.path}:{number}: not a JSON record ({error}); restore it from a copy") from error
        if not isinstance(record, dict):
            raise JournalError(f"{self.path}:{number}: holds a {type(record).__name__}, wanted an object")
        return record


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a file just created or renamed in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
