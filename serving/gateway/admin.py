"""The admin plane: what people, monitors and risk models ask of the gateway, as JSON over HTTP.

| | scope | |
| --- | --- | --- |
| GET /v1/state, orders, positions, limits, denials, proposals, events | read | |
| POST /v1/kill | kill | stop a scope; no second person |
| POST /v1/reconcile, arm, rearm | arm | compare the book; let orders through |
| POST /v1/limits/propose, day/propose, reload | risk | what is tighter holds, the rest waits for two people |
| POST /v1/limits/approve, day/approve, reload/approve, liquidate | risk | two people, by certificate but on paper |
| POST /v1/reset, day/tighten, day/end | risk | |
| POST /v1/posture | posture | tighten for a while |

Every change runs in the deciding thread; every view is read beside it. 401 nobody known, 403 not your scope, or the
same person twice, 409 not now, 413 too large, 415 another content type, 422 not a value of this API, 503 the deciding
thread is busy or the journal failed: it may or may not be done.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles

from serving.gateway.admin_auth import People
from serving.gateway.admin_commands import add_commands
from serving.gateway.admin_guard import REFUSALS, Guard, Reader, add_refusals
from serving.gateway.admin_views import limits_view, orders_view, positions_view, shown_view, state_view
from serving.gateway.deciding import BusyError
from serving.gateway.observing import Observing
from serving.gateway.proposals import proposals_view

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

PAGE = Path(__file__).parent / "page"
EVENTS_EVERY_S = 0.1
STATE_EVERY_S = 1.0
STREAMS_MAX = 20
Number = Annotated[int, Query(ge=0, le=2**63 - 1)]
Most = Annotated[int, Query(ge=1, le=10_000)]


def create_app(service: "GatewayService", seen: Observing) -> FastAPI:
    """The application over a running service."""
    app = FastAPI(title="Shortfall risk gateway", docs_url=None, redoc_url=None, openapi_url=None, responses=REFUSALS)
    app.state.people = People(lambda: service.reloading.access.people)
    app.state.paper = service.settings.paper
    add_refusals(app)
    _add_views(app, service, seen)
    add_commands(app, service)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(Guard)
    return app


def _add_views(app: FastAPI, service: "GatewayService", seen: Observing) -> None:
    streams: set[object] = set()

    @app.get("/v1/openapi.json", include_in_schema=False)
    def openapi(who: Reader) -> dict[str, Any]:
        return app.openapi()

    @app.get("/v1/state")
    def state(who: Reader) -> dict[str, Any]:
        """Standing, sessions, feeds, day, journal, and who asks."""
        return {**state_view(service), "you": {"subject": who.subject, "scopes": sorted(who.scopes)}, "last": seen.last}

    @app.get("/v1/orders")
    def orders(
        who: Reader,
        open: Annotated[bool, Query(description="Open ones alone")] = True,
        most: Most = 1_000,
    ) -> dict[str, Any]:
        """Orders, the latest first."""
        return {"orders": orders_view(service, open, most)}

    @app.get("/v1/positions")
    def positions(who: Reader) -> dict[str, Any]:
        """Positions and profit by leg, and the sums above them."""
        return positions_view(service)

    @app.get("/v1/limits")
    def limits(who: Reader) -> dict[str, Any]:
        """Limits in force and their use."""
        return limits_view(service)

    @app.get("/v1/denials")
    def denials(
        who: Reader,
        since: Number = 0,
        most: Most = 1_000,
    ) -> dict[str, Any]:
        """The last denials after number `since`."""
        return {"denials": shown_view(seen.denials, since, most), "by_control": dict(seen.denied), "last": seen.last}

    @app.get("/v1/proposals")
    def proposals(who: Reader) -> dict[str, Any]:
        """What waits for two people, and what each would let through."""
        return {"proposals": proposals_view(service)}

    @app.get("/v1/events", responses={200: {"content": {"text/event-stream": {}}}}, response_class=StreamingResponse)
    def events(who: Reader, since: Number | None = None) -> StreamingResponse:
        """Server-sent events: what happens, and the state each second; `since` also shows what came before."""
        if len(streams) >= STREAMS_MAX:  # what is left is for those who command
            raise BusyError(f"{STREAMS_MAX} streams of events are open already")
        may = partial(app.state.people.knows, who)
        stream = _stream(service, seen, seen.last if since is None else since, streams, may)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _stream(
    service: "GatewayService", seen: Observing, since: int, streams: set[object], may: Callable[[], bool]
) -> AsyncIterator[str]:
    me = object()
    streams.add(me)
    try:
        async for part in _parts(service, seen, since, may):
            yield part
    finally:
        streams.discard(me)


async def _parts(service: "GatewayService", seen: Observing, since: int, may: Callable[[], bool]) -> AsyncIterator[str]:
    told = 0.0
    loop = asyncio.get_running_loop()
    while not service.stopping and may():  # who was struck off hears no more
        for item in shown_view(seen.events, since, 1_000):
            since = item["n"]
            yield f"id: {item['n']}\nevent: {item['kind']}\ndata: {json.dumps(item, default=str)}\n\n"
        if loop.time() - told >= STATE_EVERY_S:
            told = loop.time()
            yield f"event: state\ndata: {json.dumps(state_view(service), default=str)}\n\n"
        await asyncio.sleep(EVENTS_EVERY_S)
