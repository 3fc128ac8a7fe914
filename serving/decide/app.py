"""The HTTP face of a catalogue: FastAPI, with JSON by msgspec and no model in the routing's way.

| path | what |
| --- | --- |
| `GET /v1/policies` | champion, challenger, what is loaded, what was refused |
| `POST /v1/decide` | observation and mask to action, distribution, version |
| `POST /v1/forecast` | a window of features to forecasts |

Errors are `{"error", "reason", "sha256"}`: 401 unknown token, 404 policy not loaded, 413 body too large, 422 an input
that must not be acted on. Requests are answered in the event loop: a decision takes some fifty microseconds, less than
handing it to a thread would.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.decide.auth import Gate
from serving.decide.catalogue import Catalogue
from serving.decide.messages import (
    BODY_MAX,
    DecideReply,
    DecideRequest,
    ErrorReply,
    ForecastReply,
    ForecastRequest,
    policies_reply,
)
from serving.decide.metrics import Metrics
from serving.decide.protocol import DecideError

STATUS = {"unknown": 404, "refused": 422, "unauthorised": 401, "unavailable": 503, "late": 504}
_encode = msgspec.json.Encoder().encode
_Message = TypeVar("_Message", DecideRequest, ForecastRequest)


def make_app(catalogue: Catalogue, gate: Gate, metrics: Metrics) -> FastAPI:
    """The application; `gate` decides who may ask."""
    app = FastAPI(title="decide", docs_url=None, redoc_url=None, openapi_url=None)
    read_decide = msgspec.json.Decoder(DecideRequest).decode
    read_forecast = msgspec.json.Decoder(ForecastRequest).decode

    async def policies(request: Request) -> Response:
        refused = [f"{item.what}: {item.reason}" for item in catalogue.refusals]
        return _json(200, policies_reply(catalogue.policies(), refused))

    async def decide(request: Request) -> Response:
        sha256 = None
        try:
            asked = _read(read_decide, await _body(request))
            sha256 = asked.sha256
            loaded = await catalogue.ask(sha256)
            mask = None if asked.action_mask is None else _mask(asked.action_mask)
            found = loaded.decide(_floats(asked.observation), mask)
        except DecideError as error:
            return _failure(error, sha256)
        action = found.action if isinstance(found.action, int) else list(found.action)
        return _json(200, DecideReply(found.sha256, found.version, action, list(found.distribution)))

    async def forecast(request: Request) -> Response:
        sha256 = None
        try:
            asked = _read(read_forecast, await _body(request))
            sha256 = asked.sha256
            loaded = await catalogue.ask(sha256)
            values = loaded.forecast(_table(asked.features))
        except DecideError as error:
            return _failure(error, sha256)
        return _json(200, ForecastReply(sha256, loaded.policy.version, [float(value) for value in values]))

    # plain routes: FastAPI's own would parse and validate by pydantic what is decoded strictly here already
    app.add_route("/v1/policies", policies, methods=["GET"])
    app.add_route("/v1/decide", decide, methods=["POST"])
    app.add_route("/v1/forecast", forecast, methods=["POST"])
    app.add_middleware(Guard, gate=gate, metrics=metrics)
    return app


class Guard:
    """Before anything else: who asks. Afterwards: how long it took, and what came of it."""

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics) -> None:
        """Stand before `app`."""
        self._app, self._gate, self._metrics = app, gate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; lifespan messages pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def watch(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            reason = self._gate.why_not(scope)
            if reason is None:
                await self._app(scope, receive, watch)
            else:
                await _failure(DecideError("unauthorised", reason), None)(scope, receive, watch)
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - began)


async def _body(request: Request) -> bytes:
    """The whole body, refused as soon as it is too long, whatever its header said."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX:
            raise DecideError("refused", f"a body of more than {BODY_MAX} bytes is not read")
        parts.append(part)
    return b"".join(parts)


def _read(decode: Callable[[bytes], _Message], body: bytes) -> _Message:
    try:
        return decode(body)
    except msgspec.MsgspecError as error:
        raise DecideError("refused", f"the request cannot be read: {error}") from error


def _floats(values: list[float]) -> Any:
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused by name
        return np.array(values, np.float32)


def _mask(values: list[int]) -> Any:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise DecideError("refused", "action mask holds values other than 0 and 1") from error


def _table(rows: list[list[float]]) -> Any:
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise DecideError("refused", f"features have {len(rows)} rows of lengths {sorted(widths)}, not one length")
    return _floats(rows)  # type: ignore[arg-type]


def _json(status: int, message: msgspec.Struct) -> Response:
    return Response(_encode(message), status, media_type="application/json")


def _failure(error: DecideError, sha256: str | None) -> Response:
    status = 413 if str(error).startswith("a body of") else STATUS[error.reason]
    return _json(status, ErrorReply(str(error), error.reason, sha256))
