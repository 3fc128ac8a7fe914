"""The venue's own log of everything that it received, by which others are judged: one JSON object a line, appended."""

import os
from pathlib import Path
from typing import Any

import orjson

SYNC_EVERY_NS = 1_000_000_000


class ReceivedLog:
    """Append-only. Each line has `n` (from 1), `utc_ns`, `venue_ns`, `client` and what came.

    A line is with the operating system before the message has any effect, and on the disk within a second.
    """

    def __init__(self, path: Path) -> None:
        """Open a new file; raises FileExistsError where there is one, since a log is never written twice."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.count = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError as error:
            raise FileExistsError(f"{path} exists: give each run of the venue a folder of its own") from error
        self._synced_ns = 0

    def write(self, utc_ns: int, venue_ns: int, client: str, what: str, body: dict[str, Any]) -> None:
        """Append a line. Raises OSError where it cannot be written whole."""
        self.count += 1
        head = {"n": self.count, "utc_ns": utc_ns, "venue_ns": venue_ns, "client": client, "what": what}
        line = orjson.dumps({**head, **body}) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"{self.path}: {written} of {len(line)} bytes written; the venue cannot keep its log")
        if utc_ns - self._synced_ns >= SYNC_EVERY_NS:
            os.fsync(self._file)
            self._synced_ns = utc_ns

    def close(self) -> None:
        """Sync and close."""
        os.fsync(self._file)
        os.close(self._file)


def read_received(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, in order. Raises ValueError where one is not whole or the count has a gap."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for expected, line in enumerate(lines, 1):
        if line["n"] != expected:
            raise ValueError(f"{path}: line {expected} says that it is {line['n']}")
    return lines
