"""Reading the journal of parents without writing it: verify, replay, export.

`python -m serving.parents.audit verify|replay|export FOLDER`, `shortfall parents journal ...`.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from serving.journal import JournalError
from serving.parents.journal import files, follow, records, replay_file
from serving.parents.records import Snapshot, encode_record
from serving.parents.state import State


def state_hash(state: State) -> str:
    """sha256 (hex) of the snapshot of a state."""
    return hashlib.sha256(encode_record(state.snapshot(state.utc_ns))).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """Check every line of every file: chain, hashes, that each record follows, that each snapshot is its past.

    Raises JournalError naming the file and the line.
    """
    state, kinds, last = State(), Counter[str](), {}
    for path, line, record in records(folder):
        later = isinstance(record, Snapshot) and state.birth
        if later and encode_record(record) != encode_record(state.snapshot(record.utc_ns)):
            raise JournalError(f"{path}:{line['sequence']}: the snapshot is not what the lines before lead to")
        follow(state, path, line, record)
        kinds[type(record).__name__] += 1
        last = line
    names = files(folder)
    if not names:
        raise JournalError(f"{folder}: there is no journal here")
    return {
        "files": [path.name for path in names],
        "records": sum(kinds.values()),
        "kinds": dict(sorted(kinds.items())),
        "last_hash": last.get("hash", ""),
        "state_hash": state_hash(state),
        "torn_bytes": len(replay_file(names[-1])[1].torn_tail),
    }


def replay(folder: Path) -> dict[str, Any]:
    """What the last file leads to, as a restart would find it. Raises JournalError."""
    names = files(folder)
    if not names:
        raise JournalError(f"{folder}: there is no journal here")
    state, _ = replay_file(names[-1])
    return {
        "state_hash": state_hash(state),
        "taken": state.taken,
        "parents": [
            {
                "number": parent.number,
                "parent_id": parent.parent_id,
                "account": parent.account,
                "symbol": parent.symbol,
                "phase": parent.phase.name.lower(),
                "lots": parent.lots,
                "filled": parent.filled,
                "open_orders": [child.key for child in parent.open_children],
                "how": parent.how,
            }
            for parent in state.parents.values()
        ],
        "unanswered": list(state.unanswered),
    }


def export(folder: Path) -> Iterator[bytes]:
    """Each line as JSON with the name of its file. Raises JournalError."""
    for path, line, _ in records(folder):
        yield orjson.dumps({"file": path.name, **line})


def main(arguments: list[str]) -> int:
    """Run one of the three over a folder; the exit code is 0, 1 for a journal that is not sound, 2 for a wrong call."""
    if len(arguments) != 2 or arguments[0] not in ("verify", "replay", "export") or not Path(arguments[1]).is_dir():
        sys.stderr.write("usage: python -m serving.parents.audit verify|replay|export FOLDER\n")
        return 2
    what, folder = arguments[0], Path(arguments[1])
    out = sys.stdout.buffer
    try:
        if what == "export":
            for line in export(folder):
                out.write(line + b"\n")
        else:
            found = verify(folder) if what == "verify" else replay(folder)
            out.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    except (JournalError, OSError) as error:
        out.flush()
        sys.stderr.write(f"error: {error}\n")
        return 1
    out.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
