"""Reading a journal without writing it: verify, replay, export.

`python -m serving.gateway.audit verify|replay|export FOLDER`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from serving.gateway.disk import Disk, RealDisk
from serving.gateway.events import Event, Snapshot, decode_event
from serving.gateway.journal import file_name, files, records, replay_file
from serving.gateway.records import MAGIC, CorruptError, Scan
from serving.gateway.state import State


def verify(disk: Disk) -> dict[str, Any]:
    """Check every record of every file: chain, checksums, order, that each event follows, that each snapshot is its
    past.

    Returns files, records, events by kind, the last hash, the state's hash and the bytes of a torn tail. Raises
    CorruptError naming the file and the place.
    """
    kinds: dict[str, int] = {}
    count, digest, end = 0, "", len(MAGIC)
    names = files(disk)
    state: State | None = State() if names[:1] == [file_name(1)] else None
    for name, record in records(disk):
        try:
            event = decode_event(record.payload)
            state = _step(state, event)
        except (ValueError, KeyError, ArithmeticError) as error:
            raise CorruptError(f"{name}: record {record.sequence} cannot follow the ones before: {error!r}") from error
        kind = type(event).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
        count, digest, end = count + 1, record.hash.hex(), record.end
    return {
        "files": names,
        "records": count,
        "events": dict(sorted(kinds.items())),
        "last_hash": digest,
        "state_hash": state.hash() if state else State().hash(),
        "torn_bytes": len(disk.read(names[-1])) - end if names else 0,
    }


def replay(disk: Disk) -> tuple[State, Scan]:
    """The state that the journal's last file leads to, as a restart would find it. Raises CorruptError."""
    names = files(disk)
    if not names:
        raise CorruptError("there is no journal here")
    return replay_file(disk, names[-1])


def export(disk: Disk) -> Iterator[bytes]:
    """Each record as a line of JSON: file, sequence, epoch, hash, event. Raises CorruptError."""
    encoder = msgspec.json.Encoder()
    for name, record in records(disk):
        yield encoder.encode(
            {
                "file": name,
                "sequence": record.sequence,
                "epoch": record.epoch,
                "hash": record.hash.hex(),
                "event": msgspec.Raw(record.payload),
            }
        )


def main(arguments: list[str]) -> int:
    """Run one of the three over a folder; the exit code is 0, 1 for a journal that is not sound, 2 for a wrong call."""
    if len(arguments) != 2 or arguments[0] not in ("verify", "replay", "export") or not Path(arguments[1]).is_dir():
        sys.stderr.write("usage: python -m serving.gateway.audit verify|replay|export FOLDER\n")
        return 2
    disk = RealDisk(Path(arguments[1]))
    out = sys.stdout.buffer
    try:
        if arguments[0] == "verify":
            out.write(msgspec.json.format(msgspec.json.encode(verify(disk))) + b"\n")
        elif arguments[0] == "replay":
            out.write(msgspec.json.format(replay(disk)[0].encoded()) + b"\n")
        else:
            for line in export(disk):
                out.write(line + b"\n")
    except CorruptError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _step(state: State | None, event: Event) -> State:
    if not isinstance(event, Snapshot):
        if state is None:
            raise ValueError("the first file does not begin with a snapshot")
        state.apply(event)
        return state
    if state is not None and state.hash() != event.state_hash:
        raise ValueError(f"the files before lead to the state {state.hash()[:16]}, not {event.state_hash[:16]}")
    fresh = State()
    fresh.apply(event)
    return fresh


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
