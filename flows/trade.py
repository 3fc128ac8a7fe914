"""`shortfall trade`: a day worked by the champion through every serving process, and its account against the backtest.

prepare the day -> start venue, decide, gateway, parents -> submit its parents -> conduct the day to the last one
-> stop all processes -> replay the parents' journal -> backtest the same parents -> report
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import ShortfallError
from flows.ids import lake
from flows.trade_backtest import backtest
from flows.trade_day import TradeDay, TradeParams
from flows.trade_desk import Desk, denials, start_desk, why_not_ready
from flows.trade_live import compare, read_live
from flows.trade_processes import Team
from flows.trade_report import RunFacts, summarise, table_rows, write_report
from serving.wire.feed import Beat, Until
from serving.wire.feed_socket import FeedClient
from serving.wire.feed_state import Event, Follower

POLL_S = 0.5
WINDOWS_S = 1.1
"""A gateway's message windows are full for a second after its start; a day in lockstep passes faster than that."""
READY_S = 60.0
LEAD_NS = 30_000_000_000
"""Pace real: a parent that arrives sooner than this after all is up is left out."""
QUIET_S = 120.0
"""A market that stands still for so long has lost somebody who paces it."""


@dataclass(frozen=True)
class Progress:
    """How far the day is."""

    now_ns: int
    opens_ns: int
    closes_ns: int
    parents: int
    done: int
    working: int
    fills: int  # of parents that are done
    filled_lots: int
    denials: int
    mean_is_bps: float | None


Show = Callable[[Progress], None]


def trade_day(
    day: TradeDay,
    params: TradeParams,
    show: Show = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Trade a prepared day to its report; gives what `shortfall trade --json` prints.

    Whatever happens, no process is left when this returns or raises. Raises ProcessFailedError where a process ended,
    ShortfallError where the day stood still or the gateway took nothing.
    """
    folder = lake().root / "trade" / f"{day.date}-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    names = ", ".join(sorted(market.instrument.symbol for market in day.days))
    say(f"{names} on {day.date}: {len(day.parents)} parents, policy version {day.version} ({day.bundle.kind})")
    say(f"logs: {folder / 'logs'}")
    began = time.monotonic()
    with Team(folder) as team:
        desk = start_desk(team, day, params)
        parents, market_s, refused = asyncio.run(_conduct(team, desk, day, params, show))
        seconds = time.monotonic() - began
    rows = compare(read_live(desk.parents_folder), backtest(day.bundle, day.days, parents, day.config), len(parents))
    run = RunFacts(params.pace, seconds, market_s, refused, team.codes(), team.killed, team.cpu_s)
    found = summarise(day, rows, run)
    found["report"] = str(write_report(folder, day, rows, found))
    head, table = table_rows(rows)
    return {**found, "head": [f"{title} {unit}".strip() for title, unit in head], "table": table}


async def _conduct(
    team: Team, desk: Desk, day: TradeDay, params: TradeParams, show: Show
) -> tuple[NDArray[np.void], float, int]:
    """Let the day pass until its last parent is done; the parents, seconds of the day, and what was denied."""
    conductor = Conductor(desk.feed_url, params.pace == "lockstep")
    follow = asyncio.create_task(conductor.run())
    headers = {"Authorization": f"Bearer {desk.parents_token}"}
    try:
        async with aiohttp.ClientSession(desk.parents_url, headers=headers) as http:
            await _until_ready(team, desk)
            await conductor.first()
            parents = day.parents
            if params.pace == "real":
                parents = parents[parents["start_ns"] > conductor.now_ns + LEAD_NS]
            for index, row in enumerate(parents):
                await _submit(http, day, row, index)
            began_ns = conductor.now_ns
            conductor.go()
            await _until_done(team, desk, conductor, day, http, len(parents), show)
            return parents, (conductor.now_ns - began_ns) / 1e9, await asyncio.to_thread(denials, desk)
    finally:
        follow.cancel()
        with suppress(asyncio.CancelledError):
            await follow


class Conductor:
    """Follows the venue's time; in lockstep it holds the market until `go`, and then never again."""

    def __init__(self, url: str, paces: bool) -> None:
        self.now_ns = 0
        self._paces = paces
        self._said: asyncio.Queue[int] = asyncio.Queue()
        self._first, self._go = asyncio.Event(), asyncio.Event()
        self._client = FeedClient(url, Follower([]), self._on_event, paces=paces)

    async def run(self) -> None:
        """Until cancelled."""
        follow = asyncio.create_task(self._client.run())
        try:
            await self._go.wait()
            await self._client.watermark(self.now_ns)  # what was said before this came is not said again
            while True:
                await self._client.watermark(await self._said.get())
        finally:
            follow.cancel()
            with suppress(asyncio.CancelledError):
                await follow

    def go(self) -> None:
        """Let the market move."""
        self._go.set()

    async def first(self) -> None:
        """Wait until the venue has said what time it is. Raises ShortfallError where it does not."""
        try:
            await asyncio.wait_for(self._first.wait(), READY_S)
        except TimeoutError as error:
            raise ShortfallError(f"the venue did not say what time it is within {READY_S:g} s") from error

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, Until | Beat) or not event.ts_ns:
            return
        self.now_ns = max(self.now_ns, event.ts_ns)
        self._first.set()
        if self._paces and isinstance(event, Until):
            self._said.put_nowait(event.ts_ns)


async def _until_ready(team: Team, desk: Desk) -> None:
    deadline = time.monotonic() + READY_S
    while why := await asyncio.to_thread(why_not_ready, desk):
        team.check()
        if time.monotonic() > deadline:
            raise ShortfallError(f"the gateway takes no orders after {READY_S:g} s: {why}")
        await asyncio.sleep(0.1)
    await asyncio.sleep(WINDOWS_S)


async def _submit(http: aiohttp.ClientSession, day: TradeDay, row: np.void, index: int) -> None:
    from flows.trade_desk import ACCOUNT

    wanted = {
        "parent_id": f"p{index}", "account": ACCOUNT, "symbol": day.instrument_of(row).symbol,
        "side": "buy" if row["side"] > 0 else "sell", "lots": int(row["lots"]),
        "horizon_s": int(row["horizon_ns"]) // 1_000_000_000, "start": int(row["start_ns"]),
    }  # fmt: skip
    async with http.post("/v1/parents", json=wanted) as answer:
        if answer.status != 202:
            raise ShortfallError(f"parent {wanted} was not taken: {answer.status} {(await answer.text())[:300]}")


async def _until_done(
    team: Team, desk: Desk, conductor: Conductor, day: TradeDay, http: aiohttp.ClientSession, count: int, show: Show
) -> None:
    """Poll until every parent is done. Raises where a process ends, or where the market stands still."""
    moved_ns, moved_at = conductor.now_ns, time.monotonic()
    costs: dict[str, tuple[float | None, int]] = {}
    while True:
        team.check()
        states = (await _get(http, "/v1/parents?limit=10000"))["parents"]
        for item in states:
            if item["ended_ns"] and item["parent_id"] not in costs:
                tca = await _get(http, f"/v1/parents/{item['parent_id']}/tca")
                costs[item["parent_id"]] = tca.get("is_bps"), len(tca["fills"])
        known = [cost for cost, _ in costs.values() if cost is not None]
        progress = Progress(
            now_ns=conductor.now_ns,
            opens_ns=min(market.windows[0][0] for market in day.days),
            closes_ns=max(market.windows[-1][1] for market in day.days),
            parents=count,
            done=len(costs),
            working=sum(item["status"] in ("working", "finishing") for item in states),
            fills=sum(fills for _, fills in costs.values()),
            filled_lots=sum(item["filled_lots"] for item in states),
            denials=await asyncio.to_thread(denials, desk),
            mean_is_bps=float(np.mean(known)) if known else None,
        )
        show(progress)
        if progress.done >= count:
            return
        if conductor.now_ns != moved_ns:
            moved_ns, moved_at = conductor.now_ns, time.monotonic()
        elif time.monotonic() - moved_at > QUIET_S:
            raise ShortfallError(f"the market stands at {moved_ns} ns for {QUIET_S:g} s: see the logs")
        await asyncio.sleep(POLL_S)


async def _get(http: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with http.get(path) as answer:
        content: dict[str, Any] = json.loads(await answer.read())
        if answer.status != 200:
            raise ShortfallError(f"parents answer {path} with {answer.status}: {str(content)[:300]}")
        return content
