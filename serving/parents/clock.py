"""Time of the market by the feed, and what was bound where."""

import json
import os
import time
from pathlib import Path


class Clock:
    """The latest time that the feed told, carried on by the monotonic clock at `speed`; it never goes back."""

    def __init__(self, speed: float) -> None:
        self._speed, self._told_ns, self._told_at, self._now_ns = speed, 0, 0, 0

    @property
    def known(self) -> bool:
        """The feed told a time."""
        return self._told_ns > 0

    def heard(self, ts_ns: int) -> None:
        """The feed said that it is `ts_ns`."""
        if ts_ns >= self._told_ns:
            self._told_ns, self._told_at = ts_ns, time.monotonic_ns()

    def now_ns(self) -> int:
        """The market's time now."""
        elapsed = int((time.monotonic_ns() - self._told_at) * self._speed)
        self._now_ns = max(self._now_ns, self._told_ns + elapsed)
        return self._now_ns


def write_ports(folder: Path, **ports: int) -> None:
    """Say in `ports.json` what was bound, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".ports.json.{os.getpid()}"
    partial.write_text(json.dumps(ports))
    os.replace(partial, folder / "ports.json")
