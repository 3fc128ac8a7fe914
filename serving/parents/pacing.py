"""How time passes for the core: by the clock that the feed sets, or moment by moment with a venue in lockstep."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from serving.parents.core import Core
from serving.wire.feed import Beat, Opening, Snapshot, SymbolStatus, Until, Update
from serving.wire.feed_socket import FeedClient
from serving.wire.feed_state import Event

log = logging.getLogger(__name__)
TICK_S = 0.01


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


class Pacer:
    """Hands the feed to a core and says what time it is. `flush` does what the core then wants."""

    def __init__(
        self, core: Core, flush: Callable[[], None], speed: float, paces: bool, told_s: float, timeless: bool = False
    ) -> None:
        """`paces`: the venue waits for this process; `told_s`: it waits so long for reports that are on their way.

        `timeless`: the feed does not say when it sends, and counts as in time.
        """
        self._timeless = timeless
        self.clock = Clock(speed)
        self.changed = asyncio.Event()  # set by whoever changed what a step of lockstep may wait for
        self._core, self._flush, self._paces, self._told_s = core, flush, paces, told_s
        self._untils: asyncio.Queue[Until] = asyncio.Queue()
        self._lockstep = False
        self._missed: dict[str, int] = {}  # reports that were told, by strategy, and will never be heard

    def on_feed(self, event: Event) -> None:
        """An event of the feed."""
        if isinstance(event, Until):
            if self._lockstep:
                self._untils.put_nowait(event)
            return
        if isinstance(event, Opening):
            self._lockstep = event.lockstep
            if event.session != self._core.state.session:
                self._missed.clear()
        elif isinstance(event, Beat | Update | SymbolStatus | Snapshot):
            self.clock.heard(event.ts_ns)
            if not (self._lockstep and self._paces):  # a venue that waits for us: nothing is late
                self._core.on_lag(self._lag_ns(event.sent_ns))
        self._core.on_feed(event)

    def _lag_ns(self, sent_ns: int) -> int | None:
        if self._timeless:
            return 0
        return time.time_ns() - sent_ns if sent_ns else None

    async def tick(self, went_round: Callable[[], None]) -> None:
        """Let time pass by the clock, where the venue does not wait for anybody."""
        while True:
            await asyncio.sleep(TICK_S)
            went_round()
            if not self._lockstep and self.clock.known:
                self._core.advance(self.clock.now_ns(), time.time_ns())
                self._flush()

    async def pace(self, feed: FeedClient) -> None:
        """In lockstep: when all up to a moment was told, do what is due, and only then let the venue go on."""
        accounts = self._core.rules.accounts.values()
        own = {name for rules in accounts for name in (rules.strategy, rules.fallback_strategy)}
        while True:
            until = await self._untils.get()
            wanted = {name: count for name, count in until.told.items() if name in own}
            if not await self._wait(partial(self._have_heard, wanted), self._told_s):
                heard = self._core.state.heard
                log.warning("the venue told %s reports, %s were heard: the rest is given up", wanted, heard)
                self._missed = {name: count - heard.get(name, 0) for name, count in wanted.items()}
            self._core.advance(until.ts_ns, time.time_ns())
            self._flush()
            await self._wait(self._is_quiet, None)
            if self._paces:
                await feed.watermark(until.ts_ns, dict(self._core.state.sent))

    def _have_heard(self, wanted: Mapping[str, int]) -> bool:
        heard, missed = self._core.state.heard, self._missed
        return all(heard.get(name, 0) + missed.get(name, 0) >= count for name, count in wanted.items())

    def _is_quiet(self) -> bool:
        """Nothing that was asked for is still to come: no answer of a policy, no decision of the gateway."""
        core = self._core
        asking = any(run.question is not None or run.shadow is not None for run in core.runs.values())
        return not asking and not core.state.unanswered and not core.lines.why_down()

    async def _wait(self, condition: Callable[[], bool], limit_s: float | None) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


def write_ports(folder: Path, **ports: int) -> None:
    """Say in `ports.json` what was bound, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial_file = folder / f".ports.json.{os.getpid()}"
    partial_file.write_text(json.dumps(ports))
    os.replace(partial_file, folder / "ports.json")
