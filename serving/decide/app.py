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
from collections.abc import Awaitable, Callable, Mapping
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
TOO_LONG = "a body of more than"
Answer = tuple[int, bytes]
"""Status and JSON."""
Handler = Callable[[Receive], Awaitable[Answer]]
_JSON, _LENGTH = [(b"content-type", b"application/json")], b"content-length"
_encode = msgspec.json.Encoder().encode
_Message = TypeVar("_Message", DecideRequest, ForecastRequest)


def make_app(catalogue: Catalogue, gate: Gate, metrics: Metrics) -> "Guard":
    """The application; `gate` decides who may ask."""
    app = FastAPI(title="decide", docs_url=None, redoc_url=None, openapi_url=None)
    read_decide = msgspec.json.Decoder(DecideRequest).decode
    read_forecast = msgspec.json.Decoder(ForecastRequest).decode

    async def policies(request: Request) -> Response:
        refused = [f"{item.what}: {item.reason}" for item in catalogue.refusals]
        content = _encode(policies_reply(catalogue.policies(), refused))
        return Response(content, media_type="application/json")

    async def decide(receive: Receive) -> Answer:
        sha256 = None
        try:
            asked = _read(read_decide, await _body(receive))
            sha256 = asked.sha256
            loaded = await catalogue.ask(sha256)
            mask = None if asked.action_mask is None else _mask(asked.action_mask)
            found = loaded.decide(_floats(asked.observation), mask)
        except DecideError as error:
            return _failure(error, sha256)
        action = found.action if isinstance(found.action, int) else list(found.action)
        return 200, _encode(DecideReply(found.sha256, found.version, action, list(found.distribution)))

    async def forecast(receive: Receive) -> Answer:
        sha256 = None
        try:
            asked = _read(read_forecast, await _body(receive))
            sha256 = asked.sha256
            loaded = await catalogue.ask(sha256)
            values = loaded.forecast(_table(asked.features))
        except DecideError as error:
            return _failure(error, sha256)
        return 200, _encode(ForecastReply(sha256, loaded.policy.version, [float(value) for value in values]))

    app.add_route("/v1/policies", policies, methods=["GET"])
    for path, handler in (hot := {"/v1/decide": decide, "/v1/forecast": forecast}).items():
        app.add_route(path, _route(handler), methods=["POST"])
    return Guard(app, hot, gate, metrics)


class Guard:
    """Before anything else: who asks. Afterwards: how long it took, and what came of it.

    What is asked hundreds of times a second is answered here: routing, and middleware that it has no use for, would
    cost as much as the decision.
    """

    def __init__(self, app: ASGIApp, hot: Mapping[str, Handler], gate: Gate, metrics: Metrics) -> None:
        """Stand before `app`; `hot` are handlers of POST by path."""
        self._app, self._hot, self._gate, self._metrics = app, hot, gate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; lifespan messages pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        try:
            reason = self._gate.why_not(scope)
            handler = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
            if reason is not None:
                status, content = _failure(DecideError("unauthorised", reason), None)
            elif handler is not None:
                status, content = await handler(receive)
            else:
                status = await self._pass_on(scope, receive, send)
                return
            length = b"%d" % len(content)
            await send({"type": "http.response.start", "status": status, "headers": [*_JSON, (_LENGTH, length)]})
            await send({"type": "http.response.body", "body": content})
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - began)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Let FastAPI answer; gives the status."""
        status = 500

        async def watch(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, watch)
        return status


def _route(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The same handler behind FastAPI's routing."""

    async def route(request: Request) -> Response:
        status, content = await handler(request.receive)
        return Response(content, status, media_type="application/json")

    return route


async def _body(receive: Receive) -> bytes:
    """The whole body, refused as soon as it is too long, whatever its header said."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DecideError("refused", "the other end has gone")
        body += message.get("body", b"")
        if len(body) > BODY_MAX:
            raise DecideError("refused", f"{TOO_LONG} {BODY_MAX} bytes is not read")
        if not message.get("more_body", False):
            return body


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


def _failure(error: DecideError, sha256: str | None) -> Answer:
    status = 413 if str(error).startswith(TOO_LONG) else STATUS[error.reason]
    return status, _encode(ErrorReply(str(error), error.reason, sha256))
